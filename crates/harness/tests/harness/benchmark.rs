//! A whole benchmark on small panels, with backends that are right, wrong, and broken.

use crate::fake::{FIT_STEPS, Fake, Fault, card};
use infermark_backend::{
    Backend, Interrupt, LaplaceSettings, Method, NutsSettings, Precision, Request, SviSettings,
};
use infermark_harness::benchmark::{BenchPanel, Case, Plan, run_benchmark};
use infermark_harness::observer::{Observer, Silent};
use infermark_harness::timed_fits::TimedFits;
use infermark_model::Site;
use infermark_report::quality::coverage::LEVELS;
use infermark_report::records::case_record::{CaseKind, CaseRecord, IterationUnit, Status};
use infermark_report::records::results_folder::ResultsFolder;
use infermark_report::redraw::redraw;
use infermark_test_support::panel_with_gaps as panel;
use std::sync::Arc;

fn svi(backend: Arc<dyn Backend>) -> Case {
    Case {
        backend,
        request: Request::new(Method::Svi(SviSettings {
            precision: Precision::F64,
            ..SviSettings::default()
        })),
        most_products: usize::MAX,
    }
}

fn nuts() -> Case {
    Case {
        backend: Fake::backend("nuts-fake", Fault::None),
        request: Request::new(Method::Nuts(NutsSettings {
            chains: 2,
            warmup: 5,
            draws: 10,
            ..NutsSettings::diagonal()
        })),
        most_products: 20,
    }
}

fn plan(cases: Vec<Case>) -> Plan {
    Plan {
        repeats: 3,
        warmup_seconds: 0.01,
        warmup_iterations: 30,
        repeat_seconds: 0.02,
        quality_seconds: 0.05,
        published_nuts_seconds: 0.02,
        memory_array_bytes: Some(16 << 20),
        // Other tests run at the same time.
        settle_seconds: 0.0,
        ..Plan::new(vec![12, 30], cases)
    }
}

fn make(products: usize) -> Result<BenchPanel, String> {
    Ok(BenchPanel {
        panel: panel(products),
        source: format!("test panel, {products} products"),
        product_a_truth: Some(vec![-1.0; products]),
    })
}

#[derive(Default)]
struct Notes {
    phases: Vec<String>,
    last: Option<(u64, u64)>,
}

impl Observer for Notes {
    fn phase(&mut self, text: &str) {
        self.phases.push(text.to_owned());
    }

    fn advanced(&mut self, done: u64, total: u64) {
        assert!(done <= total);
        self.last = Some((done, total));
    }
}

#[test]
fn the_right_are_timed_and_the_wrong_have_no_speed() {
    let base = tempfile::tempdir().unwrap();
    let folder = ResultsFolder::create(&base.path().join("r")).unwrap();
    let mut plan = plan(vec![
        svi(Fake::backend("svi-fake", Fault::None)),
        svi(Fake::backend("svi-wrong", Fault::Gradient)),
        svi(Fake::backend("svi-absent", Fault::Start)),
        svi(Fake::backend("svi-breaks", Fault::Run)),
        nuts(),
    ]);
    plan.kernel_limit = true;
    let mut notes = Notes::default();
    let outcome = run_benchmark(&plan, &mut make, &folder, &mut notes, &Interrupt::new()).unwrap();
    assert!(!outcome.is_success() && !outcome.interrupted);
    assert!(notes.phases.iter().any(|p| p.contains("parity of svi-wrong")));
    assert!(notes.last.is_some());

    let of = |name: &str, products: usize| {
        outcome
            .records
            .iter()
            .find(|r| r.backend == name && r.panel.products == products && r.kind == CaseKind::Speed)
            .unwrap()
    };
    for products in [12, 30] {
        let right = of("svi-fake", products);
        assert_ne!(right.status, Status::Failed, "{}", right.reason);
        assert_eq!(right.repeats.len(), 3);
        let rate = right.iterations_per_second().unwrap();
        assert!(rate.low <= rate.median && rate.median <= rate.high && rate.low > 0.0);
        assert!(right.parity.as_ref().unwrap().passed());
        assert!(right.setup_seconds.is_some() && right.warmup.unwrap().iterations >= 30);
        assert_eq!(
            right.kernel_row_particles_per_second,
            Some(1e9 + panel(products).rows() as f64)
        );
        for (name, words) in [
            ("svi-wrong", "parity: gradient near the data"),
            ("svi-absent", "did not start: test processor failed"),
            ("svi-breaks", "on purpose"),
        ] {
            let wrong = of(name, products);
            assert_eq!(wrong.status, Status::Failed);
            assert!(wrong.reason.contains(words), "{}", wrong.reason);
            assert!(wrong.iterations_per_second().is_none() && !wrong.has_speed());
        }
    }
    // The quality phase runs on the smallest size alone.
    let quality = |products| of("svi-fake", products).truth_quality.as_ref();
    let smallest = of("svi-fake", 12);
    let timed = smallest.warmup.unwrap().iterations + smallest.timed_iterations();
    assert!(quality(12).unwrap().after > timed);
    assert!(quality(30).is_none());

    let sampler = of("nuts-fake", 12);
    assert_eq!(sampler.particles(), 1);
    let chains = sampler.chain_quality.as_ref().unwrap();
    assert_eq!((chains.chains, chains.divergences), (2, 2));
    assert_eq!(chains.min_ess_tail, None, "not a number is not measured");
    assert!(sampler.reason.contains("2 divergences") && sampler.reason.contains("R-hat"));
    let left_out = of("nuts-fake", 30);
    assert_eq!(left_out.status, Status::NotMeasured);
    assert!(
        left_out.reason.contains("largest size for samplers, 20"),
        "{}",
        left_out.reason
    );
    assert!(!left_out.has_speed() && left_out.report.is_none());
    let reference = outcome
        .records
        .iter()
        .find(|r| r.kind == CaseKind::PublishedNuts)
        .unwrap();
    let estimate = reference.published_nuts.as_ref().unwrap();
    assert_eq!(
        estimate.measured_gradients,
        estimate.gradients_per_draw.iter().sum::<u64>()
    );
    assert_eq!(estimate.gradients_per_draw[..3], [1, 2, 3]);

    // The folder alone gives the same again, and the same once more.
    let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let (csv, table) = (text("results.csv"), text("table.md"));
    assert_eq!(outcome.table, table);
    assert_eq!(csv.lines().count(), 1 + outcome.records.len());
    std::fs::remove_file(folder.path().join("results.csv")).unwrap();
    let drawn = redraw(folder.path(), None).unwrap();
    assert!(drawn.records == outcome.records, "cases read back as they were");
    assert_eq!((text("results.csv"), text("table.md")), (csv, table));
    assert_eq!(drawn.plots, outcome.plots);
    assert!(drawn.plots.iter().all(|p| p.exists()));
    // What is not here is not measured, and says so.
    assert!(drawn.table.contains("nuts-fake (gradients)") && drawn.table.contains("not measured"));
}

#[test]
fn an_interrupted_benchmark_keeps_what_it_had() {
    struct After(Interrupt, u64);
    impl Observer for After {
        fn phase(&mut self, _: &str) {}

        fn advanced(&mut self, done: u64, _: u64) {
            if done >= self.1 {
                self.0.set();
            }
        }
    }
    let base = tempfile::tempdir().unwrap();
    let interrupt = Interrupt::new();
    let plan = plan(vec![
        svi(Fake::backend("svi-fake", Fault::None)),
        svi(Fake::backend("svi-other", Fault::None)),
    ]);
    let folder = ResultsFolder::create(&base.path().join("r")).unwrap();
    // After the first case's second repeat, the second case has had one.
    let outcome = run_benchmark(
        &plan,
        &mut make,
        &folder,
        &mut After(interrupt.clone(), 3),
        &interrupt,
    )
    .unwrap();
    assert!(outcome.interrupted);
    let repeats: Vec<usize> = outcome.records.iter().map(|r| r.repeats.len()).collect();
    assert_eq!(repeats, [2, 1], "one size, repeats interleaved");
    assert!(outcome.records[0].reason.contains("2 of 3 repeats"));
    assert!(outcome.records.iter().all(|r| r.status == Status::Warn));
    assert!(redraw(folder.path(), None).unwrap().records == outcome.records);
}

#[test]
fn a_benchmark_that_measured_nothing_is_no_success() {
    let base = tempfile::tempdir().unwrap();
    let folder = ResultsFolder::create(&base.path().join("r")).unwrap();
    let mut plan = plan(vec![nuts()]);
    plan.products = vec![30];
    let outcome = run_benchmark(&plan, &mut make, &folder, &mut Silent, &Interrupt::new()).unwrap();
    assert_eq!(outcome.records.len(), 1);
    assert_eq!(outcome.records[0].status, Status::NotMeasured);
    assert!(!outcome.is_success());
    assert!(
        outcome
            .table
            .contains("not measured: above the largest size for samplers, 20")
    );
    let csv = std::fs::read_to_string(folder.path().join("results.csv")).unwrap();
    assert_eq!(csv.lines().count(), 2);

    let interrupt = Interrupt::new();
    interrupt.set();
    let folder = ResultsFolder::create(&base.path().join("s")).unwrap();
    let outcome = run_benchmark(&plan, &mut make, &folder, &mut Silent, &interrupt).unwrap();
    assert!(outcome.records.is_empty() && !outcome.is_success());
    let csv = std::fs::read_to_string(folder.path().join("results.csv")).unwrap();
    assert!(csv.starts_with("backend,device,") && csv.lines().count() == 1);
}

#[test]
fn what_is_not_served_is_left_out_and_no_failure() {
    let base = tempfile::tempdir().unwrap();
    let folder = ResultsFolder::create(&base.path().join("r")).unwrap();
    let mut plan = plan(vec![
        svi(Fake::backend("svi-fake", Fault::None)),
        svi(Fake::backend("svi-large", Fault::Memory)),
        svi(Fake::backend("svi-other", Fault::Unsupported)),
    ]);
    plan.products = vec![12];
    let outcome = run_benchmark(&plan, &mut make, &folder, &mut Silent, &Interrupt::new()).unwrap();
    assert!(outcome.is_success());
    assert!(outcome.records[0].has_speed());
    for (record, reason) in outcome.records[1..].iter().zip([
        "the panel needs 2 bytes, and test processor leaves 1 bytes; give it more memory",
        "backend svi-other cannot serve tests",
    ]) {
        assert_eq!(record.status, Status::NotMeasured);
        assert_eq!(record.reason, reason);
        assert!(!record.has_speed());
        assert!(outcome.table.contains(reason), "{}", outcome.table);
    }
}

#[test]
fn equal_cards_are_told_apart_and_limits_that_fail_are_remarked() {
    let base = tempfile::tempdir().unwrap();
    let folder = ResultsFolder::create(&base.path().join("r")).unwrap();
    let on = |index, fault| {
        let mut case = svi(Fake::backend("svi-fake", fault));
        case.request.devices = vec![card(index)];
        case
    };
    let mut plan = plan(vec![on(0, Fault::None), on(1, Fault::Limits)]);
    plan.products = vec![12];
    let outcome = run_benchmark(&plan, &mut make, &folder, &mut Silent, &Interrupt::new()).unwrap();
    assert!(outcome.is_success());
    let devices: Vec<&str> = outcome.records.iter().map(|r| r.device.as_str()).collect();
    assert_eq!(devices, ["test card (cuda)", "test card (cuda:1)"]);
    assert!(outcome.table.contains("svi-fake on cuda:1"), "{}", outcome.table);
    let remark = "limits of the device: cuda:1 failed: it tells nothing";
    let [known, unknown] = &outcome.records[..] else {
        panic!("two cases");
    };
    assert!(!known.reason.contains("limits"), "{}", known.reason);
    assert_eq!(unknown.status, Status::Warn);
    assert!(unknown.reason.contains(remark), "{}", unknown.reason);
    assert!(unknown.has_speed() && unknown.device_limits.is_none());
    let csv = std::fs::read_to_string(folder.path().join("results.csv")).unwrap();
    assert!(
        csv.contains("test card (cuda:1)") && csv.contains(remark),
        "{csv}"
    );
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    let base = tempfile::tempdir().unwrap();
    let folder = ResultsFolder::create(&base.path().join("r")).unwrap();
    let good = || plan(vec![svi(Fake::backend("svi-fake", Fault::None))]);
    for (bad, word) in [
        (
            Plan {
                products: vec![],
                ..good()
            },
            "size",
        ),
        (
            Plan {
                products: vec![20, 10],
                ..good()
            },
            "ascending",
        ),
        (
            Plan {
                cases: vec![],
                ..good()
            },
            "backend",
        ),
        (Plan { repeats: 0, ..good() }, "repeats"),
        (
            Plan {
                repeat_seconds: f64::NAN,
                ..good()
            },
            "seconds",
        ),
    ] {
        let error = run_benchmark(&bad, &mut make, &folder, &mut Silent, &Interrupt::new()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let mut refuse = |_| Err("no memory".to_owned());
    let error = run_benchmark(&good(), &mut refuse, &folder, &mut Silent, &Interrupt::new()).unwrap_err();
    assert!(error.to_string().contains("12 products: no memory"), "{error}");
}

fn fit(backend: Arc<dyn Backend>) -> Case {
    Case {
        backend,
        request: Request::new(Method::Laplace(LaplaceSettings::default())),
        most_products: usize::MAX,
    }
}

#[test]
fn whole_fits_are_timed_one_at_a_time_and_held_against_the_chains() {
    let base = tempfile::tempdir().unwrap();
    let folder = ResultsFolder::create(&base.path().join("r")).unwrap();
    let mut plan = plan(vec![
        svi(Fake::backend("svi-fake", Fault::None)),
        nuts(),
        fit(Fake::backend("laplace-fake", Fault::None)),
        fit(Fake::backend("laplace-stops", Fault::Unconverged)),
        fit(Fake::backend("laplace-breaks", Fault::Step)),
        fit(Fake::backend("laplace-absent", Fault::Unsupported)),
        fit(Fake::backend("laplace-large", Fault::Memory)),
    ]);
    plan.kernel_limit = true;
    // Shorter than a fit: a repeat holds one all the same.
    plan.repeat_seconds = 1e-9;
    let outcome = run_benchmark(&plan, &mut make, &folder, &mut Silent, &Interrupt::new()).unwrap();
    let of = |name: &str, products: usize| {
        let here = |r: &&CaseRecord| r.backend == name && r.panel.products == products;
        outcome.records.iter().find(here).unwrap()
    };
    for products in [12, 30] {
        let fits = of("laplace-fake", products);
        assert_ne!(fits.status, Status::Failed, "{}", fits.reason);
        assert_eq!(fits.unit, IterationUnit::Fits);
        assert_eq!(fits.warmup.unwrap().iterations, 1);
        let counts: Vec<u64> = fits.repeats.iter().map(|s| s.iterations).collect();
        assert_eq!(counts, [1, 1, 1]);
        assert!(fits.repeats.iter().all(|s| s.seconds > 0.0));
        assert!(fits.setup_seconds.is_some());
        assert_eq!(fits.kernel_row_particles_per_second, None);
        assert_eq!(
            (fits.row_particles_per_second(), fits.fraction_of_limit()),
            (None, None)
        );
        assert_eq!(fits.estimated_seconds_1m(), None);
    }
    let stops = of("laplace-stops", 12);
    assert_eq!(stops.status, Status::Warn);
    assert!(
        stops.reason.contains("not converged after 3 steps"),
        "{}",
        stops.reason
    );
    let breaks = of("laplace-breaks", 12);
    assert_eq!(breaks.status, Status::Failed);
    assert!(breaks.reason.contains("while warming up"), "{}", breaks.reason);
    for (name, reason) in [
        ("laplace-absent", "cannot serve"),
        ("laplace-large", "needs 2 bytes"),
    ] {
        let left_out = of(name, 12);
        assert_eq!(left_out.status, Status::NotMeasured);
        assert!(left_out.reason.contains(reason), "{}", left_out.reason);
    }

    // Quality, on the smallest size alone.
    let smallest = of("laplace-fake", 12);
    let truth = smallest.truth_quality.as_ref().unwrap();
    assert_eq!((truth.after, truth.coverage.len()), (FIT_STEPS, LEVELS.len()));
    assert!(
        truth.coverage.is_sorted_by(|a, b| a.actual <= b.actual),
        "{:?}",
        truth.coverage
    );
    assert_eq!(truth.coverage[9].actual, truth.product_a_coverage_95);
    assert!(of("laplace-fake", 30).truth_quality.is_none());
    // The fake's chains stay where its fits do, with twice their standard deviations.
    let beside = smallest.agreement.as_ref().unwrap();
    assert_eq!(beside.reference.name, "nuts-fake");
    let elasticities = beside.site(Site::ProductA).unwrap();
    assert_eq!(
        (elasticities.latents, elasticities.mean_difference_largest),
        (12, 0.0)
    );
    assert!((elasticities.sd_ratio_median - 0.5).abs() < 1e-12);
    assert_eq!(beside.sample[3].units, Some(panel(12).sums().product[3]));
    assert!(of("svi-fake", 12).agreement.is_some() && of("svi-fake", 30).agreement.is_none());
    assert!(of("nuts-fake", 12).agreement.is_none(), "the reference itself");

    let row = |words: &[&str]| {
        let has = |line: &&str| words.iter().all(|w| line.contains(w));
        outcome
            .table
            .lines()
            .find(has)
            .unwrap_or_else(|| panic!("{words:?}: {}", outcome.table))
    };
    assert!(
        row(&["laplace-fake (whole fits)", "| 12 |".trim_matches('|')])
            .matches("not applicable")
            .count()
            == 3
    );
    row(&["Laplace", "laplace-fake on", "measured", "the whole fit"]);
    row(&["laplace-fake", "product_a", "0.500"]);
    for name in ["time_to_posterior.svg", "coverage_12.png", "beside_nuts_12.svg"] {
        assert!(folder.plots().join(name).exists(), "{name}");
    }
    let csv = std::fs::read_to_string(folder.path().join("results.csv")).unwrap();
    assert!(csv.contains(",fit,"), "{csv}");
    let again = redraw(folder.path(), None).unwrap();
    assert!(again.records == outcome.records && again.table == outcome.table);
}

#[test]
fn what_is_timed_among_the_first_iterations_is_told() {
    let base = tempfile::tempdir().unwrap();
    let folder = ResultsFolder::create(&base.path().join("r")).unwrap();
    let mut short = svi(Fake::backend("svi-short", Fault::None));
    let Method::Svi(settings) = &mut short.request.method else {
        unreachable!("it is")
    };
    settings.iterations = 25;
    let plan = Plan {
        products: vec![12],
        repeat_seconds: 1e-9,
        ..plan(vec![short, svi(Fake::backend("svi-fake", Fault::None))])
    };
    let outcome = run_benchmark(&plan, &mut make, &folder, &mut Silent, &Interrupt::new()).unwrap();
    let told = |name: &str| {
        let record = outcome.records.iter().find(|r| r.backend == name).unwrap();
        record.reason.contains("timed from iteration")
    };
    assert!(told("svi-short") && !told("svi-fake"));
}

#[test]
fn as_many_fits_as_fill_a_repeat_and_none_that_was_cut_short() {
    let (backend, panel) = (Fake::backend("laplace-fake", Fault::None), panel(30));
    let request = Request::new(Method::Laplace(LaplaceSettings::default()));
    let mut fits = TimedFits::new(backend, panel, request);
    let interrupt = Interrupt::new();
    fits.repeat(0.05, &interrupt).unwrap();
    let [sample] = fits.repeats[..] else {
        panic!("one repeat");
    };
    assert!(sample.seconds >= 0.05 && sample.iterations > 1, "{sample:?}");
    // What came before stays.
    interrupt.set();
    fits.repeat(0.05, &interrupt).unwrap();
    fits.warmup(&interrupt).unwrap();
    assert_eq!((fits.repeats.len(), fits.warmup.iterations), (1, 0));
    assert_eq!(fits.last.unwrap().steps, FIT_STEPS);
}
