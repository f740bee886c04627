//! The flat table and the table to read.

use crate::synthetic::records;
use infermark_backend::Limits;
use infermark_report::published::NUTS_TIME;
use infermark_report::records::case_record::{CaseRecord, Status};
use infermark_report::results_csv::{COLUMNS, row, write_results_csv};
use infermark_report::statistics::speedup::{Speedup, speedups};
use infermark_report::statistics::time_to_posterior::{TimeBasis, TimesAsFast, time_of, times_to_posterior};
use infermark_report::table::table;
use std::collections::HashMap;

/// The records with the published NUTS setting measured beyond its warm-up, so that its time is an estimate.
fn with_warm_nuts() -> Vec<CaseRecord> {
    let mut records = records();
    let nuts = records[3].published_nuts.as_mut().unwrap();
    nuts.measured_draws = 1_500;
    nuts.measured_gradients = 1_500 * 300;
    nuts.measured_seconds = 450.0;
    nuts.gradients_per_draw = vec![300; 1_500];
    records
}

/// Seconds of [`with_warm_nuts`]: 3,000 draws of 300 gradients of a millisecond.
const WARM_NUTS_SECONDS: f64 = 900.0;

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
    // The CPU's bare kernel and memory do not apply to a card.
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
    // Each of two cards has half of the rows.
    let mut two = record.clone();
    two.request.devices.push("cuda:1".parse().unwrap());
    assert!((two.fraction_of_limit().unwrap().0 - 0.5 * share).abs() < 1e-12);
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
        2,
        "f64 against f32 at 10,000 products, two threads of Laplace against one, and no failed case"
    );
    assert!((measured[1].factor - 1.5 / 0.8).abs() < 1e-9 && measured[1].this.contains("laplace-cpu"));
    assert!((measured[0].factor - 512.0 / 1080.0).abs() < 1e-9 && !measured[0].estimated);
    assert_eq!(measured[0].status, Status::Ok);
    let nuts = |found: &[Speedup]| -> Vec<Speedup> {
        let of_nuts = found.iter().filter(|s| s.this.contains("NUTS"));
        of_nuts.cloned().collect()
    };
    assert_eq!(nuts(&found), [], "no factor over an upper bound");
    let estimated = nuts(&speedups(&with_warm_nuts()));
    assert_eq!(estimated.len(), 1);
    assert!((estimated[0].factor - 72_000.0 / WARM_NUTS_SECONDS).abs() < 1e-6 && estimated[0].estimated);
    assert!(estimated[0].against.ends_with(NUTS_TIME));
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
    // Eight particles are another workload: nothing published to compare it with.
    let before = found.len();
    if let infermark_backend::Method::Svi(svi) = &mut records[6].request.method {
        svi.particles = 8;
    }
    assert_eq!(speedups(&records).len(), before - 3);
}

#[test]
fn ways_to_a_posterior_stand_side_by_side_and_say_where_they_are_from() {
    let all = times_to_posterior(&records());
    let of = |products: usize| -> Vec<(&str, TimeBasis)> {
        let here = all.iter().filter(|t| t.products == products);
        here.map(|t| (t.way.as_str(), t.basis)).collect()
    };
    let (svi, reference) = (
        "SVI, 1M iterations",
        "NUTS, one chain, 3,000 draws of which 1,000 warm-up",
    );
    assert_eq!(
        of(10_000),
        [
            (svi, TimeBasis::Published),
            (svi, TimeBasis::Published),
            (svi, TimeBasis::Published),
            (reference, TimeBasis::Published),
            (svi, TimeBasis::Estimated),
            (svi, TimeBasis::Estimated),
            (
                "NUTS, 4 chains, 50 draws each after 50 of warm-up, not converged",
                TimeBasis::Measured
            ),
            (reference, TimeBasis::UpperBound),
            ("Laplace", TimeBasis::Measured),
            ("Laplace", TimeBasis::Measured),
            ("structured Gaussian VI", TimeBasis::Measured),
        ],
        "and no mean-field, which was not measured"
    );
    // Published NUTS is of the smallest set alone, and a failed case has no time.
    assert_eq!(
        of(100_000),
        [(svi, TimeBasis::Published); 3]
            .into_iter()
            .chain([(svi, TimeBasis::Estimated)])
            .collect::<Vec<_>>()
    );
    assert_eq!(of(1_000_000).len(), 3 + 2);

    let laplace = all
        .iter()
        .find(|t| t.on.contains("laplace-cpu") && t.on.contains("2 threads"))
        .unwrap();
    assert!((laplace.seconds - 1.0 / 1.5).abs() < 1e-9);
    let (low, high) = laplace.range.unwrap();
    assert!((low - 1.0 / 1.5 / 1.01).abs() < 1e-9 && (high - 1.0 / 1.5 / 0.98).abs() < 1e-9);
    let times = laplace.times;
    assert!((times.as_published_svi.unwrap() - 79_500.0 * 1.5).abs() < 1e-6);
    assert!((times.as_published_nuts.unwrap() - 72_000.0 * 1.5).abs() < 1e-6);
    // The fastest SVI case here: 1M iterations at 1,080 a second.
    assert!((times.as_svi_here.unwrap() - 1e6 / 1080.0 * 1.5).abs() < 1e-6);
    // Over the upper bound of NUTS here no factor is taken, nor of it; over an estimate one is.
    assert_eq!(times.as_nuts_here, None);
    let bound = all.iter().find(|t| t.basis == TimeBasis::UpperBound).unwrap();
    assert_eq!(bound.times, TimesAsFast::default());
    assert!((bound.seconds - (30.0 + 2940.0 * 1023.0 * 30.0 / 40_000.0)).abs() < 1e-6);
    let with_estimate = times_to_posterior(&with_warm_nuts());
    let of = |way: &str, basis: TimeBasis| {
        let mut found = with_estimate.iter().filter(|t| t.way == way && t.basis == basis);
        found.next().unwrap().times.as_nuts_here.unwrap()
    };
    assert!((of(reference, TimeBasis::Estimated) - 1.0).abs() < 1e-12);
    assert!((of(reference, TimeBasis::Published) - WARM_NUTS_SECONDS / 72_000.0).abs() < 1e-12);
    let published = all.iter().find(|t| t.way == reference).unwrap();
    assert_eq!(
        (published.basis, published.on.as_str()),
        (TimeBasis::Published, NUTS_TIME)
    );
    assert_eq!(laplace.truth.as_ref().unwrap().after, "the whole fit");
    // Of SVI the quality is that of the run so far, and says so, unless that is the whole.
    let svi = all.iter().find(|t| t.basis == TimeBasis::Estimated).unwrap();
    assert_eq!(
        svi.truth.as_ref().unwrap().after,
        "40,000 iterations, the run so far"
    );
    let mut whole = records().swap_remove(0);
    whole.truth_quality.as_mut().unwrap().after = 1_000_000;
    assert_eq!(
        time_of(&whole).unwrap().truth.unwrap().after,
        "1,000,000 iterations"
    );
    // A posterior that has not converged is compared with nothing.
    let short = all.iter().find(|t| t.way.ends_with("not converged")).unwrap();
    assert_eq!(short.times, TimesAsFast::default());
    // For a panel of another size there is nothing published to compare with.
    let mut other = records();
    other[8].panel.rows -= 1;
    let time = time_of(&other[8]).unwrap();
    assert_eq!(time.times, TimesAsFast::default());
}

#[test]
fn a_whole_fit_has_no_rows_a_second_in_the_flat_table() {
    let rows = csv_rows(&records());
    let fit = &rows[8];
    for column in [
        "row_particles_per_second",
        "fraction_of_limit",
        "limit",
        "estimated_seconds_1m",
        "estimated_from_iterations",
        "particles",
    ] {
        assert_eq!(fit[column], "not applicable", "{column}");
    }
    assert_eq!(
        (fit["iteration_is"].as_str(), fit["iterations"].as_str()),
        ("fit", "15")
    );
    let get = |column: &str| fit[column].parse::<f64>().unwrap();
    assert!((get("iterations_per_second") - 1.5).abs() < 1e-9);
    assert!((get("seconds_to_posterior") - 1.0 / 1.5).abs() < 1e-9);
    assert_eq!(
        (fit["seconds_to_posterior_is"].as_str(), fit["steps"].as_str()),
        ("measured", "9")
    );
    assert!((get("product_a_coverage_50") - 0.478).abs() < 1e-9);
    assert_eq!(fit["reference"], "nuts-cpu");
    assert!((get("product_a_sd_ratio_median") - 0.97).abs() < 2e-3);
    assert_eq!(
        (
            rows[0]["steps"].as_str(),
            rows[0]["seconds_to_posterior_is"].as_str()
        ),
        ("not applicable", "estimated")
    );
    assert_eq!(rows[10]["seconds_to_posterior"], "not measured");
}

#[test]
fn the_table_is_the_one_on_file() {
    insta::assert_snapshot!("table", table(&records()));
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

#[test]
fn the_cpu_one_gpu_and_several_stand_side_by_side() {
    let line = |records: &[CaseRecord]| {
        let text = table(records);
        let section = text.split("## SVI on the CPU").nth(1).unwrap();
        section.lines().find(|l| l.contains("10,000")).unwrap().to_owned()
    };
    let all = records();
    let cpu = line(&all);
    assert!(
        cpu.contains("1,080 (svi-cpu, 2 threads)") && cpu.matches("not measured").count() == 2,
        "{cpu}"
    );
    let on = |devices: &[&str], shards: usize, rate: f64| {
        let mut record = all[0].clone();
        record.request.devices = devices.iter().map(|id| id.parse().unwrap()).collect();
        record.request.shards = shards;
        record.backend = if shards > 1 { "svi-sharded" } else { "svi-gpu" }.into();
        for repeat in &mut record.repeats {
            repeat.seconds *= 1_080.0 / rate;
        }
        record
    };
    let four = ["cuda", "cuda:1", "cuda:2", "cuda:3"];
    let mut with = all.clone();
    with.extend([on(&["cuda"], 1, 9_000.0), on(&four, 4, 20_000.0)]);
    let complete = line(&with);
    for cell in [
        "1,080 (svi-cpu, 2 threads)",
        "9,000 (svi-gpu, cuda)",
        "20,000 (svi-sharded, 4 GPUs)",
    ] {
        assert!(complete.contains(cell), "{complete}");
    }
    assert!(table(&with).contains("svi-sharded on 4 GPUs") && !table(&with).contains("logical shards)"));
    // Logical shards stand in no column, however fast, nor does what software plays, nor what failed.
    let mut software = on(&["vulkan"], 1, 70_000.0);
    software.is_software = true;
    let mut failed = on(&["cuda"], 1, 80_000.0);
    failed.status = Status::Failed;
    let mut others = all.clone();
    others.extend([
        on(&["cuda"], 4, 50_000.0),
        on(&["cpu"], 4, 60_000.0),
        on(&four, 8, 90_000.0),
        software,
        failed,
    ]);
    assert_eq!(line(&others), cpu);
    assert!(table(&others).contains("svi-sharded (4 logical shards)"));
}
