//! The device's side of a run: buffers, launches, and reading back.

mod profile;

use super::frame::frame_transforms;
use super::hierarchy::{self, CENTREDNESS_LEN, LOG_HEAD, Task};
use super::latent::TRANSFORM_LEN;
use super::layout::{
    Cubes, DeviceLimits, Hardware, Sizes, constants_of, natural, period_units_of, rows_of, shape, split,
};
use super::math::NEGLIGIBLE_EXPONENT;
use super::products::{self, Shape};
use crate::profile::{BatchTime, LaunchTime};
use cubecl::bytes::Bytes;
use cubecl::prelude::*;
use cubecl::server::Handle;
use infermark_backend::{BackendError, SviSettings};
use infermark_model::guide::{Guide, sigmoid, softplus};
use infermark_model::objective::{Objective, Weighted};
use infermark_model::optimizer::StepScalars;
use infermark_model::panel::Panel;
use infermark_model::parameterization::Parameterization;
use infermark_model::priors::Priors;
use infermark_model::site::{Layout, Site};
use infermark_model::svi::LossAndGradient;
use infermark_svi::NoiseSource;
use std::f64::consts::LOG2_E;

pub(crate) use super::layout::LOG_ENTRIES;

/// The loss of an iteration that was done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) loss: f64,
    pub(crate) effective_particles: f64,
    pub(crate) log_weights: Vec<f64>,
}

/// An engine, whatever its runtime.
pub(crate) trait Machine: Send {
    /// Compiles every kernel by an iteration that is then undone, and places the first iteration.
    fn prepare(&mut self, guide: &Guide) -> Result<(), BackendError>;

    /// Does up to [`LOG_ENTRIES`] iterations and reads their losses; the products' last step stays pending.
    fn iterate(&mut self, count: u32) -> Result<Vec<Outcome>, BackendError>;

    /// Makes the pending step, so that every parameter has made as many.
    fn settle(&mut self) -> Result<(), BackendError>;

    /// Places the present iteration and takes its loss and gradient, without a step.
    fn evaluate(&mut self) -> Result<LossAndGradient, BackendError>;

    /// The guide's parameters now.
    fn guide(&self) -> Result<Guide, BackendError>;

    /// Where an iteration's time goes; the machine is used up.
    fn profile(&mut self) -> Result<(Vec<LaunchTime>, Vec<BatchTime>), BackendError>;
}

/// What an engine starts from.
pub(crate) struct Start<'a> {
    pub(crate) panel: &'a Panel,
    pub(crate) priors: Priors,
    pub(crate) parameterization: Parameterization,
    pub(crate) settings: &'a SviSettings,
    pub(crate) guide: &'a Guide,
    pub(crate) noise: NoiseSource,
    /// The iteration to begin with.
    pub(crate) iteration: u32,
    pub(crate) native_exp2: bool,
    pub(crate) cubes: Option<usize>,
}

struct Buffer {
    handle: Handle,
    len: usize,
}

impl Buffer {
    fn arg<R: Runtime>(&self) -> ArrayArg<R> {
        // SAFETY: `len` is the number of elements that the buffer was made of.
        unsafe { ArrayArg::from_raw_parts(self.handle.clone(), self.len) }
    }
}

/// The part of the buffers that a run changes.
struct Changing {
    state: Buffer,
    particles: Buffer,
    frame: Buffer,
    table: Buffer,
    cube_sums: Buffer,
    period_sums: Buffer,
    prior_sums: Buffer,
    centredness: Buffer,
    log: Buffer,
}

/// See the module.
pub(crate) struct Engine<R: Runtime> {
    client: ComputeClient<R>,
    device: String,
    layout: Layout,
    order: Vec<u32>,
    priors: Priors,
    parameterization: Parameterization,
    settings: SviSettings,
    noise: NoiseSource,
    shape: Shape,
    sizes: Sizes,
    cube_count: u32,
    ln_factorials: f64,
    rows: Buffer,
    units: Buffer,
    constants: Buffer,
    walk: Buffer,
    cubes: Buffer,
    category_cubes: Buffer,
    period_units: Buffer,
    record: Buffer,
    changing: Changing,
    first_iteration: u32,
    iteration: u32,
    /// Which half of the prior sums belongs to the iteration that is placed.
    half: u32,
    step_pending: bool,
}

/// A buffer of exactly these numbers.
fn upload<R: Runtime, T: CubeElement + Send + Sync>(
    client: &ComputeClient<R>,
    values: Vec<T>,
) -> Result<Buffer, String> {
    let len = values.len();
    // Pooled pages would reserve many times what a column of the panel takes.
    let handle = client
        .memory_persistent_allocation(values, |values| client.create(Bytes::from_elems(values)))
        .map_err(|e| format!("{e:?}"))?;
    Ok(Buffer { handle, len })
}

impl<R: Runtime> Engine<R> {
    /// Uploads the panel and the guide. `barrier` says whether the device's compiler may regroup sums.
    pub(crate) fn new(
        client: ComputeClient<R>,
        limits: DeviceLimits,
        barrier: bool,
        start: Start<'_>,
    ) -> Result<Self, BackendError> {
        let layout = start.panel.layout();
        let known = &client.properties().hardware;
        let hardware = Hardware {
            threads: (known.max_units_per_cube.min(known.max_cube_dim.0)) as usize,
            shared_bytes: known.max_shared_memory_size,
            multiprocessors: known.num_streaming_multiprocessors.map(|n| n as usize),
        };
        let recorded = matches!(start.noise, NoiseSource::Recorded(_));
        let wanted = Shape {
            particles: start.settings.particles,
            tiles: 1,
            lanes: 1,
            groups: 1,
            chunk: 1,
            gaps: !start.panel.is_dense() || !layout.periods.is_multiple_of(4),
            learned: start.parameterization == Parameterization::Learned,
            barrier,
            recorded,
            native_exp2: start.native_exp2,
        };
        let shape = shape(wanted, layout.periods, hardware).map_err(|what| BackendError::Unsupported {
            backend: crate::NAME,
            what,
        })?;
        let order = start.panel.products_by_category();
        let cubes = Cubes::cut(start.panel, &order, start.cubes, hardware);
        let sizes = Sizes::new(&layout, start.settings.particles, cubes.count(), recorded);
        sizes.check(&limits)?;
        let cube_count = cubes.count() as u32;
        let device = limits.device;
        let failed = |reason: String| BackendError::Device {
            device: device.clone(),
            reason,
        };
        let (rows, units) = rows_of(start.panel, &order);
        let rows = upload(&client, rows).map_err(failed)?;
        let units = upload(&client, units).map_err(failed)?;
        let constants = upload(&client, constants_of(start.panel, &order)).map_err(failed)?;
        let walk = upload(&client, order.clone()).map_err(failed)?;
        let category_cubes = upload(&client, cubes.of_category).map_err(failed)?;
        let cubes = upload(&client, cubes.words).map_err(failed)?;
        let period_units = upload(&client, period_units_of(start.panel)).map_err(failed)?;
        let record = upload(&client, vec![0.0f32; sizes.record]).map_err(failed)?;
        let changing = Changing::new(
            &client,
            &layout,
            &order,
            &start.priors,
            start.parameterization,
            &sizes,
            start.settings.particles,
            start.guide,
        )
        .map_err(failed)?;
        Ok(Engine {
            layout,
            order,
            priors: start.priors,
            parameterization: start.parameterization,
            settings: start.settings.clone(),
            noise: start.noise,
            shape,
            sizes,
            cube_count,
            ln_factorials: start.panel.sums().ln_factorials,
            rows,
            units,
            constants,
            walk,
            cubes,
            category_cubes,
            period_units,
            record,
            changing,
            first_iteration: start.iteration,
            iteration: start.iteration,
            half: 0,
            step_pending: false,
            client,
            device,
        })
    }

    fn failed(&self, reason: impl std::fmt::Debug) -> BackendError {
        BackendError::Device {
            device: self.device.clone(),
            reason: format!("{reason:?}"),
        }
    }

    fn learned(&self) -> bool {
        self.parameterization == Parameterization::Learned
    }

    /// Scalars of an iteration's step.
    fn scalars(&self, iteration: u32) -> StepScalars {
        let mut scalars = self.settings.optimizer.scalars(u64::from(iteration));
        if let Some(rate) = self.noise.learning_rate(iteration) {
            scalars.learning_rate = rate;
        }
        scalars
    }

    fn seed(&self) -> u64 {
        match self.noise {
            NoiseSource::Philox { seed } => seed,
            NoiseSource::Recorded(_) => 0,
        }
    }

    /// Uploads an iteration's recorded noise. Beyond the record the last noise stays: a run draws one iteration ahead of
    /// its last step.
    fn load_record(&mut self, iteration: u32) -> Result<(), BackendError> {
        let NoiseSource::Recorded(recording) = &self.noise else {
            return Ok(());
        };
        if let Some(noise) = recording.noise.get(iteration as usize) {
            let values: Vec<f32> = noise.iter().flatten().map(|x| *x as f32).collect();
            self.record = upload(&self.client, values).map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    fn launch_products(&self, step_only: bool) {
        // The pending step is the last iteration's.
        let scalars = self.scalars(self.iteration.saturating_sub(1));
        let adam = &self.settings.optimizer;
        let (layout, changing) = (&self.layout, &self.changing);
        // All T rates together stay below a quarter of the anchor.
        let headroom = (layout.periods as f64).log2() + 2.0;
        // SAFETY: the kernel's indices stay within the buffers, whose sizes come from the same layout: products
        // below `product_count` in the columns, cubes below the launch's count, vectors below `stride` in a product.
        unsafe {
            products::products::launch_unchecked::<R>(
                &self.client,
                CubeCount::Static(self.cube_count, 1, 1),
                CubeDim::new_2d(self.shape.lanes as u32, self.shape.groups as u32),
                self.rows.arg(),
                self.units.arg(),
                self.constants.arg(),
                self.walk.arg(),
                self.cubes.arg(),
                changing.state.arg(),
                changing.particles.arg(),
                changing.frame.arg(),
                changing.table.arg(),
                changing.cube_sums.arg(),
                changing.period_sums.arg(),
                self.record.arg(),
                layout.products as u32,
                layout.latents() as u32,
                layout.categories as u32,
                layout.periods.div_ceil(4) as u32,
                u32::from(self.step_pending),
                self.iteration,
                self.seed() as u32,
                (self.seed() >> 32) as u32,
                0,
                scalars.learning_rate as f32,
                scalars.first_correction as f32,
                scalars.second_correction as f32,
                adam.b1 as f32,
                adam.b2 as f32,
                (1.0 - adam.b1) as f32,
                (1.0 - adam.b2) as f32,
                adam.eps as f32,
                adam.weight_decay as f32,
                (self.priors.clip_low * LOG2_E) as f32,
                (self.priors.clip_high * LOG2_E) as f32,
                headroom as f32,
                self.priors.product_effect_mean as f32,
                self.shape,
                step_only,
            );
        }
    }

    /// `half` is the half of the prior sums that is read; places go to the other one. `draw` is the iteration placed.
    fn launch_hierarchy(&self, task: Task, half: u32, draw: u32) {
        let scalars = self.scalars(self.iteration);
        let adam = &self.settings.optimizer;
        let (layout, changing) = (&self.layout, &self.changing);
        let factorials = split(self.ln_factorials);
        let cubes = match (task.periods, task.top) {
            (true, true) => layout.categories + 1,
            (true, false) => layout.categories,
            _ => 1,
        };
        let tempering = match self.settings.objective {
            Objective::Renyi { alpha } => 1.0 - alpha,
            Objective::Elbo => 0.0,
        };
        let ln_sd = Site::ALL.map(|site| self.priors.sd(site).ln() as f32);
        // SAFETY: as for the products.
        unsafe {
            hierarchy::hierarchy::launch_unchecked::<R>(
                &self.client,
                CubeCount::Static(cubes as u32, 1, 1),
                CubeDim::new_1d(hierarchy::THREADS as u32),
                changing.cube_sums.arg(),
                changing.period_sums.arg(),
                self.category_cubes.arg(),
                self.period_units.arg(),
                self.record.arg(),
                changing.state.arg(),
                changing.particles.arg(),
                changing.frame.arg(),
                changing.table.arg(),
                changing.prior_sums.arg(),
                changing.centredness.arg(),
                changing.log.arg(),
                self.cube_count,
                layout.categories as u32,
                layout.periods as u32,
                layout.products as u32,
                layout.latents() as u32,
                layout.periods.div_ceil(4) as u32,
                half,
                self.iteration % LOG_ENTRIES,
                draw,
                self.seed() as u32,
                (self.seed() >> 32) as u32,
                0,
                scalars.learning_rate as f32,
                scalars.first_correction as f32,
                scalars.second_correction as f32,
                adam.b1 as f32,
                adam.b2 as f32,
                (1.0 - adam.b1) as f32,
                (1.0 - adam.b2) as f32,
                adam.eps as f32,
                adam.weight_decay as f32,
                factorials[0],
                factorials[1],
                tempering as f32,
                self.priors.global_a_mean as f32,
                self.priors.time_cat_effects_mean as f32,
                ln_sd[0],
                ln_sd[1],
                ln_sd[2],
                ln_sd[3],
                ln_sd[4],
                task,
            );
        }
    }

    /// A launch of the hierarchy that does nothing yet.
    fn task(&self) -> Task {
        let elbo = match self.settings.objective {
            Objective::Elbo => true,
            Objective::Renyi { alpha } => alpha == 1.0,
        };
        Task {
            particles: self.settings.particles,
            back: false,
            learn: false,
            place: false,
            periods: false,
            top: false,
            learned: self.learned(),
            elbo,
            barrier: self.shape.barrier,
            recorded: self.shape.recorded,
        }
    }

    /// Draws and places the present iteration above the products.
    fn place(&mut self) -> Result<(), BackendError> {
        self.load_record(self.iteration)?;
        let task = Task {
            place: true,
            periods: true,
            top: true,
            ..self.task()
        };
        self.launch_hierarchy(task, 1 - self.half, self.iteration);
        Ok(())
    }

    /// One iteration, and the places of the next.
    fn iterate_once(&mut self) -> Result<(), BackendError> {
        self.launch_products(false);
        self.advance_hierarchy()
    }

    /// What follows the pass over the products: derivatives back and a step above them, and the places of the next
    /// iteration.
    fn advance_hierarchy(&mut self) -> Result<(), BackendError> {
        let next = self.iteration + 1;
        let back = Task {
            back: true,
            learn: true,
            ..self.task()
        };
        if self.learned() {
            self.launch_hierarchy(
                Task {
                    periods: true,
                    ..back
                },
                self.half,
                next,
            );
            self.load_record(next)?;
            let top = Task {
                place: true,
                top: true,
                ..back
            };
            self.launch_hierarchy(top, self.half, next);
            let places = Task {
                place: true,
                periods: true,
                ..self.task()
            };
            self.launch_hierarchy(places, self.half, next);
        } else {
            self.load_record(next)?;
            let all = Task {
                place: true,
                periods: true,
                top: true,
                ..back
            };
            self.launch_hierarchy(all, self.half, next);
        }
        self.iteration = next;
        self.half = 1 - self.half;
        self.step_pending = true;
        Ok(())
    }

    fn read(&self, buffer: &Buffer) -> Result<Vec<f32>, BackendError> {
        // On wgpu only this tells of launches that failed; a read would give what was there before.
        self.client.flush().map_err(|e| self.failed(e))?;
        let bytes = self
            .client
            .read_one(buffer.handle.clone())
            .map_err(|e| self.failed(e))?;
        Ok(f32::from_bytes(&bytes).to_vec())
    }

    /// Outcomes of the iterations from `first` on.
    fn outcomes(&self, first: u32, count: u32) -> Result<Vec<Outcome>, BackendError> {
        let particles = self.settings.particles;
        let width = LOG_HEAD + 2 * particles;
        let log = self.read(&self.changing.log)?;
        let outcome = |i: u32| {
            let entry = &log[(i % LOG_ENTRIES) as usize * width..][..width];
            let pair = |i: usize| f64::from(entry[i]) + f64::from(entry[i + 1]);
            Outcome {
                loss: pair(0),
                effective_particles: f64::from(entry[2]),
                log_weights: (0..particles).map(|k| pair(LOG_HEAD + 2 * k)).collect(),
            }
        };
        Ok((first..first + count).map(outcome).collect())
    }

    fn centredness(&self, column: usize) -> Result<Option<[f64; 5]>, BackendError> {
        if !self.learned() {
            return Ok(None);
        }
        let all = self.read(&self.changing.centredness)?;
        Ok(Some(std::array::from_fn(|site| {
            f64::from(all[site * CENTREDNESS_LEN + column])
        })))
    }
}

impl<R: Runtime> Machine for Engine<R> {
    fn prepare(&mut self, guide: &Guide) -> Result<(), BackendError> {
        self.place()?;
        self.iterate_once()?;
        self.settle()?;
        self.changing = Changing::new(
            &self.client,
            &self.layout,
            &self.order,
            &self.priors,
            self.parameterization,
            &self.sizes,
            self.settings.particles,
            guide,
        )
        .map_err(|e| self.failed(e))?;
        self.iteration = self.first_iteration;
        self.half = 0;
        self.step_pending = false;
        self.place()?;
        // Waits until everything is compiled and done.
        self.read(&self.changing.log).map(drop)
    }

    fn iterate(&mut self, count: u32) -> Result<Vec<Outcome>, BackendError> {
        let first = self.iteration;
        for _ in 0..count {
            self.iterate_once()?;
        }
        self.outcomes(first, count)
    }

    fn profile(&mut self) -> Result<(Vec<LaunchTime>, Vec<BatchTime>), BackendError> {
        self.measure()
    }

    fn settle(&mut self) -> Result<(), BackendError> {
        if self.step_pending {
            self.launch_products(true);
            self.step_pending = false;
        }
        self.client.flush().map_err(|e| self.failed(e))
    }

    fn evaluate(&mut self) -> Result<LossAndGradient, BackendError> {
        self.place()?;
        self.launch_products(false);
        let back = Task {
            back: true,
            ..self.task()
        };
        if self.learned() {
            self.launch_hierarchy(
                Task {
                    periods: true,
                    ..back
                },
                self.half,
                0,
            );
            self.launch_hierarchy(Task { top: true, ..back }, self.half, 0);
        } else {
            let all = Task {
                periods: true,
                top: true,
                ..back
            };
            self.launch_hierarchy(all, self.half, 0);
        }
        let outcome = self
            .outcomes(self.iteration, 1)?
            .pop()
            .expect("one was asked for");
        let state = self.read(&self.changing.state)?;
        let particles = self.read(&self.changing.particles)?;
        let weights = self.read(&self.changing.frame)?[..self.settings.particles].to_vec();
        let (l, k) = (self.layout.latents(), self.settings.particles);
        let mut gradient = Guide {
            loc: vec![0.0; l],
            unconstrained_scale: vec![0.0; l],
            unconstrained_centredness: self.centredness(3)?,
        };
        for j in 0..l {
            let to = natural(&self.layout, &self.order, j);
            let u = f64::from(state[l + j]);
            let (mut by_loc, mut by_sigma) = (0.0, 1.0 / softplus(u));
            for (p, weight) in weights.iter().enumerate() {
                let weighted = f64::from(*weight) * f64::from(particles[(k + p) * l + j]);
                by_loc += weighted;
                by_sigma += weighted * f64::from(particles[p * l + j]);
            }
            gradient.loc[to] = -by_loc;
            gradient.unconstrained_scale[to] = -by_sigma * sigmoid(u);
        }
        Ok(LossAndGradient {
            log_weights: outcome.log_weights,
            weighted: Weighted {
                loss: outcome.loss,
                weights: weights.iter().map(|w| f64::from(*w)).collect(),
                effective_particles: outcome.effective_particles,
            },
            gradient,
        })
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        let state = self.read(&self.changing.state)?;
        let l = self.layout.latents();
        let mut guide = Guide {
            loc: vec![0.0; l],
            unconstrained_scale: vec![0.0; l],
            unconstrained_centredness: self.centredness(0)?,
        };
        for j in 0..l {
            let to = natural(&self.layout, &self.order, j);
            guide.loc[to] = f64::from(state[j]);
            guide.unconstrained_scale[to] = f64::from(state[l + j]);
        }
        Ok(guide)
    }
}

impl Changing {
    #[allow(clippy::too_many_arguments)] // All of it makes the start, and nothing else goes together.
    fn new<R: Runtime>(
        client: &ComputeClient<R>,
        layout: &Layout,
        order: &[u32],
        priors: &Priors,
        parameterization: Parameterization,
        sizes: &Sizes,
        particles: usize,
        guide: &Guide,
    ) -> Result<Self, String> {
        let latents = layout.latents();
        let mut state = vec![0.0f32; sizes.state];
        for j in 0..latents {
            let from = natural(layout, order, j);
            state[j] = guide.loc[from] as f32;
            state[latents + j] = guide.unconstrained_scale[from] as f32;
        }
        let mut frame = vec![0.0f32; sizes.frame];
        // Healthy until a loss says otherwise.
        frame[particles] = 1.0;
        let transforms = guide.centredness(parameterization).transforms(priors);
        for (site, transform) in transforms.iter().enumerate() {
            let at = frame_transforms(particles) + TRANSFORM_LEN * site;
            frame[at..at + TRANSFORM_LEN].copy_from_slice(&[
                transform.centredness as f32,
                transform.ln_sd as f32,
                transform.stretch as f32,
                transform.precision as f32,
            ]);
        }
        let mut centredness = vec![0.0f32; sizes.centredness];
        for (site, u) in guide.unconstrained_centredness.iter().flatten().enumerate() {
            centredness[site * CENTREDNESS_LEN] = *u as f32;
        }
        let zeros = |n: usize| upload(client, vec![0.0f32; n]);
        Ok(Changing {
            state: upload(client, state)?,
            particles: zeros(sizes.particles)?,
            frame: upload(client, frame)?,
            table: upload(client, vec![NEGLIGIBLE_EXPONENT; sizes.table])?,
            cube_sums: zeros(sizes.cube_sums)?,
            period_sums: zeros(sizes.period_sums)?,
            prior_sums: zeros(sizes.prior_sums)?,
            centredness: upload(client, centredness)?,
            log: zeros(sizes.log)?,
        })
    }
}
