use super::excess::ProductExcess;
use super::*;
use crate::labels::Labels;
use crate::panel::PanelPart;
use crate::site::Site;
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

/// Dispersion about the true rates, which were not fitted to the rows.
fn of_truth(panel: &Panel, likelihood: Likelihood, point: &[f64]) -> Pearson {
    let nothing = vec![0.0; point.len()];
    let variances = Variances::Independent(IndependentRates::natural(&nothing));
    Dispersion::of(panel, &Priors::default(), likelihood, point, variances, 2).overall
}

/// Dispersion about the Poisson rates at a point with these known variances.
fn of_poisson(panel: &Panel, point: &[f64], variances: Variances<'_>, threads: usize) -> Dispersion {
    let priors = Priors::default();
    Dispersion::of(panel, &priors, Likelihood::Poisson, point, variances, threads)
}

/// A row of a product.
struct FittedRow {
    units: f64,
    log_price: f64,
    rate: f64,
}

fn excess(rows: &[FittedRow]) -> ProductExcess {
    super::excess(&FittedRows {
        units: rows.iter().map(|row| row.units).collect(),
        regressors: [rows.iter().map(|row| row.log_price).collect()],
        rate: rows.iter().map(|row| row.rate).collect(),
        ..FittedRows::default()
    })
}

#[test]
fn rows_are_summed_whatever_their_number() {
    for rows in 0..40 {
        let column: Vec<f64> = (0..rows).map(f64::from).collect();
        let [sum, squares] = sums([&column, &column], |[a, b]| [a, a * b]);
        assert_eq!(sum, column.iter().sum::<f64>());
        assert_eq!(squares, column.iter().map(|x| x * x).sum::<f64>());
    }
}

/// Rows of these rates and log prices, with units to be filled in.
fn rows(rates: &[f64], log_prices: &[f64]) -> Vec<FittedRow> {
    let pairs = rates.iter().zip(log_prices);
    pairs
        .map(|(rate, log_price)| FittedRow {
            units: 0.0,
            log_price: *log_price,
            rate: *rate,
        })
        .collect()
}

#[test]
fn the_excess_has_mean_zero_and_its_variance_by_enumeration() {
    // All 4^5 ways in which five units choose among four periods.
    for prices in [[0.1, 0.4, -0.3, 0.2], [0.7; 4]] {
        let mut rows = rows(&[0.3, 1.1, 2.0, 0.6], &prices);
        let total: f64 = rows.iter().map(|row| row.rate).sum();
        let (mut mean, mut square, mut all) = (0.0, 0.0, 0.0);
        let mut found = ProductExcess::default();
        for way in 0..4usize.pow(5) {
            rows.iter_mut().for_each(|row| row.units = 0.0);
            let mut probability = 1.0;
            let mut rest = way;
            for _ in 0..5 {
                rows[rest % 4].units += 1.0;
                probability *= rows[rest % 4].rate / total;
                rest /= 4;
            }
            found = excess(&rows);
            mean += probability * found.value;
            square += probability * found.value * found.value;
            all += probability;
        }
        assert!((all - 1.0).abs() < 1e-12);
        assert!(mean.abs() < 1e-13, "{mean}");
        assert!(
            (square / found.variance - 1.0).abs() < 1e-12,
            "{square} {found:?}"
        );
    }
}

#[test]
fn levels_and_slopes_of_the_rates_change_nothing() {
    let rates = [0.3, 1.1, 2.0, 0.6, 0.9];
    let prices = [0.1, 0.4, -0.3, 0.2, 0.0];
    let of = |factor: f64, slope: f64| {
        let shifted: Vec<f64> = rates
            .iter()
            .zip(&prices)
            .map(|(rate, x): (&f64, &f64)| factor * rate * (slope * x).exp())
            .collect();
        let mut rows = rows(&shifted, &prices);
        let units = [1.0, 3.0, 0.0, 2.0, 4.0];
        rows.iter_mut().zip(units).for_each(|(row, y)| row.units = y);
        excess(&rows)
    };
    let found = of(1.0, 0.0);
    let scaled = of(50.0, 0.0);
    assert!((found.value - scaled.value).abs() < 1e-12);
    // A slope that is off by 0.02 changes rates by up to 0.8%; first-order effects would be of that order.
    let (low, high) = (of(1.0, -0.02).value, of(1.0, 0.02).value);
    let second_order = 0.5 * (low + high) - found.value;
    assert!(
        second_order.abs() < 1e-3 * found.variance.sqrt(),
        "{second_order}"
    );
}

#[test]
fn what_level_and_slope_saturate_has_no_excess() {
    let mut two = rows(&[1.0, 2.0], &[0.1, 0.3]);
    two[0].units = 9.0;
    two[1].units = 1.0;
    assert_eq!(excess(&two), ProductExcess::default());
    // Without a change of the price one degree of freedom is left.
    two[1].log_price = 0.1;
    assert!(excess(&two).variance > 0.0);
    // One unit carries no information on clustering.
    two[0].units = 0.0;
    assert_eq!(excess(&two), ProductExcess::default());
}

#[test]
fn the_limit_solves_its_equation() {
    for variance in [1e-6, 1e-3, 1.0, 30.0, 1e4, 1e9] {
        let k: f64 = 0.5 * variance;
        let x = limit(variance, LEVEL);
        let bound = (-0.5 * (x - k * (x / k).ln_1p())).exp();
        assert!((bound / LEVEL - 1.0).abs() < 1e-6, "{variance}: {x} {bound}");
    }
    // Many degrees of freedom: sqrt(2 ln 1e6) standard deviations.
    let found = limit(1e12, LEVEL) / 1e6;
    assert!((found / 5.256_522 - 1.0).abs() < 1e-4, "{found}");
}

/// Tails of the excess about true profiles are within the bound of the module at every rate, where normal approximations
/// fail.
#[test]
fn tails_are_within_the_stated_ones_at_every_rate() {
    let mut rng = StdRng::seed_from_u64(5);
    for (products, periods, level) in [
        (1, 12, 0.02),
        (1, 12, 30.0),
        (30, 26, 0.01),
        (30, 26, 0.3),
        (5, 52, 2.0),
        (5, 8, 100.0),
    ] {
        let rates: Vec<Vec<f64>> = (0..products)
            .map(|_| (0..periods).map(|_| level * rng.random_range(0.2..2.0)).collect())
            .collect();
        let prices: Vec<f64> = (0..periods).map(|_| rng.random_range(-0.3..0.3)).collect();
        let repeats = 20_000;
        let mut beyond = [0usize; 3];
        let levels = [1e-1, 1e-2, 1e-3];
        for _ in 0..repeats {
            let (mut value, mut variance) = (0.0, 0.0);
            for rates in &rates {
                let mut rows = rows(rates, &prices);
                for row in &mut rows {
                    row.units = f64::from(draw(&mut rng, row.rate, false));
                }
                let found = excess(&rows);
                value += found.value;
                variance += found.variance;
            }
            if variance == 0.0 {
                continue;
            }
            for (count, level) in beyond.iter_mut().zip(levels) {
                *count += usize::from(value > limit(variance, level));
            }
        }
        for (count, level) in beyond.into_iter().zip(levels) {
            let expected = level * repeats as f64;
            // The bound is never attained: the largest rate found is half of the level.
            assert!(
                (count as f64) < 0.75 * expected,
                "{products} x {periods} at {level}: {count} for {expected}"
            );
        }
    }
}

#[test]
fn poisson_counts_are_not_refuted_and_varied_ones_are() {
    for (seed, level) in [(1, -2.0), (2, 0.0), (3, 3.0)] {
        let (poisson, point) = panel(seed, 60, 50, level, false);
        // 2,400 rows; the sd of the mean is below 0.07 where rates are 0.13.
        let found = of_truth(&poisson, Likelihood::Poisson, &point);
        assert!((found.dispersion - 1.0).abs() < 0.25, "{level}: {found:?}");
        assert!(!found.refutes_poisson(), "{level}: {found:?}");

        let (varied, mut point) = panel(seed, 60, 50, level, true);
        let found = of_truth(&varied, Likelihood::Poisson, &point);
        // Variance over mean is 1 + mu / 2, or 1.07 where rates are 0.13: too little to be seen in these rows.
        assert_eq!(found.refutes_poisson(), level > -1.0, "{level}: {found:?}");
        if level > 1.0 {
            // The estimate: half of the mean rate.
            let excess = found.excess.unwrap().value;
            assert!((excess / (0.5 * level.exp()) - 1.0).abs() < 0.2, "{excess}");
        }
        point.extend([2f64.ln(); CATEGORIES]);
        let found = of_truth(&varied, Likelihood::NegativeBinomial, &point);
        // The squared residuals' variance is at most 2 + 3 + 8: an sd of 0.07.
        assert!((found.dispersion - 1.0).abs() < 0.3, "{level}: {found:?}");
        assert_eq!(found.excess, None);
    }
}

#[test]
fn parameters_are_counted_by_what_the_rows_determine_of_them() {
    let (panel, point) = panel(4, 10, 20, 1.0, false);
    let layout = panel.layout();
    let of = |variances| of_poisson(&panel, &point, variances, 2);
    let mut variances = vec![0.0; layout.latents()];
    variances[layout.range(Site::ProductEffect)].fill(0.01);
    let found = of(Variances::Independent(IndependentRates::natural(&variances)));
    let mut expected = 0.0;
    for i in 0..10 {
        for row in panel.product_rows(i) {
            expected += 0.01 * (1.0 - 1.5 * row.log_price + 0.005).exp();
        }
    }
    let determined = panel.rows() as f64 - found.overall.degrees_of_freedom;
    assert!((determined - expected).abs() < 1e-9, "{determined} {expected}");
    let excess = found.overall.excess.unwrap();
    assert_eq!(excess.products, 10);

    // Without variances all that could be determined: 160 rows less 2 a product and 19 per category; and no level.
    let unknown = of(Variances::Unknown);
    assert_eq!(unknown.overall.degrees_of_freedom, 160.0 - 20.0 - 38.0);
    assert_eq!(unknown.overall.excess, None);
    assert!(!unknown.overall.refutes_poisson());
}

#[test]
fn products_near_the_clip_have_no_say() {
    let (panel, mut point) = panel(4, 10, 20, 1.0, true);
    let layout = panel.layout();
    let products = |point: &[f64]| of_truth(&panel, Likelihood::Poisson, point).excess;
    assert_eq!(products(&point).unwrap().products, 10);
    point[layout.start(Site::ProductEffect) + 3] = -3.5;
    assert_eq!(products(&point).unwrap().products, 9);
    point[layout.range(Site::ProductEffect)].fill(-3.5);
    assert_eq!(products(&point), None);
}

#[test]
fn draws_give_mean_rates_and_their_variances() {
    let (panel, point) = panel(6, 12, 10, 1.0, false);
    let layout = panel.layout();
    // Two draws, a tenth up and down in every effect: the mean rate is the point's times cosh(0.1).
    let draws: Vec<Vec<f64>> = [0.1, -0.1]
        .map(|shift| {
            let mut draw = point.clone();
            draw[layout.range(Site::ProductEffect)]
                .iter_mut()
                .for_each(|effect| *effect += shift);
            draw
        })
        .to_vec();
    let found = Dispersion::of_draws(&panel, &Priors::default(), Likelihood::Poisson, &draws, 2);
    let mut variances = vec![0.0; point.len()];
    variances[layout.range(Site::ProductEffect)].fill(2.0 * 0.1f64.cosh().ln());
    let expected = of_poisson(
        &panel,
        &point,
        Variances::Independent(IndependentRates::natural(&variances)),
        1,
    );
    assert!((found.overall.dispersion / expected.overall.dispersion - 1.0).abs() < 1e-12);
    assert!((found.overall.degrees_of_freedom / expected.overall.degrees_of_freedom - 1.0).abs() < 1e-12);
}

#[test]
fn few_rows_are_no_proof_and_no_panic() {
    let mut part = PanelPart::new(1, 1);
    part.push_product(0, None, &[1.0], &[3]).unwrap();
    let numbered = |n| Labels::numbered("x", n);
    let one = Panel::from_parts(numbered(1), numbered(1), numbered(1), vec![part]).unwrap();
    let point = vec![0.0; one.layout().latents()];
    let found = of_truth(&one, Likelihood::Poisson, &point);
    // One row of mean 1: (3 - 1)^2 / 1, and no second row to compare it with.
    assert_eq!(found.degrees_of_freedom, 1.0);
    assert_eq!(found.dispersion, 4.0);
    assert_eq!(found.excess, None);
    assert!(!found.refutes_poisson());
}

#[test]
fn threads_do_not_change_a_bit() {
    let (panel, point) = panel(9, 8269, 3, 1.0, true);
    let nothing = vec![0.0; point.len()];
    let of = |threads| {
        of_poisson(
            &panel,
            &point,
            Variances::Independent(IndependentRates::natural(&nothing)),
            threads,
        )
    };
    let one = of(1);
    assert_eq!(one, of(2));
    assert_eq!(one, of(7));
    let rows: f64 = one.by_category.iter().map(|c| c.degrees_of_freedom).sum();
    assert_eq!(rows, one.overall.degrees_of_freedom);
}

#[test]
fn a_variance_that_is_no_number_ends() {
    assert!(limit(f64::NAN, 1e-6).is_nan());
    assert!(limit(4.0, 1e-6) > 0.0);
}
