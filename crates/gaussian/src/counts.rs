//! What is fitted: a panel under priors and a likelihood, evaluated by the arrow's pass.

use crate::negative_binomial::NegativeBinomialRates;
use crate::poisson::{PoissonRates, Spread};
use infermark_arrow::{ArrowFactor, Assembled, FactorError, PairMoments, Walk};
use infermark_cpu_kernels::DistinctCounts;
use infermark_cpu_kernels::chunk::chunks;
use infermark_cpu_kernels::distinct_counts::distinct_counts;
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
    /// Distinct counts of every category, where the likelihood needs them.
    distinct: Arc<Vec<Vec<DistinctCounts>>>,
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
            distinct: Arc::new(distinct),
        }
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
                let rates = PoissonRates::new(self.panel(), &self.priors, point, spread);
                let (found, moments) = self.pass(&rates, spread, before, threads)?;
                Ok(self.complete(point, found, moments))
            }
            Likelihood::NegativeBinomial => {
                let rates = |exact| {
                    NegativeBinomialRates::new(&self.walk, &self.priors, &self.distinct, point, spread, exact)
                };
                let twin = before.as_ref().map(|_| ());
                let exact = rates(true);
                let kept = match spread {
                    // The pass overwrites what its variances come from.
                    Spread::Structured { .. } => before.clone(),
                    _ => None,
                };
                let (found, moments) = match (self.pass(&exact, spread, before, threads), twin) {
                    (Err(FactorError::Category(_)), _) => self.pass(&rates(false), spread, kept, threads)?,
                    (found, _) => found?,
                };
                let mut evaluated = self.complete(point, found, moments);
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
        let mut value = found.value - panel.sums().ln_factorials;
        if self.likelihood == Likelihood::Poisson {
            let units = &panel.sums().category_period;
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
            let rows = panel.row_range(i).len() as f64;
            // A product without sales starts at half a unit in all its periods.
            let mean_units = (panel.sums().product[i] as f64).max(0.5) / rows;
            point[layout.start(Site::ProductEffect) + i] = mean_units.ln()
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
