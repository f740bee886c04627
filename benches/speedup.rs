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
use infermark::{
    BackendError, Interrupt, MethodKind, Panel, Parameterization, Priors, Request, Run, registry,
};
use infermark_cli::commands::bench::{BenchArguments, answer_outcome, published_panel};
use infermark_cli::commands::time::near_the_counts;
use infermark_cli::output::{notify, print};
use infermark_cpu_kernels::FusedLogJoint;
use infermark_model::Likelihood;
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
            notify(format_args!("error: {error}"));
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
    let temporary = tempfile::tempdir()?;
    // What the command measures by default, but for what the environment says.
    let mut arguments = BenchArguments::default();
    if smoke {
        arguments = BenchArguments {
            products: SMOKE_PRODUCTS.to_vec(),
            repeats: 2,
            repeat_seconds: 0.05,
            warmup_seconds: 0.05,
            warmup_iterations: 1,
            quality_seconds: 0.5,
            published_nuts_seconds: 0.75,
            settle_seconds: 0.0,
            out: Some(temporary.path().join("results")),
            ..arguments
        };
    }
    if let Some(sizes) = list("INFERMARK_PRODUCTS")? {
        arguments.products = sizes;
    }
    if let Ok(names) = std::env::var("INFERMARK_BACKENDS") {
        arguments.backends = names.split(',').map(|name| name.trim().to_owned()).collect();
    }
    if let Some(threads) = list("INFERMARK_THREADS")? {
        arguments.threads = threads;
    }
    arguments.repeats = match list("INFERMARK_REPEATS")?.as_deref() {
        None => arguments.repeats,
        Some([one]) => *one,
        Some(_) => return Err("INFERMARK_REPEATS has several numbers; give one".into()),
    };
    arguments.baseline = std::env::var_os("INFERMARK_BASELINE").map(PathBuf::from);
    if let Some(out) = std::env::var_os("INFERMARK_OUT") {
        arguments.out = Some(PathBuf::from(out));
    }
    // Before criterion's minutes, not after them.
    arguments.check()?;

    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    arguments.wait_until_quiet();
    for products in &arguments.products {
        let panel = published_panel(*products, 0, Likelihood::Poisson)?.panel;
        svi_iteration(&mut criterion, &panel, *products, arguments.warmup_iterations)?;
        nuts_gradient(&mut criterion, &panel, *products);
    }
    criterion.final_summary();
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(true);
    }

    let (outcome, folder) = arguments.measure()?;
    print(|out| writeln!(out))?;
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
    let request = Request::new(MethodKind::Svi.default_method());
    let row_particles = (panel.rows() * request.method.particles()) as u64;
    let mut run = registry().choose(&request)?.start(panel.clone(), &request)?;
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

fn advance(run: &mut dyn Run, iterations: u64, interrupt: &Interrupt) -> Result<(), BackendError> {
    run.advance(iterations, interrupt).map(|_| ())
}

/// One double-precision log joint with its gradient (all threads).
fn nuts_gradient(criterion: &mut Criterion, panel: &Arc<Panel>, products: usize) {
    let threads = Request::new(MethodKind::Nuts.default_method()).resolved_threads();
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
