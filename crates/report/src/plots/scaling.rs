//! Strong and weak scaling as measured, each with the ideal line; and projections, in a picture of their own.

use super::canvas::{Align, Canvas, PlotError, dashes, save};
use super::frame::{Frame, LABEL, Mark, SMALL, caption, caption_height, heading, legend};
use super::palette::{FAINT, GRID, INK, ours};
use super::scale::Scale;
use crate::number_format::count;
use crate::records::projection_record::ProjectionRecord;
use crate::records::scaling_record::ScalingRecord;
use crate::scaling::projection::Projection;
use crate::scaling::series::{Point, Series, strong, weak};
use plotters::style::RGBColor;
use std::path::{Path, PathBuf};

const WIDTH: f64 = 1160.0;
const HEIGHT: f64 = 640.0;
const LEGEND: f64 = 300.0;

/// A point of a line: ranks, and a figure with its lowest and highest.
struct Mean {
    ranks: f64,
    value: f64,
    low: f64,
    high: f64,
}

struct Line {
    name: String,
    /// Lines of one colour differ in their dashes.
    color: RGBColor,
    dashed: bool,
    points: Vec<Mean>,
}

/// What differs between the pictures.
struct Words<'a> {
    title: &'a str,
    subtitle: &'a str,
    vertical: &'a str,
    horizontal: &'a str,
    caption: &'a str,
}

const STRONG: Words<'_> = Words {
    title: "Strong scaling of SVI: one panel on more ranks",
    subtitle: "Times as many iterations per second as one rank; higher is better. Dashed grey: ideal, one more for each rank.",
    vertical: "speedup over one rank",
    horizontal: "ranks, or GPUs",
    caption: "Medians of the repeats, each against the repeat of one rank in the same turn, with the lowest and the highest as bars. Measured on one machine; \
        logical shards, which share a device or cores, are left out.",
};

const WEAK: Words<'_> = Words {
    title: "Weak scaling of SVI: the panel grows with the ranks",
    subtitle: "Rows per second and rank, as a part of those of one rank; higher is better. Dashed grey: ideal, every rank counts in full.",
    vertical: "efficiency, %",
    horizontal: "ranks, or GPUs; each has as many rows",
    caption: "Medians of the repeats; the bars put the lowest repeats against the highest of one rank and the other way round. Measured on one machine; logical \
        shards, which share a device or cores, are left out.",
};

const PROJECTED: Words<'_> = Words {
    title: "Projection, not measured: SVI on more devices",
    subtitle: "Projected times as many iterations per second as one device; dashed grey: ideal. No point of this picture was measured.",
    vertical: "projected speedup over one device",
    horizontal: "devices of all nodes",
    caption: "From a model fitted on measurements of smaller machines and from links whose figures are assumed (projection.md has both). Bars: no two messages \
        overlap at the slow end, all of a phase do at the fast end, both widened by the model's largest error.",
};

/// Draws the pictures of what was measured; nothing where there is no series.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(folder: &Path, records: &[ScalingRecord]) -> Result<Vec<PathBuf>, PlotError> {
    let several = |series: &[Series<'_>]| {
        let mut configurations: Vec<String> = series.iter().map(|s| s.base.configuration()).collect();
        configurations.dedup();
        configurations.len() > 1
    };
    let name = |series: &Series<'_>, several: bool, each: &str| {
        let size = format!("{} products{each}", count(series.base.panel.products as u64));
        let connected = format!("connected by {}", series.communicator);
        match several {
            true => format!("{size}, {connected}; {}", series.base.configuration()),
            false => format!("{size}, {connected}"),
        }
    };
    let (strong, weak) = (strong(records), weak(records));
    let lines = |series: &[Series<'_>], each: &str, of: &dyn Fn(&Point<'_>, f64) -> f64| -> Vec<Line> {
        let line = |(index, s): (usize, &Series<'_>)| Line {
            name: name(s, several(series), each),
            color: ours(index),
            dashed: false,
            points: s
                .points
                .iter()
                .map(|point| Mean {
                    ranks: point.ranks() as f64,
                    value: of(point, point.speedup.median),
                    low: of(point, point.speedup.low),
                    high: of(point, point.speedup.high),
                })
                .collect(),
        };
        series.iter().enumerate().map(line).collect()
    };
    let mut files = Vec::new();
    if !strong.is_empty() {
        let lines = lines(&strong, "", &|_, speedup| speedup);
        files.extend(save(
            &folder.join("strong_scaling"),
            (WIDTH, HEIGHT),
            &|canvas| {
                paint(canvas, &STRONG, &lines, Ideal::Diagonal);
            },
        )?);
    }
    if !weak.is_empty() {
        let lines = lines(&weak, " per rank", &|point, speedup| {
            100.0 * speedup / point.ranks() as f64
        });
        files.extend(save(&folder.join("weak_scaling"), (WIDTH, HEIGHT), &|canvas| {
            paint(canvas, &WEAK, &lines, Ideal::Hundred);
        })?);
    }
    Ok(files)
}

/// Draws the picture of a projection; nothing where nothing was projected.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_projection(folder: &Path, record: &ProjectionRecord) -> Result<Vec<PathBuf>, PlotError> {
    let mut lines: Vec<Line> = Vec::new();
    let (mut panels, mut links): (Vec<usize>, [Vec<&str>; 2]) = Default::default();
    for projection in &record.projections {
        let name = line_name(projection);
        let point = Mean {
            ranks: projection.machines.ranks() as f64,
            value: projection.speedup.value,
            low: projection.speedup.low,
            high: projection.speedup.high,
        };
        if let Some(line) = lines.iter_mut().find(|line| line.name == name) {
            line.points.push(point);
            continue;
        }
        // A colour for each panel, dashes for all links but the first of a kind.
        let of_kind = match projection.machines.nodes {
            1 => (&mut links[0], projection.within.as_str()),
            _ => (&mut links[1], projection.between.as_str()),
        };
        let color = ours(place_in(&mut panels, projection.products));
        let dashed = place_in(of_kind.0, of_kind.1) > 0;
        lines.push(Line {
            name,
            color,
            dashed,
            points: vec![point],
        });
    }
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    save(&folder.join("projected_scaling"), (WIDTH, HEIGHT), &|canvas| {
        paint(canvas, &PROJECTED, &lines, Ideal::Diagonal);
    })
}

/// The place of a value among those seen, which it joins.
fn place_in<T: PartialEq>(seen: &mut Vec<T>, value: T) -> usize {
    seen.iter().position(|known| *known == value).unwrap_or_else(|| {
        seen.push(value);
        seen.len() - 1
    })
}

/// What the points of a projected line have in common.
fn line_name(projection: &Projection) -> String {
    let products = count(projection.products as u64);
    match projection.machines.nodes {
        1 => format!("{products} products, GPUs of one node over {}", projection.within),
        _ => format!(
            "{products} products, nodes of {} over {}",
            projection.machines.devices_per_node, projection.between
        ),
    }
}

/// The line of the ideal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ideal {
    /// As many times as ranks, on logarithmic axes.
    Diagonal,
    /// 100%, whatever the ranks.
    Hundred,
}

fn paint(canvas: &mut dyn Canvas, words: &Words<'_>, lines: &[Line], ideal: Ideal) {
    let top = heading(canvas, WIDTH, words.title, words.subtitle);
    let frame = Frame {
        left: 90.0,
        top: top + 6.0,
        right: WIDTH - LEGEND - 40.0,
        bottom: HEIGHT - 60.0 - caption_height(WIDTH, words.caption),
    };
    let points = || lines.iter().flat_map(|line| &line.points);
    let ranks = || points().map(|p| p.ranks);
    let most = ranks().fold(1.0, f64::max);
    let x = Scale::Log {
        low: 0.85 * ranks().fold(most, f64::min),
        high: 1.18 * most,
    };
    let y = match ideal {
        Ideal::Diagonal => {
            let figures = points().flat_map(|p| [p.low, p.high]);
            Scale::log(figures.chain(ranks()), 0.06, 0.06)
        }
        Ideal::Hundred => Scale::linear(points().flat_map(|p| [p.low, p.high]).chain([0.0, 110.0])),
    };
    frame.vertical_axis(canvas, &y, words.vertical);
    canvas.line(
        &[(frame.left, frame.bottom), (frame.right, frame.bottom)],
        INK,
        1.0,
    );
    let mut counts: Vec<u64> = ranks().map(|n| n as u64).collect();
    counts.sort_unstable();
    counts.dedup();
    for n in counts {
        let at = frame.x(&x, n as f64);
        canvas.line(&[(at, frame.top), (at, frame.bottom)], GRID, 1.0);
        canvas.text(at, frame.bottom + 14.0, &count(n), SMALL, INK, Align::Centre);
    }
    let middle = 0.5 * (frame.left + frame.right);
    canvas.text(
        middle,
        frame.bottom + 38.0,
        words.horizontal,
        LABEL,
        INK,
        Align::Centre,
    );
    let ends = [ranks().fold(most, f64::min), most];
    let at = |n: f64| {
        let value = if ideal == Ideal::Diagonal { n } else { 100.0 };
        (frame.x(&x, n), frame.y(&y, value))
    };
    dashes(canvas, at(ends[0]), at(ends[1]), FAINT, 2.0);
    let mut entries = vec![(Mark::Dashes(FAINT), "ideal".to_owned())];
    let middle = 0.5 * (lines.len() as f64 - 1.0);
    for (index, line) in lines.iter().enumerate() {
        let color = line.color;
        // Bars of several lines stand next to each other.
        let aside = (24.0 / lines.len() as f64).min(5.0) * (index as f64 - middle);
        let place = |p: &Mean| (frame.x(&x, p.ranks) + aside, frame.y(&y, p.value));
        for p in &line.points {
            let at = frame.x(&x, p.ranks) + aside;
            canvas.line(&[(at, frame.y(&y, p.low)), (at, frame.y(&y, p.high))], color, 2.0);
        }
        let places: Vec<(f64, f64)> = line.points.iter().map(place).collect();
        for pair in places.windows(2) {
            match line.dashed {
                true => dashes(canvas, pair[0], pair[1], color, 2.0),
                false => canvas.line(pair, color, 2.0),
            }
        }
        for (px, py) in places {
            canvas.dot(px, py, 5.0, color);
        }
        let mark = match line.dashed {
            true => Mark::Dashes(color),
            false => Mark::LineAndDot(color),
        };
        entries.push((mark, line.name.clone()));
    }
    legend(canvas, frame.right + 30.0, frame.top + 10.0, LEGEND, &entries);
    caption(canvas, WIDTH, HEIGHT, words.caption);
}
