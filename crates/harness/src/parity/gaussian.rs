//! The reference for the passes of the Gaussian methods: plain loops over the rows, dense algebra for each border.
//!
//! Everything that a pass hands to a run is made again from the definitions: means over the rows from their closed form, or by the
//! trapezoid rule where there is none; `ln det Q` and covariances by eliminating products, borders and the top one after the other;
//! a step is held against `Q step = gradient`. Nothing here is shared with the methods.
//!
//! What the methods define for themselves is defined here again: which products they leave out, what stands for one of those, by
//! how much a weight changes in a step, and the least precision of a log shape.

use infermark_backend::{BackendError, GaussianPass, GaussianPoint};
use infermark_model::ln_factorial::ln_factorial;
use infermark_model::log_joint::LN_SQRT_2PI;
use infermark_model::negative_binomial::{CountTerm, Shape};
use infermark_model::panel::Row;
use infermark_model::priors::Priors;
use infermark_model::site::{Layout, Site};
use infermark_model::{Likelihood, Panel};

/// The factor by which the variational methods let a weight change in a step, at most: a pass keeps to it, and so does the
/// reference for the step.
const MOST_CHANGE: f64 = 8.0;

/// Standard deviations below the rate at the upper clip bound from which a Poisson count is at the bound: its product is left out.
const AT_BOUND: f64 = 8.0;

/// Scale of the logistic step that stands for the censored highest count of such a product, in standard deviations of the effect.
const SCALE_OF_STEP: f64 = 0.3;

/// Parts of what the counts are expected to tell of a log shape, and of its curvature that other parameters take, that are left of its
/// precision at least.
const LEAST_OF_TOLD: f64 = 0.25;
const LEAST_OF_TAKEN: f64 = 0.5;

/// Nodes of the Gauss-Hermite rule that the step's mean is defined by.
const NODES: usize = 9;

/// Which Gaussian a pass is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// None: the log joint at a point.
    Point,
    /// The one with the arrow's precision.
    Structured,
    /// The one with independent latents.
    MeanField,
}

/// Priors whose clip holds no log rate: what the Gaussian methods evaluate.
pub(super) fn without_clip(priors: &Priors) -> Priors {
    Priors {
        clip_low: f64::NEG_INFINITY,
        clip_high: f64::INFINITY,
        ..*priors
    }
}

/// The least Poisson count at the upper clip bound.
fn least_at_bound(priors: &Priors) -> f64 {
    let rate = priors.clip_high.exp();
    rate - AT_BOUND * rate.sqrt()
}

/// Nodes and weights of the Gauss-Hermite rule for the standard normal density: the roots of Hermite's polynomial `He_n`, found between
/// those of the one before, and `n! / (n He_(n-1))^2` there.
fn gauss_hermite(n: usize) -> Vec<(f64, f64)> {
    // He_n and He_(n-1).
    let at = |n: usize, x: f64| (1..n).fold((x, 1.0), |(own, before), k| (x * own - k as f64 * before, own));
    let mut roots = vec![0.0];
    for order in 2..=n {
        let most = 2.0 * (order as f64).sqrt();
        let mut ends = vec![-most];
        ends.append(&mut roots);
        ends.push(most);
        for ends in ends.windows(2) {
            let (mut low, mut high) = (ends[0], ends[1]);
            for _ in 0..100 {
                let middle = 0.5 * (low + high);
                match (at(order, middle).0 > 0.0) == (at(order, high).0 > 0.0) {
                    true => high = middle,
                    false => low = middle,
                }
            }
            roots.push(0.5 * (low + high));
        }
    }
    let factorial: f64 = (1..=n).map(|k| k as f64).product();
    let weight = |x: f64| factorial / (n as f64 * at(n, x).1).powi(2);
    roots.into_iter().map(|x| (x, weight(x))).collect()
}

/// A row's part in a precision: minus second derivatives by the log rate, and by it and the log shape.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    by_eta: f64,
    cross: f64,
}

/// The mean of a row's log likelihood, without `ln y!`, over a normal log rate, and of its derivatives.
#[derive(Debug, Clone, Copy, Default)]
struct ExpectedRow {
    value: f64,
    by_eta: f64,
    weight: Weight,
    by_log_shape: f64,
    /// Minus the second derivative by the log shape.
    curvature: f64,
    /// What a count is expected to tell of the log shape: half the squared derivative of its log variance.
    told: f64,
}

impl ExpectedRow {
    fn poisson(units: f64, mean: f64, variance: f64) -> Self {
        let rate = (mean + 0.5 * variance).exp();
        ExpectedRow {
            value: units * mean - rate,
            by_eta: units - rate,
            weight: Weight {
                by_eta: rate,
                cross: 0.0,
            },
            ..ExpectedRow::default()
        }
    }

    /// A count that is known to be at the bound and no more, `ln s((eta - h) / scale)` with the logistic function s.
    fn at_bound(log_least: f64, scale: f64, mean: f64, variance: f64) -> Self {
        let mut sum = ExpectedRow::default();
        for (node, weight) in gauss_hermite(NODES) {
            let z = (mean + node * variance.sqrt() - log_least) / scale;
            let above = 1.0 / (1.0 + (-z).exp());
            // Of two forms the one that does not overflow.
            sum.value += weight
                * if z > 0.0 {
                    -(-z).exp().ln_1p()
                } else {
                    z - z.exp().ln_1p()
                };
            sum.by_eta += weight / (1.0 + z.exp()) / scale;
            sum.weight.by_eta += weight * above / (1.0 + z.exp()) / (scale * scale);
        }
        sum
    }

    fn negative_binomial(units: u32, mean: f64, variance: f64, log_shape: f64) -> Self {
        let at = |eta: f64| {
            let shape = Shape::new(log_shape);
            let term = CountTerm::new(units, eta, &shape);
            let (y, w) = (f64::from(units), (eta - log_shape).exp());
            let mu = eta.exp();
            let step = 1e-5;
            let slope = |s: f64| CountTerm::new(units, eta, &Shape::new(log_shape + s)).by_log_shape;
            ExpectedRow {
                value: term.log_likelihood,
                by_eta: term.by_eta,
                weight: Weight {
                    by_eta: (mu + y * w) / (1.0 + w).powi(2),
                    cross: -(y - mu) * w / (1.0 + w).powi(2),
                },
                by_log_shape: term.by_log_shape,
                curvature: -(slope(step) - slope(-step)) / (2.0 * step),
                told: 0.5 * (w / (1.0 + w)).powi(2),
            }
        };
        if variance == 0.0 {
            return at(mean);
        }
        // The trapezoid rule over nine standard deviations either way: for a function that is analytic within pi of the real
        // line its error is far below rounding.
        let (step, steps) = (0.25, 36);
        let mut sum = ExpectedRow::default();
        for k in -steps..=steps {
            let z = step * f64::from(k);
            let weight = step * (-0.5 * z * z - LN_SQRT_2PI).exp();
            let row = at(mean + z * variance.sqrt());
            sum.value += weight * row.value;
            sum.by_eta += weight * row.by_eta;
            sum.weight.by_eta += weight * row.weight.by_eta;
            sum.weight.cross += weight * row.weight.cross;
            sum.by_log_shape += weight * row.by_log_shape;
            sum.curvature += weight * row.curvature;
            sum.told += weight * row.told;
        }
        sum
    }
}

/// A precision: the rows' weights in the panel's order, and the log shapes' own curvature by category.
#[derive(Debug, Clone)]
struct Precision {
    rows: Vec<Weight>,
    curvature: Vec<f64>,
    /// What the counts are expected to tell of the log shapes.
    told: Vec<f64>,
    /// What is added to the log shapes' curvature where the least one stands in for it.
    added: Vec<f64>,
}

/// What a Gaussian of a precision has.
struct Moments {
    ln_det: f64,
    /// See [`Precision::added`].
    added: Vec<f64>,
    /// Of the latents.
    variance: Vec<f64>,
    /// Of the rows' log rates.
    row_variance: Vec<f64>,
    /// Covariance of each product's elasticity with its category's, and of each category's with the global one.
    with_category: Vec<f64>,
    with_global: Vec<f64>,
}

pub(super) struct Reference<'a> {
    panel: &'a Panel,
    priors: Priors,
    layout: Layout,
    /// Of each product that is left out, the row that is at the bound.
    at_bound: Vec<Option<usize>>,
    /// The log of the least count at the bound.
    log_least: f64,
}

impl<'a> Reference<'a> {
    pub(super) fn new(panel: &'a Panel, priors: &Priors, likelihood: Likelihood) -> Self {
        Reference {
            panel,
            priors: *priors,
            layout: panel.layout_for(likelihood),
            at_bound: (0..panel.layout().products)
                .map(|product| {
                    let highest = panel.row_range(product).max_by_key(|row| panel.units()[*row])?;
                    let is_at = likelihood == Likelihood::Poisson
                        && f64::from(panel.units()[highest]) >= least_at_bound(priors);
                    is_at.then_some(highest)
                })
                .collect(),
            log_least: least_at_bound(priors).ln(),
        }
    }

    /// How many products are left out.
    pub(super) fn left_out(&self) -> usize {
        self.at_bound.iter().flatten().count()
    }

    /// The log joint without the clip, and its gradient.
    pub(super) fn log_joint(&self, point: &[f64]) -> (f64, Vec<f64>) {
        self.value(point, &self.expected(point, None))
    }

    /// The mean log joint of expected rows, without the priors' mean, and its gradient.
    fn value(&self, point: &[f64], rows: &[ExpectedRow]) -> (f64, Vec<f64>) {
        let (mut value, mut gradient) = self.prior(point);
        let has_shape = self.layout.likelihood == Likelihood::NegativeBinomial;
        self.for_each_row(|product, index, row| {
            let (a, e, t, s) = self.places(product);
            let found = rows[index];
            value += found.value;
            if self.at_bound[product].is_none() {
                value -= ln_factorial(row.units);
            }
            gradient[a] += found.by_eta * row.log_price;
            gradient[e] += found.by_eta;
            gradient[t + row.period] += found.by_eta;
            if has_shape {
                gradient[s] += found.by_log_shape;
            }
        });
        (value, gradient)
    }

    /// Latents of a product: elasticity, effect, the first period of its category, the category's log shape.
    fn places(&self, product: usize) -> (usize, usize, usize, usize) {
        let category = self.panel.category_of()[product] as usize;
        (
            self.layout.start(Site::ProductA) + product,
            self.layout.start(Site::ProductEffect) + product,
            self.layout.time_index(category, 0),
            self.layout.start(Site::LogShape) + category,
        )
    }

    /// Calls `f(product, row's index, row)` for every row.
    fn for_each_row(&self, mut f: impl FnMut(usize, usize, Row)) {
        for product in 0..self.layout.products {
            for (index, row) in self
                .panel
                .row_range(product)
                .zip(self.panel.product_rows(product))
            {
                f(product, index, row);
            }
        }
    }

    fn expected(&self, mean: &[f64], row_variance: Option<&[f64]>) -> Vec<ExpectedRow> {
        let mut all = vec![ExpectedRow::default(); self.panel.rows()];
        self.for_each_row(|product, index, row| {
            let (a, e, t, s) = self.places(product);
            let eta = mean[a] * row.log_price + mean[e] + mean[t + row.period];
            let v = row_variance.map_or(0.0, |of| of[index]);
            all[index] = match self.layout.likelihood {
                _ if self.at_bound[product] == Some(index) => {
                    let scale = SCALE_OF_STEP * self.priors.product_effect_sd;
                    ExpectedRow::at_bound(self.log_least, scale, eta, v)
                }
                _ if self.at_bound[product].is_some() => ExpectedRow::default(),
                Likelihood::Poisson => ExpectedRow::poisson(f64::from(row.units), eta, v),
                Likelihood::NegativeBinomial => ExpectedRow::negative_binomial(row.units, eta, v, mean[s]),
            };
        });
        all
    }

    fn precision(&self, rows: &[ExpectedRow]) -> Precision {
        let mut curvature = vec![0.0; self.layout.categories];
        let mut told = curvature.clone();
        self.for_each_row(|product, index, _| {
            let category = self.panel.category_of()[product] as usize;
            curvature[category] += rows[index].curvature;
            told[category] += rows[index].told;
        });
        Precision {
            rows: rows.iter().map(|row| row.weight).collect(),
            curvature,
            told,
            added: vec![0.0; self.layout.categories],
        }
    }

    /// The part of the log joint, and of its gradient, that is the priors'.
    fn prior(&self, point: &[f64]) -> (f64, Vec<f64>) {
        let mut value = 0.0;
        let mut gradient = vec![0.0; point.len()];
        let (layout, priors) = (&self.layout, &self.priors);
        let category_a = layout.start(Site::CategoryA);
        for site in layout.sites() {
            let sd = priors.sd(*site);
            for (k, j) in layout.range(*site).enumerate() {
                let parent = match site {
                    Site::CategoryA => Some(0),
                    Site::ProductA => Some(category_a + self.panel.category_of()[k] as usize),
                    _ => None,
                };
                let mean = parent.map_or(priors.constant_mean(*site), |parent| point[parent]);
                let z = (point[j] - mean) / sd;
                value -= 0.5 * z * z + sd.ln() + LN_SQRT_2PI;
                gradient[j] -= z / sd;
                if let Some(parent) = parent {
                    gradient[parent] += z / sd;
                }
            }
        }
        (value, gradient)
    }

    /// The priors' part of the precision's diagonal.
    fn prior_diagonal(&self) -> Vec<f64> {
        let (layout, priors) = (&self.layout, &self.priors);
        let mut diagonal = vec![0.0; layout.latents()];
        for site in layout.sites() {
            diagonal[layout.range(*site)].fill(priors.sd(*site).powi(-2));
        }
        diagonal[0] += layout.categories as f64 * priors.category_a_sd.powi(-2);
        for c in self.panel.category_of() {
            diagonal[layout.start(Site::CategoryA) + *c as usize] += priors.product_a_sd.powi(-2);
        }
        diagonal
    }

    fn diagonal(&self, precision: &Precision) -> Vec<f64> {
        let mut diagonal = self.prior_diagonal();
        self.for_each_row(|product, index, row| {
            let (a, e, t, _) = self.places(product);
            let w = precision.rows[index].by_eta;
            diagonal[a] += w * row.log_price * row.log_price;
            diagonal[e] += w;
            diagonal[t + row.period] += w;
        });
        for (j, k) in self.layout.range(Site::LogShape).zip(&precision.curvature) {
            diagonal[j] += k;
        }
        diagonal
    }

    /// `Q x`.
    fn times(&self, precision: &Precision, x: &[f64]) -> Vec<f64> {
        let (layout, priors) = (&self.layout, &self.priors);
        let mut out: Vec<f64> = self.prior_diagonal().iter().zip(x).map(|(q, x)| q * x).collect();
        for c in 0..layout.categories {
            let category = layout.start(Site::CategoryA) + c;
            out[0] -= priors.category_a_sd.powi(-2) * x[category];
            out[category] -= priors.category_a_sd.powi(-2) * x[0];
        }
        for (i, c) in self.panel.category_of().iter().enumerate() {
            let (a, category) = (
                layout.start(Site::ProductA) + i,
                layout.start(Site::CategoryA) + *c as usize,
            );
            out[a] -= priors.product_a_sd.powi(-2) * x[category];
            out[category] -= priors.product_a_sd.powi(-2) * x[a];
        }
        let has_shape = layout.likelihood == Likelihood::NegativeBinomial;
        self.for_each_row(|product, index, row| {
            let (a, e, t, s) = self.places(product);
            let Weight { by_eta, cross } = precision.rows[index];
            let eta = x[a] * row.log_price + x[e] + x[t + row.period];
            let mut by_eta = by_eta * eta;
            if has_shape {
                by_eta += cross * x[s];
                out[s] += cross * eta;
            }
            out[a] += by_eta * row.log_price;
            out[e] += by_eta;
            out[t + row.period] += by_eta;
        });
        let curvatures = precision.curvature.iter().zip(&precision.added);
        for (j, (k, added)) in layout.range(Site::LogShape).zip(curvatures) {
            out[j] += (k + added) * x[j];
        }
        out
    }

    /// Determinant and covariances; `None` where the precision is not positive definite.
    fn moments(&self, precision: &Precision) -> Option<Moments> {
        let (layout, priors) = (&self.layout, &self.priors);
        let periods = layout.periods;
        let has_shape = layout.likelihood == Likelihood::NegativeBinomial;
        let (shape, last) = (periods, periods + usize::from(has_shape));
        let border = last + 1;
        let of = |sd: f64| sd.powi(-2);
        // Products, eliminated: inverses of their blocks, and what they leave of the borders.
        let mut schur: Vec<Dense> = (0..layout.categories).map(|_| Dense::new(border)).collect();
        for (c, schur) in schur.iter_mut().enumerate() {
            for t in 0..periods {
                *schur.at(t, t) = of(priors.time_cat_effects_sd);
            }
            if has_shape {
                *schur.at(shape, shape) = of(priors.log_shape_sd) + precision.curvature[c];
            }
            *schur.at(last, last) = of(priors.category_a_sd);
        }
        let mut ln_det = 0.0;
        let couplings = |product: usize| {
            let mut block = [of(priors.product_a_sd), 0.0, of(priors.product_effect_sd)];
            let mut b = vec![[0.0; 2]; border];
            b[last][0] = -of(priors.product_a_sd);
            for (index, row) in self
                .panel
                .row_range(product)
                .zip(self.panel.product_rows(product))
            {
                let (x, Weight { by_eta, cross }) = (row.log_price, precision.rows[index]);
                block[0] += by_eta * x * x;
                block[1] += by_eta * x;
                block[2] += by_eta;
                b[row.period] = [by_eta * x, by_eta];
                if has_shape {
                    b[shape][0] += cross * x;
                    b[shape][1] += cross;
                }
            }
            // Without the cancellation of the determinant: the effect's part that the elasticity leaves.
            let ratio = block[1] / block[0];
            let rest = block[2] - ratio * block[1];
            let inverse = [1.0 / block[0] + ratio * ratio / rest, -ratio / rest, 1.0 / rest];
            let w: Vec<[f64; 2]> = b
                .iter()
                .map(|[a, e]| [inverse[0] * a + inverse[1] * e, inverse[1] * a + inverse[2] * e])
                .collect();
            (block[0] * rest, inverse, b, w)
        };
        for (i, c) in self.panel.category_of().iter().enumerate() {
            let schur = &mut schur[*c as usize];
            let (determinant, _, b, w) = couplings(i);
            if determinant.is_nan() || determinant <= 0.0 {
                return None;
            }
            ln_det += determinant.ln();
            for (index, row) in self.panel.row_range(i).zip(self.panel.product_rows(i)) {
                let Weight { by_eta, cross } = precision.rows[index];
                *schur.at(row.period, row.period) += by_eta;
                if has_shape {
                    *schur.at(shape, row.period) += cross;
                    *schur.at(row.period, shape) += cross;
                }
            }
            *schur.at(last, last) += of(priors.product_a_sd);
            for (j, b) in b.iter().enumerate() {
                for (k, w) in w.iter().enumerate() {
                    *schur.at(j, k) -= b[0] * w[0] + b[1] * w[1];
                }
            }
        }
        // The log shapes, once products and periods are eliminated, have a least precision.
        let mut added = vec![0.0; layout.categories];
        if has_shape {
            for (c, schur) in schur.iter_mut().enumerate() {
                let mut of_periods = Dense::new(periods);
                for (t, s) in (0..periods).flat_map(|t| (0..periods).map(move |s| (t, s))) {
                    *of_periods.at(t, s) = schur.get(t, s);
                }
                let (inverse, _) = of_periods.inverse()?;
                let mut own = schur.get(shape, shape);
                for (t, s) in (0..periods).flat_map(|t| (0..periods).map(move |s| (t, s))) {
                    own -= schur.get(shape, t) * inverse.get(t, s) * schur.get(shape, s);
                }
                let taken = of(priors.log_shape_sd) + precision.curvature[c] - own;
                let least = of(priors.log_shape_sd) + LEAST_OF_TOLD * precision.told[c];
                added[c] = (least.max(LEAST_OF_TAKEN * taken) - own).max(0.0);
                *schur.at(shape, shape) += added[c];
            }
        }
        // Borders, then the top.
        let coupling = -of(priors.category_a_sd);
        let mut top = of(priors.global_a_sd) + layout.categories as f64 * of(priors.category_a_sd);
        let mut inverses = Vec::with_capacity(schur.len());
        for schur in schur {
            let (inverse, own) = schur.inverse()?;
            ln_det += own;
            top -= coupling * coupling * inverse.get(last, last);
            inverses.push(inverse);
        }
        if top.is_nan() || top <= 0.0 {
            return None;
        }
        ln_det += top.ln();
        let mut moments = Moments {
            ln_det,
            added,
            variance: vec![0.0; layout.latents()],
            row_variance: vec![0.0; self.panel.rows()],
            with_category: vec![0.0; layout.products],
            with_global: vec![0.0; layout.categories],
        };
        moments.variance[0] = 1.0 / top;
        for (c, inverse) in inverses.iter_mut().enumerate() {
            moments.with_global[c] = -coupling * inverse.get(last, last) / top;
            let column: Vec<f64> = (0..border).map(|j| inverse.get(j, last)).collect();
            for j in 0..border {
                for k in 0..border {
                    *inverse.at(j, k) += coupling * coupling * column[j] * column[k] / top;
                }
            }
            for t in 0..periods {
                moments.variance[layout.time_index(c, t)] = inverse.get(t, t);
            }
            if has_shape {
                moments.variance[layout.start(Site::LogShape) + c] = inverse.get(shape, shape);
            }
            moments.variance[layout.start(Site::CategoryA) + c] = inverse.get(last, last);
        }
        for (i, c) in self.panel.category_of().iter().enumerate() {
            let covariance = &inverses[*c as usize];
            let (_, inverse, _, w) = couplings(i);
            // Covariances of the pair with the border.
            let mut with_border = vec![[0.0; 2]; border];
            let mut own = inverse;
            for (j, with) in with_border.iter_mut().enumerate() {
                for (k, w) in w.iter().enumerate() {
                    let c = covariance.get(k, j);
                    with[0] -= w[0] * c;
                    with[1] -= w[1] * c;
                }
                own[0] -= with[0] * w[j][0];
                own[1] -= with[0] * w[j][1];
                own[2] -= with[1] * w[j][1];
            }
            let (a, e, t, _) = self.places(i);
            moments.variance[a] = own[0];
            moments.variance[e] = own[2];
            moments.with_category[i] = with_border[last][0];
            for (index, row) in self.panel.row_range(i).zip(self.panel.product_rows(i)) {
                let x = row.log_price;
                let with = with_border[row.period];
                moments.row_variance[index] = x * x * own[0]
                    + 2.0 * x * own[1]
                    + own[2]
                    + 2.0 * (x * with[0] + with[1])
                    + moments.variance[t + row.period];
            }
        }
        Some(moments)
    }

    /// `tr(P Sigma)`, P the priors' part of the precision.
    fn prior_trace(&self, moments: &Moments) -> f64 {
        let (layout, priors) = (&self.layout, &self.priors);
        let diagonal = self.prior_diagonal();
        let mut trace: f64 = diagonal.iter().zip(&moments.variance).map(|(p, v)| p * v).sum();
        for with in &moments.with_global {
            trace -= 2.0 * priors.category_a_sd.powi(-2) * with;
        }
        for with in &moments.with_category {
            trace -= 2.0 * priors.product_a_sd.powi(-2) * with;
        }
        debug_assert_eq!(diagonal.len(), layout.latents());
        trace
    }

    /// What a pass of `kind` at `at` has to give, with the precision that its step is solved with.
    ///
    /// # Errors
    /// When a precision is not positive definite.
    fn pass(&self, kind: Kind, at: GaussianPoint<'_>) -> Result<(GaussianPass, Precision), BackendError> {
        let indefinite = || BackendError::Diverged {
            step: 0,
            reason: "the reference's precision is not positive definite".into(),
        };
        let latents = self.layout.latents() as f64;
        let rows_before = self.expected(at.precision_at, None);
        let before = self.precision(&rows_before);
        // The Gaussian: variances of latents and rows, and what its spread adds to the value beside the rows' own.
        let (variance, row_variance, spread) = match kind {
            Kind::Point => (Vec::new(), None, 0.0),
            Kind::Structured => {
                let moments = self.moments(&before).ok_or_else(indefinite)?;
                // The log shape's part of E ln p, to second order: of tr(Q Sigma) = L it is what rows and priors leave.
                let of_rows: f64 = before
                    .rows
                    .iter()
                    .zip(&moments.row_variance)
                    .map(|(w, v)| w.by_eta * v)
                    .sum();
                let of_priors = self.prior_trace(&moments);
                let of_shapes = match self.layout.likelihood {
                    Likelihood::Poisson => 0.0,
                    Likelihood::NegativeBinomial => latents - of_rows - of_priors,
                };
                let entropy = latents * (LN_SQRT_2PI + 0.5) - 0.5 * moments.ln_det;
                let spread = entropy - 0.5 * (of_priors + of_shapes);
                (moments.variance, Some(moments.row_variance), spread)
            }
            Kind::MeanField => {
                let variance: Vec<f64> = self.diagonal(&before).iter().map(|q| 1.0 / q).collect();
                let mut of_rows = vec![0.0; self.panel.rows()];
                self.for_each_row(|product, index, row| {
                    let (a, e, t, _) = self.places(product);
                    of_rows[index] =
                        row.log_price * row.log_price * variance[a] + variance[e] + variance[t + row.period];
                });
                let entropy: f64 = variance.iter().map(|v| LN_SQRT_2PI + 0.5 + 0.5 * v.ln()).sum();
                let diagonal = self.prior_diagonal();
                let of_priors: f64 = diagonal.iter().zip(&variance).map(|(p, v)| p * v).sum();
                let spread = entropy - 0.5 * of_priors;
                (variance, Some(of_rows), spread)
            }
        };
        let rows = self.expected(at.mean, row_variance.as_deref());
        let mut after = self.precision(&rows);
        let (mut value, gradient) = self.value(at.mean, &rows);
        value += spread;
        if kind == Kind::MeanField {
            // The log shape stands at its mean: to second order its variance costs this.
            for (j, k) in self.layout.range(Site::LogShape).zip(&after.curvature) {
                value -= 0.5 * variance[j] * k;
            }
        }
        if let (Kind::Structured, Some(of_rows)) = (kind, &row_variance) {
            for product in 0..self.layout.products {
                let rows = self.panel.row_range(product);
                let most = of_rows[rows.clone()].iter().copied().fold(0.0, f64::max);
                // Under the negative binomial the first step of a product makes this power of the change.
                let part = match self.layout.likelihood {
                    Likelihood::Poisson => 1.0,
                    Likelihood::NegativeBinomial => 1.0 / (1.0 + 0.25 * most),
                };
                for row in rows {
                    let (after, before) = (&mut after.rows[row].by_eta, before.rows[row].by_eta);
                    let bounded = after.clamp(before / MOST_CHANGE, before * MOST_CHANGE);
                    *after = match before > 0.0 {
                        true => before * (bounded / before).powf(part),
                        false => bounded,
                    };
                }
            }
        }
        let variance = if kind == Kind::Point || self.layout.likelihood == Likelihood::NegativeBinomial {
            let moments = self.moments(&after).ok_or_else(indefinite)?;
            after.added = moments.added;
            if kind == Kind::Point {
                moments.variance
            } else {
                variance
            }
        } else {
            variance
        };
        let pass = GaussianPass {
            value,
            gradient,
            step: Vec::new(),
            variance,
        };
        Ok((pass, after))
    }

    /// Relative errors of a pass: of value, gradient, step and variances.
    ///
    /// # Errors
    /// When a precision is not positive definite.
    pub(super) fn errors(
        &self,
        kind: Kind,
        at: GaussianPoint<'_>,
        got: &GaussianPass,
    ) -> Result<[f64; 4], BackendError> {
        let (expected, precision) = self.pass(kind, at)?;
        // The step in the metric of the precision, in which a step's length is what it promises: what of the gradient
        // `Q step` misses, beside the gradient, both weighed by the diagonal.
        let scale = self.diagonal(&precision);
        let weighed = |of: &[f64]| -> Vec<f64> { of.iter().zip(&scale).map(|(g, q)| g / q.sqrt()).collect() };
        let solved = match got.step.len() == expected.gradient.len() {
            true => self.times(&precision, &got.step),
            false => Vec::new(),
        };
        let variances = match got.variance.len() == expected.variance.len() {
            false => f64::NAN,
            true => got
                .variance
                .iter()
                .zip(&expected.variance)
                .map(|(got, expected)| (got / expected - 1.0).abs())
                .fold(
                    0.0,
                    |worst: f64, e| if e > worst || e.is_nan() { e } else { worst },
                ),
        };
        Ok([
            (got.value - expected.value).abs() / expected.value.abs(),
            super::norm_wise_error(&got.gradient, &expected.gradient),
            super::norm_wise_error(&weighed(&solved), &weighed(&expected.gradient)),
            variances,
        ])
    }
}

/// A symmetric matrix, whole.
struct Dense {
    order: usize,
    entries: Vec<f64>,
}

impl Dense {
    fn new(order: usize) -> Self {
        Dense {
            order,
            entries: vec![0.0; order * order],
        }
    }

    fn get(&self, row: usize, column: usize) -> f64 {
        self.entries[row * self.order + column]
    }

    fn at(&mut self, row: usize, column: usize) -> &mut f64 {
        &mut self.entries[row * self.order + column]
    }

    /// The inverse and the log of the determinant, by Cholesky's factor; `None` where there is none.
    fn inverse(mut self) -> Option<(Dense, f64)> {
        let n = self.order;
        let mut ln_det = 0.0;
        for j in 0..n {
            for k in 0..j {
                let factor = self.get(j, k);
                for i in j..n {
                    let product = factor * self.get(i, k);
                    *self.at(i, j) -= product;
                }
            }
            let pivot = self.get(j, j);
            if pivot.is_nan() || pivot <= 0.0 {
                return None;
            }
            ln_det += pivot.ln();
            for i in j..n {
                *self.at(i, j) /= pivot.sqrt();
            }
        }
        // Column by column: forward, then back.
        let mut inverse = Dense::new(n);
        let mut x = vec![0.0; n];
        for column in 0..n {
            x.fill(0.0);
            x[column] = 1.0;
            for i in column..n {
                let known: f64 = (column..i).map(|k| self.get(i, k) * x[k]).sum();
                x[i] = (x[i] - known) / self.get(i, i);
            }
            for i in (0..n).rev() {
                let known: f64 = (i + 1..n).map(|k| self.get(k, i) * x[k]).sum();
                x[i] = (x[i] - known) / self.get(i, i);
            }
            for (row, value) in x.iter().enumerate() {
                *inverse.at(row, column) = *value;
            }
        }
        Some((inverse, ln_det))
    }
}
