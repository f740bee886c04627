//! Coordinates in which the posterior is close to a standard normal: `theta = mode + L^-T xi`, with `Q = L L'` the
//! precision of the natural parameters at the posterior mode.
//!
//! The metric is known before the first draw and stays fixed: nothing is estimated from draws, and all chains
//! have the same. Alternatives that were tried are in `docs/exact.md`.

use crate::few_sales::FewSales;
use infermark_arrowhead::{ArrowheadFactor, Whitener};
use infermark_backend::{BackendError, Cause, Choice, Metric, ModeSearchReport, Remedy};
use infermark_gaussian::{GaussianObjective, ModeError, ModeSettings, find_mode};
use infermark_model::{Likelihood, Panel, Priors};
use std::sync::Arc;
use std::time::Instant;

/// The search ends when less than this many nats are to be gained: 0.04 standard deviations in total, which
/// does not matter for coordinates.
const MODE_TOLERANCE: f64 = 1e-3;

/// The map between natural parameters `theta`, in the order of the layout, and whitened ones `xi`.
#[derive(Debug)]
pub(crate) struct Whitening {
    centre: Vec<f64>,
    whitener: Whitener,
    /// Proposals for products of few sales.
    few_sales: Option<FewSales>,
}

impl Whitening {
    /// Finds the mode and builds the coordinates there.
    ///
    /// The search works on `threads` threads, whose number does not change sums. Each chain uses the
    /// coordinates on one thread.
    ///
    /// # Errors
    /// [`BackendError::Diverged`] when there is no mode, or no factor of the precision there.
    pub(crate) fn at_mode(
        panel: &Arc<Panel>,
        likelihood: Likelihood,
        priors: &Priors,
        threads: usize,
    ) -> Result<(Arc<Self>, ModeSearchReport), BackendError> {
        let started = Instant::now();
        let settings = ModeSettings {
            threads,
            tolerance: MODE_TOLERANCE,
            ..ModeSettings::default()
        };
        let refused = |error: ModeError| BackendError::Diverged {
            step: 0,
            reason: Cause::new(
                format!("there is no structured metric: {}", error.in_panel(panel)),
                [Remedy::Choose(Choice::Metric(Metric::Diagonal))],
            ),
        };
        let mode =
            find_mode(&GaussianObjective::new(panel, priors, likelihood), &settings).map_err(refused)?;
        let search = ModeSearchReport {
            newton_steps: mode.steps as u64,
            converged: mode.converged,
            decrement: mode.decrement,
            seconds: started.elapsed().as_secs_f64(),
        };
        let whitening = Whitening {
            few_sales: FewSales::new(panel, likelihood, priors, &mode.point, threads),
            centre: mode.point,
            whitener: Whitener::new(mode.factor),
        };
        Ok((Arc::new(whitening), search))
    }

    /// Bytes of the coordinates and of the search for them: weights of the rows, factors of products and categories, of
    /// two points at a time; and the proposals for products of few sales.
    pub(crate) fn bytes(panel: &Panel, likelihood: Likelihood, priors: &Priors, threads: usize) -> u64 {
        <ArrowheadFactor>::bytes_on(panel, threads)
            .saturating_mul(2)
            .saturating_add(FewSales::bytes(panel, likelihood, priors))
    }

    /// Writes `theta = mode + L^-T xi`.
    pub(crate) fn natural(&self, whitened: &[f64], natural: &mut [f64]) {
        natural.copy_from_slice(whitened);
        self.whitener.solve_upper(natural);
        for (theta, centre) in natural.iter_mut().zip(self.centre.iter()) {
            *theta += centre;
        }
    }

    /// Writes `xi = L' (theta - mode)`.
    pub(crate) fn whitened(&self, natural: &[f64], whitened: &mut [f64]) {
        for ((xi, theta), centre) in whitened.iter_mut().zip(natural).zip(self.centre.iter()) {
            *xi = theta - centre;
        }
        self.whitener.times_upper(whitened);
    }

    /// Writes the gradient with respect to `xi`, `L^-1` times the one with respect to `theta`.
    pub(crate) fn gradient(&self, by_natural: &[f64], by_whitened: &mut [f64]) {
        by_whitened.copy_from_slice(by_natural);
        self.whitener.solve_lower(by_whitened);
    }

    /// The products that are also drawn separately.
    pub(crate) fn few_sales(&self) -> Option<&FewSales> {
        self.few_sales.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_and_the_gradient_is_the_adjoint() {
        let panel = infermark_test_support::small_panel();
        let (whitening, search) =
            Whitening::at_mode(&panel, Likelihood::Poisson, &Priors::default(), 2).unwrap();
        assert!(search.converged && search.decrement < MODE_TOLERANCE);
        let latents = panel.layout().latents();
        let xi: Vec<f64> = (0..latents).map(|j| (j as f64 * 0.7).sin()).collect();
        let mut theta = vec![0.0; latents];
        whitening.natural(&xi, &mut theta);
        let mut back = vec![0.0; latents];
        whitening.whitened(&theta, &mut back);
        // A condition number of 1e4 amplifies rounding by that factor.
        assert!(xi.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-10));
        // For a linear function g' theta the gradient with respect to xi is the one that gives its
        // increments.
        let by_theta: Vec<f64> = (0..latents).map(|j| (j as f64 * 1.3).cos()).collect();
        let mut by_xi = vec![0.0; latents];
        whitening.gradient(&by_theta, &mut by_xi);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let moved: Vec<f64> = theta.iter().zip(&whitening.centre).map(|(t, c)| t - c).collect();
        let (by_natural, by_whitened) = (dot(&by_theta, &moved), dot(&by_xi, &xi));
        assert!((by_natural - by_whitened).abs() < 1e-10 * by_natural.abs().max(1.0));
    }
}
