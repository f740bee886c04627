//! The exponential.

#![allow(clippy::excessive_precision, clippy::approx_constant)] // Powers of ln 2 over factorials.

use cubecl::prelude::*;
use std::f64::consts::LOG2_E;

/// Exponents are held within this, as the host holds them: a rate beyond is as good as none, or ends the search.
const MOST_EXPONENT: f64 = 1000.0;

/// `exp(eta)`, to a unit or two of the last place: no shading language has it in double precision. The power of two is the product of eight
/// single-precision numbers that are one, whose bits are the exponent's.
#[cube]
pub(super) fn exp(eta: f64) -> f64 {
    let t = smaller(larger(eta * LOG2_E, -MOST_EXPONENT), MOST_EXPONENT);
    let n = f64::floor(t + 0.5f64);
    let r = t - n;
    // Taylor's series of 2^r: what follows the last term is below 5e-18 for r within half of one.
    let mut p = 1.3691488853904128e-12f64;
    p = p * r + 2.5678435993488206e-11f64;
    p = p * r + 4.4455382718708116e-10f64;
    p = p * r + 7.054911620801123e-09f64;
    p = p * r + 1.01780860092397e-07f64;
    p = p * r + 1.321548679014431e-06f64;
    p = p * r + 1.5252733804059841e-05f64;
    p = p * r + 0.0001540353039338161f64;
    p = p * r + 0.0013333558146428443f64;
    p = p * r + 0.009618129107628477f64;
    p = p * r + 0.05550410866482158f64;
    p = p * r + 0.24022650695910072f64;
    p = p * r + 0.6931471805599453f64;
    p = p * r + 1.0f64;
    let whole = i32::cast_from(n);
    let eighth = whole >> 3;
    let s = f64::cast_from(f32::reinterpret(u32::cast_from((eighth + 127) << 23)));
    let rest = f64::cast_from(1i32 << (whole - eighth * 8));
    let s2 = s * s;
    let s4 = s2 * s2;
    p * (s4 * s4) * rest
}

/// The larger of two numbers; the second if one is NaN.
#[cube]
pub(super) fn larger(a: f64, b: f64) -> f64 {
    select(a > b, a, b)
}

/// The smaller of two numbers; the second if one is NaN.
#[cube]
pub(super) fn smaller(a: f64, b: f64) -> f64 {
    select(a < b, a, b)
}

/// The size of a number.
#[cube]
pub(super) fn size_of(a: f64) -> f64 {
    larger(a, -a)
}
