//! Valid files: order, labels, gaps and quoting.

mod in_parts;

use in_parts::read_panel;
use infermark_data::Columns;
use infermark_model::{Labels, Panel};
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn from_text(text: &str) -> Panel {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.csv");
    std::fs::write(&path, text).unwrap();
    read_panel(&path, &Columns::default()).unwrap()
}

/// Every row as text and numbers, in the panel's order.
fn rows(panel: &Panel) -> Vec<(String, String, String, f64, u32)> {
    (0..panel.layout().products)
        .flat_map(|p| {
            panel.product_rows(p).map(move |row| {
                (
                    panel.products().get(p).to_string(),
                    panel
                        .categories()
                        .get(panel.category_of()[p] as usize)
                        .to_string(),
                    panel.periods().get(row.period).to_string(),
                    row.log_price,
                    row.units,
                )
            })
        })
        .collect()
}

/// The rows of a CSV file with the default columns in order, by an independent reader, sorted.
fn sorted_lines(path: &Path) -> Vec<(String, String, String, f64, u32)> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut rows: Vec<_> = text
        .lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let price: f64 = cells[3].parse().unwrap();
            let (product, category, week) = (cells[0].to_owned(), cells[1].to_owned(), cells[2].to_owned());
            (product, category, week, price.ln(), cells[4].parse().unwrap())
        })
        .collect();
    rows.sort_by(|a, b| (&a.0, a.2.parse::<i64>().unwrap()).cmp(&(&b.0, b.2.parse::<i64>().unwrap())));
    rows
}

fn assert_same_rows(panel: &Panel, expected: &[(String, String, String, f64, u32)]) {
    let rows = rows(panel);
    assert_eq!(rows.len(), expected.len());
    for (row, wanted) in rows.iter().zip(expected) {
        assert_eq!(
            (&row.0, &row.1, &row.2, row.4),
            (&wanted.0, &wanted.1, &wanted.2, wanted.4)
        );
        // The panel keeps 48 bits of a deviation from the product's mean.
        assert!((row.3 - wanted.3).abs() < 1e-12);
    }
}

#[test]
fn shuffled_rows_are_sorted() {
    let path = infermark_test_support::data("panel.csv");
    let panel = read_panel(&path, &Columns::default()).unwrap();
    let layout = panel.layout();
    assert_eq!((layout.products, layout.categories, layout.periods), (40, 4, 13));
    assert!(!panel.is_dense());
    assert_eq!(*panel.periods(), Labels::Integer((1..=13).collect()));
    assert_same_rows(&panel, &sorted_lines(&path));
}

#[test]
fn real_sales_with_gaps() {
    let path = data("orange_juice_excerpt.csv");
    let panel = read_panel(&path, &Columns::default()).unwrap();
    assert_eq!(panel.layout().products, 6);
    assert_eq!(panel.layout().categories, 3);
    assert!(!panel.is_dense());
    assert_same_rows(&panel, &sorted_lines(&path));
}

#[test]
fn the_order_of_rows_changes_nothing() {
    let text = std::fs::read_to_string(data("orange_juice_excerpt.csv")).unwrap();
    let (header, rest) = text.split_once('\n').unwrap();
    let sorted = from_text(&text);
    let mut lines: Vec<&str> = rest.lines().collect();
    for order in 0..3 {
        match order {
            0 => lines.reverse(),
            // Runs of one product, out of the labels' order.
            1 => lines.sort_by_key(|line| std::cmp::Reverse(line.split(',').next())),
            // A stride that is coprime to the count visits every line once.
            _ => lines = (0..lines.len()).map(|i| lines[i * 7919 % lines.len()]).collect(),
        }
        assert_eq!(
            from_text(&format!("{header}\n{}", lines.join("\n"))),
            sorted,
            "order {order}"
        );
    }
}

#[test]
fn quotes_line_ends_other_names_and_extra_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Sales.CSV");
    let text = "\u{feff}note,\"sold\",day,SKU,paid,group\r\nx,3.0,2024-03-04,\"Tea, \"\"green\"\"\",1e1,7\r\n\
                ,4,2024-02-26,\"Tea, \"\"green\"\"\", 9.5 ,7\r\n\r\n\"a\nb\",0,2024-02-26,Café,2,12";
    std::fs::write(&path, text).unwrap();
    let columns = Columns {
        product: "SKU".into(),
        category: "group".into(),
        period: "day".into(),
        price: "paid".into(),
        units: "sold".into(),
    };
    let panel = read_panel(&path, &columns).unwrap();
    let found: Vec<_> = rows(&panel)
        .into_iter()
        .map(|(p, c, t, x, y)| (p, c, t, x.exp(), y))
        .collect();
    let expected = [
        ("Café", "12", "2024-02-26", 2.0, 0),
        ("Tea, \"green\"", "7", "2024-02-26", 9.5, 4),
        ("Tea, \"green\"", "7", "2024-03-04", 10.0, 3),
    ];
    assert_eq!(found.len(), expected.len());
    for (row, wanted) in found.iter().zip(expected) {
        assert_eq!(
            (&*row.0, &*row.1, &*row.2, row.4),
            (wanted.0, wanted.1, wanted.2, wanted.4)
        );
        assert!((row.3 - wanted.3).abs() < 1e-12);
    }
    // 7 and 12 are whole numbers: sorted by value, not as text.
    assert_eq!(*panel.categories(), Labels::Integer(vec![7, 12]));
    assert_eq!(*panel.periods(), Labels::Date(vec![19_779, 19_786]));
}

#[test]
fn awkward_sizes() {
    let header = "product,category,week,price,units";
    let one = from_text(&format!("{header}\np,c,5,2,0\n"));
    assert_eq!((one.rows(), one.is_dense(), one.sums().product[0]), (1, true, 0));
    let one_period = from_text(&format!("{header}\n2,1,5,2,0\n10,1,5,2,0\n1,1,5,3,0"));
    assert_eq!(*one_period.products(), Labels::Integer(vec![1, 2, 10]));
    assert!(one_period.is_dense());
    let one_product = from_text(&format!("{header}\np,c,500000,2,1\np,c,-500000,2,2147483647\n"));
    assert_eq!(one_product.units(), [i32::MAX as u32, 1]);
    assert_eq!(*one_product.periods(), Labels::Integer(vec![-500_000, 500_000]));
}
