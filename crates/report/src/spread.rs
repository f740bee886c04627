//! Median and spread of repeated measurements.

use serde::{Deserialize, Serialize};

/// The spread of repeats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub low: f64,
    /// Largest.
    pub high: f64,
    /// Median absolute deviation from the median, not scaled.
    pub mad: f64,
}

impl Spread {
    /// The spread of `values`; `None` when there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let median = median(values)?;
        let deviations: Vec<f64> = values.iter().map(|v| (v - median).abs()).collect();
        Some(Spread {
            median,
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            mad: self::median(&deviations)?,
        })
    }

    /// `high / low`: 1 where all repeats agree.
    pub fn ratio(&self) -> f64 {
        self.high / self.low
    }
}

/// The median; `None` where there are no values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => None,
        n if n % 2 == 1 => Some(sorted[n / 2]),
        n => Some(0.5 * (sorted[n / 2 - 1] + sorted[n / 2])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let spread = Spread::of(&[4.0, 1.0, 9.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.low, spread.high), (3.0, 1.0, 9.0));
        // Deviations 1, 2, 6, 1.
        assert_eq!(spread.mad, 1.5);
        assert_eq!(spread.ratio(), 9.0);
        assert_eq!(Spread::of(&[7.0]).unwrap().mad, 0.0);
        assert!(Spread::of(&[]).is_none());
    }
}
