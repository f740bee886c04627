//! Regressors of the log rates.

use infermark_model::Panel;
use infermark_model::design::COEFFICIENTS;
use std::sync::Arc;

/// A regressor, one value per row.
#[derive(Debug, Clone)]
pub enum Regressor {
    /// `ln price`, as in the panel: mean and deviations.
    LogPrice,
    /// Other values.
    Column(Column),
}

/// Values of a regressor.
#[derive(Debug, Clone)]
pub struct Column {
    /// In the order of the panel's rows.
    pub(crate) values: Arc<Vec<f64>>,
    /// Means by product.
    pub(crate) means: Arc<Vec<f64>>,
}

impl Column {
    /// A regressor with one finite value per row of `panel`, in its order.
    ///
    /// # Panics
    /// When the number of values is not that of rows, or one of them is not finite.
    pub fn new(panel: &Panel, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), panel.rows(), "one value per row");
        assert!(values.iter().all(|x| x.is_finite()), "a regressor is finite");
        let mean = |product: usize| {
            let own = &values[panel.row_range(product)];
            own.iter().sum::<f64>() / own.len() as f64
        };
        Column {
            means: Arc::new((0..panel.layout().products).map(mean).collect()),
            values: Arc::new(values),
        }
    }
}

impl Regressor {
    /// The regressors of the model in `panel`, one per coefficient.
    pub(crate) fn of_model(_: &Panel) -> [Regressor; COEFFICIENTS.len()] {
        [Regressor::LogPrice]
    }

    /// The mean over the rows of a product.
    #[inline(always)]
    pub(crate) fn mean(&self, panel: &Panel, product: usize) -> f64 {
        match self {
            Regressor::LogPrice => panel.mean_log_price()[product],
            Regressor::Column(column) => column.means[product],
        }
    }

    /// The deviation of a row, by its index in the panel, from the mean of its product.
    pub(crate) fn deviation(&self, panel: &Panel, product: usize, row: usize) -> f32 {
        match self {
            Regressor::LogPrice => panel.deviation()[row],
            Regressor::Column(column) => (column.values[row] - column.means[product]) as f32,
        }
    }
}
