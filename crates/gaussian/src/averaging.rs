//! The distribution over which a rate is averaged.

use crate::pace::Pace;
use crate::settle::Settled;
use infermark_arrowhead::ProductRows;
use infermark_model::{IndependentRates, Layout};

/// The distribution over which a rate is averaged.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Averaging<'a> {
    /// None: the rate at the point.
    Point,
    /// The Gaussian whose factor the pass replaces: `exp(eta + v / 2)`. A weight makes at most this fraction
    /// of its full change, and changes by at most a factor of [`MOST_CHANGE`].
    Structured {
        /// In (0, 1].
        part: f64,
        /// The fraction of that for each product, if products differ.
        pace: Option<&'a Pace>,
        /// Receives the means of the products that are settled first, if requested; their weights change in
        /// full.
        settled: Option<&'a Settled>,
    },
    /// Independent latents.
    Independent(IndependentRates<'a>),
}

impl<'a> Averaging<'a> {
    /// The Gaussian whose factor the pass replaces, with weights that change in full.
    pub(crate) const STRUCTURED: Averaging<'static> = Averaging::Structured {
        part: 1.0,
        pace: None,
        settled: None,
    };

    /// The point with the means of the products that were settled.
    pub(crate) fn moved(&self, layout: Layout, point: &[f64]) -> Vec<f64> {
        let mut point = point.to_vec();
        if let Averaging::Structured {
            settled: Some(settled),
            ..
        } = self
        {
            for (i, mean) in settled.means() {
                for (j, mean) in layout.product_places(i).into_iter().zip(mean) {
                    point[j] = mean;
                }
            }
        }
        point
    }

    /// The place for the means of a product's latents if it is settled; none if no log rate has this
    /// variance.
    #[inline]
    pub(crate) fn settles(&self, rows: &ProductRows<'_>, least_variance: f64) -> Option<&'a Settled> {
        let Averaging::Structured {
            settled: Some(settled),
            ..
        } = *self
        else {
            return None;
        };
        let halves = rows.half_variance.iter().zip(rows.present());
        let most = halves.map(|(half, present)| half * present).fold(0.0, f64::max);
        (2.0 * most > least_variance).then_some(settled)
    }
}

/// The factor by which a weight, or a variance, may change in a step: if a rate's variance is large, its mean
/// is far from the rate at the mean, and the first steps would overshoot.
pub(crate) const MOST_CHANGE: f64 = 8.0;
