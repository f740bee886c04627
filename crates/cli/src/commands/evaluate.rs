//! `infermark evaluate`.

use super::{load_panel, refuse_given};
use crate::device::named_device;
use crate::exit::Exit;
use crate::output::{notify, print};
use crate::settings::{ColumnArguments, LikelihoodArguments, PriorArguments};
use clap::{ArgMatches, Args};
use infermark::{DeviceId, Method, NutsSettings, Request, SviSettings, check_threads, registry};
use infermark_fit_files::given::read_point;
use infermark_model::{Axis, Layout, Panel};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Arguments of `evaluate`.
#[derive(Debug, Args)]
pub struct EvaluateArguments {
    /// Sales file: .csv or .parquet.
    data: PathBuf,
    /// JSON file with natural parameters: {"global_a": .., "category_a": [..], "product_a": [..], "product_effect":
    /// [..], "time_cat_effects": [..]}; categories, products and periods in sorted order, time_cat_effects
    /// category by category. With --likelihood negative-binomial also "log_shape": [..], one per category.
    #[arg(long, value_name = "FILE")]
    point: PathBuf,
    /// Device: cpu, gpu (the first card), or as `infermark devices` lists them.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = named_device)]
    device: DeviceId,
    /// Processor threads; all by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    columns: ColumnArguments,
    #[command(flatten)]
    priors: PriorArguments,
    #[command(flatten)]
    likelihood: LikelihoodArguments,
}

impl EvaluateArguments {
    pub(super) fn run(self, given: &ArgMatches) -> anyhow::Result<Exit> {
        if self.device != DeviceId::CPU {
            refuse_given(given, &["threads"], "--device cpu")?;
        }
        check_threads(self.threads)?;
        // On the processors in double precision; a GPU has its fit's single precision.
        let method = if self.device == DeviceId::CPU {
            Method::Nuts(NutsSettings::default())
        } else {
            Method::Svi(SviSettings::default())
        };
        let request = Request {
            priors: self.priors.load()?,
            likelihood: self.likelihood.likelihood,
            devices: vec![self.device],
            threads: self.threads,
            ..Request::new(method)
        };
        let backend = registry().choose(&request)?;
        let panel = load_panel(&self.data, &self.columns.into())?;
        let layout = panel.layout_for(request.likelihood);
        let point = read_point(&self.point, &layout)?;
        let (log_joint, gradient) = backend.log_joint(&panel, &request, &point)?;
        if let Some(told) = overflow(&panel, &layout, &point, log_joint, &gradient) {
            notify(format_args!("{}: {told}", self.point.display()));
            return Ok(Exit::CheckFailed);
        }
        let mut by_site = Map::new();
        for site in layout.sites() {
            let numbers = &gradient[layout.range(*site)];
            let value = if site.axis() == Axis::Scalar {
                Value::from(numbers[0])
            } else {
                Value::from(numbers)
            };
            by_site.insert(site.name().to_owned(), value);
        }
        let told = serde_json::json!({ "log_joint": log_joint, "grad": by_site });
        print(|out| writeln!(out, "{told}"))?;
        Ok(Exit::Done)
    }
}

/// Size of an entry that no posterior has: a larger one is the cause of an overflowing log joint.
const FAR: f64 = 1e6;

/// The message if the log joint or its gradient at `point` is not finite; `None` if all are.
fn overflow(
    panel: &Panel,
    layout: &Layout,
    point: &[f64],
    log_joint: f64,
    gradient: &[f64],
) -> Option<String> {
    let what = if log_joint.is_finite() {
        let latent = gradient.iter().position(|g| !g.is_finite())?;
        format!(
            "the gradient by {} is {}",
            panel.axes().latent_in_words(layout, latent),
            gradient[latent]
        )
    } else {
        format!("the log joint is {log_joint}")
    };
    let farthest = (0..point.len()).max_by(|a, b| point[*a].abs().total_cmp(&point[*b].abs()))?;
    let remedy = match point[farthest] {
        far if far.abs() > FAR => format!(
            "the entry farthest from 0 is {far:e}, {}; give one nearer",
            panel.axes().latent_in_words(layout, farthest)
        ),
        _ => "check priors, prices and units for extreme values".to_owned(),
    };
    Some(format!(
        "{what} at this point: it is beyond double precision; {remedy}"
    ))
}
