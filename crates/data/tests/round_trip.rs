//! Any panel that is written to a file is read back, from CSV and from Parquet, whatever the order of its
//! rows.
//!
//! `PROPTEST_CASES` sets the number of panels. Earlier failures are stored in `round_trip.regressions` and
//! tried first.

mod in_parts;

use arrow_array::{ArrayRef, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray};
use in_parts::read_panel;
use infermark_data::Columns;
use infermark_model::{Labels, Panel, PanelPart};
use parquet::arrow::ArrowWriter;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// A row: places of its product, category and period among their labels, price and units.
#[derive(Debug, Clone, Copy)]
struct Sale {
    product: usize,
    category: usize,
    period: usize,
    price: f64,
    units: u32,
}

/// The rows of a panel with the labels of its axes, which are sorted. Some categories and periods may have no
/// rows.
#[derive(Debug, Clone)]
struct Sales {
    products: Labels,
    categories: Labels,
    periods: Labels,
    rows: Vec<Sale>,
}

fn text_labels(most: usize) -> impl Strategy<Value = Labels> {
    // The first character keeps it from being a number, and the last from ending in a blank.
    btree_set(
        "[A-Za-zäß\u{4e2d}]([A-Za-z0-9 ,;'\"./|äß\u{1f600}-]{0,10}[a-z0-9,\"])?",
        1..=most,
    )
    .prop_map(|labels| Labels::Text(labels.into_iter().map(String::into_boxed_str).collect()))
}

fn integer_labels(most: usize) -> impl Strategy<Value = Labels> {
    btree_set(prop_oneof![-3..50_i64, any::<i64>()], 1..=most)
        .prop_map(|labels| Labels::Integer(labels.into_iter().collect()))
}

fn date_labels(most: usize) -> impl Strategy<Value = Labels> {
    btree_set(-20_000..40_000_i32, 1..=most).prop_map(|days| Labels::Date(days.into_iter().collect()))
}

fn sales() -> impl Strategy<Value = Sales> {
    let keys = |most| prop_oneof![text_labels(most), integer_labels(most)];
    let periods = prop_oneof![integer_labels(7), date_labels(7)];
    let price = prop_oneof![
        0.01..1000.0_f64,
        proptest::num::f64::POSITIVE | proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL
    ];
    let units = prop_oneof![0..40_u32, 0..=i32::MAX as u32];
    let cell = (price, units).boxed();
    (keys(6), keys(3), periods).prop_flat_map(move |(products, categories, periods)| {
        let rows = btree_map(0..periods.len(), cell.clone(), 1..=periods.len());
        vec((0..categories.len(), rows), products.len()).prop_map(move |of_product| Sales {
            products: products.clone(),
            categories: categories.clone(),
            periods: periods.clone(),
            rows: in_order(&of_product),
        })
    })
}

/// A product: the place of its category, and the prices and units of its periods.
type OfProduct = (usize, BTreeMap<usize, (f64, u32)>);

fn in_order(of_product: &[OfProduct]) -> Vec<Sale> {
    let mut rows = Vec::new();
    for (product, (category, cells)) in of_product.iter().enumerate() {
        rows.extend(cells.iter().map(|(period, (price, units))| Sale {
            product,
            category: *category,
            period: *period,
            price: *price,
            units: *units,
        }));
    }
    rows
}

/// The labels of the places that `kept` has.
fn kept(labels: &Labels, kept: &BTreeSet<usize>) -> Labels {
    match labels {
        Labels::Text(all) => Labels::Text(kept.iter().map(|place| all[*place].clone()).collect()),
        Labels::Integer(all) => Labels::Integer(kept.iter().map(|place| all[*place]).collect()),
        Labels::Date(all) => Labels::Date(kept.iter().map(|place| all[*place]).collect()),
        Labels::Numbered { .. } => unreachable!("no such labels are generated"),
    }
}

impl Sales {
    /// The panel, made without a file; the rows are in order.
    fn panel(&self) -> Panel {
        let categories: BTreeSet<usize> = self.rows.iter().map(|row| row.category).collect();
        let periods: BTreeSet<usize> = self.rows.iter().map(|row| row.period).collect();
        let place = |set: &BTreeSet<usize>, of: usize| set.iter().position(|place| *place == of).unwrap();
        let mut part = PanelPart::new(categories.len(), periods.len());
        for rows in self.rows.chunk_by(|a, b| a.product == b.product) {
            let of_rows: Vec<u32> = rows
                .iter()
                .map(|row| place(&periods, row.period) as u32)
                .collect();
            let prices: Vec<f64> = rows.iter().map(|row| row.price).collect();
            let units: Vec<u32> = rows.iter().map(|row| row.units).collect();
            let category = place(&categories, rows[0].category);
            part.push_product(category, Some(&of_rows), &prices, &units)
                .unwrap();
        }
        let (categories, periods) = (kept(&self.categories, &categories), kept(&self.periods, &periods));
        Panel::from_parts(self.products.clone(), categories, periods, vec![part]).unwrap()
    }

    fn write_csv(&self, path: &Path) {
        let mut csv = csv::Writer::from_path(path).unwrap();
        csv.write_record(["product", "category", "week", "price", "units"])
            .unwrap();
        for row in &self.rows {
            csv.write_record([
                self.products.get(row.product).to_string(),
                self.categories.get(row.category).to_string(),
                self.periods.get(row.period).to_string(),
                format!("{:?}", row.price),
                row.units.to_string(),
            ])
            .unwrap();
        }
        csv.flush().unwrap();
    }

    fn write_parquet(&self, path: &Path) {
        let column = |labels: &Labels, place: fn(&Sale) -> usize| -> ArrayRef {
            let places = self.rows.iter().map(place);
            match labels {
                Labels::Text(all) => Arc::new(StringArray::from_iter_values(places.map(|at| &all[at]))),
                Labels::Integer(all) => Arc::new(Int64Array::from_iter_values(places.map(|at| all[at]))),
                Labels::Date(all) => Arc::new(Date32Array::from_iter_values(places.map(|at| all[at]))),
                Labels::Numbered { .. } => unreachable!("no such labels are generated"),
            }
        };
        let prices = self.rows.iter().map(|row| row.price);
        let units = self.rows.iter().map(|row| i64::from(row.units));
        let columns: [(&str, ArrayRef); 5] = [
            ("product", column(&self.products, |row| row.product)),
            ("category", column(&self.categories, |row| row.category)),
            ("week", column(&self.periods, |row| row.period)),
            ("price", Arc::new(Float64Array::from_iter_values(prices))),
            ("units", Arc::new(Int64Array::from_iter_values(units))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
}

/// Few panels by default, so that they take no longer than other tests.
fn config() -> ProptestConfig {
    let wanted = std::env::var_os("PROPTEST_CASES").map(|_| ProptestConfig::default().cases);
    ProptestConfig {
        cases: wanted.unwrap_or(64),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_panel_is_read_back_from_either_file_in_any_order(
        (sales, shuffled) in sales().prop_flat_map(|sales| {
            let rows = Just(sales.rows.clone()).prop_shuffle();
            (Just(sales), rows)
        })
    ) {
        let expected = sales.panel();
        let folder = tempfile::tempdir().unwrap();
        let shuffled = Sales { rows: shuffled, ..sales.clone() };
        for (name, sales) in [("sorted", &sales), ("shuffled", &shuffled)] {
            let csv = folder.path().join(format!("{name}.csv"));
            sales.write_csv(&csv);
            let read = read_panel(&csv, &Columns::default());
            prop_assert_eq!(&read.map_err(|e| TestCaseError::fail(e.to_string()))?, &expected);
            let parquet = folder.path().join(format!("{name}.parquet"));
            sales.write_parquet(&parquet);
            let read = read_panel(&parquet, &Columns::default());
            prop_assert_eq!(&read.map_err(|e| TestCaseError::fail(e.to_string()))?, &expected);
        }
    }
}
