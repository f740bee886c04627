//! The posterior mode by damped Newton steps.

use crate::counts::{Counts, Evaluated};
use crate::poisson::Spread;
use infermark_arrow::{ArrowFactor, FactorError};
use infermark_model::wild_price::{wild_price_of, wildest_price};
use infermark_model::{Panel, printable};

/// When a search for the mode ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModeSettings {
    /// Newton steps at most.
    pub steps: usize,
    /// The mode is found when half the squared Newton decrement, the log density still to be gained, is below this.
    pub tolerance: f64,
    /// Threads.
    pub threads: usize,
}

impl Default for ModeSettings {
    fn default() -> Self {
        ModeSettings {
            steps: 50,
            tolerance: 1e-9,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
        }
    }
}

/// Why there is no mode.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ModeError {
    /// The precision could not be factored.
    #[error(transparent)]
    Factor(#[from] FactorError),
    /// The log joint is not finite.
    #[error("the log joint is {0} at step {1}")]
    NotFinite(f64, usize),
}

impl ModeError {
    /// The error with the labels of `panel`, what in its data is the likely cause, and what to do.
    pub fn in_panel(&self, panel: &Panel) -> String {
        let (what, wild) = match self {
            ModeError::Factor(FactorError::Product(product)) => (
                format!(
                    "the precision of product '{}' is not positive definite: a weight of its rows is negative or not finite",
                    printable(&panel.products().get(*product).to_string())
                ),
                wild_price_of(panel, *product),
            ),
            ModeError::Factor(FactorError::Category(category)) => (
                format!(
                    "the precision of category '{}' is not positive definite: weights of its rows are too large for double precision",
                    printable(&panel.categories().get(*category).to_string())
                ),
                None,
            ),
            other => (other.to_string(), None),
        };
        match wild.or_else(|| wildest_price(panel)) {
            Some(wild) => format!("{what}; {wild}"),
            None => format!("{what}; check prices, units and priors for extreme values"),
        }
    }

    /// Whether the work was stopped on request.
    pub fn is_stopped(&self) -> bool {
        matches!(self, ModeError::Factor(FactorError::Stopped))
    }
}

/// The mode, and the factor of the precision there.
#[derive(Debug)]
pub struct Mode {
    /// Natural parameters, in the order of [`infermark_model::Layout`].
    pub point: Vec<f64>,
    /// The log joint.
    pub log_joint: f64,
    /// Norm of its gradient.
    pub gradient_norm: f64,
    /// Half the squared Newton decrement, `g' Q^-1 g / 2`, at the point.
    pub decrement: f64,
    /// Newton steps made.
    pub steps: usize,
    /// Points evaluated for them: the start, and one for every length of a step that was tried.
    pub evaluations: usize,
    /// Whether the decrement is within the tolerance.
    pub converged: bool,
    /// The precision at the point.
    pub factor: ArrowFactor,
}

/// Finds the mode.
///
/// # Errors
/// When a precision is not positive definite or the log joint is not finite.
pub fn find_mode(counts: &Counts, settings: &ModeSettings) -> Result<Mode, ModeError> {
    let mut search = ModeSearch::new(counts, settings)?;
    while !search.converged() && search.steps < settings.steps {
        search.advance()?;
    }
    Ok(search.into_mode())
}

/// Shortest part of a Newton step that is tried.
const SHORTEST: f64 = 1e-6;

/// The part of what the slope promises that the log joint must rise by.
const LEAST_RISE: f64 = 1e-4;

/// The derivative along a step.
fn along(step: &[f64], gradient: &[f64]) -> f64 {
    step.iter().zip(gradient).map(|(s, g)| s * g).sum()
}

/// A search for the mode, a step at a time.
#[derive(Debug)]
pub struct ModeSearch {
    counts: Counts,
    settings: ModeSettings,
    point: Vec<f64>,
    /// The precision at the point; none only while it is replaced.
    factor: Option<ArrowFactor>,
    value: f64,
    gradient: Vec<f64>,
    /// The next Newton step.
    step: Vec<f64>,
    /// Newton steps made.
    pub steps: usize,
    evaluations: usize,
}

impl ModeSearch {
    /// At the start that the data suggest.
    ///
    /// # Errors
    /// When the log joint there has no finite value or curvature.
    pub fn new(counts: &Counts, settings: &ModeSettings) -> Result<Self, ModeError> {
        Self::at(counts, settings, counts.start())
    }

    /// At `point`, natural parameters.
    ///
    /// # Errors
    /// When the log joint there has no finite value or curvature.
    pub(crate) fn at(counts: &Counts, settings: &ModeSettings, point: Vec<f64>) -> Result<Self, ModeError> {
        let mut search = ModeSearch::resumed(counts, settings, point, 0);
        search.advance()?;
        Ok(search)
    }

    /// At the start of [`ModeSearch::new`], where nothing is computed yet: the first [`ModeSearch::advance`] does that.
    pub(crate) fn unstarted(counts: &Counts, settings: &ModeSettings) -> Self {
        Self::resumed(counts, settings, counts.start(), 0)
    }

    /// Whether its point was evaluated.
    pub(crate) fn is_evaluated(&self) -> bool {
        self.factor.is_some()
    }

    /// At a point that was reached before, whose factor is gone: the first [`ModeSearch::advance`] makes that again.
    pub(crate) fn resumed(counts: &Counts, settings: &ModeSettings, point: Vec<f64>, steps: usize) -> Self {
        ModeSearch {
            counts: counts.clone(),
            settings: *settings,
            gradient: vec![f64::NAN; point.len()],
            step: vec![f64::NAN; point.len()],
            point,
            factor: None,
            value: f64::NAN,
            steps,
            evaluations: 0,
        }
    }

    /// The point.
    pub(crate) fn point(&self) -> &[f64] {
        &self.point
    }

    /// Half the squared Newton decrement at the point: what a quadratic log joint would still gain.
    pub fn decrement(&self) -> f64 {
        0.5 * self.slope()
    }

    /// The log joint at the point.
    pub fn log_joint(&self) -> f64 {
        self.value
    }

    /// The gradient of the log joint at the point.
    pub(crate) fn gradient(&self) -> &[f64] {
        &self.gradient
    }

    /// The Newton step from the point.
    pub(crate) fn newton_step(&self) -> &[f64] {
        &self.step
    }

    /// Whether the decrement is within the tolerance.
    pub fn converged(&self) -> bool {
        self.decrement() < self.settings.tolerance
    }

    /// One Newton step, halved until the log joint rises by a part of what the slope promises.
    ///
    /// Where less is to be gained than the sums of the log joint round, as on large panels near the mode, its slope at the end of the
    /// step decides: were the log joint a parabola along the step, `value >= before + d length slope` would be
    /// `slope there >= (2 d - 1) slope`, in which nothing cancels. Source: Hager and Zhang, "A new conjugate gradient method
    /// with guaranteed descent and an efficient line search", SIAM Journal on Optimization 16, 2005, (4.1).
    ///
    /// # Errors
    /// When no part of the step has a finite log joint and a positive definite precision.
    pub fn advance(&mut self) -> Result<(), ModeError> {
        if self.factor.is_none() {
            let point = self.point.clone();
            let there = self.evaluate(&point)?;
            if !there.value.is_finite() {
                return Err(ModeError::NotFinite(there.value, self.steps));
            }
            self.take(point, there);
            return Ok(());
        }
        let (value, slope) = (self.value, self.slope());
        let mut length = 1.0;
        loop {
            let there: Vec<f64> = self
                .point
                .iter()
                .zip(&self.step)
                .map(|(p, s)| p + length * s)
                .collect();
            let last = length < SHORTEST;
            match self.evaluate(&there) {
                Ok(found)
                    if found.value >= value + LEAST_RISE * length * slope
                        || (found.value >= value - found.rounding
                            && along(&self.step, &found.found.gradient)
                                >= (2.0 * LEAST_RISE - 1.0) * slope)
                        || (last && found.value.is_finite()) =>
                {
                    self.take(there, found);
                    self.steps += 1;
                    return Ok(());
                }
                Err(FactorError::Stopped) => return Err(FactorError::Stopped.into()),
                Err(error) if last => return Err(error.into()),
                Ok(found) if last => return Err(ModeError::NotFinite(found.value, self.steps)),
                _ => length *= 0.5,
            }
        }
    }

    /// The point and what was found there.
    ///
    /// # Panics
    /// After an error of [`ModeSearch::advance`], and before a first one.
    pub fn into_mode(self) -> Mode {
        Mode {
            decrement: self.decrement(),
            converged: self.converged(),
            gradient_norm: self.gradient.iter().map(|g| g * g).sum::<f64>().sqrt(),
            point: self.point,
            log_joint: self.value,
            steps: self.steps,
            evaluations: self.evaluations,
            factor: self.factor.expect("there is a factor at every point"),
        }
    }

    fn slope(&self) -> f64 {
        along(&self.step, &self.gradient)
    }

    fn evaluate(&mut self, point: &[f64]) -> Result<Evaluated, FactorError> {
        let before = self.factor.take();
        self.evaluations += 1;
        self.counts
            .evaluate(point, Spread::Point, before, self.settings.threads)
    }

    fn take(&mut self, point: Vec<f64>, there: Evaluated) {
        let mut found = there.found;
        self.gradient = std::mem::take(&mut found.gradient);
        self.step = found.step(&self.gradient);
        self.factor = Some(found.factor);
        self.point = point;
        self.value = there.value;
    }
}
