//! Rows that lie outside of memory: their columns as the panel reads them, and how such a panel is built.

use super::spread::OwnProducts;
use super::{Panel, PanelError, PanelPart, Presence, UnitSums};
use crate::axes::Axes;
use crate::labels::Labels;
use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The columns of rows that lie outside of memory, for instance in a mapped file, in the order (category, product, period).
///
/// Slices are read like any others. Before the rows of a product are read, [`StoredRows::visit`] is called with their places,
/// so that the owner can read ahead and bound how much of the columns is resident.
pub trait StoredRows: Debug + Send + Sync {
    /// [`Panel::deviation`], one per row.
    fn deviation(&self) -> &[f32];

    /// [`Panel::deviation_residual`], one per row.
    fn deviation_residual(&self) -> &[f32];

    /// [`Panel::units`], one per row.
    fn units(&self) -> &[u32];

    /// The rows at these places are read next.
    fn visit(&self, rows: &Range<usize>);

    /// Replaces the prices of the rows from place `first` on.
    ///
    /// # Errors
    /// The system's error of writing them.
    fn replace_prices(&mut self, first: usize, deviation: &[f32], residual: &[f32]) -> io::Result<()>;

    /// Room for one number per row of a walk, outside of memory and zero.
    ///
    /// # Errors
    /// When there is none.
    fn numbers(&self, count: usize) -> io::Result<Box<dyn StoredNumbers>>;
}

/// Numbers that lie outside of memory, next to a panel's rows.
pub trait StoredNumbers: Debug + Send + Sync {
    /// The numbers.
    fn as_slice(&self) -> &[f64];

    /// The same to write.
    fn as_mut_slice(&mut self) -> &mut [f64];
}

/// Where the rows of a panel are that lie outside of memory.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// The place of each product's first row.
    pub(super) first: Vec<usize>,
    /// The number of its rows.
    pub(super) count: Vec<u32>,
    pub(super) rows: usize,
    pub(super) columns: Arc<dyn StoredRows>,
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &[f32], b: &[f32]| a == b;
        self.first == other.first
            && self.count == other.count
            && same(self.columns.deviation(), other.columns.deviation())
            && same(
                self.columns.deviation_residual(),
                other.columns.deviation_residual(),
            )
            && self.columns.units() == other.columns.units()
    }
}

impl Stored {
    pub(super) fn range(&self, product: usize) -> Range<usize> {
        let first = self.first[product];
        let rows = first..first + self.count[product] as usize;
        self.columns.visit(&rows);
        rows
    }
}

/// Rows of one product to be stored from a place on.
#[derive(Debug, Clone, Copy)]
pub struct RowsToStore<'a> {
    /// The place of the first.
    pub first: usize,
    /// [`Panel::deviation`], one per row.
    pub deviation: &'a [f32],
    /// [`Panel::deviation_residual`], one per row.
    pub deviation_residual: &'a [f32],
    /// [`Panel::units`], one per row.
    pub units: &'a [u32],
}

/// A panel whose rows are stored outside of memory while its parts are added; the same parts as those of
/// [`Panel::from_parts`] give the same panel, to the bit.
#[derive(Debug)]
pub struct StoredPanel {
    panel: Panel,
    first: Vec<usize>,
    count: Vec<u32>,
    rows: usize,
}

impl StoredPanel {
    /// A panel along these axes, whose products are of these categories and have `count` rows each.
    ///
    /// # Errors
    /// [`PanelError`] when lengths disagree, or there is no row.
    pub fn new(axes: Axes<'_>, category_of: Vec<u32>, count: Vec<u32>) -> Result<Self, PanelError> {
        let Axes {
            products,
            categories,
            periods,
        } = axes;
        for (what, right) in [
            ("products and their labels", products.len()),
            ("products and rows", count.len()),
        ] {
            if category_of.len() != right {
                let left = category_of.len();
                return Err(PanelError::Length { what, left, right });
            }
        }
        let rows: usize = count.iter().map(|rows| *rows as usize).sum();
        if rows == 0 {
            return Err(PanelError::Empty);
        }
        let (n, c, t) = (products.len(), categories.len(), periods.len());
        let mut of_category = vec![0; c + 1];
        for (category, rows) in category_of.iter().zip(&count) {
            of_category[*category as usize + 1] += *rows as usize;
        }
        for category in 0..c {
            of_category[category + 1] += of_category[category];
        }
        let place = category_of.iter().zip(&count).map(|(category, rows)| {
            let next = &mut of_category[*category as usize];
            *next += *rows as usize;
            *next - *rows as usize
        });
        let first = place.collect();
        let dense = rows == n * t;
        let words_per_product = t.div_ceil(64);
        let panel = Panel {
            // They come last: whoever adds parts names products in messages.
            products: Labels::Date(Vec::new()),
            categories: Labels::Date(Vec::new()),
            periods: Labels::Date(Vec::new()),
            category_of,
            row_start: Vec::new(),
            presence: (!dense).then(|| Presence {
                words_per_product,
                words: Vec::with_capacity(n * words_per_product),
            }),
            mean_log_price: Vec::with_capacity(n),
            deviation: Vec::new(),
            deviation_residual: Vec::new(),
            units: Vec::new(),
            sums: UnitSums {
                product: Vec::with_capacity(n),
                product_deviation: Vec::with_capacity(n),
                category_period: vec![0; c * t],
                ln_factorials: 0.0,
            },
            stored: None,
            spread: None,
        };
        Ok(StoredPanel {
            panel,
            first,
            count,
            rows,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the next products, whose rows `store` stores.
    ///
    /// # Errors
    /// Those of `store`.
    ///
    /// # Panics
    /// When the part's products have other categories or numbers of rows than those announced.
    pub fn add(
        &mut self,
        part: PanelPart,
        mut store: impl FnMut(RowsToStore<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let panel = &mut self.panel;
        let done = panel.mean_log_price.len();
        assert_eq!(
            part.category_of[..],
            panel.category_of[done..][..part.category_of.len()]
        );
        part.add_to(&mut panel.sums.category_period);
        let mut start = 0;
        for (own, end) in part.row_end.iter().enumerate() {
            let rows = start..*end;
            start = *end;
            assert_eq!(
                rows.len(),
                self.count[done + own] as usize,
                "rows of product {}",
                done + own
            );
            store(RowsToStore {
                first: self.first[done + own],
                deviation: &part.deviation[rows.clone()],
                deviation_residual: &part.deviation_residual[rows.clone()],
                units: &part.units[rows],
            })?;
        }
        panel.mean_log_price.extend(part.mean_log_price);
        panel.sums.product.extend(part.sums.product);
        panel.sums.product_deviation.extend(part.sums.product_deviation);
        part.ln_factorials
            .iter()
            .for_each(|of| panel.sums.ln_factorials += of);
        if let Some(presence) = &mut panel.presence {
            presence.words.extend(part.presence);
        }
        Ok(())
    }

    /// The products with their labels, whose rows are those that were stored.
    ///
    /// # Panics
    /// When products are missing, or `columns` are not of as many rows.
    pub fn finish(
        self,
        [products, categories, periods]: [Labels; 3],
        columns: Arc<dyn StoredRows>,
    ) -> OwnProducts {
        let StoredPanel {
            mut panel,
            first,
            count,
            rows,
        } = self;
        assert_eq!(
            panel.mean_log_price.len(),
            panel.category_of.len(),
            "all products were added"
        );
        let lengths = [
            columns.deviation().len(),
            columns.deviation_residual().len(),
            columns.units().len(),
        ];
        assert_eq!(lengths, [rows; 3], "rows of the columns");
        assert_eq!(panel.category_of.len(), products.len(), "labels of the products");
        (panel.products, panel.categories, panel.periods) = (products, categories, periods);
        panel.stored = Some(Stored {
            first,
            count,
            rows,
            columns,
        });
        OwnProducts(panel)
    }
}
