//! Lines, shapes and text on a page, drawn once and kept as SVG and as PNG.

use super::palette::PAPER;
use infermark_atomic_file::{FileError, write_atomically};
use infermark_model::printable;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The face that the project ships comes first; viewers of the SVG without it take one of nearly equal widths.
const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

static FONT: LazyLock<bool> = LazyLock::new(|| {
    plotters::style::register_font(
        FAMILY,
        FontStyle::Normal,
        include_bytes!("../../assets/DejaVuSans.ttf"),
    )
    .is_ok()
});

/// Pixels of the PNG for one unit of the page.
const PNG_SCALE: f64 = 2.0;

/// Coordinates on the page lie within this of its corner; pages are some hundreds wide.
const FAR: f64 = 20_000.0;

/// Plotters sets texts in a PNG a little above their point, by this part of their size.
const PNG_TEXT_DROP: f64 = 0.13;

/// A picture that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// It cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It cannot be drawn.
    #[error("cannot draw {}: {reason}", path.display())]
    Draw {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Horizontal position of a text relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Centre,
    Right,
}

/// Draws in units of the page, from its top left corner. Texts are centred vertically on their point.
pub(super) trait Canvas {
    fn bar(&mut self, left: f64, top: f64, right: f64, bottom: f64, fill: RGBColor);
    fn line(&mut self, points: &[(f64, f64)], color: RGBColor, width: f64);
    fn dot(&mut self, x: f64, y: f64, radius: f64, fill: RGBColor);
    fn text(&mut self, x: f64, y: f64, text: &str, size: f64, color: RGBColor, align: Align);
    /// Reads upwards; centred on the point.
    fn text_upwards(&mut self, x: f64, y: f64, text: &str, size: f64, color: RGBColor);
}

/// A dashed line between two points.
pub(super) fn dashes(canvas: &mut dyn Canvas, from: (f64, f64), to: (f64, f64), color: RGBColor, width: f64) {
    let length = (to.0 - from.0).hypot(to.1 - from.1);
    let count = (length / 9.0).ceil().clamp(1.0, MOST_DASHES);
    let at = |share: f64| (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1));
    for dash in 0..count as usize {
        let start = dash as f64 / count;
        canvas.line(&[at(start), at(start + 0.55 / count)], color, width);
    }
}

/// Largest number of dashes of a line: more than cross any page.
const MOST_DASHES: f64 = 1000.0;

/// Width of a text on the page.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    if !*FONT {
        return 0.0;
    }
    // Measured large, since plotters rounds to whole units.
    let big = (FAMILY, 100.0).into_font().box_size(text);
    big.map_or(0.0, |(w, _)| f64::from(w) * size / 100.0)
}

struct PageCanvas<'a, DB: DrawingBackend> {
    area: &'a DrawingArea<DB, Shift>,
    scale: f64,
    /// How much lower a horizontal text must be drawn to be centred, in parts of its size.
    text_drop: f64,
    failure: Option<String>,
}

impl<DB: DrawingBackend> PageCanvas<'_, DB> {
    fn at(&self, x: f64, y: f64) -> (i32, i32) {
        // Points far outside the page must not be reached dash by dash.
        let pixel = |v: f64| (v.clamp(-FAR, FAR) * self.scale).round() as i32;
        (pixel(x), pixel(y))
    }

    fn keep<E: std::fmt::Display>(&mut self, result: Result<(), E>) {
        if let Err(e) = result
            && self.failure.is_none()
        {
            self.failure = Some(e.to_string());
        }
    }

    fn write(&mut self, at: (f64, f64), text: &str, size: f64, color: RGBColor, h: HPos, upwards: bool) {
        let mut font = (FAMILY, size * self.scale).into_font();
        let mut at = at;
        if upwards {
            font = font.transform(FontTransform::Rotate270);
        } else {
            at.1 += self.text_drop * size;
        }
        let style = TextStyle::from(font).color(&color).pos(Pos::new(h, VPos::Center));
        let result = self.area.draw_text(&printable(text), &style, self.at(at.0, at.1));
        self.keep(result);
    }
}

impl<DB: DrawingBackend> Canvas for PageCanvas<'_, DB> {
    fn bar(&mut self, left: f64, top: f64, right: f64, bottom: f64, fill: RGBColor) {
        let corners = [self.at(left, top), self.at(right, bottom)];
        let result = self.area.draw(&Rectangle::new(corners, fill.filled()));
        self.keep(result);
    }

    fn line(&mut self, points: &[(f64, f64)], color: RGBColor, width: f64) {
        let points: Vec<(i32, i32)> = points.iter().map(|p| self.at(p.0, p.1)).collect();
        let width = (width * self.scale).round().max(1.0) as u32;
        let result = self
            .area
            .draw(&PathElement::new(points, color.stroke_width(width)));
        self.keep(result);
    }

    fn dot(&mut self, x: f64, y: f64, radius: f64, fill: RGBColor) {
        let radius = (radius * self.scale).round() as i32;
        let result = self.area.draw(&Circle::new(self.at(x, y), radius, fill.filled()));
        self.keep(result);
    }

    fn text(&mut self, x: f64, y: f64, text: &str, size: f64, color: RGBColor, align: Align) {
        let h = match align {
            Align::Left => HPos::Left,
            Align::Centre => HPos::Center,
            Align::Right => HPos::Right,
        };
        self.write((x, y), text, size, color, h, false);
    }

    fn text_upwards(&mut self, x: f64, y: f64, text: &str, size: f64, color: RGBColor) {
        self.write((x, y), text, size, color, HPos::Center, true);
    }
}

fn paint<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    scale: f64,
    text_drop: f64,
    draw: &dyn Fn(&mut dyn Canvas),
) -> Result<(), String> {
    area.fill(&PAPER).map_err(|e| e.to_string())?;
    let mut canvas = PageCanvas {
        area,
        scale,
        text_drop,
        failure: None,
    };
    draw(&mut canvas);
    if let Some(failure) = canvas.failure {
        return Err(failure);
    }
    area.present().map_err(|e| e.to_string())
}

/// A picture's file, drawn and not yet written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Where it belongs.
    pub path: PathBuf,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// Draws a page of `size` units for `<stem>.svg` and `<stem>.png`.
pub(super) fn render(
    stem: &Path,
    size: (f64, f64),
    draw: &dyn Fn(&mut dyn Canvas),
) -> Result<Vec<Picture>, PlotError> {
    let fail = |path: &Path, reason: String| PlotError::Draw {
        path: path.to_owned(),
        reason,
    };
    let with = |extension: &str| {
        let mut name = stem.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    let (svg, png) = (with(".svg"), with(".png"));
    if !*FONT {
        return Err(fail(&svg, "the font cannot be read".into()));
    }

    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (size.0 as u32, size.1 as u32)).into_drawing_area();
        paint(&area, 1.0, 0.0, draw).map_err(|reason| fail(&svg, reason))?;
    }

    let (width, height) = ((size.0 * PNG_SCALE) as u32, (size.1 * PNG_SCALE) as u32);
    let mut pixels = vec![0; 3 * width as usize * height as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        paint(&area, PNG_SCALE, PNG_TEXT_DROP, draw).map_err(|reason| fail(&png, reason))?;
    }
    let bytes = encode_png(&pixels, width, height).map_err(|e| fail(&png, e.to_string()))?;
    Ok(vec![
        Picture {
            path: svg,
            bytes: text.into_bytes(),
        },
        Picture { path: png, bytes },
    ])
}

/// A PNG of rows of red, green and blue, in memory: Plotters itself encodes into files only.
fn encode_png(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(bytes)
}

/// Draws a page of `size` units to `<stem>.svg` and `<stem>.png`, both whole or not at all.
pub(super) fn save(
    stem: &Path,
    size: (f64, f64),
    draw: &dyn Fn(&mut dyn Canvas),
) -> Result<Vec<PathBuf>, PlotError> {
    write(render(stem, size, draw)?)
}

/// Writes pictures to their places; returns those.
pub(super) fn write(pictures: Vec<Picture>) -> Result<Vec<PathBuf>, PlotError> {
    let mut paths = Vec::with_capacity(pictures.len());
    for Picture { path, bytes } in pictures {
        write_atomically(&path, |f| f.write_all(&bytes))?;
        paths.push(path);
    }
    Ok(paths)
}
