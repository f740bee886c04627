//! A group of rows along the conditional mean of all else: `sum_r ln E exp(-lambda_r h(d_r))`.
//!
//! `d_r = p' u + b + e` at the D whitened coordinates `u` of the group's latents, with `e ~ Normal(0, n)`,
//! where `n` is the variance of the row that the coordinates leave. If `n` is small the mean is taken inside
//! the logarithm,
//!
//! ```text
//! -lambda (exp(m + n / 2 - c) - 1 - m - (m^2 + n) / 2),    m = p' u + b,
//! ```
//!
//! with `c` 0 about the mode and `v / 2` about the mean ([`About`]), and without the constant in `n`;
//! otherwise the mean is computed with a Gauss-Hermite rule.

mod columns;
mod separated;
#[cfg(test)]
mod tests;

use crate::gauss_hermite::{NINE, axes};
use columns::{Columns, PAD};
use infermark_cpu_kernels::{ForSimd, Kernel, Simd, SimdDispatch};
use infermark_processor::InstructionSet;
use separated::{Separate, separates};
use std::f64::consts::LOG2_E;

pub(super) use columns::Row;

/// Variance given the coordinates from which on the mean is computed with a rule. The two differ by
/// `lambda^2 n h'(m)^2 / 2` to the lowest order; on panels of 0.01 to 100 units per row the rule for all rows
/// changes no largest error of a standard deviation by more than 0.3%.
const LOOSE: f64 = 0.05;

/// What the Gaussian is expanded about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The mode, with the rates there: `h(d) = exp(d) - 1 - d - d^2 / 2`.
    Mode,
    /// The mean of the variational Gaussian, with the means of the rates under it:
    /// `h(d) = exp(d - v / 2) - 1 - d - (d^2 - v) / 2`, which has mean zero, as have its first two
    /// derivatives.
    Mean,
}

impl About {
    /// `lambda E h'(d)` to lowest order.
    pub(super) fn slope(self, rate: f64, variance: f64) -> f64 {
        match self {
            About::Mode => 0.5 * rate * variance,
            About::Mean => 0.0,
        }
    }

    /// The log of `lambda` minus the log of the rate at the centre.
    pub(super) fn below(self, variance: f64) -> f64 {
        match self {
            About::Mode => 0.0,
            About::Mean => 0.5 * variance,
        }
    }
}

/// A group, in columns.
#[derive(Debug)]
pub(super) struct Group<const D: usize> {
    tight: Columns<D>,
    loose: Columns<D>,
}

impl<const D: usize> Group<D> {
    /// The group of these rows.
    pub(super) fn new(about: About, rows: impl Iterator<Item = Row<D>>) -> Self {
        let most = rows.size_hint().0.next_multiple_of(PAD);
        let mut group = Group {
            tight: Columns::with_capacity(most),
            loose: Columns::with_capacity(0),
        };
        for (came, row) in rows.enumerate() {
            let (noise, below) = (row.noise(), about.below(row.variance));
            if noise > LOOSE {
                // The rule includes the effect of the row's own skewness on its noise.
                let own = -noise * about.slope(row.rate, row.variance);
                group.loose.push(came, &row, row.shift - own, -below);
            } else {
                group.tight.push(came, &row, row.shift, 0.5 * noise - below);
            }
        }
        group.tight.pad();
        group.loose.pad();
        group
    }

    /// Writes the contribution of every row at the coordinates, in the order in which the rows were given.
    pub(super) fn each(&self, at: [f64; D], into: &mut Vec<f64>) {
        let mut padded = vec![0.0; self.tight.rate.len() + self.loose.rate.len()];
        InstructionSet::best().run_f64(Each(self, at, &mut padded));
        into.resize(self.tight.came.len() + self.loose.came.len(), 0.0);
        let (of_tight, of_loose) = padded.split_at(self.tight.rate.len());
        for (columns, values) in [(&self.tight, of_tight), (&self.loose, of_loose)] {
            for (came, value) in columns.came.iter().zip(values) {
                into[*came] = *value;
            }
        }
    }

    /// Adds `tilt' u` and the rows' part to the logs of weights at the nodes of the rule for D dimensions.
    pub(super) fn add_to(&self, logs: &mut [f64], tilt: [f64; D]) {
        InstructionSet::best().run_f64(AddTo {
            group: self,
            logs,
            tilt,
            separates: separates(&self.tight),
        });
    }
}

impl<const D: usize> ForSimd for Each<'_, D> {
    type Output = ();

    fn run<I: Simd>(self, isa: I) {
        isa.wide().vectorize(self);
    }
}

struct AddTo<'a, const D: usize> {
    group: &'a Group<D>,
    logs: &'a mut [f64],
    tilt: [f64; D],
    /// Whether the tight rows are evaluated at all nodes at once.
    separates: bool,
}

impl<const D: usize> ForSimd for AddTo<'_, D> {
    type Output = ();

    fn run<I: Simd>(self, isa: I) {
        let isa = isa.wide();
        let Group { tight, loose, .. } = self.group;
        let separated = self.separates.then(|| isa.vectorize(Separate(tight)));
        for (node, log) in self.logs.iter_mut().enumerate() {
            let at = axes::<D>(node).map(|place| NINE[place].0);
            *log += self.tilt.iter().zip(at).map(|(tilt, at)| tilt * at).sum::<f64>();
            *log += match &separated {
                Some(separated) => separated.at(node),
                None => isa.vectorize(SumOfTight(tight, at)),
            };
            if !loose.came.is_empty() {
                *log += isa.vectorize(SumOfLoose(loose, at));
            }
        }
    }
}

/// `d` at the coordinates.
#[inline(always)]
fn along<I: Simd<Scalar = f64>, const D: usize>(isa: I, rows: &Columns<D>, at: [f64; D], r: usize) -> I::V {
    let mut along = isa.load(&rows.at_zero[r..]);
    for (column, at) in rows.by.iter().zip(at) {
        along = isa.mul_add(isa.load(&column[r..]), isa.splat(at), along);
    }
    along
}

/// `1 + d + d^2 / 2`.
#[inline(always)]
fn expansion<I: Simd<Scalar = f64>>(isa: I, d: I::V) -> I::V {
    isa.mul_add(d, isa.mul_add(isa.splat(0.5), d, isa.splat(1.0)), isa.splat(1.0))
}

/// `exp(d)`, limited to finite numbers.
#[inline(always)]
fn exponential<I: Simd<Scalar = f64>>(isa: I, d: I::V) -> I::V {
    let exponent = isa.mul(d, isa.splat(LOG2_E));
    isa.exp2(isa.min(isa.max(exponent, isa.splat(-1000.0)), isa.splat(1000.0)))
}

/// `ln E exp(-lambda h)` of rows with little noise, from index r.
#[inline(always)]
fn tight<I: Simd<Scalar = f64>, const D: usize>(isa: I, rows: &Columns<D>, at: [f64; D], r: usize) -> I::V {
    let d = along(isa, rows, at, r);
    let quadratic = isa.mul(isa.load(&rows.rate[r..]), expansion(isa, d));
    isa.sub(
        quadratic,
        isa.mul(isa.load(&rows.raised[r..]), exponential(isa, d)),
    )
}

/// The same for rows with much noise.
#[inline(always)]
fn loose<I: Simd<Scalar = f64>, const D: usize>(isa: I, rows: &Columns<D>, at: [f64; D], r: usize) -> I::V {
    let mean = along(isa, rows, at, r);
    let (rate, sd) = (isa.load(&rows.rate[r..]), isa.load(&rows.sd[r..]));
    let raised = isa.load(&rows.raised[r..]);
    let mut likelihood = isa.zero();
    for (node, weight) in NINE {
        let d = isa.mul_add(sd, isa.splat(node), mean);
        let quadratic = isa.mul(rate, expansion(isa, d));
        let beyond = isa.sub(quadratic, isa.mul(raised, exponential(isa, d)));
        likelihood = isa.mul_add(isa.splat(weight), exponential(isa, beyond), likelihood);
    }
    isa.ln(likelihood)
}

/// The sum over rows with little noise at coordinates.
struct SumOfTight<'a, const D: usize>(&'a Columns<D>, [f64; D]);

impl<I: Simd<Scalar = f64>, const D: usize> Kernel<I> for SumOfTight<'_, D> {
    type Output = f64;

    #[inline(always)]
    fn run(self, isa: I) -> f64 {
        let SumOfTight(rows, at) = self;
        let mut sum = isa.zero();
        for r in (0..rows.rate.len()).step_by(I::LANES) {
            sum = isa.add(sum, tight(isa, rows, at, r));
        }
        isa.sum(sum)
    }
}

/// The same over rows with much noise.
struct SumOfLoose<'a, const D: usize>(&'a Columns<D>, [f64; D]);

impl<I: Simd<Scalar = f64>, const D: usize> Kernel<I> for SumOfLoose<'_, D> {
    type Output = f64;

    #[inline(always)]
    fn run(self, isa: I) -> f64 {
        let SumOfLoose(rows, at) = self;
        let mut sum = isa.zero();
        for r in (0..rows.rate.len()).step_by(I::LANES) {
            sum = isa.add(sum, loose(isa, rows, at, r));
        }
        isa.sum(sum)
    }
}

/// The rows' contributions one by one: first those with little noise, then the others, each padded.
struct Each<'a, const D: usize>(&'a Group<D>, [f64; D], &'a mut [f64]);

impl<I: Simd<Scalar = f64>, const D: usize> Kernel<I> for Each<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let Each(group, at, into) = self;
        let (of_tight, of_loose) = into.split_at_mut(group.tight.rate.len());
        for r in (0..of_tight.len()).step_by(I::LANES) {
            isa.store(tight(isa, &group.tight, at, r), &mut of_tight[r..]);
        }
        for r in (0..of_loose.len()).step_by(I::LANES) {
            isa.store(loose(isa, &group.loose, at, r), &mut of_loose[r..]);
        }
    }
}
