//! The bare pass over the rows: what a complete iteration is held against.

use crate::chunk::{Chunk, chunks};
use crate::instruction_set::{ForSimd, InstructionSet};
use crate::likelihood::GROUP;
use crate::rows::{ANCHOR_HEADROOM, Particles, ProductRows, inside, vectors_of};
use crate::simd::{Kernel, Scalar, Simd};
use crate::team::{Shared, run_team};
use infermark_model::panel::Panel;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Passes of one measurement at least.
const LEAST_PASSES: u32 = 5;

/// Row-particles a second of the likelihood and its gradient alone, with fixed parameters that no row clips at: no
/// noise, no priors, no optimizer, no exchange between threads within a pass. The best pass of about `time` counts.
///
/// `particles` up to four go through in one pass, as in an iteration; more are measured as four.
///
/// # Panics
/// When the processor lacks the instruction set, or `particles` or `threads` is 0.
pub fn bare_row_particles_per_second(
    set: InstructionSet,
    single_precision: bool,
    panel: &Panel,
    particles: usize,
    threads: usize,
    time: Duration,
) -> f64 {
    let measure = Measure {
        panel,
        particles: particles.min(GROUP),
        threads,
        time,
    };
    if single_precision {
        set.run_f32(measure)
    } else {
        set.run_f64(measure)
    }
}

struct Measure<'p> {
    panel: &'p Panel,
    particles: usize,
    threads: usize,
    time: Duration,
}

impl ForSimd for Measure<'_> {
    type Output = f64;

    fn run<I: Simd>(self, isa: I) -> f64 {
        match self.particles {
            1 => self.passes::<I, 1>(isa),
            2 => self.passes::<I, 2>(isa),
            3 => self.passes::<I, 3>(isa),
            4 => self.passes::<I, 4>(isa),
            k => panic!("{k} particles"),
        }
    }
}

impl Measure<'_> {
    fn passes<I: Simd, const K: usize>(&self, isa: I) -> f64 {
        let work = Shared::new(chunks(self.panel));
        let best = Mutex::new(f64::INFINITY);
        let done = AtomicBool::new(false);
        let start = Instant::now();
        run_team(self.threads, |barrier| {
            let mut by_period = vec![isa.zero(); vectors_of::<I>(self.panel.layout().periods) * K];
            let mut passes = 0;
            while !done.load(Ordering::Relaxed) {
                barrier.wait(|| {});
                let clock = Instant::now();
                work.take_all(|_, chunk| {
                    isa.vectorize(Pass::<I, K> {
                        panel: self.panel,
                        chunk,
                        by_period: &mut by_period,
                    });
                });
                passes += 1;
                barrier.wait(|| {
                    work.rewind();
                    let mut best = best.lock().unwrap_or_else(PoisonError::into_inner);
                    *best = best.min(clock.elapsed().as_secs_f64());
                    let enough = passes >= LEAST_PASSES && start.elapsed() >= self.time;
                    done.store(enough, Ordering::Relaxed);
                });
            }
        });
        let best = best.into_inner().unwrap_or_else(PoisonError::into_inner);
        (self.panel.rows() * K) as f64 / best
    }
}

struct Pass<'a, I: Simd, const K: usize> {
    panel: &'a Panel,
    chunk: &'a Chunk,
    by_period: &'a mut [I::V],
}

impl<I: Simd, const K: usize> Kernel<I> for Pass<'_, I, K> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let scalar = I::Scalar::from_f64;
        let effect2 = vec![isa.zero(); self.by_period.len()];
        let mut particles = Particles {
            slope2: [scalar(0.0); K],
            scale: [scalar(1.0); K],
            anchor: [scalar((ANCHOR_HEADROOM + 8.0).exp2()); K],
            base2: [scalar(0.0); K],
        };
        for k in 0..K {
            particles.slope2[k] = scalar(-1.5 - 0.01 * k as f64);
        }
        for (i, product) in self.chunk.products.iter().enumerate() {
            let product = *product as usize;
            if let Some(next) = self.chunk.products.get(i + 4) {
                isa.prefetch(&self.panel.deviation()[self.panel.row_range(*next as usize)]);
            }
            let range = self.panel.row_range(product);
            let rows = ProductRows {
                deviation: &self.panel.deviation()[range.clone()],
                residual: &self.panel.deviation_residual()[range.clone()],
                units: &[],
                present: self.panel.presence().map(|p| p.product(product)),
                periods: self.panel.layout().periods,
            };
            std::hint::black_box(inside(isa, &rows, &particles, &effect2, self.by_period));
        }
    }
}
