//! A result's description of its data.

use infermark_model::design::COEFFICIENTS;
use infermark_model::{Labels, Panel};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A panel in figures, with the fingerprint of its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PanelDescription {
    /// Its source: a file's name without its folder, or a generator with its settings.
    pub source: String,
    /// N, products.
    pub products: usize,
    /// C, categories.
    pub categories: usize,
    /// T, periods.
    pub periods: usize,
    /// Rows.
    pub rows: usize,
    /// Whether every product has every period.
    pub dense: bool,
    /// SHA-256 of the columns, see [`panel_sha256`].
    pub sha256: String,
}

impl PanelDescription {
    /// Describes `panel`; reads it once for the fingerprint.
    pub fn new(panel: &Panel, source: impl Into<String>) -> Self {
        let layout = panel.layout();
        PanelDescription {
            source: source.into(),
            products: layout.products,
            categories: layout.categories,
            periods: layout.periods,
            rows: panel.rows(),
            dense: panel.is_dense(),
            sha256: panel_sha256(panel),
        }
    }
}

/// SHA-256 of a panel's columns, in hexadecimal: equal for equal panels, whatever the file and its row order.
///
/// Hashed in turn: the labels of products, categories and periods (each followed by a line feed); then per product its
/// category and its number of rows (`u32`, `u64`); then of all rows in the panel's order the period (`u32`), then the
/// units (`u32`), then the regressors, product by product (`f64`, the log prices); all little-endian.
pub fn panel_sha256(panel: &Panel) -> String {
    let mut sink = Sink {
        digest: Sha256::new(),
        buffer: Vec::with_capacity(1 << 16),
    };
    for labels in [panel.products(), panel.categories(), panel.periods()] {
        sink.labels(labels);
    }
    for (product, category) in panel.category_of().iter().enumerate() {
        sink.put(&category.to_le_bytes());
        sink.put(&(panel.rows_of(product) as u64).to_le_bytes());
    }
    let products = 0..panel.category_of().len();
    if panel.is_dense() {
        // The periods of every product are the same bytes.
        let periods: Vec<u8> = (0..panel.layout().periods as u32)
            .flat_map(u32::to_le_bytes)
            .collect();
        products.clone().for_each(|_| sink.put(&periods));
    } else {
        for row in products.clone().flat_map(|p| panel.product_rows(p)) {
            sink.put(&(row.period as u32).to_le_bytes());
        }
    }
    let mut bytes = Vec::new();
    for product in products.clone() {
        bytes.clear();
        let units = &panel.units()[panel.row_range(product)];
        bytes.extend(units.iter().flat_map(|units| units.to_le_bytes()));
        sink.put(&bytes);
    }
    for product in products {
        bytes.clear();
        for k in 0..COEFFICIENTS.len() {
            let column = panel.designs(product).map(|design| design[k]);
            bytes.extend(column.flat_map(f64::to_le_bytes));
        }
        sink.put(&bytes);
    }
    sink.digest.update(&sink.buffer);
    format!("{:x}", sink.digest.finalize())
}

struct Sink {
    digest: Sha256,
    buffer: Vec<u8>,
}

impl Sink {
    fn put(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > 1 << 16 {
            self.digest.update(&self.buffer);
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn labels(&mut self, labels: &Labels) {
        for label in labels.iter() {
            self.put(label.to_string().as_bytes());
            self.put(b"\n");
        }
    }
}
