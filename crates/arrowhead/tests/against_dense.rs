//! The arrowhead factor against a dense Cholesky of the same precision, on random panels of awkward shapes.

use infermark_arrowhead::{
    ArrowheadFactor, Assembled, BlockMatrix, BlockPriors, FactorError, Marginals, OfRowVariances, Partition,
    ProductMoments, ProductRows, ProductTerms, Rates, Whitener, WithPeriods,
};
use infermark_cpu_kernels::Simd;
use infermark_model::{Labels, Likelihood, Panel, PanelPart, Priors, Site};
use infermark_test_support::dense::{UnitPriors, cholesky, narrow_priors, solve, with_sd};
use infermark_test_support::{norm, random_panel};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;

/// The precision from the model's definition, row by row: dense, symmetric.
fn precision(panel: &Panel, priors: &Priors, weights: &[f64]) -> Vec<Vec<f64>> {
    let layout = panel.layout();
    let n = layout.latents();
    let mut q = vec![vec![0.0; n]; n];
    let mut add = |i: usize, j: usize, x: f64| {
        q[i][j] += x;
        if i != j {
            q[j][i] += x;
        }
    };
    let (category_a, a, e) = (
        layout.start(Site::CategoryA),
        layout.start(Site::ProductA),
        layout.start(Site::ProductEffect),
    );
    let mut prior = |child: usize, parent: Option<usize>, sd: f64| {
        let p = sd.powi(-2);
        add(child, child, p);
        if let Some(parent) = parent {
            add(parent, parent, p);
            add(child, parent, -p);
        }
    };
    prior(0, None, priors.global_a_sd);
    for c in 0..layout.categories {
        prior(category_a + c, Some(0), priors.category_a_sd);
        for t in 0..layout.periods {
            prior(layout.time_index(c, t), None, priors.time_cat_effects_sd);
        }
    }
    for i in 0..layout.products {
        let c = panel.category_of()[i] as usize;
        prior(a + i, Some(category_a + c), priors.product_a_sd);
        prior(e + i, None, priors.product_effect_sd);
    }
    for i in 0..layout.products {
        let c = panel.category_of()[i] as usize;
        for (row, w) in panel.product_rows(i).zip(&weights[panel.row_range(i)]) {
            let design = [
                (a + i, row.log_price),
                (e + i, 1.0),
                (layout.time_index(c, row.period), 1.0),
            ];
            for (j, x) in design {
                for (k, y) in design {
                    q[j][k] += w * x * y;
                }
            }
        }
    }
    q
}

fn off(found: &[f64], expected: &[f64]) -> f64 {
    let difference: Vec<f64> = found.iter().zip(expected).map(|(f, e)| f - e).collect();
    norm(&difference) / norm(expected)
}

fn flat(marginals: &Marginals) -> &[f64] {
    marginals.product_covariance.as_flattened().as_flattened()
}

#[test]
fn everything_equals_the_dense_factor() {
    for (seed, (n, c, t, gaps)) in [
        (1, 1, 1, 0.0),
        (2, 2, 3, 0.0),
        (30, 3, 7, 0.4),
        (70, 1, 12, 0.1),
        (90, 4, 5, 0.9),
        (9, 9, 20, 0.3),
        (40, 1, 55, 0.1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut rng = StdRng::seed_from_u64(seed as u64);
        let panel = random_panel(&mut rng, n, c, t, gaps, 30);
        // From rows with no information to rows with nearly all of it.
        let weights: Vec<f64> = (0..panel.rows())
            .map(|_| 10f64.powf(rng.random_range(-4.0..3.0)))
            .collect();
        let priors = Priors::default();
        let q = precision(&panel, &priors, &weights);
        let l = cholesky(&q);
        let latents = q.len();
        for threads in [1, 3] {
            let case = format!("{n} x {t} in {c}, gaps {gaps}, {threads} threads");
            let factor = ArrowheadFactor::new(&panel, priors, &weights, threads).unwrap();
            let ln_det: f64 = 2.0 * (0..latents).map(|i| l[i][i].ln()).sum::<f64>();
            assert!(
                (factor.ln_det() - ln_det).abs() < 1e-8 * ln_det.abs().max(1.0),
                "{case}"
            );

            let b: Vec<f64> = (0..latents).map(|_| rng.random_range(-1.0..1.0)).collect();
            let mut x = b.clone();
            factor.solve(&mut x);
            let expected = solve(&l, &b);
            assert!(
                off(&x, &expected) < 1e-8,
                "{case}: solve off by {}",
                off(&x, &expected)
            );

            // L L' = Q: b = L (L' x), checked through L^-1 b = L' x.
            let mut forward = b.clone();
            factor.solve_lower(&mut forward);
            let mut up = x.clone();
            factor.times_upper(&mut up);
            assert!(off(&up, &forward) < 1e-8, "{case}: {}", off(&up, &forward));
            // Whitening and back.
            let mut back = b.clone();
            factor.solve_upper(&mut back);
            // The length of a whitened vector is its Mahalanobis length.
            let quadratic: f64 = (0..latents)
                .map(|i| back[i] * (0..latents).map(|j| q[i][j] * back[j]).sum::<f64>())
                .sum();
            let length: f64 = b.iter().map(|b| b * b).sum();
            assert!(
                (quadratic / length - 1.0).abs() < 1e-8,
                "{case}: {quadratic} {length}"
            );
            factor.times_upper(&mut back);
            assert!(off(&back, &b) < 1e-8, "{case}");

            // From roots of the borders' covariances, and from the covariances themselves.
            let marginals = factor.marginals();
            factor.prepare_variances();
            let again = factor.marginals();
            assert!(off(&again.variance, &marginals.variance) < 1e-9, "{case}");
            assert!(off(flat(&again), flat(&marginals)) < 1e-8, "{case}");
            let layout = panel.layout();
            let unit = |j: usize| {
                let mut unit = vec![0.0; latents];
                unit[j] = 1.0;
                solve(&l, &unit)
            };
            let columns: Vec<Vec<f64>> = (0..latents).map(unit).collect();
            let diagonal: Vec<f64> = (0..latents).map(|j| columns[j][j]).collect();
            for (j, (found, expected)) in marginals.variance.iter().zip(&diagonal).enumerate() {
                assert!(
                    (found / expected - 1.0).abs() < 1e-8,
                    "{case}: variance {j} {found} {expected}"
                );
            }
            let (a, e) = (layout.start(Site::ProductA), layout.start(Site::ProductEffect));
            for i in 0..layout.products {
                let scale = (diagonal[a + i] * diagonal[e + i]).sqrt();
                let expected = columns[a + i][e + i];
                assert!(
                    (marginals.product_covariance[i][0][1] - expected).abs() < 1e-8 * scale,
                    "{case}: {i}"
                );
            }
            factor.for_products(
                |_| true,
                |i, moments| {
                    for period in 0..layout.periods {
                        let j = layout.time_index(panel.category_of()[i] as usize, period);
                        for (found, with) in [
                            (moments.with_periods[0][period], a + i),
                            (moments.with_periods[1][period], e + i),
                        ] {
                            let scale = (diagonal[with] * diagonal[j]).sqrt();
                            assert!(
                                (found - columns[with][j]).abs() < 1e-8 * scale,
                                "{case}: {i} {period}"
                            );
                        }
                        assert!((moments.periods[period] / diagonal[j] - 1.0).abs() < 1e-8);
                    }
                },
            );
        }
    }
}

#[test]
fn coordinates_of_rounded_couplings_are_near_the_factors_and_consistent_among_themselves() {
    for (seed, (n, c, t, gaps)) in [
        (1, 1, 1, 0.0),
        (30, 3, 7, 0.4),
        (70, 1, 16, 0.0),
        (90, 4, 35, 0.9),
        (600, 2, 48, 0.1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut rng = StdRng::seed_from_u64(50 + seed as u64);
        let panel = random_panel(&mut rng, n, c, t, gaps, 30);
        let mut column = |n: usize, low: f64, high: f64| -> Vec<f64> {
            (0..n).map(|_| rng.random_range(low..high)).collect()
        };
        let weights = column(panel.rows(), 0.0, 40.0);
        let latents = panel.layout().latents();
        let (y, g) = (column(latents, -1.0, 1.0), column(latents, -1.0, 1.0));
        let factor = ArrowheadFactor::new(&panel, Priors::default(), &weights, 2).unwrap();
        let whitener = Whitener::new(factor.clone());
        let of = |apply: &dyn Fn(&mut [f64]), to: &[f64]| {
            let mut v = to.to_vec();
            apply(&mut v);
            v
        };
        let natural = of(&|v| whitener.solve_upper(v), &y);
        let gradient = of(&|v| whitener.solve_lower(v), &g);
        // Weights and deviations have errors of 6e-8. Measured: up to 6e-8; round trip 7e-16, adjoint 1e-15.
        for (found, expected) in [
            (&natural, of(&|v| factor.solve_upper(v), &y)),
            (&gradient, of(&|v| factor.solve_lower(v), &g)),
        ] {
            assert!(
                off(found, &expected) < 5e-7,
                "{n} {t}: {:e}",
                off(found, &expected)
            );
        }
        let back = of(&|v| whitener.times_upper(v), &natural);
        assert!(off(&back, &y) < 1e-13, "{n} {t}: {:e}", off(&back, &y));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let size = norm(&g) * norm(&natural);
        assert!(
            (dot(&g, &natural) - dot(&gradient, &y)).abs() < 1e-13 * size,
            "{n} {t}"
        );
    }
}

#[test]
fn narrow_priors_pool_without_a_loss() {
    let panel = random_panel(&mut StdRng::seed_from_u64(1), 24, 3, 6, 0.2, 9);
    let layout = panel.layout();
    let mut rng = StdRng::seed_from_u64(2);
    let weights: Vec<f64> = (0..panel.rows())
        .map(|_| 10f64.powf(rng.random_range(-1.0..4.0)))
        .collect();
    let with_all = |sd: f64| {
        narrow_priors(sd)
            .into_iter()
            .chain([with_sd(&Site::REPARAMETERIZED, sd)])
    };
    for priors in [1e-3, 1e-8, 1e-10].into_iter().flat_map(with_all) {
        let m = UnitPriors::new(&panel, &priors);
        let latents = layout.latents();
        let mut q = vec![vec![0.0; latents]; latents];
        for (j, row) in q.iter_mut().enumerate() {
            row[j] = 1.0;
        }
        for i in 0..layout.products {
            for (row, w) in panel.product_rows(i).zip(&weights[panel.row_range(i)]) {
                let design = m.design(&panel, i, row.period, row.log_price);
                for (j, x) in &design {
                    for (k, y) in &design {
                        q[*j][*k] += w * x * y;
                    }
                }
            }
        }
        let l = cholesky(&q);
        // Q^-1 b = M Q_z^-1 M' b.
        let solved = |b: &[f64]| {
            let mut by_z = vec![0.0; latents];
            for (row, b) in m.rows.iter().zip(b) {
                row.iter().for_each(|(k, s)| by_z[*k] += s * b);
            }
            m.times(&solve(&l, &by_z))
        };
        let factor = ArrowheadFactor::new(&panel, priors, &weights, 2).unwrap();
        // M is triangular, with the sds on its diagonal.
        let ln_det: f64 = 2.0
            * (0..latents)
                .map(|j| l[j][j].ln() - m.rows[j].iter().find(|(k, _)| *k == j).unwrap().1.ln())
                .sum::<f64>();
        assert!(
            (factor.ln_det() - ln_det).abs() < 1e-8 * ln_det.abs(),
            "{priors:?}: {} {ln_det}",
            factor.ln_det()
        );
        let marginals = factor.marginals();
        for j in 0..latents {
            let mut unit = vec![0.0; latents];
            unit[j] = 1.0;
            let (found, expected) = (marginals.variance[j], solved(&unit)[j]);
            assert!(
                (found / expected - 1.0).abs() < 1e-6,
                "{priors:?}: {j} {found} {expected}"
            );
        }
        // Steps, measured in their own sds: a right-hand side as large as gradients are, of both kinds.
        let b: Vec<f64> = marginals
            .variance
            .iter()
            .map(|v| rng.random_range(-1.0..1.0) / v.sqrt())
            .collect();
        let (mut x, expected) = (b.clone(), solved(&b));
        factor.solve(&mut x);
        for j in 0..latents {
            let sd = marginals.variance[j].sqrt();
            assert!(
                (x[j] - expected[j]).abs() < 1e-6 * (sd + expected[j].abs()),
                "{priors:?}: {j} {} {}",
                x[j],
                expected[j]
            );
        }
        // Coordinates, round trip.
        let y: Vec<f64> = (0..latents).map(|_| rng.random_range(-1.0..1.0)).collect();
        for whitener in [None, Some(Whitener::new(factor.clone()))] {
            let mut there = y.clone();
            match &whitener {
                None => factor.solve_upper(&mut there),
                Some(whitener) => whitener.solve_upper(&mut there),
            }
            match &whitener {
                None => factor.times_upper(&mut there),
                Some(whitener) => whitener.times_upper(&mut there),
            }
            // If a prior holds a difference at 1e-10, numbers of size 1 resolve it to 1e-6 of that.
            let off = there
                .iter()
                .zip(&y)
                .map(|(t, y)| (t - y).abs())
                .fold(0.0, f64::max);
            assert!(off < 1e-4, "{priors:?}: {off}");
        }
    }
}

#[test]
fn weights_that_are_none_are_refused() {
    let panel = random_panel(&mut StdRng::seed_from_u64(1), 5, 2, 4, 0.0, 9);
    for bad in [f64::NAN, f64::INFINITY, -1e3] {
        let mut weights = vec![1.0; panel.rows()];
        weights[panel.row_range(3).start] = bad;
        let refused = ArrowheadFactor::new(&panel, Priors::default(), &weights, 2).unwrap_err();
        assert_eq!(refused, FactorError::Product(3), "{bad}");
    }
}

/// A gradient of half the variances of the rows, each times its weight and the cosine of its log price.
struct Waves;

impl OfRowVariances for Waves {
    type Answer = (BlockMatrix<2>, Vec<[f64; 3]>);

    #[inline(always)]
    fn visit<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_>,
        weights: &[f64],
        covariance: BlockMatrix<2>,
        with_periods: WithPeriods<'_, I::V>,
        by_period: &mut [f64],
    ) -> ([f64; 2], Self::Answer) {
        let mut gradient = [0.0; 2];
        let mut by_row = vec![[0.0; 3]; weights.len()];
        for (t, w) in weights.iter().enumerate() {
            let x = rows.design[0][t];
            let own = w * rows.half_variance[t] * x.cos();
            gradient[0] += own * x;
            gradient[1] += own;
            by_period[t] += own;
            by_row[t][0] = rows.half_variance[t];
        }
        for start in (0..weights.len()).step_by(I::LANES) {
            for (k, with) in with_periods.at(isa, start).into_iter().enumerate() {
                let mut lanes = vec![0.0; I::LANES];
                isa.store(with, &mut lanes);
                let of_rows = by_row[start..].iter_mut().zip(lanes);
                of_rows.for_each(|(row, lane)| row[1 + k] = lane);
            }
        }
        (gradient, (covariance, by_row))
    }
}

#[test]
fn a_gradient_of_the_rows_variances_is_solved_as_by_the_dense_matrix() {
    for (seed, (n, c, t, gaps)) in [(1, 1, 1, 0.0), (30, 3, 7, 0.4), (70, 1, 12, 0.1), (90, 4, 5, 0.9)]
        .into_iter()
        .enumerate()
    {
        let mut rng = StdRng::seed_from_u64(80 + seed as u64);
        let panel = random_panel(&mut rng, n, c, t, gaps, 30);
        let weights: Vec<f64> = (0..panel.rows())
            .map(|_| 10f64.powf(rng.random_range(-3.0..2.0)))
            .collect();
        let priors = Priors::default();
        let q = precision(&panel, &priors, &weights);
        let (l, latents, layout) = (cholesky(&q), q.len(), panel.layout());
        let unit = |j: usize| {
            let mut unit = vec![0.0; latents];
            unit[j] = 1.0;
            solve(&l, &unit)
        };
        let covariance: Vec<Vec<f64>> = (0..latents).map(unit).collect();
        let (a, e) = (layout.start(Site::ProductA), layout.start(Site::ProductEffect));
        for threads in [1, 3] {
            let case = format!("{n} x {t} in {c}, gaps {gaps}, {threads} threads");
            let factor = ArrowheadFactor::new(&panel, priors, &weights, threads).unwrap();
            let (found, answers) = factor.solved_of_row_variances(&Waves).unwrap();
            let mut gradient = vec![0.0; latents];
            for (i, answer) in answers.iter().enumerate() {
                let (own, by_row) = answer.as_ref().expect("every product is walked here");
                let expected = [a, e].map(|j| [a, e].map(|k| covariance[j + i][k + i]));
                assert!(
                    off(own.as_flattened(), expected.as_flattened()) < 1e-8,
                    "{case}: {i} {own:?} {expected:?}"
                );
                for (row, w) in panel.product_rows(i).zip(&weights[panel.row_range(i)]) {
                    let time = layout.time_index(panel.category_of()[i] as usize, row.period);
                    let entries = [(a + i, row.log_price), (e + i, 1.0), (time, 1.0)];
                    let with = |j: usize| -> f64 { entries.iter().map(|(k, x)| x * covariance[j][*k]).sum() };
                    let half: f64 = 0.5 * entries.iter().map(|(j, x)| x * with(*j)).sum::<f64>();
                    let [found, with_a, with_e] = by_row[row.period];
                    assert!((found / half - 1.0).abs() < 1e-8, "{case}: {i}");
                    for (found, j) in [(with_a, a + i), (with_e, e + i)] {
                        let scale = (covariance[j][j] * covariance[time][time]).sqrt();
                        assert!((found - covariance[j][time]).abs() < 1e-8 * scale, "{case}: {i}");
                    }
                    entries
                        .iter()
                        .for_each(|(j, x)| gradient[*j] += x * w * half * row.log_price.cos());
                }
            }
            assert!(off(&found, &solve(&l, &gradient)) < 1e-8, "{case}");
        }
    }
}

#[test]
fn products_that_are_asked_for_are_those_that_are_visited() {
    let mut rng = StdRng::seed_from_u64(90);
    let panel = random_panel(&mut rng, 300, 3, 6, 0.2, 30);
    let weights = vec![2.0; panel.rows()];
    let factor = ArrowheadFactor::new(&panel, Priors::default(), &weights, 2).unwrap();
    let moments = |_: usize, m: ProductMoments<'_>| {
        [
            m.covariance[0][0],
            m.covariance[1][1],
            m.with_periods[1][3],
            m.weights[0],
        ]
    };
    let all = factor.for_products(|_| true, moments);
    assert!(all.iter().map(|(i, _)| *i).eq(0..300));
    let some = factor.for_products(|i| i % 7 == 2, moments);
    let expected: Vec<_> = all.into_iter().filter(|(i, _)| i % 7 == 2).collect();
    assert_eq!(some, expected);
    assert!(factor.for_products(|_| false, moments).is_empty());
}

/// A weight by product and period.
struct Weighing(fn(usize, usize) -> f64);

impl Rates for Weighing {
    #[inline(always)]
    fn weigh<I: Simd<Scalar = f64>>(
        &self,
        _: I,
        rows: ProductRows<'_>,
        weights: &mut [f64],
        _: &mut [f64],
        _: &mut [f64],
    ) -> ProductTerms {
        let of = weights.iter_mut().zip(rows.present()).enumerate();
        of.for_each(|(t, (weight, present))| *weight = present * (self.0)(rows.product, t));
        ProductTerms {
            value: 0.0,
            gradient: [0.0; 2],
            shape: [0.0; 3],
        }
    }
}

/// Ten of 230 products of a category have nearly all sales; all others are alike.
fn weight(product: usize, period: usize) -> f64 {
    let level = if product % 23 == 5 { 400.0 } else { 0.5 };
    level * (1.0 + 0.3 * (period as f64).sin())
}

#[test]
fn a_sample_with_the_products_of_most_units_stands_for_all() {
    const PERIODS: usize = 9;
    let (products, categories) = (460, 2);
    let mut part = PanelPart::new(categories, PERIODS);
    for i in 0..products {
        let heavy = i % 23 == 5;
        let prices: Vec<f64> = (0..PERIODS)
            .map(|t| 2.0 + (t as f64 * if heavy { 1.7 } else { 0.9 }).cos())
            .collect();
        let units = [if heavy { 400 } else { 1 }; PERIODS];
        part.push_product(i % categories, None, &prices, &units).unwrap();
    }
    let labels = [("p", products), ("c", categories), ("t", PERIODS)];
    let [p, c, t] = labels.map(|(name, count)| Labels::numbered(name, count));
    let panel = Arc::new(Panel::from_parts(p, c, t, vec![part]).unwrap());
    let partition = Arc::new(Partition::new(&panel, Likelihood::Poisson));
    let priors = Priors::default();
    let all = Assembled::new(&partition, &BlockPriors::from(&priors), &Weighing(weight), 2).unwrap();
    assert!(partition.sample(300).is_none(), "more than half");
    let sample = Arc::new(partition.sample(40).unwrap());
    let some = Assembled::new(&sample, &BlockPriors::from(&priors), &Weighing(weight), 2).unwrap();
    let layout = panel.layout();
    let mut gradient: Vec<f64> = (0..layout.latents()).map(|j| (j as f64).cos()).collect();
    let mut expected = gradient.clone();
    let slope = some.factor.solve_above_products(&mut gradient);
    let expected_slope = all.factor.solve_above_products(&mut expected);
    assert!(
        (slope / expected_slope - 1.0).abs() < 1e-9,
        "{slope} {expected_slope}"
    );
    for site in [Site::GlobalA, Site::CategoryA, Site::TimeCatEffects] {
        let range = layout.range(site);
        assert!(off(&gradient[range.clone()], &expected[range]) < 1e-9, "{site:?}");
    }
}
