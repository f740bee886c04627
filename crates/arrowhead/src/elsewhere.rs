//! Rows that another device walks: what it leaves, of which the host makes the factor, and what is asked of it afterwards.
//!
//! The rows' weights stay where they are. What crosses is of the size of products and borders: blocks and gradients of the products, and of
//! each category its Schur complement. The borders' factors, everything above them and the products' blocks are the host's.

use crate::block::BlockMatrix;
use crate::error::FactorError;
use infermark_model::design::PRODUCT_LATENTS;
use std::fmt::Debug;
use std::sync::Arc;

/// Who has the rows' weights, and the factors of the products' blocks beside them.
///
/// Blocks are the D latents of a product, or matrices over them, one per place of the walk.
pub trait RowsElsewhere<const D: usize = PRODUCT_LATENTS>: Debug + Send + Sync {
    /// `B_i b` of every place, `b` being the border of its category: the periods, then the category's coefficients.
    ///
    /// # Errors
    /// When the device fails, or has other weights by now.
    fn times(&self, borders: &[Vec<f64>]) -> Result<Vec<[f64; D]>, FactorError>;

    /// `V_i C V_i' = (W V_i')' (W V_i')` of every place, where `C = W' W`. `roots` holds `W` of every category, column-major, of D - 1 rows
    /// more than columns; zero above the diagonal but for those rows.
    ///
    /// # Errors
    /// When the device fails, or has other weights by now.
    fn squares(&self, roots: &[Vec<f64>]) -> Result<Vec<BlockMatrix<D>>, FactorError>;

    /// `sum_i B_i' p_i` of every category, its periods alone, `p` being the latents of every place.
    ///
    /// # Errors
    /// When the device fails, or has other weights by now.
    fn transpose_times(&self, products: &[[f64; D]]) -> Result<Vec<Vec<f64>>, FactorError>;

    /// What the third derivatives of Poisson rows need under the Gaussian whose borders have these covariances, column-major, of order T + D - 1.
    ///
    /// # Errors
    /// When the device fails, or has other weights by now.
    fn third_order(&self, covariances: &[Vec<f64>]) -> Result<ThirdOrder<D>, FactorError>;

    /// The weights of the products at some places, T of each and zero where there is no row.
    ///
    /// # Errors
    /// When the device fails, or has other weights by now.
    fn weights(&self, places: &[usize]) -> Result<Vec<f64>, FactorError>;
}

/// What the third derivatives of Poisson rows need, `w` being the weights, which are the rates, and `v` the variances of the log rates.
#[derive(Debug, Clone, PartialEq)]
pub struct ThirdOrder<const D: usize = PRODUCT_LATENTS> {
    /// By place.
    pub products: Vec<ProductThird<D>>,
    /// `sum_i w v / 2` by category and period.
    pub by_period: Vec<Vec<f64>>,
}

/// The same of one product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProductThird<const D: usize = PRODUCT_LATENTS> {
    /// Variances of its latents.
    pub variances: [f64; D],
    /// `sum_t w v x / 2` for each regressor, and `sum_t w v / 2`.
    pub sums: [f64; D],
    /// `sum_t w sum_k |p_k|^3`, p what the log rate of a row moves by, its conditional mean, along the whitened coordinates of the product's
    /// latents: those of the lower Cholesky factor of their covariance.
    pub cubes: f64,
}

/// What a walk leaves of one product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProductWalked<const D: usize = PRODUCT_LATENTS> {
    /// `L_i` of its block `H_i = L_i L_i'`, zero above the diagonal. Not finite or not positive where the block is not positive definite.
    pub lower: BlockMatrix<D>,
    /// The gradient with respect to its latents, priors included.
    pub gradient: [f64; D],
    /// `L_i^-1` times that.
    pub forwarded: [f64; D],
}

/// What a walk leaves of one category.
#[derive(Debug, Clone, PartialEq)]
pub struct CategoryWalked<const D: usize = PRODUCT_LATENTS> {
    /// Sum of the rows' values.
    pub value: f64,
    /// Derivatives of the rows by the period effects, length T.
    pub by_period: Vec<f64>,
    /// Sums of the weights by period, length T.
    pub weights: Vec<f64>,
    /// What the products tell of the category's coefficients: the sum of `(K^-1 + P^-1)^-1`, `P` the priors' precisions and K the block of the
    /// coefficients without these, the effect eliminated: of one coefficient `k / (1 + k / p)`, `k = h_aa - h_ae^2 / h_ee`. Zero in the row and
    /// the column of the effect.
    pub by_category: BlockMatrix<D>,
    /// `-sum_i U_i' U_i` with `U_i` the coupling `V_i` and behind it the column [`ProductWalked::forwarded`]: column-major, of order T + D, the
    /// lower triangle.
    pub schur: Vec<f64>,
}

/// What a walk leaves.
#[derive(Debug)]
pub struct Walked<const D: usize = PRODUCT_LATENTS> {
    /// By place.
    pub products: Vec<ProductWalked<D>>,
    /// By category.
    pub categories: Vec<CategoryWalked<D>>,
    /// Who is asked for more.
    pub rows: Arc<dyn RowsElsewhere<D>>,
}
