//! `infermark time`: one kernel under the clock, for comparisons with other programs in the same run.

use super::{load_panel, refuse_given};
use crate::device::named_device;
use crate::exit::Exit;
use crate::output::print;
use crate::settings::ColumnArguments;
use anyhow::{Context, ensure};
use clap::{ArgMatches, Args, ValueEnum};
use infermark::{DeviceId, Interrupt, Method, Precision, Request, SviSettings, registry};
use infermark_cpu_kernels::FusedLogJoint;
use infermark_model::{Panel, Parameterization, Priors, Site};
use infermark_processor::processor_name;
use std::path::PathBuf;
use std::time::Instant;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Timed {
    /// Complete SVI iterations: noise, likelihood, gradient, optimizer.
    Svi,
    /// The double-precision log joint with its gradient: the larger part of what a leapfrog step of NUTS costs.
    Gradient,
}

/// Arguments of `time`.
#[derive(Debug, Args)]
pub struct TimeArguments {
    /// Sales file: .csv or .parquet.
    data: PathBuf,
    /// What to time.
    #[arg(long, value_enum, default_value = "svi")]
    method: Timed,
    /// Iterations (gradients) a repeat.
    #[arg(long, value_name = "N", default_value_t = 200)]
    iterations: u64,
    /// Repeats.
    #[arg(long, value_name = "R", default_value_t = 5)]
    repeats: usize,
    /// Untimed iterations before the first repeat.
    #[arg(long, alias = "warm-up", value_name = "N", default_value_t = 300)]
    warmup: u64,
    /// Particles of SVI.
    #[arg(long, value_name = "K", default_value_t = 4)]
    particles: usize,
    /// CPU threads; all by default. A small panel takes as many as it can use.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Device of SVI: cpu, gpu (the first card), or as `infermark devices` lists them. Gradients run on the
    /// CPU.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = named_device)]
    device: DeviceId,
    /// Print JSON instead of a sentence.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    columns: ColumnArguments,
}

impl TimeArguments {
    pub(super) fn run(self, given: &ArgMatches) -> anyhow::Result<Exit> {
        if self.method == Timed::Gradient {
            refuse_given(given, &["particles"], "--method svi")?;
        }
        ensure!(
            self.iterations > 0 && self.repeats > 0,
            "--iterations and --repeats must be at least 1"
        );
        ensure!(
            self.method == Timed::Svi || self.device == DeviceId::CPU,
            "gradients run on the CPU; --device {} goes with --method svi",
            self.device
        );
        let timed = self.iterations.checked_mul(self.repeats as u64);
        let total = timed.and_then(|timed| timed.checked_add(self.warmup));
        let total = total.context("--iterations times --repeats, and --warmup, are too many; give fewer")?;
        let settings = SviSettings {
            iterations: total,
            particles: self.particles,
            ..SviSettings::default()
        };
        let request = Request {
            threads: self.threads,
            devices: vec![self.device],
            ..Request::new(Method::Svi(settings))
        };
        let backend = registry().choose(&request)?;
        if self.device == DeviceId::CPU {
            // A speed on fewer threads would be reported as one on all of them.
            infermark_threads::check(request.resolved_threads())?;
        }
        let panel = load_panel(&self.data, &self.columns.clone().into())?;
        let clock = Instant::now();
        let mut side = match self.method {
            Timed::Svi => {
                let mut run = backend.start(panel.clone(), &request)?;
                let report = run.report();
                Side {
                    backend: report.backend,
                    device: report.device,
                    threads: report.threads,
                    precision: Precision::F32,
                    particles: self.particles,
                    advance: Box::new(move |steps| {
                        run.advance(steps, &Interrupt::new())?;
                        Ok(())
                    }),
                }
            }
            Timed::Gradient => {
                let (threads, centredness) = (request.resolved_threads(), Parameterization::Centered.start());
                let log_joint = FusedLogJoint::new(panel.clone(), Priors::default(), centredness, threads);
                Side {
                    backend: "nuts-cpu".into(),
                    device: processor_name(),
                    threads: log_joint.threads(),
                    precision: Precision::F64,
                    particles: 1,
                    advance: gradients(&panel, log_joint),
                }
            }
        };
        let setup_seconds = clock.elapsed().as_secs_f64();
        if self.warmup > 0 {
            (side.advance)(self.warmup)?;
        }
        let mut seconds = Vec::new();
        for _ in 0..self.repeats {
            let clock = Instant::now();
            (side.advance)(self.iterations)?;
            seconds.push(clock.elapsed().as_secs_f64());
        }
        let mut sorted = seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        let rate = self.iterations as f64 / median;
        let text = if self.json {
            let told = serde_json::json!({
                "backend": side.backend,
                "device": side.device,
                "threads": side.threads,
                "precision": side.precision.name(),
                "particles": side.particles,
                "rows": panel.rows(),
                "products": panel.layout().products,
                "iterations": self.iterations,
                "warmup_iterations": self.warmup,
                "setup_seconds": setup_seconds,
                "seconds": seconds,
                "iterations_per_second": rate,
            });
            told.to_string()
        } else {
            format!(
                "{}, {}, {} threads, {}, {} rows: {rate:.2} iterations a second ({:.3} ms each; best repeat \
                 {:.3} ms, worst {:.3} ms)",
                side.backend,
                side.device,
                side.threads,
                side.precision.name(),
                panel.rows(),
                1e3 / rate,
                1e3 * sorted[0] / self.iterations as f64,
                1e3 * sorted[sorted.len() - 1] / self.iterations as f64,
            )
        };
        print(|out| writeln!(out, "{text}"))?;
        Ok(Exit::Done)
    }
}

/// The work to be timed, and its description.
struct Side {
    backend: String,
    device: String,
    threads: usize,
    precision: Precision,
    particles: usize,
    /// Makes this many iterations, and returns when the device has finished them.
    advance: Box<dyn FnMut(u64) -> anyhow::Result<()>>,
}

/// Gradients one after another, each at a point that the last one moved a little.
fn gradients(panel: &Panel, mut log_joint: FusedLogJoint) -> Box<dyn FnMut(u64) -> anyhow::Result<()>> {
    // A point where rates are near the counts, so that rows are inside the clip bounds as they are in sampling.
    let mut z = near_the_counts(panel);
    let mut gradient = vec![0.0; z.len()];
    Box::new(move |steps| {
        for _ in 0..steps {
            log_joint.value_and_gradient(&z, &mut gradient);
            for (z, g) in z.iter_mut().zip(&gradient) {
                *z += 1e-9 * g.signum();
            }
        }
        Ok(())
    })
}

/// Natural parameters with elasticity -1.5 and each product's effect at its mean count; length
/// [`infermark_model::Layout::latents`].
pub fn near_the_counts(panel: &Panel) -> Vec<f64> {
    let layout = panel.layout();
    let mut z = vec![0.0; layout.latents()];
    let slope = -1.5;
    for i in 0..layout.products {
        let rows = panel.rows_of(i) as f64;
        let mean_units = (panel.sums().product[i] as f64 / rows).max(0.1);
        z[layout.start(Site::ProductA) + i] = slope;
        z[layout.start(Site::ProductEffect) + i] = mean_units.ln() - slope * panel.mean_log_price()[i];
    }
    z
}
