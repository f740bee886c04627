//! The quality of a posterior against the seconds that it took: widths, means and coverage, method by method.

use super::canvas::{Canvas, PlotError, dashes, save};
use super::frame::{Frame, Mark, caption, caption_height, heading, legend};
use super::palette::{INK, ours};
use super::scale::Scale;
use std::path::{Path, PathBuf};

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 1000.0;
const LEGEND: f64 = 270.0;
/// Between one panel of the picture and the next.
const GAP: f64 = 34.0;

const CAPTION: &str = "Elasticities of the products. Each point is a fit: the seconds of its set-up and its run, both axes of the upper panels logarithmic. \
    Fits of one method that differ in how long they ran are joined. Dashed: the standard deviations and the coverage of the reference.";

/// The least distance that is drawn: below it the reference's own error decides.
const LEAST_DISTANCE: f64 = 1e-3;

/// One fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QualityPoint {
    /// Seconds that it took.
    pub seconds: f64,
    /// Standard deviations over the reference's, the median over the products.
    pub sd_ratio: Option<f64>,
    /// Distances of the means from the reference's in its standard deviations, the median over the products.
    pub mean_difference: Option<f64>,
    /// Share of the true elasticities in the central 95% intervals.
    pub coverage_95: Option<f64>,
}

/// The fits of one method.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityLine {
    /// Its name in the legend.
    pub name: String,
    /// Its fits, by their seconds.
    pub points: Vec<QualityPoint>,
}

/// The reference.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityReference {
    /// Its name.
    pub name: String,
    /// Share of the true elasticities in its central 95% intervals, where they are known.
    pub coverage_95: Option<f64>,
}

/// Draws `lines`; nothing unless a method was run for different lengths of time: only then is there a trend
/// to be seen.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(
    stem: &Path,
    lines: &[QualityLine],
    reference: &QualityReference,
    subtitle: &str,
) -> Result<Vec<PathBuf>, PlotError> {
    if lines.iter().all(|line| line.points.len() < 2) {
        return Ok(Vec::new());
    }
    save(stem, (WIDTH, HEIGHT), &|canvas| {
        paint(canvas, lines, reference, subtitle)
    })
}

/// A panel: the name of its axis, its scale, what it shows of a fit, and where the reference is.
struct Panel<'a> {
    name: &'a str,
    scale: Scale,
    value: fn(&QualityPoint) -> Option<f64>,
    reference: Option<f64>,
}

fn paint(canvas: &mut dyn Canvas, lines: &[QualityLine], reference: &QualityReference, subtitle: &str) {
    let top = heading(
        canvas,
        WIDTH,
        "Quality of the posterior against the seconds it took",
        subtitle,
    );
    let points = || lines.iter().flat_map(|line| &line.points);
    let seconds = Scale::log(points().map(|p| p.seconds), 0.15, 0.15);
    let sd_ratio: fn(&QualityPoint) -> Option<f64> = |p| p.sd_ratio;
    let distance: fn(&QualityPoint) -> Option<f64> = |p| p.mean_difference.map(|d| d.max(LEAST_DISTANCE));
    let covered: fn(&QualityPoint) -> Option<f64> = |p| p.coverage_95.map(|c| 100.0 * c);
    let mut panels = vec![
        Panel {
            name: "sd over the reference's",
            scale: Scale::log(points().filter_map(sd_ratio).chain([1.0]), 0.1, 0.1),
            value: sd_ratio,
            reference: Some(1.0),
        },
        Panel {
            name: "distance of means, in sds",
            scale: Scale::log(points().filter_map(distance), 0.1, 0.1),
            value: distance,
            reference: None,
        },
    ];
    if points().any(|p| p.coverage_95.is_some()) {
        panels.push(Panel {
            name: "95% intervals cover, %",
            scale: Scale::Linear {
                low: 0.0,
                high: 100.0,
            },
            value: covered,
            reference: reference.coverage_95.map(|c| 100.0 * c),
        });
    }
    let bottom = HEIGHT - 60.0 - caption_height(WIDTH, CAPTION);
    let height = (bottom - top - GAP * (panels.len() - 1) as f64) / panels.len() as f64;
    for (place, panel) in panels.iter().enumerate() {
        let from = top + place as f64 * (height + GAP);
        let frame = Frame {
            left: 100.0,
            top: from,
            right: WIDTH - LEGEND - 50.0,
            bottom: from + height,
        };
        frame.vertical_axis(canvas, &panel.scale, panel.name);
        if place + 1 == panels.len() {
            frame.horizontal_axis(canvas, &seconds, "seconds");
        } else {
            frame.horizontal_ticks(canvas, &seconds);
        }
        if let Some(value) = panel.reference {
            let y = frame.y(&panel.scale, value);
            dashes(canvas, (frame.left, y), (frame.right, y), INK, 1.5);
        }
        for (index, line) in lines.iter().enumerate() {
            let color = ours(index);
            let shown = line.points.iter().filter_map(|p| Some((p, (panel.value)(p)?)));
            let places: Vec<(f64, f64)> = shown
                .map(|(p, value)| (frame.x(&seconds, p.seconds), frame.y(&panel.scale, value)))
                .collect();
            if places.len() > 1 {
                canvas.line(&places, color, 2.0);
            }
            for (x, y) in places {
                canvas.dot(x, y, 4.5, color);
            }
        }
    }
    let covers = reference.coverage_95.map_or(String::new(), |covered| {
        format!(", covers {:.1}%", 100.0 * covered)
    });
    let mut entries = vec![(
        Mark::Dashes(INK),
        format!("reference: {}{covers}", reference.name),
    )];
    for (index, line) in lines.iter().enumerate() {
        entries.push((Mark::LineAndDot(ours(index)), line.name.clone()));
    }
    legend(canvas, WIDTH - LEGEND - 20.0, top + 10.0, LEGEND, &entries);
    caption(canvas, WIDTH, HEIGHT, CAPTION);
}
