//! Defective files: the message of each, in full where it fits on one line.

mod in_parts;

use in_parts::read_panel;
use infermark_data::{Columns, ReadError};
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/defects")
        .join(name)
}

/// The message of a file without its path: the header line's rest, then one line per defect.
fn message(name: &str) -> Vec<String> {
    let path = file(name);
    let error = read_panel(&path, &Columns::default()).expect_err(name);
    let text = error.to_string();
    let text = text
        .strip_prefix(&format!("{}", path.display()))
        .expect("the message starts with the file");
    text.lines()
        .map(|line| line.trim().trim_start_matches(": ").to_owned())
        .collect()
}

fn assert_message(name: &str, expected: &[&str]) {
    assert_eq!(message(name), expected, "{name}");
}

#[test]
fn columns() {
    assert_message(
        "missing_column.csv",
        &[
            "1 defect",
            r#"column "price": the column is missing; the file has "product", "category", "week", "prices", "units"; did you mean Columns::price = "prices"?"#,
        ],
    );
    assert_message(
        "missing_columns.csv",
        &[
            "1 defect",
            r#"the columns "product", "category", "week", "price", "units" are missing; the file has "sku", "group", "day", "amount", "quantity"; name the columns that hold them with Columns::product, Columns::category, Columns::period, Columns::price, Columns::units"#,
        ],
    );
    assert_message(
        "semicolons.csv",
        &[
            "1 defect",
            r#"the file has one column, "product;category;week;price;units"; it seems to be separated by ';': save it with commas"#,
        ],
    );
    assert_message(
        "duplicate_column.csv",
        &[
            "1 defect",
            r#"column "price": the column is there twice, as columns 4 and 6; rename or remove one of them"#,
        ],
    );
}

#[test]
fn no_rows() {
    assert_message(
        "empty.csv",
        &["1 defect", "the file is empty; check how it was exported"],
    );
    assert_message(
        "header_only.csv",
        &[
            "1 defect",
            "the file has a header and no rows; check how it was exported",
        ],
    );
}

#[test]
fn prices() {
    let price = |line: u32, value: &str| {
        format!(
            r#"line {line}, column "price", value {value:?}: the price is not a positive finite number; correct the price or remove the row"#
        )
    };
    assert_message("price_zero.csv", &["1 defect", &price(2, "0")]);
    assert_message("price_negative.csv", &["1 defect", &price(3, "-2.5")]);
    assert_message(
        "price_not_finite.csv",
        &[
            "3 defects",
            &price(2, "nan"),
            &price(3, "inf"),
            &price(4, "1e400"),
        ],
    );
    assert_message(
        "price_text.csv",
        &["2 defects", &price(3, "$2.50"), &price(4, "")],
    );
}

#[test]
fn units() {
    let units = |line: u32, value: &str, problem: &str| {
        format!(
            r#"line {line}, column "units", value {value:?}: the units {problem}; units are whole numbers from 0 to 2147483647: correct them or remove the row"#
        )
    };
    assert_message(
        "units_negative.csv",
        &["1 defect", &units(2, "-3", "are negative")],
    );
    assert_message(
        "units_fractional.csv",
        &["1 defect", &units(3, "3.5", "are fractional")],
    );
    assert_message(
        "units_too_large.csv",
        &[
            "2 defects",
            &units(3, "2147483648", "exceed 2147483647"),
            &units(4, "99999999999999999999", "exceed 2147483647"),
        ],
    );
    assert_message(
        "units_text.csv",
        &[
            "2 defects",
            &units(2, "three", "are not a number"),
            &units(3, "", "are not a number"),
        ],
    );
}

#[test]
fn contradictions_name_both_rows() {
    assert_message(
        "two_categories.csv",
        &[
            "1 defect",
            r#"line 4, column "category", value "b": product "p1" has another category, "a", on line 2; give the product one category, or two names"#,
        ],
    );
    let twice = r#"column "week", value "2": product "p1" has this period already, on"#;
    let remedy = "keep one of the two rows, or add them up";
    assert_message(
        "duplicate_row.csv",
        &["1 defect", &format!("line 5, {twice} line 2; {remedy}")],
    );
    // Rows that were skipped because of other defects do not shift the numbers.
    let lines = message("duplicate_after_skipped.csv");
    assert_eq!(lines[0], "3 defects");
    assert!(lines[1].starts_with("line 2, ") && lines[2].starts_with("line 4, "));
    assert_eq!(lines[3], format!("line 5, {twice} line 3; {remedy}"));
}

#[test]
fn empty_cells() {
    assert_message(
        "empty_product.csv",
        &[
            "1 defect",
            r#"line 3, column "product", value "": the product is empty; fill it in or remove the row"#,
        ],
    );
    assert_message(
        "empty_category.csv",
        &[
            "1 defect",
            r#"line 3, column "category", value "  ": the category is empty; fill it in or remove the row"#,
        ],
    );
    assert_message(
        "empty_period.csv",
        &[
            "1 defect",
            r#"line 2, column "week", value "": the period is neither a whole number nor a date; number the periods, or write them as YYYY-MM-DD"#,
        ],
    );
    let lines = message("category_without_products.csv");
    assert_eq!(lines[0], "3 defects");
    assert!(
        lines.contains(
            &r#"line 3, column "category", value "b": the category has no products: none of its rows names one; fill in its products or remove its rows"#
                .to_owned()
        ),
        "{lines:?}"
    );
}

#[test]
fn quoting() {
    let remedy = r#"quote the whole cell and write quotes inside it twice ("")"#;
    assert_message(
        "unclosed_quote.csv",
        &[
            "1 defect",
            &format!("line 3: broken quoting: the quote opened here is never closed; {remedy}"),
        ],
    );
    assert_message(
        "stray_quote.csv",
        &[
            "1 defect",
            &format!("line 3: broken quoting: a quote inside a cell that does not start with one; {remedy}"),
        ],
    );
    assert_message(
        "text_after_quote.csv",
        &[
            "1 defect",
            &format!("line 2: broken quoting: text between a closing quote and the comma; {remedy}"),
        ],
    );
}

#[test]
fn cell_counts() {
    assert_message(
        "truncated.csv",
        &[
            "1 defect",
            r#"line 4, value "p1,a,3,2.": the file ends within this row, after 4 of 5 cells: it is truncated; export or copy the file again"#,
        ],
    );
    let remedy = "check for missing or extra commas; cells with commas need quotes";
    assert_message(
        "too_many_cells.csv",
        &[
            "1 defect",
            &format!(r#"line 3, value "p1, Ltd,a,2,2.5,3": the row has 6 cells, the header 5; {remedy}"#),
        ],
    );
    assert_message(
        "too_few_cells.csv",
        &[
            "1 defect",
            &format!(r#"line 3, value "p1,a,2,2.5": the row has 4 cells, the header 5; {remedy}"#),
        ],
    );
}

#[test]
fn text_encodings() {
    assert_message(
        "latin1.csv",
        &[
            "1 defect",
            "line 2, column \"product\", value \"caf\u{fffd}\": the cell is not UTF-8 text; save the file as UTF-8",
        ],
    );
    assert_message(
        "utf16.csv",
        &[
            "1 defect",
            "the header is not UTF-8 text; save the file as UTF-8 (it may be UTF-16)",
        ],
    );
}

#[test]
fn periods() {
    let period = |line: u32, value: &str| {
        format!(
            r#"line {line}, column "week", value {value:?}: the period is neither a whole number nor a date; number the periods, or write them as YYYY-MM-DD"#
        )
    };
    assert_message(
        "period_fractional.csv",
        &["2 defects", &period(2, "1.5"), &period(3, "W2")],
    );
    assert_message("period_no_such_day.csv", &["1 defect", &period(3, "2023-02-29")]);
    assert_message(
        "period_mixed.csv",
        &[
            "1 defect",
            r#"line 3, column "week", value "2024-01-07": the period is a date here and a whole number on line 2; write all periods in one way"#,
        ],
    );
}

#[test]
fn ten_are_shown_and_the_rest_counted() {
    let lines = message("many.csv");
    assert_eq!(lines.len(), 12);
    assert_eq!(lines[0], "47 defects");
    for (i, line) in lines[1..11].iter().enumerate() {
        assert!(line.starts_with(&format!("line {}, ", i + 2)), "{line}");
    }
    assert_eq!(lines[11], "and 37 more");
}

#[test]
fn lines_are_those_of_an_editor() {
    // Byte-order mark, CRLF, blank lines and a quoted line break before the defects on lines 6 and 9.
    let error = read_panel(&file("line_ends.csv"), &Columns::default()).unwrap_err();
    let rows: Vec<_> = error.defects().iter().map(|d| d.row).collect();
    assert_eq!(rows, [Some(6), Some(9)]);
    assert_eq!(error.defects()[0].column, "price");
    assert_eq!(error.defects()[0].value.as_deref(), Some("-1"));
}

#[test]
fn lines_end_in_three_ways() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.csv");
    for end in ["\n", "\r\n", "\r"] {
        // Around the size of the buffer that the lines are counted through, so that a line end is cut by it.
        for length in (1 << 18) - 3..(1 << 18) + 2 {
            let start = format!("product,category,week,price,units{end}");
            let rest = ",a,1,2.5,3";
            let product = "p".repeat(length - start.len() - rest.len());
            let text = format!("{start}{product}{rest}{end}q,a,1,2.5,3{end}{end}q,a,2,-1,3{end}");
            std::fs::write(&path, text).unwrap();
            let error = read_panel(&path, &Columns::default()).unwrap_err();
            let rows: Vec<_> = error.defects().iter().map(|d| d.row).collect();
            assert_eq!(rows, [Some(5)], "{end:?}, {length}");
        }
    }
}

#[test]
fn a_category_is_named_by_defective_rows_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.csv");
    // Category b has a product in a row without a price, c in one that contradicts another, d has none.
    std::fs::write(
        &path,
        "product,category,week,price,units\n,b,1,2,3\np1,b,1,0,3\np2,a,1,2,3\np2,c,2,2,3\n,c,1,2,3\n,d,1,2,3\n",
    )
    .unwrap();
    let error = read_panel(&path, &Columns::default()).unwrap_err();
    let orphans: Vec<_> = error
        .defects()
        .iter()
        .filter(|d| d.problem.starts_with("the category has no products"))
        .map(|d| d.value.as_deref())
        .collect();
    assert_eq!(orphans, [Some("d")]);
}

#[test]
fn many_categories_without_products_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.csv");
    let mut text = "product,category,week,price,units\np,a,1,2,3\n".to_owned();
    for category in 0..200_000 {
        text += &format!(",{category},1,2,3\n");
    }
    std::fs::write(&path, text).unwrap();
    let message = read_panel(&path, &Columns::default()).unwrap_err().to_string();
    assert!(
        message.contains("400000 defects") && message.ends_with("and 399990 more"),
        "{message}"
    );
    assert!(message.contains(r#"line 3, column "category", value "0": the category has no products"#));
}

#[test]
fn the_cause_is_told_once() {
    let error = read_panel(&file("absent.csv"), &Columns::default()).unwrap_err();
    assert!(error.to_string().contains("No such file"));
    assert!(
        std::error::Error::source(&error).is_none(),
        "it would be printed after the message"
    );
}

#[test]
fn files_that_are_no_tables() {
    let gzipped = file("gzipped.csv");
    let unpacked = file("unpacked-gzipped.csv");
    assert_message(
        "gzipped.csv",
        &[&format!(
            "the file is compressed by gzip; unpack it first: gunzip -c {} > {}",
            gzipped.display(),
            unpacked.display()
        )],
    );
    assert_message(
        "notes.xlsx",
        &[
            "the file is a spreadsheet, not a table as text; save its sheet as CSV (UTF-8, commas) and name that",
        ],
    );
    let lines = message("absent.csv");
    assert!(lines[0].contains("No such file") && lines[0].ends_with("check the path and its permissions"));
    assert!(matches!(
        read_panel(&file(""), &Columns::default()),
        Err(ReadError::Directory { .. })
    ));
}

#[test]
fn damaged_parquet() {
    for name in ["truncated.parquet", "not_parquet.parquet"] {
        let lines = message(name);
        assert_eq!(lines[0], "1 defect");
        assert!(
            lines[1].starts_with("the Parquet file is truncated or damaged ("),
            "{}",
            lines[1]
        );
        assert!(lines[1].ends_with("export or copy the file again"));
    }
}
