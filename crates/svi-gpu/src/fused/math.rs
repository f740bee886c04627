//! Elementary functions of the kernels.
//!
//! Written out, because what a driver calls `sin` may be good to 2^-11 only (the Vulkan specification's bound), and so
//! that every device draws the same noise. The coefficients are those of the CPU's vectors (minimax in relative error).

#![allow(clippy::excessive_precision, clippy::approx_constant)] // As the fits printed them.

use cubecl::prelude::*;

/// `ln 2`.
const LN_2: f32 = std::f32::consts::LN_2;
/// `log2 e`.
pub(super) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// Below it [`exp2`] gives its smallest normal number: what a period without a row is given.
pub(super) const NEGLIGIBLE_EXPONENT: f32 = -126.0;

/// `2^t` for `t` up to 127, 2^-126 below -126: relative error 2e-7.
#[cube]
pub(super) fn exp2(t: f32) -> f32 {
    let t = max(t, NEGLIGIBLE_EXPONENT);
    let n = (t + 0.5).floor();
    let r = t - n;
    let mut p = fma(r, 0.001_327_647_3f32, 0.009_675_541f32);
    p = fma(r, p, 0.055_507_134f32);
    p = fma(r, p, 0.240_221_2f32);
    p = fma(r, p, 0.693_146_97f32);
    p = fma(r, p, 1.000_000_1f32);
    f32::reinterpret(u32::reinterpret(p) + (u32::reinterpret(i32::cast_from(n)) << 23u32))
}

/// `exp2` by the device's own exponential where that is fast, else the polynomial.
#[cube]
pub(super) fn exp2_fast(t: f32, #[comptime] native: bool) -> f32 {
    if comptime!(native) {
        native_exp2(t)
    } else {
        exp2(t)
    }
}

#[cube(fast_math = FastMath::ReducedPrecision | FastMath::NotNaN | FastMath::NotInf)]
fn native_exp2(t: f32) -> f32 {
    // CUDA's `__powf(2, t)` is the exponential's instruction; but for the program's own header, with a scaling of results below the
    // normal numbers.
    f32::powf(2.0f32, t)
}

/// `atanh(s) / s` for `s` in [-1/3, 1/3]: relative error 1e-10 before rounding.
#[cube]
fn atanh_over_s(s: f32) -> f32 {
    let w = s * s;
    let mut p = fma(w, 0.122_065_34f32, 0.106_966_25f32);
    p = fma(w, p, 0.143_103_6f32);
    p = fma(w, p, 0.199_993_45f32);
    p = fma(w, p, 0.333_333_4f32);
    fma(w, p, 1.0f32)
}

/// `ln x` for a positive normal `x`.
#[cube]
pub(super) fn ln(x: f32) -> f32 {
    // The mantissa is taken in [3/4, 3/2), so that near 1 nothing cancels.
    let bits = u32::reinterpret(x);
    let exponent = i32::reinterpret(bits - 0x3f40_0000u32) >> 23;
    let mantissa = f32::reinterpret(bits - (u32::reinterpret(exponent) << 23u32));
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    fma(f32::cast_from(exponent), LN_2, 2.0 * s * atanh_over_s(s))
}

/// `ln(1 + e)` for `e` in [0, 1].
#[cube]
pub(super) fn ln_1p_unit(e: f32) -> f32 {
    let s = e / (2.0 + e);
    2.0 * s * atanh_over_s(s)
}

/// `softplus(u)` and its derivative.
#[cube]
pub(super) fn softplus(u: f32) -> (f32, f32) {
    let e = exp2(-u.abs() * LOG2_E);
    let sigma = max(u, 0.0f32) + ln_1p_unit(e);
    let slope = select(u >= 0.0, 1.0f32, e) / (1.0 + e);
    (sigma, slope)
}

/// `(cos, sin)` of the angle whose turn is the word's top 24 bits.
#[cube]
fn cos_sin_of_word(word: u32) -> (f32, f32) {
    let turn = word >> 8u32;
    // The nearest quarter turn, and what is left of it, in [-1/8, 1/8]: exact.
    let quarter = (turn + 0x0020_0000u32) >> 22u32;
    let left = i32::reinterpret(turn) - i32::reinterpret(quarter << 22u32);
    let d = f32::cast_from(left) * 5.960_464_5e-8f32;
    let w = d * d;
    let mut s = fma(w, -75.393_56f32, 81.592_354f32);
    s = fma(w, s, -41.341_66f32);
    s = fma(w, s, 6.283_185_3f32);
    let s = s * d;
    let mut c = fma(w, 59.202_797f32, -85.442_3f32);
    c = fma(w, c, 64.939_31f32);
    c = fma(w, c, -19.739_209f32);
    c = fma(w, c, 1.0f32);
    let odd = quarter & 1u32;
    let a = select(odd == 1u32, s, c);
    let b = select(odd == 1u32, c, s);
    // Quarters 1 and 2 turn the cosine over, 2 and 3 the sine.
    let cos = select(((quarter + 1u32) & 2u32) == 2u32, -a, a);
    let sin = select((quarter & 2u32) == 2u32, -b, b);
    (cos, sin)
}

/// Two normals of two words; agrees with `infermark_model::noise::box_muller` within 1e-5.
#[cube]
fn box_muller(w0: u32, w1: u32) -> (f32, f32) {
    let unit = fma(f32::cast_from(w0), 2.328_306_4e-10f32, 1.164_153_2e-10f32);
    let radius = max(-2.0 * ln(unit), 0.0f32).sqrt();
    let (cos, sin) = cos_sin_of_word(w1);
    (radius * cos, radius * sin)
}

/// One round of Philox4x32.
#[cube]
fn philox_round(c0: u32, c1: u32, c2: u32, c3: u32, k0: u32, k1: u32) -> (u32, u32, u32, u32) {
    let m0 = 0xD251_1F53u32;
    let m1 = 0xCD9E_8D57u32;
    let hi0 = u32::mul_hi(c0, m0);
    let hi1 = u32::mul_hi(c2, m1);
    (hi1 ^ c1 ^ k0, c2 * m1, hi0 ^ c3 ^ k1, c0 * m0)
}

/// The normals of four particles for one latent: `infermark_model::noise::Stream::normals`.
#[cube]
pub(super) fn normals(
    latent: u32,
    group: u32,
    iteration: u32,
    seed_low: u32,
    seed_high: u32,
) -> (f32, f32, f32, f32) {
    let mut c0 = latent;
    let mut c1 = 0u32;
    let mut c2 = group;
    let mut c3 = seed_high;
    let mut k0 = seed_low;
    let mut k1 = iteration;
    #[unroll]
    for _ in 0..10u32 {
        let (a, b, c, d) = philox_round(c0, c1, c2, c3, k0, k1);
        c0 = a;
        c1 = b;
        c2 = c;
        c3 = d;
        k0 += 0x9E37_79B9u32;
        k1 += 0xBB67_AE85u32;
    }
    let (n0, n1) = box_muller(c0, c1);
    let (n2, n3) = box_muller(c2, c3);
    (n0, n1, n2, n3)
}
