//! `infermark profile`: how an SVI iteration spends its time on a GPU, and the limits of the device.

use super::bench::published_panel;
use super::{COLUMN_OPTIONS, load_panel, refuse_given};
use crate::device::named_device;
use crate::exit::Exit;
use crate::output::print;
use crate::progress_bar::Bar;
use crate::settings::ColumnArguments;
use anyhow::ensure;
use clap::{ArgMatches, Args};
use infermark::{DeviceId, Method, Request, SviSettings, registry};
use infermark_model::Likelihood;
use infermark_report::number_format::{duration, with_prefix};
use infermark_svi_gpu::{Profile, SviGpu};
use std::fmt::Write;
use std::path::PathBuf;

/// Arguments of `profile`.
#[derive(Debug, Args)]
pub struct ProfileArguments {
    /// Sales file: .csv or .parquet; without it a panel of the published process is made.
    data: Option<PathBuf>,
    /// Products of the panel that is made; it has 156 periods.
    #[arg(long, value_name = "N", default_value_t = 10_000, conflicts_with = "data")]
    products: usize,
    /// Device: gpu (the first card), or as `infermark devices` lists them.
    #[arg(long, value_name = "DEVICE", default_value = "gpu", value_parser = named_device)]
    device: DeviceId,
    /// Particles of SVI.
    #[arg(long, value_name = "K", default_value_t = 4)]
    particles: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    columns: ColumnArguments,
}

impl ProfileArguments {
    pub(super) fn run(self, given: &ArgMatches) -> anyhow::Result<Exit> {
        if self.data.is_none() {
            refuse_given(given, &COLUMN_OPTIONS, "a sales file")?;
        }
        ensure!(
            self.device != DeviceId::CPU,
            "profile measures a GPU; for the CPU see `infermark bench`"
        );
        let settings = SviSettings {
            particles: self.particles,
            ..SviSettings::default()
        };
        let request = Request {
            devices: vec![self.device],
            ..Request::new(Method::Svi(settings))
        };
        let backend = SviGpu::new();
        registry().check(&backend, &request)?;
        let panel = match &self.data {
            Some(path) => load_panel(path, &self.columns.clone().into())?,
            None => published_panel(self.products, 0, Likelihood::Poisson)?.panel,
        };
        let profile = {
            let _spinner = Bar::spinner(&format!("measuring {}", self.device));
            backend.profile(&panel, &request)?
        };
        let text = if self.json {
            serde_json::to_string_pretty(&profile)? + "\n"
        } else {
            in_words(&profile, panel.rows(), self.particles)
        };
        print(|out| out.write_all(text.as_bytes()))?;
        Ok(Exit::Done)
    }
}

/// The profile as lines of text.
fn in_words(profile: &Profile, rows: usize, particles: usize) -> String {
    let limits = &profile.limits;
    let (reading, arithmetic) = limits.iteration_seconds(rows, particles);
    let mut text = String::new();
    let mut line = |name: &str, seconds: f64, what: String| {
        writeln!(text, "{name:<34} {:>10}   {what}", duration(seconds)).expect("a string takes all");
    };
    line("launch", limits.launch_seconds, "among many".into());
    line(
        "launch and answer",
        limits.round_trip_seconds,
        "one by one".into(),
    );
    line(
        "limit: reading the rows",
        reading,
        format!("{}B/s, 4 bytes a row", with_prefix(limits.read_bytes_per_second)),
    );
    line(
        "limit: arithmetic of the rows",
        arithmetic,
        format!(
            "{} row-particles/s; own exponential {:.2}x the polynomial's",
            with_prefix(limits.row_particles_per_second),
            limits.native_exp2_ratio
        ),
    );
    let limit = reading.max(arithmetic);
    for launch in &profile.launches {
        let share = format!("{:.0}% of it would be the limit", 100.0 * limit / launch.seconds);
        let told = if launch.name == "products" {
            share
        } else {
            String::new()
        };
        line(&format!("launch: {}", launch.name), launch.seconds, told);
    }
    for batch in &profile.batches {
        line(
            &format!("iteration, {} a reading", batch.iterations),
            batch.seconds_per_iteration,
            format!(
                "{} it/s, {:.0}% of the limit",
                with_prefix(1.0 / batch.seconds_per_iteration),
                100.0 * limit / batch.seconds_per_iteration
            ),
        );
    }
    text
}
