//! The factor, and solving with it.

use crate::category::{Part, factor_borders, parts, reduce};
use crate::product::{Lower2, Rows};
use crate::tasks;
use crate::triangular::Lower;
use infermark_model::Panel;
use infermark_model::priors::Priors;
use infermark_model::site::{Layout, Site};
use std::sync::Arc;

/// Why there is no factor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactorError {
    /// A product's block is not positive definite: a weight is negative or not finite.
    #[error(
        "the precision of product {0} is not positive definite: a weight of its rows is negative or not finite"
    )]
    Product(usize),
    /// A category's Schur complement is not positive definite.
    #[error(
        "the precision of category {0} is not positive definite: weights of its rows are too large for double precision"
    )]
    Category(usize),
}

/// `L` of `Q = L L'`; see the [crate's page](crate). Vectors are natural parameters in the order of [`Layout`].
#[derive(Debug)]
pub struct ArrowFactor {
    pub(crate) panel: Arc<Panel>,
    pub(crate) priors: Priors,
    pub(crate) weights: Vec<f64>,
    pub(crate) layout: Layout,
    pub(crate) threads: usize,
    /// Products by category.
    pub(crate) order: Vec<u32>,
    pub(crate) parts: Vec<Part>,
    /// `L_i`, in the order of the walk.
    pub(crate) products: Vec<Lower2>,
    /// `R_c`.
    pub(crate) categories: Vec<Lower>,
    /// The last entry of `L`.
    pub(crate) top: f64,
}

impl ArrowFactor {
    /// Factors the precision for `weights`, one a row in the panel's order, which it keeps (8 bytes a row).
    ///
    /// # Errors
    /// When the precision is not positive definite.
    ///
    /// # Panics
    /// When there are not as many weights as rows.
    pub fn new(
        panel: &Arc<Panel>,
        priors: Priors,
        weights: Vec<f64>,
        threads: usize,
    ) -> Result<Self, FactorError> {
        assert_eq!(weights.len(), panel.rows(), "one weight a row");
        let layout = panel.layout();
        let order = panel.products_by_category();
        let category = |place: &u32| panel.category_of()[*place as usize] as usize;
        let ends: Vec<usize> = (0..layout.categories)
            .map(|c| order.partition_point(|p| category(p) <= c))
            .collect();
        let border = layout.periods + 1;
        let parts = parts(&ends, threads);
        let rows = Rows {
            panel,
            weights: &weights,
            priors: &priors,
        };
        let mut reduced = tasks::run(threads, &parts, |part| reduce(&rows, &order, border, part));
        let mut products = Vec::with_capacity(layout.products);
        for part in &mut reduced {
            let lower = std::mem::replace(&mut part.lower, Ok(Vec::new()));
            products.append(&mut lower.map_err(FactorError::Product)?);
        }
        let sizes: Vec<usize> = (0..layout.categories)
            .map(|c| ends[c] - if c == 0 { 0 } else { ends[c - 1] })
            .collect();
        let mut categories = Vec::with_capacity(layout.categories);
        for (c, lower) in factor_borders(&parts, &reduced, &priors, &sizes, border, threads)
            .into_iter()
            .enumerate()
        {
            categories.push(lower.ok_or(FactorError::Category(c))?);
        }
        let precision = priors.category_a_sd.powi(-2);
        let mut top = priors.global_a_sd.powi(-2) + layout.categories as f64 * precision;
        for lower in &categories {
            top -= (precision / lower.last()).powi(2);
        }
        Ok(ArrowFactor {
            panel: panel.clone(),
            priors,
            weights,
            layout,
            threads,
            order,
            parts,
            products,
            categories,
            top: top.sqrt(),
        })
    }

    /// `ln det Q`.
    pub fn ln_det(&self) -> f64 {
        let products: f64 = self.products.iter().map(Lower2::ln_det).sum();
        let categories: f64 = self.categories.iter().map(Lower::ln_det).sum();
        2.0 * (products + categories + self.top.ln())
    }

    /// `Q^-1 b`, where it lies.
    pub fn solve(&self, b: &mut [f64]) {
        self.solve_lower(b);
        self.solve_upper(b);
    }

    /// `L^-1 b`, where it lies: what turns a gradient by the parameters into one by the whitened ones.
    pub fn solve_lower(&self, b: &mut [f64]) {
        let coupled = self.walk(b, |_, lower, v, pair, border| {
            let y = lower.forward(pair);
            let (by_a, by_e) = v.split_at(self.border());
            for ((sum, a), e) in border.iter_mut().zip(by_a).zip(by_e) {
                *sum += a * y[0] + e * y[1];
            }
            y
        });
        let mut top = b[0];
        for (c, sum) in coupled.iter().enumerate() {
            let mut z = self.read_border(b, c);
            z.iter_mut().zip(sum).for_each(|(z, s)| *z -= s);
            self.categories[c].forward(&mut z);
            top -= self.top_coupling(c) * z[self.border() - 1];
            self.write_border(b, c, &z);
        }
        b[0] = top / self.top;
    }

    /// `L^-T y`, where it lies: whitened coordinates to parameters.
    pub fn solve_upper(&self, y: &mut [f64]) {
        y[0] /= self.top;
        for c in 0..self.layout.categories {
            let mut x = self.read_border(y, c);
            x[self.border() - 1] -= self.top_coupling(c) * y[0];
            self.categories[c].backward(&mut x);
            self.write_border(y, c, &x);
        }
        let borders: Vec<Vec<f64>> = (0..self.layout.categories)
            .map(|c| self.read_border(y, c))
            .collect();
        self.walk(y, |category, lower, v, [a, e], _| {
            let by = self.times_border(v, &borders[category]);
            lower.backward([a - by[0], e - by[1]])
        });
    }

    /// `L' x`, where it lies: parameters to whitened coordinates, the inverse of [`ArrowFactor::solve_upper`].
    pub fn times_upper(&self, x: &mut [f64]) {
        let borders: Vec<Vec<f64>> = (0..self.layout.categories)
            .map(|c| self.read_border(x, c))
            .collect();
        self.walk(x, |category, lower, v, pair, _| {
            let by = self.times_border(v, &borders[category]);
            let own = lower.transpose_times(pair);
            [own[0] + by[0], own[1] + by[1]]
        });
        for (c, mut border) in borders.into_iter().enumerate() {
            self.categories[c].transpose_times(&mut border);
            border[self.layout.periods] += self.top_coupling(c) * x[0];
            self.write_border(x, c, &border);
        }
        x[0] *= self.top;
    }

    /// Length of a category's border.
    pub(crate) fn border(&self) -> usize {
        self.layout.periods + 1
    }

    /// `R_c^-1` times the coupling of category c to the top: all zeros but its last entry, which is this.
    pub(crate) fn top_coupling(&self, category: usize) -> f64 {
        -self.priors.category_a_sd.powi(-2) / self.categories[category].last()
    }

    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows {
            panel: &self.panel,
            weights: &self.weights,
            priors: &self.priors,
        }
    }

    fn times_border(&self, v: &[f64], border: &[f64]) -> [f64; 2] {
        let (by_a, by_e) = v.split_at(self.border());
        let dot = |v: &[f64]| v.iter().zip(border).map(|(v, x)| v * x).sum();
        [dot(by_a), dot(by_e)]
    }

    fn read_border(&self, of: &[f64], category: usize) -> Vec<f64> {
        let start = self.layout.time_index(category, 0);
        let mut border = of[start..start + self.layout.periods].to_vec();
        border.push(of[self.layout.start(Site::CategoryA) + category]);
        border
    }

    fn write_border(&self, to: &mut [f64], category: usize, border: &[f64]) {
        let start = self.layout.time_index(category, 0);
        to[start..start + self.layout.periods].copy_from_slice(&border[..self.layout.periods]);
        to[self.layout.start(Site::CategoryA) + category] = border[self.layout.periods];
    }

    /// Replaces every product's pair (elasticity, effect) by `f(category, L_i, V_i, pair, sums)`, which may add to its
    /// category's sums of border length; returns those.
    fn walk(
        &self,
        x: &mut [f64],
        f: impl Fn(usize, &Lower2, &[f64], [f64; 2], &mut [f64]) -> [f64; 2] + Sync,
    ) -> Vec<Vec<f64>> {
        let border = self.border();
        let (a, e) = (
            self.layout.start(Site::ProductA),
            self.layout.start(Site::ProductEffect),
        );
        let from: &[f64] = x;
        let found = tasks::run(self.threads, &self.parts, |part| {
            let mut v = vec![0.0; 2 * border];
            let mut sums = vec![0.0; border];
            let pairs: Vec<[f64; 2]> = part
                .places
                .clone()
                .map(|place| {
                    let product = self.order[place] as usize;
                    let lower = &self.products[place];
                    self.rows().coupling(product, &mut v);
                    Rows::solve_coupling(lower, &mut v);
                    let pair = [from[a + product], from[e + product]];
                    f(part.category, lower, &v, pair, &mut sums)
                })
                .collect();
            (pairs, sums)
        });
        let mut sums = vec![vec![0.0; border]; self.layout.categories];
        for (part, (pairs, own)) in self.parts.iter().zip(found) {
            for (product, pair) in self.order[part.places.clone()].iter().zip(pairs) {
                [x[a + *product as usize], x[e + *product as usize]] = pair;
            }
            for (sum, own) in sums[part.category].iter_mut().zip(own) {
                *sum += own;
            }
        }
        sums
    }
}
