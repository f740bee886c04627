//! Factors of products with one, two and three latents against dense matrices: no regressor, the price, the price and another one.

use infermark_arrowhead::{
    ArrowheadFactor, Assembled, BlockLayout, BlockMatrix, BlockPriors, Column, OfRowVariances, Partition,
    ProductRows, ProductTerms, Rates, Regressor, Whitener, WithPeriods,
};
use infermark_cpu_kernels::Simd;
use infermark_model::{Likelihood, Panel};
use infermark_test_support::dense::{cholesky, solve};
use infermark_test_support::{norm, random_panel};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::{Arc, Mutex};

/// A panel with regressors, priors and rows that have weights, couplings to the log shape and a gradient.
struct Case<const D: usize> {
    panel: Arc<Panel>,
    partition: Arc<Partition<D>>,
    priors: BlockPriors<D>,
    /// Regressors by row of the panel.
    design: Vec<[f64; D]>,
    weights: Vec<f64>,
    cross: Vec<f64>,
    /// Half of the variances that were passed to the rows, by product and period.
    given: Mutex<Vec<Vec<f64>>>,
}

/// Curvature of each product's rows along the log shape.
const SHAPE_CURVATURE: f64 = 50.0;

impl<const D: usize> Case<D> {
    fn new(seed: u64, (n, c, t, gaps): (usize, usize, usize, f64), likelihood: Likelihood) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let panel = random_panel(&mut rng, n, c, t, gaps, 30);
        let mut design = vec![[1.0; D]; panel.rows()];
        let mut regressors = Vec::new();
        for k in 0..D - 1 {
            let values: Vec<f64> = match k {
                0 => (0..n)
                    .flat_map(|i| panel.product_rows(i).map(|row| row.log_price))
                    .collect(),
                // A promotion, and its depth.
                _ => (0..panel.rows())
                    .map(|_| f64::from(rng.random_bool(0.3)) * rng.random_range(0.5..1.5))
                    .collect(),
            };
            for (row, value) in design.iter_mut().zip(&values) {
                row[k] = *value;
            }
            regressors.push(match k {
                0 => Regressor::LogPrice,
                _ => Regressor::Column(Column::new(&panel, values)),
            });
        }
        let mut precision = || rng.random_range(0.1..2.0);
        let priors = BlockPriors {
            global: [0.0; D].map(|_| precision()),
            category: [0.0; D].map(|_| precision()),
            product: [0.0; D].map(|_| precision()),
            time: precision(),
            log_shape: precision(),
        };
        let weights = (0..panel.rows())
            .map(|_| 10f64.powf(rng.random_range(-3.0..2.0)))
            .collect();
        let cross = (0..panel.rows()).map(|_| rng.random_range(-0.2..0.2)).collect();
        Case {
            partition: Arc::new(Partition::with_regressors(&panel, likelihood, regressors)),
            priors,
            design,
            weights,
            cross,
            given: Mutex::new(vec![Vec::new(); n]),
            panel,
        }
    }

    fn sites(&self) -> &BlockLayout<D> {
        self.partition.sites()
    }

    fn has_shape(&self) -> bool {
        self.partition.layout().likelihood == Likelihood::NegativeBinomial
    }

    /// The position of the effect of a row's period.
    fn time(&self, product: usize, period: usize) -> usize {
        let category = self.panel.category_of()[product] as usize;
        self.sites().time + category * self.panel.layout().periods + period
    }

    /// The terms of a row's log rate: positions and coefficients.
    fn row(&self, product: usize, period: usize, row: usize) -> Vec<(usize, f64)> {
        let own = self.sites().product.iter().zip(self.design[row]);
        let mut entries: Vec<(usize, f64)> = own.map(|(start, x)| (start + product, x)).collect();
        entries.push((self.time(product, period), 1.0));
        entries
    }

    /// Every row with its product, period and index.
    fn rows(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        (0..self.panel.layout().products).flat_map(|i| {
            let rows = self.panel.product_rows(i).zip(self.panel.row_range(i));
            rows.map(move |(row, at)| (i, row.period, at))
        })
    }

    /// The precision from the model's definition: dense, symmetric.
    fn precision(&self) -> Vec<Vec<f64>> {
        let (sites, priors, layout) = (self.sites(), &self.priors, self.panel.layout());
        let mut q = vec![vec![0.0; sites.latents]; sites.latents];
        let mut prior = |child: usize, parent: Option<usize>, p: f64| {
            q[child][child] += p;
            if let Some(parent) = parent {
                q[parent][parent] += p;
                q[child][parent] -= p;
                q[parent][child] -= p;
            }
        };
        for k in 0..D - 1 {
            prior(sites.global[k], None, priors.global[k]);
            for c in 0..layout.categories {
                prior(sites.category[k] + c, Some(sites.global[k]), priors.category[k]);
            }
            for (i, c) in self.panel.category_of().iter().enumerate() {
                let parent = sites.category[k] + *c as usize;
                prior(sites.product[k] + i, Some(parent), priors.product[k]);
            }
        }
        for i in 0..layout.products {
            prior(sites.product[D - 1] + i, None, priors.product[D - 1]);
        }
        for j in 0..layout.categories * layout.periods {
            prior(sites.time + j, None, priors.time);
        }
        if self.has_shape() {
            for (c, products) in products_by_category(&self.panel).into_iter().enumerate() {
                prior(
                    sites.log_shape + c,
                    None,
                    priors.log_shape + SHAPE_CURVATURE * products,
                );
            }
        }
        for (i, period, at) in self.rows() {
            let row = self.row(i, period, at);
            for (j, x) in &row {
                for (k, y) in &row {
                    q[*j][*k] += self.weights[at] * x * y;
                }
                if self.has_shape() {
                    let shape = sites.log_shape + self.panel.category_of()[i] as usize;
                    q[*j][shape] += self.cross[at] * x;
                    q[shape][*j] += self.cross[at] * x;
                }
            }
        }
        q
    }
}

fn products_by_category(panel: &Panel) -> Vec<f64> {
    let mut products = vec![0.0; panel.layout().categories];
    for c in panel.category_of() {
        products[*c as usize] += 1.0;
    }
    products
}

impl<const D: usize> Rates<D> for Case<D> {
    #[inline(always)]
    fn weigh<I: Simd<Scalar = f64>>(
        &self,
        _: I,
        rows: ProductRows<'_, D>,
        weights: &mut [f64],
        cross: &mut [f64],
        by_period: &mut [f64],
    ) -> ProductTerms<D> {
        weights.fill(0.0);
        cross.fill(0.0);
        let i = rows.product;
        for (row, at) in self.panel.product_rows(i).zip(self.panel.row_range(i)) {
            for (k, x) in self.design[at].iter().enumerate() {
                assert_eq!(
                    rows.design[k][row.period], *x,
                    "the grid has the rows' regressors"
                );
            }
            weights[row.period] = self.weights[at];
            if self.has_shape() {
                cross[row.period] = self.cross[at];
            }
            by_period[row.period] += (at as f64).cos();
        }
        self.given.lock().unwrap()[i] = rows.half_variance.to_vec();
        let curvature = if self.has_shape() { SHAPE_CURVATURE } else { 0.0 };
        ProductTerms {
            value: 1.0,
            gradient: std::array::from_fn(|k| ((i + 7 * k) as f64).sin()),
            shape: [0.0, curvature, 0.0],
        }
    }
}

/// A gradient of half the variances of the rows, each times its weight.
struct OfHalfVariances;

impl<const D: usize> OfRowVariances<D> for OfHalfVariances {
    type Answer = (BlockMatrix<D>, Vec<[f64; D]>);

    #[inline(always)]
    fn visit<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_, D>,
        weights: &[f64],
        covariance: BlockMatrix<D>,
        with_periods: WithPeriods<'_, I::V, D>,
        by_period: &mut [f64],
    ) -> ([f64; D], Self::Answer) {
        let mut gradient = [0.0; D];
        for (t, w) in weights.iter().enumerate() {
            let own = w * rows.half_variance[t];
            for (sum, x) in gradient.iter_mut().zip(rows.design) {
                *sum += own * x[t];
            }
            by_period[t] += own;
        }
        let mut with = vec![[0.0; D]; weights.len()];
        for start in (0..weights.len()).step_by(I::LANES) {
            for (k, entry) in with_periods.at(isa, start).into_iter().enumerate() {
                let mut lanes = vec![0.0; I::LANES];
                isa.store(entry, &mut lanes);
                with[start..]
                    .iter_mut()
                    .zip(lanes)
                    .for_each(|(to, lane)| to[k] = lane);
            }
        }
        (gradient, (covariance, with))
    }
}

fn off(found: &[f64], expected: &[f64]) -> f64 {
    let difference: Vec<f64> = found.iter().zip(expected).map(|(f, e)| f - e).collect();
    norm(&difference) / norm(expected)
}

fn applied(apply: impl Fn(&mut [f64]), to: &[f64]) -> Vec<f64> {
    let mut v = to.to_vec();
    apply(&mut v);
    v
}

/// Everything of a case against the dense matrix.
fn check<const D: usize>(case: &Case<D>, threads: usize, named: &str) {
    let q = case.precision();
    let (l, latents, sites) = (cholesky(&q), q.len(), *case.sites());
    let covariance: Vec<Vec<f64>> = (0..latents)
        .map(|j| {
            let mut unit = vec![0.0; latents];
            unit[j] = 1.0;
            solve(&l, &unit)
        })
        .collect();
    let assembled = Assembled::new(&case.partition, &case.priors, case, threads).unwrap();
    let factor = &assembled.factor;
    let ln_det: f64 = 2.0 * (0..latents).map(|i| l[i][i].ln()).sum::<f64>();
    assert!(
        (factor.ln_det() - ln_det).abs() < 1e-8 * ln_det.abs().max(1.0),
        "{named}"
    );
    for (j, found) in factor.diagonal().iter().enumerate() {
        assert!((found / q[j][j] - 1.0).abs() < 1e-10, "{named}: diagonal {j}");
    }

    // A step: the rows' gradient, and any above the products.
    let mut gradient = assembled.gradient.clone();
    let own = sites.product[0]..sites.product[D - 1] + case.panel.layout().products;
    for j in (0..latents).filter(|j| !own.contains(j)) {
        gradient[j] += (j as f64).sin();
    }
    let step = assembled.step(&gradient).unwrap();
    assert!(off(&step, &solve(&l, &gradient)) < 1e-8, "{named}: step");
    let (above, slope) = assembled.step_above_products(&gradient);
    let expected: f64 = step.iter().zip(&gradient).map(|(s, g)| s * g).sum();
    assert!(
        (slope / expected - 1.0).abs() < 1e-8,
        "{named}: {slope} {expected}"
    );
    for j in (0..latents).filter(|j| !own.contains(j)) {
        assert!((above[j] - step[j]).abs() < 1e-8 * norm(&step), "{named}: {j}");
    }

    // Solving, whitening and back.
    let b: Vec<f64> = (0..latents).map(|j| (1.3 * j as f64).sin()).collect();
    let x = applied(|v| factor.solve(v), &b);
    assert!(off(&x, &solve(&l, &b)) < 1e-8, "{named}: solve");
    let forward = applied(|v| factor.solve_lower(v), &b);
    let up = applied(|v| factor.times_upper(v), &x);
    assert!(off(&up, &forward) < 1e-8, "{named}: lower");
    let there = applied(|v| factor.solve_upper(v), &b);
    let length: f64 = (0..latents)
        .map(|i| there[i] * (0..latents).map(|j| q[i][j] * there[j]).sum::<f64>())
        .sum();
    assert!(
        (length / norm(&b).powi(2) - 1.0).abs() < 1e-8,
        "{named}: whitened lengths"
    );
    let back = applied(|v| factor.times_upper(v), &there);
    assert!(off(&back, &b) < 1e-8, "{named}: back");
    let whitener = Whitener::new(factor.clone());
    // Weights and deviations of the regressors have errors of 6e-8.
    let rounded = applied(|v| whitener.solve_upper(v), &b);
    assert!(
        off(&rounded, &there) < 5e-7,
        "{named}: {:e}",
        off(&rounded, &there)
    );
    let rounded_lower = applied(|v| whitener.solve_lower(v), &b);
    assert!(off(&rounded_lower, &forward) < 5e-7, "{named}");
    let back = applied(|v| whitener.times_upper(v), &rounded);
    assert!(off(&back, &b) < 1e-12, "{named}: {:e}", off(&back, &b));

    // Marginals, from roots and from covariances of the borders.
    let by_roots = factor.marginals();
    factor.prepare_variances();
    for marginals in [by_roots, factor.marginals()] {
        for (j, found) in marginals.variance.iter().enumerate() {
            assert!(
                (found / covariance[j][j] - 1.0).abs() < 1e-8,
                "{named}: variance {j}"
            );
        }
        for (i, found) in marginals.product_covariance.iter().enumerate() {
            assert_block(case, i, found, &covariance, named);
        }
    }
    let visited = factor.for_products(
        |i| i % 2 == 0,
        |i, moments| {
            assert_block(case, i, &moments.covariance, &covariance, named);
            for t in 0..case.panel.layout().periods {
                let time = case.time(i, t);
                assert!((moments.periods[t] / covariance[time][time] - 1.0).abs() < 1e-8);
                for (with, start) in moments.with_periods.iter().zip(sites.product) {
                    let j = start + i;
                    let scale = (covariance[j][j] * covariance[time][time]).sqrt();
                    assert!((with[t] - covariance[j][time]).abs() < 1e-8 * scale, "{named}");
                }
            }
        },
    );
    assert_eq!(visited.len(), case.panel.layout().products.div_ceil(2));

    // Results that need the variances of the rows.
    let half = |i: usize, period: usize, at: usize| {
        let row = case.row(i, period, at);
        let variance: f64 = row
            .iter()
            .map(|(j, x)| x * row.iter().map(|(k, y)| y * covariance[*j][*k]).sum::<f64>())
            .sum();
        0.5 * variance
    };
    let mut gradient = vec![0.0; latents];
    for (i, period, at) in case.rows() {
        for (j, x) in case.row(i, period, at) {
            gradient[j] += x * case.weights[at] * half(i, period, at);
        }
    }
    let (found, answers) = factor.solved_of_row_variances(&OfHalfVariances).unwrap();
    assert!(
        off(&found, &solve(&l, &gradient)) < 1e-8,
        "{named}: of row variances"
    );
    for (i, answer) in answers.iter().enumerate() {
        let (found, with) = answer.as_ref().expect("every product is here");
        assert_block(case, i, found, &covariance, named);
        for row in case.panel.product_rows(i) {
            let time = case.time(i, row.period);
            for (found, start) in with[row.period].iter().zip(sites.product) {
                let j = start + i;
                let scale = (covariance[j][j] * covariance[time][time]).sqrt();
                assert!((found - covariance[j][time]).abs() < 1e-8 * scale, "{named}");
            }
        }
    }
    let (again, moments) = Assembled::with_variances(assembled.factor, case).unwrap();
    for (i, period, at) in case.rows() {
        let given = case.given.lock().unwrap()[i][period];
        let expected = half(i, period, at);
        assert!(
            (given / expected - 1.0).abs() < 1e-8,
            "{named}: {given} {expected}"
        );
    }
    for (i, found) in moments.covariance.iter().enumerate() {
        assert_block(case, i, found, &covariance, named);
    }
    assert!((again.factor.ln_det() - ln_det).abs() < 1e-8 * ln_det.abs().max(1.0));
}

/// The covariance of a product's latents.
fn assert_block<const D: usize>(
    case: &Case<D>,
    product: usize,
    found: &BlockMatrix<D>,
    covariance: &[Vec<f64>],
    named: &str,
) {
    let places = case.sites().product.map(|start| start + product);
    for (j, found) in places.iter().zip(found) {
        for (k, found) in places.iter().zip(found) {
            let scale = (covariance[*j][*j] * covariance[*k][*k]).sqrt();
            assert!(
                (found - covariance[*j][*k]).abs() < 1e-8 * scale,
                "{named}: product {product}"
            );
        }
    }
}

fn check_sizes<const D: usize>() {
    for (seed, sizes) in [
        (1, 1, 1, 0.0),
        (2, 2, 3, 0.0),
        (30, 3, 7, 0.4),
        (70, 1, 12, 0.1),
        (90, 4, 5, 0.9),
        (9, 9, 20, 0.3),
    ]
    .into_iter()
    .enumerate()
    {
        for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
            let case = Case::<D>::new(10 * D as u64 + seed as u64, sizes, likelihood);
            for threads in [1, 3] {
                let named = format!("{D} latents, {sizes:?}, {likelihood:?}, {threads} threads");
                check(&case, threads, &named);
            }
        }
    }
}

#[test]
fn products_with_an_effect_alone_are_those_of_the_dense_matrix() {
    check_sizes::<1>();
}

#[test]
fn products_with_two_latents_are_those_of_the_dense_matrix() {
    check_sizes::<2>();
}

#[test]
fn products_with_three_latents_are_those_of_the_dense_matrix() {
    check_sizes::<3>();
}

#[test]
fn products_with_four_latents_are_those_of_the_dense_matrix() {
    check_sizes::<4>();
}

/// Full pooling of both coefficients, whose priors' precisions hide everything they are added to. The
/// reference uses coordinates in which the priors are standard normal and nothing cancels.
#[test]
fn narrow_priors_of_two_coefficients_pool_without_a_loss() {
    let mut case = Case::<3>::new(5, (24, 3, 6, 0.2), Likelihood::Poisson);
    let wide = case.priors;
    for sd in [1e-3f64, 1e-8] {
        for (of_products, of_categories) in [(true, false), (false, true), (true, true)] {
            case.priors = wide;
            if of_products {
                case.priors.product[..2].fill(sd.powi(-2));
            }
            if of_categories {
                case.priors.category[..2].fill(sd.powi(-2));
            }
            let m = unit_priors(&case);
            let latents = m.len();
            let mut q = vec![vec![0.0; latents]; latents];
            for (j, row) in q.iter_mut().enumerate() {
                row[j] = 1.0;
            }
            for (i, period, at) in case.rows() {
                let row = case.row(i, period, at);
                let by: Vec<(usize, f64)> = row
                    .iter()
                    .flat_map(|(j, x)| m[*j].iter().map(move |(k, s)| (*k, s * x)))
                    .collect();
                for (j, x) in &by {
                    for (k, y) in &by {
                        q[*j][*k] += case.weights[at] * x * y;
                    }
                }
            }
            let l = cholesky(&q);
            let factor =
                ArrowheadFactor::of_weights(&case.partition, &case.priors, &case.weights, 2).unwrap();
            for (j, found) in factor.marginals().variance.iter().enumerate() {
                let mut unit = vec![0.0; latents];
                m[j].iter().for_each(|(k, s)| unit[*k] += s);
                let solved = solve(&l, &unit);
                let expected: f64 = m[j].iter().map(|(k, s)| s * solved[*k]).sum();
                assert!(
                    (found / expected - 1.0).abs() < 1e-6,
                    "{sd:e} {of_products} {of_categories}: {j} {found} {expected}"
                );
            }
        }
    }
}

/// The rows of `M`, as (column, entry), of the latents as `M z` with `z` standard normal a priori.
fn unit_priors<const D: usize>(case: &Case<D>) -> Vec<Vec<(usize, f64)>> {
    let (sites, priors, layout) = (case.sites(), &case.priors, case.panel.layout());
    let sd = |precision: f64| precision.powf(-0.5);
    let mut rows: Vec<Vec<(usize, f64)>> = (0..sites.latents).map(|j| vec![(j, sd(priors.time))]).collect();
    for i in 0..layout.products {
        let effect = sites.product[D - 1] + i;
        rows[effect] = vec![(effect, sd(priors.product[D - 1]))];
    }
    for k in 0..D - 1 {
        let global = vec![(sites.global[k], sd(priors.global[k]))];
        for c in 0..layout.categories {
            let place = sites.category[k] + c;
            rows[place] = [global.clone(), vec![(place, sd(priors.category[k]))]].concat();
        }
        for (i, c) in case.panel.category_of().iter().enumerate() {
            let (place, parent) = (sites.product[k] + i, sites.category[k] + *c as usize);
            rows[place] = [rows[parent].clone(), vec![(place, sd(priors.product[k]))]].concat();
        }
        rows[sites.global[k]] = global;
    }
    rows
}
