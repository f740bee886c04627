//! By which part of what they should the weights of each product change in a step of the variational iteration.
//!
//! A product's weights are taken at the variances of its log rates, and larger weights make those smaller: by how much depends on
//! how much of what is known of the product its own rows tell, and on how its counts lie to the shape. With `f` the log of what the sum
//! of its weights should be over what it is, a step that makes the part `p` of it leaves `f' = (1 + p (m - 1)) f`, `m` between
//! about -v / 2 and 1, `v` the variance of its log rate. The last two `f` give `m`, and with it the part after which nothing is left,
//! `1 / (1 - m)`: Aitken's extrapolation, a product at a time.

use std::sync::atomic::{AtomicU64, Ordering};

/// The least and the largest part.
const PARTS: [f64; 2] = [0.1, 1.0];

/// A change of the logarithm below which the next one is rounding.
const NEGLIGIBLE: f64 = 1e-11;

/// The parts, one a product, and the steps before.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The next part, and of the step before the change that was left and the part of it that was made, as bits: each product
    /// is one thread's at a time.
    products: Vec<[AtomicU64; 3]>,
}

impl Pace {
    pub(crate) fn new(products: usize) -> Self {
        let cell = || AtomicU64::new(f64::NAN.to_bits());
        Pace {
            products: (0..products).map(|_| [cell(), cell(), cell()]).collect(),
        }
    }

    /// The part of a product; `first` where there is none yet.
    pub(crate) fn part(&self, product: usize, first: f64) -> f64 {
        let part = f64::from_bits(self.products[product][0].load(Ordering::Relaxed));
        if part.is_nan() { first } else { part }
    }

    /// Takes the change that is left, of which the part `made` is made now.
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
