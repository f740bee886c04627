//! The parameters that a synthetic panel was drawn from.

/// The parameters that a synthetic panel was drawn from, in the panel's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// Price elasticity of every product, length N.
    pub product_elasticity: Vec<f64>,
    /// Natural parameters in the order of [`infermark_model::Layout`], if the panel was drawn from the model itself.
    pub point: Option<Vec<f64>>,
}
