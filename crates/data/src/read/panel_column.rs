//! The panel's five columns.

/// One of the panel's five columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanelColumn {
    /// The product.
    Product,
    /// The category.
    Category,
    /// The period.
    Period,
    /// The price.
    Price,
    /// The units sold.
    Units,
}

impl PanelColumn {
    /// All columns, in the order of [`Columns`](crate::Columns).
    pub(super) const ALL: [PanelColumn; 5] = [
        PanelColumn::Product,
        PanelColumn::Category,
        PanelColumn::Period,
        PanelColumn::Price,
        PanelColumn::Units,
    ];

    /// The column's name: that of its field in [`Columns`](crate::Columns).
    pub const fn name(self) -> &'static str {
        match self {
            PanelColumn::Product => "product",
            PanelColumn::Category => "category",
            PanelColumn::Period => "period",
            PanelColumn::Price => "price",
            PanelColumn::Units => "units",
        }
    }
}
