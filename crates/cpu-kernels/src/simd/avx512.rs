//! AVX-512 (foundation and doubleword/quadword) vectors.

use super::polynomial::*;
use super::{Kernel, NoiseSimd, Simd};
use core::arch::x86_64::*;
use infermark_processor::InstructionSet;

/// Sixteen `f32` lanes; exists only where all that `with_avx512` enables does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512F32(());

/// Eight `f64` lanes; exists only where all that `with_avx512` enables does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512F64(());

impl Avx512F32 {
    /// The token, if the CPU has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        InstructionSet::Avx512.is_available().then_some(Avx512F32(()))
    }
}

impl Avx512F64 {
    /// The token, if the CPU has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        Avx512F32::detect().map(|t| t.wide())
    }
}

/// Wraps an intrinsic: the token proves the instructions.
macro_rules! on {
    ($e:expr) => {
        // SAFETY: the token exists only where AVX-512F, AVX-512DQ, AVX2, FMA, BMI2 and POPCNT were detected, and the
        // intrinsic touches no memory.
        unsafe { $e }
    };
}

impl Avx512F32 {
    /// Adds the halves of `a` into the lower half, those of `b` into the upper one.
    #[inline(always)]
    fn join_halves(self, a: __m512, b: __m512) -> __m512 {
        let kept = on!(_mm512_mask_blend_ps(0xff00, a, b));
        let moved = on!(_mm512_shuffle_f32x4::<0b01_00_11_10>(a, b));
        self.add(kept, moved)
    }
    /// In each half, adds the quarters of `a` into the lower quarter, those of `b` into the upper one.
    #[inline(always)]
    fn join_quarters(self, a: __m512, b: __m512) -> __m512 {
        let kept = on!(_mm512_mask_blend_ps(0xf0f0, a, b));
        let mixed = on!(_mm512_mask_blend_ps(0xf0f0, b, a));
        let moved = on!(_mm512_shuffle_f32x4::<0b10_11_00_01>(mixed, mixed));
        self.add(kept, moved)
    }
    /// In each quarter, adds the pairs of `a` into the lower pair, those of `b` into the upper one.
    #[inline(always)]
    fn join_eighths(self, a: __m512, b: __m512) -> __m512 {
        let kept = on!(_mm512_mask_blend_ps(0xcccc, a, b));
        let moved = on!(_mm512_shuffle_ps::<0b01_00_11_10>(a, b));
        self.add(kept, moved)
    }
    /// In each pair, adds the lanes of `a` into the lower lane, those of `b` into the upper one.
    #[inline(always)]
    fn join_lanes(self, a: __m512, b: __m512) -> __m512 {
        let even = on!(_mm512_mask_blend_ps(0xaaaa, a, _mm512_moveldup_ps(b)));
        let odd = on!(_mm512_mask_blend_ps(0xaaaa, _mm512_movehdup_ps(a), b));
        self.add(even, odd)
    }
    /// Two levels at once: quarters 0 to 3 add up the quarters of `a`, `b`, `c` and `d`, in the order a, c, b, d.
    #[inline(always)]
    fn join_four(self, a: __m512, b: __m512, c: __m512, d: __m512) -> __m512 {
        self.join_quarters(self.join_halves(a, b), self.join_halves(c, d))
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx2,fma,bmi2,popcnt")]
#[inline(never)]
fn with_avx512<I, K: Kernel<I>>(isa: I, kernel: K) -> K::Output {
    kernel.run(isa)
}

impl Simd for Avx512F32 {
    type Scalar = f32;
    type V = __m512;
    type Wide = Avx512F64;
    type Noise = Self;
    const LANES: usize = 16;
    const ANCHORED: bool = true;
    const FEW_REGISTERS: bool = false;
    const NEGLIGIBLE_EXPONENT: f64 = -80.0;

    #[inline(always)]
    fn wide(self) -> Avx512F64 {
        Avx512F64(())
    }
    #[inline(always)]
    fn noise(self) -> Self {
        self
    }
    #[inline(always)]
    fn vectorize<K: Kernel<Self>>(self, kernel: K) -> K::Output {
        // SAFETY: the token proves AVX-512F, AVX-512DQ, AVX2, FMA, BMI2 and POPCNT, which is what the function enables.
        unsafe { with_avx512(self, kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        on!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> __m512 {
        assert!(from.len() >= 16);
        // SAFETY: sixteen entries are there; the load is unaligned; the token proves the instructions.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_single(self, from: &[f32]) -> __m512 {
        self.load(from)
    }
    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32]) {
        assert!(to.len() >= 16);
        // SAFETY: sixteen entries are there; the store is unaligned; the token proves the instructions.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn expand_units(self, units: &[u32], lanes: u32) -> __m512 {
        assert!(units.len() >= (lanes & 0xffff).count_ones() as usize);
        // SAFETY: the expanding load touches as many entries as bits are set, and so many are there; the token
        // proves the instructions.
        unsafe {
            _mm512_cvtepu32_ps(_mm512_maskz_expandloadu_epi32(
                lanes as __mmask16,
                units.as_ptr().cast(),
            ))
        }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        on!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        on!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        on!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // The divider takes 16 cycles a vector; an estimate good to 2^-14 and one Newton step take four. The last
        // step makes up for what the estimate of 1/b leaves in the quotient.
        on!({
            let estimate = _mm512_rcp14_ps(b);
            let error = _mm512_fnmadd_ps(b, estimate, _mm512_set1_ps(1.0));
            let reciprocal = _mm512_fmadd_ps(estimate, error, estimate);
            let quotient = _mm512_mul_ps(a, reciprocal);
            _mm512_fmadd_ps(_mm512_fnmadd_ps(b, quotient, a), reciprocal, quotient)
        })
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        on!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        on!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        on!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        // As in `div`: an estimate of 1/sqrt and one Newton step on the root, instead of 20 cycles.
        on!({
            let a = _mm512_max_ps(a, _mm512_set1_ps(1e-36));
            let estimate = _mm512_rsqrt14_ps(a);
            let root = _mm512_mul_ps(a, estimate);
            let half = _mm512_mul_ps(estimate, _mm512_set1_ps(0.5));
            let error = _mm512_fnmadd_ps(root, half, _mm512_set1_ps(0.5));
            _mm512_fmadd_ps(root, error, root)
        })
    }
    #[inline(always)]
    fn keep(self, v: __m512, lanes: u32) -> __m512 {
        on!(_mm512_maskz_mov_ps(lanes as __mmask16, v))
    }
    #[inline(always)]
    fn select(self, lanes: u32, a: __m512, b: __m512) -> __m512 {
        on!(_mm512_mask_blend_ps(lanes as __mmask16, b, a))
    }
    #[inline(always)]
    fn equal(self, a: __m512, b: __m512) -> u32 {
        on!(u32::from(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b)))
    }
    #[inline(always)]
    fn floor_power_of_two(self, t: __m512) -> __m512 {
        on!(_mm512_scalef_ps(_mm512_set1_ps(1.0), t))
    }
    #[inline(always)]
    fn exp2(self, t: __m512) -> __m512 {
        // `scalef` multiplies by 2^floor(t), so the polynomial covers t - floor(t).
        let r = on!(_mm512_reduce_ps::<0x01>(t));
        let mut p = self.splat(EXP2_UNIT_F32[5]);
        for c in EXP2_UNIT_F32[..5].iter().rev() {
            p = self.mul_add(p, r, self.splat(*c));
        }
        on!(_mm512_scalef_ps(p, t))
    }
    #[inline(always)]
    fn ln(self, v: __m512) -> __m512 {
        // Mantissa in [3/4, 3/2), so that values near 1 have exponent 0 and lose nothing.
        let m = on!(_mm512_getmant_ps::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_ZERO>(v));
        let high = on!(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(m, _mm512_set1_ps(1.5)));
        let m = on!(_mm512_mask_mul_ps(m, high, m, _mm512_set1_ps(0.5)));
        let e = on!(_mm512_getexp_ps(v));
        let e = on!(_mm512_mask_add_ps(e, high, e, _mm512_set1_ps(1.0)));
        ln_of_parts_f32(self, m, e)
    }
    #[inline(always)]
    fn widen(self, v: __m512) -> [__m512d; 2] {
        on!({
            let upper = _mm512_extractf32x8_ps::<1>(v);
            [_mm512_cvtps_pd(_mm512_castps512_ps256(v)), _mm512_cvtps_pd(upper)]
        })
    }
    #[inline(always)]
    fn narrow(self, v: [__m512d; 2]) -> __m512 {
        on!({
            let lower = _mm512_castps256_ps512(_mm512_cvtpd_ps(v[0]));
            _mm512_insertf32x8::<1>(lower, _mm512_cvtpd_ps(v[1]))
        })
    }
    #[inline(always)]
    fn ln_1p_unit(self, e: __m512) -> __m512 {
        ln_1p_unit_f32(self, e)
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        on!(_mm512_reduce_add_ps(v))
    }
    #[inline(always)]
    fn sums(self, v: &[__m512]) -> __m512 {
        assert!(v.len() >= 16);
        // Halving tree: at each level a few shuffles bring the halves of two vectors together, so sixteen sums cost
        // fifteen joins instead of sixty-four shuffles. The order of the inputs puts each sum into its lane.
        let a = self.join_four(v[0], v[8], v[4], v[12]);
        let b = self.join_four(v[2], v[10], v[6], v[14]);
        let c = self.join_four(v[1], v[9], v[5], v[13]);
        let d = self.join_four(v[3], v[11], v[7], v[15]);
        let (a, c) = (self.join_eighths(a, b), self.join_eighths(c, d));
        self.join_lanes(a, c)
    }
    #[inline(always)]
    fn store_noise(self, normals: __m512, to: &mut [f32]) {
        self.store(normals, to);
    }
}

/// Sixteen words as two vectors of 64-bit lanes: words 0, 2, .. and words 1, 3, .. in the lower halves; the upper
/// halves hold anything. Products of 32-bit words come in this form, and the multiplier ignores the upper halves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    even: __m512i,
    odd: __m512i,
}

impl Words {
    /// The words side by side.
    #[inline(always)]
    fn joined(self, _: Avx512F32) -> __m512i {
        on!({
            let order = _mm512_set_epi32(30, 14, 28, 12, 26, 10, 24, 8, 22, 6, 20, 4, 18, 2, 16, 0);
            _mm512_permutex2var_epi32(self.even, order, self.odd)
        })
    }
}

impl NoiseSimd for Avx512F32 {
    type U = Words;

    #[inline(always)]
    fn splat_words(self, x: u32) -> Words {
        let v = on!(_mm512_set1_epi32(x as i32));
        Words { even: v, odd: v }
    }
    #[inline(always)]
    fn load_words(self, from: &[u32]) -> Words {
        assert!(from.len() >= 16);
        // SAFETY: sixteen entries are there; the load is unaligned; the token proves the instructions.
        let v = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
        Words {
            even: v,
            odd: on!(_mm512_srli_epi64::<32>(v)),
        }
    }
    #[inline(always)]
    fn mul_wide(self, a: Words, m: u32) -> (Words, Words) {
        on!({
            let m = _mm512_set1_epi32(m as i32);
            let (even, odd) = (_mm512_mul_epu32(a.even, m), _mm512_mul_epu32(a.odd, m));
            let high = Words {
                even: _mm512_srli_epi64::<32>(even),
                odd: _mm512_srli_epi64::<32>(odd),
            };
            (high, Words { even, odd })
        })
    }
    #[inline(always)]
    fn xor3(self, a: Words, b: Words, c: Words) -> Words {
        on!(Words {
            even: _mm512_ternarylogic_epi32::<0x96>(a.even, b.even, c.even),
            odd: _mm512_ternarylogic_epi32::<0x96>(a.odd, b.odd, c.odd),
        })
    }
    #[inline(always)]
    fn open_unit(self, w: Words) -> __m512 {
        let w = on!(_mm512_cvtepu32_ps(w.joined(self)));
        self.mul_add(w, self.splat(2f32.powi(-32)), self.splat(2f32.powi(-33)))
    }
    #[inline(always)]
    fn turn(self, w: Words) -> __m512 {
        let w = on!(_mm512_cvtepi32_ps(_mm512_srli_epi32::<8>(w.joined(self))));
        self.mul(w, self.splat(2f32.powi(-24)))
    }
    #[inline(always)]
    fn cos_sin_turn(self, r: __m512) -> (__m512, __m512) {
        // r = q / 4 + d with |d| <= 1/8; a quarter turn swaps and negates.
        let q = on!(_mm512_roundscale_ps::<0x20>(r));
        let d = self.sub(r, q);
        let quadrant = on!(_mm512_cvtps_epi32(self.mul(q, self.splat(4.0))));
        let (cos, sin) = cos_sin_eighth_f32(self, d);
        let odd = on!(_mm512_test_epi32_mask(quadrant, _mm512_set1_epi32(1)));
        let cos_of_turn = self.select(u32::from(odd), sin, cos);
        let sin_of_turn = self.select(u32::from(odd), cos, sin);
        // The cosine is negative in quadrants 1 and 2, the sine in 2 and 3.
        let two = on!(_mm512_set1_epi32(2));
        let next = on!(_mm512_add_epi32(quadrant, _mm512_set1_epi32(1)));
        let cos_sign = on!(_mm512_slli_epi32::<30>(_mm512_and_si512(next, two)));
        let sin_sign = on!(_mm512_slli_epi32::<30>(_mm512_and_si512(quadrant, two)));
        on!((
            _mm512_xor_ps(cos_of_turn, _mm512_castsi512_ps(cos_sign)),
            _mm512_xor_ps(sin_of_turn, _mm512_castsi512_ps(sin_sign))
        ))
    }
}

impl Simd for Avx512F64 {
    type Scalar = f64;
    type V = __m512d;
    type Wide = Self;
    type Noise = Avx512F32;
    const LANES: usize = 8;
    const ANCHORED: bool = false;
    const FEW_REGISTERS: bool = false;
    const NEGLIGIBLE_EXPONENT: f64 = -200.0;

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn noise(self) -> Avx512F32 {
        Avx512F32(())
    }
    #[inline(always)]
    fn vectorize<K: Kernel<Self>>(self, kernel: K) -> K::Output {
        // SAFETY: the token proves AVX-512F, AVX-512DQ, AVX2, FMA, BMI2 and POPCNT, which is what the function enables.
        unsafe { with_avx512(self, kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f64) -> __m512d {
        on!(_mm512_set1_pd(x))
    }
    #[inline(always)]
    fn load(self, from: &[f64]) -> __m512d {
        assert!(from.len() >= 8);
        // SAFETY: eight entries are there; the load is unaligned; the token proves the instructions.
        unsafe { _mm512_loadu_pd(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_single(self, from: &[f32]) -> __m512d {
        assert!(from.len() >= 8);
        // SAFETY: eight entries are there; the load is unaligned; the token proves the instructions.
        unsafe { _mm512_cvtps_pd(_mm256_loadu_ps(from.as_ptr())) }
    }
    #[inline(always)]
    fn store(self, v: __m512d, to: &mut [f64]) {
        assert!(to.len() >= 8);
        // SAFETY: eight entries are there; the store is unaligned; the token proves the instructions.
        unsafe { _mm512_storeu_pd(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn expand_units(self, units: &[u32], lanes: u32) -> __m512d {
        let lanes = lanes & 0xff;
        assert!(units.len() >= lanes.count_ones() as usize);
        // SAFETY: as for the single-precision token.
        unsafe {
            let units = _mm512_maskz_expandloadu_epi32(lanes as __mmask16, units.as_ptr().cast());
            _mm512_cvtepu32_pd(_mm512_castsi512_si256(units))
        }
    }
    #[inline(always)]
    fn add(self, a: __m512d, b: __m512d) -> __m512d {
        on!(_mm512_add_pd(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512d, b: __m512d) -> __m512d {
        on!(_mm512_sub_pd(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512d, b: __m512d) -> __m512d {
        on!(_mm512_mul_pd(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512d, b: __m512d) -> __m512d {
        on!(_mm512_div_pd(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m512d, b: __m512d, c: __m512d) -> __m512d {
        on!(_mm512_fmadd_pd(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: __m512d, b: __m512d) -> __m512d {
        on!(_mm512_min_pd(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m512d, b: __m512d) -> __m512d {
        on!(_mm512_max_pd(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: __m512d) -> __m512d {
        on!(_mm512_sqrt_pd(a))
    }
    #[inline(always)]
    fn keep(self, v: __m512d, lanes: u32) -> __m512d {
        on!(_mm512_maskz_mov_pd(lanes as __mmask8, v))
    }
    #[inline(always)]
    fn select(self, lanes: u32, a: __m512d, b: __m512d) -> __m512d {
        on!(_mm512_mask_blend_pd(lanes as __mmask8, b, a))
    }
    #[inline(always)]
    fn equal(self, a: __m512d, b: __m512d) -> u32 {
        on!(u32::from(_mm512_cmp_pd_mask::<_CMP_EQ_OQ>(a, b)))
    }
    #[inline(always)]
    fn floor_power_of_two(self, t: __m512d) -> __m512d {
        on!(_mm512_scalef_pd(_mm512_set1_pd(1.0), t))
    }
    #[inline(always)]
    fn exp2(self, t: __m512d) -> __m512d {
        let n = on!(_mm512_roundscale_pd::<0x00>(t));
        let r = self.sub(t, n);
        let mut p = self.splat(EXP2_HALF_F64[11]);
        for c in EXP2_HALF_F64[..11].iter().rev() {
            p = self.mul_add(p, r, self.splat(*c));
        }
        on!(_mm512_scalef_pd(p, n))
    }
    #[inline(always)]
    fn ln(self, v: __m512d) -> __m512d {
        let mut lanes = [0.0; 8];
        self.store(v, &mut lanes);
        self.load(&lanes.map(f64::ln))
    }
    #[inline(always)]
    fn widen(self, v: __m512d) -> [__m512d; 2] {
        [v, self.zero()]
    }
    #[inline(always)]
    fn narrow(self, v: [__m512d; 2]) -> __m512d {
        v[0]
    }
    #[inline(always)]
    fn ln_1p_unit(self, e: __m512d) -> __m512d {
        let mut lanes = [0.0; 8];
        self.store(e, &mut lanes);
        self.load(&lanes.map(f64::ln_1p))
    }
    #[inline(always)]
    fn sum(self, v: __m512d) -> f64 {
        on!(_mm512_reduce_add_pd(v))
    }
    #[inline(always)]
    fn store_noise(self, normals: __m512, to: &mut [f64]) {
        let [lower, upper] = self.noise().widen(normals);
        self.store(lower, to);
        self.store(upper, &mut to[8..]);
    }
}
