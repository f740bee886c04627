//! Gaussians that maximize the evidence lower bound, without Monte Carlo.
//!
//! For a Gaussian the mean of a row's log likelihood is `y eta - exp(eta + v / 2) - ln y!`, with `eta` and
//! `v` the mean and variance of the log rate; the clip is ignored. Where the bound is stationary, the
//! gradient with respect to the means vanishes and the precision is that of the weights `exp(eta + v / 2)`:
//! the whole arrowhead matrix for the structured Gaussian, its diagonal for the mean-field one. Means and
//! precision are iterated together; the means by Newton steps with the arrowhead matrix in both cases.
//!
//! Source: Ormerod and Wand, "Gaussian variational approximate inference for generalized linear mixed models", 2012.

use crate::averaging::{Averaging, MOST_CHANGE};
use crate::newton::{Mode, ModeError, ModeSettings, find_mode};
use crate::objective::{Evaluation, GaussianObjective};
use crate::over_ranks::largest;
use crate::pace::Pace;
use crate::settle::Settled;
use infermark_arrowhead::{ArrowheadFactor, Assembled};
use infermark_model::{Coordinates, IndependentRates, Orthogonal, Site};
use std::borrow::Cow;
use std::sync::Arc;

/// Families of Gaussians.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Gaussians with the arrowhead's precision.
    Structured,
    /// Gaussians with independent latents.
    MeanField,
}

/// When the iteration ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Largest number of steps.
    pub steps: usize,
    /// The fit is found when no mean moves by more than this many of its standard deviations, nor any log
    /// standard deviation by more than this; or no mean by more than the rounding of the gradient moves it.
    pub tolerance: f64,
    /// The coordinates in which a mean-field Gaussian is independent.
    pub coordinates: Coordinates,
    /// The search for the mode that it starts from.
    pub mode: ModeSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            steps: 500,
            tolerance: 1e-5,
            coordinates: Coordinates::Published,
            mode: ModeSettings::default(),
        }
    }
}

/// The fit.
#[derive(Debug, Clone)]
pub struct Fit {
    /// Means of the natural parameters, in the order of [`infermark_model::Layout`].
    pub mean: Vec<f64>,
    /// Their variances.
    pub variance: Vec<f64>,
    /// For a mean-field Gaussian in orthogonal coordinates: the coordinates, and
    /// [`Orthogonal::rate_variances`].
    pub orthogonal: Option<(Arc<Orthogonal>, Vec<f64>)>,
    /// The evidence lower bound of exactly this Gaussian, ignoring the clip.
    pub elbo: f64,
    /// Norm of the bound's gradient with respect to the means.
    pub gradient_norm: f64,
    /// Half the squared Newton decrement of the means.
    pub decrement: f64,
    /// Steps made.
    pub steps: usize,
    /// Whether the last step was within the tolerance.
    pub converged: bool,
    /// The arrowhead factor for the weights of the fit: its precision if structured.
    pub factor: ArrowheadFactor,
}

/// The diagonal of the precision in the coordinates of a mean-field Gaussian.
fn precisions(
    factor: &ArrowheadFactor,
    orthogonal: Option<&Orthogonal>,
    counts: &GaussianObjective,
) -> Vec<f64> {
    let diagonal = factor.diagonal();
    match orthogonal {
        Some(orthogonal) => {
            orthogonal.precision_diagonal(&diagonal, &factor.couplings_of_products(), counts.priors())
        }
        None => diagonal,
    }
}

/// Fits a Gaussian, starting from the mode.
///
/// # Errors
/// When a precision is not positive definite or the bound is not finite.
pub fn fit(counts: &GaussianObjective, family: Family, settings: &Settings) -> Result<Fit, ModeError> {
    let mode = find_mode(counts, &settings.mode)?;
    let mut search = Search::new(counts, family, settings.coordinates, mode);
    while (search.moved.is_nan() || search.moved >= settings.tolerance) && search.steps < settings.steps {
        search.advance()?;
    }
    Ok(search.into_fit(settings.tolerance))
}

/// The largest move of a log shape in a step.
const MOST_OF_LOG_SHAPE: f64 = 0.5;

/// The largest multiple of its step by which a log shape moves.
const MOST_STRETCH: f64 = 32.0;

/// The multiple from which on the extra solve is worth its cost.
const LEAST_STRETCH: f64 = 1.25;

/// Rounded sums move a mean by at most this many times the effect of [`GaussianObjective::rounding_of_gradient`], which
/// assumes one rounding per sum instead of one per addition.
const MOST_ROUNDINGS: f64 = 30.0;

/// Once no mean and no log standard deviation moves by more than this, negative-binomial pairs are no longer
/// settled: it would cost more than the steps that it saves.
const LEAST_SETTLED: f64 = 1e-3;

/// The smallest fraction of a step that is made.
const LEAST_PART: f64 = 1.0 / 64.0;

/// The iteration, step by step.
#[derive(Debug)]
pub struct Search {
    family: Family,
    counts: GaussianObjective,
    /// Means that the next step starts from.
    mean: Vec<f64>,
    /// The coordinates in which a mean-field Gaussian is independent, if those are not the natural
    /// parameters.
    orthogonal: Option<Arc<Orthogonal>>,
    /// Its variances in its coordinates, if latents are independent; for a structured one those of the
    /// previous step.
    variance: Vec<f64>,
    factor: Option<ArrowheadFactor>,
    /// The last Gaussian whose bound is known.
    known: Option<Known>,
    /// The fraction of a step that is made: less than 1 if steps overshoot.
    part: f64,
    /// The limit to which it may grow again: lower after every overshoot, so that overshoots cease.
    most_part: f64,
    /// Whether passes settle the products of few sales.
    settles: bool,
    /// The fraction of their change that the weights of each product make in a step, under the negative
    /// binomial.
    pace: Option<Pace>,
    /// The last step of each log shape, and the multiple of it that was made.
    shape_steps: Vec<(f64, f64)>,
    /// The quantity that is compared with the tolerance.
    pub moved: f64,
    /// The same for the previous step.
    before_last: f64,
    /// Steps made.
    pub steps: usize,
}

/// A Gaussian and its bound.
#[derive(Debug, Clone)]
struct Known {
    mean: Vec<f64>,
    variance: Vec<f64>,
    elbo: f64,
    gradient_norm: f64,
    decrement: f64,
}

impl Search {
    /// An iteration from the mode, with the precision there; a mean-field Gaussian is independent in
    /// `coordinates`.
    pub fn new(counts: &GaussianObjective, family: Family, coordinates: Coordinates, mode: Mode) -> Self {
        let Mode { point, factor, .. } = mode;
        let orthogonal = (family == Family::MeanField && coordinates == Coordinates::Orthogonal)
            .then(|| Arc::new(counts.orthogonal()));
        let variance = match family {
            Family::MeanField => precisions(&factor, orthogonal.as_deref(), counts)
                .iter()
                .map(|q| 1.0 / q)
                .collect(),
            Family::Structured => Vec::new(),
        };
        Search {
            family,
            counts: counts.clone(),
            mean: point,
            orthogonal,
            variance,
            factor: Some(factor),
            known: None,
            part: 1.0,
            most_part: 1.0,
            settles: false,
            pace: counts
                .likelihood()
                .has_shape()
                .then(|| Pace::new(counts.layout().products)),
            shape_steps: vec![(f64::NAN, 1.0); counts.layout().range(Site::LogShape).len()],
            moved: f64::INFINITY,
            before_last: f64::INFINITY,
            steps: 0,
        }
    }

    /// The means that the next step starts from.
    pub(crate) fn means(&self) -> &[f64] {
        &self.mean
    }

    /// The bound before the last step.
    pub fn elbo(&self) -> Option<f64> {
        self.known.as_ref().map(|known| known.elbo)
    }

    /// One step.
    ///
    /// # Errors
    /// When the precision is not positive definite or the bound is not finite.
    pub fn advance(&mut self) -> Result<(), ModeError> {
        let from = self.mean.clone();
        self.settles = self.family == Family::Structured
            && (!self.counts.likelihood().has_shape() || self.moved.is_nan() || self.moved > LEAST_SETTLED);
        let (found, value, variance, elbo) = self.pass()?;
        if !elbo.is_finite() || !value.is_finite() {
            return Err(ModeError::NotFinite(elbo, self.steps));
        }
        let mut step = found.step(&found.gradient)?;
        if self.family == Family::Structured {
            self.stretch(&found.factor, &mut step);
        }
        let natural = self.natural(&variance);
        let [by_means] = self
            .counts
            .largest_over_latents(|j| [(self.mean[j] - from[j] + step[j]).abs() / natural[j].sqrt()])?;
        // Where counts are large, a mean-field standard deviation is far below what rounding leaves along the
        // directions that only the priors hold. A step no longer than the one due to the rounding of the
        // gradient counts as zero.
        let by_means = if self.family == Family::MeanField {
            let rounding = found.factor.solved(self.counts.rounding_of_gradient());
            let [by_rounding] = self
                .counts
                .largest_over_latents(|j| [rounding[j].abs() / natural[j].sqrt()])?;
            if by_means <= MOST_ROUNDINGS * by_rounding {
                0.0
            } else {
                by_means
            }
        } else {
            by_means
        };
        let next = match self.family {
            // The next variances are known in the next step.
            Family::Structured => None,
            Family::MeanField => Some(
                precisions(&found.factor, self.orthogonal.as_deref(), &self.counts)
                    .iter()
                    .zip(&variance)
                    .map(|(q, v)| {
                        v * (q * v)
                            .recip()
                            .clamp(MOST_CHANGE.recip(), MOST_CHANGE)
                            .powf(self.part)
                    })
                    .collect::<Vec<f64>>(),
            ),
        };
        let (old, new) = match &next {
            Some(next) => (&variance, next),
            None => (&self.variance, &variance),
        };
        let by_variances = if old.is_empty() {
            f64::INFINITY
        } else {
            let [most] = self
                .counts
                .largest_over_latents(|j| [0.5 * (new[j] / old[j]).ln().abs()])?;
            most
        };
        // If the bound falls, steps overshoot: only a fraction of each is made from then on. Below the last
        // term the rounding of the sums decides. The negative binomial's bound is exact only to second order
        // in the shapes and may fall a little: there, steps overshoot if they are no shorter than the one
        // before the last.
        let falls = self
            .known
            .as_ref()
            .is_some_and(|known| elbo < known.elbo - 1e-9 * known.elbo.abs());
        let has_shape = self.counts.likelihood().has_shape();
        let overshoots = falls && (!has_shape || largest(by_means, by_variances) >= self.before_last);
        if overshoots {
            self.part = (0.5 * self.part).max(LEAST_PART);
            // Under the negative binomial a fall need not be an overshoot.
            if !has_shape {
                self.most_part = (0.9 * self.most_part).max(LEAST_PART);
            }
        } else if self.family == Family::Structured {
            self.part = (1.5 * self.part).min(self.most_part);
        }
        self.before_last = self.moved;
        // If only a fraction of a step is made, the remaining distance is longer by its inverse.
        self.moved = largest(by_means, by_variances / self.part);
        let gradient = &found.gradient;
        let [squares, slope] = self
            .counts
            .sums_over_latents(|j| [gradient[j] * gradient[j], step[j] * gradient[j]])?;
        self.known = Some(Known {
            mean: self.mean.clone(),
            variance: variance.clone(),
            elbo,
            gradient_norm: squares.sqrt(),
            decrement: 0.5 * slope,
        });
        for (_, made) in &mut self.shape_steps {
            *made *= self.part;
        }
        self.go(&step);
        self.variance = next.unwrap_or(variance);
        self.factor = Some(found.factor);
        self.steps += 1;
        Ok(())
    }

    /// Variances of the natural parameters, from those of the coordinates.
    fn natural<'v>(&self, variance: &'v [f64]) -> Cow<'v, [f64]> {
        match &self.orthogonal {
            Some(orthogonal) => Cow::Owned(orthogonal.natural_variances(variance)),
            None => Cow::Borrowed(variance),
        }
    }

    /// The pass of a step: its results, its value, the variances of the latents and the bound. It consumes
    /// the factor.
    ///
    /// # Errors
    /// When the precision is not positive definite.
    pub(crate) fn pass(&mut self) -> Result<(Assembled, f64, Vec<f64>, f64), ModeError> {
        let before = self.factor.take().expect("there is a factor between steps");
        match self.family {
            Family::Structured => self.structured(before),
            Family::MeanField => self.mean_field(before),
        }
    }

    /// Lengthens the steps of log shapes whose steps get shorter by the same factor, step after step.
    ///
    /// If rows carry little information on a shape, a least precision replaces its own smaller one, so that
    /// each step covers only a small fraction of the distance. Let `f` be the ratio of two steps, of the
    /// first of which the multiple `p` was made; the remaining distance is `p / (1 - f)` times the second
    /// step (Aitken). All parameters coupled to the shape move along with it, as in a Newton step.
    fn stretch(&mut self, factor: &ArrowheadFactor, step: &mut [f64]) {
        let layout = self.counts.layout();
        let lengths = self.lengths(step);
        let mut stretches = Vec::with_capacity(self.shape_steps.len());
        for ((own, length), j) in self
            .shape_steps
            .iter_mut()
            .zip(lengths)
            .zip(layout.range(Site::LogShape))
        {
            let (before, made) = *own;
            let left = (step[j] / before).min(1.0 - made / MOST_STRETCH);
            let most = (MOST_OF_LOG_SHAPE / step[j].abs()).max(1.0);
            let asked = (made / (1.0 - left)).min(most);
            // If the precision is the shapes' own, steps are Newton's and need no stretching.
            let slow = factor.uses_fallback_curvature() && left > 0.0 && asked > LEAST_STRETCH;
            let stretch = if slow { asked } else { 1.0 };
            // The fraction belongs to the step and is known once the step is made.
            *own = (step[j], length * stretch);
            stretches.push(stretch);
        }
        if stretches.iter().all(|stretch| *stretch == 1.0) {
            return;
        }
        let mut moved = vec![0.0; step.len()];
        moved[layout.range(Site::LogShape)].fill(1.0);
        factor.solve(&mut moved);
        let further: Vec<f64> = layout
            .range(Site::LogShape)
            .zip(stretches)
            .map(|(j, stretch)| (stretch - 1.0) * step[j] / moved[j])
            .collect();
        for site in layout.sites() {
            for (k, j) in layout.range(*site).enumerate() {
                if let Some(category) = self.category_of(*site, k) {
                    step[j] += further[category] * moved[j];
                }
            }
        }
    }

    /// The category of an entry of a site; `None` of a scalar.
    fn category_of(&self, site: Site, entry: usize) -> Option<usize> {
        let category_of = self.counts.panel().category_of();
        self.counts.layout().category(site, entry, category_of)
    }

    /// Makes a fraction of the step in each category, so that no log shape moves by more than
    /// [`MOST_OF_LOG_SHAPE`].
    fn go(&mut self, step: &[f64]) {
        let (layout, part) = (self.counts.layout(), self.part);
        if !self.counts.likelihood().has_shape() {
            self.mean.iter_mut().zip(step).for_each(|(m, s)| *m += part * s);
            return;
        }
        let lengths = self.lengths(step);
        for site in layout.sites() {
            for (k, j) in layout.range(*site).enumerate() {
                let length = self
                    .category_of(*site, k)
                    .map_or(1.0, |category| lengths[category]);
                self.mean[j] += part * length * step[j];
            }
        }
    }

    fn lengths(&self, step: &[f64]) -> Vec<f64> {
        let layout = self.counts.layout();
        let mut lengths = vec![1.0; layout.categories];
        for (length, j) in lengths.iter_mut().zip(layout.range(Site::LogShape)) {
            *length = (MOST_OF_LOG_SHAPE / step[j].abs()).min(1.0);
        }
        lengths
    }

    /// The last Gaussian whose bound is known: the step that would follow is as large as [`Search::moved`] says.
    ///
    /// # Panics
    /// Before the first step and after an error.
    pub fn into_fit(self, tolerance: f64) -> Fit {
        let known = self.known.expect("a step was made");
        Fit {
            mean: known.mean,
            orthogonal: self.orthogonal.as_ref().map(|orthogonal| {
                let of_rates = orthogonal.rate_variances(&known.variance);
                (orthogonal.clone(), of_rates)
            }),
            variance: match &self.orthogonal {
                Some(orthogonal) => orthogonal.natural_variances(&known.variance),
                None => known.variance,
            },
            elbo: known.elbo,
            gradient_norm: known.gradient_norm,
            decrement: known.decrement,
            steps: self.steps,
            converged: self.moved < tolerance,
            factor: self.factor.expect("there is a factor between steps"),
        }
    }

    /// The pass under `Normal(mean, Q^-1)`, with the `Q` of `before`: its results, its value, the variances
    /// and the bound.
    fn structured(&mut self, before: ArrowheadFactor) -> Result<(Assembled, f64, Vec<f64>, f64), ModeError> {
        let ln_det = before.ln_det_over_ranks()?;
        let mut variance = before.variances_above_products();
        let pace = self.pace.take();
        let settled = self.settles.then(|| Settled::new(self.counts.layout().products));
        let averaging = Averaging::Structured {
            part: self.part,
            pace: pace.as_ref(),
            settled: settled.as_ref(),
        };
        let threads = before.threads();
        let Evaluation {
            found,
            value,
            moments,
            point,
            ..
        } = self
            .counts
            .evaluate(&self.mean, averaging, Some(before), threads)?;
        self.pace = pace;
        self.mean = point;
        let layout = self.counts.layout();
        for (i, covariance) in moments.covariance.into_iter().enumerate() {
            for (k, start) in self.counts.partition().sites().product.into_iter().enumerate() {
                variance[start + i] = covariance[k][k];
            }
        }
        // The value has the rows' part of tr(Q Sigma) / 2 = L / 2; the rest is in the priors' mean densities.
        let latents = layout.latents() as f64;
        let entropy = 0.5 * latents * (2.0 * std::f64::consts::PI).ln() - 0.5 * ln_det;
        Ok((found, value, variance, value + entropy))
    }

    /// The pass under independent latents with the current variances.
    fn mean_field(&mut self, before: ArrowheadFactor) -> Result<(Assembled, f64, Vec<f64>, f64), ModeError> {
        let of_rates = match &self.orthogonal {
            Some(orthogonal) => Cow::Owned(orthogonal.rate_variances(&self.variance)),
            None => Cow::Borrowed(&self.variance),
        };
        let averaging = Averaging::Independent(match &self.orthogonal {
            Some(orthogonal) => IndependentRates::orthogonal(&of_rates, orthogonal),
            None => IndependentRates::natural(&of_rates),
        });
        let threads = before.threads();
        let Evaluation { found, value, .. } =
            self.counts
                .evaluate(&self.mean, averaging, Some(before), threads)?;
        let mut precision = self.counts.prior_precisions();
        let layout = self.counts.layout();
        if !layout.range(Site::LogShape).is_empty() {
            // The rows' mean is evaluated at the mean of the log shape: to second order it is lower by half
            // of this.
            let diagonal = found.factor.diagonal();
            precision[layout.range(Site::LogShape)].copy_from_slice(&diagonal[layout.range(Site::LogShape)]);
        }
        if let Some(orthogonal) = &self.orthogonal {
            // Only the priors contribute: no row couples elasticities and effects there.
            precision =
                orthogonal.precision_diagonal(&precision, &vec![0.0; layout.products], self.counts.priors());
        }
        let spread: f64 = self
            .variance
            .iter()
            .zip(&precision)
            .map(|(v, p)| v * p - v.ln())
            .sum();
        let latents = layout.latents() as f64;
        let entropy = 0.5 * latents * (1.0 + (2.0 * std::f64::consts::PI).ln())
            + self
                .orthogonal
                .as_ref()
                .map_or(0.0, |orthogonal| orthogonal.ln_jacobian());
        Ok((
            found,
            value,
            self.variance.clone(),
            value - 0.5 * spread + entropy,
        ))
    }
}
