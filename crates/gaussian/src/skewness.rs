//! Marginals of the products corrected for their skewness, where counts are small.
//!
//! Along the conditional mean of its border, `b(delta) = C delta + beta`, the log density of a product's pair
//! `delta = (elasticity, effect)` from the mode is the Gaussian's, but for the product's own rows, which enter with what their log
//! likelihood has beyond its second-order expansion; the border is integrated by its conditional Gaussian:
//!
//! ```text
//! ln p(delta) = -delta' Cov^-1 delta / 2 - sum_t lambda_t (exp(d_t + v_t / 2) - 1 - d_t - d_t^2 / 2),
//! d_t = delta_a x_t + delta_e + C_t delta + beta_t,   v_t = var(tau_t | delta)
//! ```
//!
//! `beta` is by how much the other products' skewness moves the border: with the shift of all means to first order,
//! `Q^-1 sum of rows of (y - lambda exp(v / 2))`. Moments of the pair are taken by a Gauss-Hermite rule in two dimensions,
//! quantiles from the first four by Cornish and Fisher's expansion.
//!
//! Sources: Rue, Martino and Chopin, 2009, section 3.2 (the simplified Laplace approximation is the same expansion to
//! third order); Cornish and Fisher, "Moments and cumulants in the specification of distributions", 1938.

use crate::counts::Counts;
use crate::newton::{Mode, ModeError};
use crate::poisson::Spread;
use infermark_arrow::{ArrowFactor, ProductMoments};
use infermark_backend::Posterior;
use infermark_cpu_kernels::{ForSimd, InstructionSet, Kernel, Simd};
use infermark_model::site::Site;
use std::f64::consts::LOG2_E;

/// Third-order part of the log density, at one standard deviation, below which a product's marginals are taken as normal.
const NEGLIGIBLE: f64 = 0.05;

/// Nodes of the Gauss-Hermite rule for the standard normal density, the positive half, and their weights.
const NODES: [(f64, f64); 5] = [
    (0.0, 0.40634920634920635),
    (1.0232556637891326, 0.24409750289493953),
    (2.07684797867783, 0.04991640676521782),
    (3.20542900285647, 0.0027891413212317692),
    (4.512745863399783, 2.2345844007746607e-05),
];

/// The largest skewness that the expansion of quantiles is used with: beyond it quantiles would cross.
const MOST_SKEWNESS: f64 = 0.9;

/// Mean, variance, skewness and excess kurtosis.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shape {
    mean: f64,
    variance: f64,
    skewness: f64,
    kurtosis: f64,
}

impl Shape {
    /// The quantile whose standard normal one is `z`.
    fn quantile(&self, z: f64) -> f64 {
        let g = self.skewness.clamp(-MOST_SKEWNESS, MOST_SKEWNESS);
        let k = self.kurtosis.clamp(-1.0, 1.5);
        let w = z + g * (z * z - 1.0) / 6.0 + k * z * (z * z - 3.0) / 24.0
            - g * g * z * (2.0 * z * z - 5.0) / 36.0;
        self.mean + w * self.variance.sqrt()
    }
}

/// The corrected posterior. Also returns how many products' marginals are not normal.
///
/// # Errors
/// When the precision at the mode cannot be factored again.
pub(crate) fn corrected(counts: &Counts, mode: Mode) -> Result<(Posterior, usize), ModeError> {
    let Mode { point, factor, .. } = mode;
    let layout = counts.layout();
    let threads = factor.threads();
    let raised = counts.evaluate(&point, Spread::STRUCTURED, Some(factor), threads)?;
    let mut shift = raised.found.gradient;
    let at_mode = counts.evaluate(&point, Spread::Point, Some(raised.found.factor), threads)?;
    let factor = at_mode.found.factor;
    factor.solve(&mut shift);

    let products = of_products(counts, &point, &shift, &factor);
    let mut variance = factor.variances_above_products();
    let places = |i: usize| [Site::ProductA, Site::ProductEffect].map(|site| layout.start(site) + i);
    for (i, product) in products.iter().enumerate() {
        let [a, e] = places(i);
        [variance[a], variance[e]] = product.variances;
    }
    let mean: Vec<f64> = point.iter().zip(&shift).map(|(p, s)| p + s).collect();
    let sd = variance.iter().map(|v| v.sqrt()).collect();
    let mut posterior = Posterior::normal(layout, mean, sd);
    let mut skewed = 0;
    for (i, product) in products.into_iter().enumerate() {
        let Some(shapes) = product.shapes else { continue };
        skewed += 1;
        let places = places(i);
        for (j, shape) in places.into_iter().zip(shapes) {
            posterior.mean[j] = shape.mean;
            posterior.sd[j] = shape.variance.sqrt();
            let (q95, q975) = (
                infermark_backend::posterior::NORMAL_Q95,
                infermark_backend::posterior::NORMAL_Q975,
            );
            posterior.q025[j] = shape.quantile(-q975);
            posterior.q05[j] = shape.quantile(-q95);
            posterior.q95[j] = shape.quantile(q95);
            posterior.q975[j] = shape.quantile(q975);
        }
    }
    Ok((posterior, skewed))
}

/// What a product's rows have to do with the pair: one entry a row.
struct Rows {
    /// The rate at the mode times `exp(v / 2)`, and the rate itself.
    raised: Vec<f64>,
    rate: Vec<f64>,
    /// `d` by the two whitened coordinates of the pair, and at their zero.
    by_first: Vec<f64>,
    by_second: Vec<f64>,
    at_zero: Vec<f64>,
}

/// Marginals of (elasticity, effect) of a product.
struct ProductMarginals {
    /// At the mode.
    variances: [f64; 2],
    /// Where they are not about normal.
    shapes: Option<[Shape; 2]>,
}

fn of_products(counts: &Counts, point: &[f64], shift: &[f64], factor: &ArrowFactor) -> Vec<ProductMarginals> {
    factor.for_each_product(|i, moments| ProductMarginals {
        variances: [moments.elasticity, moments.effect],
        shapes: shapes(counts, point, shift, i, moments),
    })
}

fn shapes(
    counts: &Counts,
    point: &[f64],
    shift: &[f64],
    i: usize,
    moments: ProductMoments<'_>,
) -> Option<[Shape; 2]> {
    if counts.leaves_out(i) {
        return None;
    }
    let panel = &**counts.panel();
    let layout = panel.layout();
    let (a, e) = (layout.start(Site::ProductA), layout.start(Site::ProductEffect));
    let category = panel.category_of()[i] as usize;
    let time = layout.time_index(category, 0);
    // Cov = F F', F lower.
    let faa = moments.elasticity.sqrt();
    let fea = moments.covariance / faa;
    let fee = (moments.effect - fea * fea).sqrt();
    let rows = panel.row_range(i).len().next_multiple_of(16);
    let inside = panel.product_rows(i);
    let column = || Vec::with_capacity(rows);
    let mut own = Rows {
        raised: column(),
        rate: column(),
        by_first: column(),
        by_second: column(),
        at_zero: column(),
    };
    let mut third = 0.0;
    for row in inside {
        let t = row.period;
        let eta = point[a + i] * row.log_price + point[e + i] + point[time + t];
        let rate = eta.exp();
        // c Cov^-1 F = c F^-T.
        let (ca, ce) = (moments.elasticity_with_periods[t], moments.effect_with_periods[t]);
        let first = ca / faa;
        let second = (ce - fea * first) / fee;
        let variance = (moments.periods[t] - first * first - second * second).max(0.0);
        let (p, q) = (row.log_price * faa + fea + first, fee + second);
        third += rate * (p.abs().powi(3) + q.abs().powi(3));
        // The border's shift, less what follows the pair's own.
        let (ua, ue) = (
            shift[a + i] / faa,
            (shift[e + i] - fea * shift[a + i] / faa) / fee,
        );
        own.raised.push(rate * (0.5 * variance).exp());
        own.rate.push(rate);
        own.by_first.push(p);
        own.by_second.push(q);
        own.at_zero.push(shift[time + t] - first * ua - second * ue);
    }
    if third < NEGLIGIBLE {
        return None;
    }
    for column in [
        &mut own.raised,
        &mut own.rate,
        &mut own.by_first,
        &mut own.by_second,
        &mut own.at_zero,
    ] {
        column.resize(rows, 0.0);
    }
    let [mean, second, third, fourth] =
        InstructionSet::best().run_f64(Quadrature(&own, [[faa, 0.0], [fea, fee]]));
    let shape = |k: usize, mode: f64| {
        let variance = second[k] - mean[k] * mean[k];
        let m3 = third[k] - 3.0 * mean[k] * second[k] + 2.0 * mean[k].powi(3);
        let m4 =
            fourth[k] - 4.0 * mean[k] * third[k] + 6.0 * mean[k].powi(2) * second[k] - 3.0 * mean[k].powi(4);
        Shape {
            mean: mode + mean[k],
            variance,
            skewness: m3 / variance.powf(1.5),
            kurtosis: m4 / (variance * variance) - 3.0,
        }
    };
    let shapes = [shape(0, point[a + i]), shape(1, point[e + i])];
    shapes
        .iter()
        .all(|s| s.mean.is_finite() && s.variance > 0.0)
        .then_some(shapes)
}

/// The first four moments of the pair about the mode.
struct Quadrature<'a>(&'a Rows, [[f64; 2]; 2]);

impl ForSimd for Quadrature<'_> {
    type Output = [[f64; 2]; 4];

    fn run<I: Simd>(self, isa: I) -> Self::Output {
        let rows = self.0;
        let nodes: Vec<(f64, f64)> = NODES
            .iter()
            .skip(1)
            .rev()
            .map(|(x, w)| (-x, *w))
            .chain(NODES)
            .collect();
        let isa = isa.wide();
        let mut logs = Vec::with_capacity(nodes.len() * nodes.len());
        for (u, wu) in &nodes {
            for (s, ws) in &nodes {
                logs.push((wu * ws).ln() + isa.vectorize(Beyond { rows, at: [*u, *s] }));
            }
        }
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut total = 0.0;
        let mut moments = [[0.0; 2]; 4];
        let [[faa, _], [fea, fee]] = self.1;
        for (k, ln) in logs.iter().enumerate() {
            let (u, s) = (nodes[k / nodes.len()].0, nodes[k % nodes.len()].0);
            let weight = (ln - most).exp();
            total += weight;
            for (k, x) in [faa * u, fea * u + fee * s].into_iter().enumerate() {
                let mut power = weight;
                for moment in &mut moments {
                    power *= x;
                    moment[k] += power;
                }
            }
        }
        moments.map(|of| of.map(|m| m / total))
    }
}

/// The rows' log likelihood beyond its second-order expansion.
struct Beyond<'a> {
    rows: &'a Rows,
    at: [f64; 2],
}

impl<I: Simd<Scalar = f64>> Kernel<I> for Beyond<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self, isa: I) -> f64 {
        let rows = self.rows;
        let (u, s) = (isa.splat(self.at[0]), isa.splat(self.at[1]));
        let (half, one, log2_e) = (isa.splat(0.5), isa.splat(1.0), isa.splat(LOG2_E));
        let (least, most) = (isa.splat(-1000.0), isa.splat(1000.0));
        let mut sum = isa.zero();
        for t in (0..rows.rate.len()).step_by(I::LANES) {
            let first = isa.mul_add(isa.load(&rows.by_first[t..]), u, isa.load(&rows.at_zero[t..]));
            let d = isa.mul_add(isa.load(&rows.by_second[t..]), s, first);
            let exponent = isa.min(isa.max(isa.mul(d, log2_e), least), most);
            let expansion = isa.mul_add(d, isa.mul_add(half, d, one), one);
            let quadratic = isa.mul(isa.load(&rows.rate[t..]), expansion);
            let exact = isa.mul(isa.load(&rows.raised[t..]), isa.exp2(exponent));
            sum = isa.add(sum, isa.sub(quadratic, exact));
        }
        isa.sum(sum)
    }
}
