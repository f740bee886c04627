//! Scales: from figures to places along an axis, and the ticks between.

use crate::number_format::count;

/// Limits of the ends of a logarithmic scale: beyond them its decades can no longer be distinguished.
const SMALLEST: f64 = 1e-300;
const LARGEST: f64 = 1e300;

/// A linear or logarithmic scale over a range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    Linear { low: f64, high: f64 },
    Log { low: f64, high: f64 },
}

impl Scale {
    /// A linear scale over `values`, a twentieth wider on both sides.
    pub(super) fn linear(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values, 0.0, 1.0);
        let margin = 0.05 * (high - low).max(1e-9 * high.abs()).max(1e-12);
        Scale::Linear {
            low: low - margin,
            high: high + margin,
        }
    }

    /// A logarithmic scale over the positive `values`, `below` and `above` decades wider.
    pub(super) fn log(values: impl Iterator<Item = f64>, below: f64, above: f64) -> Self {
        let (low, high) = range(values.filter(|v| *v > 0.0), 1.0, 10.0);
        Scale::Log {
            low: (low * 10f64.powf(-below)).max(SMALLEST),
            high: (high * 10f64.powf(above)).min(LARGEST),
        }
    }

    /// A logarithmic scale over sizes of panels, wider on the right by `room`, a part of what they span, for labels.
    pub(super) fn sizes(sizes: &[f64], room: f64) -> Self {
        let range = sizes.iter().fold((f64::INFINITY, 0.0), |r: (f64, f64), size| {
            (r.0.min(*size), r.1.max(*size))
        });
        Scale::log(sizes.iter().copied(), 0.12, room * (range.1 / range.0).log10())
    }

    /// Place between 0 and 1; beyond the range it lies beyond.
    pub(super) fn place(&self, value: f64) -> f64 {
        match *self {
            Scale::Linear { low, high } => (value - low) / (high - low),
            Scale::Log { low, high } => (value / low).ln() / (high / low).ln(),
        }
    }

    /// Values of the ticks with their labels, ascending.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        match *self {
            Scale::Linear { low, high } => {
                let step = step(high - low);
                let decimals = (-step.log10().floor()).max(0.0) as usize;
                let first = (low / step).ceil() as i64;
                let last = (high / step).floor() as i64;
                (first..=last)
                    .map(|k| {
                        let value = k as f64 * step;
                        (value, format!("{:.decimals$}", if k == 0 { 0.0 } else { value }))
                    })
                    .collect()
            }
            Scale::Log { low, high } => {
                let decades = (high / low).log10();
                let first = low.log10().floor() as i32;
                let last = high.log10().ceil() as i32;
                let multiples: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let every = (decades / 9.0).ceil().max(1.0) as i32;
                (first..=last)
                    .filter(|e| e.rem_euclid(every) == 0)
                    .flat_map(|e| multiples.iter().map(move |m| (m * 10f64.powi(e), e, *m)))
                    .filter(|(v, ..)| *v >= low * 0.999 && *v <= high * 1.001)
                    .map(|(v, e, m)| (v, log_label(v, e, m)))
                    .collect()
            }
        }
    }
}

fn range(values: impl Iterator<Item = f64>, low: f64, high: f64) -> (f64, f64) {
    let found = values
        .filter(|v| v.is_finite())
        .fold(None, |range: Option<(f64, f64)>, v| match range {
            None => Some((v, v)),
            Some((low, high)) => Some((low.min(v), high.max(v))),
        });
    found.unwrap_or((low, high))
}

fn step(range: f64) -> f64 {
    let rough = range / 6.0;
    let unit = 10f64.powf(rough.log10().floor());
    let multiple = [1.0, 2.0, 5.0].into_iter().find(|m| m * unit >= rough);
    multiple.unwrap_or(10.0) * unit
}

fn log_label(value: f64, exponent: i32, multiple: f64) -> String {
    match exponent {
        7.. if multiple == 1.0 => format!("1e{exponent}"),
        7.. => format!("{multiple}e{exponent}"),
        0..7 => count(value.round() as u64),
        -4..0 => format!("{value:.*}", (-exponent) as usize),
        _ => format!("{multiple}e{exponent}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale::Linear {
            low: -0.31,
            high: 2.2,
        };
        let labels: Vec<String> = scale.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(labels, ["0.0", "0.5", "1.0", "1.5", "2.0"]);
        let scale = Scale::Log { low: 0.05, high: 2e4 };
        let labels: Vec<String> = scale.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(labels, ["0.1", "1", "10", "100", "1,000", "10,000"]);
        let scale = Scale::Log {
            low: 90.0,
            high: 2100.0,
        };
        let labels: Vec<String> = scale.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(labels, ["100", "200", "500", "1,000", "2,000"]);
        assert!((scale.place(90.0)).abs() < 1e-12 && (scale.place(2100.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn an_empty_or_constant_range_still_has_a_width() {
        for scale in [
            Scale::linear(std::iter::empty()),
            Scale::linear([3.0].into_iter()),
            Scale::log([5.0].into_iter(), 0.3, 0.3),
        ] {
            let ticks = scale.ticks();
            assert!(!ticks.is_empty(), "{scale:?}");
            assert!(
                ticks.iter().all(|t| (-0.01..=1.01).contains(&scale.place(t.0))),
                "{scale:?}"
            );
        }
    }
}
