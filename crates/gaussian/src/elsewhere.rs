//! The Laplace approximation with another device walking the rows; the search, the steps and all that follows
//! run on the host.

use crate::backend::{LESS_MEMORY, no_pass, pass_of};
use crate::newton::{ModeSearch, ModeSettings};
use crate::objective::GaussianObjective;
use crate::row_walker::RowWalker;
use crate::run::{GaussianRun, counts_of};
use infermark_arrowhead::ArrowheadFactor;
use infermark_backend::{BackendError, Cause, GaussianPass, Remedy, Request, Run};
use infermark_model::Panel;
use std::sync::Arc;
use std::time::Instant;

/// A backend whose device walks the rows of the Laplace approximation.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// Name of the backend.
    pub name: &'static str,
    /// The device's id, then its name.
    pub device: [String; 2],
    /// Who walks.
    pub walker: Arc<dyn RowWalker>,
}

impl Elsewhere {
    /// The objective that a device would walk, for a request for Laplace with Poisson counts.
    ///
    /// # Errors
    /// When the backend `name` does not serve the panel: it has counts at the upper clip bound.
    pub fn counts(
        name: &'static str,
        panel: &Arc<Panel>,
        request: &Request,
    ) -> Result<GaussianObjective, BackendError> {
        let counts = counts_of(panel, request)?;
        if counts.leaves_any_out() {
            return Err(BackendError::Unsupported {
                backend: name,
                what: Cause::new(
                    format!(
                        "counts at the upper clip bound, for which {} products are left out",
                        counts.left_out().len()
                    ),
                    [Remedy::CPU],
                ),
            });
        }
        Ok(counts)
    }

    /// Starts a run on the result of [`Elsewhere::counts`]; `started` is when its set-up began.
    ///
    /// # Errors
    /// When the host has too little memory.
    pub fn start(
        &self,
        counts: GaussianObjective,
        request: &Request,
        started: Instant,
    ) -> Result<Box<dyn Run>, BackendError> {
        let panel = counts.panel();
        // As on the host: vectors of latents - point, gradient, step, their successors, variances -, and the
        // rows' weights, which are copied back for the dispersion.
        let latents = panel.layout_for(request.likelihood).latents() as u64;
        let needed =
            <ArrowheadFactor>::bytes_on(panel, request.resolved_threads()).saturating_add(12 * 8 * latents);
        infermark_memory::check(format!("{} with its factor", request.method.name()), needed)
            .map_err(|shortage| BackendError::short_of_memory(shortage, LESS_MEMORY))?;
        let counts = counts.walked_by(self.walker.clone());
        let device = Some(self.device.clone());
        Ok(Box::new(GaussianRun::of_counts(
            self.name, counts, request, None, device, started,
        )))
    }

    /// The pass of a run at `point`, on the result of [`Elsewhere::counts`].
    ///
    /// # Errors
    /// When the precision is not positive definite there, or the device fails.
    pub fn pass(
        &self,
        counts: GaussianObjective,
        request: &Request,
        point: &[f64],
    ) -> Result<GaussianPass, BackendError> {
        let panel = counts.panel().clone();
        self.search(counts, request, point)
            .and_then(|search| pass_of(search, &panel))
            .map_err(|error| self.named(error))
    }

    /// Log joint and gradient at `point`, from the pass of a run, on the result of [`Elsewhere::counts`].
    ///
    /// # Errors
    /// As [`Elsewhere::pass`].
    pub fn log_joint(
        &self,
        counts: GaussianObjective,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        self.search(counts, request, point)
            .map(|search| (search.log_joint(), search.gradient().to_vec()))
            .map_err(|error| self.named(error))
    }

    /// A failure of the device with its id.
    fn named(&self, error: BackendError) -> BackendError {
        match error {
            BackendError::Device { reason, .. } => BackendError::Device {
                device: self.device[0].clone(),
                reason,
            },
            other => other,
        }
    }

    fn search(
        &self,
        counts: GaussianObjective,
        request: &Request,
        point: &[f64],
    ) -> Result<ModeSearch, BackendError> {
        let panel = counts.panel().clone();
        request.check_point(&panel, point)?;
        let settings = ModeSettings {
            threads: request.resolved_threads(),
            ..ModeSettings::default()
        };
        ModeSearch::at(&counts.walked_by(self.walker.clone()), &settings, point.to_vec())
            .map_err(|error| no_pass(&error, &panel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row_walker::MovingPairs;
    use infermark_arrowhead::{AtOptimum, FactorError, Walked};
    use infermark_backend::{DeviceId, Interrupt, LaplaceSettings, Method, RunState};
    use infermark_test_support::conformance::stays_failed;
    use infermark_test_support::random_panel;
    use rand::{SeedableRng, rngs::StdRng};

    /// A device that is lost at once, or that is stopped.
    #[derive(Debug)]
    struct Lost(FactorError);

    impl MovingPairs for Lost {
        fn at_optimum(&mut self, _: &[f64]) -> Result<AtOptimum, FactorError> {
            Err(self.0.clone())
        }

        fn pairs(&self) -> Result<Vec<[f64; 2]>, FactorError> {
            Err(self.0.clone())
        }
    }

    impl RowWalker for Lost {
        fn moving(&self, _: &[[f64; 2]]) -> Box<dyn MovingPairs> {
            Box::new(Lost(self.0.clone()))
        }

        fn walked(&self, _: &[f64]) -> Result<Walked, FactorError> {
            Err(self.0.clone())
        }
    }

    fn elsewhere(error: FactorError) -> Elsewhere {
        Elsewhere {
            name: "laplace-elsewhere",
            device: ["cuda:3".into(), "a card".into()],
            walker: Arc::new(Lost(error)),
        }
    }

    #[test]
    fn a_device_that_fails_is_named_and_no_panel_is_blamed() {
        let panel = random_panel(&mut StdRng::seed_from_u64(1), 9, 2, 5, 0.1, 8);
        let request = Request {
            devices: vec![DeviceId::CPU],
            ..Request::new(Method::Laplace(LaplaceSettings::default()))
        };
        let counts = Elsewhere::counts("laplace-elsewhere", &panel, &request).unwrap();
        let lost = elsewhere(FactorError::Device("it fell off the bus".into()));
        let mut run = lost.start(counts.clone(), &request, Instant::now()).unwrap();
        let error = run.advance(1, &Interrupt::new()).unwrap_err();
        assert_eq!(error.to_string(), "cuda:3 failed: it fell off the bus");
        stays_failed(&mut *run, &error);
        assert!(run.posterior().is_err());
        assert_eq!(run.report().device, "a card");
        // A stopped search goes on from there.
        let stopped = elsewhere(FactorError::Stopped);
        let mut run = stopped.start(counts, &request, Instant::now()).unwrap();
        let progress = run.advance(1, &Interrupt::new()).unwrap();
        assert_eq!(progress.state, RunState::Interrupted);
    }
}
