//! A worker in plain `f64` loops: what the protocol asks of one, and what this crate's tests talk to. Its argument, where it has one, is a fault to show.

use infermark_backend::{Method, Request, SviSettings};
use infermark_model::PanelPart;
use infermark_model::guide::Guide;
use infermark_model::log_joint::LogJoint;
use infermark_model::noise::Stream;
use infermark_model::svi::{GuideMoments, draw_noise};
use infermark_model::{Labels, Panel};
use infermark_svi::Chart;
use serde::Deserialize;
use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Question {
    Describe {
        protocol: u32,
    },
    Open {
        folder: String,
        products: usize,
        categories: usize,
        periods: usize,
        rows: usize,
    },
    LogJoint {
        point: Vec<f64>,
    },
    Start {
        settings: SviSettings,
        seed: u64,
    },
    Advance {
        iterations: u64,
    },
    Moments,
}

/// SVI that was started.
struct Svi {
    request: Request,
    chart: Chart,
    guide: Guide,
    moments: GuideMoments,
    iteration: u64,
}

impl Svi {
    fn new(panel: &Panel, settings: SviSettings, seed: u64) -> Self {
        let request = Request {
            seed,
            threads: Some(1),
            ..Request::new(Method::Svi(settings))
        };
        let chart = Chart::of(panel, &request);
        let guide = chart.start(panel, &request);
        Svi {
            moments: GuideMoments::new(guide.loc.len()),
            request,
            chart,
            guide,
            iteration: 0,
        }
    }

    /// Iterates once, and returns the loss.
    fn iterate(&mut self, panel: &Panel) -> f64 {
        let Method::Svi(settings) = &self.request.method else {
            unreachable!("it was made for SVI");
        };
        let stream = Stream {
            seed: self.request.seed,
            iteration: self.iteration as u32,
        };
        let noise = draw_noise(&panel.layout(), settings.particles, stream);
        let log_joint = LogJoint::new(panel, self.request.priors);
        let found = self
            .chart
            .plain_iteration(&log_joint, settings.objective, &self.guide, &noise);
        self.moments.step(
            &settings.optimizer,
            self.iteration,
            &mut self.guide,
            &found.gradient,
        );
        self.iteration += 1;
        found.weighted.loss
    }
}

/// Entries of `N` bytes of a file.
fn read<const N: usize>(folder: &str, name: &str) -> std::io::Result<Vec<[u8; N]>> {
    let bytes = std::fs::read(Path::new(folder).join(name))?;
    Ok(bytes.as_chunks::<N>().0.to_vec())
}

fn read_panel(
    folder: &str,
    [products, categories, periods, rows]: [usize; 4],
) -> Result<Panel, Box<dyn Error>> {
    let whole = |name| Ok::<_, std::io::Error>(read::<4>(folder, name)?.into_iter().map(u32::from_le_bytes));
    let category: Vec<u32> = whole("category")?.collect();
    let (product, period): (Vec<u32>, Vec<u32>) = (whole("product")?.collect(), whole("period")?.collect());
    let units: Vec<u32> = whole("units")?.collect();
    let price: Vec<f64> = read::<8>(folder, "log_price")?
        .into_iter()
        .map(|bytes| f64::from_le_bytes(bytes).exp())
        .collect();
    let lengths = [
        category.len(),
        product.len(),
        period.len(),
        units.len(),
        price.len(),
    ];
    if lengths != [products, rows, rows, rows, rows] {
        return Err(format!("the panel's files have {lengths:?} entries").into());
    }
    let mut part = PanelPart::new(categories, periods);
    let mut start = 0;
    for (index, category) in category.into_iter().enumerate() {
        let count = product[start..]
            .iter()
            .take_while(|product| **product as usize == index)
            .count();
        let own = start..start + count;
        part.push_product(
            category as usize,
            Some(&period[own.clone()]),
            &price[own.clone()],
            &units[own],
        )?;
        start += count;
    }
    Ok(Panel::from_parts(
        Labels::numbered("p", products),
        Labels::numbered("c", categories),
        Labels::numbered("t", periods),
        vec![part],
    )?)
}

/// What a process holds.
#[derive(Default)]
struct Worker {
    panel: Option<Arc<Panel>>,
    svi: Option<Svi>,
}

impl Worker {
    fn answer(&mut self, question: Question, fault: &str) -> Result<Value, Box<dyn Error>> {
        let panel = self.panel.clone().ok_or("no panel is open");
        let svi = self.svi.as_mut().ok_or("nothing was started");
        match question {
            Question::Describe { protocol } => {
                let cpu = json!({"id": {"kind": "cpu", "index": 0}, "name": "one thread"});
                let spoken = if fault == "protocol" {
                    protocol + 1
                } else {
                    protocol
                };
                Ok(json!({"protocol": spoken, "program": "plain loops", "devices": [cpu]}))
            }
            Question::Open {
                folder,
                products,
                categories,
                periods,
                rows,
            } => {
                let panel = read_panel(&folder, [products, categories, periods, rows])?;
                self.panel = Some(Arc::new(panel));
                Ok(json!({}))
            }
            Question::LogJoint { point } => {
                let panel = panel?;
                let request = Request::new(Method::Svi(SviSettings::default()));
                let (value, mut gradient) = LogJoint::new(&panel, request.priors).natural(&point);
                if fault == "gradient" {
                    gradient[0] += 0.1;
                }
                Ok(json!({"log_joint": value, "gradient": gradient}))
            }
            Question::Start { settings, seed } => {
                self.svi = Some(Svi::new(&*panel?, settings, seed));
                Ok(json!({}))
            }
            Question::Advance { iterations } => {
                let (panel, svi) = (panel?, svi?);
                let mut losses: Vec<_> = (0..iterations).map(|_| Some(svi.iterate(&panel))).collect();
                if fault == "nan" && svi.iteration > 5 {
                    // serde_json writes what is not finite as null.
                    losses[iterations as usize - 1] = None;
                }
                Ok(json!({"losses": losses}))
            }
            Question::Moments => {
                let (panel, svi) = (panel?, svi?);
                let request = &svi.request;
                let posterior =
                    svi.chart
                        .posterior(&svi.guide, &panel, request.likelihood, &request.priors)?;
                Ok(json!({"mean": posterior.mean, "sd": posterior.sd}))
            }
        }
    }
}

/// Shows `fault` in place of the reply to an `advance`, where it is one of those.
fn show(fault: &str, out: &mut impl Write) -> std::io::Result<()> {
    match fault {
        "dies" => {
            eprintln!("out of luck");
            std::process::exit(7)
        }
        "hangs" => std::thread::sleep(Duration::from_secs(3600)),
        "garbage" => writeln!(out, "Segmentation fault (core dumped)")?,
        "endless" => loop {
            out.write_all(&[b'x'; 65536])?;
        },
        "floods" => {
            // More than any pipe holds, on both streams that are read.
            for _ in 0..100_000 {
                eprintln!("a warning that nobody asked for");
            }
        }
        "short" => writeln!(out, "{{\"ok\": {{\"losses\": []}}}}")?,
        "closes" => std::process::exit(0),
        _ => {}
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let fault = std::env::args().nth(1).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    let mut worker = Worker::default();
    if fault == "deaf" {
        std::thread::sleep(Duration::from_secs(3600));
    }
    for line in std::io::stdin().lock().lines() {
        let question: Question = serde_json::from_str(&line?)?;
        if fault == "missing" {
            writeln!(out, "{{\"unavailable\": \"no module named numpyro\"}}")?;
            continue;
        }
        if matches!(question, Question::Advance { .. }) {
            show(&fault, &mut out)?;
        }
        let reply = match worker.answer(question, &fault) {
            Ok(answer) => json!({"ok": answer}),
            Err(error) => json!({"failed": error.to_string()}),
        };
        writeln!(out, "{reply}")?;
        out.flush()?;
    }
    Ok(())
}
