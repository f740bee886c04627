//! A product's block: its 2 x 2 precision and its coupling to the border.

use crate::grid::Grid;
use crate::tiles::Packed;
use infermark_cpu_kernels::Simd;
use infermark_model::priors::Priors;

/// Cholesky factor of a product's block `H = [[h_aa, h_ae], [h_ae, h_ee]]` over (elasticity, effect): lower triangle.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Lower2 {
    pub(crate) aa: f64,
    pub(crate) ea: f64,
    pub(crate) ee: f64,
}

impl Lower2 {
    /// `None` where the block is not positive definite, or not finite.
    #[inline(always)]
    pub(crate) fn of(h_aa: f64, h_ae: f64, h_ee: f64) -> Option<Self> {
        let aa = h_aa.sqrt();
        let ea = h_ae / aa;
        let ee = (h_ee - ea * ea).sqrt();
        (aa > 0.0 && ee > 0.0 && aa.is_finite() && ee.is_finite()).then_some(Lower2 { aa, ea, ee })
    }

    /// `L^-1 b`.
    #[inline(always)]
    pub(crate) fn forward(&self, [a, e]: [f64; 2]) -> [f64; 2] {
        let a = a / self.aa;
        [a, (e - self.ea * a) / self.ee]
    }

    /// `L^-T y`.
    #[inline(always)]
    pub(crate) fn backward(&self, [a, e]: [f64; 2]) -> [f64; 2] {
        let e = e / self.ee;
        [(a - self.ea * e) / self.aa, e]
    }

    /// `L' x`.
    pub(crate) fn transpose_times(&self, [a, e]: [f64; 2]) -> [f64; 2] {
        [self.aa * a + self.ea * e, self.ee * e]
    }

    /// `ln det L`.
    pub(crate) fn ln_det(&self) -> f64 {
        self.aa.ln() + self.ee.ln()
    }

    /// The entry of the block beside its diagonal.
    pub(crate) fn coupling(&self) -> f64 {
        self.aa * self.ea
    }

    /// The diagonal of the block.
    pub(crate) fn diagonal(&self) -> [f64; 2] {
        [self.aa * self.aa, self.ea * self.ea + self.ee * self.ee]
    }
}

/// The factor of the block of the product whose rows and weights the grid has, and what the product tells of its category's
/// elasticity: with `k` what its rows and the prior of its effect tell of its own elasticity and `q` the precision of that about the
/// category's, `q - q^2 [H^-1]_aa = q k / (q + k)`, which is `k` where `q` is so large that the difference is lost.
#[inline(always)]
pub(crate) fn block<I: Simd<Scalar = f64>>(isa: I, grid: &Grid, priors: &Priors) -> Option<(Lower2, f64)> {
    let mut sums = [isa.zero(); 3];
    let rows = grid
        .weights
        .chunks_exact(I::LANES)
        .zip(grid.log_price.chunks_exact(I::LANES));
    for (w, x) in rows {
        let (w, x) = (isa.load(w), isa.load(x));
        let wx = isa.mul(w, x);
        sums[0] = isa.add(sums[0], w);
        sums[1] = isa.add(sums[1], wx);
        sums[2] = isa.mul_add(wx, x, sums[2]);
    }
    let [w, wx, wxx] = sums.map(|s| isa.sum(s));
    let precision = priors.product_a_sd.powi(-2);
    let h_ee = w + priors.product_effect_sd.powi(-2);
    let own = (wxx - wx * (wx / h_ee)).max(0.0);
    let lower = Lower2::of(wxx + precision, wx, h_ee)?;
    Some((lower, own / (1.0 + own / precision)))
}

/// The product's coupling to the log shape of its category: of its elasticity, of its effect.
#[inline(always)]
pub(crate) fn shape_coupling(grid: &Grid) -> [f64; 2] {
    let by_a = grid.cross.iter().zip(&grid.log_price).map(|(c, x)| c * x).sum();
    [by_a, grid.cross.iter().sum()]
}

/// Writes `V = L^-1 B` of the product that the grid has into columns 2k and 2k + 1: its periods, its category's log shape
/// where there is one, the category's elasticity, then `rhs`.
#[inline(always)]
pub(crate) fn write_coupling<I: Simd<Scalar = f64>>(
    isa: I,
    grid: &Grid,
    lower: &Lower2,
    priors: &Priors,
    shape: Option<[f64; 2]>,
    rhs: [f64; 2],
    (v, k, periods): (&mut Packed, usize, usize),
) {
    let over_aa = isa.splat(1.0 / lower.aa);
    let over_ee = isa.splat(1.0 / lower.ee);
    let slope = isa.splat(-lower.ea);
    for t in (0..grid.weights.len()).step_by(I::LANES) {
        let (w, x) = (isa.load(&grid.weights[t..]), isa.load(&grid.log_price[t..]));
        let by_a = isa.mul(isa.mul(w, x), over_aa);
        let by_e = isa.mul(isa.mul_add(slope, by_a, w), over_ee);
        let (at_a, at_e) = (v.place(t, 2 * k), v.place(t, 2 * k + 1));
        isa.store(by_a, &mut v.values[at_a..]);
        isa.store(by_e, &mut v.values[at_e..]);
    }
    let category_a = [-priors.product_a_sd.powi(-2), 0.0];
    let behind = [shape, Some(category_a)]
        .into_iter()
        .flatten()
        .map(|b| lower.forward(b));
    for (t, [a, e]) in behind.chain([rhs]).enumerate() {
        *v.at(periods + t, 2 * k) = a;
        *v.at(periods + t, 2 * k + 1) = e;
    }
}

/// `V C V'` of the product in columns 2k and 2k + 1, `y` being `C V'`: entries aa, ae, ee.
#[inline(always)]
pub(crate) fn inner<I: Simd<Scalar = f64>>(isa: I, v: &Packed, y: &Packed, k: usize) -> [f64; 3] {
    let tile = crate::tiles::tile_rows::<I>();
    let mut sums = [isa.zero(); 3];
    for start in (0..v.rows).step_by(tile) {
        let (a, e) = (v.place(start, 2 * k), v.place(start, 2 * k + 1));
        for at in (0..tile).step_by(I::LANES) {
            let (va, ve) = (isa.load(&v.values[a + at..]), isa.load(&v.values[e + at..]));
            let (ya, ye) = (isa.load(&y.values[a + at..]), isa.load(&y.values[e + at..]));
            sums[0] = isa.mul_add(va, ya, sums[0]);
            sums[1] = isa.mul_add(va, ye, sums[1]);
            sums[2] = isa.mul_add(ve, ye, sums[2]);
        }
    }
    sums.map(|s| isa.sum(s))
}

/// Covariance of a product's pair, `L^-T (I + V C V') L^-1`: of the elasticity, of both, of the effect.
#[inline(always)]
pub(crate) fn pair_covariance(lower: &Lower2, [aa, ae, ee]: [f64; 3]) -> [f64; 3] {
    let first = lower.backward([1.0 + aa, ae]);
    let second = lower.backward([ae, 1.0 + ee]);
    let [elasticity, covariance] = lower.backward([first[0], second[0]]);
    let [_, effect] = lower.backward([first[1], second[1]]);
    [elasticity, covariance, effect]
}

/// Half of the variance of every row's log rate: with `[u, s] = L^-1 [x, 1]`, `C` the covariance of the border and `M = V C V'`,
/// `var = [u, s] (I + M) [u, s]' - 2 [u, s] V C e_t + C_tt`.
#[inline(always)]
pub(crate) fn half_variances<I: Simd<Scalar = f64>>(
    isa: I,
    grid: &mut Grid,
    lower: &Lower2,
    [aa, ae, ee]: [f64; 3],
    (k, moved): (usize, &Packed),
    of_periods: &[f64],
) {
    let over_aa = isa.splat(1.0 / lower.aa);
    let over_ee = isa.splat(1.0 / lower.ee);
    let slope = isa.splat(-lower.ea);
    let (aa, ae, ee) = (
        isa.splat(0.5 * (1.0 + aa)),
        isa.splat(ae),
        isa.splat(0.5 * (1.0 + ee)),
    );
    let (one, zero) = (isa.splat(1.0), isa.zero());
    for t in (0..of_periods.len()).step_by(I::LANES) {
        let u = isa.mul(isa.load(&grid.log_price[t..]), over_aa);
        let s = isa.mul(isa.mul_add(slope, u, one), over_ee);
        let ya = isa.load(&moved.values[moved.place(t, 2 * k)..]);
        let ye = isa.load(&moved.values[moved.place(t, 2 * k + 1)..]);
        let by_u = isa.sub(isa.mul_add(ae, s, isa.mul(aa, u)), ya);
        let by_s = isa.sub(isa.mul(ee, s), ye);
        let half = isa.mul_add(u, by_u, isa.mul_add(s, by_s, isa.load(&of_periods[t..])));
        // Rounding can leave a little less than nothing.
        isa.store(isa.max(half, zero), &mut grid.half_variance[t..]);
    }
}
