//! Rows that another device walks: what it leaves, of which the host makes the factor, and what is asked of it afterwards.
//!
//! The rows' weights stay where they are. What crosses is of the size of products and borders: blocks and gradients of the products, and of
//! each category its Schur complement. The borders' factors, everything above them and the 2 x 2 blocks are the host's.

use crate::assemble::{Assembled, all_of};
use crate::border::{Border, PartSums};
use crate::factor::{ArrowheadFactor, Blocks, FactorError};
use crate::product::Lower2;
use crate::tasks;
use crate::walk::Walk;
use infermark_model::priors::Priors;
use std::fmt::Debug;
use std::sync::Arc;

/// Who has the rows' weights, and the factors of the products' blocks beside them.
///
/// All pairs are (elasticity, effect), one a place of the walk.
pub trait RowsElsewhere: Debug + Send + Sync {
    /// `B_i b` of every place, `b` being the border of its category: the periods, then `category_a`.
    ///
    /// # Errors
    /// When the device fails, or has other weights by now.
    fn times(&self, borders: &[Vec<f64>]) -> Result<Vec<[f64; 2]>, FactorError>;

    /// `V_i C V_i' = (W V_i')' (W V_i')` of every place, entries aa, ae, ee, where `C = W' W`. `roots` holds `W` of every category,
    /// column-major, of one row more than columns; zero above the diagonal but for the last row.
    ///
    /// # Errors
    /// When the device fails, or has other weights by now.
    fn squares(&self, roots: &[Vec<f64>]) -> Result<Vec<[f64; 3]>, FactorError>;

    /// `sum_i B_i' p_i` of every category, its periods alone, `p` being the pair of every place.
    ///
    /// # Errors
    /// When the device fails, or has other weights by now.
    fn transpose_times(&self, pairs: &[[f64; 2]]) -> Result<Vec<Vec<f64>>, FactorError>;

    /// What the third derivatives of Poisson rows need under the Gaussian whose borders have these covariances, column-major, of order T + 1.
    ///
    /// # Errors
    /// When the device fails, or has other weights by now.
    fn third_order(&self, covariances: &[Vec<f64>]) -> Result<ThirdOrder, FactorError>;

    /// The weights of the products at some places, T of each and zero where there is no row.
    ///
    /// # Errors
    /// When the device fails, or has other weights by now.
    fn weights(&self, places: &[usize]) -> Result<Vec<f64>, FactorError>;
}

/// What the third derivatives of Poisson rows need, `w` being the weights, which are the rates, and `v` the variances of the log rates.
#[derive(Debug, Clone, PartialEq)]
pub struct ThirdOrder {
    /// By place.
    pub products: Vec<ProductThird>,
    /// `sum_i w v / 2` by category and period.
    pub by_period: Vec<Vec<f64>>,
}

/// The same of one product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProductThird {
    /// Variances of its elasticity and effect.
    pub variances: [f64; 2],
    /// `sum_t w v x / 2` and `sum_t w v / 2`.
    pub sums: [f64; 2],
    /// `sum_t w (|p|^3 + |q|^3)`, p and q what the log rate of a row moves by, its conditional mean, along the two whitened coordinates of the
    /// product's pair: those of the lower Cholesky factor of its covariance.
    pub cubes: f64,
}

/// What a walk leaves of one product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProductWalked {
    /// `L_i` of its block `H_i = L_i L_i'`: aa, ea, ee. Not finite or not positive where the block is not positive definite.
    pub lower: [f64; 3],
    /// The gradient by elasticity and effect, priors included.
    pub gradient: [f64; 2],
    /// `L_i^-1` times that.
    pub forwarded: [f64; 2],
}

/// What a walk leaves of one category.
#[derive(Debug, Clone, PartialEq)]
pub struct CategoryWalked {
    /// Sum of the rows' values.
    pub value: f64,
    /// Derivatives of the rows by the period effects, length T.
    pub by_period: Vec<f64>,
    /// Sums of the weights by period, length T.
    pub weights: Vec<f64>,
    /// What the products tell of `category_a`: the sum of `k / (1 + k / q)`, `q` the prior's precision and `k = h_aa - h_ae^2 / h_ee` without it.
    pub by_category: f64,
    /// `-sum_i U_i' U_i` with `U_i` the coupling `V_i` and behind it the column [`ProductWalked::forwarded`]: column-major, of order T + 2, the
    /// lower triangle.
    pub schur: Vec<f64>,
}

/// What a walk leaves.
#[derive(Debug)]
pub struct Walked {
    /// By place.
    pub products: Vec<ProductWalked>,
    /// By category.
    pub categories: Vec<CategoryWalked>,
    /// Who is asked for more.
    pub rows: Arc<dyn RowsElsewhere>,
}

impl Assembled {
    /// The factor, and what else a pass gives, of what was walked elsewhere. Only counts without a shape are.
    ///
    /// # Errors
    /// When the precision is not positive definite, or the work is stopped.
    ///
    /// # Panics
    /// When the walk has a shape.
    pub fn of_walked(
        walk: &Arc<Walk>,
        priors: &Priors,
        walked: Walked,
        threads: usize,
    ) -> Result<Self, FactorError> {
        assert!(!walk.has_shape(), "no other device knows shapes");
        let Walked {
            products,
            categories,
            rows,
        } = walked;
        let is_factored = |of: &ProductWalked| {
            let [aa, ea, ee] = of.lower;
            aa > 0.0 && ee > 0.0 && aa.is_finite() && ea.is_finite() && ee.is_finite()
        };
        if let Some(place) = products.iter().position(|of| !is_factored(of)) {
            return Err(FactorError::Product(walk.order[place] as usize));
        }
        walk.watch.begin(0.5 * walk.operations_of_covariances());
        let categories: Vec<(usize, CategoryWalked)> = categories.into_iter().enumerate().collect();
        let borders = tasks::run(
            threads,
            categories,
            || (),
            |(), (category, of)| {
                let sums = PartSums {
                    value: of.value,
                    by_period: of.by_period,
                    weights: of.weights,
                    cross: Vec::new(),
                    shape: [0.0; 3],
                    by_category: of.by_category,
                    schur: of.schur,
                    failed: None,
                };
                Border::new(walk, category, sums, priors, 0.0)
            },
        );
        if walk.watch.is_stopped() {
            return Err(FactorError::Stopped);
        }
        let borders = all_of(borders)?;
        let lower = |of: &ProductWalked| {
            let [aa, ea, ee] = of.lower;
            Lower2 { aa, ea, ee }
        };
        let blocks = Blocks {
            weights: Vec::new(),
            lower: products.iter().map(lower).collect(),
            shapes: Vec::new(),
            elsewhere: Some(rows),
        };
        let gradients = products.iter().map(|of| of.gradient).collect();
        let forwarded = products.iter().map(|of| of.forwarded).collect();
        Ok(Assembled::of_borders(
            walk,
            priors,
            borders,
            (blocks, gradients, forwarded),
            threads,
        ))
    }
}

impl ArrowheadFactor {
    /// Whether the rows' weights lie elsewhere, so that whatever visits the rows wants [`ArrowheadFactor::at_home`] first.
    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// Of a factor whose rows lie elsewhere: the same with the weights of the products that are `asked` for, and with no other products. It
    /// visits those as the whole factor would; it does not solve.
    ///
    /// # Errors
    /// When the device fails.
    pub fn at_home(&self, asked: impl Fn(usize) -> bool) -> Result<Self, FactorError> {
        let Some(rows) = &self.elsewhere else {
            return Ok(self.clone());
        };
        let places: Vec<usize> = (0..self.walk.order.len())
            .filter(|place| asked(self.walk.order[*place] as usize))
            .collect();
        let walk = self.walk.through_places(&places);
        let (panel, periods) = (&walk.panel, walk.layout.periods);
        let mut weights = Vec::with_capacity(walk.rows());
        for places in places.chunks((WEIGHTS_AT_A_TIME / periods).max(1)) {
            let found = rows.weights(places)?;
            for (place, own) in places.iter().zip(found.chunks_exact(periods)) {
                let product = self.walk.order[*place] as usize;
                match panel.presence() {
                    None => weights.extend_from_slice(own),
                    Some(_) => weights.extend(panel.product_rows(product).map(|row| own[row.period])),
                }
            }
        }
        let mut home = self.clone_above_products(Arc::new(walk));
        home.weights = weights;
        home.products = places.iter().map(|place| self.products[*place]).collect();
        Ok(home)
    }

    /// Of a factor whose rows lie elsewhere and whose weights are the rates of Poisson rows: `-Q^-1 sum_r x_r w_r v_r / 2` in the order of
    /// [`infermark_model::Layout`], `v_r` the variance of a row's log rate, and what is found on the way of every product, in their order.
    ///
    /// # Errors
    /// When the device fails, or the work is stopped.
    ///
    /// # Panics
    /// When the rows lie here.
    pub fn shifted_by_third_order(&self) -> Result<(Vec<f64>, Vec<ProductThird>), FactorError> {
        let walk = &*self.walk;
        let rows = self.elsewhere.as_ref().expect("the rows lie elsewhere");
        walk.watch.begin(self.operations_of_covariances());
        let covariances = self.border_covariances();
        if walk.watch.is_stopped() {
            return Err(FactorError::Stopped);
        }
        let found = rows.third_order(covariances)?;
        let mut solved = vec![0.0; walk.layout.latents()];
        for (category, by_period) in found.by_period.iter().enumerate() {
            let to = &mut solved[walk.layout.time_index(category, 0)..][..walk.layout.periods];
            to.iter_mut().zip(by_period).for_each(|(to, third)| *to = -third);
        }
        let gradients = found.products.iter().map(|of| of.sums.map(|sum| -sum));
        let forwarded: Vec<[f64; 2]> = gradients
            .zip(&self.products)
            .map(|(gradient, lower)| lower.forward(gradient))
            .collect();
        // V' y = B' L^-T y.
        let backward = forwarded.iter().zip(&self.products);
        let backward: Vec<[f64; 2]> = backward.map(|(pair, lower)| lower.backward(*pair)).collect();
        let mut coupled = rows.transpose_times(&backward)?;
        let mut first = 0;
        for (category, sums) in coupled.iter_mut().enumerate() {
            let own = &backward[first..first + walk.sizes[category]];
            first += own.len();
            let elasticities: f64 = own.iter().map(|[a, _]| a).sum();
            sums.push(-self.priors.product_a_sd.powi(-2) * elasticities);
        }
        walk.write_pairs(&mut solved, &forwarded);
        self.forward_borders(&mut solved, &coupled);
        let borders = self.backward_borders(&mut solved);
        self.solve_upper_products(&mut solved, rows.times(&borders)?);
        let mut products = vec![None; walk.order.len()];
        for (product, of) in walk.order.iter().zip(found.products) {
            products[*product as usize] = Some(of);
        }
        Ok((solved, products.into_iter().flatten().collect()))
    }
}

/// Weights that are fetched at a time.
const WEIGHTS_AT_A_TIME: usize = 1 << 22;
