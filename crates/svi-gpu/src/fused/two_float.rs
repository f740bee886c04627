//! Sums that lose nothing: numbers held as an unevaluated sum of two `f32`, good to about 2^-46.
//!
//! Devices without double precision need it where a log-weight is summed. Shader compilers may regroup sums (Mesa
//! turns `(a + b) - a` into `b`), which would delete the very errors that are kept here; so what must not be regrouped
//! passes through [`opaque`], an exclusive-or with a zero that only the host knows to be zero.
//!
//! Source: Dekker, "A floating-point technique for extending the available precision", 1971; Knuth, TAOCP 2, 4.2.2.

#![allow(clippy::excessive_precision, clippy::approx_constant)] // Coefficients, high and low parts.

use cubecl::prelude::*;

/// `hi + lo`, with `|lo|` at most half a unit in the last place of `hi`.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Two {
    pub(super) hi: f32,
    pub(super) lo: f32,
}

/// How a kernel keeps its compiler from regrouping: the run-time zero, and whether it is needed (it is not on CUDA,
/// whose compiler does not regroup).
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Barrier {
    pub(super) zero: u32,
    #[cube(comptime)]
    pub(super) needed: bool,
}

/// `x`, unrecognizable to the compiler.
#[cube]
pub(super) fn opaque(x: f32, barrier: Barrier) -> f32 {
    if comptime!(barrier.needed) {
        f32::reinterpret(u32::reinterpret(x) ^ barrier.zero)
    } else {
        x
    }
}

/// A product that is rounded before it is used, on every device: compilers that do not regroup still contract a product
/// and a sum into one operation, and then the sum is not of the product whose error is recovered.
#[cube]
fn rounded(product: f32, barrier: Barrier) -> f32 {
    f32::reinterpret(u32::reinterpret(product) ^ barrier.zero)
}

/// `a + b` exactly.
#[cube]
pub(super) fn two_sum(a: f32, b: f32, barrier: Barrier) -> Two {
    let s = opaque(a + b, barrier);
    let b_there = opaque(s - a, barrier);
    let a_there = opaque(s - b_there, barrier);
    Two {
        hi: s,
        lo: (a - a_there) + (b - b_there),
    }
}

/// `a + b` exactly where `|a| >= |b|`.
#[cube]
pub(super) fn fast_two_sum(a: f32, b: f32, barrier: Barrier) -> Two {
    let s = opaque(a + b, barrier);
    let b_there = opaque(s - a, barrier);
    Two {
        hi: s,
        lo: b - b_there,
    }
}

/// The upper twelve bits of a mantissa: products of such parts, and of what is left, are exact without a fused
/// multiply-add, which not every device has.
#[cube]
fn upper(x: f32) -> f32 {
    // CubeCL's C++ back end takes the address of what it reinterprets, and a constant has none: a variable has. NVRTC
    // refuses the kernel otherwise.
    let there = RuntimeCell::<f32>::new(x).read();
    f32::reinterpret(u32::reinterpret(there) & 0xFFFF_F000u32)
}

/// `a * b` exactly, short of underflow.
#[cube]
pub(super) fn two_product(a: f32, b: f32, barrier: Barrier) -> Two {
    let p = rounded(a * b, barrier);
    let a_upper = upper(a);
    let b_upper = upper(b);
    let a_lower = opaque(a - a_upper, barrier);
    let b_lower = opaque(b - b_upper, barrier);
    let e = opaque(a_upper * b_upper, barrier) - p;
    let e = e + opaque(a_upper * b_lower, barrier);
    let e = e + opaque(a_lower * b_upper, barrier);
    Two {
        hi: p,
        lo: e + opaque(a_lower * b_lower, barrier),
    }
}

/// `x + y`.
#[cube]
pub(super) fn add(x: Two, y: Two, barrier: Barrier) -> Two {
    let s = two_sum(x.hi, y.hi, barrier);
    fast_two_sum(s.hi, s.lo + (x.lo + y.lo), barrier)
}

/// `x + y` for a plain `y`.
#[cube]
pub(super) fn add_f32(x: Two, y: f32, barrier: Barrier) -> Two {
    let s = two_sum(x.hi, y, barrier);
    fast_two_sum(s.hi, s.lo + x.lo, barrier)
}

/// `x * y`.
#[cube]
pub(super) fn multiply(x: Two, y: Two, barrier: Barrier) -> Two {
    let p = two_product(x.hi, y.hi, barrier);
    fast_two_sum(p.hi, p.lo + (x.hi * y.lo + x.lo * y.hi), barrier)
}

/// `2^x` for `x` in [-126, 127]: relative error 1e-9.
#[cube]
pub(super) fn exp2_two(x: Two, barrier: Barrier) -> Two {
    let n = (x.hi + 0.5).floor();
    let y = two_sum(x.hi - n, x.lo, barrier);
    let r = y.hi;
    // 2^y = 1 + y ln 2 + y^2 (ln 2)^2 / 2 + y^3 q(y): the first terms in two floats.
    let mut q = fma(r, 1.321_543_3e-6f32, 1.525_273_3e-5f32);
    q = fma(r, q, 1.540_353e-4f32);
    q = fma(r, q, 1.333_355_8e-3f32);
    q = fma(r, q, 9.618_129e-3f32);
    q = fma(r, q, 5.550_411e-2f32);
    let cubic = r * r * r * q;
    let linear = multiply(
        y,
        Two {
            hi: 0.693_147_2f32,
            lo: -1.904_654_3e-9f32,
        },
        barrier,
    );
    let square = multiply(y, y, barrier);
    let square = multiply(
        square,
        Two {
            hi: 0.240_226_507f32,
            lo: -2.277_889_4e-10f32,
        },
        barrier,
    );
    let rest = add_f32(add(linear, square, barrier), cubic, barrier);
    let power = add_f32(rest, 1.0f32, barrier);
    let scale = f32::reinterpret(u32::reinterpret(i32::cast_from(n) + 127) << 23u32);
    Two {
        hi: power.hi * scale,
        lo: power.lo * scale,
    }
}

/// A number in two floats for each particle.
#[derive(CubeType)]
pub(super) struct Twos {
    hi: Array<f32>,
    lo: Array<f32>,
}

#[cube]
pub(super) fn zeros(#[comptime] count: usize) -> Twos {
    let mut zeros = Twos {
        hi: Array::<f32>::new(count),
        lo: Array::<f32>::new(count),
    };
    #[unroll]
    for k in 0..count {
        zeros.hi[k] = 0.0f32;
        zeros.lo[k] = 0.0f32;
    }
    zeros
}

/// The number of particle k.
#[cube]
pub(super) fn two_at(numbers: &Twos, #[comptime] k: usize) -> Two {
    Two {
        hi: numbers.hi[k],
        lo: numbers.lo[k],
    }
}

/// Sets the number of particle k.
#[cube]
pub(super) fn set_two(numbers: &mut Twos, #[comptime] k: usize, x: Two) {
    numbers.hi[k] = x.hi;
    numbers.lo[k] = x.lo;
}
