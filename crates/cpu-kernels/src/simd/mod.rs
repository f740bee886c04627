//! One vector of floating-point lanes, on any of the CPU's instruction sets.
//!
//! A kernel is written once over [`Simd`]. The token types (`avx512`, `avx2`, `portable`) can only be made
//! where the instructions exist, so their methods are safe to call; the kernels contain no `unsafe`.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod polynomial;
pub(crate) mod portable;

use std::fmt::Debug;

/// The scalar of a lane: `f32` or `f64`.
pub trait Scalar: Copy + Debug + Default + PartialOrd + Send + Sync + 'static {
    /// Nearest value.
    fn from_f64(x: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// A number stored as an `f32` and its rounding residual: their sum, or only the `f32` in single
    /// precision.
    fn from_parts(high: f32, low: f32) -> Self;
}

impl Scalar for f32 {
    #[inline(always)]
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn from_parts(high: f32, _low: f32) -> f32 {
        high
    }
}

impl Scalar for f64 {
    #[inline(always)]
    fn from_f64(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_parts(high: f32, low: f32) -> f64 {
        f64::from(high) + f64::from(low)
    }
}

/// Code that is compiled once for each instruction set, by [`Simd::vectorize`].
///
/// `run` and all that it calls with vectors must be `#[inline(always)]`: only what is inlined is compiled with the
/// instructions. Closures are not, so loops over vectors take such objects instead.
pub trait Kernel<I> {
    /// What the kernel returns.
    type Output;
    /// The kernel.
    fn run(self, isa: I) -> Self::Output;
}

/// Vector operations of one instruction set and one scalar type. Lane sets are bit masks, lane 0 the lowest bit.
pub trait Simd: Copy + Debug + Send + Sync + 'static {
    /// Type of a lane.
    type Scalar: Scalar;
    /// A vector, aligned for its instruction set.
    type V: Copy + Debug + Send + Sync + 'static;
    /// The same instruction set in double precision.
    type Wide: Simd<Scalar = f64>;
    /// The same instruction set for noise.
    type Noise: NoiseSimd;
    /// Lanes in a vector; at most 16.
    const LANES: usize;
    /// Whether sums of rates need an anchor to keep what rounding would lose (see `rows`).
    const ANCHORED: bool;
    /// Whether vector registers are too few for the pass over the rows to hold several particles' sums (see `rows`).
    const FEW_REGISTERS: bool;
    /// An exponent whose power is negligible compared with `2^-40`, the least relative rate of the fast pass,
    /// and is far from the denormal numbers, which are slow.
    const NEGLIGIBLE_EXPONENT: f64;

    /// The double-precision token.
    fn wide(self) -> Self::Wide;
    /// The noise token.
    fn noise(self) -> Self::Noise;
    /// Runs a kernel compiled for the instruction set.
    fn vectorize<K: Kernel<Self>>(self, kernel: K) -> K::Output;

    /// All lanes equal.
    fn splat(self, x: Self::Scalar) -> Self::V;
    /// The first `LANES` entries of `from`.
    fn load(self, from: &[Self::Scalar]) -> Self::V;
    /// The first `LANES` entries of `from`, of single precision whatever the lanes are.
    fn load_single(self, from: &[f32]) -> Self::V;
    /// Into the first `LANES` entries of `to`.
    fn store(self, v: Self::V, to: &mut [Self::Scalar]);
    /// The first counts, one for each set bit of `lanes`, spread to those lanes; zero elsewhere.
    fn expand_units(self, units: &[u32], lanes: u32) -> Self::V;

    /// Prefetches the cache lines of `units`, which will be read soon.
    #[inline(always)]
    fn prefetch(self, units: &[u32]) {
        prefetch_lines(units);
    }
    /// Prefetches the cache lines of `values`, which will be read soon.
    #[inline(always)]
    fn prefetch_singles(self, values: &[f32]) {
        prefetch_lines(values);
    }

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b` for `b` in [1e-30, 1e30]: relative error below 2e-7 or 3e-16.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, fused where the instruction set can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Lane-wise smaller value.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Lane-wise larger value.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Square root of zero or a normal number: relative error below 2e-7 or 3e-16, absolute below 2e-18.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// Lanes of `v` in `lanes`; zero elsewhere.
    fn keep(self, v: Self::V, lanes: u32) -> Self::V;
    /// `a` in `lanes`, `b` elsewhere.
    fn select(self, lanes: u32, a: Self::V, b: Self::V) -> Self::V;
    /// Lanes where `a == b`.
    fn equal(self, a: Self::V, b: Self::V) -> u32;
    /// `2^floor(t)`, exact, for `t` within [-126, 126].
    fn floor_power_of_two(self, t: Self::V) -> Self::V;
    /// `2^t` for `t` within [-126, 126] (f32) or [-1022, 1022] (f64): relative error below 3e-7 or 5e-16.
    ///
    /// In single precision 7.5e-8 is the polynomial's and the rest rounding: without fused multiply-adds 2.3e-7 was the
    /// largest found.
    fn exp2(self, t: Self::V) -> Self::V;
    /// `ln v` for positive normal `v`: relative error below 3e-7 (f32; near 1 absolute 1e-7), or the library's (f64).
    fn ln(self, v: Self::V) -> Self::V;
    /// `ln(1 + e)` for `e` in [0, 1]: relative error below 3e-7 (f32), or the library's (f64).
    fn ln_1p_unit(self, e: Self::V) -> Self::V;
    /// Sum of the lanes.
    fn sum(self, v: Self::V) -> Self::Scalar;
    /// The lanes in double precision: the lower `Wide::LANES` lanes, then the upper ones (zero when there are none).
    fn widen(self, v: Self::V) -> [<Self::Wide as Simd>::V; 2];
    /// Two double-precision vectors rounded to one: the inverse of [`Simd::widen`].
    fn narrow(self, v: [<Self::Wide as Simd>::V; 2]) -> Self::V;
    /// Sums of the lanes of `LANES` vectors: lane `l` of the result is the sum of vector `l`.
    #[inline(always)]
    fn sums(self, v: &[Self::V]) -> Self::V {
        let mut lanes = [Self::Scalar::default(); 16];
        for l in 0..Self::LANES {
            lanes[l] = self.sum(v[l]);
        }
        self.load(&lanes)
    }
    /// Normals of the noise, `Noise::LANES` of them, into the first entries of `to`.
    fn store_noise(self, normals: <Self::Noise as Simd>::V, to: &mut [Self::Scalar]);

    /// The first `min(len, LANES)` entries, zeros behind them.
    #[inline(always)]
    fn load_up_to(self, from: &[Self::Scalar]) -> Self::V {
        if from.len() >= Self::LANES {
            return self.load(from);
        }
        let mut lanes = [Self::Scalar::default(); 16];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }
    /// Zero in all lanes.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(Self::Scalar::default())
    }
}

/// The set of the first `n` lanes; all lanes when there are no more than `n`.
#[inline(always)]
pub fn lanes_below<I: Simd>(n: usize) -> u32 {
    ((1u64 << n.min(I::LANES)) - 1) as u32
}

/// A prefetch hint, if the CPU supports it.
#[inline(always)]
fn prefetch_lines<T>(of: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in of.chunks((64 / size_of::<T>()).max(1)) {
        // SAFETY: a prefetch touches no memory as far as the program can tell, and the instruction (SSE) is part of
        // x86-64.
        unsafe {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = of;
}

/// Single-precision vectors with the integer operations that Philox and Box-Muller need.
pub trait NoiseSimd: Simd<Scalar = f32> {
    /// `LANES` unsigned words of 32 bits.
    type U: Copy;

    /// All lanes equal.
    fn splat_words(self, x: u32) -> Self::U;
    /// The first `LANES` words.
    fn load_words(self, from: &[u32]) -> Self::U;
    /// High and low words of the 64-bit products with `m`.
    fn mul_wide(self, a: Self::U, m: u32) -> (Self::U, Self::U);
    /// Exclusive or of three.
    fn xor3(self, a: Self::U, b: Self::U, c: Self::U) -> Self::U;
    /// The words as numbers in (0, 1], as `noise::open_unit` of the model defines it.
    fn open_unit(self, w: Self::U) -> Self::V;
    /// The words' top 24 bits as numbers in [0, 1).
    fn turn(self, w: Self::U) -> Self::V;
    /// `(cos, sin)` of `2 pi r` for `r` in [0, 1): absolute error below 3e-7.
    fn cos_sin_turn(self, r: Self::V) -> (Self::V, Self::V);
}

#[cfg(test)]
mod tests;
