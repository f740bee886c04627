use super::*;
use crate::log_joint::LogJoint;
use crate::{Labels, PanelPart};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// A panel with gaps, a product without sales, and a category without any.
fn panel(seed: u64, periods: usize) -> Panel {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut part = PanelPart::new(3, periods);
    for product in 0..7u32 {
        let here: Vec<u32> = (0..periods as u32)
            .filter(|t| *t == 0 || rng.random_range(0.0..1.0) < 0.8)
            .collect();
        let prices: Vec<f64> = here.iter().map(|_| rng.random_range(50.0..90.0)).collect();
        let most = [9, 40, 0, 2000, 5, 0, 300][product as usize];
        let units: Vec<u32> = here.iter().map(|_| rng.random_range(0..=most)).collect();
        let category = [0, 1, 0, 1, 0, 2, 1][product as usize];
        let all = here.len() == periods;
        part.push_product(category, (!all).then_some(&here[..]), &prices, &units)
            .unwrap();
    }
    Panel::from_parts(
        Labels::numbered("p", 7),
        Labels::numbered("c", 3),
        Labels::numbered("t", periods),
        vec![part],
    )
    .unwrap()
}

const CASES: [(usize, Likelihood); 4] = [
    (1, Likelihood::Poisson),
    (2, Likelihood::NegativeBinomial),
    (9, Likelihood::Poisson),
    (30, Likelihood::NegativeBinomial),
];

fn point(length: usize) -> Vec<f64> {
    (0..length).map(|i| (i as f64 * 0.7).sin()).collect()
}

/// `d natural_j / d z_k`, column by column, of a linear map.
fn columns(orthogonal: &Orthogonal, latents: usize) -> Vec<Vec<f64>> {
    (0..latents)
        .map(|k| {
            let mut unit = vec![0.0; latents];
            unit[k] = 1.0;
            orthogonal.to_natural(&unit)
        })
        .collect()
}

#[test]
fn the_map_and_its_inverse_and_what_is_left_of_the_log_rate() {
    for (periods, likelihood) in CASES {
        let panel = panel(1, periods);
        let orthogonal = Orthogonal::new(&panel, likelihood, &Priors::default());
        let layout = panel.layout_for(likelihood);
        let z = point(layout.latents());
        let natural = orthogonal.to_natural(&z);
        for (back, z) in orthogonal.from_natural(&natural).iter().zip(&z) {
            assert!((back - z).abs() < 1e-12);
        }
        let mut contrasts = vec![0.0; periods];
        for (i, c) in panel.category_of().iter().enumerate() {
            let c = *c as usize;
            let range = layout.time_range(c);
            let level = z[range.end - 1];
            orthogonal
                .zero_sum
                .contrasts(&z[range.start..range.end - 1], &mut contrasts);
            assert!(contrasts.iter().sum::<f64>().abs() < 1e-12);
            let w = orthogonal.weighted_mean(c, &contrasts);
            let (a, e) = (
                layout.start(Site::ProductA) + i,
                layout.start(Site::ProductEffect) + i,
            );
            for row in panel.product_rows(i) {
                let tau = natural[range.start + row.period];
                assert!((tau - level - contrasts[row.period]).abs() < 1e-12);
                let published = natural[a] * row.log_price + tau + natural[e];
                let here = z[a] * (row.log_price - orthogonal.origin[i]) + z[e] + contrasts[row.period] - w;
                assert!((published - here).abs() < 1e-12, "{published} {here}");
            }
        }
    }
}

#[test]
fn contrasts_are_an_isometry() {
    for periods in [1, 2, 5, 156] {
        let zero_sum = ZeroSum::new(periods);
        let free = point(periods - 1);
        let mut contrasts = vec![0.0; periods];
        zero_sum.contrasts(&free, &mut contrasts);
        let square = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>();
        assert!((square(&free) - square(&contrasts)).abs() < 1e-12);
        let mut back = vec![0.0; periods - 1];
        zero_sum.transposed(&contrasts, &mut back);
        assert!(back.iter().zip(&free).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}

/// The documented densities of the coordinates against the natural log joint: normal contrasts, levels and
/// effects, and the constant.
#[test]
fn the_density_is_the_natural_one_and_a_constant() {
    for (periods, likelihood) in CASES {
        let panel = panel(2, periods);
        let orthogonal = Orthogonal::new(&panel, likelihood, &Priors::default());
        let layout = panel.layout_for(likelihood);
        let priors = Priors {
            time_cat_effects_mean: 0.4,
            time_cat_effects_sd: 1.7,
            product_effect_mean: -0.2,
            ..Priors::default()
        };
        let z = point(layout.latents());
        let natural = orthogonal.to_natural(&z);
        let ln_normal = |x: f64, mean: f64, sd: f64| {
            -0.5 * ((x - mean) / sd).powi(2) - sd.ln() - crate::log_joint::LN_SQRT_2PI
        };
        let sd = priors.time_cat_effects_sd;
        let (mut of_effects, mut of_coordinates) = (0.0, 0.0);
        for c in 0..layout.categories {
            let range = layout.time_range(c);
            let (level, free) = z[range.clone()].split_last().unwrap();
            of_coordinates += free.iter().map(|y| ln_normal(*y, 0.0, sd)).sum::<f64>()
                + ln_normal(*level, 0.4, sd / (periods as f64).sqrt());
            of_effects += natural[range].iter().map(|t| ln_normal(*t, 0.4, sd)).sum::<f64>();
        }
        assert!((of_effects + orthogonal.ln_jacobian() - of_coordinates).abs() < 1e-10);
    }
}

#[test]
fn gradients_and_variances_are_those_of_the_linear_map() {
    for (periods, likelihood) in CASES {
        let panel = panel(3, periods);
        let orthogonal = Orthogonal::new(&panel, likelihood, &Priors::default());
        let layout = panel.layout_for(likelihood);
        let latents = layout.latents();
        let columns = columns(&orthogonal, latents);
        let log_joint = LogJoint::new(&panel, Priors::default()).with_likelihood(likelihood);
        let mut z = point(latents);
        z.iter_mut().for_each(|z| *z *= 0.1);
        let (_, by_natural) = log_joint.natural(&orthogonal.to_natural(&z));
        let by_z = orthogonal.gradient(by_natural.clone());
        let own: Vec<f64> = (0..latents).map(|k| 1.0 + (k as f64).cos()).collect();
        let variances = orthogonal.natural_variances(&own);
        for k in 0..latents {
            let expected: f64 = columns[k].iter().zip(&by_natural).map(|(j, g)| j * g).sum();
            assert!((by_z[k] - expected).abs() < 1e-9 * (1.0 + expected.abs()), "{k}");
            let expected: f64 = (0..latents).map(|j| columns[j][k].powi(2) * own[j]).sum();
            assert!((variances[k] - expected).abs() < 1e-9 * expected, "{k}");
        }
    }
}

/// Variances of log rates, and the diagonal of the precision, against the map written out.
#[test]
fn rates_and_precisions_are_those_of_the_linear_map() {
    for periods in [1, 2, 9] {
        let panel = panel(7, periods);
        let priors = Priors::default();
        let orthogonal = Orthogonal::new(&panel, Likelihood::Poisson, &priors);
        let layout = panel.layout();
        let latents = layout.latents();
        let columns = columns(&orthogonal, latents);
        let own: Vec<f64> = (0..latents).map(|k| 1.0 + (k as f64).cos()).collect();
        let parts = orthogonal.rate_variances(&own);
        // The precision of natural parameters: rows of weight 1 + units, effects' and periods' priors; that of the elasticities stays.
        let (mut q, mut coupled) = (vec![0.0; latents], vec![0.0; layout.products]);
        let mut expected = vec![0.0; latents];
        for site in [Site::ProductEffect, Site::TimeCatEffects] {
            for j in layout.range(site) {
                let precision = priors.sd(site).powi(-2);
                q[j] += precision;
                for (k, expected) in expected.iter_mut().enumerate() {
                    *expected += precision * columns[k][j].powi(2);
                }
            }
        }
        for (i, c) in panel.category_of().iter().enumerate() {
            let (a, e) = (
                layout.start(Site::ProductA) + i,
                layout.start(Site::ProductEffect) + i,
            );
            for row in panel.product_rows(i) {
                let (x, t) = (row.log_price, layout.time_index(*c as usize, row.period));
                let along = |k: usize| columns[k][a] * x + columns[k][e] + columns[k][t];
                let variance: f64 = (0..latents).map(|k| along(k).powi(2) * own[k]).sum();
                let found = (x - orthogonal.origin[i]).powi(2) * parts[a] + parts[e] + parts[t];
                assert!((found - variance).abs() < 1e-9 * variance, "{found} {variance}");
                let weight = 1.0 + f64::from(row.units);
                q[a] += weight * x * x;
                q[e] += weight;
                q[t] += weight;
                coupled[i] += weight * x;
                for (k, expected) in expected.iter_mut().enumerate() {
                    *expected += weight * along(k).powi(2);
                }
            }
        }
        let found = orthogonal.precision_diagonal(&q, &coupled, &priors);
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() < 1e-9 * expected.max(1.0),
                "{found} {expected}"
            );
        }
    }
}

/// Where rates are the units, the precision has nothing between a product's elasticity and its level, priors and all, nor between the sum of a
/// category's levels and its contrasts.
#[test]
fn units_as_weights_take_the_covariances_away() {
    let panel = panel(4, 30);
    let priors = Priors::default();
    let orthogonal = Orthogonal::new(&panel, Likelihood::Poisson, &priors);
    let layout = panel.layout();
    let latents = layout.latents();
    let columns = columns(&orthogonal, latents);
    // Curvature along two coordinates: of the rows with rates that are the units, and of the effects' prior.
    let curvature = |j: usize, k: usize| {
        let mut total = 0.0;
        for (i, c) in panel.category_of().iter().enumerate() {
            let (a, e) = (
                layout.start(Site::ProductA) + i,
                layout.start(Site::ProductEffect) + i,
            );
            for row in panel.product_rows(i) {
                let t = layout.time_index(*c as usize, row.period);
                let along = |column: &[f64]| column[a] * row.log_price + column[e] + column[t];
                total += f64::from(row.units) * along(&columns[j]) * along(&columns[k]);
            }
            total += columns[j][e] * columns[k][e] / priors.product_effect_sd.powi(2);
        }
        total
    };
    for i in 0..layout.products {
        let (a, e) = (
            layout.start(Site::ProductA) + i,
            layout.start(Site::ProductEffect) + i,
        );
        let scale = (curvature(a, a) * curvature(e, e)).sqrt();
        assert!(
            curvature(a, e).abs() <= 1e-9 * scale,
            "{i}: {}",
            curvature(a, e) / scale
        );
    }
    // Without a sale the effect stands for itself.
    assert_eq!(orthogonal.origin[2], 0.0);
    for c in 0..layout.categories {
        assert!((orthogonal.shares_of(c).iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let mut contrasts = vec![0.0; layout.periods];
        for t in 0..layout.periods - 1 {
            let mut free = vec![0.0; layout.periods - 1];
            free[t] = 1.0;
            orthogonal.zero_sum.contrasts(&free, &mut contrasts);
            let w = orthogonal.weighted_mean(c, &contrasts);
            let sold = &panel.sums().category_period[c * layout.periods..];
            let moment: f64 = contrasts.iter().zip(sold).map(|(s, y)| (s - w) * *y as f64).sum();
            assert!(moment.abs() < 1e-9 * (1.0 + sold[t] as f64), "{c} {t}: {moment}");
        }
    }
    assert!(orthogonal.shares_of(2).iter().all(|share| *share == 1.0 / 30.0));
}

#[test]
fn starts_are_finite_and_near_what_made_the_sales() {
    for (periods, likelihood) in CASES {
        let panel = panel(5, periods);
        let orthogonal = Orthogonal::new(&panel, likelihood, &Priors::default());
        let guide = orthogonal.start(&panel, &Priors::default(), 2);
        assert!(
            guide
                .loc
                .iter()
                .chain(&guide.unconstrained_scale)
                .all(|x| x.is_finite())
        );
        assert_eq!(guide, orthogonal.start(&panel, &Priors::default(), 1));
    }
    // Products of elasticity -1.5 and of -2.5, whose sales rise over the periods.
    let (periods, seed) = (40, 6);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut part = PanelPart::new(1, periods);
    let slopes = [-1.5, -2.5].repeat(10);
    for slope in &slopes {
        let prices: Vec<f64> = (0..periods).map(|_| rng.random_range(50.0f64..90.0)).collect();
        let units: Vec<u32> = prices
            .iter()
            .enumerate()
            .map(|(t, p)| (6.0 + slope * (p / 70.0).ln() + 0.02 * t as f64).exp() as u32)
            .collect();
        part.push_product(0, None, &prices, &units).unwrap();
    }
    let labels = |kind: &'static str, n| Labels::numbered(kind, n);
    let panel = Panel::from_parts(labels("p", 20), labels("c", 1), labels("t", periods), vec![part]).unwrap();
    let orthogonal = Orthogonal::new(&panel, Likelihood::Poisson, &Priors::default());
    let guide = orthogonal.start(&panel, &Priors::default(), 1);
    let natural = orthogonal.to_natural(&guide.loc);
    let a = panel.layout().start(Site::ProductA);
    let layout = panel.layout();
    let (mut of_slopes, mut of_rates) = (0.0f64, 0.0f64);
    for (i, slope) in slopes.iter().enumerate() {
        of_slopes = of_slopes.max((natural[a + i] - slope).abs());
        let e = natural[layout.start(Site::ProductEffect) + i];
        for row in panel.product_rows(i) {
            let eta = natural[a + i] * row.log_price + e + natural[layout.time_index(0, row.period)];
            of_rates = of_rates.max((eta - f64::from(row.units).ln()).abs());
        }
    }
    // A product's own price is in its category's sales of the period: one of twenty in a category, it loses about a tenth of its slope to the
    // period effects. Measured 0.279, a ninth of the steeper slope, and 0.2005 for the log rates, with it at the widest price.
    assert!(of_slopes < 0.3 && of_rates < 0.22, "{of_slopes} {of_rates}");
    // Standard deviations as if each latent were alone.
    let own = |j: usize| crate::guide::softplus(guide.unconstrained_scale[j]);
    let sold = panel.sums().product[0] as f64;
    let expected = (sold + Priors::default().product_effect_sd.powi(-2))
        .sqrt()
        .recip();
    assert!((own(layout.start(Site::ProductEffect)) / expected - 1.0).abs() < 1e-9);
}
