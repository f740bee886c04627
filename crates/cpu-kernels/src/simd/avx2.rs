//! AVX2 with FMA vectors.

use super::polynomial::*;
use super::{Kernel, NoiseSimd, Simd};
use core::arch::x86_64::*;
use infermark_processor::InstructionSet;
use std::sync::LazyLock;

/// Eight `f32` lanes; exists only where AVX2 and FMA do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2F32(());

/// Four `f64` lanes; exists only where AVX2 and FMA do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2F64(());

impl Avx2F32 {
    /// The token, if the CPU has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        InstructionSet::Avx2.is_available().then_some(Avx2F32(()))
    }
}

impl Avx2F64 {
    /// The token, if the CPU has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        Avx2F32::detect().map(|t| t.wide())
    }
}

#[target_feature(enable = "avx2,fma")]
#[inline(never)]
fn with_avx2<I, K: Kernel<I>>(isa: I, kernel: K) -> K::Output {
    kernel.run(isa)
}

/// Wraps an intrinsic: the token proves the instructions.
macro_rules! on {
    ($e:expr) => {
        // SAFETY: the token exists only where AVX2 and FMA were detected, and the intrinsic touches no memory.
        unsafe { $e }
    };
}

/// For each set of eight lanes, which entry of a compact vector goes to each lane.
static SPREAD: LazyLock<[[u32; 8]; 256]> = LazyLock::new(|| {
    let mut table = [[0; 8]; 256];
    for (lanes, entry) in table.iter_mut().enumerate() {
        let mut next = 0;
        for (lane, index) in entry.iter_mut().enumerate() {
            *index = next;
            next += (lanes >> lane & 1) as u32;
        }
    }
    table
});

/// The first eight entries, or as many as there are with zeros behind them.
#[inline(always)]
fn eight<T: Copy + Default>(from: &[T]) -> [T; 8] {
    match from.first_chunk::<8>() {
        Some(chunk) => *chunk,
        None => {
            let mut lanes = [T::default(); 8];
            lanes[..from.len()].copy_from_slice(from);
            lanes
        }
    }
}

impl Avx2F32 {
    /// Lanes of the mask as all-ones lanes.
    #[inline(always)]
    fn mask(self, lanes: u32) -> __m256 {
        on!({
            let bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let set = _mm256_and_si256(_mm256_set1_epi32(lanes as i32), bit);
            _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, bit))
        })
    }
    #[inline(always)]
    fn spread(self, v: __m256, lanes: u32) -> __m256 {
        let index = &SPREAD[(lanes & 0xff) as usize];
        // SAFETY: the table's entry has eight words; the load is unaligned; the token proves the instructions.
        let index = unsafe { _mm256_loadu_si256(index.as_ptr().cast()) };
        self.keep(on!(_mm256_permutevar8x32_ps(v, index)), lanes)
    }
}

impl Simd for Avx2F32 {
    type Scalar = f32;
    type V = __m256;
    type Wide = Avx2F64;
    type Noise = Self;
    const LANES: usize = 8;
    const ANCHORED: bool = true;
    const FEW_REGISTERS: bool = true;
    const NEGLIGIBLE_EXPONENT: f64 = -80.0;

    #[inline(always)]
    fn wide(self) -> Avx2F64 {
        Avx2F64(())
    }
    #[inline(always)]
    fn noise(self) -> Self {
        self
    }
    #[inline(always)]
    fn vectorize<K: Kernel<Self>>(self, kernel: K) -> K::Output {
        // SAFETY: the token proves AVX2 and FMA, which is what the function enables.
        unsafe { with_avx2(self, kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        on!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        assert!(from.len() >= 8);
        // SAFETY: eight entries are there; the load is unaligned; the token proves the instructions.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_single(self, from: &[f32]) -> __m256 {
        self.load(from)
    }
    #[inline(always)]
    fn store(self, v: __m256, to: &mut [f32]) {
        assert!(to.len() >= 8);
        // SAFETY: eight entries are there; the store is unaligned; the token proves the instructions.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn expand_units(self, units: &[u32], lanes: u32) -> __m256 {
        let v = self.load(&eight(units).map(|y| y as f32));
        self.spread(v, lanes)
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        on!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        on!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        on!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        on!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        on!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        on!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        on!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        on!(_mm256_sqrt_ps(a))
    }
    #[inline(always)]
    fn keep(self, v: __m256, lanes: u32) -> __m256 {
        on!(_mm256_and_ps(v, self.mask(lanes)))
    }
    #[inline(always)]
    fn select(self, lanes: u32, a: __m256, b: __m256) -> __m256 {
        on!(_mm256_blendv_ps(b, a, self.mask(lanes)))
    }
    #[inline(always)]
    fn equal(self, a: __m256, b: __m256) -> u32 {
        on!(_mm256_movemask_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(a, b)) as u32)
    }
    #[inline(always)]
    fn floor_power_of_two(self, t: __m256) -> __m256 {
        on!({
            let exponent = _mm256_cvtps_epi32(_mm256_floor_ps(t));
            let biased = _mm256_add_epi32(exponent, _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    fn exp2(self, t: __m256) -> __m256 {
        // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits.
        let round = self.splat(12_582_912.0);
        let shifted = self.add(t, round);
        let r = self.sub(t, self.sub(shifted, round));
        let mut p = self.splat(EXP2_HALF_F32[5]);
        for c in EXP2_HALF_F32[..5].iter().rev() {
            p = self.mul_add(p, r, self.splat(*c));
        }
        on!({
            let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), n))
        })
    }
    #[inline(always)]
    fn ln(self, v: __m256) -> __m256 {
        // Exponent such that the mantissa lies in [3/4, 3/2).
        let (m, e) = on!({
            let bits = _mm256_castps_si256(v);
            let offset = _mm256_sub_epi32(bits, _mm256_set1_epi32(0x3f40_0000));
            let offset = _mm256_and_si256(offset, _mm256_set1_epi32(0xff80_0000_u32 as i32));
            let m = _mm256_castsi256_ps(_mm256_sub_epi32(bits, offset));
            (m, _mm256_cvtepi32_ps(_mm256_srai_epi32::<23>(offset)))
        });
        ln_of_parts_f32(self, m, e)
    }
    #[inline(always)]
    fn widen(self, v: __m256) -> [__m256d; 2] {
        on!({
            let upper = _mm256_extractf128_ps::<1>(v);
            [_mm256_cvtps_pd(_mm256_castps256_ps128(v)), _mm256_cvtps_pd(upper)]
        })
    }
    #[inline(always)]
    fn narrow(self, v: [__m256d; 2]) -> __m256 {
        on!(_mm256_set_m128(_mm256_cvtpd_ps(v[1]), _mm256_cvtpd_ps(v[0])))
    }
    #[inline(always)]
    fn ln_1p_unit(self, e: __m256) -> __m256 {
        ln_1p_unit_f32(self, e)
    }
    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        on!({
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn store_noise(self, normals: __m256, to: &mut [f32]) {
        self.store(normals, to);
    }
}

impl NoiseSimd for Avx2F32 {
    type U = __m256i;

    #[inline(always)]
    fn splat_words(self, x: u32) -> __m256i {
        on!(_mm256_set1_epi32(x as i32))
    }
    #[inline(always)]
    fn load_words(self, from: &[u32]) -> __m256i {
        assert!(from.len() >= 8);
        // SAFETY: eight entries are there; the load is unaligned; the token proves the instructions.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn mul_wide(self, a: __m256i, m: u32) -> (__m256i, __m256i) {
        let m = self.splat_words(m);
        on!({
            let even = _mm256_mul_epu32(a, m);
            let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(a), m);
            let high = _mm256_blend_epi32::<0xaa>(_mm256_srli_epi64::<32>(even), odd);
            let low = _mm256_blend_epi32::<0xaa>(even, _mm256_slli_epi64::<32>(odd));
            (high, low)
        })
    }
    #[inline(always)]
    fn xor3(self, a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        on!(_mm256_xor_si256(_mm256_xor_si256(a, b), c))
    }
    #[inline(always)]
    fn open_unit(self, w: __m256i) -> __m256 {
        // There is no unsigned conversion: the halves convert exactly, and one fused step rounds once.
        let (high, low) = on!({
            let high = _mm256_cvtepi32_ps(_mm256_srli_epi32::<16>(w));
            (
                high,
                _mm256_cvtepi32_ps(_mm256_and_si256(w, _mm256_set1_epi32(0xffff))),
            )
        });
        let w = self.mul_add(high, self.splat(65_536.0), low);
        self.mul_add(w, self.splat(2f32.powi(-32)), self.splat(2f32.powi(-33)))
    }
    #[inline(always)]
    fn turn(self, w: __m256i) -> __m256 {
        let w = on!(_mm256_cvtepi32_ps(_mm256_srli_epi32::<8>(w)));
        self.mul(w, self.splat(2f32.powi(-24)))
    }
    #[inline(always)]
    fn cos_sin_turn(self, r: __m256) -> (__m256, __m256) {
        // r = q / 4 + d with |d| <= 1/8; a quarter turn swaps and negates.
        let q = on!(
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
                r,
                _mm256_set1_ps(4.0)
            ))
        );
        let d = self.sub(r, self.mul(q, self.splat(0.25)));
        let quadrant = on!(_mm256_cvtps_epi32(q));
        let (cos, sin) = cos_sin_eighth_f32(self, d);
        on!({
            let odd = _mm256_castsi256_ps(_mm256_slli_epi32::<31>(quadrant));
            let (c, s) = (_mm256_blendv_ps(cos, sin, odd), _mm256_blendv_ps(sin, cos, odd));
            // The cosine is negative in quadrants 1 and 2, the sine in 2 and 3.
            let two = _mm256_set1_epi32(2);
            let next = _mm256_add_epi32(quadrant, _mm256_set1_epi32(1));
            let sign_c = _mm256_castsi256_ps(_mm256_slli_epi32::<30>(_mm256_and_si256(next, two)));
            let sign_s = _mm256_castsi256_ps(_mm256_slli_epi32::<30>(_mm256_and_si256(quadrant, two)));
            (_mm256_xor_ps(c, sign_c), _mm256_xor_ps(s, sign_s))
        })
    }
}

impl Avx2F64 {
    /// Lanes of the mask as all-ones lanes.
    #[inline(always)]
    fn mask(self, lanes: u32) -> __m256d {
        on!({
            let bit = _mm256_setr_epi64x(1, 2, 4, 8);
            let set = _mm256_and_si256(_mm256_set1_epi64x(i64::from(lanes)), bit);
            _mm256_castsi256_pd(_mm256_cmpeq_epi64(set, bit))
        })
    }
    /// Spreads the first entries to the lanes of set bits.
    #[inline(always)]
    fn spread(self, from: &[f64; 8], lanes: u32) -> __m256d {
        let index = &SPREAD[(lanes & 0xf) as usize];
        let v = std::array::from_fn::<f64, 4, _>(|lane| from[(index[lane] & 7) as usize]);
        self.keep(self.load(&v), lanes)
    }
}

impl Simd for Avx2F64 {
    type Scalar = f64;
    type V = __m256d;
    type Wide = Self;
    type Noise = Avx2F32;
    const LANES: usize = 4;
    const ANCHORED: bool = false;
    const FEW_REGISTERS: bool = true;
    const NEGLIGIBLE_EXPONENT: f64 = -200.0;

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn noise(self) -> Avx2F32 {
        Avx2F32(())
    }
    #[inline(always)]
    fn vectorize<K: Kernel<Self>>(self, kernel: K) -> K::Output {
        // SAFETY: the token proves AVX2 and FMA, which is what the function enables.
        unsafe { with_avx2(self, kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f64) -> __m256d {
        on!(_mm256_set1_pd(x))
    }
    #[inline(always)]
    fn load(self, from: &[f64]) -> __m256d {
        assert!(from.len() >= 4);
        // SAFETY: four entries are there; the load is unaligned; the token proves the instructions.
        unsafe { _mm256_loadu_pd(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_single(self, from: &[f32]) -> __m256d {
        assert!(from.len() >= 4);
        // SAFETY: four entries are there; the load is unaligned; the token proves the instructions.
        unsafe { _mm256_cvtps_pd(_mm_loadu_ps(from.as_ptr())) }
    }
    #[inline(always)]
    fn store(self, v: __m256d, to: &mut [f64]) {
        assert!(to.len() >= 4);
        // SAFETY: four entries are there; the store is unaligned; the token proves the instructions.
        unsafe { _mm256_storeu_pd(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn expand_units(self, units: &[u32], lanes: u32) -> __m256d {
        self.spread(&eight(units).map(f64::from), lanes)
    }
    #[inline(always)]
    fn add(self, a: __m256d, b: __m256d) -> __m256d {
        on!(_mm256_add_pd(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256d, b: __m256d) -> __m256d {
        on!(_mm256_sub_pd(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256d, b: __m256d) -> __m256d {
        on!(_mm256_mul_pd(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256d, b: __m256d) -> __m256d {
        on!(_mm256_div_pd(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m256d, b: __m256d, c: __m256d) -> __m256d {
        on!(_mm256_fmadd_pd(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: __m256d, b: __m256d) -> __m256d {
        on!(_mm256_min_pd(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m256d, b: __m256d) -> __m256d {
        on!(_mm256_max_pd(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: __m256d) -> __m256d {
        on!(_mm256_sqrt_pd(a))
    }
    #[inline(always)]
    fn keep(self, v: __m256d, lanes: u32) -> __m256d {
        on!(_mm256_and_pd(v, self.mask(lanes)))
    }
    #[inline(always)]
    fn select(self, lanes: u32, a: __m256d, b: __m256d) -> __m256d {
        on!(_mm256_blendv_pd(b, a, self.mask(lanes)))
    }
    #[inline(always)]
    fn equal(self, a: __m256d, b: __m256d) -> u32 {
        on!(_mm256_movemask_pd(_mm256_cmp_pd::<_CMP_EQ_OQ>(a, b)) as u32)
    }
    #[inline(always)]
    fn floor_power_of_two(self, t: __m256d) -> __m256d {
        on!({
            let exponent = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(_mm256_floor_pd(t)));
            let biased = _mm256_add_epi64(exponent, _mm256_set1_epi64x(1023));
            _mm256_castsi256_pd(_mm256_slli_epi64::<52>(biased))
        })
    }
    #[inline(always)]
    fn exp2(self, t: __m256d) -> __m256d {
        // Adding 1.5 * 2^52 rounds to a whole number and leaves it in the low bits.
        let round = self.splat(6_755_399_441_055_744.0);
        let shifted = self.add(t, round);
        let r = self.sub(t, self.sub(shifted, round));
        let mut p = self.splat(EXP2_HALF_F64[11]);
        for c in EXP2_HALF_F64[..11].iter().rev() {
            p = self.mul_add(p, r, self.splat(*c));
        }
        on!({
            let n = _mm256_slli_epi64::<52>(_mm256_castpd_si256(shifted));
            _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(p), n))
        })
    }
    #[inline(always)]
    fn ln(self, v: __m256d) -> __m256d {
        let mut lanes = [0.0; 4];
        self.store(v, &mut lanes);
        self.load(&lanes.map(f64::ln))
    }
    #[inline(always)]
    fn widen(self, v: __m256d) -> [__m256d; 2] {
        [v, self.zero()]
    }
    #[inline(always)]
    fn narrow(self, v: [__m256d; 2]) -> __m256d {
        v[0]
    }
    #[inline(always)]
    fn ln_1p_unit(self, e: __m256d) -> __m256d {
        let mut lanes = [0.0; 4];
        self.store(e, &mut lanes);
        self.load(&lanes.map(f64::ln_1p))
    }
    #[inline(always)]
    fn sum(self, v: __m256d) -> f64 {
        on!({
            let v = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd::<1>(v));
            _mm_cvtsd_f64(_mm_add_sd(v, _mm_unpackhi_pd(v, v)))
        })
    }
    #[inline(always)]
    fn store_noise(self, normals: __m256, to: &mut [f64]) {
        let [lower, upper] = self.noise().widen(normals);
        self.store(lower, to);
        self.store(upper, &mut to[4..]);
    }
}
