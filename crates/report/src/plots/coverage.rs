//! Calibration: what intervals of each nominal level cover of the truth.

use super::canvas::{Canvas, PlotError, dashes, save};
use super::frame::{Frame, Mark, caption, caption_height, heading, legend};
use super::palette::{INK, ours};
use super::scale::Scale;
use super::series::size_in_words;
use crate::number_format::count;
use crate::quality::coverage::CoveragePoint;
use crate::records::case_record::{CaseRecord, of_most_threads};
use std::path::{Path, PathBuf};

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 760.0;
const LEGEND: f64 = 300.0;

const CAPTION: &str = "Over all products, their true elasticities against the central intervals of the posterior. On the diagonal intervals \
    mean what they say; below it they are too narrow. The period noise of the published process is outside the model: on it \
    even the exact posterior's 95% intervals cover about 91%.";

/// One method.
#[derive(Debug, Clone)]
pub struct CoverageLine<'p> {
    /// Its name in the legend.
    pub name: String,
    /// What each level covers, ascending.
    pub points: &'p [CoveragePoint],
}

/// Draws the coverage of the cases of one panel; nothing when none was taken.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_records(stem: &Path, records: &[&CaseRecord]) -> Result<Vec<PathBuf>, PlotError> {
    let lines: Vec<CoverageLine<'_>> = of_most_threads(records.iter().copied())
        .into_iter()
        .filter_map(|record| {
            let quality = record.truth_quality.as_ref()?;
            let name = format!(
                "{}, {}, after {} {}",
                record.backend,
                record.settings_without_threads(),
                count(quality.after),
                record.unit.quality_steps()
            );
            Some(CoverageLine {
                name,
                points: &quality.coverage,
            })
        })
        .collect();
    draw(stem, &lines, &size_in_words(records))
}

/// Draws `lines`; nothing when none of them has points.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(stem: &Path, lines: &[CoverageLine<'_>], subtitle: &str) -> Result<Vec<PathBuf>, PlotError> {
    let lines: Vec<&CoverageLine<'_>> = lines.iter().filter(|l| !l.points.is_empty()).collect();
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    save(stem, (WIDTH, HEIGHT), &|canvas| paint(canvas, &lines, subtitle))
}

fn paint(canvas: &mut dyn Canvas, lines: &[&CoverageLine<'_>], subtitle: &str) {
    let top = heading(
        canvas,
        WIDTH,
        "Coverage of the true elasticities, by nominal level",
        subtitle,
    );
    let frame = Frame {
        left: 90.0,
        top,
        right: WIDTH - LEGEND - 40.0,
        bottom: HEIGHT - 60.0 - caption_height(WIDTH, CAPTION),
    };
    let percent = Scale::Linear {
        low: 0.0,
        high: 100.0,
    };
    frame.vertical_axis(canvas, &percent, "true elasticities covered, %");
    frame.horizontal_axis(canvas, &percent, "nominal level of the interval, %");
    let at = |nominal: f64, actual: f64| {
        (
            frame.x(&percent, 100.0 * nominal),
            frame.y(&percent, 100.0 * actual),
        )
    };
    dashes(canvas, at(0.0, 0.0), at(1.0, 1.0), INK, 1.5);
    let mut entries = vec![(Mark::Dashes(INK), "covered = nominal".to_owned())];
    for (index, line) in lines.iter().enumerate() {
        let color = ours(index);
        let places: Vec<(f64, f64)> = line.points.iter().map(|p| at(p.nominal, p.actual)).collect();
        canvas.line(&places, color, 2.0);
        for place in places {
            canvas.dot(place.0, place.1, 4.0, color);
        }
        entries.push((Mark::LineAndDot(color), line.name.clone()));
    }
    legend(canvas, frame.right + 30.0, frame.top + 10.0, LEGEND, &entries);
    caption(canvas, WIDTH, HEIGHT, CAPTION);
}
