//! Calibration: histograms of the places of truths, their distribution functions, and the coverage of intervals.
//!
//! Rows are methods, columns quantities. A cell is vermillion where the method fails there, blue elsewhere; grey is where all
//! cells of a method stay with a probability of one minus the level if the method is calibrated.

use super::canvas::{Align, Canvas, PlotError, dashes, save};
use super::frame::{Frame, LABEL, Mark, SMALL, caption, caption_height, heading, legend, wrap};
use super::palette::{BLUE, FAINT, GRID, INK, PUBLISHED, VERMILLION, ours};
use super::scale::Scale;
use infermark_calibration::{
    Band, CELLS, Calibration, MethodVerdict, Quantity, QuantityVerdict, binomial_interval, ecdf,
};
use plotters::style::RGBColor;
use std::path::{Path, PathBuf};

const CELL_WIDTH: f64 = 180.0;
const CELL_HEIGHT: f64 = 120.0;
const GAP: f64 = 26.0;
/// Space for a method's name and its vertical axis.
const LEFT: f64 = 190.0;
const FOOT: f64 = 60.0;
/// Bins of a histogram, of enough replications.
const MOST_BINS: usize = 20;

const HISTOGRAM_CAPTION: &str = "Each bar counts the replications whose true value lies in that part of its posterior: at the left, below nearly \
    all of it. Of a calibrated method bars are level. High at both ends: intervals are too narrow; high in the middle: too \
    wide; a slope: the posterior is shifted.";

const ECDF_CAPTION: &str = "Share of true values in the lower part of their posteriors, less that part itself: zero of a calibrated method. A curve \
    that leaves the grey band anywhere fails; the tests of mean and spread see more, so that one inside it may fail too. Above zero at the left and below at the right: intervals are too narrow; the reverse: \
    too wide; on one side throughout: the posterior is shifted, upwards where the curve is above.";

const COVERAGE_CAPTION: &str = "Share of true values inside the central intervals of a probability. Below the diagonal intervals are too narrow: they promise \
    more than they hold. The grey band is where each curve stays with the probability that the test allows; it sees no shift that \
    leaves the coverage as it is, so that a method may fail in the other pictures and not here.";

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub struct CalibrationPicture<'c> {
    /// The places.
    pub calibration: &'c Calibration,
    /// The verdicts on them.
    pub verdicts: &'c [MethodVerdict],
    /// Probability that a calibrated method fails.
    pub level: f64,
    /// How much was drawn, in words.
    pub subtitle: &'c str,
}

/// One method's quantity.
struct Cell {
    pits: Vec<f64>,
    color: RGBColor,
    note: String,
    /// The part of the level that a test of the quantity has.
    level: f64,
    /// The band of the test that the verdict is made by.
    band: Band,
}

impl CalibrationPicture<'_> {
    /// The cells of a method, one a quantity; `None` where there are no places.
    fn cells(&self, method: usize) -> Vec<Option<Cell>> {
        let verdict = &self.verdicts[method];
        // Most quantities have the same number of places, and a band takes its time.
        let mut last: Option<(usize, Band)> = None;
        self.quantities()
            .iter()
            .map(|quantity| {
                let found: &QuantityVerdict = verdict.quantities.iter().find(|q| q.quantity == *quantity)?;
                let placed = self.calibration.placed(method, *quantity);
                let band = match &last {
                    Some((replications, band)) if *replications == found.replications => band.clone(),
                    _ => found.band(),
                };
                last = Some((found.replications, band.clone()));
                Some(Cell {
                    pits: placed.map(|p| p.statistic.pit).collect(),
                    color: if found.passes { BLUE } else { VERMILLION },
                    note: note(found.p_adjusted),
                    level: found.power.level_of_a_test(),
                    band,
                })
            })
            .collect()
    }

    /// The quantities that the counts' law has.
    fn quantities(&self) -> Vec<Quantity> {
        Quantity::all(self.calibration.likelihood)
    }

    fn subtitle(&self, what: &str) -> String {
        format!(
            "{} Vermillion fails at a level of {} over all quantities of a method, by this test or by those of the scores; p is Holm's. {what}",
            self.subtitle, self.level
        )
    }
}

fn note(p: f64) -> String {
    if p < 1e-300 {
        "p < 1e-300".to_owned()
    } else if p < 0.01 {
        format!("p = {p:.0e}")
    } else {
        format!("p = {p:.2}")
    }
}

/// Draws the histograms.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_histograms(stem: &Path, pictured: &CalibrationPicture<'_>) -> Result<Vec<PathBuf>, PlotError> {
    let what = "Dashed: what each bar is expected to be. Grey: all bars of a calibrated method leave it with that probability at most.";
    draw_grid(
        stem,
        pictured,
        (
            "Where true values lie in their posteriors",
            what,
            HISTOGRAM_CAPTION,
        ),
        "place in the posterior",
        &histogram,
        &|_| (0.0, 1.0, Vec::new()),
    )
}

/// Draws the distribution functions, less that of uniform places.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_ecdf(stem: &Path, pictured: &CalibrationPicture<'_>) -> Result<Vec<PathBuf>, PlotError> {
    let what = "Grey: the simultaneous band of the test itself. Scales differ by method.";
    draw_grid(
        stem,
        pictured,
        (
            "Distribution of true values in their posteriors",
            what,
            ECDF_CAPTION,
        ),
        "place in the posterior",
        &difference,
        &|cells| {
            let largest = cells
                .iter()
                .flatten()
                .flat_map(|cell| {
                    let band = cell.band.shares.iter().zip(1..).flat_map(|((low, high), k)| {
                        let z = f64::from(k) / CELLS as f64;
                        [z - low, high - z]
                    });
                    band.chain(differences(&cell.pits).into_iter().map(|(_, d)| d.abs()))
                })
                .fold(0.05, f64::max);
            let tick = (largest * 10.0).floor().max(0.5) / 10.0;
            // Room above for the p-value.
            (-1.08 * largest, 1.45 * largest, vec![-tick, 0.0, tick])
        },
    )
}

/// Range of the vertical axis, and its ticks.
type Axis = (f64, f64, Vec<f64>);

fn draw_grid(
    stem: &Path,
    pictured: &CalibrationPicture<'_>,
    (title, what, text): (&str, &str, &str),
    horizontal: &str,
    fill: &dyn Fn(&mut dyn Canvas, &CellFrame, &Cell),
    axis: &dyn Fn(&[Option<Cell>]) -> Axis,
) -> Result<Vec<PathBuf>, PlotError> {
    let methods = pictured.verdicts.len();
    let quantities = pictured.quantities();
    let columns = quantities.len() as f64;
    let width = LEFT + columns * (CELL_WIDTH + GAP) + 20.0;
    let subtitle = pictured.subtitle(what);
    let head = 24.0 + 26.0 + 18.0 * wrap(&subtitle, SMALL, width - 40.0).len() as f64 + 40.0;
    let height = head + methods as f64 * (CELL_HEIGHT + GAP) + FOOT + caption_height(width, text);
    let rows: Vec<Vec<Option<Cell>>> = (0..methods).map(|m| pictured.cells(m)).collect();
    save(stem, (width, height), &|canvas| {
        heading(canvas, width, title, &subtitle);
        for (column, quantity) in quantities.iter().enumerate() {
            let x = LEFT + column as f64 * (CELL_WIDTH + GAP) + 0.5 * CELL_WIDTH;
            canvas.text(x, head - 16.0, quantity.name(), LABEL, INK, Align::Centre);
        }
        for (row, (cells, verdict)) in rows.iter().zip(pictured.verdicts).enumerate() {
            let top = head + row as f64 * (CELL_HEIGHT + GAP);
            let (low, high, ticks) = axis(cells);
            canvas.text(
                20.0,
                top + 0.5 * CELL_HEIGHT,
                &verdict.method,
                LABEL,
                INK,
                Align::Left,
            );
            for (column, cell) in cells.iter().enumerate() {
                let left = LEFT + column as f64 * (CELL_WIDTH + GAP);
                let frame = CellFrame {
                    frame: Frame {
                        left,
                        top,
                        right: left + CELL_WIDTH,
                        bottom: top + CELL_HEIGHT,
                    },
                    y: Scale::Linear { low, high },
                };
                match cell {
                    Some(cell) => {
                        fill(canvas, &frame, cell);
                        canvas.text(
                            left + CELL_WIDTH - 4.0,
                            top + 8.0,
                            &cell.note,
                            SMALL,
                            INK,
                            Align::Right,
                        );
                    }
                    None => {
                        let (x, y) = (left + 0.5 * CELL_WIDTH, top + 0.5 * CELL_HEIGHT);
                        canvas.text(x, y, "no draws", SMALL, FAINT, Align::Centre);
                    }
                }
                frame.axes(canvas, if column == 0 { &ticks } else { &[] }, row + 1 == methods);
            }
        }
        let x = LEFT + 0.5 * columns * (CELL_WIDTH + GAP);
        let y = head + methods as f64 * (CELL_HEIGHT + GAP) + 14.0;
        canvas.text(x, y, horizontal, LABEL, INK, Align::Centre);
        caption(canvas, width, height, text);
    })
}

/// A cell's rectangle; horizontally from 0 to 1.
struct CellFrame {
    frame: Frame,
    y: Scale,
}

impl CellFrame {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let Frame { left, right, .. } = self.frame;
        (left + x * (right - left), self.frame.y(&self.y, y))
    }

    /// The rectangle between two corners.
    fn fill(&self, canvas: &mut dyn Canvas, from: (f64, f64), to: (f64, f64), color: RGBColor) {
        let ((left, bottom), (right, top)) = (self.at(from.0, from.1), self.at(to.0, to.1));
        canvas.bar(left, top, right, bottom, color);
    }

    fn axes(&self, canvas: &mut dyn Canvas, vertical: &[f64], with_labels: bool) {
        let Frame {
            left,
            right,
            top,
            bottom,
        } = self.frame;
        canvas.line(&[(left, top), (left, bottom), (right, bottom)], INK, 1.0);
        for value in vertical {
            let (_, y) = self.at(0.0, *value);
            canvas.line(&[(left - 4.0, y), (left, y)], INK, 1.0);
            canvas.text(left - 8.0, y, &format!("{value}"), SMALL, INK, Align::Right);
        }
        for (value, label) in [(0.0, "0"), (0.5, "0.5"), (1.0, "1")] {
            let x = left + value * (right - left);
            canvas.line(&[(x, bottom), (x, bottom + 4.0)], INK, 1.0);
            if with_labels {
                canvas.text(x, bottom + 14.0, label, SMALL, INK, Align::Centre);
            }
        }
    }
}

fn histogram(canvas: &mut dyn Canvas, cell_frame: &CellFrame, cell: &Cell) {
    let n = cell.pits.len();
    // Five expected a bin at least.
    let bins = (n / 5).clamp(2, MOST_BINS);
    let mut counts = vec![0_usize; bins];
    for pit in &cell.pits {
        counts[((pit * bins as f64) as usize).min(bins - 1)] += 1;
    }
    let share = cell.level / bins as f64;
    let (low, high) = binomial_interval(n, 1.0 / bins as f64, share);
    let tallest = counts.iter().copied().max().unwrap_or(0).max(high).max(1) as f64;
    let frame = CellFrame {
        frame: cell_frame.frame,
        y: Scale::Linear {
            low: 0.0,
            high: 1.25 * tallest,
        },
    };
    frame.fill(canvas, (0.0, low as f64), (1.0, high as f64), PUBLISHED[2]);
    for (bin, count) in counts.iter().enumerate() {
        let (left, right) = (bin as f64 / bins as f64, (bin as f64 + 0.82) / bins as f64);
        frame.fill(canvas, (left, 0.0), (right, *count as f64), cell.color);
    }
    let level_bars = n as f64 / bins as f64;
    dashes(
        canvas,
        frame.at(0.0, level_bars),
        frame.at(1.0, level_bars),
        INK,
        1.0,
    );
}

/// Points of the distribution function less the uniform one, with both ends.
fn differences(pits: &[f64]) -> Vec<(f64, f64)> {
    let inner = ecdf(pits).into_iter().zip(1..).map(|(share, k)| {
        let z = f64::from(k) / CELLS as f64;
        (z, share - z)
    });
    std::iter::once((0.0, 0.0))
        .chain(inner)
        .chain([(1.0, 0.0)])
        .collect()
}

fn difference(canvas: &mut dyn Canvas, frame: &CellFrame, cell: &Cell) {
    for ((low, high), k) in cell.band.shares.iter().zip(1..) {
        let z = f64::from(k) / CELLS as f64;
        let half = 0.5 / CELLS as f64;
        frame.fill(canvas, (z - half, low - z), (z + half, high - z), PUBLISHED[2]);
    }
    canvas.line(&[frame.at(0.0, 0.0), frame.at(1.0, 0.0)], GRID, 1.0);
    let line: Vec<(f64, f64)> = differences(&cell.pits)
        .into_iter()
        .map(|(x, y)| frame.at(x, y))
        .collect();
    canvas.line(&line, cell.color, 2.0);
}

/// Side of a coverage panel.
const SIDE: f64 = 300.0;
/// Panels side by side.
const ABREAST: usize = 3;

/// Draws the share of truths in central intervals against the intervals' probability, one panel a method.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_coverage(stem: &Path, pictured: &CalibrationPicture<'_>) -> Result<Vec<PathBuf>, PlotError> {
    const BESIDE: f64 = 90.0;
    const BELOW: f64 = 100.0;
    let methods = pictured.verdicts.len();
    let abreast = methods.clamp(2, ABREAST);
    let lines = methods.div_ceil(ABREAST);
    let width = abreast as f64 * (SIDE + BESIDE) + 230.0;
    let head = 110.0;
    let height = head + lines as f64 * (SIDE + BELOW) + caption_height(width, COVERAGE_CAPTION);
    let rows: Vec<Vec<Option<Cell>>> = (0..methods).map(|m| pictured.cells(m)).collect();
    save(stem, (width, height), &|canvas| {
        let title = "Coverage of central intervals: promised and held";
        heading(canvas, width, title, pictured.subtitle);
        let scale = Scale::Linear { low: 0.0, high: 1.0 };
        for (index, (cells, verdict)) in rows.iter().zip(pictured.verdicts).enumerate() {
            let left = 80.0 + (index % ABREAST) as f64 * (SIDE + BESIDE);
            let top = head + (index / ABREAST) as f64 * (SIDE + BELOW);
            let frame = Frame {
                left,
                top,
                right: left + SIDE,
                bottom: top + SIDE,
            };
            if let Some(cell) = cells.iter().flatten().next() {
                for ((low, high), k) in cell.band.shares.iter().zip(1..) {
                    let x = |k: f64| frame.x(&scale, k / CELLS as f64);
                    let (from, to) = (x(f64::from(k) - 0.5), x(f64::from(k) + 0.5));
                    canvas.bar(
                        from,
                        frame.y(&scale, *high),
                        to,
                        frame.y(&scale, *low),
                        PUBLISHED[2],
                    );
                }
            }
            frame.vertical_axis(canvas, &scale, "share of true values inside");
            frame.horizontal_axis(canvas, &scale, "probability of the interval");
            let passes = if verdict.passes { "passes" } else { "fails" };
            let name = format!("{}: {passes}", verdict.method);
            canvas.text(left + 0.5 * SIDE, top - 16.0, &name, LABEL, INK, Align::Centre);
            let corner = |v: f64| (frame.x(&scale, v), frame.y(&scale, v));
            dashes(canvas, corner(0.0), corner(1.0), INK, 1.0);
            for (series, cell) in cells.iter().enumerate() {
                let Some(cell) = cell else { continue };
                // The interval of probability c holds the truth when |2 u - 1| <= c.
                let central: Vec<f64> = cell.pits.iter().map(|u| (2.0 * u - 1.0).abs()).collect();
                let inner = ecdf(&central).into_iter().zip(1..).map(|(share, k)| {
                    let nominal = f64::from(k) / CELLS as f64;
                    (frame.x(&scale, nominal), frame.y(&scale, share))
                });
                let line: Vec<(f64, f64)> = std::iter::once(corner(0.0))
                    .chain(inner)
                    .chain([corner(1.0)])
                    .collect();
                canvas.line(&line, ours(series), 2.0);
            }
        }
        let entries: Vec<(Mark, String)> = pictured
            .quantities()
            .iter()
            .enumerate()
            .map(|(series, quantity)| (Mark::Line(ours(series)), quantity.name().to_owned()))
            .chain([
                (Mark::Dashes(INK), "held = promised".to_owned()),
                (Mark::Bar(PUBLISHED[2]), "band of the test".to_owned()),
            ])
            .collect();
        let left = 80.0 + abreast as f64 * (SIDE + BESIDE) - 40.0;
        legend(canvas, left, head + 8.0, 190.0, &entries);
        caption(canvas, width, height, COVERAGE_CAPTION);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_calibration::{PlacedTruth, RankStatistic, Scores, verdicts};
    use infermark_model::Likelihood;

    /// Two methods of which the second has no log joint, and one replication or many.
    fn calibration(replications: usize) -> Calibration {
        let mut placed = Vec::new();
        for replication in 0..replications {
            for (method, quantities) in [(0, 6), (1, 5)] {
                for quantity in &Quantity::all(Likelihood::Poisson)[..quantities] {
                    let pit = (replication as f64 + 0.5) / replications as f64;
                    placed.push(PlacedTruth {
                        replication,
                        method,
                        quantity: *quantity,
                        key: String::new(),
                        statistic: RankStatistic {
                            truth: 0.0,
                            mean: 0.0,
                            sd: 1.0,
                            pit,
                            rank: None,
                        },
                        scores: Scores::of(std::iter::once(pit)),
                    });
                }
            }
        }
        Calibration {
            methods: vec!["nuts".into(), "laplace".into()],
            likelihood: Likelihood::Poisson,
            asked: replications,
            done: replications,
            placed,
            failures: Vec::new(),
        }
    }

    #[test]
    fn pictures_of_one_and_of_many_replications_are_drawn() {
        for replications in [1, 3, 150] {
            let calibration = calibration(replications);
            let verdicts = verdicts(&calibration, 0.01);
            let pictured = CalibrationPicture {
                calibration: &calibration,
                verdicts: &verdicts,
                level: 0.01,
                subtitle: "Three replications.",
            };
            let folder = tempfile::tempdir().unwrap();
            for draw in [draw_histograms, draw_ecdf, draw_coverage] {
                let files = draw(&folder.path().join("picture"), &pictured).unwrap();
                let svg = std::fs::read_to_string(&files[0]).unwrap();
                for word in ["nuts", "laplace", "time_cat_effects", "log_joint"] {
                    assert!(svg.contains(word), "{word}");
                }
            }
        }
    }

    #[test]
    fn the_difference_begins_and_ends_at_zero() {
        let line = differences(&[0.25; 4]);
        assert_eq!((line[0], line[CELLS]), ((0.0, 0.0), (1.0, 0.0)));
        assert!((line[24].1 + 0.24).abs() < 1e-12 && (line[25].1 - 0.75).abs() < 1e-12);
    }
}
