//! Coefficients of the elementary functions, lowest degree first: minimax in relative error (Remez, 50 digits).

#![allow(clippy::excessive_precision, clippy::approx_constant)] // As the fit printed them.

use super::Simd;

/// `2^r` on [0, 1]: relative error 7.5e-8.
pub(crate) const EXP2_UNIT_F32: [f32; 6] = [
    0.999_999_925,
    0.693_153_07,
    0.240_153_62,
    0.055_826_318,
    0.008_989_34,
    0.001_877_576_7,
];

/// `2^r` on [-1/2, 1/2]: relative error 7.5e-8.
pub(crate) const EXP2_HALF_F32: [f32; 6] = [
    1.000_000_07,
    0.693_146_97,
    0.240_221_2,
    0.055_507_134,
    0.009_675_541,
    0.001_327_647_3,
];

/// `2^r` on [-1/2, 1/2]: relative error 3.1e-18.
pub(crate) const EXP2_HALF_F64: [f64; 12] = [
    1.0,
    0.693_147_180_559_945_33,
    0.240_226_506_959_101_562,
    0.055_504_108_664_819_921_6,
    0.009_618_129_107_588_335_2,
    0.001_333_355_814_678_992_17,
    0.000_154_035_304_625_144_320,
    1.525_273_348_998_852_6e-5,
    1.321_543_308_967_639_9e-6,
    1.017_819_802_167_193_1e-7,
    7.074_105_613_508_142_8e-9,
    4.435_282_706_957_277_2e-10,
];

/// `atanh(s) / s` in `w = s^2` on [0, 1/9], for `ln` of a mantissa in [3/4, 3/2] and `ln(1 + e)`, `e` in [0, 1]: relative error 9.9e-11.
pub(crate) const ATANH_WIDE: [f32; 6] = [
    1.0,
    0.333_333_4,
    0.199_993_45,
    0.143_103_6,
    0.106_966_25,
    0.122_065_34,
];

/// `sin(2 pi r) / r` in `w = r^2` on [0, 1/64]: relative error 3.2e-9.
pub(crate) const SIN_TURN: [f32; 4] = [6.283_185_3, -41.341_66, 81.592_354, -75.393_56];

/// `cos(2 pi r)` in `w = r^2` on [0, 1/64]: relative error 5.6e-11.
pub(crate) const COS_TURN: [f32; 5] = [1.0, -19.739_209, 64.939_31, -85.442_3, 59.202_797];

/// `ln 2`.
pub(crate) const LN_2_F32: f32 = std::f32::consts::LN_2;

/// `ln(1 + e) = 2 atanh(e / (2 + e))` for `e` in [0, 1].
#[inline(always)]
pub(crate) fn ln_1p_unit_f32<I: Simd<Scalar = f32>>(isa: I, e: I::V) -> I::V {
    let s = isa.div(e, isa.add(isa.splat(2.0), e));
    isa.mul(isa.add(s, s), atanh_over_s(isa, s))
}

/// `ln` of a mantissa in [3/4, 3/2), `2 atanh((m - 1) / (m + 1))`, plus `exponent * ln 2`.
#[inline(always)]
pub(crate) fn ln_of_parts_f32<I: Simd<Scalar = f32>>(isa: I, mantissa: I::V, exponent: I::V) -> I::V {
    let one = isa.splat(1.0);
    let s = isa.div(isa.sub(mantissa, one), isa.add(mantissa, one));
    isa.mul_add(
        exponent,
        isa.splat(LN_2_F32),
        isa.mul(isa.add(s, s), atanh_over_s(isa, s)),
    )
}

#[inline(always)]
fn atanh_over_s<I: Simd<Scalar = f32>>(isa: I, s: I::V) -> I::V {
    let w = isa.mul(s, s);
    let mut p = isa.splat(ATANH_WIDE[5]);
    for c in ATANH_WIDE[..5].iter().rev() {
        p = isa.mul_add(p, w, isa.splat(*c));
    }
    p
}

/// `(cos, sin)` of `2 pi d` for `|d| <= 1/8`.
#[inline(always)]
pub(crate) fn cos_sin_eighth_f32<I: Simd<Scalar = f32>>(isa: I, d: I::V) -> (I::V, I::V) {
    let w = isa.mul(d, d);
    let mut sin = isa.splat(SIN_TURN[3]);
    for c in SIN_TURN[..3].iter().rev() {
        sin = isa.mul_add(sin, w, isa.splat(*c));
    }
    let mut cos = isa.splat(COS_TURN[4]);
    for c in COS_TURN[..4].iter().rev() {
        cos = isa.mul_add(cos, w, isa.splat(*c));
    }
    (cos, isa.mul(sin, d))
}
