//! Elasticities with their intervals against the truth.

use super::canvas::{Canvas, PlotError, dashes, save};
use super::frame::{Frame, Mark, caption, caption_height, heading, legend};
use super::palette::{BLUE, INK, VERMILLION};
use super::scale::Scale;
use crate::number_format::{count, duration, three_digits};
use crate::quality::truth::TruthQuality;
use crate::records::case_record::CaseRecord;
use std::path::{Path, PathBuf};

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 780.0;
const LEGEND: f64 = 250.0;

/// Draws the quality of a measured case.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_record(
    stem: &Path,
    record: &CaseRecord,
    quality: &TruthQuality,
) -> Result<Vec<PathBuf>, PlotError> {
    let steps = record.unit.quality_steps();
    let subtitle = format!(
        "{} after {} {steps} ({}).",
        record.side(),
        count(quality.after),
        duration(quality.seconds)
    );
    draw(stem, quality, &subtitle)
}

/// Draws posterior means and 90% intervals of a sample of products against the truth; coverage is over all of them.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(stem: &Path, quality: &TruthQuality, subtitle: &str) -> Result<Vec<PathBuf>, PlotError> {
    if quality.sample.is_empty() {
        return Ok(Vec::new());
    }
    save(stem, (WIDTH, HEIGHT), &|canvas| paint(canvas, quality, subtitle))
}

fn paint(canvas: &mut dyn Canvas, quality: &TruthQuality, subtitle: &str) {
    let shown = if quality.sample.len() < quality.products {
        format!(
            "A random sample of {} of {} products is drawn.",
            quality.sample.len(),
            count(quality.products as u64)
        )
    } else {
        format!("All {} products are drawn.", count(quality.products as u64))
    };
    let text = format!(
        "{shown} Over all products: mean absolute error {}, 90% intervals cover {:.1}% of the true values, 95% intervals {:.1}%.",
        three_digits(quality.product_a_mae),
        100.0 * quality.product_a_coverage_90,
        100.0 * quality.product_a_coverage_95,
    );
    let top = heading(
        canvas,
        WIDTH,
        "Product elasticities: posterior against truth",
        subtitle,
    );
    let frame = Frame {
        left: 100.0,
        top,
        right: WIDTH - LEGEND - 30.0,
        bottom: HEIGHT - 60.0 - caption_height(WIDTH, &text),
    };
    let sample = &quality.sample;
    let x = Scale::linear(sample.iter().map(|s| s.truth));
    let y = Scale::linear(sample.iter().flat_map(|s| [s.truth, s.mean, s.q05, s.q95]));
    frame.vertical_axis(canvas, &y, "posterior elasticity");
    frame.horizontal_axis(canvas, &x, "true elasticity");
    let inside = |s: &crate::quality::truth::ElasticityInterval| s.q05 <= s.truth && s.truth <= s.q95;
    for s in sample {
        let color = if inside(s) { BLUE } else { VERMILLION };
        let px = frame.x(&x, s.truth);
        canvas.line(&[(px, frame.y(&y, s.q05)), (px, frame.y(&y, s.q95))], color, 1.0);
        canvas.dot(px, frame.y(&y, s.mean), 2.5, color);
    }
    let Scale::Linear { low, high } = x else {
        return;
    };
    let at = |v: f64| (frame.x(&x, v), frame.y(&y, v));
    dashes(canvas, at(low), at(high), INK, 1.5);
    legend(
        canvas,
        frame.right + 25.0,
        frame.top + 10.0,
        LEGEND,
        &[
            (
                Mark::LineAndDot(BLUE),
                "mean and 90% interval that holds the truth".into(),
            ),
            (
                Mark::LineAndDot(VERMILLION),
                "mean and 90% interval that misses it".into(),
            ),
            (Mark::Dashes(INK), "posterior mean = truth".into()),
        ],
    );
    caption(canvas, WIDTH, HEIGHT, &text);
}
