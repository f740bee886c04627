//! Rows that another device walks: its results, from which the host builds the factor, and later requests to
//! it.
//!
//! The rows' weights stay on the device. Only data of the size of products and borders is transferred: blocks
//! and gradients of the products, and the Schur complement of each category. The host has the borders'
//! factors, everything above them and the products' blocks.

use crate::block::BlockMatrix;
use crate::error::FactorError;
use infermark_model::design::PRODUCT_LATENTS;
use std::fmt::Debug;
use std::sync::Arc;

/// The owner of the rows' weights, and of the factors of the products' blocks.
///
/// Blocks are the D latents of a product, or matrices over them, one per place of the walk.
pub trait RowsElsewhere<const D: usize = PRODUCT_LATENTS>: Debug + Send + Sync {
    /// `B_i b` of every place, `b` being the border of its category: the periods, then the category's coefficients.
    ///
    /// # Errors
    /// When the device fails, or its weights have changed since.
    fn times(&self, borders: &[Vec<f64>]) -> Result<Vec<[f64; D]>, FactorError>;

    /// `V_i C V_i' = (W V_i')' (W V_i')` of every place, where `C = W' W`. `roots` holds `W` of every
    /// category, column-major, with D - 1 more rows than columns; zero above the diagonal except for those
    /// rows.
    ///
    /// # Errors
    /// When the device fails, or its weights have changed since.
    fn squares(&self, roots: &[Vec<f64>]) -> Result<Vec<BlockMatrix<D>>, FactorError>;

    /// `sum_i B_i' p_i` for every category, only its periods, with `p` the latents of every place.
    ///
    /// # Errors
    /// When the device fails, or its weights have changed since.
    fn transpose_times(&self, products: &[[f64; D]]) -> Result<Vec<Vec<f64>>, FactorError>;

    /// The sums for the third derivatives of Poisson rows under the Gaussian whose borders have these
    /// covariances, column-major, of order T + D - 1.
    ///
    /// # Errors
    /// When the device fails, or its weights have changed since.
    fn third_order(&self, covariances: &[Vec<f64>]) -> Result<ThirdOrder<D>, FactorError>;

    /// The weights of the products at some places, T for each, zero where there is no row.
    ///
    /// # Errors
    /// When the device fails, or its weights have changed since.
    fn weights(&self, places: &[usize]) -> Result<Vec<f64>, FactorError>;
}

/// The sums for the third derivatives of Poisson rows, with `w` the weights, which are the rates, and `v` the
/// variances of the log rates.
#[derive(Debug, Clone, PartialEq)]
pub struct ThirdOrder<const D: usize = PRODUCT_LATENTS> {
    /// Results by place.
    pub products: Vec<ProductThird<D>>,
    /// `sum_i w v / 2` by category and period.
    pub by_period: Vec<Vec<f64>>,
}

/// The same for one product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProductThird<const D: usize = PRODUCT_LATENTS> {
    /// Variances of its latents.
    pub variances: [f64; D],
    /// `sum_t w v x / 2` for each regressor, and `sum_t w v / 2`.
    pub sums: [f64; D],
    /// `sum_t w sum_k |p_k|^3`, with p the change of a row's log rate, in conditional mean, along the
    /// whitened coordinates of the product's latents: those of the lower Cholesky factor of their covariance.
    pub cubes: f64,
}

/// The results of a walk for one product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProductWalked<const D: usize = PRODUCT_LATENTS> {
    /// `L_i` of its block `H_i = L_i L_i'`, zero above the diagonal. Not finite or not positive if the block
    /// is not positive definite.
    pub lower: BlockMatrix<D>,
    /// The gradient with respect to its latents, priors included.
    pub gradient: [f64; D],
    /// `L_i^-1` times that.
    pub forwarded: [f64; D],
}

/// The results of a walk for one category.
#[derive(Debug, Clone, PartialEq)]
pub struct CategoryWalked<const D: usize = PRODUCT_LATENTS> {
    /// Sum of the rows' values.
    pub value: f64,
    /// Derivatives of the rows with respect to the period effects, length T.
    pub by_period: Vec<f64>,
    /// Sums of the weights by period, length T.
    pub weights: Vec<f64>,
    /// The products' information on the category's coefficients: the sum of `(K^-1 + P^-1)^-1`, with `P` the
    /// priors' precisions and K the block of the coefficients without these, the effect eliminated; for one
    /// coefficient `k / (1 + k / p)`, `k = h_aa - h_ae^2 / h_ee`. Zero in the row and the column of the
    /// effect.
    pub by_category: BlockMatrix<D>,
    /// `-sum_i U_i' U_i` with `U_i` the coupling `V_i` followed by the column [`ProductWalked::forwarded`]:
    /// column-major, of order T + D, the lower triangle.
    pub schur: Vec<f64>,
}

/// The results of a walk.
#[derive(Debug)]
pub struct Walked<const D: usize = PRODUCT_LATENTS> {
    /// Results by place.
    pub products: Vec<ProductWalked<D>>,
    /// Results by category.
    pub categories: Vec<CategoryWalked<D>>,
    /// The device's rows, for later requests.
    pub rows: Arc<dyn RowsElsewhere<D>>,
}
