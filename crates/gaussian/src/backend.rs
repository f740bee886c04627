//! Gaussian posteriors behind the backend trait.

use crate::newton::{Mode, ModeError, ModeSearch, ModeSettings};
use crate::objective::GaussianObjective;
use crate::run::{GaussianRun, SavedRun, counts_of};
use crate::sharded::{ShardedRun, objectives, on_every_rank, ranks_here};
use crate::variational::{Family, Search};
use infermark_arrowhead::{ArrowheadFactor, FactorError};
use infermark_backend::{
    Backend, BackendError, Capabilities, Checkpoint, Device, GaussianPass, GaussianPoint, MOST_SHARDS,
    Method, MethodKind, Remedy, Request, Run, Setting,
};
use infermark_communicator::{ThreadWorld, World};
use infermark_model::Panel;
use infermark_processor::InstructionSet;
use std::sync::Arc;
use std::time::Instant;

/// Name of the Laplace backend.
pub const LAPLACE: &str = "laplace-cpu";
/// Name of the structured variational backend.
pub const STRUCTURED_VI: &str = "structured-vi-cpu";
/// Name of the mean-field backend.
pub const MEANFIELD: &str = "meanfield-cpu";

/// A Gaussian posterior on the host's CPU.
#[derive(Debug, Clone)]
pub struct GaussianCpu {
    name: &'static str,
    method: MethodKind,
    /// Where the ranks of runs of several shards are.
    world: Arc<dyn World>,
    #[cfg(feature = "faults")]
    fault: Option<crate::fault::Fault>,
}

impl GaussianCpu {
    /// The Laplace approximation.
    pub fn laplace() -> Self {
        GaussianCpu::named(LAPLACE, MethodKind::Laplace)
    }

    /// The structured variational Gaussian.
    pub fn structured_vi() -> Self {
        GaussianCpu::named(STRUCTURED_VI, MethodKind::StructuredVi)
    }

    /// The mean-field Gaussian.
    pub fn meanfield() -> Self {
        GaussianCpu::named(MEANFIELD, MethodKind::Meanfield)
    }

    fn named(name: &'static str, method: MethodKind) -> Self {
        GaussianCpu {
            name,
            method,
            world: Arc::new(ThreadWorld),
            #[cfg(feature = "faults")]
            fault: None,
        }
    }

    /// The method with a fault in [`Backend::log_joint`] and [`Backend::gaussian_pass`]: in the pass itself,
    /// not in what it returns.
    #[cfg(feature = "faults")]
    pub fn with_fault(&self, fault: crate::fault::Fault) -> Self {
        GaussianCpu {
            fault: Some(fault),
            ..self.clone()
        }
    }

    fn check(&self, request: &Request) -> Result<(), BackendError> {
        self.supports(request)?;
        InstructionSet::from_environment()?;
        Ok(())
    }
}

impl GaussianCpu {
    /// What is fitted.
    fn counts(&self, panel: &Arc<Panel>, request: &Request) -> Result<GaussianObjective, BackendError> {
        let counts = counts_of(panel, request)?;
        #[cfg(feature = "faults")]
        let counts = counts.with_fault(self.fault);
        Ok(counts)
    }

    /// What `part` finds of the request's objective, on every rank if there are several.
    fn on_ranks<T: Send>(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        part: impl Fn(&GaussianObjective, &Request) -> Result<T, BackendError> + Sync,
    ) -> Result<T, BackendError> {
        let counts = self.counts(panel, request)?;
        if request.shards == 1 {
            return part(&counts, request);
        }
        let objectives = objectives(&counts, ranks_here(&ThreadWorld, panel, request.shards)?);
        let requests = request.of_shards(request.shards);
        on_every_rank(&objectives, |rank, counts| part(counts, &requests[rank]))
    }
}

/// A search for the mode that is at `point`.
fn search_at(
    counts: &GaussianObjective,
    request: &Request,
    point: &[f64],
) -> Result<ModeSearch, BackendError> {
    let settings = ModeSettings {
        threads: request.resolved_threads(),
        ..ModeSettings::default()
    };
    ModeSearch::at(counts, &settings, point.to_vec()).map_err(|error| no_pass(&error, counts.panel()))
}

/// The pass of a run, with the entries of the products that are walked here.
fn own_pass(
    counts: &GaussianObjective,
    request: &Request,
    at: GaussianPoint<'_>,
) -> Result<GaussianPass, BackendError> {
    let failed = |error: ModeError| no_pass(&error, counts.panel());
    let family = match &request.method {
        Method::StructuredVi(_) => Family::Structured,
        Method::Meanfield(_) => Family::MeanField,
        _ => return pass_of(search_at(counts, request, at.mean)?, counts.panel()),
    };
    let there = search_at(counts, request, at.precision_at)?.into_mode();
    let start = Mode {
        point: at.mean.to_vec(),
        ..there.map_err(failed)?
    };
    let mut search = Search::new(counts, family, request.method.coordinates(), start);
    let (found, _, variance, value) = search.pass().map_err(failed)?;
    let step = found.step(&found.gradient);
    Ok(GaussianPass {
        value,
        step: step.map_err(|error| failed(error.into()))?,
        gradient: found.gradient,
        variance,
    })
}

/// The pass of the search for a mode at its point.
pub(crate) fn pass_of(search: ModeSearch, panel: &Panel) -> Result<GaussianPass, BackendError> {
    let failed = |error: ModeError| no_pass(&error, panel);
    let (value, gradient) = (search.log_joint(), search.gradient().to_vec());
    let step = search.newton_step().map_err(|error| failed(error.into()))?;
    let mode = search.into_mode().map_err(failed)?;
    let marginals = mode
        .factor
        .marginals_there()
        .map_err(|error| failed(error.into()))?;
    Ok(GaussianPass {
        value,
        gradient,
        step,
        variance: marginals.variance,
    })
}

/// What helps against too little memory.
pub(crate) const LESS_MEMORY: [Remedy; 3] = [
    Remedy::GiveMemory,
    Remedy::Lower(Setting::Threads),
    Remedy::FitFewer("categories or periods"),
];

/// Why there is no pass; the caller knows which device failed.
pub(crate) fn no_pass(error: &ModeError, panel: &Panel) -> BackendError {
    if let ModeError::Factor(FactorError::Device(reason)) = error {
        return BackendError::Device {
            device: "gpu".into(),
            reason: reason.clone(),
        };
    }
    if let ModeError::Factor(FactorError::Communication(error)) = error {
        return BackendError::Communication(error.clone());
    }
    BackendError::Diverged {
        step: 0,
        reason: format!("at the given point, {}", error.in_panel(panel)).into(),
    }
}

impl Backend for GaussianCpu {
    fn name(&self) -> &'static str {
        self.name
    }

    fn method(&self) -> MethodKind {
        self.method
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            likelihoods: crate::LIKELIHOODS,
            shards: match self.method {
                MethodKind::Meanfield => 1..=1,
                _ => 1..=MOST_SHARDS,
            },
            ..Capabilities::CPU
        }
    }

    fn devices(&self) -> Vec<Device> {
        vec![Device::cpu(InstructionSet::best())]
    }

    /// The log joint without its clip, from the pass of a run: that at a mode, or that of the search with
    /// which a variational run starts.
    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        self.check(request)?;
        request.check_point(panel, point)?;
        self.on_ranks(panel, request, |counts, request| {
            let search = search_at(counts, request, point)?;
            let mut gradient = search.gradient().to_vec();
            counts
                .gather_products(&mut [&mut gradient])
                .map_err(|error| no_pass(&error.into(), panel))?;
            Ok((search.log_joint(), gradient))
        })
    }

    fn gaussian_pass(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        at: GaussianPoint<'_>,
    ) -> Result<Option<GaussianPass>, BackendError> {
        self.check(request)?;
        request.check_point(panel, at.mean)?;
        request.check_point(panel, at.precision_at)?;
        self.on_ranks(panel, request, |counts, request| {
            let mut pass = own_pass(counts, request, at)?;
            counts
                .gather_products(&mut [&mut pass.gradient, &mut pass.step, &mut pass.variance])
                .map_err(|error| no_pass(&error.into(), panel))?;
            Ok(Some(pass))
        })
    }

    fn among(&self, world: Arc<dyn World>) -> Option<Arc<dyn Backend>> {
        let has_ranks = *self.capabilities().shards.end() > 1;
        has_ranks.then(|| {
            let own = GaussianCpu {
                world,
                ..self.clone()
            };
            Arc::new(own) as Arc<dyn Backend>
        })
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        self.begin(panel, request, None)
    }

    fn resume(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        checkpoint: &Checkpoint,
    ) -> Result<Box<dyn Run>, BackendError> {
        self.check(request)?;
        let saved = SavedRun::read(checkpoint, self.name, &panel, request)?;
        self.begin(panel, request, Some(saved))
    }
}

impl GaussianCpu {
    /// Starts a run, from what `saved` has reached.
    fn begin(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        saved: Option<SavedRun>,
    ) -> Result<Box<dyn Run>, BackendError> {
        self.check(request)?;
        let started = Instant::now();
        // The factor, and vectors of latents: point, gradient, step, their successors, variances. All ranks have both, but each
        // only the weights of its own rows.
        let latents = panel.layout_for(request.likelihood).latents() as u64;
        let weights = match panel.stored() {
            None => 8 * panel.held_rows() as u64,
            Some(_) => 0,
        };
        let here = self.world.size().map_or(request.shards, |_| 1);
        let of_rank = <ArrowheadFactor>::bytes_on(&panel, request.resolved_threads().div_ceil(here))
            .saturating_add(12 * 8 * latents)
            - weights;
        let needed = of_rank.saturating_mul(here as u64).saturating_add(weights);
        infermark_memory::check(format!("{} with its factor", request.method.name()), needed)
            .map_err(|shortage| BackendError::short_of_memory(shortage, LESS_MEMORY))?;
        if request.shards > 1 {
            let world = &*self.world;
            let run = ShardedRun::start(self.name, world, &panel, request, needed, started)?;
            return Ok(Box::new(match saved {
                Some(saved) => run.gone_on_from(&saved),
                None => run,
            }));
        }
        let run = GaussianRun::start(self.name, panel, request, needed, started)?;
        Ok(Box::new(match saved {
            Some(saved) => run.gone_on_from(&saved),
            None => run,
        }))
    }
}
