//! The launches of an iteration, and their arguments.

use super::super::axes::AxesLaunch;
use super::super::crossing::Crossing;
use super::super::fold;
use super::super::hierarchy::{self, SitesLaunch, Task, WeighingLaunch};
use super::super::latent::{DrawLaunch, StepLaunch};
use super::super::layout::{LOG_ENTRIES, split};
use super::super::products::{self, ModelLaunch};
use super::super::two_float::{BarrierLaunch, TwoLaunch};
use super::Engine;
use super::buffers::upload;
use super::plan::Plan;
use cubecl::prelude::*;
use infermark_backend::BackendError;
use infermark_model::Site;
use infermark_model::objective::Objective;
use infermark_svi::NoiseSource;
use std::f64::consts::LOG2_E;

/// The arguments that both launches share. CubeCL's `new` takes the fields in the order in which the struct
/// has them.
impl Plan {
    fn axes<R: Runtime>(&self) -> AxesLaunch<R> {
        let layout = &self.part.own;
        AxesLaunch::new(
            layout.categories as u32,
            layout.periods as u32,
            layout.products as u32,
            layout.latents() as u32,
            layout.periods.div_ceil(4) as u32,
        )
    }

    /// An iteration's step.
    fn step<R: Runtime>(&self, iteration: u32) -> StepLaunch<R> {
        let adam = &self.settings.optimizer;
        let scalars = adam.scalars(u64::from(iteration));
        let rate = self.noise.learning_rate(iteration);
        StepLaunch::new(
            rate.unwrap_or(scalars.learning_rate) as f32,
            scalars.first_correction as f32,
            scalars.second_correction as f32,
            adam.b1 as f32,
            adam.b2 as f32,
            (1.0 - adam.b1) as f32,
            (1.0 - adam.b2) as f32,
            adam.eps as f32,
            adam.weight_decay as f32,
        )
    }

    /// An iteration's noise.
    fn draw<R: Runtime>(&self, iteration: u32) -> DrawLaunch<R> {
        let seed = match self.noise {
            NoiseSource::Philox { seed } => seed,
            NoiseSource::Recorded(_) => 0,
        };
        let whole = &self.part.whole;
        DrawLaunch::new(
            iteration,
            seed as u32,
            (seed >> 32) as u32,
            whole.products as u32,
            whole.latents() as u32,
            self.recorded,
        )
    }

    fn barrier<R: Runtime>(&self) -> BarrierLaunch<R> {
        BarrierLaunch::new(0, self.barrier)
    }
}

impl<R: Runtime> Engine<R> {
    /// Uploads an iteration's recorded noise. Beyond the record the last noise stays: a run draws one iteration ahead of
    /// its last step.
    fn load_record(&mut self, iteration: u32) -> Result<(), BackendError> {
        if let Some(noise) = self.plan.noise_of(iteration) {
            self.given.record = upload(&self.client, noise).map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    pub(super) fn launch_products(&self, step_only: bool) {
        let (plan, given, changing) = (&self.plan, &self.given, &self.changing);
        let (priors, shape) = (&plan.priors, plan.shape);
        let model = ModelLaunch::new(
            (priors.clip_low * LOG2_E) as f32,
            (priors.clip_high * LOG2_E) as f32,
            priors.product_effect_mean as f32,
        );
        // SAFETY: the kernel's indices stay within the buffers, whose sizes come from the same layout: products
        // below N in the columns, cubes below the launch's count, vectors below `stride` in a product.
        unsafe {
            products::products::launch_unchecked::<R>(
                &self.client,
                CubeCount::Static(plan.cube_count, 1, 1),
                CubeDim::new_2d(shape.lanes as u32, shape.groups as u32),
                given.rows.arg(),
                given.units.arg(),
                given.constants.arg(),
                given.order.arg(),
                given.cubes.arg(),
                changing.state.arg(),
                changing.particles.arg(),
                changing.frame.arg(),
                changing.table.arg(),
                changing.cube_sums.arg(),
                changing.period_sums.arg(),
                given.record.arg(),
                plan.axes(),
                model,
                // The pending step is the last iteration's.
                plan.step(self.iteration.saturating_sub(1)),
                plan.draw(self.iteration),
                plan.barrier(),
                u32::from(self.step_pending),
                shape,
                step_only,
            );
        }
    }

    /// Adds up the sums of the products' cubes by category.
    pub(super) fn launch_fold(&self) {
        let (plan, given, changing) = (&self.plan, &self.given, &self.changing);
        let layout = &plan.part.own;
        let cubes = plan.sums.cubes(layout.categories, layout.periods);
        // SAFETY: as for the products.
        unsafe {
            fold::fold::launch_unchecked::<R>(
                &self.client,
                CubeCount::Static(cubes as u32, 1, 1),
                CubeDim::new_1d(hierarchy::THREADS as u32),
                changing.cube_sums.arg(),
                changing.period_sums.arg(),
                given.category_cubes.arg(),
                changing.folded.arg(),
                plan.axes(),
                plan.barrier(),
                plan.cube_count,
                plan.sums,
            );
        }
    }

    /// `half` is the half of the prior sums that is read; places go to the other one. `draw` is the iteration placed.
    fn launch_hierarchy(&self, task: Task, half: u32, draw: u32) {
        let (plan, given, changing) = (&self.plan, &self.given, &self.changing);
        let (layout, priors) = (&plan.part.own, &plan.priors);
        let cubes = match (task.periods, task.top) {
            (true, true) => layout.categories + 1,
            (true, false) => layout.categories,
            _ => 1,
        };
        let tempering = match plan.settings.objective {
            Objective::Renyi { alpha } => 1.0 - alpha,
            Objective::Elbo => 0.0,
        };
        let ln_sd = Site::REPARAMETERIZED.map(|site| priors.sd(site).ln() as f32);
        let sites = SitesLaunch::new(
            priors.global_a_mean as f32,
            priors.time_cat_effects_mean as f32,
            ln_sd[0],
            ln_sd[1],
            ln_sd[2],
            ln_sd[3],
            ln_sd[4],
        );
        let [hi, lo] = split(plan.ln_factorials);
        let weighing = WeighingLaunch::new(TwoLaunch::new(hi, lo), tempering as f32);
        // SAFETY: as for the products.
        unsafe {
            hierarchy::hierarchy::launch_unchecked::<R>(
                &self.client,
                CubeCount::Static(cubes as u32, 1, 1),
                CubeDim::new_1d(hierarchy::THREADS as u32),
                changing.folded.arg(),
                given.period_units.arg(),
                given.record.arg(),
                changing.state.arg(),
                changing.particles.arg(),
                changing.frame.arg(),
                changing.table.arg(),
                changing.prior_sums.arg(),
                changing.centredness.arg(),
                changing.log.arg(),
                plan.axes(),
                sites,
                weighing,
                plan.step(self.iteration),
                plan.draw(draw),
                plan.barrier(),
                half,
                self.iteration % LOG_ENTRIES,
                task,
            );
        }
    }

    /// Draws and places the present iteration above the products.
    pub(super) fn place(&mut self) -> Result<(), BackendError> {
        self.load_record(self.iteration)?;
        let task = Task {
            place: true,
            periods: true,
            top: true,
            ..self.plan.task()
        };
        self.launch_hierarchy(task, 1 - self.half, self.iteration);
        Ok(())
    }

    /// One iteration, and the places of the next.
    pub(super) fn iterate_once(&mut self) -> Result<(), BackendError> {
        self.launch_products(false);
        self.launch_fold();
        self.advance_hierarchy()
    }

    /// What follows the pass over the products: derivatives back and a step above them, and the places of the next
    /// iteration.
    pub(super) fn advance_hierarchy(&mut self) -> Result<(), BackendError> {
        let next = self.iteration + 1;
        let back = Task {
            back: true,
            learn: true,
            ..self.plan.task()
        };
        if self.plan.learned() {
            let periods = Task {
                periods: true,
                ..back
            };
            self.launch_hierarchy(periods, self.half, next);
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
                ..self.plan.task()
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

    /// The present iteration's derivatives, without a step; `crossing` is that of one of several shards.
    pub(super) fn derive(&mut self, crossing: Option<&mut Crossing>) -> Result<(), BackendError> {
        self.place()?;
        self.launch_products(false);
        self.launch_fold();
        if let Some(crossing) = crossing {
            self.exchange(crossing, false)?;
        }
        let back = Task {
            back: true,
            ..self.plan.task()
        };
        let periods = Task {
            periods: true,
            ..back
        };
        if self.plan.learned() {
            self.launch_hierarchy(periods, self.half, 0);
            self.launch_hierarchy(Task { top: true, ..back }, self.half, 0);
        } else {
            self.launch_hierarchy(Task { top: true, ..periods }, self.half, 0);
        }
        Ok(())
    }
}
