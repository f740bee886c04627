//! `laplace` and `structured-vi` corrected for skewness, against long Hamiltonian Monte Carlo runs on panels
//! of few and of many sales (`data/skewness/README.md` describes their origin).

use infermark_backend::{
    Backend, Interrupt, LaplaceSettings, Method, Posterior, Request, Run, StructuredViSettings, Warning,
};
use infermark_gaussian::GaussianCpu;
use infermark_model::{Panel, Priors, Site};
use infermark_test_support::read_panel;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A panel, and the largest errors allowed.
struct Case {
    panel: &'static str,
    most: Errors,
    /// Errors of period effects, where they are known to be larger.
    periods: Option<Errors>,
}

const fn case(panel: &'static str, mean: f64, sd: f64, quantiles: f64) -> Case {
    Case {
        panel,
        most: Errors { mean, sd, quantiles },
        periods: None,
    }
}

const CASES: [Case; 6] = [
    case("sales-0.01-to-3", 0.08, 0.06, 0.04),
    case("sales-0.1-to-10", 0.03, 0.03, 0.02),
    case("sales-1-to-30", 0.02, 0.02, 0.015),
    case("sales-10-to-100", 0.02, 0.02, 0.015),
    case("gaps", 0.05, 0.06, 0.035),
    // For an effect that only one row depends on, with one sale or none, little but the prior is known: the
    // influence of the product's other rows is not small, and the first-order shift is too short.
    Case {
        periods: Some(Errors {
            mean: 0.35,
            sd: 0.06,
            quantiles: 0.07,
        }),
        ..case("one-product-categories", 0.04, 0.04, 0.03)
    },
];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/skewness")
        .join(name)
}

/// Mean, standard deviation, 5% and 95% quantile, by site and index.
fn reference(panel: &str) -> HashMap<(String, usize), [f64; 4]> {
    let text = std::fs::read_to_string(data(&format!("{panel}-reference.csv"))).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap(), "site,index,mean,sd,q05,q95");
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let number = |k: usize| cells[k].parse().unwrap();
            let key = (cells[0].to_owned(), cells[1].parse().unwrap());
            (key, [2, 3, 4, 5].map(number))
        })
        .collect()
}

/// A run to its end.
fn run(panel: &Arc<Panel>, backend: GaussianCpu, method: Method) -> Box<dyn Run> {
    let request = Request {
        // As in the reference.
        priors: Priors {
            clip_low: -20.0,
            ..Priors::default()
        },
        ..Request::new(method)
    };
    let mut run = backend.start(panel.clone(), &request).unwrap();
    while !run.advance(1, &Interrupt::new()).unwrap().state.is_complete() {}
    run
}

fn fitted(panel: &Arc<Panel>, backend: GaussianCpu, method: Method) -> Posterior {
    run(panel, backend, method).posterior().unwrap()
}

fn laplace(panel: &Arc<Panel>, skewness_correction: bool) -> Posterior {
    let settings = LaplaceSettings {
        skewness_correction,
        ..LaplaceSettings::default()
    };
    fitted(panel, GaussianCpu::laplace(), Method::Laplace(settings))
}

fn structured_vi(panel: &Arc<Panel>, skewness_correction: bool) -> Posterior {
    let settings = StructuredViSettings {
        skewness_correction,
        ..StructuredViSettings::default()
    };
    fitted(
        panel,
        GaussianCpu::structured_vi(),
        Method::StructuredVi(settings),
    )
}

/// Errors of a site: largest error of a mean in standard deviations, largest relative error of a standard
/// deviation, root mean square error of the 5% and 95% quantiles in standard deviations.
#[derive(Debug, Clone, Copy)]
struct Errors {
    mean: f64,
    sd: f64,
    quantiles: f64,
}

fn errors(posterior: &Posterior, reference: &HashMap<(String, usize), [f64; 4]>) -> [Errors; 5] {
    Site::REPARAMETERIZED.map(|site| {
        let (mut worst_mean, mut worst_sd): (f64, f64) = (0.0, 0.0);
        let (mut squares, mut count) = (0.0, 0.0);
        for (k, j) in posterior.layout.range(site).enumerate() {
            let [mean, sd, q05, q95] = reference[&(site.name().to_owned(), k)];
            worst_mean = worst_mean.max((posterior.mean[j] - mean).abs() / sd);
            worst_sd = worst_sd.max((posterior.sd[j] / sd - 1.0).abs());
            squares += ((posterior.q05[j] - q05) / sd).powi(2) + ((posterior.q95[j] - q95) / sd).powi(2);
            count += 2.0;
        }
        Errors {
            mean: worst_mean,
            sd: worst_sd,
            quantiles: f64::sqrt(squares / count),
        }
    })
}

/// Prints the rows of the table in the documentation: `cargo test -p infermark-gaussian --test skewness -- --nocapture`.
#[test]
fn corrected_marginals_are_those_of_long_chains_and_never_worse_than_plain_ones() {
    let mut wrong = Vec::new();
    println!(
        "panel,method,site,largest_error_of_mean_in_sd,largest_relative_error_of_sd,rms_error_of_q05_q95_in_sd"
    );
    for case in CASES {
        let panel = read_panel(&data(&format!("{}.csv", case.panel)));
        let reference = reference(case.panel);
        for (method, fitted) in [
            ("laplace", laplace as fn(&Arc<Panel>, bool) -> Posterior),
            ("structured-vi", structured_vi),
        ] {
            let [plain, corrected] =
                [false, true].map(|corrects| errors(&fitted(&panel, corrects), &reference));
            for (name, found) in [(format!("{method} --plain"), plain), (method.into(), corrected)] {
                for (site, Errors { mean, sd, quantiles }) in Site::REPARAMETERIZED.iter().zip(found) {
                    println!(
                        "{},{name},{},{mean:.3},{sd:.3},{quantiles:.3}",
                        case.panel,
                        site.name()
                    );
                }
            }
            for ((site, found), plain) in Site::REPARAMETERIZED.iter().zip(corrected).zip(plain) {
                let most = match case.periods {
                    Some(periods) if *site == Site::TimeCatEffects => periods,
                    _ => case.most,
                };
                // The reference's own errors are 0.004 standard deviations in means and 0.003 in standard
                // deviations.
                let worse = found.mean > plain.mean + 0.01
                    || found.sd > plain.sd + 0.005
                    || found.quantiles > plain.quantiles + 0.005;
                if found.mean > most.mean || found.sd > most.sd || found.quantiles > most.quantiles || worse {
                    wrong.push(format!(
                        "{} {method} {}: {found:?}, plain {plain:?}",
                        case.panel,
                        site.name()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Given `product_a` the means above it are linear, whatever the likelihood.
#[test]
fn means_above_products_satisfy_their_conditional_means() {
    for case in CASES {
        let panel = read_panel(&data(&format!("{}.csv", case.panel)));
        for posterior in [laplace(&panel, true), structured_vi(&panel, true)] {
            let priors = Priors::default();
            let precision = |sd: f64| sd.powi(-2);
            let layout = posterior.layout;
            let global = posterior.mean[0];
            let mut pull = precision(priors.global_a_sd) * (priors.global_a_mean - global);
            for (c, j) in layout.range(Site::CategoryA).enumerate() {
                let category = posterior.mean[j];
                let own = panel
                    .category_of()
                    .iter()
                    .zip(posterior.site_mean(Site::ProductA))
                    .filter(|(of, _)| **of as usize == c)
                    .map(|(_, a)| precision(priors.product_a_sd) * (a - category))
                    .sum::<f64>();
                let above = precision(priors.category_a_sd) * (category - global);
                assert!((own - above).abs() < 1e-9, "{}: {c}", case.panel);
                pull += above;
            }
            assert!(pull.abs() < 1e-9, "{}: {pull}", case.panel);
        }
    }
}

#[test]
fn corrected_marginals_are_the_same_bits_with_any_number_of_threads() {
    let panel = read_panel(&data("gaps.csv"));
    for (backend, method) in [
        (GaussianCpu::laplace(), Method::Laplace(Default::default())),
        (
            GaussianCpu::structured_vi(),
            Method::StructuredVi(Default::default()),
        ),
    ] {
        let of = |threads| {
            let request = Request {
                threads: Some(threads),
                ..Request::new(method.clone())
            };
            let mut run = backend.start(panel.clone(), &request).unwrap();
            while !run.advance(1, &Interrupt::new()).unwrap().state.is_complete() {}
            let posterior = run.posterior().unwrap();
            (posterior.mean, posterior.sd, posterior.q05)
        };
        let one = of(1);
        assert!(one == of(2) && one == of(5), "{}", method.name());
    }
}

#[test]
fn where_the_corrections_end_is_told() {
    let of = |name: &str| {
        let panel = read_panel(&data(&format!("{name}.csv")));
        [
            run(
                &panel,
                GaussianCpu::laplace(),
                Method::Laplace(Default::default()),
            ),
            run(
                &panel,
                GaussianCpu::structured_vi(),
                Method::StructuredVi(Default::default()),
            ),
        ]
        .map(|run| run.report().warnings)
    };
    for warnings in of("sales-1-to-30") {
        assert!(warnings.is_empty(), "{warnings:?}");
    }
    let [laplace, structured] = of("one-product-categories");
    let says = |warnings: &[Warning], what: &str| warnings.iter().any(|w| w.to_string().contains(what));
    assert!(
        says(&laplace, "to first order") && says(&laplace, "structured-vi"),
        "{laplace:?}"
    );
    assert!(
        says(&structured, "categories have one product") && !says(&structured, "to first order"),
        "{structured:?}"
    );
}

/// With priors as wide as these the mode carries no information on the mean.
#[test]
fn what_is_too_skewed_is_not_corrected() {
    let panel = read_panel(&data("sales-0.01-to-3.csv"));
    let request = |skewness_correction| Request {
        priors: Priors {
            clip_low: -80.0,
            global_a_sd: 100.0,
            category_a_sd: 100.0,
            product_a_sd: 100.0,
            product_effect_sd: 100.0,
            time_cat_effects_sd: 100.0,
            ..Priors::default()
        },
        ..Request::new(Method::Laplace(LaplaceSettings {
            skewness_correction,
            ..LaplaceSettings::default()
        }))
    };
    let of = |skewness_correction| {
        let request = request(skewness_correction);
        let mut run = GaussianCpu::laplace().start(panel.clone(), &request).unwrap();
        while !run.advance(1, &Interrupt::new()).unwrap().state.is_complete() {}
        (run.posterior().unwrap(), run.report().warnings)
    };
    let ((corrected, warnings), (plain, _)) = (of(true), of(false));
    assert!(
        corrected.mean == plain.mean && corrected.sd == plain.sd,
        "{warnings:?}"
    );
    assert!(
        warnings.iter().any(|w| w.to_string().contains("too skewed")),
        "{warnings:?}"
    );
}
