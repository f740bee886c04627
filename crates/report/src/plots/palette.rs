//! Colours after Okabe and Ito, "Color Universal Design", 2008.

use plotters::style::RGBColor;

pub(super) const INK: RGBColor = RGBColor(33, 33, 33);
pub(super) const FAINT: RGBColor = RGBColor(110, 110, 110);
pub(super) const GRID: RGBColor = RGBColor(225, 225, 225);
pub(super) const PAPER: RGBColor = RGBColor(255, 255, 255);

/// Greys of the published systems: CPU, one GPU, four GPUs.
pub(super) const PUBLISHED: [RGBColor; 3] = [
    RGBColor(130, 130, 130),
    RGBColor(172, 172, 172),
    RGBColor(206, 206, 206),
];

pub(super) const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(super) const VERMILLION: RGBColor = RGBColor(213, 94, 0);

const OURS: [RGBColor; 7] = [
    BLUE,
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    VERMILLION,
    RGBColor(86, 180, 233),
    RGBColor(240, 228, 66),
];

/// The colour of the `index`-th series that was measured here.
pub(super) fn ours(index: usize) -> RGBColor {
    OURS[index % OURS.len()]
}

/// Black or white, whichever reads better on `background`.
pub(super) fn text_on(background: RGBColor) -> RGBColor {
    let RGBColor(r, g, b) = background;
    let luminance = 0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b);
    if luminance > 140.0 { INK } else { PAPER }
}
