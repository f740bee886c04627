//! Speedups, each with both of its sides written beside it.

use super::frame::{Frame, Mark, SMALL, caption, caption_height, fit, heading, legend};
use super::palette::{BLUE, FAINT, INK, PUBLISHED, VERMILLION};
use super::pen::{Align, Pen, PlotError, save};
use super::scale::Scale;
use crate::case_record::CaseRecord;
use crate::number_format::{count, three_digits};
use crate::published::SETS;
use crate::speedup::{Speedup, speedups};
use plotters::style::RGBColor;
use std::path::{Path, PathBuf};

const WIDTH: f64 = 1280.0;
const ROW: f64 = 46.0;
const SIDES: f64 = 520.0;

const CAPTION: &str = "A factor is the time of the other side over the time of this one for the same number of iterations (or the same draws) \
    on panels of the same size. Factors against published figures compare different machines, and both sides are estimates.";

struct Row {
    this: String,
    against: String,
    factor: f64,
    note: &'static str,
    color: RGBColor,
}

/// Draws the figure; nothing when there is no speedup to show.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(stem: &Path, records: &[CaseRecord]) -> Result<Vec<PathBuf>, PlotError> {
    let found = speedups(records);
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows: Vec<Row> = found.iter().map(measured_row).collect();
    for set in SETS
        .iter()
        .filter(|set| found.iter().any(|s| s.products == set.products))
    {
        for time in set.times {
            if let Some(factor) = time.factor {
                rows.push(Row {
                    this: format!(
                        "published {}, {} products",
                        time.system.name(),
                        count(set.products as u64)
                    ),
                    against: "against the published CPU, \"192 cores\"".into(),
                    factor,
                    note: "published estimate",
                    color: PUBLISHED[0],
                });
            }
        }
    }
    let height = 250.0 + ROW * rows.len() as f64;
    save(stem, (WIDTH, height), &|pen| paint(pen, &rows, height))
}

fn measured_row(s: &Speedup) -> Row {
    Row {
        this: format!("{} products, {}", count(s.products as u64), s.this),
        against: format!("against {}", s.against),
        factor: s.factor,
        note: if s.estimated { "estimated" } else { "measured" },
        color: if s.against_published { BLUE } else { VERMILLION },
    }
}

fn paint(pen: &mut dyn Pen, rows: &[Row], height: f64) {
    let top = heading(
        pen,
        WIDTH,
        "Speedups",
        "Times as fast, on a logarithmic scale; the line marks 1, equal speed.",
    );
    legend(
        pen,
        20.0,
        top + 4.0,
        420.0,
        &[(Mark::Bar(BLUE), "ours against a published figure".into())],
    );
    legend(
        pen,
        440.0,
        top + 4.0,
        420.0,
        &[(Mark::Bar(VERMILLION), "ours against ours".into())],
    );
    legend(
        pen,
        860.0,
        top + 4.0,
        400.0,
        &[(Mark::Bar(PUBLISHED[0]), "published against published".into())],
    );
    let frame = Frame {
        left: SIDES + 20.0,
        top: top + 34.0,
        right: WIDTH - 190.0,
        bottom: height - 62.0 - caption_height(WIDTH, CAPTION),
    };
    let scale = Scale::log(rows.iter().map(|r| r.factor).chain([1.0]), 0.15, 0.1);
    frame.horizontal_axis(pen, &scale, "times as fast");
    let one = frame.x(&scale, 1.0);
    let step = (frame.bottom - frame.top) / rows.len() as f64;
    for (index, row) in rows.iter().enumerate() {
        let y = frame.top + (index as f64 + 0.5) * step;
        let end = frame.x(&scale, row.factor);
        pen.bar(
            one.min(end),
            y - 0.28 * step,
            one.max(end),
            y + 0.28 * step,
            row.color,
        );
        let label = format!("{}x, {}", three_digits(row.factor), row.note);
        pen.text(one.max(end) + 8.0, y, &label, SMALL, INK, Align::Left);
        let width = SIDES - 10.0;
        pen.text(
            SIDES,
            y - 9.0,
            &fit(&row.this, SMALL, width),
            SMALL,
            INK,
            Align::Right,
        );
        pen.text(
            SIDES,
            y + 9.0,
            &fit(&row.against, SMALL, width),
            SMALL,
            FAINT,
            Align::Right,
        );
    }
    pen.line(&[(one, frame.top), (one, frame.bottom)], INK, 1.5);
    caption(pen, WIDTH, height, CAPTION);
}
