//! Time to a posterior by size: what is published, and what was measured or estimated here.

use super::canvas::{Align, Canvas, PlotError, dashes, save};
use super::frame::{Frame, Mark, SMALL, caption, caption_height, heading, legend};
use super::palette::{FAINT, INK, ours};
use super::scale::Scale;
use crate::number_format::duration;
use crate::published::{NUTS_HOURS, NUTS_TIME, PublishedSystem, SETS};
use crate::records::case_record::{CaseRecord, IterationUnit, of_most_threads};
use crate::statistics::time_to_posterior::{PosteriorTime, TimeBasis, time_of};
use plotters::style::RGBColor;
use std::path::{Path, PathBuf};

const WIDTH: f64 = 1280.0;
const HEIGHT: f64 = 760.0;
const LEGEND: f64 = 330.0;

const CAPTION: &str = "From the loaded panel to all marginals. Solid: the whole way was measured, the median of the repeats. Dashed: estimated \
    from a part of it, or its upper bound, as the legend says. Grey, and the square: published, on other machines; SVI read off a progress bar. What the posteriors are worth is in the table \
    and in the figures of coverage.";

/// One way to a posterior over the sizes.
struct Way {
    name: String,
    basis: TimeBasis,
    /// (products, seconds), ascending.
    points: Vec<(f64, f64)>,
}

/// Draws the figure; nothing when no whole fit has a time.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(stem: &Path, records: &[CaseRecord]) -> Result<Vec<PathBuf>, PlotError> {
    let timed = |r: &&CaseRecord| time_of(r).is_some();
    if !records
        .iter()
        .filter(timed)
        .any(|r| r.unit == IterationUnit::Fits)
    {
        return Ok(Vec::new());
    }
    let mut ways: Vec<Way> = Vec::new();
    for (record, time) in of_most_threads(records)
        .into_iter()
        .filter_map(|r| Some((r, time_of(r)?)))
    {
        let PosteriorTime {
            products,
            way,
            seconds,
            basis,
            ..
        } = time;
        let name = format!("{way}: {}, {}", record.backend, record.settings());
        let point = (products as f64, seconds);
        match ways.iter_mut().find(|w| w.name == name && w.basis == basis) {
            Some(found) => found.points.push(point),
            None => ways.push(Way {
                name,
                basis,
                points: vec![point],
            }),
        }
    }
    for way in &mut ways {
        way.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    save(stem, (WIDTH, HEIGHT), &|canvas| paint(canvas, &ways))
}

fn paint(canvas: &mut dyn Canvas, ways: &[Way]) {
    let top = heading(
        canvas,
        WIDTH,
        "Time to a posterior, by size and method",
        "Both axes logarithmic; lower is better.",
    );
    let frame = Frame {
        left: 110.0,
        top,
        right: WIDTH - LEGEND - 40.0,
        bottom: HEIGHT - 60.0 - caption_height(WIDTH, CAPTION),
    };
    let sizes = SETS.iter().map(|s| s.products as f64);
    let own = || ways.iter().flat_map(|w| w.points.iter().copied());
    let products: Vec<f64> = own().map(|p| p.0).chain(sizes).collect();
    // Room on the right for the labels at the lines' ends, a quarter of the width.
    let x = Scale::sizes(&products, 0.3);
    let nuts_seconds = NUTS_HOURS * 3600.0;
    let published = SETS.iter().flat_map(|s| s.times).map(|t| t.seconds());
    let y = Scale::log(
        own().map(|p| p.1).chain(published).chain([nuts_seconds]),
        0.3,
        0.3,
    );
    frame.vertical_axis(canvas, &y, "seconds to the posterior");
    frame.horizontal_axis(canvas, &x, "products (156 rows each in the published sets)");

    let mut labels = Labels::default();
    let mut entries = vec![(
        Mark::Dashes(FAINT),
        "published, 1M iterations of SVI, labelled at the line's end".to_owned(),
    )];
    for (index, system) in PublishedSystem::ALL.iter().enumerate() {
        let points: Vec<(f64, f64)> = SETS
            .iter()
            .map(|s| (s.products as f64, s.times[index].seconds()))
            .collect();
        let places = polyline(canvas, &frame, (&x, &y), &points, FAINT, true);
        if let Some((px, py)) = places.last() {
            let name = match system {
                PublishedSystem::Cpu192 => "published SVI, CPU",
                PublishedSystem::A10g => "published SVI, 1x A10G",
                PublishedSystem::FourA10g => "published SVI, 4x A10G",
            };
            labels.push((*px, *py), name.to_owned(), FAINT);
        }
    }
    let (px, py) = (frame.x(&x, SETS[0].products as f64), frame.y(&y, nuts_seconds));
    canvas.bar(px - 4.5, py - 4.5, px + 4.5, py + 4.5, INK);
    entries.push((Mark::Bar(INK), format!("published, NUTS: {NUTS_TIME}")));
    for (index, way) in ways.iter().enumerate() {
        let color = ours(index);
        let estimated = way.basis != TimeBasis::Measured;
        let places = polyline(canvas, &frame, (&x, &y), &way.points, color, estimated);
        if let (Some((px, py)), Some((_, seconds))) = (places.last(), way.points.last()) {
            labels.push((*px, *py), duration(*seconds), INK);
        }
        let mark = if estimated {
            Mark::Dashes(color)
        } else {
            Mark::LineAndDot(color)
        };
        entries.push((mark, format!("{} ({})", way.name, way.basis.name())));
    }
    labels.write(canvas);
    legend(canvas, frame.right + 30.0, frame.top + 10.0, LEGEND, &entries);
    caption(canvas, WIDTH, HEIGHT, CAPTION);
}

/// Texts next to their points, moved down where they would overlap.
#[derive(Default)]
struct Labels(Vec<((f64, f64), String, RGBColor)>);

impl Labels {
    fn push(&mut self, at: (f64, f64), text: String, color: RGBColor) {
        self.0.push((at, text, color));
    }

    fn write(mut self, canvas: &mut dyn Canvas) {
        const LINE: f64 = 15.0;
        self.0.sort_by(|a, b| a.0.1.total_cmp(&b.0.1));
        let mut written: Vec<(f64, f64)> = Vec::new();
        for ((x, y), text, color) in self.0 {
            // Points of one size stand at one place across the page.
            let above = written
                .iter()
                .filter(|w| (w.0 - x).abs() < 1.0)
                .map(|w| w.1 + LINE);
            let y = above.fold(y, f64::max);
            canvas.text(x + 9.0, y, &text, SMALL, color, Align::Left);
            written.push((x, y));
        }
    }
}

/// A line through `points` with a dot at each; returns their places on the page.
fn polyline(
    canvas: &mut dyn Canvas,
    frame: &Frame,
    (x, y): (&Scale, &Scale),
    points: &[(f64, f64)],
    color: RGBColor,
    dashed: bool,
) -> Vec<(f64, f64)> {
    let places: Vec<(f64, f64)> = points
        .iter()
        .map(|p| (frame.x(x, p.0), frame.y(y, p.1)))
        .collect();
    for pair in places.windows(2) {
        if dashed {
            dashes(canvas, pair[0], pair[1], color, 1.5);
        } else {
            canvas.line(pair, color, 2.0);
        }
    }
    for place in &places {
        canvas.dot(place.0, place.1, 4.5, color);
    }
    places
}
