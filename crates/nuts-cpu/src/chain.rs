//! The thread of one chain: nuts-rs, driven draw by draw through the gate.

use crate::density::Density;
use crate::gate::{Gate, Shut};
use crate::record::{ChainRecord, DrawOutcome};
use crate::start::{ATTEMPTS, start_point, whitened_start_point};
use crate::whitening::Whitening;
use infermark_backend::draws::DrawStatistics;
use infermark_backend::{Interrupt, NutsSettings};
use nuts_rs::{
    Chain, CpuLogpFunc, CpuMath, CpuMathError, DiagNutsSettings, FlowNutsSettings, HasDims, LogpError,
    Settings,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

/// Turns a draw of `z` into natural parameters.
pub(crate) type ToNatural = Arc<dyn Fn(&[f64]) -> Vec<f64> + Send + Sync>;

/// What a chain's thread is given.
pub(crate) struct ChainTask<D> {
    /// The chain's number, from 0.
    pub chain: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Settings of the sampler.
    pub settings: NutsSettings,
    /// What is sampled.
    pub density: D,
    /// From `z` to natural parameters.
    pub to_natural: ToNatural,
    /// When to work.
    pub gate: Arc<Gate>,
    /// Where draws go.
    pub record: Arc<Mutex<ChainRecord>>,
}

/// Why the log density has no value.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
enum DensityError {
    /// Not finite there: the trajectory ends as divergent.
    #[error("the log joint or its gradient is not finite")]
    NotFinite,
    /// The run is over.
    #[error(transparent)]
    Shut(#[from] Shut),
}

impl LogpError for DensityError {
    fn is_recoverable(&self) -> bool {
        matches!(self, DensityError::NotFinite)
    }
}

/// The chain's way through the gate, shared by its draws and its gradients.
struct Pass {
    gate: Arc<Gate>,
    chain: usize,
    interrupt: RefCell<Interrupt>,
    shut: Cell<bool>,
    gradients: Cell<u64>,
}

impl Pass {
    fn enter(&self) -> Result<(), Shut> {
        match self.gate.enter(self.chain) {
            Ok(interrupt) => {
                *self.interrupt.borrow_mut() = interrupt;
                Ok(())
            }
            Err(shut) => {
                self.shut.set(true);
                Err(shut)
            }
        }
    }

    /// Waits here, in the middle of a draw, while the run is interrupted.
    fn hold_if_interrupted(&self) -> Result<(), Shut> {
        if self.interrupt.borrow().is_set() {
            self.gate.pause(self.chain);
            self.enter()?;
        }
        Ok(())
    }
}

/// The density as nuts-rs wants it.
struct Target<D> {
    density: D,
    whitening: Option<Arc<Whitening>>,
    pass: Rc<Pass>,
}

impl<D: Density> Target<D> {
    fn whitening(&self) -> &Whitening {
        self.whitening
            .as_deref()
            .expect("only a density with a whitening is sampled through one")
    }
}

impl<D: Density> HasDims for Target<D> {
    fn dim_sizes(&self) -> HashMap<String, u64> {
        HashMap::from([(
            "unconstrained_parameter".to_string(),
            self.density.dimension() as u64,
        )])
    }
}

impl<D: Density> CpuLogpFunc for Target<D> {
    type LogpError = DensityError;
    type FlowParameters = ();
    type ExpandedVector = Vec<f64>;

    fn dim(&self) -> usize {
        self.density.dimension()
    }

    fn logp(&mut self, position: &[f64], gradient: &mut [f64]) -> Result<f64, DensityError> {
        self.pass.hold_if_interrupted()?;
        let value = self.density.value_and_gradient(position, gradient);
        self.pass.gradients.set(self.pass.gradients.get() + 1);
        // Without a branch an entry, so that it is done a vector at a time.
        let finite = gradient
            .iter()
            .fold(value.is_finite(), |all, g| all & g.is_finite());
        if finite {
            Ok(value)
        } else {
            Err(DensityError::NotFinite)
        }
    }

    fn expand_vector<R: nuts_rs::rand::Rng + ?Sized>(
        &mut self,
        _rng: &mut R,
        _position: &[f64],
    ) -> Result<Vec<f64>, CpuMathError> {
        // Draws are taken from the position itself.
        Ok(Vec::new())
    }

    // The whitening as what nuts-rs calls a flow; it is there before the chain and stays. Its Jacobian is constant and
    // left out: only differences of energies count.

    fn new_transformation<R: nuts_rs::rand::Rng + ?Sized>(
        &mut self,
        _rng: &mut R,
        _dim: usize,
        _chain: u64,
    ) -> Result<(), DensityError> {
        Ok(())
    }

    fn init_transformation<R: nuts_rs::rand::Rng + ?Sized>(
        &mut self,
        _rng: &mut R,
        _position: &[f64],
        _gradient: &[f64],
        _chain: u64,
    ) -> Result<(), DensityError> {
        Ok(())
    }

    fn update_transformation<'a, R: nuts_rs::rand::Rng + ?Sized>(
        &'a mut self,
        _rng: &mut R,
        _positions: impl ExactSizeIterator<Item = &'a [f64]>,
        _gradients: impl ExactSizeIterator<Item = &'a [f64]>,
        _log_densities: impl ExactSizeIterator<Item = &'a f64>,
        _parameters: &'a mut (),
    ) -> Result<(), DensityError> {
        Ok(())
    }

    fn transformation_id(&self, _parameters: &()) -> Result<i64, DensityError> {
        Ok(0)
    }

    fn inv_transform_normalize(
        &mut self,
        _parameters: &(),
        position: &[f64],
        gradient: &[f64],
        whitened: &mut [f64],
        by_whitened: &mut [f64],
    ) -> Result<f64, DensityError> {
        self.whitening().whitened(position, whitened);
        self.whitening().gradient(gradient, by_whitened);
        Ok(0.0)
    }

    fn init_from_untransformed_position(
        &mut self,
        parameters: &(),
        position: &[f64],
        gradient: &mut [f64],
        whitened: &mut [f64],
        by_whitened: &mut [f64],
        _clip: Option<f64>,
    ) -> Result<(f64, f64), DensityError> {
        let value = self.logp(position, gradient)?;
        let ln_det = self.inv_transform_normalize(parameters, position, gradient, whitened, by_whitened)?;
        Ok((value, ln_det))
    }

    fn init_from_transformed_position(
        &mut self,
        _parameters: &(),
        position: &mut [f64],
        gradient: &mut [f64],
        whitened: &[f64],
        by_whitened: &mut [f64],
        _clip: Option<f64>,
    ) -> Result<(f64, f64), DensityError> {
        self.whitening().natural(whitened, position);
        let value = self.logp(position, gradient)?;
        self.whitening().gradient(gradient, by_whitened);
        Ok((value, 0.0))
    }
}

/// Works until the run is dropped, or the chain has failed and told the gate.
pub(crate) fn run_chain<D: Density>(task: ChainTask<D>) {
    let (gate, chain) = (task.gate.clone(), task.chain);
    // A panic must not leave the run waiting for this chain.
    let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| draw_until_shut(task)));
    match worked {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => gate.fail(chain, reason),
        Err(_) => gate.fail(chain, "the sampler panicked".into()),
    }
}

/// `Ok` when the run was dropped, `Err` with the reason when the chain cannot go on.
fn draw_until_shut<D: Density>(task: ChainTask<D>) -> Result<(), String> {
    let pass = Rc::new(Pass {
        gate: task.gate,
        chain: task.chain,
        interrupt: RefCell::new(Interrupt::new()),
        shut: Cell::new(false),
        gradients: Cell::new(0),
    });
    let target = Target {
        whitening: task.density.whitening(),
        density: task.density,
        pass: pass.clone(),
    };
    let latents = target.dim();
    let (seed, chain) = (task.seed, task.chain);
    let mut sampling = Sampling {
        pass,
        chain,
        warmup: task.settings.warmup,
        to_natural: task.to_natural,
        record: task.record,
    };
    if sampling.pass.enter().is_err() {
        return Ok(());
    }
    let rng = &mut chain_rng(seed, chain);
    match target.whitening.clone() {
        None => {
            let sampler =
                diagonal_settings(&task.settings).new_chain(chain as u64, CpuMath::new(target), rng);
            sampling.go(
                sampler.map_err(|error| format!("{error:#}"))?,
                |attempt| start_point(latents, seed, chain, attempt),
                |s| StepFigures {
                    steps: s.adapt.step_size.n_steps,
                    step_size: s.hamiltonian.step_size,
                    tuned_step_size: s.adapt.step_size.step_size_bar,
                    depth: s.depth,
                    saturated: s.maxdepth_reached,
                    diverging: s.divergence.diverging,
                    kinetic_energy: s.point.kinetic_energy,
                    log_joint: s.point.logp,
                },
            )
        }
        Some(whitening) => {
            let most_depth = u64::from(task.settings.max_depth);
            let sampler =
                structured_settings(&task.settings).new_chain(chain as u64, CpuMath::new(target), rng);
            sampling.go(
                sampler.map_err(|error| format!("{error:#}"))?,
                |attempt| {
                    let mut start = vec![0.0; latents];
                    whitening.natural(&whitened_start_point(latents, seed, chain, attempt), &mut start);
                    start
                },
                |s| StepFigures {
                    steps: s.adapt.step_size.n_steps,
                    step_size: s.hamiltonian.step_size,
                    tuned_step_size: s.adapt.step_size.step_size_bar,
                    depth: s.depth,
                    // A trajectory that is long enough ends at a depth of its own.
                    saturated: s.maxdepth_reached && s.depth >= most_depth,
                    diverging: s.divergence.diverging,
                    kinetic_energy: s.point.kinetic_energy,
                    log_joint: s.point.logp,
                },
            )
        }
    }
}

/// What is read of the sampler's statistics of a draw, whose type depends on the metric.
struct StepFigures {
    steps: u64,
    /// The one set for the next draw.
    step_size: f64,
    /// The same without jitter.
    tuned_step_size: f64,
    depth: u64,
    saturated: bool,
    diverging: bool,
    kinetic_energy: f64,
    log_joint: f64,
}

/// A chain at work, whatever its metric.
struct Sampling {
    pass: Rc<Pass>,
    chain: usize,
    warmup: u64,
    to_natural: ToNatural,
    record: Arc<Mutex<ChainRecord>>,
}

impl Sampling {
    /// `Ok` when the run was dropped, `Err` with the reason when the chain cannot go on.
    fn go<D: Density, C: Chain<CpuMath<Target<D>>>>(
        &mut self,
        mut sampler: C,
        start: impl Fn(u32) -> Vec<f64>,
        figures: impl Fn(&C::Stats) -> StepFigures,
    ) -> Result<(), String> {
        let pass = self.pass.clone();
        let unless_shut = |reason: String| if pass.shut.get() { Ok(()) } else { Err(reason) };
        let mut attempt = 0;
        while let Err(error) = sampler.set_position(&start(attempt)) {
            attempt += 1;
            if pass.shut.get() || attempt == ATTEMPTS {
                return unless_shut(format!(
                    "no start out of {ATTEMPTS} has a finite log joint and gradient ({error:#}); check prices and \
                     units for extreme values"
                ));
            }
        }
        let mut gradients_before = 0;
        let mut step_size = None;
        let mut draw = 0;
        loop {
            let (z, _, statistics, _) = match sampler.expanded_draw() {
                Ok(drawn) => drawn,
                Err(error) => return unless_shut(format!("{error:#}")),
            };
            let figures = figures(&statistics);
            let natural = (draw >= self.warmup).then(|| (self.to_natural)(&z));
            let gradients = pass.gradients.get();
            let outcome = DrawOutcome {
                statistics: DrawStatistics {
                    diverging: figures.diverging,
                    tree_depth: figures.depth as u32,
                    leapfrog_steps: figures.steps as u32,
                    // nuts-rs tells the step size that it has set for the next draw.
                    step_size: step_size.unwrap_or(figures.step_size),
                    // Without the metric's determinant, which is constant after warm-up.
                    energy: figures.kinetic_energy - figures.log_joint,
                    log_joint: figures.log_joint,
                },
                saturated: figures.saturated,
                gradients: gradients - gradients_before,
                seconds: pass.gate.take_busy(self.chain).as_secs_f64(),
                step_size: figures.tuned_step_size,
            };
            gradients_before = gradients;
            step_size = Some(figures.step_size);
            draw += 1;
            {
                // While the draw is not finished for the gate, nobody reads the record.
                let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
                match natural {
                    None => record.push_warmup(&outcome),
                    Some(natural) => record.push_draw(&outcome, &natural),
                }
            }
            pass.gate.finish_draw(self.chain);
            if pass.enter().is_err() {
                return Ok(());
            }
        }
    }
}

/// The sampler's own random numbers: a ChaCha stream whose key is the seed and the chain.
fn chain_rng(seed: u64, chain: usize) -> StdRng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(chain as u64).to_le_bytes());
    StdRng::from_seed(key)
}

fn diagonal_settings(settings: &NutsSettings) -> DiagNutsSettings {
    let mut nuts = DiagNutsSettings {
        num_tune: settings.warmup,
        num_draws: settings.draws,
        maxdepth: u64::from(settings.max_depth),
        num_chains: settings.chains,
        ..DiagNutsSettings::default()
    };
    nuts.adapt_options.step_size_settings.target_accept = settings.target_accept;
    nuts
}

/// Time, in radians, after which a trajectory is long enough: about a third of the rotation that positions and momenta of a
/// standard normal make, whatever its dimension. From there on positions come back, and their squares, which the quantiles depend
/// on, have at half a rotation already: where the step is short of an eighth of it a U-turn is only seen after twice the gradients.
const TRAJECTORY: f64 = 2.0;

/// NUTS in whitened coordinates: unit metric, trajectories that are exact for a standard normal, steps of a quarter turn
/// at most.
fn structured_settings(settings: &NutsSettings) -> FlowNutsSettings {
    let mut nuts = FlowNutsSettings {
        num_tune: settings.warmup,
        num_draws: settings.draws,
        maxdepth: u64::from(settings.max_depth),
        num_chains: settings.chains,
        // Soft clipping bends extreme gradients; whitened ones are of the order of the coordinates.
        gradient_clipping: None,
        target_integration_time: Some(TRAJECTORY),
        ..FlowNutsSettings::default()
    };
    nuts.adapt_options.step_size_settings.target_accept = settings.target_accept;
    // The whitening is not trained: no draw need be kept for it.
    nuts.adapt_options.transform_train_max_energy_error = f64::NEG_INFINITY;
    nuts
}
