//! Elasticities compared with those of a reference posterior, product by product: one row of panels per
//! method.

use super::canvas::{Align, Canvas, PlotError, dashes, save};
use super::frame::{Frame, LABEL, Mark, SMALL, caption, caption_height, heading, legend};
use super::palette::{INK, VERMILLION, ours};
use super::scale::Scale;
use super::series::size_in_words;
use crate::number_format::three_digits;
use crate::quality::agreement::{Agreement, ProductAgreement};
use crate::records::case_record::{CaseRecord, of_most_threads};
use std::path::{Path, PathBuf};

const WIDTH: f64 = 1280.0;
const ROW: f64 = 222.0;
/// Distances below this are drawn at it: a logarithmic axis has no zero.
const LEAST: f64 = 1e-4;

const CAPTION: &str = "Each dot is a product. Left: distance between the posterior means of its elasticity, in standard deviations of the \
    reference. Right: its standard deviation over the reference's; on the line they are equal, below it the method's interval is \
    narrower.";

/// One method.
#[derive(Debug, Clone)]
pub struct AgreementRow<'a> {
    /// Its name.
    pub name: String,
    /// How it compares.
    pub agreement: &'a Agreement,
}

/// Draws the cases of one panel compared with the posterior of NUTS; nothing if there is none.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_records(stem: &Path, records: &[&CaseRecord]) -> Result<Vec<PathBuf>, PlotError> {
    let rows: Vec<AgreementRow<'_>> = of_most_threads(records.iter().copied())
        .into_iter()
        .filter_map(|record| {
            Some(AgreementRow {
                name: format!("{}, {}", record.backend, record.settings_without_threads()),
                agreement: record.agreement.as_ref()?,
            })
        })
        .collect();
    draw(stem, &rows, &size_in_words(records))
}

/// Draws a row of panels for each of `rows`, against the units of each product, or against the reference's standard deviation
/// where the units are not known; nothing when there is no product to draw.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(stem: &Path, rows: &[AgreementRow<'_>], subtitle: &str) -> Result<Vec<PathBuf>, PlotError> {
    let rows: Vec<&AgreementRow<'_>> = rows.iter().filter(|r| !r.agreement.sample.is_empty()).collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let height = 190.0 + ROW * rows.len() as f64;
    save(stem, (WIDTH, height), &|canvas| {
        paint(canvas, &rows, subtitle, height)
    })
}

fn paint(canvas: &mut dyn Canvas, rows: &[&AgreementRow<'_>], subtitle: &str, height: f64) {
    let reference = &rows[0].agreement.reference;
    // The uncertainty of the reference itself: 1 / sqrt(effective draws) of its standard deviation.
    let own_error = reference
        .min_ess_bulk
        .filter(|e| *e > 0.0)
        .map(|e| e.sqrt().recip());
    let rhat = match reference.max_rhat {
        Some(rhat) => format!(", R-hat up to {rhat:.3}"),
        None => String::new(),
    };
    let told = format!(
        "{subtitle} The reference is {}{rhat}. All axes logarithmic.",
        reference.name
    );
    let top = heading(
        canvas,
        WIDTH,
        "Elasticities beside the reference, product by product",
        &told,
    );
    let mut entries = vec![(Mark::Dashes(INK), "equal standard deviations".to_owned())];
    if let (Some(own), Some(ess)) = (own_error, reference.min_ess_bulk) {
        entries.push((
            Mark::Dashes(VERMILLION),
            format!(
                "{}: what the reference's own mean may be off by, from {} effective draws",
                three_digits(own),
                three_digits(ess)
            ),
        ));
    }
    for (column, entry) in entries.iter().enumerate() {
        let left = 20.0 + 300.0 * column as f64;
        legend(canvas, left, top + 2.0, 900.0, std::slice::from_ref(entry));
    }

    let all = || rows.iter().flat_map(|r| &r.agreement.sample);
    let by_units = all().all(|p| p.units.is_some());
    let place = |p: &ProductAgreement| match p.units {
        Some(units) if by_units => units.max(1) as f64,
        _ => p.reference_sd,
    };
    let x = Scale::log(all().map(place), 0.05, 0.05);
    let distances = all().map(|p| p.mean_difference.max(LEAST));
    let distance = Scale::log(distances.chain(own_error), 0.1, 0.1);
    let ratio = Scale::log(all().map(|p| p.sd_ratio).chain([0.5, 2.0]), 0.05, 0.05);
    let x_name = if by_units {
        "units of the product in all periods (none: drawn at 1)"
    } else {
        "standard deviation of the elasticity in the reference"
    };
    let first = top + 44.0;
    let foot = 62.0 + caption_height(WIDTH, CAPTION);
    let step = (height - foot - first) / rows.len() as f64;
    for (index, row) in rows.iter().enumerate() {
        let row_top = first + index as f64 * step;
        canvas.text(20.0, row_top, &row.name, LABEL, INK, Align::Left);
        let frame = |left: f64, right: f64| Frame {
            left,
            top: row_top + 14.0,
            right,
            bottom: row_top + step - 36.0,
        };
        let (left, right) = (
            frame(90.0, 0.5 * WIDTH - 20.0),
            frame(0.5 * WIDTH + 80.0, WIDTH - 30.0),
        );
        left.vertical_axis(canvas, &distance, "|mean - mean| / sd");
        right.vertical_axis(canvas, &ratio, "sd / sd");
        for panel in [&left, &right] {
            if index + 1 == rows.len() {
                panel.horizontal_axis(canvas, &x, x_name);
            } else {
                panel.horizontal_ticks(canvas, &x);
            }
        }
        let across = |canvas: &mut dyn Canvas, panel: &Frame, y: f64, color| {
            dashes(canvas, (panel.left, y), (panel.right, y), color, 1.5);
        };
        for product in &row.agreement.sample {
            let color = ours(index);
            let y = left.y(&distance, product.mean_difference.max(LEAST));
            canvas.dot(left.x(&x, place(product)), y, 2.5, color);
            canvas.dot(
                right.x(&x, place(product)),
                right.y(&ratio, product.sd_ratio),
                2.5,
                color,
            );
        }
        if let Some(own) = own_error {
            across(canvas, &left, left.y(&distance, own), VERMILLION);
        }
        across(canvas, &right, right.y(&ratio, 1.0), INK);
        if let Some(site) = row.agreement.site(infermark_model::Site::ProductA) {
            let words = |text: String, panel: &Frame, canvas: &mut dyn Canvas| {
                canvas.text(panel.right, row_top, &text, SMALL, INK, Align::Right);
            };
            words(
                format!(
                    "median {}, largest {}",
                    three_digits(site.mean_difference_median),
                    three_digits(site.mean_difference_largest)
                ),
                &left,
                canvas,
            );
            words(
                format!(
                    "median {}, from {} to {}",
                    three_digits(site.sd_ratio_median),
                    three_digits(site.sd_ratio_smallest),
                    three_digits(site.sd_ratio_largest)
                ),
                &right,
                canvas,
            );
        }
    }
    caption(canvas, WIDTH, height, CAPTION);
}
