//! A run compared with an earlier one.

use crate::synthetic::records;
use infermark_backend::{Method, SviSettings};
use infermark_report::baseline::{
    BASELINE_CSV, BASELINE_JSON, Baseline, BaselineCase, BaselineComparison, COLUMNS, Verdict,
};
use infermark_report::records::case_record::{CaseRecord, Status};
use infermark_report::records::results_folder::{ResultsFolder, TABLE_MD};
use infermark_report::redraw::redraw;
use std::collections::HashMap;

fn comparison(here: &[CaseRecord], earlier: &[CaseRecord]) -> BaselineComparison {
    BaselineComparison::new(here, &Baseline::of(earlier.to_vec())).unwrap()
}

/// The verdict on the first case, 10,000 products of SVI, after this change.
fn first_case(change: impl FnOnce(&mut CaseRecord)) -> BaselineCase {
    let mut here = records();
    change(&mut here[0]);
    comparison(&here, &records()).cases.swap_remove(0)
}

/// The record's repeats, so many times as fast.
fn sped_up(record: &mut CaseRecord, factor: f64) {
    for repeat in &mut record.repeats {
        repeat.seconds /= factor;
    }
}

#[test]
fn a_run_does_not_differ_from_itself() {
    let records = records();
    let comparison = comparison(&records, &records);
    // The published NUTS reference has no speed to compare.
    assert_eq!(comparison.cases.len(), records.len() - 1);
    assert_eq!(comparison.remarks, [] as [&str; 0]);
    for case in &comparison.cases {
        match case.ratio {
            Some(ratio) => {
                assert_eq!((case.verdict, ratio.of_medians), (Verdict::NoDifference, 1.0));
                assert!(ratio.low < 1.0 && ratio.high > 1.0 && ratio.confidence > 0.99);
            }
            None => assert!(case.reason.starts_with("no speed here: "), "{}", case.reason),
        }
    }
    let count = |verdict| comparison.count(verdict);
    // One failed, one was left out.
    assert_eq!(
        (count(Verdict::NoDifference), count(Verdict::NotComparable)),
        (9, 2)
    );
    assert!(comparison.cases[4].reason.contains("failed: parity"));
    assert!(
        comparison.cases[2]
            .reason
            .contains("here: chains: R-hat up to 1.021")
    );
}

#[test]
fn verdicts_follow_the_repeats() {
    let verdict = |factor| first_case(|record| sped_up(record, factor));
    let faster = verdict(1.3);
    assert_eq!(faster.verdict, Verdict::Faster);
    let ratio = faster.ratio.unwrap();
    assert!((ratio.of_medians - 1.3).abs() < 1e-12);
    assert!((ratio.low - 1.3 * 0.98 / 1.01).abs() < 1e-12 && (ratio.high - 1.3 * 1.01 / 0.98).abs() < 1e-12);
    assert_eq!(faster.reason, "none");
    assert_eq!(verdict(1.0 / 1.3).verdict, Verdict::Slower);
    // Repeats that lie apart by less than runs of one program do.
    assert_eq!(verdict(1.045).verdict, Verdict::NoDifference);
    let noisy = first_case(|record| {
        sped_up(record, 1.3);
        sped_up_one(record, 0.7);
    });
    assert_eq!(noisy.verdict, Verdict::NoDifference);
    let few = first_case(|record| record.repeats.truncate(3));
    assert_eq!(few.verdict, Verdict::NotComparable);
    assert!(
        few.reason.starts_with("3 and 5 repeats are too few"),
        "{}",
        few.reason
    );
    let mut failed = records();
    failed[0].status = Status::Failed;
    failed[0].reason = "parity: x".into();
    let case = &comparison(&records(), &failed).cases[0];
    assert_eq!(
        (case.verdict, case.reason.as_str()),
        (
            Verdict::NotComparable,
            "no speed in the baseline: failed: parity: x"
        )
    );
}

fn sped_up_one(record: &mut CaseRecord, factor: f64) {
    record.repeats[2].seconds /= factor;
}

#[test]
fn only_like_is_compared_with_like() {
    let refused = |words: &str, change: fn(&mut CaseRecord)| {
        let case = first_case(change);
        assert_eq!(
            (case.verdict, case.ratio),
            (Verdict::NotComparable, None),
            "{words}"
        );
        assert!(case.reason.contains(words), "{words}: {}", case.reason);
    };
    refused(
        "other machine: the baseline was measured on 2-core Intel Xeon",
        |record| {
            record.device = "64-core AMD EPYC, AVX-512".into();
        },
    );
    refused("other machine", |record| {
        record.system.cpu = "AMD EPYC 9R14".into()
    });
    refused(
        "other panel: the baseline's has 10,000 products and 1,560,000 rows",
        |record| {
            record.panel.sha256 = "5".repeat(64);
        },
    );
    refused("other settings: threads 1 (baseline: 2)", |record| {
        record.threads = 1
    });
    refused("other settings: method.particles 8 (baseline: 4)", |record| {
        record.request.method = Method::Svi(SviSettings {
            particles: 8,
            ..SviSettings::default()
        });
    });
    refused(
        "other settings: priors.clip_low -5.0 (baseline: -4.0)",
        |record| {
            record.request.priors.clip_low = -5.0;
        },
    );
    refused("the baseline has no case of svi-tensor", |record| {
        record.backend = "svi-tensor".into();
    });
    // What no speed depends on is no difference.
    let same = first_case(|record| {
        record.request.seed = 7;
        record.sequence = 40;
        if let Method::Svi(svi) = &mut record.request.method {
            svi.iterations = 5;
        }
    });
    assert_eq!(same.verdict, Verdict::NoDifference);
    // The case of its size, settings and threads is found among all others, wherever it stands.
    let mut shuffled = records();
    shuffled.reverse();
    for (case, again) in comparison(&records(), &records())
        .cases
        .iter()
        .zip(&comparison(&records(), &shuffled).cases)
    {
        assert_eq!(case, again);
    }
}

#[test]
fn another_program_and_a_busy_machine_are_remarked() {
    let mut here = records();
    for record in &mut here {
        record.system.kernel = "6.1".into();
        record.system.program.rustc = "rustc 1.96.0".into();
        record.busy_share = Some(0.4);
    }
    let comparison = comparison(&here, &records());
    assert_eq!(
        comparison.remarks,
        [
            "Another kernel than the baseline's: 6.1; there 6.0",
            "Another compiler than the baseline's: rustc 1.96.0; there rustc 1.95.0",
            "Other programs used up to 40% of the machine before the timing of this run",
        ]
    );
    assert_eq!(
        comparison.count(Verdict::NoDifference),
        9,
        "which changes no verdict"
    );
}

#[test]
fn a_folder_keeps_what_it_was_compared_with() {
    let base = tempfile::tempdir().unwrap();
    let folder = |name: &str, records: &[CaseRecord]| {
        let folder = ResultsFolder::create(&base.path().join(name)).unwrap();
        for record in records {
            folder.write_case(record).unwrap();
        }
        folder.path().to_owned()
    };
    let earlier = folder("earlier", &records());
    let mut faster = records();
    sped_up(&mut faster[0], 1.3);
    let here = folder("here", &faster);
    let alone = redraw(&here, None).unwrap().table;
    assert!(!alone.contains("baseline") && !here.join(BASELINE_CSV).exists());

    let drawn = redraw(&here, Some(&Baseline::read(&earlier).unwrap())).unwrap();
    assert!(drawn.table.starts_with(&alone));
    let section = &drawn.table[alone.len()..];
    assert!(section.starts_with("\n## Against the baseline\n"), "{section}");
    assert_eq!(std::fs::read_to_string(here.join(TABLE_MD)).unwrap(), drawn.table);
    let csv = std::fs::read(here.join(BASELINE_CSV)).unwrap();
    let mut reader = csv::Reader::from_reader(csv.as_slice());
    assert_eq!(reader.headers().unwrap(), COLUMNS.as_slice());
    let rows: Vec<HashMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), records().len() - 1);
    for (column, cell) in rows.iter().flatten() {
        assert!(!cell.trim().is_empty(), "{column}");
    }
    assert_eq!(rows[0]["verdict"], "faster");
    assert!((rows[0]["ratio"].parse::<f64>().unwrap() - 1.3).abs() < 1e-12);
    assert_eq!(
        (rows[4]["ratio"].as_str(), rows[4]["rate"].as_str()),
        ("not applicable", "not measured")
    );

    // Drawn again, without the baseline at hand.
    std::fs::remove_dir_all(&earlier).unwrap();
    std::fs::remove_file(here.join(BASELINE_CSV)).unwrap();
    assert_eq!(redraw(&here, None).unwrap().table, drawn.table);
    assert_eq!(std::fs::read(here.join(BASELINE_CSV)).unwrap(), csv);
    std::fs::write(here.join(BASELINE_JSON), "{\"schema_version\": 99}").unwrap();
    let error = redraw(&here, None).unwrap_err().to_string();
    assert!(
        error.contains(BASELINE_JSON) && error.contains("version 99"),
        "{error}"
    );
}
