//! The column types in other programs' Parquet files, and how they are read.

mod in_parts;

use arrow_array::{
    ArrayRef, BinaryArray, Float32Array, Float64Array, Int32Array, Int64Array, LargeBinaryArray, RecordBatch,
    StringArray, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow_cast::cast;
use arrow_schema::DataType;
use in_parts::read_panel;
use infermark_data::{Columns, ReadError};
use infermark_model::{Labels, Panel};
use parquet::arrow::ArrowWriter;
use std::path::Path;
use std::sync::Arc;

fn read_with(changes: Vec<(&'static str, ArrayRef)>) -> Result<Panel, ReadError> {
    let mut columns: [(&str, ArrayRef); 5] = [
        ("product", Arc::new(StringArray::from(vec!["p1", "p1", "p2"]))),
        ("category", Arc::new(StringArray::from(vec!["a", "a", "b"]))),
        ("week", Arc::new(Int32Array::from(vec![2, 1, 1]))),
        ("price", Arc::new(Float64Array::from(vec![2.5, 2.0, 4.0]))),
        ("units", Arc::new(Int64Array::from(vec![3, 0, 7]))),
    ];
    for (name, array) in changes {
        columns.iter_mut().find(|(n, _)| *n == name).unwrap().1 = array;
    }
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(n, a)| (n, a, true))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.parquet");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    read_panel(&path, &Columns::default())
}

fn defects(changes: Vec<(&'static str, ArrayRef)>) -> Vec<String> {
    let error = read_with(changes).unwrap_err();
    error.defects().iter().map(|d| d.to_string()).collect()
}

fn decimals(data_type: DataType, numbers: [&str; 3]) -> ArrayRef {
    cast(&StringArray::from(numbers.to_vec()), &data_type).unwrap()
}

/// One type of each width, with the scale given.
fn widths(scale: i8) -> [DataType; 4] {
    [
        DataType::Decimal32(9, scale),
        DataType::Decimal64(18, scale),
        DataType::Decimal128(38, scale),
        DataType::Decimal256(60, scale),
    ]
}

#[test]
fn files_of_other_programs_are_read() {
    for name in [
        "binary-text",
        "decimal-38-0",
        "timestamps-new-york",
        "timestamps-utc",
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parquet");
        let path = folder.join(format!("{name}.parquet"));
        let panel = read_panel(&path, &Columns::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(
            (panel.layout().products, panel.units().len()),
            (12, 624),
            "{name}"
        );
        if let Labels::Date(days) = panel.periods() {
            // 2024-01-01 and 51 weeks more, Mondays all.
            assert_eq!(days.first(), Some(&19_723), "{name}");
            assert!(days.windows(2).all(|pair| pair[1] - pair[0] == 7), "{name}");
        }
    }
}

/// Periods that differ in all rows.
fn weeks() -> (&'static str, ArrayRef) {
    ("week", Arc::new(Int32Array::from(vec![3, 2, 1])))
}

#[test]
fn whole_decimals_and_floats_are_whole_numbers() {
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(Float64Array::from(vec![
        202_402.0, 202_401.0, 202_401.0,
    ]))];
    for scale in [0, 2] {
        arrays.extend(widths(scale).map(|data_type| decimals(data_type, ["202402", "202401", "202401"])));
    }
    for array in arrays {
        let label = array.data_type().to_string();
        let panel = read_with(vec![("week", Arc::clone(&array))]).unwrap_or_else(|e| panic!("{label}: {e}"));
        assert_eq!(
            *panel.periods(),
            Labels::Integer(vec![202_401, 202_402]),
            "{label}"
        );
        let keys = vec![("category", Arc::clone(&array)), ("product", array), weeks()];
        let panel = read_with(keys).unwrap_or_else(|e| panic!("{label}: {e}"));
        assert_eq!(
            *panel.products(),
            Labels::Integer(vec![202_401, 202_402]),
            "{label}"
        );
    }
    // Beyond 64 bits a key is still itself, and a period is not.
    let large = ["99999999999999999999999999999999999998", "-1", "-1"];
    let array = decimals(DataType::Decimal128(38, 0), large);
    let keys = vec![
        ("category", Arc::clone(&array)),
        ("product", Arc::clone(&array)),
        weeks(),
    ];
    let panel = read_with(keys).unwrap();
    let labels: Vec<String> = panel.products().iter().map(|label| label.to_string()).collect();
    assert_eq!(labels, ["-1", large[0]]);
    let found = defects(vec![("week", array)]);
    assert!(
        found[0].starts_with(r#"row 1, column "week", value "99999999999999"#),
        "{}",
        found[0]
    );
    assert!(
        found[0].contains("the period is a number beyond 64 bits"),
        "{}",
        found[0]
    );
}

#[test]
fn fractions_in_keys_and_periods_are_named() {
    let floats = || Arc::new(Float64Array::from(vec![Some(1.5), None, Some(1e17)])) as ArrayRef;
    assert_eq!(
        defects(vec![("week", floats()), ("product", floats())]),
        [
            r#"row 1, column "product", value "1.5": the number has a fraction; store whole numbers or text"#,
            r#"row 1, column "week", value "1.5": the number has a fraction; number the periods, or write them as YYYY-MM-DD"#,
            r#"row 2, column "product", value "null": the product is empty; fill it in or remove the row"#,
            r#"row 2, column "week", value "null": the period is neither a whole number nor a date; number the periods, or write them as YYYY-MM-DD"#,
            r#"row 3, column "product", value "1e17": the number is a 64-bit float of 2^53 or beyond, where such floats leave whole numbers out; store whole numbers or text"#,
            r#"row 3, column "week", value "1e17": the number is a 64-bit float of 2^53 or beyond, where such floats leave whole numbers out; number the periods, or write them as YYYY-MM-DD"#,
        ]
    );
    let found = defects(vec![(
        "week",
        decimals(DataType::Decimal64(9, 2), ["1", "1.25", "2"]),
    )]);
    assert_eq!(
        found,
        [
            r#"row 2, column "week", value "1.25": the number has a fraction; number the periods, or write them as YYYY-MM-DD"#
        ]
    );
}

#[test]
fn floats_that_may_be_other_numbers_are_not_merged() {
    // The next whole number is read as the same float.
    let singles = |numbers: Vec<f32>| Arc::new(Float32Array::from(numbers)) as ArrayRef;
    let read = |array: ArrayRef| read_with(vec![("product", array)]);
    assert!(read(singles(vec![16_777_215.0, 16_777_215.0, 1.0])).is_ok());
    let arrays = [
        (singles(vec![16_777_216.0, 1.0, 1.0]), "a 32-bit float of 2^24"),
        (
            Arc::new(Float64Array::from(vec![-9_007_199_254_740_992.0, 1.0, 1.0])) as ArrayRef,
            "a 64-bit float of 2^53",
        ),
        (
            cast(&singles(vec![2_048.0, 1.0, 1.0]), &DataType::Float16).unwrap(),
            "a 16-bit float of 2^11",
        ),
    ];
    for (array, what) in arrays {
        for column in ["product", "week"] {
            let mut changes = vec![(column, Arc::clone(&array))];
            if column == "product" {
                changes.push(weeks());
            }
            let found = defects(changes);
            assert!(
                found[0].starts_with(&format!(r#"row 1, column "{column}""#)),
                "{}",
                found[0]
            );
            assert!(found[0].contains(what), "{}", found[0]);
        }
    }
}

#[test]
fn decimals_beyond_38_digits_are_named() {
    let long = "123456789012345678901234567890123456789012";
    let array = decimals(DataType::Decimal256(60, 0), [long, "1", "1"]);
    assert_eq!(
        defects(vec![("week", array)]),
        [format!(
            r#"row 1, column "week", value "{long}": the number has more than 38 digits; number the periods, or write them as YYYY-MM-DD"#
        )]
    );
    let array = decimals(DataType::Decimal256(60, 50), ["2", "1", "1"]);
    assert_eq!(
        defects(vec![("product", array)]),
        [
            r#"column "product": the column has type Decimal256(60, 50), it must hold text or whole numbers; convert the column, or name another one"#
        ]
    );
}

#[test]
fn prices_and_units_are_decimals_of_any_width_and_scale() {
    for scale in [1, 3, 8] {
        for data_type in widths(scale) {
            let panel = read_with(vec![
                ("price", decimals(data_type.clone(), ["2.5", "2", "4"])),
                ("units", decimals(data_type.clone(), ["3", "0", "7"])),
            ]);
            let panel = panel.unwrap_or_else(|e| panic!("{data_type}: {e}"));
            assert_eq!(panel.units(), [0, 3, 7]);
            let price = panel.product_rows(0).map(|row| row.log_price).last().unwrap();
            assert!((price - 2.5f64.ln()).abs() < 1e-13, "{data_type}");
        }
    }
}

#[test]
fn bytes_are_text_where_they_are_utf_8() {
    let arrays: [ArrayRef; 2] = [
        Arc::new(BinaryArray::from(vec!["é".as_bytes(), "é".as_bytes(), b"b"])),
        Arc::new(LargeBinaryArray::from(vec!["é".as_bytes(), "é".as_bytes(), b"b"])),
    ];
    for array in arrays {
        let panel = read_with(vec![("product", array)]).unwrap();
        let labels: Vec<String> = panel.products().iter().map(|label| label.to_string()).collect();
        assert_eq!(labels, ["b", "é"]);
    }
    let weeks = BinaryArray::from(vec![&b"2024-01-08"[..], b"2024-01-01", b"2024-01-01"]);
    let panel = read_with(vec![("week", Arc::new(weeks))]).unwrap();
    assert_eq!(*panel.periods(), Labels::Date(vec![19_723, 19_730]));
    let latin = BinaryArray::from(vec![&b"caf\xe9"[..], b"b", b"b"]);
    let found = defects(vec![("product", Arc::new(latin))]);
    assert!(found[0].starts_with(r#"row 1, column "product""#), "{}", found[0]);
    assert!(
        found[0].ends_with("the cell is not UTF-8 text; store the column as UTF-8 text"),
        "{}",
        found[0]
    );
}

/// Timestamps of 2024-01-08 and 2024-01-01, this many hours after midnight UTC.
fn timestamps(hours: [i64; 3], zone: &str) -> ArrayRef {
    let day = [19_730, 19_723, 19_723];
    let at = |i: usize| (day[i] * 24 + hours[i]) * 3_600_000_000;
    Arc::new(TimestampMicrosecondArray::from(vec![at(0), at(1), at(2)]).with_timezone(zone))
}

#[test]
fn the_date_is_that_of_the_zone() {
    for (zone, hours) in [
        ("UTC", [0, 0, 3]),
        ("America/New_York", [5, 5, 5]),
        ("Europe/Berlin", [-1, -1, -1]),
        ("Asia/Tokyo", [-9, -9, 14]),
        ("+05:00", [-5, -5, 18]),
        ("-08:00", [8, 31, 8]),
    ] {
        let panel = read_with(vec![("week", timestamps(hours, zone))]).unwrap();
        assert_eq!(*panel.periods(), Labels::Date(vec![19_723, 19_730]), "{zone}");
    }
    let nanoseconds =
        TimestampNanosecondArray::from(vec![7 * 86_400_000_000_000, -1, -1]).with_timezone("UTC");
    let panel = read_with(vec![("week", Arc::new(nanoseconds))]).unwrap();
    assert_eq!(*panel.periods(), Labels::Date(vec![-1, 7]));
}

#[test]
fn dates_that_may_be_a_day_early_are_refused() {
    assert_eq!(
        defects(vec![("week", timestamps([22, 23, 23], "UTC"))]),
        [
            r#"column "week": all timestamps are at 22:00 or 23:00 UTC, which may be midnight in a zone ahead of UTC, a day later; store dates, or timestamps that name their zone"#
        ]
    );
    // In London midnight is at 00:00 in winter.
    assert_eq!(
        defects(vec![("week", timestamps([23, 0, 0], "UTC"))]),
        [
            r#"column "week": all timestamps are at 00:00 or 23:00 UTC, which may be midnight in a zone ahead of UTC, a day later; store dates, or timestamps that name their zone"#
        ]
    );
    assert!(read_with(vec![("week", timestamps([0, 0, 0], "UTC"))]).is_ok());
    assert!(read_with(vec![("week", timestamps([0, 22, 0], "UTC"))]).is_ok());
    // Noon marks a day, and times that differ are times.
    assert!(read_with(vec![("week", timestamps([12, 12, 12], "UTC"))]).is_ok());
    assert!(read_with(vec![("week", timestamps([20, 23, 23], "UTC"))]).is_ok());
    assert_eq!(
        defects(vec![("week", timestamps([0, 0, 0], "Mars/Olympus"))]),
        [
            r#"column "week": the timestamps are in the zone "Mars/Olympus", which is not known; convert them to dates, or to a zone such as "Europe/Paris" or "+02:00""#
        ]
    );
}
