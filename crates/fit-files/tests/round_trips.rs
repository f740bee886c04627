//! Whatever a fit writes is read back: prior settings, `posterior.csv` and `run.json`.
//!
//! `PROPTEST_CASES` sets how many of each are tried. What once failed stands in `round_trips.regressions`, and is tried first.

use infermark_atomic_file::ClaimedFolder;
use infermark_backend::{
    Cause, CommunicationReport, Detail, GaussianReport, LaplaceSettings, Method, NutsSettings, Posterior,
    Precision, Report, Request, RunState, SviReport, SviSettings, TracePoint,
};
use infermark_fit_files::fit_folder::FitFolder;
use infermark_fit_files::fit_output::{FILES, FitParts, write_fit};
use infermark_fit_files::fit_record::{FitRecord, FitStatus, finite_report};
use infermark_fit_files::given::GivenPriors;
use infermark_fit_files::panel_description::PanelDescription;
use infermark_machine::System;
use infermark_model::{Centredness, Labels, Likelihood, Panel, PanelPart, Priors, Specification};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// Asked once: a driver may take its time.
static SYSTEM: LazyLock<System> = LazyLock::new(System::describe);

fn priors() -> impl Strategy<Value = Priors> {
    let mean = || prop_oneof![-5.0..5.0_f64, -1e300..1e300];
    let sd = || prop_oneof![0.01..5.0_f64, 1e-300..1e300];
    let means = (mean(), mean(), mean(), mean());
    let sds = (sd(), sd(), sd(), sd(), sd(), sd());
    let clip = (-80.0..0.0_f64, 0.01..80.0_f64);
    (means, sds, clip).prop_map(|(means, sds, clip)| Priors {
        global_a_mean: means.0,
        global_a_sd: sds.0,
        category_a_sd: sds.1,
        product_a_sd: sds.2,
        product_effect_mean: means.1,
        product_effect_sd: sds.3,
        time_cat_effects_mean: means.2,
        time_cat_effects_sd: sds.4,
        log_shape_mean: means.3,
        log_shape_sd: sds.5,
        clip_low: clip.0,
        clip_high: clip.1,
    })
}

/// A panel of a few products with any names.
fn panel() -> impl Strategy<Value = Panel> {
    let labels = || {
        prop_oneof![
            btree_set("[^\\p{C}]{1,12}", 1..5)
                .prop_map(|all| Labels::Text(all.into_iter().map(String::into_boxed_str).collect())),
            btree_set(any::<i64>(), 1..5).prop_map(|all| Labels::Integer(all.into_iter().collect())),
        ]
    };
    let periods = prop_oneof![
        btree_set(any::<i64>(), 1..4).prop_map(|all| Labels::Integer(all.into_iter().collect())),
        btree_set(-20_000..40_000_i32, 1..4).prop_map(|all| Labels::Date(all.into_iter().collect())),
    ];
    (labels(), periods).prop_map(|(products, periods)| {
        let mut part = PanelPart::new(1, periods.len());
        let (prices, units) = (vec![2.5; periods.len()], vec![3; periods.len()]);
        for _ in 0..products.len() {
            part.push_product(0, None, &prices, &units).unwrap();
        }
        let categories = Labels::Text(vec!["a, \"b\"".into()]);
        Panel::from_parts(products, categories, periods, vec![part]).unwrap()
    })
}

/// A panel, with a posterior of any numbers.
fn fitted() -> impl Strategy<Value = (Panel, Posterior)> {
    let likelihood = prop_oneof![Just(Likelihood::Poisson), Just(Likelihood::NegativeBinomial)];
    (panel(), likelihood).prop_flat_map(|(panel, likelihood)| {
        let layout = panel.layout_for(likelihood);
        let numbers = || {
            vec(
                proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
                layout.latents(),
            )
        };
        let columns = (numbers(), numbers(), numbers(), numbers());
        columns.prop_map(move |(mean, sd, q05, q95)| {
            let posterior = Posterior {
                q05,
                q95,
                ..Posterior::normal(layout, mean, sd)
            };
            (panel.clone(), posterior)
        })
    })
}

fn request() -> impl Strategy<Value = Request> {
    let svi = (1..u64::MAX, 1..4096_usize, any::<bool>()).prop_map(|(iterations, particles, single)| {
        Method::Svi(SviSettings {
            iterations,
            particles,
            precision: if single { Precision::F32 } else { Precision::F64 },
            ..SviSettings::default()
        })
    });
    let nuts = (1..64_usize, any::<u64>(), 0.1..0.99_f64).prop_map(|(chains, draws, target_accept)| {
        Method::Nuts(NutsSettings {
            chains,
            draws,
            target_accept,
            ..NutsSettings::diagonal()
        })
    });
    let laplace = Just(Method::Laplace(LaplaceSettings::default()));
    let method = prop_oneof![svi, nuts, laplace];
    (
        method,
        priors(),
        any::<u64>(),
        proptest::option::of(1..1024_usize),
    )
        .prop_map(|(method, priors, seed, threads)| Request {
            priors,
            seed,
            threads,
            ..Request::new(method)
        })
}

/// A report with figures of any kind, also such as JSON has not.
fn report() -> impl Strategy<Value = Report> {
    let any_number = || proptest::num::f64::ANY;
    let point = (any::<u64>(), vec(any_number(), 4)).prop_map(|(iteration, numbers)| TracePoint {
        iteration,
        seconds: numbers[0],
        loss: numbers[1],
        effective_particles: numbers[2],
        learning_rate: numbers[3],
    });
    let svi =
        (any::<u64>(), vec(any_number(), 7), vec(point, 0..6)).prop_map(|(iterations, numbers, trace)| {
            Detail::Svi(SviReport {
                iterations,
                iterations_per_second: numbers[0],
                mean_effective_particles: numbers[1],
                centredness: Centredness::new(std::array::from_fn(|site| numbers[2 + site])),
                trace,
                communication: (iterations % 2 == 1).then_some(CommunicationReport {
                    ranks: 1 + iterations as usize % 9,
                    operations_per_iteration: numbers[0],
                    bytes_per_iteration: numbers[1],
                    seconds: numbers[2],
                    bus_bandwidth: numbers[3],
                }),
            })
        });
    let gaussian =
        (any::<u64>(), vec(any_number(), 4), any::<bool>()).prop_map(|(steps, numbers, converged)| {
            Detail::Gaussian(GaussianReport {
                skewed_products: 0,
                left_out_products: Vec::new(),
                newton_steps: steps,
                variational_steps: 0,
                converged,
                gradient_norm: numbers[0],
                decrement: numbers[1],
                log_joint: numbers[2],
                elbo: Some(numbers[3]),
                trace: Vec::new(),
            })
        });
    let words = vec("\\PC{0,20}", 0..3);
    (prop_oneof![svi, gaussian], words, 0.0..1e6_f64, 0.0..1e6_f64).prop_map(
        |(detail, warnings, setup_seconds, run_seconds)| Report {
            backend: "any".into(),
            device: "a device".into(),
            threads: 2,
            setup_seconds,
            run_seconds,
            state: RunState::Running,
            warnings: warnings
                .into_iter()
                .map(|text| Cause::from(text).into())
                .collect(),
            detail,
        },
    )
}

/// Few by default, so that they take no longer than other tests.
fn config() -> ProptestConfig {
    let wanted = std::env::var_os("PROPTEST_CASES").map(|_| ProptestConfig::default().cases);
    ProptestConfig {
        cases: wanted.unwrap_or(48),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn prior_settings_are_read_back(priors in priors(), named in vec(any::<bool>(), 12)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("priors.json");
        let read = |settings: &Map<String, Value>| {
            std::fs::write(&path, serde_json::to_string(settings).unwrap()).unwrap();
            GivenPriors::read(Some(&path)).unwrap().over(Priors::default()).unwrap()
        };
        let Value::Object(mut settings) = serde_json::to_value(priors).unwrap() else {
            panic!("an object");
        };
        prop_assert_eq!(read(&settings), priors);
        // What is not named stays as it was.
        let mut places = named.iter();
        settings.retain(|_, _| *places.next().unwrap());
        let Value::Object(mut expected) = serde_json::to_value(Priors::default()).unwrap() else {
            panic!("an object");
        };
        expected.extend(settings.clone());
        prop_assert_eq!(serde_json::to_value(read(&settings)).unwrap(), Value::Object(expected));
    }

    #[test]
    fn a_fit_is_read_back(
        (panel, posterior) in fitted(),
        request in request(),
        report in report(),
        reason in proptest::option::of("\\PC{1,20}"),
        sales in any::<bool>(),
    ) {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("fit");
        let status = if reason.is_some() { FitStatus::Unfinished } else { FitStatus::Finished };
        let request = Request { likelihood: posterior.layout.likelihood, ..request };
        let description = PanelDescription::new(&panel, "sales.csv");
        let mut record = FitRecord::new(status, reason, request, report, description, SYSTEM.clone());
        if sales {
            record.model = Specification::Sales;
        }
        let claimed = ClaimedFolder::claim(&folder, &FILES).unwrap();
        let parts = FitParts { posterior: Some(&posterior), ..FitParts::default() };
        write_fit(&claimed, &panel, &parts, record.clone()).unwrap();
        drop(claimed);
        let read = FitFolder::read(&folder).unwrap();
        let bits = |numbers: &[f64]| -> Vec<u64> { numbers.iter().map(|n| n.to_bits()).collect() };
        for (written, read) in [
            (&posterior.mean, &read.posterior.mean),
            (&posterior.sd, &read.posterior.sd),
            (&posterior.q05, &read.posterior.q05),
            (&posterior.q95, &read.posterior.q95),
        ] {
            prop_assert_eq!(bits(written), bits(read));
        }
        let products: Vec<String> = panel.products().iter().map(|label| label.to_string()).collect();
        prop_assert_eq!(read.products(), products);
        // The files that it names are those of this folder.
        let expected = FitRecord { files: read.record.files.clone(), ..record };
        prop_assert_eq!(&read.record, &expected);
        prop_assert_eq!(&finite_report(read.record.report.clone()), &read.record.report);
    }
}
