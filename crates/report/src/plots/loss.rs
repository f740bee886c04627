//! Loss against time.

use super::canvas::{Canvas, PlotError, save};
use super::frame::{Frame, Mark, caption, caption_height, heading, legend};
use super::palette::ours;
use super::scale::Scale;
use super::series::size_in_words;
use crate::records::case_record::CaseRecord;
use infermark_backend::{Detail, TracePoint};
use std::path::{Path, PathBuf};

const WIDTH: f64 = 1280.0;
const HEIGHT: f64 = 640.0;
const LEGEND: f64 = 290.0;
/// Largest number of entries drawn of one trace: more than pixels are not visible.
const POINTS: usize = 2_000;

const CAPTION: &str = "The loss is minus the bound that the method maximizes, of single iterations, so it is noisy. Seconds are those of \
    advancing; starting is not counted.";

/// One curve.
#[derive(Debug, Clone)]
pub struct LossCurve<'t> {
    /// Its name in the legend.
    pub name: String,
    /// The trace of the run.
    pub trace: &'t [TracePoint],
}

/// Draws the traces of the SVI cases of one size; nothing when there are none.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_records(stem: &Path, records: &[&CaseRecord]) -> Result<Vec<PathBuf>, PlotError> {
    let curves: Vec<LossCurve<'_>> = records
        .iter()
        .filter(|r| r.has_speed())
        .filter_map(|r| match r.report.as_ref().map(|report| &report.detail) {
            Some(Detail::Svi(svi)) => Some(LossCurve {
                name: r.side(),
                trace: &svi.trace,
            }),
            _ => None,
        })
        .collect();
    draw(stem, &curves, &size_in_words(records))
}

/// Draws `curves`; nothing when none of them has two entries.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(stem: &Path, curves: &[LossCurve<'_>], subtitle: &str) -> Result<Vec<PathBuf>, PlotError> {
    let curves: Vec<(&str, Vec<(f64, f64)>)> = curves
        .iter()
        .map(|c| (c.name.as_str(), points(c.trace)))
        .filter(|c| c.1.len() > 1)
        .collect();
    if curves.is_empty() {
        return Ok(Vec::new());
    }
    save(stem, (WIDTH, HEIGHT), &|canvas| paint(canvas, &curves, subtitle))
}

fn points(trace: &[TracePoint]) -> Vec<(f64, f64)> {
    let step = trace.len().div_ceil(POINTS).max(1);
    trace
        .iter()
        .step_by(step)
        .filter(|p| p.seconds > 0.0 && p.loss.is_finite())
        .map(|p| (p.seconds, p.loss))
        .collect()
}

fn paint(canvas: &mut dyn Canvas, curves: &[(&str, Vec<(f64, f64)>)], subtitle: &str) {
    let all = || curves.iter().flat_map(|c| c.1.iter());
    let logarithmic = all().all(|p| p.1 > 0.0);
    let y = if logarithmic {
        Scale::log(all().map(|p| p.1), 0.05, 0.05)
    } else {
        Scale::linear(all().map(|p| p.1))
    };
    let words = if logarithmic {
        "both axes logarithmic"
    } else {
        "time logarithmic"
    };
    let top = heading(
        canvas,
        WIDTH,
        "Loss against time",
        &format!("{subtitle} Lower is better; {words}."),
    );
    let frame = Frame {
        left: 120.0,
        top,
        right: WIDTH - LEGEND - 40.0,
        bottom: HEIGHT - 60.0 - caption_height(WIDTH, CAPTION),
    };
    let x = Scale::log(all().map(|p| p.0), 0.02, 0.02);
    frame.vertical_axis(canvas, &y, "loss, nats");
    frame.horizontal_axis(canvas, &x, "seconds of advancing");
    let mut entries = Vec::new();
    for (index, (name, points)) in curves.iter().enumerate() {
        let line: Vec<(f64, f64)> = points
            .iter()
            .map(|p| (frame.x(&x, p.0), frame.y(&y, p.1)))
            .collect();
        canvas.line(&line, ours(index), 1.5);
        entries.push((Mark::Line(ours(index)), (*name).to_owned()));
    }
    legend(canvas, frame.right + 30.0, frame.top + 10.0, LEGEND, &entries);
    caption(canvas, WIDTH, HEIGHT, CAPTION);
}
