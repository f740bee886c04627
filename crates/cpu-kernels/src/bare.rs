//! The bare pass over the rows, with which a complete iteration is compared.

use crate::chunk::{Chunk, chunks};
use crate::dispatch::{ForSimd, SimdDispatch};
use crate::likelihood::GROUP;
use crate::packed_rows::{PackedRows, vectors_of};
use crate::rows::{Inside, InsideScratch, ProductColumns, anchor_headroom};
use crate::simd::{Scalar, Simd};
use crate::team::{Shared, run_team};
use infermark_model::{Likelihood, Panel};
use infermark_processor::InstructionSet;
use std::time::{Duration, Instant};

/// Least number of passes of one measurement.
const LEAST_PASSES: u32 = 5;

/// Row-particles per second of only the likelihood and its gradient, with fixed parameters at which no row
/// clips: no noise, no priors, no optimizer, no exchange between threads within a pass. The best pass of
/// about `time` counts.
///
/// Up to four `particles` are processed in one pass, as in an iteration; more are measured as four.
///
/// # Panics
/// When the CPU lacks the instruction set, or `particles` or `threads` is 0.
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

/// [`bare_row_particles_per_second`] measured for a second: what a backend of these kernels answers as its kernel limit. The bare
/// kernel is that of Poisson counts; for other likelihoods there is none.
///
/// # Panics
/// As [`bare_row_particles_per_second`].
pub fn kernel_limit(
    set: InstructionSet,
    likelihood: Likelihood,
    single_precision: bool,
    panel: &Panel,
    particles: usize,
    threads: usize,
) -> Option<f64> {
    let time = Duration::from_secs(1);
    (likelihood == Likelihood::Poisson)
        .then(|| bare_row_particles_per_second(set, single_precision, panel, particles, threads, time))
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
        let work = chunks(self.panel).into_iter().map(|chunk| {
            let columns: [_; K] =
                std::array::from_fn(|k| steady_columns::<I>(&chunk, self.panel.layout().periods, k));
            (
                PackedRows::new(isa, self.panel, &chunk),
                columns,
                chunk.products.len(),
            )
        });
        let work = Shared::new(work.collect());
        let effect2 = vec![isa.zero(); vectors_of::<I>(self.panel.layout().periods) * K];
        let start = Instant::now();
        let best = run_team(
            self.threads,
            &[work.len()],
            || (effect2.clone(), InsideScratch::new(isa, K)),
            |(by_period, scratch), items| {
                for index in items {
                    let (rows, columns, products) = &mut *work.write(index);
                    isa.vectorize(Inside::<I, K> {
                        rows,
                        products: 0..*products,
                        columns,
                        effect2: &effect2,
                        by_period,
                        scratch,
                    });
                }
            },
            |pass| {
                let (mut best, mut passes) = (f64::INFINITY, 0);
                while passes < LEAST_PASSES || start.elapsed() < self.time {
                    let clock = Instant::now();
                    pass(0);
                    best = best.min(clock.elapsed().as_secs_f64());
                    passes += 1;
                }
                best
            },
        );
        (self.panel.rows() * K) as f64 / best
    }
}

/// Parameters that keep every rate between 1 and a hundred.
fn steady_columns<I: Simd>(chunk: &Chunk, periods: usize, particle: usize) -> ProductColumns<I::Scalar> {
    let mut columns = ProductColumns::default();
    columns.resize(chunk.padded());
    columns
        .slope2
        .fill(I::Scalar::from_f64(-1.5 - 0.01 * particle as f64));
    columns.scale.fill(I::Scalar::from_f64(1.0));
    columns
        .anchor
        .fill(I::Scalar::from_f64((anchor_headroom::<I>(periods) + 8.0).exp2()));
    columns
}
