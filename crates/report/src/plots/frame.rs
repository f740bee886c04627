//! The frame of every picture: title, axes, legend and caption.

use super::canvas::{Align, Canvas, dashes, text_width};
use super::palette::{FAINT, GRID, INK};
use super::scale::Scale;
use plotters::style::RGBColor;

pub(super) const TITLE: f64 = 20.0;
pub(super) const LABEL: f64 = 15.0;
pub(super) const SMALL: f64 = 13.0;
const LINE: f64 = 18.0;

/// The rectangle that holds the data, in units of the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Frame {
    pub(super) fn x(&self, scale: &Scale, value: f64) -> f64 {
        self.left + scale.place(value) * (self.right - self.left)
    }

    pub(super) fn y(&self, scale: &Scale, value: f64) -> f64 {
        self.bottom - scale.place(value) * (self.bottom - self.top)
    }

    /// Grid, ticks and name of the vertical axis.
    pub(super) fn vertical_axis(&self, canvas: &mut dyn Canvas, scale: &Scale, name: &str) {
        let ticks = scale.ticks();
        let widest = ticks.iter().map(|t| text_width(&t.1, SMALL)).fold(0.0, f64::max);
        for (value, label) in &ticks {
            let y = self.y(scale, *value);
            canvas.line(&[(self.left, y), (self.right, y)], GRID, 1.0);
            canvas.text(self.left - 8.0, y, label, SMALL, INK, Align::Right);
        }
        canvas.line(&[(self.left, self.top), (self.left, self.bottom)], INK, 1.0);
        let x = (self.left - 8.0 - widest - 18.0).max(12.0);
        canvas.text_upwards(x, 0.5 * (self.top + self.bottom), name, LABEL, INK);
    }

    /// Grid, ticks and name of the horizontal axis.
    pub(super) fn horizontal_axis(&self, canvas: &mut dyn Canvas, scale: &Scale, name: &str) {
        self.horizontal_ticks(canvas, scale);
        let x = 0.5 * (self.left + self.right);
        canvas.text(x, self.bottom + 38.0, name, LABEL, INK, Align::Centre);
    }

    /// Grid and ticks of the horizontal axis, which is named elsewhere.
    pub(super) fn horizontal_ticks(&self, canvas: &mut dyn Canvas, scale: &Scale) {
        for (value, label) in scale.ticks() {
            let x = self.x(scale, value);
            canvas.line(&[(x, self.top), (x, self.bottom)], GRID, 1.0);
            canvas.text(x, self.bottom + 14.0, &label, SMALL, INK, Align::Centre);
        }
        canvas.line(&[(self.left, self.bottom), (self.right, self.bottom)], INK, 1.0);
    }
}

/// Title and, below it in grey, what the reader must know; returns where the data may begin.
pub(super) fn heading(canvas: &mut dyn Canvas, width: f64, title: &str, subtitle: &str) -> f64 {
    let mut y = 24.0;
    for line in wrap(title, TITLE, width - 40.0) {
        canvas.text(20.0, y, &line, TITLE, INK, Align::Left);
        y += 26.0;
    }
    for line in wrap(subtitle, SMALL, width - 40.0) {
        canvas.text(20.0, y, &line, SMALL, FAINT, Align::Left);
        y += LINE;
    }
    y + 10.0
}

/// How high a caption is.
pub(super) fn caption_height(width: f64, text: &str) -> f64 {
    wrap(text, SMALL, width - 40.0).len() as f64 * LINE + 8.0
}

/// A caption at the foot of the page.
pub(super) fn caption(canvas: &mut dyn Canvas, width: f64, height: f64, text: &str) {
    let mut y = height - caption_height(width, text) + 0.5 * LINE;
    for line in wrap(text, SMALL, width - 40.0) {
        canvas.text(20.0, y, &line, SMALL, FAINT, Align::Left);
        y += LINE;
    }
}

/// How an entry of the legend looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mark {
    Bar(RGBColor),
    LineAndDot(RGBColor),
    Line(RGBColor),
    Dashes(RGBColor),
}

/// A legend in a column of `width`, from `(left, top)` down.
pub(super) fn legend(canvas: &mut dyn Canvas, left: f64, top: f64, width: f64, entries: &[(Mark, String)]) {
    let mut y = top;
    for (mark, text) in entries {
        match *mark {
            Mark::Bar(color) => canvas.bar(left, y - 7.0, left + 24.0, y + 7.0, color),
            Mark::Line(color) => canvas.line(&[(left, y), (left + 24.0, y)], color, 2.0),
            Mark::LineAndDot(color) => {
                canvas.line(&[(left, y), (left + 24.0, y)], color, 2.0);
                canvas.dot(left + 12.0, y, 4.0, color);
            }
            Mark::Dashes(color) => dashes(canvas, (left, y), (left + 24.0, y), color, 2.0),
        }
        for line in wrap(text, SMALL, width - 32.0) {
            canvas.text(left + 32.0, y, &line, SMALL, INK, Align::Left);
            y += LINE;
        }
        y += 6.0;
    }
}

/// Breaks `text` into lines no wider than `width`, at spaces.
pub(super) fn wrap(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(&format!("{line} {word}"), size) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `text`, cut to `width` with dots where it is longer.
pub(super) fn fit(text: &str, size: f64, width: f64) -> String {
    // No letter but the narrowest takes less than a quarter of its height.
    let most = (4.0 * width / size) as usize;
    if text.chars().nth(most).is_none() && text_width(text, size) <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most).collect();
    while cut.pop().is_some() && text_width(&format!("{cut}…"), size) > width {}
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_lose_nothing() {
        let text = "a caption that tells what the figure shows and in which units it is drawn";
        let lines = wrap(text, SMALL, 150.0);
        assert!(lines.len() > 2);
        assert!(lines.iter().all(|l| text_width(l, SMALL) <= 150.0));
        assert_eq!(lines.join(" "), text);
        assert!(text_width(&fit(text, SMALL, 120.0), SMALL) <= 120.0);
        let clock = std::time::Instant::now();
        assert!(text_width(&fit(&text.repeat(10_000), SMALL, 120.0), SMALL) <= 120.0);
        assert!(clock.elapsed().as_secs() < 5, "{:?}", clock.elapsed());
        assert!(wrap("", SMALL, 100.0).is_empty());
    }
}
