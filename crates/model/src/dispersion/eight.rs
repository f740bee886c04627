//! Sums over rows, eight at a time.

use std::ops::{Add, Div, Mul, Sub};

/// Eight numbers that are processed together: as wide as the widest vector, and the same on every machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Eight([f64; 8]);

impl Eight {
    #[inline(always)]
    pub(super) fn of(value: f64) -> Self {
        Eight([value; 8])
    }

    /// 1 where it is not below.
    #[inline(always)]
    pub(super) fn at_most_one(self) -> Self {
        Eight(self.0.map(|x| if x < 1.0 { x } else { 1.0 }))
    }
}

macro_rules! operator {
    ($trait:ident, $function:ident, $operator:tt, $assign:tt) => {
        impl $trait for Eight {
            type Output = Eight;

            #[inline(always)]
            fn $function(self, other: Eight) -> Eight {
                let mut found = self.0;
                for (own, other) in found.iter_mut().zip(other.0) {
                    *own $assign other;
                }
                Eight(found)
            }
        }

        impl $trait<f64> for Eight {
            type Output = Eight;

            #[inline(always)]
            fn $function(self, other: f64) -> Eight {
                self $operator Eight::of(other)
            }
        }
    };
}

operator!(Add, add, +, +=);
operator!(Sub, sub, -, -=);
operator!(Mul, mul, *, *=);
operator!(Div, div, /, /=);

/// Sums of the terms of every row, in eight interleaved sums each.
#[inline(always)]
pub(super) fn sums<const C: usize, const K: usize>(
    columns: [&[f64]; C],
    terms: impl Fn([Eight; C]) -> [Eight; K],
) -> [f64; K] {
    let chunks = columns.map(|column| column.as_chunks::<8>());
    let mut found = [Eight::of(0.0); K];
    let whole = chunks.iter().map(|(whole, _)| whole.len()).min().unwrap_or(0);
    let wholes = chunks.map(|(of, _)| &of[..whole]);
    for i in 0..whole {
        let terms = terms(wholes.map(|whole| Eight(whole[i])));
        for (sums, term) in found.iter_mut().zip(terms) {
            *sums = *sums + term;
        }
    }
    let rest = chunks.iter().map(|(_, rest)| rest.len()).min().unwrap_or(0);
    if rest > 0 {
        // The entries after the last rows repeat the first of them and are not added.
        let last =
            chunks.map(|(_, of)| Eight(std::array::from_fn(|lane| of[if lane < rest { lane } else { 0 }])));
        for (sums, term) in found.iter_mut().zip(terms(last)) {
            sums.0[..rest]
                .iter_mut()
                .zip(term.0)
                .for_each(|(sum, term)| *sum += term);
        }
    }
    found.map(|Eight([a, b, c, d, e, f, g, h])| ((a + e) + (b + f)) + ((c + g) + (d + h)))
}
