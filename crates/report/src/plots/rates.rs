//! Iterations per second by size and backend, with the published figures as reference marks.

use super::canvas::{Align, Canvas, PlotError, dashes, save};
use super::frame::{Frame, Mark, SMALL, caption, caption_height, heading, legend};
use super::palette::{FAINT, ours};
use super::scale::Scale;
use super::series::{Series, series};
use crate::published::{PublishedSystem, SETS};
use crate::records::case_record::{CaseRecord, IterationUnit};
use std::path::{Path, PathBuf};

const WIDTH: f64 = 1280.0;
const HEIGHT: f64 = 700.0;
const LEGEND: f64 = 290.0;

const CAPTION: &str = "Medians of the repeats with their lowest and highest as bars (mostly smaller than the dot). An iteration of SVI \
    is complete: noise, likelihood and gradient of all particles, priors, optimizer. Published figures were read off a progress \
    bar on other machines.";

/// Draws the figure; nothing when no case has a speed.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(stem: &Path, records: &[CaseRecord]) -> Result<Vec<PathBuf>, PlotError> {
    let mut series = series(records, None);
    // A whole fit is no iteration: `time_to_posterior` has them.
    series.retain(|s| s.unit != IterationUnit::Fits);
    if series.is_empty() {
        return Ok(Vec::new());
    }
    save(stem, (WIDTH, HEIGHT), &|canvas| paint(canvas, &series))
}

fn paint(canvas: &mut dyn Canvas, series: &[Series<'_>]) {
    let top = heading(
        canvas,
        WIDTH,
        "Iterations per second, by size and backend",
        "Both axes logarithmic; higher is better. Dashed grey: published figures.",
    );
    let frame = Frame {
        left: 110.0,
        top,
        right: WIDTH - LEGEND - 40.0,
        bottom: HEIGHT - 60.0 - caption_height(WIDTH, CAPTION),
    };
    let measured = || series.iter().flat_map(|s| s.records.iter().copied());
    let products: Vec<f64> = measured()
        .map(|r| r.panel.products as f64)
        .chain(SETS.iter().map(|s| s.products as f64))
        .collect();
    // Room on the right for the labels of the published lines, a sixth of the width.
    let x = Scale::sizes(&products, 0.22);
    let rates = measured().filter_map(|r| r.iterations_per_second());
    let published_rates = SETS.iter().flat_map(|s| s.times).map(|t| t.iterations_per_second);
    let y = Scale::log(
        rates.flat_map(|r| [r.low, r.high]).chain(published_rates),
        0.2,
        0.2,
    );
    frame.vertical_axis(canvas, &y, "iterations (gradients) per second");
    frame.horizontal_axis(canvas, &x, "products (156 rows each in the published sets)");

    for (index, system) in PublishedSystem::ALL.iter().enumerate() {
        let places: Vec<(f64, f64)> = SETS
            .iter()
            .map(|s| {
                (
                    frame.x(&x, s.products as f64),
                    frame.y(&y, s.times[index].iterations_per_second),
                )
            })
            .collect();
        for pair in places.windows(2) {
            dashes(canvas, pair[0], pair[1], FAINT, 1.5);
        }
        for place in &places {
            canvas.dot(place.0, place.1, 3.5, FAINT);
        }
        if let Some(last) = places.last() {
            let name = format!("published, {}", system.name());
            let short = match system {
                PublishedSystem::Cpu192 => "published CPU",
                _ => name.as_str(),
            };
            canvas.text(last.0 + 8.0, last.1, short, SMALL, FAINT, Align::Left);
        }
    }
    let mut entries = vec![(
        Mark::Dashes(FAINT),
        "published, labelled at the line's end (CPU: \"192 cores\")".to_owned(),
    )];
    for (index, series) in series.iter().enumerate() {
        let color = ours(index);
        let mut line = Vec::new();
        for record in &series.records {
            if let Some(rate) = record.iterations_per_second() {
                let px = frame.x(&x, record.panel.products as f64);
                let py = frame.y(&y, rate.median);
                canvas.line(
                    &[(px, frame.y(&y, rate.low)), (px, frame.y(&y, rate.high))],
                    color,
                    2.0,
                );
                line.push((px, py));
            }
        }
        if line.len() > 1 {
            canvas.line(&line, color, 2.0);
        }
        for place in &line {
            canvas.dot(place.0, place.1, 5.0, color);
        }
        entries.push((
            Mark::LineAndDot(color),
            format!("{} ({})", series.name, series.unit.plural()),
        ));
    }
    legend(canvas, frame.right + 30.0, frame.top + 10.0, LEGEND, &entries);
    caption(canvas, WIDTH, HEIGHT, CAPTION);
}
