//! The flat table and the table to read.

use crate::synthetic::records;
use infermark_backend::Limits;
use infermark_harness::case_record::{CaseRecord, Status};
use infermark_harness::results_csv::{COLUMNS, row, write_results_csv};
use infermark_harness::speedup::speedups;
use infermark_harness::table::table;
use std::collections::HashMap;

fn csv_rows(records: &[CaseRecord]) -> Vec<HashMap<String, String>> {
    let mut bytes = Vec::new();
    write_results_csv(&mut bytes, records).unwrap();
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    reader.deserialize().map(Result::unwrap).collect()
}

#[test]
fn the_flat_table_begins_with_the_agreed_columns_and_has_no_blank() {
    let mut bytes = Vec::new();
    write_results_csv(&mut bytes, &records()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.starts_with("backend,device,products,rows,iterations,seconds,iterations_per_second,status,")
    );
    let columns: Vec<&str> = row(&records()[0]).iter().map(|cell| cell.0).collect();
    assert_eq!(columns, COLUMNS);
    let rows = csv_rows(&records());
    assert_eq!(rows.len(), records().len());
    for row in &rows {
        for (column, value) in row {
            assert!(!value.trim().is_empty(), "{column}");
        }
    }
}

#[test]
fn figures_of_a_row_follow_from_its_samples() {
    let rows = csv_rows(&records());
    let get = |row: usize, column: &str| rows[row][column].parse::<f64>().unwrap();
    assert_eq!(get(0, "iterations"), 5.0 * 2160.0);
    assert!((get(0, "iterations_per_second") - 1080.0).abs() < 1e-9);
    assert!((get(0, "iterations_per_second_low") - 1058.4).abs() < 1e-9);
    assert!((get(0, "row_particles_per_second") - 1080.0 * 1_560_000.0 * 4.0).abs() < 1.0);
    assert!((get(0, "fraction_of_limit") - 1080.0 * 6_240_000.0 / 8.4e9).abs() < 1e-9);
    assert_eq!(rows[0]["limit"], "bare kernel");
    assert!((get(0, "estimated_seconds_1m") - 1e6 / 1080.0).abs() < 1e-9);
    assert!((get(0, "speedup") - 79_500.0 * 1080.0 / 1e6).abs() < 1e-6);
    assert!(rows[0]["speedup_against"].contains("192 cores"));
    // Two times 156 periods and 10,000 products of 4 bytes against 21 GB/s.
    assert_eq!(rows[2]["limit"], "memory read, 4 bytes a row");
    assert!((get(2, "fraction_of_limit") - 690.0 * 4.0 * 1_560_000.0 / 2.1e10).abs() < 1e-9);
    assert_eq!(rows[2]["estimated_seconds_1m"], "not applicable");
    assert!((get(2, "ess_per_second") - 41.5 / 18.4).abs() < 1e-12);
    assert_eq!(rows[3]["case"], "published NUTS reference");
    assert!(
        (get(3, "estimated_seconds_nuts_reference") - (30.0 + 2940.0 * 1023.0 * 30.0 / 40_000.0)).abs()
            < 1e-6
    );
    // A case that failed its gate has no speed.
    assert_eq!(rows[5]["status"], "failed");
    for column in [
        "iterations",
        "seconds",
        "iterations_per_second",
        "speedup",
        "estimated_seconds_1m",
    ] {
        assert_eq!(rows[5][column], "not measured", "{column}");
    }
    assert!(rows[5]["reason"].starts_with("parity"));
}

#[test]
fn a_card_is_held_against_its_own_limits() {
    let mut record = records().swap_remove(0);
    record.request.devices = vec!["cuda".parse().unwrap()];
    // The processors' bare kernel and memory say nothing of a card.
    assert_eq!(record.fraction_of_limit(), None);
    let limits = Limits {
        read_bytes_per_second: 3e12,
        row_particles_per_second: 2e12,
        native_exp2_ratio: 1.2,
        launch_seconds: 2e-6,
        round_trip_seconds: 2e-5,
    };
    record.device_limits = Some(limits);
    let (share, limit) = record.fraction_of_limit().unwrap();
    assert_eq!(limit, "rows' arithmetic");
    assert!((share - 1080.0 * 6_240_000.0 / 2e12).abs() < 1e-12);
    record.device_limits = Some(Limits {
        read_bytes_per_second: 3e11,
        ..limits
    });
    let (share, limit) = record.fraction_of_limit().unwrap();
    assert_eq!(limit, "memory read, 4 bytes a row");
    assert!((share - 1080.0 * 4.0 * 1_560_000.0 / 3e11).abs() < 1e-12);
    assert!(!record.settings().contains("thread"));
    let text = table(&[record]);
    assert!(
        text.contains("Limits of the devices") && text.contains("2.00 us"),
        "{text}"
    );
}

#[test]
fn speedups_name_both_sides_and_compare_like_with_like() {
    let mut records = records();
    let found = speedups(&records);
    assert!(
        found
            .iter()
            .all(|s| s.this.contains("threads") && !s.against.is_empty())
    );
    let measured: Vec<_> = found.iter().filter(|s| !s.against_published).collect();
    assert_eq!(
        measured.len(),
        1,
        "f64 against f32 at 10,000 products, and no failed case"
    );
    assert!((measured[0].factor - 512.0 / 1080.0).abs() < 1e-9 && !measured[0].estimated);
    assert_eq!(measured[0].status, Status::Ok);
    let nuts: Vec<_> = found.iter().filter(|s| s.against.contains("NUTS")).collect();
    assert_eq!(nuts.len(), 1);
    assert!((nuts[0].factor - 72_000.0 / 2285.715).abs() < 1e-6 && nuts[0].estimated);
    // Repeats are paired: a disturbance of both sides in the same turn falls out, one of a single side does not.
    let mut disturbed = records.clone();
    for record in &mut disturbed[..2] {
        record.repeats[3].seconds *= 2.0;
    }
    disturbed[0].status = Status::Warn;
    disturbed[1].repeats[0].seconds *= 4.0;
    let paired = speedups(&disturbed)
        .into_iter()
        .find(|s| !s.against_published)
        .unwrap();
    assert!((paired.factor - 512.0 / 1080.0).abs() < 1e-9);
    let (low, high) = paired.range.unwrap();
    assert!((low - 512.0 / 1080.0 / 4.0).abs() < 1e-9 && (high - 512.0 / 1080.0).abs() < 1e-9);
    assert_eq!(paired.status, Status::Warn, "the worse of both");
    // As many products with other rows are another panel.
    let mut gaps = records.clone();
    gaps[6].panel.rows -= 1;
    assert_eq!(speedups(&gaps).len(), found.len() - 3);
    // Eight particles are another workload: nothing published to hold it against.
    let before = found.len();
    if let infermark_backend::Method::Svi(svi) = &mut records[6].request.method {
        svi.particles = 8;
    }
    assert_eq!(speedups(&records).len(), before - 3);
}

#[test]
fn the_table_is_the_one_on_file() {
    let text = table(&records());
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/table.md");
    if std::env::var_os("INFERMARK_BLESS").is_some() {
        std::fs::write(file, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(file).unwrap());
}

#[test]
fn the_table_says_what_was_not_measured_and_what_is_published() {
    let text = table(&records());
    let line = |words: &[&str]| {
        text.lines()
            .find(|l| words.iter().all(|w| l.contains(w)))
            .unwrap_or_else(|| panic!("no line with {words:?}"))
            .to_owned()
    };
    assert!(line(&["any", "GPU", "1,000,000"]).matches("not measured").count() == 7);
    assert!(line(&["nuts-cpu (gradients)", "1,000,000"]).contains("not measured"));
    assert!(line(&["4x A10G", "1,000,000", "20 h 50 min"]).contains("102.4x"));
    assert!(text.contains("## Published figures, not measured here"));
    assert!(line(&["svi-cpu", "f64", "100,000", "failed"]).contains("not measured"));
}
