//! Made-up cases with fixed figures, for the table's snapshot and for looking at the pictures.

use infermark_backend::{
    Detail, GaussianReport, LaplaceSettings, MeanfieldSettings, Method, NutsSettings, Posterior, Precision,
    Report, Request, RunState, StructuredViSettings, SviReport, SviSettings, TracePoint,
};
use infermark_fit_files::panel_description::PanelDescription;
use infermark_machine::{Program, System};
use infermark_model::noise::Stream;
use infermark_model::{Layout, Likelihood};
use infermark_report::quality::agreement::{Agreement, Reference};
use infermark_report::quality::coverage::{CoveragePoint, LEVELS};
use infermark_report::quality::truth::{CategoryElasticity, ChainQuality, ElasticityInterval, TruthQuality};
use infermark_report::records::case_record::{CaseKind, CaseRecord, IterationUnit, Sample, Status};
use infermark_report::records::memory_limit::MemoryLimit;
use infermark_report::records::parity::{ParityCheck, ParityRecord};
use infermark_report::records::published_nuts::PublishedNutsEstimate;
use std::sync::LazyLock;

pub(crate) fn system() -> System {
    System {
        device: "2-core Intel Xeon, AVX-512".into(),
        cpu: "Intel(R) Xeon(R) Processor".into(),
        cores: 2,
        cache_bytes: Some(105 << 20),
        memory_bytes: 24 << 30,
        instruction_sets: vec!["avx2".into(), "fma".into(), "avx512f".into()],
        os: "Test Linux 1".into(),
        kernel: "6.0".into(),
        load_average: 0.25,
        gpu: "none".into(),
        gpus: Vec::new(),
        program: Program {
            version: "0.1.0".into(),
            rustc: "rustc 1.95.0".into(),
            profile: "release, opt-level 3".into(),
            target: "x86_64-unknown-linux-gnu".into(),
            rustflags: "none".into(),
            git_commit: "0123456789abcdef0123456789abcdef01234567".into(),
            git_tree: "clean".into(),
            crates: vec!["nuts-rs 0.19.1".into()],
        },
    }
}

pub(crate) fn svi_report(entries: u64) -> Report {
    let trace = (0..entries)
        .map(|i| {
            let wobble = f64::from(
                Stream {
                    seed: 1,
                    iteration: i as u32,
                }
                .normals(0, 0)[0],
            );
            TracePoint {
                iteration: 1 + 100 * i,
                seconds: 0.09 * (i as f64 + 0.05),
                loss: 8.3e6 + 5e9 * (-(i as f64) / 9.0).exp() * (1.0 + 0.1 * wobble) + 2e4 * wobble,
                effective_particles: 1.02,
                learning_rate: 0.01,
            }
        })
        .collect();
    Report {
        backend: "svi-cpu".into(),
        device: "2-core Intel Xeon, AVX-512".into(),
        threads: 2,
        setup_seconds: 0.05,
        run_seconds: 36.0,
        state: RunState::Running,
        warnings: Vec::new(),
        detail: Detail::Svi(SviReport {
            iterations: 100 * entries,
            iterations_per_second: 1_100.0,
            mean_effective_particles: 1.02,
            centredness: infermark_model::Centredness::all(1.0),
            trace,
            communication: None,
        }),
    }
}

fn parity(precision: Precision, passed: bool, svi: bool) -> ParityRecord {
    ParityRecord {
        panel: "the whole panel".into(),
        rows: 1_560_000,
        precision,
        likelihood: Likelihood::Poisson,
        compared: "log joint and gradient".into(),
        checks: vec![ParityCheck {
            quantity: "gradient near the data".into(),
            error: Some(if passed { 2e-6 } else { 1e-2 }),
            tolerance: 1e-4,
            passed,
        }],
        log_joint_relative_error: Some(3.2e-10),
        gradient_relative_error: Some(if passed { 2e-6 } else { 1e-2 }),
        loss_relative_error: svi.then_some(4.1e-10),
        log_weight_error: svi.then_some(0.013),
    }
}

fn case(sequence: usize, backend: &str, method: Method, products: usize, rate: f64) -> CaseRecord {
    let unit = IterationUnit::of(&method);
    let precision = match &method {
        Method::Svi(svi) => svi.precision,
        _ => Precision::F64,
    };
    let mut compared = parity(precision, true, unit == IterationUnit::Iterations);
    if matches!(method, Method::StructuredVi(_) | Method::Meanfield(_)) {
        // By their bound, instead of the log joint.
        compared.loss_relative_error = compared.log_joint_relative_error.take();
    }
    let iterations = (2.0 * rate).round().max(1.0) as u64;
    CaseRecord {
        schema_version: 1,
        sequence,
        measured_at: "2026-11-22T12:00:00Z".into(),
        kind: CaseKind::Speed,
        status: Status::Ok,
        reason: "none".into(),
        backend: backend.into(),
        device: system().device,
        is_software: false,
        threads: 2,
        request: Request::new(method),
        timing_max_depth: None,
        panel: PanelDescription {
            source: format!("published process, {products} products, seed 1"),
            products,
            categories: 10,
            periods: 156,
            rows: 156 * products,
            dense: true,
            sha256: format!("{products:064x}"),
        },
        unit,
        parity: Some(compared),
        setup_seconds: Some(products as f64 * 4e-6),
        warmup: Some(Sample {
            iterations: iterations / 2,
            seconds: 1.0,
        }),
        repeats: [0.98, 1.0, 1.01, 0.995, 1.005]
            .iter()
            .map(|share| Sample {
                iterations,
                seconds: iterations as f64 / (rate * share),
            })
            .collect(),
        kernel_row_particles_per_second: (unit == IterationUnit::Iterations).then_some(8.4e9),
        busy_share: Some(0.02),
        peak_memory_bytes: Some(900 << 20),
        memory_limit: Some(MemoryLimit {
            read_bytes_per_second: 2.1e10,
            threads: 2,
            array_bytes: 420 << 20,
        }),
        device_limits: None,
        truth_quality: None,
        agreement: None,
        chain_quality: None,
        published_nuts: None,
        report: None,
        system: system(),
    }
}

pub(crate) fn svi(precision: Precision) -> Method {
    Method::Svi(SviSettings {
        precision,
        ..SviSettings::default()
    })
}

pub(crate) fn truth_quality(products: usize) -> TruthQuality {
    let sample = (0..300.min(products))
        .map(|i| {
            let z = Stream {
                seed: 3,
                iteration: i as u32,
            }
            .normals(0, 0);
            let truth = (-2.0 + 0.7 * f64::from(z[0])).clamp(-5.0, -0.1);
            let sd = 0.03 + 0.12 * f64::from(z[1]).abs();
            let mean = truth + 0.9 * sd * f64::from(z[2]);
            ElasticityInterval {
                truth,
                mean,
                q05: mean - 1.2 * sd,
                q95: mean + 1.2 * sd,
            }
        })
        .collect();
    TruthQuality {
        after: 40_000,
        seconds: 36.0,
        product_a_mae: 0.0731,
        product_a_coverage_90: 0.81,
        product_a_coverage_95: 0.861,
        coverage: coverage(0.861 / 0.95),
        products,
        sample,
    }
}

/// What intervals cover that cover `share` of what they should.
fn coverage(share: f64) -> Vec<CoveragePoint> {
    LEVELS
        .iter()
        .map(|nominal| CoveragePoint {
            nominal: *nominal,
            actual: share * nominal,
        })
        .collect()
}

/// A posterior of 10,000 products whose means are off by `distance` and whose standard deviations are `ratio` of the reference's.
fn agreement(distance: f64, ratio: f64) -> Agreement {
    let products = 10_000;
    let layout = Layout::new(products, 10, 156);
    let noise = |latent: usize| {
        let stream = Stream {
            seed: 5,
            iteration: latent as u32,
        };
        stream.normals(0, 0).map(f64::from)
    };
    let units: Vec<u64> = (0..products)
        .map(|i| (1e4 * noise(i)[2].exp().powi(2)) as u64)
        .collect();
    let n = layout.latents();
    let sd: Vec<f64> = (0..n).map(|k| 0.1 * (0.5 * noise(k)[3]).exp()).collect();
    let off = |k: usize| distance * sd[k] * noise(k)[0];
    let exact = Posterior::normal(layout, vec![0.0; n], sd.clone());
    let mean = (0..n).map(off).collect();
    let own = sd
        .iter()
        .enumerate()
        .map(|(k, s)| s * ratio * (0.03 * noise(k)[1]).exp())
        .collect();
    let told = Reference {
        name: "nuts-cpu".into(),
        max_rhat: Some(1.021),
        min_ess_bulk: Some(41.5),
    };
    Agreement::new(&Posterior::normal(layout, mean, own), &exact, told, Some(&units))
}

pub(crate) fn categories() -> Vec<CategoryElasticity> {
    [
        ("Tropicana", -2.3, 0.4),
        ("Minute Maid", -2.1, 0.5),
        (
            "A brand with a name that goes on for longer than anyone would print",
            -1.7,
            0.6,
        ),
        ("Store brand", -2.8, 0.3),
        ("Florida Gold", -0.6, 0.8),
    ]
    .map(|(name, mean, spread)| CategoryElasticity {
        category: name.into(),
        mean,
        q05: mean - 0.15,
        q95: mean + 0.15,
        product_means: [-1.6, -0.7, 0.0, 0.7, 1.6].map(|z| mean + spread * z),
        products: 83,
    })
    .to_vec()
}

pub(crate) fn gaussian_report(converged: bool) -> Report {
    Report {
        backend: "laplace-cpu".into(),
        run_seconds: 0.7,
        state: RunState::Converged,
        detail: Detail::Gaussian(GaussianReport {
            skewed_products: 0,
            left_out_products: Vec::new(),
            newton_steps: 9,
            variational_steps: 0,
            converged,
            gradient_norm: 1e-8,
            decrement: 1e-11,
            log_joint: -5.1e6,
            elbo: None,
            trace: Vec::new(),
        }),
        ..svi_report(0)
    }
}

/// Two SVI precisions, NUTS and Gaussians at three sizes, one failed, one marked, one left out.
pub(crate) fn records() -> Vec<CaseRecord> {
    static RECORDS: LazyLock<Vec<CaseRecord>> = LazyLock::new(make_records);
    RECORDS.clone()
}

fn make_records() -> Vec<CaseRecord> {
    let nuts = || Method::Nuts(NutsSettings::diagonal());
    let mut records = vec![
        case(0, "svi-cpu", svi(Precision::F32), 10_000, 1_080.0),
        case(1, "svi-cpu", svi(Precision::F64), 10_000, 512.0),
        case(2, "nuts-cpu", nuts(), 10_000, 690.0),
        case(3, "nuts-cpu", nuts(), 10_000, 690.0),
        case(4, "svi-cpu", svi(Precision::F32), 100_000, 112.0),
        case(5, "svi-cpu", svi(Precision::F64), 100_000, 48.0),
        case(6, "svi-cpu", svi(Precision::F32), 1_000_000, 10.4),
    ];
    records[0].report = Some(svi_report(400));
    records[0].truth_quality = Some(truth_quality(10_000));
    records[1].report = Some(svi_report(150));
    records[2].status = Status::Warn;
    records[2].reason = "chains: R-hat up to 1.021, not converged".into();
    records[2].chain_quality = Some(ChainQuality {
        finished: true,
        chains: 4,
        warmup: 50,
        draws: 50,
        seconds: 18.4,
        draw_seconds: 9.1,
        min_ess_bulk: Some(41.5),
        min_ess_tail: Some(38.0),
        max_rhat: Some(1.021),
        divergences: 0,
        saturated_trees: 50,
        gradients: 12_000,
    });
    records[3].kind = CaseKind::PublishedNuts;
    records[3].repeats.clear();
    records[3].warmup = None;
    records[3].published_nuts = Some(PublishedNutsEstimate {
        measured_draws: 60,
        measured_gradients: 40_000,
        measured_seconds: 30.0,
        gradients_per_draw: [vec![300; 30], vec![1_000; 30]].concat(),
        max_depth: 10,
    });
    records[5].status = Status::Failed;
    records[5].reason = "parity: gradient near the data is off by 1.0e-2, allowed 1e-4".into();
    records[5].parity = Some(parity(Precision::F64, false, true));
    records[5].repeats.clear();
    records[5].setup_seconds = None;
    let laplace = || Method::Laplace(LaplaceSettings::default());
    records.extend([
        case(7, "laplace-cpu", laplace(), 10_000, 0.8),
        case(8, "laplace-cpu", laplace(), 10_000, 1.5),
        case(
            9,
            "structured-vi-cpu",
            Method::StructuredVi(StructuredViSettings::default()),
            10_000,
            0.21,
        ),
        case(
            10,
            "meanfield-cpu",
            Method::Meanfield(MeanfieldSettings::default()),
            10_000,
            4.0,
        ),
        case(11, "laplace-cpu", laplace(), 1_000_000, 0.013),
    ]);
    records[7].threads = 1;
    for (k, share) in [(7, 0.956), (8, 0.956), (9, 0.958)] {
        records[k].report = Some(gaussian_report(true));
        let quality = truth_quality(10_000);
        records[k].truth_quality = Some(TruthQuality {
            after: 9,
            seconds: 0.7,
            product_a_coverage_90: 0.9 * share,
            product_a_coverage_95: 0.95 * share,
            coverage: coverage(share),
            ..quality
        });
        records[k].agreement = Some(agreement(0.05, 0.97));
    }
    records[0].agreement = Some(agreement(0.8, 0.06));
    records[10].status = Status::NotMeasured;
    records[10].reason = "backend meanfield-cpu cannot serve the method meanfield".into();
    records[10].parity = None;
    records[10].repeats.clear();
    records[10].warmup = None;
    records[10].setup_seconds = None;
    records
}
