//! How much more the counts vary than a fit says: Pearson's statistic over its degrees of freedom.
//!
//! `X^2 = sum (y - mu)^2 / Var(y)` at one point, `Var = mu` under the Poisson likelihood and `mu + mu^2 / r` under the
//! negative-binomial one. Over the rows less the parameters that they spend it is expected to be 1. Intervals of a Poisson fit
//! to counts of dispersion `phi` are too narrow by a factor of about `sqrt(phi)`.
//!
//! Under the model a squared Pearson residual has the variance `2 + 6 / r + 1 / Var(y)`, so that small rates widen the law of
//! the sum and skew it: it is taken as a scaled chi-square of the same mean and variance, its quantile by Wilson and Hilferty.
//!
//! Source: McCullagh and Nelder, "Generalized Linear Models", 1989, 4.5 and 6.2; Wilson and Hilferty, "The distribution of
//! chi-square", 1931.

use crate::likelihood::Likelihood;
use crate::negative_binomial::{Shape, variance_ratio};
use crate::panel::Panel;
use crate::priors::Priors;
use crate::site::{Layout, Site};
use serde::{Deserialize, Serialize};

/// Probability under the model that a dispersion exceeds its [`Pearson::limit`].
pub const LEVEL: f64 = 1e-6;

/// The quantile of the standard normal at `1 - LEVEL`.
const NORMAL_QUANTILE: f64 = 4.753_424_308_822_899;

/// Products of a piece of the sums. Pieces are added in their order, so that threads do not change a bit.
const PIECE: usize = 4096;

/// Pearson's statistic of some rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pearson {
    /// `X^2` over the degrees of freedom.
    pub dispersion: f64,
    /// Rows less the parameters that they spend: two a product, at most its rows, and one a period that a category has, less
    /// the shift between them. At least half of the rows: what is finer than that the priors hold.
    pub degrees_of_freedom: f64,
    /// What the dispersion exceeds with probability [`LEVEL`] when the likelihood is right.
    pub limit: f64,
}

impl Pearson {
    /// Whether the counts vary more than the likelihood allows.
    pub fn refutes(&self) -> bool {
        self.dispersion > self.limit
    }

    fn new(sums: &Sums, spent: usize) -> Self {
        let rows = sums.rows as f64;
        let degrees_of_freedom = (rows - spent as f64).max(0.5 * rows);
        let variance = sums.variance * degrees_of_freedom / rows;
        let shape = 2.0 * degrees_of_freedom * degrees_of_freedom / variance;
        let ninth = 2.0 / (9.0 * shape);
        Pearson {
            dispersion: sums.squares / degrees_of_freedom,
            degrees_of_freedom,
            limit: (1.0 - ninth + NORMAL_QUANTILE * ninth.sqrt()).powi(3),
        }
    }
}

/// Pearson's statistic in all and by category.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispersion {
    /// Over all rows.
    pub overall: Pearson,
    /// One a category, in the panel's order.
    pub by_category: Vec<Pearson>,
}

impl Dispersion {
    /// The dispersion of `panel` about the rates of `point`, natural parameters such as a posterior's means, of length
    /// [`Layout::latents`] of `likelihood`; on `threads` threads.
    ///
    /// # Panics
    /// When `point` is not of that length.
    pub fn of(panel: &Panel, priors: &Priors, likelihood: Likelihood, point: &[f64], threads: usize) -> Self {
        let layout = panel.layout_for(likelihood);
        assert_eq!(point.len(), layout.latents(), "length of the point");
        let residuals = Residuals {
            panel,
            priors,
            layout,
            point,
        };
        let pieces: Vec<usize> = (0..layout.products).step_by(PIECE).collect();
        let workers = threads.clamp(1, pieces.len());
        let mut sums: Vec<(usize, Vec<Sums>)> = std::thread::scope(|scope| {
            let (residuals, pieces) = (&residuals, &pieces);
            let started: Vec<_> = (0..workers)
                .map(|worker| {
                    scope.spawn(move || -> Vec<(usize, Vec<Sums>)> {
                        let mine = pieces.iter().skip(worker).step_by(workers);
                        mine.map(|first| (*first, residuals.of_piece(*first))).collect()
                    })
                })
                .collect();
            let joined = started.into_iter().map(|worker| worker.join());
            joined.flat_map(|part| part.expect("sums do not panic")).collect()
        });
        sums.sort_by_key(|(first, _)| *first);
        let mut by_category = vec![Sums::default(); layout.categories];
        for (_, piece) in &sums {
            by_category
                .iter_mut()
                .zip(piece)
                .for_each(|(total, part)| total.add(part));
        }
        let mut overall = Sums::default();
        by_category.iter().for_each(|part| overall.add(part));
        let spent = parameters_spent(panel);
        Dispersion {
            overall: Pearson::new(&overall, spent.iter().sum()),
            by_category: by_category
                .iter()
                .zip(&spent)
                .map(|(sums, spent)| Pearson::new(sums, *spent))
                .collect(),
        }
    }
}

/// Sums over rows.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    rows: usize,
    /// Of squared Pearson residuals.
    squares: f64,
    /// Of their variances.
    variance: f64,
}

impl Sums {
    fn add(&mut self, other: &Sums) {
        self.rows += other.rows;
        self.squares += other.squares;
        self.variance += other.variance;
    }
}

struct Residuals<'a> {
    panel: &'a Panel,
    priors: &'a Priors,
    layout: Layout,
    point: &'a [f64],
}

impl Residuals<'_> {
    /// The sums of [`PIECE`] products, one a category.
    fn of_piece(&self, first: usize) -> Vec<Sums> {
        let (layout, point) = (&self.layout, self.point);
        let mut sums = vec![Sums::default(); layout.categories];
        for product in first..(first + PIECE).min(layout.products) {
            let category = self.panel.category_of()[product] as usize;
            let elasticity = point[layout.start(Site::ProductA) + product];
            let effect = point[layout.start(Site::ProductEffect) + product];
            let effects = &point[layout.time_index(category, 0)..][..layout.periods];
            let shape = match layout.likelihood {
                Likelihood::Poisson => None,
                Likelihood::NegativeBinomial => {
                    Some(Shape::new(point[layout.start(Site::LogShape) + category]))
                }
            };
            let sums = &mut sums[category];
            for row in self.panel.product_rows(product) {
                let eta = elasticity * row.log_price + effects[row.period] + effect;
                let eta = eta.clamp(self.priors.clip_low, self.priors.clip_high);
                let mean = eta.exp();
                let (ratio, kurtosis) = match &shape {
                    None => (1.0, 0.0),
                    Some(shape) => (variance_ratio(eta, shape), 6.0 / shape.value),
                };
                let variance = mean * ratio;
                sums.rows += 1;
                sums.squares += (f64::from(row.units) - mean).powi(2) / variance;
                sums.variance += 2.0 + kurtosis + 1.0 / variance;
            }
        }
        sums
    }
}

/// Parameters of the likelihood that the rows of each category can tell.
fn parameters_spent(panel: &Panel) -> Vec<usize> {
    let layout = panel.layout();
    let mut spent = vec![0; layout.categories];
    let words = layout.periods.div_ceil(64);
    let mut seen = vec![0u64; layout.categories * words];
    for (product, category) in panel.category_of().iter().enumerate() {
        let category = *category as usize;
        spent[category] += panel.row_range(product).len().min(2);
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
mod tests {
    use super::*;
    use crate::labels::Labels;
    use crate::panel::PanelPart;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    const CATEGORIES: usize = 2;

    /// A count of mean `mu`: a Poisson one, or one whose rate varies by a gamma of shape 2 (the sum of two exponentials).
    fn draw(rng: &mut StdRng, mu: f64, varied: bool) -> u32 {
        let mut exponential = || -rng.random_range(f64::MIN_POSITIVE..1.0).ln();
        let rate = if varied {
            mu * 0.5 * (exponential() + exponential())
        } else {
            mu
        };
        let (mut count, mut at) = (0, exponential());
        while at < rate {
            count += 1;
            at += exponential();
        }
        count
    }

    /// A panel whose rates are those of the point that is returned; every fifth row is missing.
    fn panel(seed: u64, products: usize, periods: usize, level: f64, varied: bool) -> (Panel, Vec<f64>) {
        let mut rng = StdRng::seed_from_u64(seed);
        let layout = Layout::new(products, CATEGORIES, periods);
        let mut point = vec![0.0; layout.latents()];
        point[layout.range(Site::ProductA)].fill(-1.5);
        point[layout.range(Site::ProductEffect)].fill(level);
        let mut part = PanelPart::new(CATEGORIES, periods);
        for i in 0..products {
            let rows: Vec<u32> = (0..periods as u32)
                .filter(|t| !(t + i as u32).is_multiple_of(5) || periods == 1)
                .collect();
            let prices: Vec<f64> = rows.iter().map(|_| rng.random_range(0.8..1.25)).collect();
            let units: Vec<u32> = prices
                .iter()
                .map(|price| draw(&mut rng, (level - 1.5 * price.ln()).exp(), varied))
                .collect();
            part.push_product(i % CATEGORIES, Some(&rows), &prices, &units)
                .unwrap();
        }
        let numbered = |n| Labels::numbered("x", n);
        let panel = Panel::from_parts(
            numbered(products),
            numbered(CATEGORIES),
            numbered(periods),
            vec![part],
        );
        (panel.unwrap(), point)
    }

    /// The true rates spend no parameter: the degrees of freedom are put back to the rows.
    fn of_truth(panel: &Panel, likelihood: Likelihood, point: &[f64]) -> f64 {
        let found = Dispersion::of(panel, &Priors::default(), likelihood, point, 2).overall;
        found.dispersion * found.degrees_of_freedom / panel.rows() as f64
    }

    #[test]
    fn poisson_counts_are_not_refuted_and_varied_ones_are() {
        for (seed, level) in [(1, -2.0), (2, 0.0), (3, 3.0)] {
            let (poisson, point) = panel(seed, 60, 50, level, false);
            let found = Dispersion::of(&poisson, &Priors::default(), Likelihood::Poisson, &point, 2);
            // 2,400 rows less 2 a product and 49 a category; the sd of the mean is below 0.07 where rates are 0.13.
            assert_eq!(found.overall.degrees_of_freedom, 2400.0 - 120.0 - 98.0);
            let truth = of_truth(&poisson, Likelihood::Poisson, &point);
            assert!((truth - 1.0).abs() < 0.25, "{level}: {truth}");
            // Against the limit of the rows: the truth was not fitted.
            assert!(
                truth < found.overall.limit,
                "{level}: {truth} {:?}",
                found.overall
            );

            let (varied, mut point) = panel(seed, 60, 50, level, true);
            let found = Dispersion::of(&varied, &Priors::default(), Likelihood::Poisson, &point, 2);
            // Variance over mean is 1 + mu / 2, or 1.07 where rates are 0.13: too little to be told from these rows.
            assert_eq!(
                found.overall.refutes(),
                level > -1.0,
                "{level}: {:?}",
                found.overall
            );
            point.extend([2f64.ln(); CATEGORIES]);
            let truth = of_truth(&varied, Likelihood::NegativeBinomial, &point);
            // The squared residuals' variance is at most 2 + 3 + 8: an sd of 0.07.
            assert!((truth - 1.0).abs() < 0.3, "{level}: {truth}");
        }
    }

    #[test]
    fn few_rows_are_no_proof_and_no_panic() {
        let mut part = PanelPart::new(1, 1);
        part.push_product(0, None, &[1.0], &[3]).unwrap();
        let numbered = |n| Labels::numbered("x", n);
        let one = Panel::from_parts(numbered(1), numbered(1), numbered(1), vec![part]).unwrap();
        let point = vec![0.0; one.layout().latents()];
        let found = Dispersion::of(&one, &Priors::default(), Likelihood::Poisson, &point, 3);
        // One row of mean 1 spends one parameter of two, and half of it is left: (3 - 1)^2 / 1 / 0.5.
        assert_eq!(found.overall.degrees_of_freedom, 0.5);
        assert_eq!(found.overall.dispersion, 8.0);
        assert!(!found.overall.refutes(), "{:?}", found.overall);
        assert_eq!(found.by_category, [found.overall]);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (panel, point) = panel(9, 2 * PIECE + 77, 3, 1.0, true);
        let of = |threads| Dispersion::of(&panel, &Priors::default(), Likelihood::Poisson, &point, threads);
        let one = of(1);
        assert_eq!(one, of(2));
        assert_eq!(one, of(7));
        let rows: f64 = one.by_category.iter().map(|c| c.degrees_of_freedom).sum();
        assert_eq!(rows, one.overall.degrees_of_freedom);
    }

    #[test]
    fn the_limit_is_the_chi_squares() {
        // Large rates: the 1 - 1e-6 quantile of chi-square is 194.07 at 109 degrees of freedom, by Wilson and Hilferty's
        // own accuracy of 1e-3 there.
        let sums = Sums {
            rows: 109,
            squares: 109.0,
            variance: 218.0,
        };
        let found = Pearson::new(&sums, 0);
        assert_eq!(found.dispersion, 1.0);
        assert!(
            (found.limit * 109.0 / 194.0681 - 1.0).abs() < 2e-3,
            "{}",
            found.limit * 109.0
        );
    }
}
