//! The No-U-Turn sampler of nuts-rs, with the diagonal metric.

use crate::density::Density;
use crate::hmc::finite;
use crate::pass::Pass;
use crate::sampler::{DrawFigures, Sampler};
use crate::scheduler::Shut;
use infermark_backend::NutsSettings;
use nuts_rs::{Chain, CpuLogpFunc, CpuMath, CpuMathError, DiagNutsSettings, HasDims, LogpError, Settings};
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;

/// Reasons for the log density to have no value.
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

/// The density in the form that nuts-rs requires.
struct Target<D> {
    density: D,
    pass: Rc<Pass>,
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
        self.pass.before_gradient()?;
        let value = self.density.value_and_gradient(position, gradient);
        if finite(value, gradient) {
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
}

/// The chain of nuts-rs, and a reader for its statistics, whose type is not nameable.
struct NoUTurn<D, C, F> {
    chain: C,
    figures: F,
    /// The step size that nuts-rs set for the next draw.
    step_size: Option<f64>,
    density: PhantomData<D>,
}

impl<D, C, F> Sampler for NoUTurn<D, C, F>
where
    D: Density,
    C: Chain<CpuMath<Target<D>>>,
    F: Fn(&C::Stats) -> DrawFigures,
{
    fn start(&mut self, point: &[f64]) -> Result<(), String> {
        self.chain
            .set_position(point)
            .map_err(|error| format!("{error:#}"))
    }

    fn draw(&mut self, z: &mut Vec<f64>) -> Result<DrawFigures, String> {
        let (position, _, statistics, _) =
            self.chain.expanded_draw().map_err(|error| format!("{error:#}"))?;
        z.clear();
        z.extend_from_slice(&position);
        let mut figures = (self.figures)(&statistics);
        // nuts-rs reports the step size that it has set for the next draw.
        if let Some(used) = self.step_size.replace(figures.step_size) {
            figures.step_size = used;
        }
        Ok(figures)
    }
}

/// The sampler of a chain on `density`.
///
/// # Errors
/// Errors of nuts-rs.
pub(crate) fn sampler<D: Density>(
    density: D,
    pass: Rc<Pass>,
    settings: &NutsSettings,
    chain: usize,
    rng: &mut StdRng,
) -> Result<impl Sampler + use<D>, String> {
    let target = Target { density, pass };
    let chain = nuts_rs_settings(settings)
        .new_chain(chain as u64, CpuMath::new(target), rng)
        .map_err(|error| format!("{error:#}"))?;
    Ok(with_figures(chain, |s| DrawFigures {
        steps: s.adapt.step_size.n_steps,
        step_size: s.hamiltonian.step_size,
        tuned_step_size: s.adapt.step_size.step_size_bar,
        depth: s.depth,
        saturated: s.maxdepth_reached,
        diverging: s.divergence.diverging,
        acceptance: s.adapt.step_size.mean_tree_accept,
        // Without the metric's determinant, which is constant after warm-up.
        energy: s.point.kinetic_energy - s.point.logp,
        log_joint: s.point.logp,
    }))
}

fn with_figures<D, C, F>(chain: C, figures: F) -> NoUTurn<D, C, F>
where
    D: Density,
    C: Chain<CpuMath<Target<D>>>,
    F: Fn(&C::Stats) -> DrawFigures,
{
    NoUTurn {
        chain,
        figures,
        step_size: None,
        density: PhantomData,
    }
}

fn nuts_rs_settings(settings: &NutsSettings) -> DiagNutsSettings {
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
