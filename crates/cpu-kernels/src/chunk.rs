//! The panel, cut into chunks of products of one category: the unit of work of a thread.
//!
//! Chunks depend on the panel alone and their sums are added in their order, so results do not depend on the number
//! of threads.

use infermark_model::{Layout, Panel};

/// Arrays over a chunk's products are padded to a multiple of this, the widest vector.
pub const PAD: usize = 16;

/// Fewest and most products of a chunk.
const PRODUCTS: std::ops::RangeInclusive<usize> = 64..=512;

/// Chunks that a panel of middling size is cut into, so that threads finish together.
const CHUNKS_WANTED: usize = 64;

/// Some products of one category, with what the likelihood needs of each; vectors are padded to [`PAD`].
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The category.
    pub category: usize,
    /// Index of each product in the panel; not padded.
    pub products: Vec<u32>,
    /// Means of `ln price`, from the product's origin on: the log rate is `effect + elasticity * (ln price - origin)` and its period's effect.
    /// The origin is 0 unless [`Chunk::measure_from`] sets another.
    pub mean_log_price: Vec<f64>,
    /// Sums of counts.
    pub units: Vec<f64>,
    /// Sums of counts times deviations.
    pub units_deviation: Vec<f64>,
}

impl Chunk {
    /// Sets the origins of the products' log prices, one for each product of the panel.
    pub fn measure_from(&mut self, origin: &[f64]) {
        for (mean, product) in self.mean_log_price.iter_mut().zip(&self.products) {
            *mean -= origin[*product as usize];
        }
    }

    /// Length of the padded vectors.
    pub fn padded(&self) -> usize {
        self.mean_log_price.len()
    }

    fn new(panel: &Panel, category: usize, products: &[u32]) -> Self {
        let sums = panel.sums();
        let padded = products.len().next_multiple_of(PAD);
        let column = |f: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let mut column: Vec<f64> = products.iter().map(|p| f(*p as usize)).collect();
            column.resize(padded, 0.0);
            column
        };
        Chunk {
            category,
            products: products.to_vec(),
            mean_log_price: column(&|p| panel.mean_log_price()[p]),
            units: column(&|p| sums.product[p] as f64),
            units_deviation: column(&|p| sums.product_deviation[p]),
        }
    }
}

/// Most products of a chunk of a panel of `products` products; a multiple of [`PAD`].
pub fn products_per_chunk(products: usize) -> usize {
    (products / CHUNKS_WANTED)
        .next_multiple_of(PAD)
        .clamp(*PRODUCTS.start(), *PRODUCTS.end())
}

/// Most chunks that a panel of these sizes is cut into: each category ends one early.
pub fn most_chunks(layout: &Layout) -> usize {
    layout.products / products_per_chunk(layout.products) + layout.categories
}

/// The work of a pass over chunks with `rows` rows for one particle, in rows: a product's own work is that of about twenty
/// rows, and each chunk and each category sums over the periods.
pub fn work_per_particle(layout: &Layout, rows: usize, chunks: &[Chunk]) -> usize {
    let products: usize = chunks.iter().map(Chunk::padded).sum();
    rows + 20 * products + layout.periods * (chunks.len() + layout.categories)
}

/// The number of threads, out of `threads`, that have enough work: at most one per chunk, with `least` of the
/// work each.
pub fn useful_threads(threads: usize, chunks: usize, work: usize, least: usize) -> usize {
    threads.min(chunks).min(work / least).max(1)
}

/// Cuts a panel into chunks, ordered by category, then product.
pub fn chunks(panel: &Panel) -> Vec<Chunk> {
    let products = panel.products_by_category();
    chunks_of(panel, &products, products_per_chunk(products.len()))
}

/// Cuts some products of a panel, which are ordered by category, into chunks of at most `size` products in their order.
pub fn chunks_of(panel: &Panel, products: &[u32], size: usize) -> Vec<Chunk> {
    let category_of = panel.category_of();
    products
        .chunk_by(|a, b| category_of[*a as usize] == category_of[*b as usize])
        .flat_map(|of_category| of_category.chunks(size))
        .map(|products| Chunk::new(panel, category_of[products[0] as usize] as usize, products))
        .collect()
}
