//! `cargo bench`: criterion on one SVI iteration and one NUTS gradient per size, then the speedup table with its plots.
//!
//! Options go by environment, since criterion refuses flags that it does not know:
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `INFERMARK_PRODUCTS` | sizes, comma-separated | `10000,100000` |
//! | `INFERMARK_BACKENDS` | backends, comma-separated, or `all` | `all` |
//! | `INFERMARK_THREADS` | thread counts, comma-separated | one, and all of the machine |
//! | `INFERMARK_REPEATS` | timed repeats of a case | 5 |
//! | `INFERMARK_BASELINE` | folder of an earlier run's results, to compare the speeds with | none |
//! | `INFERMARK_OUT` | results folder | `results/<date>-<host>` |
//!
//! `cargo bench -- --test` runs everything once on tiny panels and writes to a temporary folder.

use criterion::{Criterion, SamplingMode, Throughput};
use infermark::answer::{answer, say};
use infermark::commands::bench::{BenchArguments, WARMUP_ITERATIONS, answer_outcome, published_panel};
use infermark::commands::time::near_the_counts;
use infermark_backend::{Backend, Interrupt, Method, Request, Run, SviSettings};
use infermark_cpu_kernels::FusedLogJoint;
use infermark_model::{Panel, Parameterization, Priors};
use infermark_svi_cpu::SviCpu;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Products of the smoke test.
const SMOKE_PRODUCTS: [usize; 2] = [30, 60];

fn main() -> ExitCode {
    // SAFETY: no thread was started yet.
    unsafe { infermark::choose_header() };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format_args!("error: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Whether every gate was passed.
fn run() -> Result<bool, Box<dyn std::error::Error>> {
    // Cargo runs benches in their package's folder; results belong to the top of the workspace.
    if let Some(workspace) = Path::new(env!("CARGO_MANIFEST_DIR")).parent() {
        std::env::set_current_dir(workspace)?;
    }
    let smoke = std::env::args().any(|argument| argument == "--test");
    let sizes = match list("INFERMARK_PRODUCTS")? {
        Some(sizes) => sizes,
        None if smoke => SMOKE_PRODUCTS.to_vec(),
        None => vec![10_000, 100_000],
    };
    let temporary = tempfile::tempdir()?;
    let smoke_out = smoke.then(|| temporary.path().join("results"));
    let (repeats, seconds, settle_seconds) = if smoke { (2, 0.05, 0.0) } else { (5, 2.0, 90.0) };
    let arguments = BenchArguments {
        products: sizes,
        data: None,
        truth: None,
        backends: std::env::var("INFERMARK_BACKENDS")
            .unwrap_or_else(|_| "all".to_owned())
            .split(',')
            .map(|name| name.trim().to_owned())
            .collect(),
        devices: Vec::new(),
        threads: list("INFERMARK_THREADS")?.unwrap_or_default(),
        repeats: match list("INFERMARK_REPEATS")?.as_deref() {
            None => repeats,
            Some([one]) => *one,
            Some(_) => return Err("INFERMARK_REPEATS has several numbers; give one".into()),
        },
        repeat_seconds: seconds,
        warmup_seconds: seconds,
        warmup_iterations: if smoke { 1 } else { WARMUP_ITERATIONS },
        quality_seconds: 10.0 * seconds,
        published_nuts_seconds: 15.0 * seconds,
        nuts_most_products: 100_000,
        settle_seconds,
        particles: 4,
        seed: 0,
        baseline: std::env::var_os("INFERMARK_BASELINE").map(PathBuf::from),
        out: std::env::var_os("INFERMARK_OUT").map(PathBuf::from).or(smoke_out),
    };
    // Before criterion's minutes, not after them.
    arguments.check()?;

    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    arguments.wait_until_quiet();
    for products in &arguments.products {
        let panel = published_panel(*products, 0)?.panel;
        svi_iteration(&mut criterion, &panel, *products, arguments.warmup_iterations)?;
        nuts_gradient(&mut criterion, &panel, *products);
    }
    criterion.final_summary();
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(true);
    }

    let (outcome, folder) = arguments.measure()?;
    answer(|out| writeln!(out))?;
    answer_outcome(&outcome, &folder)?;
    Ok(outcome.is_success())
}

/// Whole numbers of an environment variable.
fn list(name: &str) -> Result<Option<Vec<usize>>, String> {
    let Ok(text) = std::env::var(name) else {
        return Ok(None);
    };
    let numbers: Result<Vec<usize>, _> = text.split(',').map(|n| n.trim().parse()).collect();
    numbers
        .map(Some)
        .map_err(|_| format!("{name} is '{text}'; give whole numbers, separated by commas"))
}

/// One complete SVI iteration (K = 4, single precision, all threads) in steady state.
fn svi_iteration(
    criterion: &mut Criterion,
    panel: &Arc<Panel>,
    products: usize,
    warmup: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let settings = SviSettings::default();
    let row_particles = (panel.rows() * settings.particles) as u64;
    let request = Request::new(Method::Svi(settings));
    let mut run = SviCpu::new().start(panel.clone(), &request)?;
    let interrupt = Interrupt::new();
    advance(&mut *run, warmup, &interrupt)?;
    let mut group = criterion.benchmark_group("svi-cpu iteration");
    group
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Elements(row_particles));
    let mut failure = None;
    group.bench_function(format!("{products} products"), |bencher| {
        bencher.iter_custom(|iterations| {
            let clock = Instant::now();
            if let Err(error) = advance(&mut *run, iterations, &interrupt) {
                failure.get_or_insert(error);
            }
            clock.elapsed()
        });
    });
    group.finish();
    failure.map_or(Ok(()), |error| Err(error.into()))
}

fn advance(
    run: &mut dyn Run,
    iterations: u64,
    interrupt: &Interrupt,
) -> Result<(), infermark_backend::BackendError> {
    run.advance(iterations, interrupt).map(|_| ())
}

/// One double-precision log joint with its gradient (all threads).
fn nuts_gradient(criterion: &mut Criterion, panel: &Arc<Panel>, products: usize) {
    let threads = Request::new(Method::Svi(SviSettings::default())).resolved_threads();
    let centredness = Parameterization::Centered.start();
    let mut log_joint = FusedLogJoint::new(panel.clone(), Priors::default(), centredness, threads);
    let z = near_the_counts(panel);
    let mut gradient = vec![0.0; z.len()];
    let mut group = criterion.benchmark_group("nuts-cpu gradient");
    group
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Elements(panel.rows() as u64));
    group.bench_function(format!("{products} products"), |bencher| {
        bencher.iter(|| log_joint.value_and_gradient(&z, &mut gradient));
    });
    group.finish();
}
