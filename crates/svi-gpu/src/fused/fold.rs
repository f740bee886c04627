//! The launch between the products and the hierarchy: it adds up the sums of the products' cubes by category,
//! into one buffer.
//!
//! It is all that the hierarchy needs to know of the products, and what devices that share the products would
//! have to add: the particles' log-weights (K), the derivatives with respect to the categories' elasticities
//! (C x K) and, if requested, those with respect to the effects and the elasticities for the centredness or
//! the orthogonal coordinates (C x K each), and the rates by category, particle and period (C x K x T). Every
//! number is held in two `f32`, high parts first: a log-weight of 1e9 in one would be 60 nats off.

use super::axes::Axes;
use super::hierarchy::sums::{THREADS, add_slices};
use super::products::CUBE_SUMS;
use super::two_float::{Barrier, Two, add, two_sum};
use cubecl::prelude::*;
use infermark_model::Parameterization;
use infermark_svi::Chart;

/// The parts of the buffer's layout that are fixed when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sums {
    /// K.
    pub(super) particles: usize,
    /// Whether the centredness is learned.
    pub(super) learned: bool,
    /// Whether the coordinates are the orthogonal ones.
    pub(super) orthogonal: bool,
}

impl Sums {
    /// The sums of a run with K particles.
    pub(super) fn new(chart: &Chart, particles: usize) -> Self {
        Sums {
            particles,
            learned: chart.parameterization() == Parameterization::Learned,
            orthogonal: chart.orthogonal().is_some(),
        }
    }

    /// Sums by category and particle before the rates.
    pub(super) const fn by_category(self) -> usize {
        if self.learned {
            3
        } else if self.orthogonal {
            2
        } else {
            1
        }
    }

    /// How many sums there are for C categories and T periods.
    pub(super) const fn len(self, categories: usize, periods: usize) -> usize {
        self.particles + categories * self.particles * (self.by_category() + periods)
    }

    /// Cubes of the launch: one for the log-weights, and as many as the other sums fill, up to a limit.
    pub(super) fn cubes(self, categories: usize, periods: usize) -> usize {
        let others = self.len(categories, periods) - self.particles;
        1 + others.div_ceil(THREADS).min(MOST_CUBES)
    }
}

/// Cubes after which threads take several sums.
const MOST_CUBES: usize = 2048;
/// Cubes of products whose sums are on their way at a time.
const AT_A_TIME: usize = 8;

/// The sums by category, in the order of the buffer.
pub(super) const BY_MEAN: usize = 0;
/// In orthogonal coordinates the derivative with respect to the effects' prior mean, otherwise to their
/// centredness.
pub(super) const OF_EFFECTS: usize = 1;
pub(super) const OF_ELASTICITIES: usize = 2;

/// Index of a sum of category c and particle k.
#[cube]
pub(super) fn category_sum(
    #[comptime] sum: usize,
    c: u32,
    k: usize,
    axes: Axes,
    #[comptime] sums: Sums,
) -> usize {
    comptime!(sums.particles)
        + (comptime!(sum as u32) * axes.categories + c) as usize * comptime!(sums.particles)
        + k
}

/// Index of the rates of category c and particle k in period t.
#[cube]
pub(super) fn rate_sum(c: u32, k: usize, t: usize, axes: Axes, #[comptime] sums: Sums) -> usize {
    let before = (comptime!(sums.by_category() as u32) * axes.categories) as usize + 1;
    before * comptime!(sums.particles)
        + (c as usize * comptime!(sums.particles) + k) * axes.periods as usize
        + t
}

/// A sum of the buffer; the low parts begin at `len`.
#[cube]
pub(super) fn folded_two(folded: &Array<f32>, at: usize) -> Two {
    let len = folded.len() / 2;
    Two {
        hi: folded[at],
        lo: folded[len + at],
    }
}

/// See the module.
#[cube(launch_unchecked)]
pub(super) fn fold(
    cube_sums: &Array<f32>,
    period_sums: &Array<f32>,
    category_cubes: &Array<u32>,
    folded: &mut Array<f32>,
    axes: Axes,
    barrier: Barrier,
    cube_count: u32,
    #[comptime] sums: Sums,
) {
    if CUBE_POS == 0 {
        add_log_weights(cube_sums, folded, cube_count, barrier, sums);
    } else {
        let count = comptime!(sums.particles);
        let len = folded.len() / 2;
        let by_category = comptime!(sums.by_category()) * axes.categories as usize * count;
        let padded = 4 * axes.stride as usize;
        let mut at = (CUBE_POS - 1) * THREADS + UNIT_POS as usize;
        let stride = (CUBE_COUNT - 1) * THREADS;
        while at < len - count {
            // Which category's cubes have the terms, where in a cube's sums they lie, and how many those are.
            let is_rate = at >= by_category;
            let rate = at - select(is_rate, by_category, 0usize);
            let entry = rate / axes.periods as usize;
            let sum = at / (axes.categories as usize * count);
            // A cube's sums: the log-weight (two), by mean, of the elasticities, of the effects.
            let place = select(sum == 0usize, 2usize, select(sum == 1usize, 4usize, 3usize));
            let c = select(is_rate, entry / count, at / count % axes.categories as usize);
            let from = select(
                is_rate,
                entry % count * padded + rate % axes.periods as usize,
                at % count * CUBE_SUMS + place,
            );
            let further = select(is_rate, padded, CUBE_SUMS) * count;
            let first = category_cubes[2 * c] as usize;
            let end = category_cubes[2 * c + 1] as usize;
            let mut hi = 0.0f32;
            let mut lo = 0.0f32;
            let mut terms = Array::<f32>::new(AT_A_TIME);
            let mut cube = first;
            while cube < end {
                #[unroll]
                for i in 0..AT_A_TIME {
                    terms[i] = 0.0f32;
                    if cube + i < end {
                        let term = (cube + i) * further + from;
                        terms[i] = if is_rate {
                            period_sums[term]
                        } else {
                            cube_sums[term]
                        };
                    }
                }
                #[unroll]
                for i in 0..AT_A_TIME {
                    let grown = two_sum(hi, terms[i], barrier);
                    hi = grown.hi;
                    lo += grown.lo;
                }
                cube += AT_A_TIME;
            }
            folded[count + at] = hi;
            folded[len + count + at] = lo;
            at += stride;
        }
    }
}

/// Adds the cubes' log-weights. All threads of a cube must come here.
#[cube]
fn add_log_weights(
    cube_sums: &Array<f32>,
    folded: &mut Array<f32>,
    cube_count: u32,
    barrier: Barrier,
    #[comptime] sums: Sums,
) {
    let count = comptime!(sums.particles);
    // So many threads share a particle, a power of two.
    let slices = comptime!(THREADS / count.next_power_of_two());
    let thread = UNIT_POS as usize;
    let k = thread / slices;
    let slice = thread % slices;
    let mut scratch = SharedMemory::<f32>::new(comptime!(2 * THREADS));
    let mut hi = 0.0f32;
    let mut lo = 0.0f32;
    if k < count {
        let mut cube = slice;
        while cube < cube_count as usize {
            let at = (cube * count + k) * CUBE_SUMS;
            let left = Two {
                hi: cube_sums[at],
                lo: cube_sums[at + 1],
            };
            let sum = add(Two { hi, lo }, left, barrier);
            hi = sum.hi;
            lo = sum.lo;
            cube += slices;
        }
    }
    add_slices(Two { hi, lo }, &mut scratch, barrier, slices);
    if k < count && slice == 0 {
        folded[k] = scratch[thread];
        folded[folded.len() / 2 + k] = scratch[THREADS + thread];
    }
}
