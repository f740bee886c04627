//! Elasticities by category (a brand, for instance) as a forest plot.

use super::canvas::{self, Align, Canvas, Picture, PlotError, text_width};
use super::frame::{Frame, LABEL, Mark, SMALL, caption, caption_height, fit, heading, legend};
use super::palette::{BLUE, FAINT, INK, PUBLISHED};
use super::scale::Scale;
use crate::number_format::count;
use crate::quality::truth::CategoryElasticity;
use std::path::{Path, PathBuf};

const WIDTH: f64 = 1180.0;
const ROW: f64 = 34.0;
const LEGEND: f64 = 240.0;
/// Categories that one page holds; of more, the first ones in order of their means are drawn.
const MOST: usize = 60;

const CAPTION: &str = "An elasticity of -2 means that a price 1% higher sells about 2% less. The category's mean is the centre that its products \
    are drawn to; the products' spread is that of their posterior means, not an interval of uncertainty.";

/// Draws one line per category, most elastic first: posterior mean and 90% interval of `category_a`, over the spread of its
/// products' means. `category_word` is what a category is, for instance `brand`.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(
    stem: &Path,
    categories: &[CategoryElasticity],
    category_word: &str,
    subtitle: &str,
) -> Result<Vec<PathBuf>, PlotError> {
    canvas::write(render(stem, categories, category_word, subtitle)?)
}

/// The pictures that [`draw`] writes.
///
/// # Errors
/// When they cannot be drawn.
pub fn render(
    stem: &Path,
    categories: &[CategoryElasticity],
    category_word: &str,
    subtitle: &str,
) -> Result<Vec<Picture>, PlotError> {
    if categories.is_empty() {
        return Ok(Vec::new());
    }
    let mut sorted: Vec<&CategoryElasticity> = categories.iter().collect();
    sorted.sort_by(|a, b| a.mean.total_cmp(&b.mean));
    let subtitle = if sorted.len() > MOST {
        format!(
            "{subtitle} The {MOST} most elastic of {} are drawn.",
            sorted.len()
        )
    } else {
        subtitle.to_owned()
    };
    sorted.truncate(MOST);
    let height = 260.0 + ROW * sorted.len() as f64;
    canvas::render(stem, (WIDTH, height), &|canvas| {
        paint(canvas, &sorted, category_word, &subtitle, height);
    })
}

fn paint(canvas: &mut dyn Canvas, rows: &[&CategoryElasticity], word: &str, subtitle: &str, height: f64) {
    let top = heading(canvas, WIDTH, &format!("Price elasticity by {word}"), subtitle);
    let names: Vec<String> = rows.iter().map(|r| fit(&r.category, LABEL, 260.0)).collect();
    let widest = names.iter().map(|n| text_width(n, LABEL)).fold(60.0, f64::max);
    let frame = Frame {
        left: widest + 40.0,
        top,
        right: WIDTH - LEGEND - 140.0,
        bottom: height - 60.0 - caption_height(WIDTH, CAPTION),
    };
    let ends = rows
        .iter()
        .flat_map(|r| [r.q05, r.q95, r.product_means[0], r.product_means[4]]);
    let scale = Scale::linear(ends.chain([0.0]));
    frame.horizontal_axis(canvas, &scale, "price elasticity of units sold");
    let zero = frame.x(&scale, 0.0);
    canvas.line(&[(zero, frame.top), (zero, frame.bottom)], FAINT, 1.5);
    let step = (frame.bottom - frame.top) / rows.len() as f64;
    for (index, (row, name)) in rows.iter().zip(&names).enumerate() {
        let y = frame.top + (index as f64 + 0.5) * step;
        let x = |v: f64| frame.x(&scale, v);
        canvas.text(frame.left - 12.0, y, name, LABEL, INK, Align::Right);
        let [low, lower, _, upper, high] = row.product_means;
        canvas.bar(x(low), y - 4.0, x(high), y + 4.0, PUBLISHED[2]);
        canvas.bar(x(lower), y - 7.0, x(upper), y + 7.0, PUBLISHED[1]);
        canvas.line(&[(x(row.q05), y), (x(row.q95), y)], BLUE, 3.0);
        canvas.dot(x(row.mean), y, 5.0, BLUE);
        let text = format!("{:.2} ({:.2} to {:.2})", row.mean, row.q05, row.q95);
        canvas.text(frame.right + 10.0, y, &text, SMALL, INK, Align::Left);
    }
    let products: usize = rows.iter().map(|r| r.products).sum();
    legend(
        canvas,
        frame.right + 175.0,
        frame.top + 8.0,
        LEGEND - 45.0,
        &[
            (
                Mark::LineAndDot(BLUE),
                "mean of the category and its 90% interval".into(),
            ),
            (
                Mark::Bar(PUBLISHED[1]),
                format!(
                    "middle half of the posterior means of its products ({} in all)",
                    count(products as u64)
                ),
            ),
            (Mark::Bar(PUBLISHED[2]), "middle 90% of them".into()),
        ],
    );
    caption(canvas, WIDTH, height, CAPTION);
}
