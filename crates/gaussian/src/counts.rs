//! What is fitted: a panel under priors and a likelihood, evaluated by the arrow's pass.

use crate::negative_binomial::NegativeBinomialRates;
use crate::poisson::{PoissonRates, Spread};
use infermark_arrow::{ArrowFactor, Assembled, FactorError, PairMoments, Walk};
use infermark_cpu_kernels::DistinctCounts;
use infermark_cpu_kernels::chunk::chunks;
use infermark_cpu_kernels::distinct_counts::distinct_counts;
use infermark_model::ln_factorial::ln_factorial;
use infermark_model::log_joint::LN_SQRT_2PI;
use infermark_model::priors::Priors;
use infermark_model::site::{Layout, Site};
use infermark_model::{Likelihood, Panel};
use std::sync::Arc;

/// A panel under priors and a likelihood.
#[derive(Debug, Clone)]
pub struct Counts {
    walk: Arc<Walk>,
    priors: Priors,
    likelihood: Likelihood,
    /// Counts from here on are taken to be at the upper clip bound, and left out.
    bound: Bound,
    /// Distinct counts of every category, where the likelihood needs them.
    distinct: Arc<Vec<Vec<DistinctCounts>>>,
    /// What is wrong with the pass, in tests.
    #[cfg(feature = "faults")]
    fault: Option<crate::fault::Fault>,
}

/// Standard deviations below the rate at the upper clip bound from which a count is taken to be at the bound.
const AT_BOUND: f64 = 8.0;

/// What is known of rows at the upper clip bound: of their log rate no more than that it is above. Left in, they would pin it
/// there.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    /// The least count that is taken to be at the bound.
    pub(crate) least: f64,
    /// Whether each product has such rows; empty where none has.
    pub(crate) products: Arc<Vec<bool>>,
    /// Sums of the other counts by category and period.
    category_period: Arc<Vec<u64>>,
    /// Their sum of `ln y!`.
    ln_factorials: f64,
}

impl Bound {
    /// Of Poisson counts; those of a negative binomial vary too much for it to be told.
    fn of(panel: &Panel, priors: &Priors, likelihood: Likelihood) -> Self {
        let rate = priors.clip_high.exp();
        let least = match likelihood {
            Likelihood::Poisson => rate - AT_BOUND * rate.sqrt(),
            Likelihood::NegativeBinomial => f64::INFINITY,
        };
        let is_at = |units: &u32| f64::from(*units) >= least;
        let products = if panel.units().iter().any(is_at) {
            (0..panel.layout().products)
                .map(|i| panel.units()[panel.row_range(i)].iter().any(is_at))
                .collect()
        } else {
            Vec::new()
        };
        let layout = panel.layout();
        let mut category_period = panel.sums().category_period.clone();
        let ln_factorials = if products.is_empty() {
            panel.sums().ln_factorials
        } else {
            let inside = panel.units().iter().filter(|units| !is_at(units));
            inside.map(|units| ln_factorial(*units)).sum()
        };
        for (i, _) in products.iter().enumerate().filter(|(_, meets)| **meets) {
            let first = panel.category_of()[i] as usize * layout.periods;
            for row in panel.product_rows(i).filter(|row| is_at(&row.units)) {
                category_period[first + row.period] -= u64::from(row.units);
            }
        }
        Bound {
            least,
            products: Arc::new(products),
            category_period: Arc::new(category_period),
            ln_factorials,
        }
    }

    /// Whether a product has rows at the bound.
    #[inline]
    pub(crate) fn meets(&self, product: usize) -> bool {
        self.products.get(product).copied().unwrap_or(false)
    }
}

/// The pass over the rows at a point, completed.
#[derive(Debug)]
pub(crate) struct Evaluated {
    /// Factor, whole gradient.
    pub(crate) found: Assembled,
    /// Log joint, or its mean under a Gaussian in what depends on the rows.
    pub(crate) value: f64,
    /// The products' moments under the Gaussian before, if those were asked for.
    pub(crate) moments: PairMoments,
    /// Whether the exact precision is not positive definite there, and its twin stands in.
    pub(crate) stands_in: bool,
}

impl Counts {
    /// The counts of `panel`.
    pub fn new(panel: &Arc<Panel>, priors: &Priors, likelihood: Likelihood) -> Self {
        let distinct = match likelihood {
            Likelihood::Poisson => Vec::new(),
            Likelihood::NegativeBinomial => {
                let chunks = chunks(panel);
                let mut of_category = vec![Vec::new(); panel.layout().categories];
                for (chunk, counts) in chunks.iter().zip(distinct_counts(panel, &chunks)) {
                    of_category[chunk.category].push(counts);
                }
                of_category
            }
        };
        Counts {
            walk: Arc::new(Walk::new(panel, likelihood)),
            priors: *priors,
            likelihood,
            bound: Bound::of(panel, priors, likelihood),
            distinct: Arc::new(distinct),
            #[cfg(feature = "faults")]
            fault: None,
        }
    }

    /// The same with a fault in the pass.
    #[cfg(feature = "faults")]
    pub(crate) fn with_fault(self, fault: Option<crate::fault::Fault>) -> Self {
        Counts { fault, ..self }
    }

    /// The panel.
    pub fn panel(&self) -> &Arc<Panel> {
        self.walk.panel()
    }

    /// The priors.
    pub fn priors(&self) -> &Priors {
        &self.priors
    }

    /// The likelihood.
    pub fn likelihood(&self) -> Likelihood {
        self.likelihood
    }

    /// Products with rows at the upper clip bound, which are left out.
    pub fn products_at_bound(&self) -> usize {
        self.bound.products.iter().filter(|at| **at).count()
    }

    /// Whether a row with so many units is taken to be at the upper clip bound, and left out.
    pub(crate) fn is_at_bound(&self, units: u32) -> bool {
        f64::from(units) >= self.bound.least
    }

    /// Part of the rows that are not left out whose rates at `point` are below twice that of the lower clip bound.
    pub(crate) fn near_lower_bound(&self, point: &[f64], threads: usize) -> f64 {
        let (panel, layout) = (self.panel(), self.layout());
        let low = self.priors.clip_low + std::f64::consts::LN_2;
        let of_product = |i: usize| {
            let a = point[layout.start(Site::ProductA) + i];
            let e = point[layout.start(Site::ProductEffect) + i];
            let effects = &point[layout.time_index(panel.category_of()[i] as usize, 0)..];
            let below = |row: &infermark_model::panel::Row| {
                !self.is_at_bound(row.units) && a * row.log_price + e + effects[row.period] < low
            };
            panel.product_rows(i).filter(below).count()
        };
        let threads = threads.clamp(1, layout.products);
        let part = layout.products.div_ceil(threads);
        let near: usize = std::thread::scope(|scope| {
            let parts: Vec<_> = (0..threads)
                .map(|t| (t * part).min(layout.products)..((t + 1) * part).min(layout.products))
                .map(|products| scope.spawn(|| products.map(of_product).sum::<usize>()))
                .collect();
            let of_part =
                |part: std::thread::ScopedJoinHandle<'_, usize>| part.join().expect("counting cannot fail");
            parts.into_iter().map(of_part).sum()
        });
        near as f64 / panel.rows() as f64
    }

    /// The places of the latents.
    pub fn layout(&self) -> Layout {
        self.walk.layout()
    }

    /// Evaluates a point, in the place of the factor `before` if there is one.
    ///
    /// # Errors
    /// When the precision there is not positive definite.
    pub(crate) fn evaluate(
        &self,
        point: &[f64],
        spread: Spread<'_>,
        before: Option<ArrowFactor>,
        threads: usize,
    ) -> Result<Evaluated, FactorError> {
        match self.likelihood {
            Likelihood::Poisson => {
                let rates = PoissonRates::new(self.panel(), &self.priors, &self.bound, point, spread);
                let (found, moments) = self.pass(&rates, spread, before, threads)?;
                Ok(self.complete(point, found, moments))
            }
            Likelihood::NegativeBinomial => {
                let rates = |exact| {
                    NegativeBinomialRates::new(&self.walk, &self.priors, &self.distinct, point, spread, exact)
                };
                let exact = rates(true);
                let kept = match spread {
                    // The pass overwrites what its variances come from.
                    Spread::Structured { .. } => before.clone(),
                    _ => None,
                };
                let (found, moments, stands_in) = match self.pass(&exact, spread, before, threads) {
                    Err(FactorError::Category(_)) => {
                        let (found, moments) = self.pass(&rates(false), spread, kept, threads)?;
                        (found, moments, true)
                    }
                    found => {
                        let (found, moments) = found?;
                        (found, moments, false)
                    }
                };
                let mut evaluated = self.complete(point, found, moments);
                evaluated.stands_in = stands_in;
                let start = self.layout().start(Site::LogShape);
                for category in 0..self.layout().categories {
                    let (value, slope) = exact.of_counts(category);
                    evaluated.value += value;
                    evaluated.found.gradient[start + category] += slope;
                }
                Ok(evaluated)
            }
        }
    }

    fn pass(
        &self,
        rates: &impl infermark_arrow::Rates,
        spread: Spread<'_>,
        before: Option<ArrowFactor>,
        threads: usize,
    ) -> Result<(Assembled, PairMoments), FactorError> {
        #[cfg(feature = "faults")]
        if let Some(fault) = self.fault {
            let rates = &crate::fault::Faulty { rates, fault };
            return self.pass_of(rates, spread, before, threads);
        }
        self.pass_of(rates, spread, before, threads)
    }

    fn pass_of(
        &self,
        rates: &impl infermark_arrow::Rates,
        spread: Spread<'_>,
        before: Option<ArrowFactor>,
        threads: usize,
    ) -> Result<(Assembled, PairMoments), FactorError> {
        let none = PairMoments::default();
        match (before, spread) {
            (Some(before), Spread::Structured { .. }) => Assembled::with_variances(before, rates),
            (Some(before), _) => Ok((Assembled::again(before, rates)?, none)),
            (None, _) => Ok((Assembled::new(&self.walk, &self.priors, rates, threads)?, none)),
        }
    }

    /// Adds what belongs to the borders to the gradient, and the priors' densities and all constants to the value.
    fn complete(&self, point: &[f64], mut found: Assembled, moments: PairMoments) -> Evaluated {
        let (panel, layout, priors) = (self.panel(), self.layout(), &self.priors);
        let gradient = &mut found.gradient;
        let mut value = found.value - self.bound.ln_factorials;
        if self.likelihood == Likelihood::Poisson {
            let units = self.bound.category_period.iter();
            for (j, units) in layout.range(Site::TimeCatEffects).zip(units) {
                gradient[j] += *units as f64;
                value += point[j] * *units as f64;
            }
        }
        let mut squares = 0.0;
        let mut logs = 0.0;
        let mut normal = |j: usize, mean: f64, sd: f64| {
            let z = (point[j] - mean) / sd;
            squares += z * z;
            logs += sd.ln();
            z / sd
        };
        gradient[0] -= normal(0, priors.global_a_mean, priors.global_a_sd);
        for j in layout.range(Site::CategoryA) {
            let pull = normal(j, point[0], priors.category_a_sd);
            gradient[j] -= pull;
            gradient[0] += pull;
        }
        let category_a = layout.start(Site::CategoryA);
        for (j, c) in layout.range(Site::ProductA).zip(panel.category_of()) {
            let category = category_a + *c as usize;
            // The product's own entry is complete.
            gradient[category] += normal(j, point[category], priors.product_a_sd);
        }
        for j in layout.range(Site::ProductEffect) {
            normal(j, priors.product_effect_mean, priors.product_effect_sd);
        }
        for site in [Site::TimeCatEffects, Site::LogShape] {
            for j in layout.range(site) {
                gradient[j] -= normal(j, priors.constant_mean(site), priors.sd(site));
            }
        }
        value -= 0.5 * squares + logs + layout.latents() as f64 * LN_SQRT_2PI;
        Evaluated {
            found,
            value,
            moments,
            stands_in: false,
        }
    }

    /// A start from the data: each product's elasticity at the prior mean and its effect at its mean count, all else at its
    /// prior mean.
    pub(crate) fn start(&self) -> Vec<f64> {
        let (panel, layout, priors) = (self.panel(), self.layout(), &self.priors);
        let mut point = vec![0.0; layout.latents()];
        point[0] = priors.global_a_mean;
        for site in [Site::CategoryA, Site::ProductA] {
            point[layout.range(site)].fill(priors.global_a_mean);
        }
        for site in [Site::TimeCatEffects, Site::LogShape] {
            point[layout.range(site)].fill(priors.constant_mean(site));
        }
        for i in 0..layout.products {
            let (mut rows, mut units) = (panel.row_range(i).len() as f64, panel.sums().product[i] as f64);
            if self.bound.meets(i) {
                let inside = panel.product_rows(i).filter(|row| !self.is_at_bound(row.units));
                let inside: Vec<f64> = inside.map(|row| f64::from(row.units)).collect();
                (rows, units) = (inside.len() as f64, inside.iter().sum());
            }
            let effect = &mut point[layout.start(Site::ProductEffect) + i];
            if rows == 0.0 {
                *effect = priors.product_effect_mean;
                continue;
            }
            // A product without sales starts at half a unit in all its periods.
            let mean_units = units.max(0.5) / rows;
            *effect = mean_units.ln()
                - priors.global_a_mean * panel.mean_log_price()[i]
                - priors.time_cat_effects_mean;
        }
        point
    }

    /// The diagonal of the priors' precision.
    pub(crate) fn prior_precisions(&self) -> Vec<f64> {
        let (layout, priors) = (self.layout(), &self.priors);
        let mut precision = vec![0.0; layout.latents()];
        let of = |sd: f64| sd.powi(-2);
        for site in layout.sites() {
            precision[layout.range(*site)].fill(of(priors.sd(*site)));
        }
        precision[0] += layout.categories as f64 * of(priors.category_a_sd);
        for c in self.panel().category_of() {
            precision[layout.start(Site::CategoryA) + *c as usize] += of(priors.product_a_sd);
        }
        precision
    }
}
