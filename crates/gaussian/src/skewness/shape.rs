//! Shapes of marginals: four moments by a Gauss-Hermite rule, quantiles from those.
//!
//! Source of the quantiles: Cornish and Fisher, "Moments and cumulants in the specification of distributions", 1938.

/// The largest skewness that the expansion of quantiles is used with: beyond it quantiles would cross.
const MOST_SKEWNESS: f64 = 0.9;

/// Mean, variance, skewness and excess kurtosis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shape {
    pub(super) mean: f64,
    pub(super) variance: f64,
    pub(super) skewness: f64,
    pub(super) kurtosis: f64,
}

impl Shape {
    /// The shape of `values` with the logs of their weights, as distances from `mode`; none if no value is
    /// finite.
    pub(super) fn new(mode: f64, weights: &[f64], values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut moments = [0.0; 4];
        for (weight, value) in weights.iter().zip(values) {
            let mut power = *weight;
            for moment in &mut moments {
                power *= value;
                *moment += power;
            }
        }
        let total: f64 = weights.iter().sum();
        let [mean, second, third, fourth] = moments.map(|moment| moment / total);
        let variance = second - mean * mean;
        let m3 = third - 3.0 * mean * second + 2.0 * mean.powi(3);
        let m4 = fourth - 4.0 * mean * third + 6.0 * mean.powi(2) * second - 3.0 * mean.powi(4);
        let shape = Shape {
            mean: mode + mean,
            variance,
            skewness: m3 / variance.powf(1.5),
            kurtosis: m4 / (variance * variance) - 3.0,
        };
        (shape.mean.is_finite() && variance > 0.0 && shape.kurtosis.is_finite()).then_some(shape)
    }

    /// The quantile at the standard normal quantile `z`.
    pub(super) fn quantile(&self, z: f64) -> f64 {
        let g = self.skewness.clamp(-MOST_SKEWNESS, MOST_SKEWNESS);
        let k = self.kurtosis.clamp(-1.0, 1.5);
        let w = z + g * (z * z - 1.0) / 6.0 + k * z * (z * z - 3.0) / 24.0
            - g * g * z * (2.0 * z * z - 5.0) / 36.0;
        self.mean + w * self.variance.sqrt()
    }
}

/// Weights from their logs, the largest 1.
pub(super) fn exponentials(logs: &mut [f64]) {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logs.iter_mut().for_each(|log| *log = (*log - most).exp());
}
