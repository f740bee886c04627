//! The published figure's form: time for 1M iterations by size and device, published bars and ours side by side.

use super::canvas::{Align, Canvas, PlotError, save};
use super::frame::{Frame, Mark, SMALL, caption, caption_height, heading, legend};
use super::palette::{FAINT, GRID, INK, PAPER, PUBLISHED, ours, text_on};
use super::scale::Scale;
use super::series::series;
use crate::number_format::{count, duration, three_digits};
use crate::published::{PublishedSystem, SETS, set_of};
use crate::records::case_record::{CaseRecord, IterationUnit};
use infermark_model::Coordinates;
use plotters::style::RGBColor;
use std::path::{Path, PathBuf};

const WIDTH: f64 = 1280.0;
const HEIGHT: f64 = 720.0;
const LEGEND: f64 = 290.0;

const CAPTION: &str = "Every time is an estimate: the published ones were read off a progress bar, ours are computed from the \
    timed iterations (results.csv states how many). The factor in a bar is the published 192-core CPU's time of the same size \
    over the bar's time; grey bars carry the factors as published. Published and ours ran on different machines.";

struct Bar {
    color: RGBColor,
    /// Hours for 1M iterations; `None` where it was not measured.
    hours: Option<f64>,
    factor: Option<String>,
}

struct Group {
    products: usize,
    rows: usize,
    bars: Vec<Bar>,
}

/// Draws the figure; nothing when no SVI case has a speed.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(stem: &Path, records: &[CaseRecord]) -> Result<Vec<PathBuf>, PlotError> {
    let mut ours_series = series(records, Some(IterationUnit::Iterations));
    // Nobody makes a million iterations in other coordinates than the published ones.
    ours_series.retain(|series| {
        let mut records = series.records.iter();
        records.all(|r| r.request.method.coordinates() == Coordinates::Published)
    });
    if ours_series.is_empty() {
        return Ok(Vec::new());
    }
    let mut sizes: Vec<(usize, usize)> = SETS.iter().map(|s| (s.products, s.rows)).collect();
    for record in ours_series.iter().flat_map(|s| &s.records) {
        let size = (record.panel.products, record.panel.rows);
        if !sizes.contains(&size) {
            sizes.push(size);
        }
    }
    sizes.sort_unstable();
    let groups: Vec<Group> = sizes
        .into_iter()
        .map(|(products, rows)| {
            let set = set_of(products, rows);
            let mut bars = Vec::new();
            for (time, color) in set.iter().flat_map(|s| s.times).zip(PUBLISHED) {
                bars.push(Bar {
                    color,
                    hours: Some(time.seconds() / 3600.0),
                    factor: time.factor.map(|f| format!("{f:.1}x")),
                });
            }
            for (index, series) in ours_series.iter().enumerate() {
                let record = series
                    .records
                    .iter()
                    .find(|r| (r.panel.products, r.panel.rows) == (products, rows));
                let seconds = record.and_then(|r| r.estimated_seconds_1m());
                let comparable = record.is_some_and(|r| r.is_published_workload());
                bars.push(Bar {
                    color: ours(index),
                    hours: seconds.map(|s| s / 3600.0),
                    factor: seconds
                        .zip(set)
                        .filter(|_| comparable)
                        .map(|(s, set)| format!("{}x", three_digits(set.times[0].seconds() / s))),
                });
            }
            Group { products, rows, bars }
        })
        .collect();
    let mut entries: Vec<(Mark, String)> = PublishedSystem::ALL
        .iter()
        .zip(PUBLISHED)
        .map(|(system, color)| (Mark::Bar(color), format!("published, {}", system.name())))
        .collect();
    for (index, series) in ours_series.iter().enumerate() {
        entries.push((Mark::Bar(ours(index)), format!("measured here, {}", series.name)));
    }
    save(stem, (WIDTH, HEIGHT), &|canvas| paint(canvas, &groups, &entries))
}

fn paint(canvas: &mut dyn Canvas, groups: &[Group], entries: &[(Mark, String)]) {
    let top = heading(
        canvas,
        WIDTH,
        "Time for 1,000,000 SVI iterations, by size and device",
        "Hours on a logarithmic scale, all estimated; lower is better. Factor over the published CPU written in the bar.",
    );
    let frame = Frame {
        left: 100.0,
        top: top + 10.0,
        right: WIDTH - LEGEND - 40.0,
        bottom: HEIGHT - 70.0 - caption_height(WIDTH, CAPTION),
    };
    let hours = groups.iter().flat_map(|g| &g.bars).filter_map(|b| b.hours);
    let scale = Scale::log(hours, 0.6, 0.35);
    frame.vertical_axis(canvas, &scale, "hours for 1M iterations (estimate)");
    let total: usize = groups.iter().map(|g| g.bars.len()).sum();
    // A bar's width is one, a gap between groups one and a half.
    let unit = (frame.right - frame.left) / (total as f64 + 1.5 * groups.len() as f64);
    let mut x = frame.left + 0.75 * unit;
    for group in groups {
        let start = x;
        for bar in &group.bars {
            paint_bar(canvas, &frame, &scale, bar, x, unit);
            x += unit;
        }
        let centre = 0.5 * (start + x);
        let products = format!("{} products", count(group.products as u64));
        canvas.text(
            centre,
            frame.bottom + 16.0,
            &products,
            SMALL + 1.0,
            INK,
            Align::Centre,
        );
        let rows = format!("{} rows", count(group.rows as u64));
        canvas.text(centre, frame.bottom + 35.0, &rows, SMALL, FAINT, Align::Centre);
        x += 0.75 * unit;
        if x < frame.right - unit {
            canvas.line(&[(x, frame.top), (x, frame.bottom)], GRID, 1.0);
        }
        x += 0.75 * unit;
    }
    canvas.line(
        &[(frame.left, frame.bottom), (frame.right, frame.bottom)],
        INK,
        1.0,
    );
    legend(canvas, frame.right + 30.0, frame.top + 10.0, LEGEND, entries);
    caption(canvas, WIDTH, HEIGHT, CAPTION);
}

fn paint_bar(canvas: &mut dyn Canvas, frame: &Frame, scale: &Scale, bar: &Bar, x: f64, unit: f64) {
    let centre = x + 0.5 * unit;
    let Some(hours) = bar.hours else {
        let y = frame.bottom - 62.0;
        canvas.text_upwards(centre, y, "not measured", SMALL, FAINT);
        return;
    };
    let y = frame.y(scale, hours);
    canvas.bar(x + 0.06 * unit, y, x + 0.94 * unit, frame.bottom, bar.color);
    // Upright where the bar is too slim for a line of text.
    let label = duration(hours * 3600.0);
    let slim = unit < 84.0;
    if slim {
        let half = 0.5 * super::canvas::text_width(&label, SMALL);
        let up = y - half - 6.0;
        if up - half > frame.top - 6.0 {
            canvas.bar(centre - 8.0, up - half, centre + 8.0, up + half, PAPER);
            canvas.text_upwards(centre, up, &label, SMALL, INK);
        } else {
            canvas.text_upwards(centre, y + half + 6.0, &label, SMALL, text_on(bar.color));
        }
    } else {
        canvas.text(centre, y - 10.0, &label, SMALL, INK, Align::Centre);
    }
    if let Some(text) = &bar.factor {
        let color = text_on(bar.color);
        if slim {
            let half = 0.5 * super::canvas::text_width(text, SMALL);
            canvas.text_upwards(centre, frame.bottom - half - 6.0, text, SMALL, color);
        } else {
            canvas.text(centre, frame.bottom - 12.0, text, SMALL, color, Align::Centre);
        }
    }
}
