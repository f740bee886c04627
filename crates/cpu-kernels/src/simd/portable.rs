//! Arrays of eight lanes in plain Rust: the safe twin of the intrinsics, and what NEON and SSE2 are compiled from.

use super::polynomial::*;
use super::{Kernel, NoiseSimd, Simd};
use std::array::from_fn;

const L: usize = 8;

/// Eight `f32` lanes on any CPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortableF32;

/// Eight `f64` lanes on any CPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortableF64;

/// Where the instruction set has no fused multiply-add the library's would be a slow call: multiply, then add.
const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

/// Spreads the first entries to the lanes of set bits.
#[inline(always)]
fn expand<T: Copy + Default>(from: &[T], lanes: u32) -> [T; L] {
    let mut next = 0;
    from_fn(|lane| {
        if lanes >> lane & 1 == 1 {
            next += 1;
            from[next - 1]
        } else {
            T::default()
        }
    })
}

#[inline(always)]
fn add_pairwise<T: Copy + std::ops::Add<Output = T>>(v: [T; L]) -> T {
    ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
}

/// The operations that read the same in both types.
macro_rules! lanewise {
    ($scalar:ty) => {
        type Scalar = $scalar;
        type V = [$scalar; L];
        type Wide = PortableF64;
        type Noise = PortableF32;
        const LANES: usize = L;

        #[inline(always)]
        fn wide(self) -> PortableF64 {
            PortableF64
        }
        #[inline(always)]
        fn noise(self) -> PortableF32 {
            PortableF32
        }
        #[inline(never)]
        fn vectorize<K: Kernel<Self>>(self, kernel: K) -> K::Output {
            kernel.run(self)
        }
        #[inline(always)]
        fn splat(self, x: $scalar) -> Self::V {
            [x; L]
        }
        #[inline(always)]
        fn load(self, from: &[$scalar]) -> Self::V {
            from_fn(|i| from[..L][i])
        }
        #[inline(always)]
        fn load_single(self, from: &[f32]) -> Self::V {
            from_fn(|i| <$scalar>::from(from[..L][i]))
        }
        #[inline(always)]
        fn store(self, v: Self::V, to: &mut [$scalar]) {
            to[..L].copy_from_slice(&v);
        }
        #[inline(always)]
        fn expand_units(self, units: &[u32], lanes: u32) -> Self::V {
            expand(units, lanes).map(|y| y as $scalar)
        }
        #[inline(always)]
        fn add(self, a: Self::V, b: Self::V) -> Self::V {
            from_fn(|i| a[i] + b[i])
        }
        #[inline(always)]
        fn sub(self, a: Self::V, b: Self::V) -> Self::V {
            from_fn(|i| a[i] - b[i])
        }
        #[inline(always)]
        fn mul(self, a: Self::V, b: Self::V) -> Self::V {
            from_fn(|i| a[i] * b[i])
        }
        #[inline(always)]
        fn div(self, a: Self::V, b: Self::V) -> Self::V {
            from_fn(|i| a[i] / b[i])
        }
        #[inline(always)]
        fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            from_fn(|i| {
                if FUSED {
                    a[i].mul_add(b[i], c[i])
                } else {
                    a[i] * b[i] + c[i]
                }
            })
        }
        #[inline(always)]
        fn min(self, a: Self::V, b: Self::V) -> Self::V {
            from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
        }
        #[inline(always)]
        fn max(self, a: Self::V, b: Self::V) -> Self::V {
            from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
        }
        #[inline(always)]
        fn sqrt(self, a: Self::V) -> Self::V {
            a.map(<$scalar>::sqrt)
        }
        #[inline(always)]
        fn keep(self, v: Self::V, lanes: u32) -> Self::V {
            from_fn(|i| if lanes >> i & 1 == 1 { v[i] } else { 0.0 })
        }
        #[inline(always)]
        fn select(self, lanes: u32, a: Self::V, b: Self::V) -> Self::V {
            from_fn(|i| if lanes >> i & 1 == 1 { a[i] } else { b[i] })
        }
        #[inline(always)]
        fn equal(self, a: Self::V, b: Self::V) -> u32 {
            (0..L).map(|i| u32::from(a[i] == b[i]) << i).sum()
        }
        #[inline(always)]
        fn sum(self, v: Self::V) -> $scalar {
            add_pairwise(v)
        }
        #[inline(always)]
        fn store_noise(self, normals: [f32; L], to: &mut [$scalar]) {
            self.store(normals.map(<$scalar>::from), to);
        }
    };
}

impl Simd for PortableF32 {
    lanewise!(f32);
    const ANCHORED: bool = true;
    const FEW_REGISTERS: bool = true;
    const NEGLIGIBLE_EXPONENT: f64 = -80.0;

    #[inline(always)]
    fn widen(self, v: [f32; L]) -> [[f64; L]; 2] {
        [v.map(f64::from), [0.0; L]]
    }
    #[inline(always)]
    fn narrow(self, v: [[f64; L]; 2]) -> [f32; L] {
        v[0].map(|x| x as f32)
    }
    #[inline(always)]
    fn floor_power_of_two(self, t: [f32; L]) -> [f32; L] {
        t.map(|t| f32::from_bits(((t.floor() as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn exp2(self, t: [f32; L]) -> [f32; L] {
        // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let shifted = t.map(|t| t + ROUND);
        let r: [f32; L] = from_fn(|i| t[i] - (shifted[i] - ROUND));
        let mut p = self.splat(EXP2_HALF_F32[5]);
        for c in EXP2_HALF_F32[..5].iter().rev() {
            p = self.mul_add(p, r, self.splat(*c));
        }
        from_fn(|i| f32::from_bits(p[i].to_bits().wrapping_add(shifted[i].to_bits() << 23)))
    }
    #[inline(always)]
    fn ln(self, v: [f32; L]) -> [f32; L] {
        // Exponent such that the mantissa lies in [3/4, 3/2).
        const THREE_QUARTERS: u32 = 0x3f40_0000;
        let offset = v.map(|v| v.to_bits().wrapping_sub(THREE_QUARTERS) & 0xff80_0000);
        let m: [f32; L] = from_fn(|i| f32::from_bits(v[i].to_bits().wrapping_sub(offset[i])));
        let e = offset.map(|o| ((o as i32) >> 23) as f32);
        ln_of_parts_f32(self, m, e)
    }
    #[inline(always)]
    fn ln_1p_unit(self, e: [f32; L]) -> [f32; L] {
        ln_1p_unit_f32(self, e)
    }
}

impl NoiseSimd for PortableF32 {
    type U = [u32; L];

    #[inline(always)]
    fn splat_words(self, x: u32) -> [u32; L] {
        [x; L]
    }
    #[inline(always)]
    fn load_words(self, from: &[u32]) -> [u32; L] {
        from_fn(|i| from[..L][i])
    }
    #[inline(always)]
    fn mul_wide(self, a: [u32; L], m: u32) -> ([u32; L], [u32; L]) {
        let product = a.map(|a| u64::from(a) * u64::from(m));
        (product.map(|p| (p >> 32) as u32), product.map(|p| p as u32))
    }
    #[inline(always)]
    fn xor3(self, a: [u32; L], b: [u32; L], c: [u32; L]) -> [u32; L] {
        from_fn(|i| a[i] ^ b[i] ^ c[i])
    }
    #[inline(always)]
    fn open_unit(self, w: [u32; L]) -> [f32; L] {
        w.map(|w| w as f32 * 2f32.powi(-32) + 2f32.powi(-33))
    }
    #[inline(always)]
    fn turn(self, w: [u32; L]) -> [f32; L] {
        w.map(|w| (w >> 8) as f32 * 2f32.powi(-24))
    }
    #[inline(always)]
    fn cos_sin_turn(self, r: [f32; L]) -> ([f32; L], [f32; L]) {
        let q = r.map(|r| (r * 4.0).round_ties_even());
        let d: [f32; L] = from_fn(|i| r[i] - 0.25 * q[i]);
        let (cos, sin) = cos_sin_eighth_f32(self, d);
        let quarter = |i: usize| match q[i] as i32 & 3 {
            0 => (cos[i], sin[i]),
            1 => (-sin[i], cos[i]),
            2 => (-cos[i], -sin[i]),
            _ => (sin[i], -cos[i]),
        };
        (from_fn(|i| quarter(i).0), from_fn(|i| quarter(i).1))
    }
}

impl Simd for PortableF64 {
    lanewise!(f64);
    const ANCHORED: bool = false;
    const FEW_REGISTERS: bool = true;
    const NEGLIGIBLE_EXPONENT: f64 = -200.0;

    #[inline(always)]
    fn widen(self, v: [f64; L]) -> [[f64; L]; 2] {
        [v, [0.0; L]]
    }
    #[inline(always)]
    fn narrow(self, v: [[f64; L]; 2]) -> [f64; L] {
        v[0]
    }
    #[inline(always)]
    fn floor_power_of_two(self, t: [f64; L]) -> [f64; L] {
        t.map(|t| f64::from_bits(((t.floor() as i64 + 1023) as u64) << 52))
    }
    #[inline(always)]
    fn exp2(self, t: [f64; L]) -> [f64; L] {
        // Adding 1.5 * 2^52 rounds to a whole number and leaves it in the low bits.
        const ROUND: f64 = 6_755_399_441_055_744.0;
        let shifted = t.map(|t| t + ROUND);
        let r: [f64; L] = from_fn(|i| t[i] - (shifted[i] - ROUND));
        let mut p = self.splat(EXP2_HALF_F64[11]);
        for c in EXP2_HALF_F64[..11].iter().rev() {
            p = self.mul_add(p, r, self.splat(*c));
        }
        from_fn(|i| f64::from_bits(p[i].to_bits().wrapping_add(shifted[i].to_bits() << 52)))
    }
    #[inline(always)]
    fn ln(self, v: [f64; L]) -> [f64; L] {
        v.map(f64::ln)
    }
    #[inline(always)]
    fn ln_1p_unit(self, e: [f64; L]) -> [f64; L] {
        e.map(f64::ln_1p)
    }
}
