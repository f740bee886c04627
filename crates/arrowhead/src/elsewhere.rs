//! Rows that another device walks: what it leaves, of which the host makes the factor, and what is asked of it afterwards.
//!
//! The rows' weights stay where they are. What crosses is of the size of products and borders: blocks and gradients of the products, and of
//! each category its Schur complement. The borders' factors, everything above them and the 2 x 2 blocks are the host's.

use crate::error::FactorError;
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
