//! A result's description of its data.

use infermark_model::design::COEFFICIENTS;
use infermark_model::{Labels, Panel};
use infermark_threads::run_parts;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write;

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
    /// SHA-256 of the contents, see [`panel_sha256`].
    pub sha256: String,
}

impl PanelDescription {
    /// Describes `panel`; reads it once for the fingerprint. Every rank that holds the panel's rows takes part.
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

/// Words of 32 bits of a product's digest.
const DIGEST_WORDS: usize = 8;

/// SHA-256 of a panel, in hexadecimal: equal for equal panels, whatever the file and its row order. Every rank that holds the panel's
/// rows takes part.
///
/// Hashed in turn: the labels of products, categories and periods (each followed by a line feed), then of every product the 32 bytes of
/// its own SHA-256. Hashed for that: its category and its number of rows (`u32`, `u64`), the periods of its rows in their order (`u32`),
/// their units (`u32`), and their regressors (`f64`, the log prices); all little-endian.
pub fn panel_sha256(panel: &Panel) -> String {
    let mut digest = Sha256::new();
    for labels in [panel.products(), panel.categories(), panel.periods()] {
        hash_labels(labels, &mut digest);
    }
    for words in product_digests(panel) {
        words.iter().for_each(|word| digest.update(word.to_le_bytes()));
    }
    format!("{:x}", digest.finalize())
}

/// The digests of all products, computed on all threads of the ranks that hold their rows.
fn product_digests(panel: &Panel) -> Vec<[u32; DIGEST_WORDS]> {
    let held: Vec<usize> = panel.held_products().collect();
    let mut digests = vec![[0; DIGEST_WORDS]; held.len()];
    let part = held.len().div_ceil(infermark_threads::available()).max(1);
    let parts = held.chunks(part).zip(digests.chunks_mut(part));
    run_parts(parts.map(|(products, digests)| {
        move || {
            let mut bytes = Vec::new();
            for (product, digest) in products.iter().zip(digests) {
                *digest = product_digest(panel, *product, &mut bytes);
            }
        }
    }));
    if panel.ranks().is_none() {
        return digests;
    }
    let mut own = digests.iter();
    // Words are whole numbers, and so are exact as they cross.
    let all = panel.of_all_products(|_| own.next().expect("one for each product held").map(f64::from));
    all.into_iter()
        .map(|words| words.map(|word| word as u32))
        .collect()
}

fn product_digest(panel: &Panel, product: usize, bytes: &mut Vec<u8>) -> [u32; DIGEST_WORDS] {
    bytes.clear();
    bytes.extend(panel.category_of()[product].to_le_bytes());
    bytes.extend((panel.rows_of(product) as u64).to_le_bytes());
    let rows = panel.product_rows(product);
    bytes.extend(rows.flat_map(|row| (row.period as u32).to_le_bytes()));
    let units = &panel.units()[panel.row_range(product)];
    bytes.extend(units.iter().flat_map(|units| units.to_le_bytes()));
    for k in 0..COEFFICIENTS.len() {
        let column = panel.designs(product).map(|design| design[k]);
        bytes.extend(column.flat_map(f64::to_le_bytes));
    }
    let digest = Sha256::digest(bytes);
    let (words, _) = digest.as_chunks();
    let mut of_product = [0; DIGEST_WORDS];
    of_product
        .iter_mut()
        .zip(words)
        .for_each(|(word, bytes)| *word = u32::from_le_bytes(*bytes));
    of_product
}

fn hash_labels(labels: &Labels, digest: &mut Sha256) {
    let mut text = String::new();
    for label in labels.iter() {
        let _ = writeln!(text, "{label}");
        if text.len() > 1 << 16 {
            digest.update(&text);
            text.clear();
        }
    }
    digest.update(&text);
}
