//! Speedups, each labelled with both of its sides.

use super::canvas::{Align, Canvas, PlotError, save, text_width};
use super::frame::{Frame, Mark, SMALL, caption, caption_height, heading, legend, wrap};
use super::palette::{BLUE, FAINT, INK, PAPER, PUBLISHED, VERMILLION};
use super::scale::Scale;
use crate::number_format::{count, three_digits};
use crate::published::SETS;
use crate::records::case_record::{CaseRecord, Status};
use crate::statistics::speedup::{Speedup, speedups};
use plotters::style::RGBColor;
use std::path::{Path, PathBuf};

const WIDTH: f64 = 1280.0;
const LINE: f64 = 17.0;
const SIDES: f64 = 620.0;

const CAPTION: &str = "A factor is the time of the other side over the time of this one for the same number of iterations (or the same draws) \
    on the same panel, the median over the repeats with their lowest and highest as a line. Factors against published figures compare different machines, and both sides are estimates.";

struct Row {
    this: Vec<String>,
    against: Vec<String>,
    factor: f64,
    range: Option<(f64, f64)>,
    note: String,
    color: RGBColor,
}

impl Row {
    fn height(&self) -> f64 {
        (self.this.len() + self.against.len()) as f64 * LINE + 14.0
    }
}

fn side(text: &str) -> Vec<String> {
    wrap(text, SMALL, SIDES - 30.0)
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
                    this: side(&format!(
                        "published {}, {} products",
                        time.system.name(),
                        count(set.products as u64)
                    )),
                    against: side("against the published CPU, \"192 cores\""),
                    factor,
                    range: None,
                    note: "published estimate".into(),
                    color: PUBLISHED[0],
                });
            }
        }
    }
    let height = 250.0 + rows.iter().map(Row::height).sum::<f64>();
    save(stem, (WIDTH, height), &|canvas| paint(canvas, &rows, height))
}

fn measured_row(s: &Speedup) -> Row {
    Row {
        this: side(&format!("{} products, {}", count(s.products as u64), s.this)),
        against: side(&format!("against {}", s.against)),
        factor: s.factor,
        range: s.range,
        note: match (s.estimated, s.status) {
            (true, Status::Ok) => "estimated".into(),
            (false, Status::Ok) => "measured".into(),
            (true, status) => format!("estimated, {}", status.name()),
            (false, status) => format!("measured, {}", status.name()),
        },
        color: if s.against_published { BLUE } else { VERMILLION },
    }
}

fn paint(canvas: &mut dyn Canvas, rows: &[Row], height: f64) {
    let top = heading(
        canvas,
        WIDTH,
        "Speedups",
        "Times as fast, on a logarithmic scale; the line marks 1, equal speed.",
    );
    legend(
        canvas,
        20.0,
        top + 4.0,
        420.0,
        &[(Mark::Bar(BLUE), "ours against a published figure".into())],
    );
    legend(
        canvas,
        440.0,
        top + 4.0,
        420.0,
        &[(Mark::Bar(VERMILLION), "ours against ours".into())],
    );
    legend(
        canvas,
        860.0,
        top + 4.0,
        400.0,
        &[(Mark::Bar(PUBLISHED[0]), "published against published".into())],
    );
    let frame = Frame {
        left: SIDES + 20.0,
        top: top + 34.0,
        right: WIDTH - 180.0,
        bottom: height - 62.0 - caption_height(WIDTH, CAPTION),
    };
    let ends = rows.iter().flat_map(|r| {
        let (low, high) = r.range.unwrap_or((r.factor, r.factor));
        [r.factor, low, high]
    });
    let scale = Scale::log(ends.chain([1.0]), 0.15, 0.1);
    frame.horizontal_axis(canvas, &scale, "times as fast");
    let one = frame.x(&scale, 1.0);
    let all: f64 = rows.iter().map(Row::height).sum();
    let mut top = frame.top;
    for row in rows {
        let step = row.height() * (frame.bottom - frame.top) / all;
        let y = top + 0.5 * step;
        top += step;
        let end = frame.x(&scale, row.factor);
        canvas.bar(one.min(end), y - 13.0, one.max(end), y + 13.0, row.color);
        let mut reach = one.max(end);
        if let Some((low, high)) = row.range {
            let (low, high) = (frame.x(&scale, low), frame.x(&scale, high));
            canvas.line(&[(low, y), (high, y)], INK, 2.0);
            reach = reach.max(high);
        }
        let label = format!("{}x, {}", three_digits(row.factor), row.note);
        let x = reach + 8.0;
        canvas.bar(
            x - 2.0,
            y - 9.0,
            x + text_width(&label, SMALL) + 2.0,
            y + 9.0,
            PAPER,
        );
        canvas.text(x, y, &label, SMALL, INK, Align::Left);
        let mut line = y - 0.5 * LINE * (row.this.len() + row.against.len() - 1) as f64;
        for (texts, color) in [(&row.this, INK), (&row.against, FAINT)] {
            for text in texts {
                canvas.text(SIDES, line, text, SMALL, color, Align::Right);
                line += LINE;
            }
        }
    }
    canvas.line(&[(one, frame.top), (one, frame.bottom)], INK, 1.5);
    caption(canvas, WIDTH, height, CAPTION);
}
