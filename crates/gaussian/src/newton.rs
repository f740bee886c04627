//! The posterior mode by damped Newton steps.

use crate::averaging::Averaging;
use crate::design::above_products;
use crate::objective::{Evaluation, GaussianObjective};
use crate::profile::{ascend, is_profiled, profiled};
use infermark_arrowhead::{ArrowheadFactor, Assembled, FactorError};
use infermark_model::wild_price::{wild_price_of, wildest_price};
use infermark_model::{Panel, printable};
use std::sync::Arc;

/// When a search for the mode ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModeSettings {
    /// Largest number of Newton steps.
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

/// Reasons for having no mode.
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
    /// The error with the labels of `panel`, the likely cause in its data, and the remedy.
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
            ModeError::Factor(FactorError::Device(reason) | FactorError::Storage(reason)) => {
                return reason.clone();
            }
            ModeError::Factor(FactorError::Communication(error)) => return error.to_string(),
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
    /// Steps made.
    pub steps: usize,
    /// Points evaluated for them: the start, and one for every length of a step that was tried.
    pub evaluations: usize,
    /// Whether the decrement is within the tolerance.
    pub converged: bool,
    /// The precision at the point.
    pub factor: ArrowheadFactor,
}

/// Finds the mode.
///
/// # Errors
/// When a precision is not positive definite or the log joint is not finite.
pub fn find_mode(counts: &GaussianObjective, settings: &ModeSettings) -> Result<Mode, ModeError> {
    let mut search = ModeSearch::new(counts, settings)?;
    while !search.converged() && search.steps < settings.steps {
        search.advance()?;
    }
    search.into_mode()
}

/// Shortest fraction of a Newton step that is tried.
const SHORTEST: f64 = 1e-6;

/// The log joint must rise by at least this fraction of what the slope predicts.
const LEAST_RISE: f64 = 1e-4;

/// Log density still to be gained below which a full step stays where the quadratic is accurate, so that only
/// rounding of the slope, whose gradient cancels, could reject it: no log rate moves by more than a few
/// hundredths, given the curvature of rows or priors.
const CERTAIN: f64 = 1e-3;

/// Largest fraction of its decrement that a step with an older factor may leave if the next step is to reuse
/// the factor. A factor costs about as much as five passes without one.
const KEPT: f64 = 0.02;

/// Least number of products per category whose Schur complement the first steps use. Their step has an error
/// of a few hundredths, and the remaining decrement is the square of that.
const SAMPLE: usize = 1024;

/// The factor is computed at the point once the decrement is below this fraction of the tolerance. That is
/// stricter than the tolerance because the decrement from an older factor is only approximate; the passes are
/// cheap, and if more were left the factor would have to be computed again.
const SURE: f64 = 0.5;

/// The derivative along a step.
fn along(counts: &GaussianObjective, step: &[f64], gradient: &[f64]) -> Result<f64, FactorError> {
    let [slope] = counts.sums_over_latents(|j| [step[j] * gradient[j]])?;
    Ok(slope)
}

/// A search for the mode, step by step.
///
/// Poisson counts have the log joint maximized over the products (`profile.rs`): a function of the parameters
/// above them, along whose Newton steps the products follow at their optimum. From the start suggested by the
/// data the search ascends by blocks, then by steps with one factor as long as each step leaves only a small
/// fraction of the decrement; the last factor is computed at the end. A factor varies only with the rates, so
/// that close to the mode an older one is as good, and passes without one are cheap. If there are many
/// products the first factor is that of a sample of them.
///
/// Panels with products left out, negative-binomial counts and narrow priors take damped Newton steps in all
/// parameters.
#[derive(Debug)]
pub struct ModeSearch {
    counts: GaussianObjective,
    settings: ModeSettings,
    point: Vec<f64>,
    /// The precision, at the point unless [`ModeSearch::is_approximate`]; none only while it is replaced.
    found: Option<Assembled>,
    /// Whether the precision is that of an earlier point, or of a sample of the products.
    is_approximate: bool,
    /// Whether the point is the start suggested by the data, from which the search first ascends by blocks.
    is_start: bool,
    value: f64,
    /// The complete gradient; if the precision is approximate, only with respect to the parameters above the
    /// products, which are at their optimum.
    gradient: Vec<f64>,
    /// The next step; only of the parameters above the products if the products follow at their optimum.
    step: Vec<f64>,
    /// The derivative along it.
    slope: f64,
    /// Steps made.
    pub steps: usize,
    evaluations: usize,
}

impl ModeSearch {
    /// A search from the start suggested by the data.
    ///
    /// # Errors
    /// When the log joint there has no finite value or curvature.
    pub fn new(counts: &GaussianObjective, settings: &ModeSettings) -> Result<Self, ModeError> {
        let mut search = Self::unstarted(counts, settings);
        search.advance()?;
        Ok(search)
    }

    /// A search from `point`, in natural parameters.
    ///
    /// # Errors
    /// When the log joint there has no finite value or curvature.
    pub(crate) fn at(
        counts: &GaussianObjective,
        settings: &ModeSettings,
        point: Vec<f64>,
    ) -> Result<Self, ModeError> {
        let mut search = ModeSearch::resumed(counts, settings, point, 0);
        search.advance()?;
        Ok(search)
    }

    /// A search at the start of [`ModeSearch::new`] with nothing computed yet: the first
    /// [`ModeSearch::advance`] does that.
    pub(crate) fn unstarted(counts: &GaussianObjective, settings: &ModeSettings) -> Self {
        ModeSearch {
            is_start: true,
            ..Self::resumed(counts, settings, Vec::new(), 0)
        }
    }

    /// Whether its point was evaluated.
    pub(crate) fn is_evaluated(&self) -> bool {
        self.found.is_some()
    }

    /// A search at a point reached before, whose factor is gone: the first [`ModeSearch::advance`] computes
    /// it again.
    pub(crate) fn resumed(
        counts: &GaussianObjective,
        settings: &ModeSettings,
        point: Vec<f64>,
        steps: usize,
    ) -> Self {
        ModeSearch {
            counts: counts.clone(),
            settings: *settings,
            gradient: Vec::new(),
            step: Vec::new(),
            slope: f64::NAN,
            point,
            found: None,
            is_approximate: false,
            is_start: false,
            value: f64::NAN,
            steps,
            evaluations: 0,
        }
    }

    /// The point, unless the search has not left its start.
    pub(crate) fn reached(&self) -> Option<Vec<f64>> {
        (!self.is_start && !self.point.is_empty()).then(|| self.point.clone())
    }

    /// Half the squared Newton decrement at the point: what a quadratic log joint would still gain.
    pub fn decrement(&self) -> f64 {
        0.5 * self.slope
    }

    /// The log joint at the point.
    pub fn log_joint(&self) -> f64 {
        self.value
    }

    /// The gradient of the log joint at the point.
    pub(crate) fn gradient(&self) -> &[f64] {
        &self.gradient
    }

    /// The Newton step from the point, in all parameters.
    ///
    /// # Errors
    /// When the device that has the rows fails.
    ///
    /// # Panics
    /// Where the precision is approximate.
    pub(crate) fn newton_step(&self) -> Result<Vec<f64>, FactorError> {
        let found = self.found.as_ref().filter(|_| !self.is_approximate);
        found.expect("the precision is the point's").step(&self.gradient)
    }

    /// Whether the decrement, with the precision at the point, is within the tolerance.
    pub fn converged(&self) -> bool {
        !self.is_approximate && self.decrement() < self.settings.tolerance
    }

    /// One step, halved until the log joint rises by a fraction of what the slope predicts.
    ///
    /// If less is to be gained than the rounding of the log joint's sums, as on large panels near the mode,
    /// the slope at the end of the step decides: if the log joint were a parabola along the step,
    /// `value >= before + d length slope` would be `slope there >= (2 d - 1) slope`, in which nothing
    /// cancels. Source: Hager and Zhang, "A new conjugate gradient method with guaranteed descent and an
    /// efficient line search", SIAM Journal on Optimization 16, 2005, (4.1). That slope is rounded, too, and
    /// is not used below `CERTAIN`.
    ///
    /// # Errors
    /// When no fraction of the step has a finite log joint and a positive definite precision.
    pub fn advance(&mut self) -> Result<(), ModeError> {
        if self.found.is_none() {
            return self.begin();
        }
        if is_profiled(&self.counts) {
            return self.advance_above_products();
        }
        let (value, slope) = (self.value, self.slope);
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
                Ok(found) => {
                    let slope_there = along(&self.counts, &self.step, &found.found.gradient)?;
                    let state = (value, slope, length);
                    if Self::rises(state, (found.value, found.rounding), slope_there)
                        || (last && found.value.is_finite())
                    {
                        self.take(there, found)?;
                        self.steps += 1;
                        return Ok(());
                    }
                    if last {
                        return Err(ModeError::NotFinite(found.value, self.steps));
                    }
                }
                Err(error @ (FactorError::Stopped | FactorError::Communication(_))) => {
                    return Err(error.into());
                }
                Err(error) if last => return Err(error.into()),
                Err(_) => {}
            }
            length *= 0.5;
        }
    }

    /// Whether the log joint rises over this fraction of a step, judged by its value before, its value after
    /// and the slope there.
    fn rises(
        (value, slope, length): (f64, f64, f64),
        (there, rounding): (f64, f64),
        slope_there: f64,
    ) -> bool {
        there >= value + LEAST_RISE * length * slope
            || (there >= value - rounding
                && (slope < 2.0 * CERTAIN || slope_there >= (2.0 * LEAST_RISE - 1.0) * slope))
    }

    /// The start, evaluated.
    fn begin(&mut self) -> Result<(), ModeError> {
        if self.is_start {
            self.point = self.counts.start()?;
        }
        if self.is_start && is_profiled(&self.counts) {
            ascend(&self.counts, &mut self.point, self.settings.threads)?;
        }
        self.evaluations += 1;
        if !(self.is_start && is_profiled(&self.counts) && self.sampled_here()?) {
            self.factor_here()?;
        }
        self.is_start = false;
        if self.value.is_finite() {
            Ok(())
        } else {
            self.found = None;
            Err(ModeError::NotFinite(self.value, self.steps))
        }
    }

    /// One step of the parameters above the products, with the products following.
    fn advance_above_products(&mut self) -> Result<(), ModeError> {
        let (layout, walk) = (self.counts.layout(), self.counts.partition().clone());
        let before = walk.blocks(&self.point);
        let above = above_products(layout);
        // A shift of all period effects of a category changes no rate if its products' effects offset it.
        let shifts: Vec<f64> = (0..layout.categories)
            .map(|c| {
                let own = &self.step[layout.time_index(c, 0)..][..layout.periods];
                own.iter().sum::<f64>() / layout.periods as f64
            })
            .collect();
        let mut length = 1.0;
        let (found, pairs, there) = loop {
            let mut there = self.point.clone();
            for j in above.iter().cloned().flatten() {
                there[j] += length * self.step[j];
            }
            let mut pairs = before.clone();
            walk.shift_effects(
                &mut pairs,
                &shifts.iter().map(|shift| -length * shift).collect::<Vec<f64>>(),
            );
            self.evaluations += 1;
            let found = profiled(&self.counts, &there, &mut pairs, self.settings.threads)?;
            let slope_there: f64 = above
                .iter()
                .cloned()
                .flatten()
                .map(|j| self.step[j] * found.gradient[j])
                .sum();
            let last = length < SHORTEST;
            let state = (self.value, self.slope, length);
            if Self::rises(state, (found.value, found.rounding), slope_there)
                || (last && found.value.is_finite())
            {
                break (found, pairs, there);
            }
            if last {
                return Err(ModeError::NotFinite(found.value, self.steps));
            }
            length *= 0.5;
        };
        self.point = there;
        walk.write_blocks(&mut self.point, &pairs);
        drop((before, pairs));
        self.steps += 1;
        self.value = found.value;
        self.is_approximate = true;
        self.gradient = found.gradient;
        let before = self.slope;
        self.step.clone_from(&self.gradient);
        let factor = &self.found.as_ref().expect("it was checked").factor;
        self.slope = factor.solve_above_products(&mut self.step);
        let is_near = self.decrement() < SURE * self.settings.tolerance;
        if is_near || self.slope.is_nan() || self.slope > KEPT * before {
            self.factor_here()?;
        }
        Ok(())
    }

    /// Moves the products to their optimum, and computes the precision there from a sample of them; false if
    /// the sample would not represent all.
    fn sampled_here(&mut self) -> Result<bool, FactorError> {
        let (counts, threads) = (&self.counts, self.settings.threads);
        if counts.walker().is_some() {
            return Ok(false);
        }
        let Some(sample) = counts.partition().sample(SAMPLE) else {
            return Ok(false);
        };
        let mut pairs = counts.partition().blocks(&self.point);
        let found = profiled(counts, &self.point, &mut pairs, threads)?;
        if !found.value.is_finite() {
            return Ok(false);
        }
        counts.partition().write_blocks(&mut self.point, &pairs);
        let by_period = &found.at_optimum.by_period;
        let Some(sampled) = counts.sampled_factor(&self.point, sample, by_period, threads)? else {
            return Ok(false);
        };
        self.value = found.value;
        self.gradient = found.gradient;
        self.step.clone_from(&self.gradient);
        self.slope = sampled.factor.solve_above_products(&mut self.step);
        self.found = Some(sampled);
        self.is_approximate = true;
        Ok(true)
    }

    /// Computes the precision at the point.
    fn factor_here(&mut self) -> Result<(), FactorError> {
        let point = std::mem::take(&mut self.point);
        let there = self.evaluated(&point);
        // If it was stopped, the point must be kept.
        self.point = point;
        let there = there?;
        let point = std::mem::take(&mut self.point);
        self.take(point, there)
    }

    /// The point and the results there.
    ///
    /// # Errors
    /// If the precision has yet to be computed at the point: when it is not positive definite, or the work is
    /// stopped.
    ///
    /// # Panics
    /// After an error of [`ModeSearch::advance`], and before a first one.
    pub fn into_mode(mut self) -> Result<Mode, ModeError> {
        if self.is_approximate {
            self.factor_here()?;
        }
        let [squares] = self.counts.sums_over_latents(|j| [self.gradient[j].powi(2)])?;
        Ok(Mode {
            decrement: self.decrement(),
            converged: self.converged(),
            gradient_norm: squares.sqrt(),
            point: self.point,
            log_joint: self.value,
            steps: self.steps,
            evaluations: self.evaluations,
            factor: self.found.expect("there is a factor at every point").factor,
        })
    }

    fn evaluate(&mut self, point: &[f64]) -> Result<Evaluation, FactorError> {
        self.evaluations += 1;
        self.evaluated(point)
    }

    fn evaluated(&mut self, point: &[f64]) -> Result<Evaluation, FactorError> {
        let before = self.found.take().map(|found| found.factor);
        // The factor of a sample has another walk.
        let before = before.filter(|factor| Arc::ptr_eq(factor.partition(), self.counts.partition()));
        self.counts
            .evaluate(point, Averaging::Point, before, self.settings.threads)
    }

    fn take(&mut self, point: Vec<f64>, there: Evaluation) -> Result<(), FactorError> {
        let mut found = there.found;
        self.gradient = std::mem::take(&mut found.gradient);
        if is_profiled(&self.counts) {
            (self.step, self.slope) = found.step_above_products(&self.gradient);
        } else {
            self.step = found.step(&self.gradient)?;
            self.slope = along(&self.counts, &self.step, &self.gradient)?;
        }
        self.found = Some(found);
        self.is_approximate = false;
        self.point = point;
        self.value = there.value;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::{Labels, Likelihood, PanelPart, Priors};
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    /// Recorded at the end of a full step near the mode of a panel of 100,000 products: the value is within
    /// its rounding, the slope off by its own.
    #[test]
    fn near_the_mode_a_slope_that_is_all_rounding_refuses_no_step() {
        let (value, rounding) = (-1e8, 1e-3);
        let near = (value, 1e-6, 1.0);
        assert!(ModeSearch::rises(near, (value - 0.5 * rounding, rounding), -3e-5));
        // A value that falls by more than its rounding does not rise.
        assert!(!ModeSearch::rises(
            near,
            (value - 2.0 * rounding, rounding),
            -3e-5
        ));
        // Far from the mode a slope with the opposite sign means that the step is too long.
        assert!(!ModeSearch::rises(
            (value, 10.0, 1.0),
            (value - 0.5 * rounding, rounding),
            -30.0
        ));
    }

    /// 4,400 products of two categories; only those of `only` have a row in the last period.
    fn counts(only: Option<fn(usize) -> bool>) -> GaussianObjective {
        const PERIODS: usize = 8;
        let mut rng = StdRng::seed_from_u64(5);
        let mut part = PanelPart::new(2, PERIODS);
        for i in 0..4400 {
            let level = 2.0 * rng.random::<f64>().powi(-1).min(50.0);
            let periods: Vec<u32> = (0..PERIODS as u32)
                .filter(|t| *t + 1 < PERIODS as u32 || only.is_none_or(|only| only(i)))
                .collect();
            let prices: Vec<f64> = periods.iter().map(|_| rng.random_range(1.0..3.0)).collect();
            let units: Vec<u32> = prices
                .iter()
                .map(|price: &f64| (level * price.powf(-1.5) * rng.random_range(0.5..1.5)).round() as u32)
                .collect();
            let is_whole = periods.len() == PERIODS;
            let periods = (!is_whole).then_some(periods.as_slice());
            part.push_product(i % 2, periods, &prices, &units).unwrap();
        }
        let [p, c, t] =
            [("p", 4400), ("c", 2), ("t", PERIODS)].map(|(name, count)| Labels::numbered(name, count));
        let panel = Arc::new(Panel::from_parts(p, c, t, vec![part]).unwrap());
        GaussianObjective::new(&panel, &Priors::default(), Likelihood::Poisson)
    }

    #[test]
    fn first_steps_by_a_sample_lead_to_the_same_mode() {
        let (counts, settings) = (counts(None), ModeSettings::default());
        let mut search = ModeSearch::new(&counts, &settings).unwrap();
        assert!(search.is_approximate, "a sample stands for all");
        while !search.converged() {
            search.advance().unwrap();
        }
        assert!(search.steps <= 6, "{} steps", search.steps);
        // Damped Newton steps with every product from the first.
        let mut plain = ModeSearch::at(&counts, &settings, counts.start().unwrap()).unwrap();
        while !plain.converged() {
            plain.advance().unwrap();
        }
        let sd: Vec<f64> = plain.into_mode().unwrap().factor.marginals().variance;
        let mut plain = ModeSearch::at(&counts, &settings, counts.start().unwrap()).unwrap();
        while !plain.converged() {
            plain.advance().unwrap();
        }
        for (j, (found, expected)) in search.point.iter().zip(&plain.point).enumerate() {
            assert!(
                (found - expected).abs() < 1e-4 * sd[j].sqrt(),
                "{j}: {found} {expected}"
            );
        }
    }

    #[test]
    fn a_sample_that_lacks_what_a_period_sold_does_not_stand_for_all() {
        // One product of few units in each category.
        let counts = counts(Some(|i| i == 2222 || i == 2225));
        let search = ModeSearch::new(&counts, &ModeSettings::default()).unwrap();
        assert!(!search.is_approximate);
    }
}
