//! What a rate is the mean over.

use crate::pace::Pace;
use crate::settle::Settled;
use infermark_arrowhead::ProductRows;
use infermark_model::coordinates::IndependentRates;
use infermark_model::site::Layout;

/// What a rate is the mean over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spread<'a> {
    /// Nothing: the rate at the point.
    Point,
    /// The Gaussian whose factor the pass takes the place of: `exp(eta + v / 2)`. A weight changes by this part of what it
    /// should at most, and by a factor of [`MOST_CHANGE`] at most.
    Structured {
        /// In (0, 1].
        part: f64,
        /// The part of that for each product, where products differ in it.
        pace: Option<&'a Pace>,
        /// Takes the means of the products that are settled first, where that is asked for; their weights change at once.
        settled: Option<&'a Settled>,
    },
    /// Independent latents.
    Independent(IndependentRates<'a>),
}

impl<'a> Spread<'a> {
    /// The Gaussian whose factor the pass takes the place of, and weights that follow it at once.
    pub(crate) const STRUCTURED: Spread<'static> = Spread::Structured {
        part: 1.0,
        pace: None,
        settled: None,
    };

    /// The point with the means of the products that were settled.
    pub(crate) fn moved(&self, layout: Layout, point: &[f64]) -> Vec<f64> {
        let mut point = point.to_vec();
        if let Spread::Structured {
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

    /// Where the means of a product's latents go if it is settled: none where no log rate has this
    /// variance.
    #[inline]
    pub(crate) fn settles(&self, rows: &ProductRows<'_>, least_variance: f64) -> Option<&'a Settled> {
        let Spread::Structured {
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

/// The factor by which a weight, or a variance, may change in a step: where a rate's variance is large, its mean is far from the
/// rate at the mean, and the first steps would overshoot.
pub(crate) const MOST_CHANGE: f64 = 8.0;
