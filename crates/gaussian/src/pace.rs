//! The fraction of its full change that the weights of each product make in a step of the variational
//! iteration.
//!
//! A product's weights are evaluated at the variances of its log rates, and larger weights make those
//! smaller. By how much depends on the share of its own rows in the information on the product, and on the
//! size of its counts relative to the shape. Let `f` be the log of the ratio of the sum of its weights as it
//! should be to what it is. A step that makes the fraction `p` of the change leaves `f' = (1 + p (m - 1)) f`,
//! with `m` between about -v / 2 and 1, and `v` the variance of its log rate. The last two `f` give `m`, and
//! with it the fraction after which nothing is left, `1 / (1 - m)`: Aitken's extrapolation, for each product.

use std::sync::atomic::{AtomicU64, Ordering};

/// The smallest and the largest fraction.
const PARTS: [f64; 2] = [0.1, 1.0];

/// A change of the logarithm below which the next change is rounding.
const NEGLIGIBLE: f64 = 1e-11;

/// The fractions, one per product, and the previous steps.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The next fraction; and from the previous step the remaining change and the fraction of it that was
    /// made. Stored as bits: only one thread works on a product at a time.
    products: Vec<[AtomicU64; 3]>,
}

impl Pace {
    pub(crate) fn new(products: usize) -> Self {
        let cell = || AtomicU64::new(f64::NAN.to_bits());
        Pace {
            products: (0..products).map(|_| [cell(), cell(), cell()]).collect(),
        }
    }

    /// The fraction of a product; `first` if there is none yet.
    pub(crate) fn part(&self, product: usize, first: f64) -> f64 {
        let part = f64::from_bits(self.products[product][0].load(Ordering::Relaxed));
        if part.is_nan() { first } else { part }
    }

    /// Records the remaining change, of which the fraction `made` is made now.
    pub(crate) fn take(&self, product: usize, change: f64, part: f64, made: f64) {
        let [_, before, made_before] = self.products[product]
            .each_ref()
            .map(|cell| f64::from_bits(cell.load(Ordering::Relaxed)));
        let mut next = part;
        if change.is_finite() && before.is_finite() && before.abs() > NEGLIGIBLE {
            let left = (change / before).clamp(-4.0, 0.95);
            // Halfway: other products move too.
            next = 0.5 * part + 0.5 * (made_before / (1.0 - left)).clamp(PARTS[0], PARTS[1]);
        }
        for (cell, value) in self.products[product].iter().zip([next, change, made]) {
            cell.store(value.to_bits(), Ordering::Relaxed);
        }
    }
}
