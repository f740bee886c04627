//! The objective of a fit: a panel under priors and a likelihood, evaluated by the arrowhead's pass.

use crate::averaging::Averaging;
use crate::clip_bound::Bound;
use crate::negative_binomial::NegativeBinomialRates;
use crate::poisson::PoissonRates;
use crate::row_walker::RowWalker;
use infermark_arrowhead::{
    ArrowheadFactor, Assembled, BlockMoments, BlockPriors, FactorError, Partition, Ranks,
};
use infermark_cpu_kernels::DistinctCounts;
use infermark_cpu_kernels::chunk::chunks;
use infermark_cpu_kernels::distinct_counts_of_all;
use infermark_model::design::{EFFECT, PRODUCT_LATENTS, PRODUCT_SITES, along, along_regressors, at};
use infermark_model::log_joint::LN_SQRT_2PI;
use infermark_model::lower_bound::rows_below;
use infermark_model::{Axis, Layout, Likelihood, Orthogonal, Panel, Priors, Shard, Site};
use infermark_threads::run_parts;
use std::sync::Arc;

/// The factor by which the precision of a period effect, with its products fixed, may differ between a sample
/// of these and all, if the sample is to represent them.
const ALIKE: f64 = 1.5;

/// A panel under priors and a likelihood.
#[derive(Debug, Clone)]
pub struct GaussianObjective {
    partition: Arc<Partition>,
    priors: Priors,
    likelihood: Likelihood,
    /// Products that are left out for counts at the upper clip bound.
    bound: Bound,
    /// Distinct counts of every category, if the likelihood needs them.
    distinct: Arc<Vec<Vec<DistinctCounts>>>,
    /// Walks the rows of Poisson counts at a point, if the host does not.
    walker: Option<Arc<dyn RowWalker>>,
    /// The fault of the pass, in tests.
    #[cfg(feature = "faults")]
    fault: Option<crate::fault::Fault>,
}

/// How far rounding of the sums may move each entry of a gradient: half a unit of the last digit of the terms that cancel in it.
const ENTRIES_ROUND: f64 = 0.5 * f64::EPSILON;

/// The part of the value suggested by the counts at which a parameter starts: all of it, unless its prior has
/// more information than its counts, which have `information`.
fn kept_of_start(prior_sd: f64, information: f64) -> f64 {
    let informed = prior_sd * prior_sd * information;
    if informed >= 1.0 { 1.0 } else { informed }
}

/// Relative error of a sum of as many terms as a panel has: products and parts are summed separately, so that
/// no chain of additions is longer than about ten thousand.
pub(crate) const SUMS_ROUND: f64 = 1e4 * f64::EPSILON;

/// The pass over the rows at a point, completed.
#[derive(Debug)]
pub(crate) struct Evaluation {
    /// Factor and complete gradient.
    pub(crate) found: Assembled,
    /// Log joint; where it depends on the rows, its mean under a Gaussian if there is one.
    pub(crate) value: f64,
    /// How far rounding may have moved the value: [`SUMS_ROUND`] of the sum of the sizes of its terms.
    pub(crate) rounding: f64,
    /// The products' moments under the previous Gaussian, if requested.
    pub(crate) moments: BlockMoments,
    /// The point of all this: the requested one, except for the products that were settled.
    pub(crate) point: Vec<f64>,
}

impl GaussianObjective {
    /// The counts of `panel`, whose law is one of [`LIKELIHOODS`](crate::LIKELIHOODS).
    pub fn new(panel: &Arc<Panel>, priors: &Priors, likelihood: Likelihood) -> Self {
        let distinct = match likelihood {
            Likelihood::Poisson => Vec::new(),
            Likelihood::NegativeBinomial => {
                let chunks = chunks(panel);
                let mut of_category = vec![Vec::new(); panel.layout().categories];
                for (chunk, counts) in chunks.iter().zip(distinct_counts_of_all(panel, &chunks)) {
                    of_category[chunk.category].push(counts);
                }
                of_category
            }
        };
        GaussianObjective {
            partition: Arc::new(Partition::new(panel, likelihood)),
            priors: *priors,
            likelihood,
            bound: Bound::of(panel, priors, likelihood),
            distinct: Arc::new(distinct),
            walker: None,
            #[cfg(feature = "faults")]
            fault: None,
        }
    }

    /// The same with passes over the products of a shard, whose sums the ranks add up. Sums over the panel's counts stay those of the
    /// whole.
    pub(crate) fn over_shard(&self, shard: &Shard, ranks: Arc<Ranks>) -> Self {
        GaussianObjective {
            partition: Arc::new(Partition::of_shard(shard, self.likelihood, ranks)),
            ..self.clone()
        }
    }

    /// The same with a fault in the pass.
    #[cfg(feature = "faults")]
    pub(crate) fn with_fault(self, fault: Option<crate::fault::Fault>) -> Self {
        GaussianObjective { fault, ..self }
    }

    /// The same with another walker of the rows.
    pub(crate) fn walked_by(self, walker: Arc<dyn RowWalker>) -> Self {
        GaussianObjective {
            walker: Some(walker),
            ..self
        }
    }

    /// The walker of the rows, if it is not the host.
    pub(crate) fn walker(&self) -> Option<&dyn RowWalker> {
        self.walker.as_deref()
    }

    /// The panel.
    pub fn panel(&self) -> &Arc<Panel> {
        self.partition.panel()
    }

    /// The orthogonal coordinates of the panel.
    pub fn orthogonal(&self) -> Orthogonal {
        Orthogonal::new(self.panel(), self.likelihood(), &self.priors)
    }

    /// The priors.
    pub fn priors(&self) -> &Priors {
        &self.priors
    }

    /// Their precisions.
    fn block_priors(&self) -> BlockPriors<PRODUCT_LATENTS> {
        BlockPriors::from(&self.priors)
    }

    /// The likelihood.
    pub fn likelihood(&self) -> Likelihood {
        self.likelihood
    }

    /// Products that are left out, since they have counts at the upper clip bound.
    pub fn left_out(&self) -> Vec<usize> {
        (0..self.bound.products.len())
            .filter(|i| self.bound.leaves_out(*i))
            .collect()
    }

    /// Whether all rows of a product are left out.
    pub(crate) fn leaves_out(&self, product: usize) -> bool {
        self.bound.leaves_out(product)
    }

    /// Whether any product is left out.
    pub fn leaves_any_out(&self) -> bool {
        !self.bound.products.is_empty()
    }

    /// Sums of the counts by category and period, without products that are left out.
    pub(crate) fn units_by_period(&self) -> &[u64] {
        &self.bound.category_period
    }

    /// Sum of `ln y!` over the same rows.
    pub(crate) fn ln_factorials(&self) -> f64 {
        self.bound.ln_factorials
    }

    /// Fraction of the rows (without those left out) whose rates at `point` are below twice the rate of the
    /// lower clip bound.
    ///
    /// # Errors
    /// When a rank has gone.
    pub(crate) fn near_lower_bound(&self, point: &[f64], threads: usize) -> Result<f64, FactorError> {
        let (panel, layout) = (self.panel(), self.layout());
        let low = self.priors.clip_low + std::f64::consts::LN_2;
        let of_product = |i: usize| {
            if self.leaves_out(i) {
                return [0, 0];
            }
            [rows_below(panel, &layout, low, point, i), panel.rows_of(i)]
        };
        let both = |sum: [usize; 2], own: [usize; 2]| [sum[0] + own[0], sum[1] + own[1]];
        let products = self.partition.order();
        let part = products.len().div_ceil(threads.clamp(1, products.len()));
        let parts = products.chunks(part).map(|products| {
            move || {
                let of_products = products.iter().map(|i| of_product(*i as usize));
                of_products.fold([0, 0], both)
            }
        });
        let [near, kept] = run_parts(parts).into_iter().fold([0, 0], both);
        let mut rows = vec![near as f64, kept as f64];
        self.partition.sum(&mut rows, Ok(()))?;
        Ok(rows[0] / rows[1].max(1.0))
    }

    /// The walk of its passes.
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// The places of the latents.
    pub fn layout(&self) -> Layout {
        self.partition.layout()
    }

    /// Evaluates a point, reusing the buffers of the factor `before` if there is one.
    ///
    /// # Errors
    /// When the precision there is not positive definite.
    pub(crate) fn evaluate(
        &self,
        point: &[f64],
        averaging: Averaging<'_>,
        before: Option<ArrowheadFactor>,
        threads: usize,
    ) -> Result<Evaluation, FactorError> {
        if let (Some(walker), Averaging::Point) = (&self.walker, averaging) {
            // The rows' weights are about to be those of this point.
            drop(before);
            let walked = walker.walked(point)?;
            let found = Assembled::of_walked(&self.partition, &self.block_priors(), walked, threads)?;
            return self.complete(point.to_vec(), found, BlockMoments::default());
        }
        match self.likelihood {
            Likelihood::Poisson => {
                let rates = PoissonRates::new(self.panel(), &self.priors, &self.bound, point, averaging);
                let (found, moments) = self.pass(&rates, averaging, before, threads)?;
                let point = averaging.moved(self.layout(), point);
                self.complete(point, found, moments)
            }
            Likelihood::NegativeBinomial => {
                let rates = NegativeBinomialRates::new(
                    &self.partition,
                    &self.priors,
                    &self.distinct,
                    point,
                    averaging,
                );
                let (found, moments) = self.pass(&rates, averaging, before, threads)?;
                let point = averaging.moved(self.layout(), point);
                let mut evaluated = self.complete(point, found, moments)?;
                let start = self.layout().start(Site::LogShape);
                for category in 0..self.layout().categories {
                    let (value, slope) = rates.of_counts(category);
                    evaluated.value += value;
                    evaluated.found.gradient[start + category] += slope;
                }
                Ok(evaluated)
            }
        }
    }

    /// The precision extrapolated from the products of a `sample` of the walk, whose factor solves only above
    /// the products. `None` if the sample's rates by period differ much from those of all products, whose
    /// negatives are in `by_period`, or if there is no factor.
    pub(crate) fn sampled_factor(
        &self,
        point: &[f64],
        sample: Partition,
        by_period: &[Vec<f64>],
        threads: usize,
    ) -> Result<Option<Assembled>, FactorError> {
        let rates = PoissonRates::new(self.panel(), &self.priors, &self.bound, point, Averaging::Point);
        let found = match Assembled::new(&Arc::new(sample), &self.block_priors(), &rates, threads) {
            Ok(found) => found,
            Err(error @ (FactorError::Stopped | FactorError::Communication(_))) => return Err(error),
            Err(_) => return Ok(None),
        };
        let (layout, diagonal) = (self.layout(), found.factor.diagonal());
        let prior = self.priors.time_cat_effects_sd.powi(-2);
        let is_close = by_period.iter().enumerate().all(|(c, all)| {
            let own = &diagonal[layout.time_index(c, 0)..][..layout.periods];
            own.iter().zip(all).all(|(own, all)| {
                let all = prior - all;
                *own <= all * ALIKE && all <= own * ALIKE
            })
        });
        Ok(is_close.then_some(found))
    }

    fn pass(
        &self,
        rates: &impl infermark_arrowhead::Rates,
        averaging: Averaging<'_>,
        before: Option<ArrowheadFactor>,
        threads: usize,
    ) -> Result<(Assembled, BlockMoments), FactorError> {
        #[cfg(feature = "faults")]
        if let Some(fault) = self.fault {
            let rates = &crate::fault::Faulty { rates, fault };
            return self.pass_of(rates, averaging, before, threads);
        }
        self.pass_of(rates, averaging, before, threads)
    }

    fn pass_of(
        &self,
        rates: &impl infermark_arrowhead::Rates,
        averaging: Averaging<'_>,
        before: Option<ArrowheadFactor>,
        threads: usize,
    ) -> Result<(Assembled, BlockMoments), FactorError> {
        let none = BlockMoments::default();
        match (before, averaging) {
            (Some(before), Averaging::Structured { .. }) => Assembled::with_variances(before, rates),
            (Some(before), _) => Ok((Assembled::refactor(before, rates)?, none)),
            (None, _) => Ok((
                Assembled::new(&self.partition, &self.block_priors(), rates, threads)?,
                none,
            )),
        }
    }

    /// Adds the borders' terms to the gradient, and the priors' densities and all constants to the value.
    ///
    /// # Errors
    /// When a rank has gone.
    fn complete(
        &self,
        point: Vec<f64>,
        mut found: Assembled,
        moments: BlockMoments,
    ) -> Result<Evaluation, FactorError> {
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
        for site in layout.sites() {
            let (constant, sd) = (priors.constant_mean(*site), priors.sd(*site));
            // A product's own entries are complete.
            let is_complete = site.axis() == Axis::Product;
            if is_complete && self.partition.ranks().is_some() {
                continue;
            }
            for (k, j) in layout.range(*site).enumerate() {
                let parent = layout.parent(*site, k, panel.category_of());
                let pull = normal(j, parent.map_or(constant, |parent| point[parent]), sd);
                if !is_complete {
                    gradient[j] -= pull;
                }
                if let Some(parent) = parent {
                    gradient[parent] += pull;
                }
            }
        }
        let mut of_products = 0.0;
        if self.partition.ranks().is_some() {
            let over_ranks = self.over_products(&point)?;
            for site in PRODUCT_SITES {
                logs += layout.len(site) as f64 * priors.sd(site).ln();
            }
            squares += over_ranks.squares;
            of_products = over_ranks.size;
            for (j, pull) in over_ranks.pulls {
                gradient[j] += pull;
            }
        }
        value -= 0.5 * squares + logs + layout.latents() as f64 * LN_SQRT_2PI;
        let mut size = value.abs() + squares + self.bound.ln_factorials + of_products;
        if self.partition.ranks().is_none() {
            for i in 0..layout.products {
                size += self.size_of(i, &point);
            }
        }
        Ok(Evaluation {
            found,
            value,
            rounding: SUMS_ROUND * size,
            moments,
            point,
        })
    }

    /// The size of the terms of a product.
    pub(crate) fn size_of(&self, product: usize, point: &[f64]) -> f64 {
        let latents = at(point, self.layout().product_places(product));
        let sums = self.panel().units_along(product);
        let of_coefficients = (0..EFFECT).fold(0.0, |sum, k| sum + (latents[k] * sums[k]).abs());
        // A sum of rates is about that of the counts.
        of_coefficients + (1.0 + latents[EFFECT].abs()) * sums[EFFECT]
    }

    /// A start from the data: each product's elasticity at the prior mean and its effect at its mean count, all else at its
    /// prior mean.
    ///
    /// # Errors
    /// When a rank has gone.
    pub(crate) fn start(&self) -> Result<Vec<f64>, FactorError> {
        let (panel, layout, priors) = (self.panel(), self.layout(), &self.priors);
        let mut point = layout.prior_means(priors);
        let mean_of_product = priors.mean_of_product();
        // With a narrow prior a product's effect stays at its mean, and the other parameters explain its
        // counts.
        let mut far = false;
        for i in self.partition.order().iter().map(|product| *product as usize) {
            let effect = &mut point[layout.start(Site::ProductEffect) + i];
            *effect = priors.product_effect_mean;
            // A product without sales starts at half a unit in all its periods.
            let units = (panel.sums().product[i] as f64).max(0.5);
            let mean_units = units / panel.rows_of(i) as f64;
            let asked = mean_units.ln()
                - along_regressors(&mean_of_product, &panel.mean_design(i))
                - priors.time_cat_effects_mean
                - priors.product_effect_mean;
            let part = kept_of_start(priors.product_effect_sd, units);
            *effect += part * asked;
            far |= ((1.0 - part) * asked).abs() > 1.0;
        }
        let mut ranks_far = vec![f64::from(u8::from(far))];
        self.partition.sum(&mut ranks_far, Ok(()))?;
        if ranks_far[0] > 0.0 {
            self.start_above_effects(&mut point)?;
        }
        Ok(point)
    }

    /// For a narrow prior that holds the products' effects: period effects that explain the counts given
    /// them, and elasticities that explain what the prior of the period effects leaves.
    fn start_above_effects(&self, point: &mut [f64]) -> Result<(), FactorError> {
        let (panel, layout, priors) = (self.panel(), self.layout(), &self.priors);
        let kept = || {
            let products = (0..layout.products).filter(|i| !self.leaves_out(*i));
            products.filter(|i| self.partition.is_walked(*i))
        };
        let log_rate = |point: &[f64], i: usize, row: &infermark_model::Row| {
            let time = layout.time_index(panel.category_of()[i] as usize, row.period);
            along(&at(point, layout.product_places(i)), &row.design()) + point[time]
        };
        let mut rates = vec![0.0; layout.categories * layout.periods];
        for i in kept() {
            let first = panel.category_of()[i] as usize * layout.periods;
            for row in panel.product_rows(i) {
                rates[first + row.period] += log_rate(point, i, &row).exp();
            }
        }
        self.partition.sum(&mut rates, Ok(()))?;
        for (c, t) in (0..layout.categories).flat_map(|c| (0..layout.periods).map(move |t| (c, t))) {
            let at = c * layout.periods + t;
            if rates[at] > 0.0 {
                let units = (self.bound.category_period[at] as f64).max(0.5);
                point[layout.time_index(c, t)] +=
                    kept_of_start(priors.time_cat_effects_sd, units) * (units / rates[at]).ln();
            }
        }
        // The elasticity at which a product's mean rate is its mean count, from the slope of its mean log
        // rate.
        for i in kept() {
            let x = panel.mean_log_price()[i];
            let rate: f64 = panel
                .product_rows(i)
                .map(|row| log_rate(point, i, &row).exp())
                .sum();
            let units = (panel.sums().product[i] as f64).max(0.5);
            let asked = (units / rate).ln();
            if asked.abs() > 1.0 && x.abs() > 0.1 {
                point[layout.start(Site::ProductA) + i] +=
                    kept_of_start(priors.product_a_sd, units * x * x) * asked / x;
            }
        }
        Ok(())
    }

    /// What rounding may leave of a gradient that is zero: a sum of counts and one of rates cancel, and so
    /// are known only to the last digit of either. Signs alternate, so that it is not a direction of the
    /// model.
    pub(crate) fn rounding_of_gradient(&self) -> Vec<f64> {
        let (panel, layout) = (self.panel(), self.layout());
        let mut rounding = vec![0.0; layout.latents()];
        for i in 0..layout.products {
            let units = panel.sums().product[i] as f64;
            let sign = if i % 2 == 0 { ENTRIES_ROUND } else { -ENTRIES_ROUND };
            for (j, mean) in layout.product_places(i).into_iter().zip(panel.mean_design(i)) {
                rounding[j] = sign * units * mean.abs();
            }
        }
        let units = self.bound.category_period.iter();
        for (k, (j, units)) in layout.range(Site::TimeCatEffects).zip(units).enumerate() {
            rounding[j] = if k % 2 == 0 { ENTRIES_ROUND } else { -ENTRIES_ROUND } * *units as f64;
        }
        rounding
    }

    /// The diagonal of the priors' precision.
    pub(crate) fn prior_precisions(&self) -> Vec<f64> {
        self.layout()
            .prior_precisions(&self.priors, self.panel().category_of())
    }
}
