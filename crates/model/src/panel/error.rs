//! Why rows do not make a panel.

/// Why rows do not make a panel.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PanelError {
    /// No product at all.
    #[error("the panel has no rows")]
    Empty,
    /// A product without rows.
    #[error("product {product} has no rows")]
    ProductWithoutRows {
        /// Index of the product.
        product: usize,
    },
    /// A category that no product belongs to.
    #[error("category {category} has no products")]
    CategoryWithoutProducts {
        /// Index of the category.
        category: usize,
    },
    /// Index of a category or period beyond its labels.
    #[error("{axis} {index} of product {product} is out of range: there are {count}")]
    OutOfRange {
        /// "category" or "period".
        axis: &'static str,
        /// The index given.
        index: usize,
        /// How many there are.
        count: usize,
        /// Index of the product.
        product: usize,
    },
    /// Periods of a product that do not ascend strictly.
    #[error("the periods of product {product} do not ascend strictly at its row {row}")]
    PeriodOrder {
        /// Index of the product.
        product: usize,
        /// Row within the product.
        row: usize,
    },
    /// A price that has no finite logarithm.
    #[error("price {price} of product {product} at its row {row} is not a positive finite number")]
    Price {
        /// Index of the product.
        product: usize,
        /// Row within the product.
        row: usize,
        /// The price.
        price: f64,
    },
    /// Columns of different lengths, or parts and labels that disagree.
    #[error("{what}: {left} against {right}")]
    Length {
        /// What disagrees.
        what: &'static str,
        /// One side.
        left: usize,
        /// The other side.
        right: usize,
    },
}
