//! How much more the counts vary than a fit predicts.
//!
//! Two figures, for two purposes.
//!
//! **The dispersion** is Pearson's: `X^2 = sum (y - mu)^2 / Var(y)` over the rows less the parameters that
//! they determine. `mu` is the mean rate under the posterior, `exp(m + v / 2)` where the log rate has mean m
//! and variance v, held within the clip; `Var = mu` under the Poisson likelihood and `mu + mu^2 / r` under
//! the negative-binomial one. For a Gaussian model `z = eta + e` with posterior variances v and weights w the
//! squared residuals have the mean `(1 - w v) / w`, for truths drawn from the prior. So the rows determine
//! `sum w v` parameters; the prior determines the rest. The dispersion is about 1 if the likelihood is right.
//! Intervals of a Poisson fit to counts of dispersion `phi` are too narrow by a factor of about `sqrt(phi)`.
//!
//! ***The excess** is the basis of a test with a stated level. `X^2` is not suitable: a squared Pearson
//! residual has the variance `2 + 1 / mu` and a correspondingly heavy tail, and bias from the priors counts
//! as scatter. Given the number n of a product's units, Poisson counts are n independent choices of a period
//! with probabilities `p_t`, in proportion to the rates, whatever the product's level. With `e_t = n p_t`,
//! `u_t` the log price in its own standard deviations under p, residuals `r = y - e - e u (u'y) / n` with
//! level and slope projected out, and weights `g_t = 1 / (1 + e_t)`,
//!
//! ```text
//! U = sum_t g_t r_t^2 - sum_s y_s q_s,      q_s = sum_t g_t ([s = t] - p_t (1 + u_s u_t))^2
//! ```
//!
//! is the sum over pairs of different units of a kernel whose mean given either unit is zero. So U has mean
//! exactly zero, and neither first-order errors of the rates nor the priors' effect on the product's level
//! and elasticity change it. Its variance is exact, too:
//! `2 n (n - 1) (sum g^2 p^2 (1 - 2 p (1 + u^2)) + A_0^2 + 2 A_1^2 + A_2^2)`, `A_k = sum g p^2 u^k`. That the
//! period effects were fitted to the same counts makes U smaller, never larger: the test is conservative
//! where a category has few products.
//!
//! Let V be the sum of the variances over products. With these weights U is, where units are many, a
//! quadratic form in normals whose eigenvalues are below `max g e < 1`; where they are few, twice the number
//! of coinciding pairs, about Poisson. In both cases no cumulant is above that of a chi-square of `k = V / 2`
//! degrees of freedom less its mean, `2^(m-2) (m-1)! V` of order m. Chernoff's bound from these,
//! `P(U > x) <= exp(-(x - k ln(1 + x / k)) / 2)`, gives a limit that is valid at any rates, where a normal
//! tail would not be. Under counts of dispersion `phi` the mean of U is
//! `(phi - 1) sum g e (1 - p (1 + u^2))`: over that sum it estimates `phi - 1`.
//!
//! Products that a fit left out are in neither figure. Products with a row near or beyond a bound of the clip
//! are also left out of the excess: their rates are not an optimum if the method ignores the clip.
//!
//! Sources: McCullagh and Nelder, "Generalized Linear Models", 1989, 4.5 and 6.2; Dean and Lawless, "Tests for detecting
//! overdispersion in Poisson regression models", JASA, 1989, whose statistic subtracts the counts for the same reason.

mod eight;
mod excess;

use crate::coordinates::IndependentRates;
use crate::design::{EFFECT, Regressors, along, along_regressors, at, design_at};
use crate::likelihood::{Likelihood, LikelihoodVisitor, RowLikelihood};
use crate::panel::{Panel, Row};
use crate::priors::Priors;
use crate::site::Layout;
use eight::sums;
use excess::{excess, limit};
use infermark_threads::run_parts;
use serde::{Deserialize, Serialize};

/// Probability under the Poisson likelihood that an excess is above its [`Excess::limit`], at most.
pub const LEVEL: f64 = 1e-6;

/// Log rates within this distance of a bound of the clip, or beyond it, count as near it.
const NEAR_CLIP: f64 = std::f64::consts::LN_2;

/// Pearson's statistic of some rows, and the excess of their counts over Poisson ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pearson {
    /// `X^2` over the degrees of freedom; 0 where a fit left out all rows.
    pub dispersion: f64,
    /// Rows minus the parameters that they determine, at least 1. The number of parameters is `sum w v` if
    /// the variances of the log rates are known, otherwise all that could be determined: two per product (at
    /// most its rows) and one per period of a category, minus the shift between them, and at most half of the
    /// rows.
    pub degrees_of_freedom: f64,
    /// The excess; `None` where no level can be stated: counts that are not modelled as Poisson, rates that are not a fit's
    /// optimum, or no product whose rates are well inside the clip.
    #[serde(default)]
    pub excess: Option<Excess>,
}

/// By how much the dispersion exceeds 1, product by product, whatever the priors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Excess {
    /// The estimate of the dispersion less 1.
    pub value: f64,
    /// Limit that Poisson counts exceed with a probability of at most [`LEVEL`].
    pub limit: f64,
    /// Number of products in the estimate.
    pub products: usize,
}

impl Pearson {
    /// Whether the counts vary more than Poisson counts at [`LEVEL`]; always false if no level can be stated.
    pub fn refutes_poisson(&self) -> bool {
        self.excess.is_some_and(|excess| excess.value > excess.limit)
    }

    fn new(sums: &ProductSums, spent: Option<usize>) -> Self {
        let rows = sums.rows as f64;
        let degrees_of_freedom = match spent {
            None => rows - sums.determined,
            Some(spent) => (rows - spent as f64).max(0.5 * rows),
        };
        let degrees_of_freedom = degrees_of_freedom.max(1.0);
        Pearson {
            dispersion: sums.squares / degrees_of_freedom,
            degrees_of_freedom,
            excess: (sums.excess_products > 0).then(|| Excess {
                value: sums.excess / sums.excess_weight,
                limit: limit(sums.excess_variance, LEVEL) / sums.excess_weight,
                products: sums.excess_products,
            }),
        }
    }
}

/// Pearson's statistic in all and by category.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispersion {
    /// Over all rows.
    pub overall: Pearson,
    /// One per category, in the panel's order.
    pub by_category: Vec<Pearson>,
}

/// What is known about the variances of the log rates.
#[derive(Debug, Clone, Copy)]
pub enum Variances<'a> {
    /// Nothing: rates are taken at the point, and no level is stated.
    Unknown,
    /// Latents are independent.
    Independent(IndependentRates<'a>),
}

impl Dispersion {
    /// The dispersion of `panel` about the posterior means `point`, natural parameters of length
    /// [`Layout::latents`] of `likelihood`; computed on `threads` threads, whose number changes no bit. The
    /// excess is stated if the variances are known. Every rank that holds the panel's rows takes part.
    ///
    /// # Panics
    /// When a vector is not of that length.
    pub fn of(
        panel: &Panel,
        priors: &Priors,
        likelihood: Likelihood,
        point: &[f64],
        variances: Variances<'_>,
        threads: usize,
    ) -> Self {
        let fitted = FittedRates::new(panel, priors, likelihood, point);
        match variances {
            Variances::Unknown => {
                let sums = for_each_product(panel, threads, |i| fitted.of_product(i, |_| 0.0));
                let spent = parameters_spent(panel);
                Dispersion::added(panel, &sums, |c| Some(spent[c]), Some(spent.iter().sum())).without_level()
            }
            Variances::Independent(rates) => fitted.with_independent(rates, threads),
        }
    }

    /// The dispersion about the mean rates of draws from the posterior, each a vector of natural parameters; on `threads` threads.
    ///
    /// # Panics
    /// When there is no draw, or one is not of length [`Layout::latents`].
    pub fn of_draws(
        panel: &Panel,
        priors: &Priors,
        likelihood: Likelihood,
        draws: &[Vec<f64>],
        threads: usize,
    ) -> Self {
        let count = draws.len() as f64;
        let mut mean = vec![0.0; draws[0].len()];
        for draw in draws {
            mean.iter_mut().zip(draw).for_each(|(m, d)| *m += d / count);
        }
        let fitted = FittedRates::new(panel, priors, likelihood, &mean);
        let layout = fitted.layout;
        let sums = for_each_product(panel, threads, |i| {
            let places = layout.product_places(i);
            let time = layout.time_index(panel.category_of()[i] as usize, 0);
            fitted.of_product(i, |row| {
                // The variance that gives the draws' mean rate, whatever the shape of their distribution.
                let rate = |of: &[f64]| along(&at(of, places), &row.design()) + of[time + row.period];
                let centre = rate(&mean);
                let raised: f64 = draws.iter().map(|draw| (rate(draw) - centre).exp()).sum();
                2.0 * (raised / count).ln().max(0.0)
            })
        });
        Dispersion::of_products(panel, &sums)
    }

    /// The dispersion of the sums of all products, in their order, with known variances.
    ///
    /// # Panics
    /// When their number is not that of the products.
    pub fn of_products(panel: &Panel, sums: &[ProductSums]) -> Self {
        Dispersion::added(panel, sums, |_| None, None)
    }

    /// The dispersion of the sums of all categories, in their order, with known variances.
    pub fn of_categories(sums: &[ProductSums]) -> Self {
        Dispersion::of_sums(sums, |_| None, None)
    }

    /// The same without the excess: no level is stated.
    pub fn without_level(mut self) -> Self {
        self.overall.excess = None;
        self.by_category.iter_mut().for_each(|of| of.excess = None);
        self
    }

    fn added(
        panel: &Panel,
        sums: &[ProductSums],
        spent_of: impl Fn(usize) -> Option<usize>,
        spent: Option<usize>,
    ) -> Self {
        assert_eq!(sums.len(), panel.layout().products, "sums of every product");
        let mut by_category = vec![ProductSums::default(); panel.layout().categories];
        for (of_product, category) in sums.iter().zip(panel.category_of()) {
            by_category[*category as usize].add(of_product);
        }
        Dispersion::of_sums(&by_category, spent_of, spent)
    }

    fn of_sums(
        by_category: &[ProductSums],
        spent_of: impl Fn(usize) -> Option<usize>,
        spent: Option<usize>,
    ) -> Self {
        let mut overall = ProductSums::default();
        by_category.iter().for_each(|of| overall.add(of));
        Dispersion {
            overall: Pearson::new(&overall, spent),
            by_category: by_category
                .iter()
                .enumerate()
                .map(|(c, sums)| Pearson::new(sums, spent_of(c)))
                .collect(),
        }
    }
}

/// Sums over the rows of a product, or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProductSums {
    rows: usize,
    /// Sum of the squared Pearson residuals.
    squares: f64,
    /// Sum of `w v`.
    determined: f64,
    /// `U`, its variance, and its mean under a dispersion of 2; then the number of products that have one.
    excess: f64,
    excess_variance: f64,
    excess_weight: f64,
    excess_products: usize,
}

impl ProductSums {
    /// As plain numbers, for sums over the ranks of a run.
    pub fn numbers(&self) -> [f64; 7] {
        [
            self.rows as f64,
            self.squares,
            self.determined,
            self.excess,
            self.excess_variance,
            self.excess_weight,
            self.excess_products as f64,
        ]
    }

    /// The inverse of [`ProductSums::numbers`].
    pub fn of_numbers(numbers: [f64; 7]) -> Self {
        let [
            rows,
            squares,
            determined,
            excess,
            excess_variance,
            excess_weight,
            excess_products,
        ] = numbers;
        ProductSums {
            rows: rows as usize,
            squares,
            determined,
            excess,
            excess_variance,
            excess_weight,
            excess_products: excess_products as usize,
        }
    }

    /// Adds the sums of other products.
    pub fn add(&mut self, other: &ProductSums) {
        self.rows += other.rows;
        self.squares += other.squares;
        self.determined += other.determined;
        self.excess += other.excess;
        self.excess_variance += other.excess_variance;
        self.excess_weight += other.excess_weight;
        self.excess_products += other.excess_products;
    }
}

/// The rates of a fit, product by product.
#[derive(Debug, Clone, Copy)]
pub struct FittedRates<'a> {
    panel: &'a Panel,
    priors: &'a Priors,
    layout: Layout,
    mean: &'a [f64],
    /// Whether `mean` is the mode.
    is_mode: bool,
    /// Products that are left out, in ascending order.
    left_out: &'a [usize],
}

impl<'a> FittedRates<'a> {
    /// The rates of the posterior means `mean`, natural parameters.
    ///
    /// # Panics
    /// When `mean` is not of length [`Layout::latents`] of `likelihood`.
    pub fn new(panel: &'a Panel, priors: &'a Priors, likelihood: Likelihood, mean: &'a [f64]) -> Self {
        let layout = panel.layout_for(likelihood);
        assert_eq!(mean.len(), layout.latents(), "length of the point");
        FittedRates {
            panel,
            priors,
            layout,
            mean,
            is_mode: false,
            left_out: &[],
        }
    }

    /// The rates of a posterior whose mode is `mode`. Log rates are skewed: to first order their means are
    /// half their variance below the mode, so the mean rates are the rates at the mode.
    ///
    /// # Panics
    /// When `mode` is not of length [`Layout::latents`] of `likelihood`.
    pub fn at_mode(panel: &'a Panel, priors: &'a Priors, likelihood: Likelihood, mode: &'a [f64]) -> Self {
        FittedRates {
            is_mode: true,
            ..FittedRates::new(panel, priors, likelihood, mode)
        }
    }

    /// The same without the rows of the products `left_out`, in ascending order: the fit left them out, so
    /// their rates come from the priors.
    pub fn leaving_out(self, left_out: &'a [usize]) -> Self {
        FittedRates { left_out, ..self }
    }

    /// The dispersion where latents are independent; on `threads` threads.
    ///
    /// # Panics
    /// When there are not as many variances as latents.
    pub fn with_independent(&self, rates: IndependentRates<'_>, threads: usize) -> Dispersion {
        let (layout, variances) = (&self.layout, rates.variances);
        assert_eq!(variances.len(), layout.latents(), "one variance per latent");
        let sums = for_each_product(self.panel, threads, |i| {
            let of_product = at(variances, layout.product_places(i));
            let category = self.panel.category_of()[i] as usize;
            let of_periods = &variances[layout.time_range(category)];
            self.of_product(i, |row| {
                along(&of_product, &rates.squares(i, row.design())) + of_periods[row.period]
            })
        });
        Dispersion::of_products(self.panel, &sums)
    }

    /// The sums of one product (zero if it is left out), whose log rates have the posterior variances that
    /// `variance` returns row by row.
    pub fn of_product(&self, product: usize, mut variance: impl FnMut(&Row) -> f64) -> ProductSums {
        let variances = |_: &Regressors, _: Option<&[u32]>, into: &mut [f64]| {
            let rows = self.panel.product_rows(product).map(|row| variance(&row));
            into.iter_mut().zip(rows).for_each(|(to, v)| *to = v);
        };
        let exponentials = |of: &mut [f64]| of.iter_mut().for_each(|x| *x = x.exp());
        self.of_product_with(&mut FittedRows::default(), product, variances, exponentials)
    }

    /// The same with `exponentials` in place and reused buffers, for passes over many products. `variances`
    /// writes the variances of the rows' log rates, given their regressors and periods; no periods mean a row
    /// in every period.
    #[inline(always)]
    pub fn of_product_with(
        &self,
        rows: &mut FittedRows,
        product: usize,
        variances: impl FnOnce(&Regressors, Option<&[u32]>, &mut [f64]),
        exponentials: impl FnOnce(&mut [f64]),
    ) -> ProductSums {
        if !self.left_out.is_empty() && self.left_out.binary_search(&product).is_ok() {
            return ProductSums::default();
        }
        let (layout, mean, priors) = (&self.layout, self.mean, self.priors);
        let category = self.panel.category_of()[product] as usize;
        let latents = at(mean, layout.product_places(product));
        let effects = &mean[layout.time_index(category, 0)..][..layout.periods];
        let raised = if self.is_mode { 0.0 } else { 0.5 };
        rows.load(self.panel, product);
        // The log rates without the product's own terms.
        match &rows.periods {
            None => rows.rate.copy_from_slice(effects),
            Some(periods) => {
                for (rate, t) in rows.rate.iter_mut().zip(periods) {
                    *rate = effects[*t as usize];
                }
            }
        }
        variances(&rows.regressors, rows.periods.as_deref(), &mut rows.variance);
        let inside = priors.clip_low + NEAR_CLIP..priors.clip_high - NEAR_CLIP;
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        let regressors = rows.regressors.each_ref().map(|of| &of[..rows.rate.len()]);
        for (r, (rate, v)) in rows.rate.iter_mut().zip(&rows.variance).enumerate() {
            let own = along_regressors(&latents, &design_at(regressors, r));
            let eta = own + *rate + latents[EFFECT];
            least = if eta < least { eta } else { least };
            most = if eta > most { eta } else { most };
            *rate = (eta + raised * v).clamp(priors.clip_low, priors.clip_high);
        }
        let is_inside =
            layout.likelihood.is_equidispersed() && inside.contains(&least) && inside.contains(&most);
        layout.likelihood.visit(VarianceRatios {
            parameter: layout.parameter_of(category, mean),
            log_mean: &rows.rate,
            ratio: &mut rows.ratio,
        });
        exponentials(&mut rows.rate);
        let columns = [&rows.units, &rows.rate, &rows.ratio, &rows.variance].map(Vec::as_slice);
        let [squares, determined] = sums(columns, |[units, rate, ratio, v]| {
            let residual = units - rate;
            // A row determines one parameter at most.
            let determined = (rate / ratio * v).at_most_one();
            [residual * residual / (rate * ratio), determined]
        });
        let mut sums = ProductSums {
            rows: rows.units.len(),
            squares,
            determined,
            ..ProductSums::default()
        };
        if is_inside {
            let found = excess(rows);
            sums.excess = found.value;
            sums.excess_variance = found.variance;
            sums.excess_weight = found.weight;
            sums.excess_products = usize::from(found.variance > 0.0);
        }
        sums
    }
}

/// Ratios of the counts' variance to their mean, for one category's rows.
struct VarianceRatios<'a> {
    parameter: f64,
    log_mean: &'a [f64],
    ratio: &'a mut [f64],
}

impl LikelihoodVisitor for VarianceRatios<'_> {
    type Output = ();

    #[inline(always)]
    fn visit<L: RowLikelihood>(self) {
        let law = L::new(self.parameter);
        for (ratio, log_mean) in self.ratio.iter_mut().zip(self.log_mean) {
            *ratio = law.variance_ratio(*log_mean);
        }
    }
}

/// The rows of a product in columns: reused buffers.
#[derive(Debug, Default)]
pub struct FittedRows {
    units: Vec<f64>,
    regressors: Regressors,
    /// Their periods, if some periods have no row.
    periods: Option<Vec<u32>>,
    /// Up to a factor that all rows share; the log rate before its exponential.
    rate: Vec<f64>,
    /// Ratio of the variance to the rate.
    ratio: Vec<f64>,
    /// Variance of the log rate.
    variance: Vec<f64>,
}

impl FittedRows {
    #[inline(always)]
    fn load(&mut self, panel: &Panel, product: usize) {
        let range = panel.row_range(product);
        for column in [
            &mut self.units,
            &mut self.rate,
            &mut self.ratio,
            &mut self.variance,
        ]
        .into_iter()
        .chain(&mut self.regressors)
        {
            column.resize(range.len(), 0.0);
        }
        let units = panel.units()[range].iter();
        self.units
            .iter_mut()
            .zip(units)
            .for_each(|(to, y)| *to = f64::from(*y));
        for (r, design) in panel.designs(product).enumerate() {
            for (to, x) in self.regressors.iter_mut().zip(design) {
                to[r] = x;
            }
        }
        if panel.presence().is_none() {
            self.periods = None;
            return;
        }
        let periods = self.periods.get_or_insert_default();
        periods.clear();
        periods.extend(panel.product_rows(product).map(|row| row.period as u32));
    }
}

/// The results of `f` for every product, in order, computed on several threads of the ranks that hold the rows.
fn for_each_product(
    panel: &Panel,
    threads: usize,
    f: impl Fn(usize) -> ProductSums + Sync,
) -> Vec<ProductSums> {
    let held: Vec<usize> = panel.held_products().collect();
    let mut sums = vec![ProductSums::default(); held.len()];
    let share = held.len().div_ceil(threads.clamp(1, held.len().max(1))).max(1);
    let f = &f;
    let parts = held.chunks(share).zip(sums.chunks_mut(share));
    run_parts(parts.map(|(products, sums)| {
        move || {
            for (product, sum) in products.iter().zip(sums) {
                *sum = f(*product);
            }
        }
    }));
    if panel.ranks().is_none() {
        return sums;
    }
    let mut own = sums.iter();
    let all = panel.of_all_products(|_| own.next().expect("one for each product held").numbers());
    all.into_iter().map(ProductSums::of_numbers).collect()
}

/// Parameters of the likelihood that the rows of each category can determine.
fn parameters_spent(panel: &Panel) -> Vec<usize> {
    let layout = panel.layout();
    let mut spent = vec![0; layout.categories];
    let words = layout.periods.div_ceil(64);
    let mut seen = vec![0u64; layout.categories * words];
    for (product, category) in panel.category_of().iter().enumerate() {
        let category = *category as usize;
        spent[category] += panel.rows_of(product).min(2);
        if let Some(presence) = panel.presence() {
            let seen = &mut seen[category * words..][..words];
            seen.iter_mut()
                .zip(presence.product(product))
                .for_each(|(seen, word)| *seen |= word);
        }
    }
    for (category, spent) in spent.iter_mut().enumerate() {
        let periods = match panel.presence() {
            None => layout.periods,
            Some(_) => seen[category * words..][..words]
                .iter()
                .map(|word| word.count_ones() as usize)
                .sum(),
        };
        *spent += periods - 1;
    }
    spent
}

#[cfg(test)]
mod tests;
