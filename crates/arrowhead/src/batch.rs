//! Products whose couplings are gathered and multiplied together.

use crate::factor::ArrowheadFactor;
use crate::grid::Grid;
use crate::product::{Lower2, write_coupling};
use crate::tiles::Packed;
use crate::walk::{GATHERED, Walk};
use infermark_cpu_kernels::Simd;

/// Room for the couplings of at most [`GATHERED`] products.
pub(crate) struct Batch {
    pub(crate) grid: Grid,
    /// `V` of the product of number k in columns 2k and 2k + 1.
    pub(crate) v: Packed,
    /// The same times a matrix.
    pub(crate) moved: Packed,
}

impl Batch {
    pub(crate) fn new<I: Simd<Scalar = f64>>(walk: &Walk) -> Self {
        Batch {
            grid: Grid::new::<I>(&walk.panel),
            v: Packed::new::<I>(walk.border() + 1, 2 * GATHERED),
            moved: Packed::new::<I>(walk.border() + 1, 2 * GATHERED),
        }
    }

    /// Takes the rows of the product at a place, with their weights.
    #[inline(always)]
    pub(crate) fn load<I: Simd<Scalar = f64>>(&mut self, isa: I, factor: &ArrowheadFactor, place: usize) {
        let walk = &*factor.walk;
        self.grid.load_place(isa, walk, place);
        self.grid
            .load_weights(&factor.weights[walk.row_start[place]..walk.row_start[place + 1]]);
    }

    /// Covariances of elasticity and effect of the product of number k, `lower` the factor of its block, with the period effects from a multiple of
    /// the lanes on, where the couplings were multiplied with the covariance of the border: `-L^-T V C`.
    #[inline(always)]
    pub(crate) fn with_periods<I: Simd<Scalar = f64>>(
        moved: &Packed,
        isa: I,
        lower: &Lower2,
        k: usize,
    ) -> impl Fn(usize) -> [I::V; 2] {
        let (over_aa, over_ee) = (isa.splat(-1.0 / lower.aa), isa.splat(-1.0 / lower.ee));
        let slope = isa.splat(lower.ea / lower.aa);
        move |t| {
            let [by_a, by_e] =
                [2 * k, 2 * k + 1].map(|column| isa.load(&moved.values[moved.place(t, column)..]));
            let by_e = isa.mul(by_e, over_ee);
            [isa.sub(isa.mul(by_a, over_aa), isa.mul(slope, by_e)), by_e]
        }
    }

    /// Writes the couplings of the products at the places.
    #[inline(always)]
    pub(crate) fn couple<I: Simd<Scalar = f64>>(
        &mut self,
        isa: I,
        factor: &ArrowheadFactor,
        places: &[usize],
    ) {
        let periods = factor.walk.layout.periods;
        for (k, place) in places.iter().enumerate() {
            self.load(isa, factor, *place);
            let shape = factor.shapes.get(*place).copied();
            let lower = &factor.products[*place];
            let into = (&mut self.v, k, periods);
            write_coupling(isa, &self.grid, lower, &factor.priors, shape, [0.0; 2], into);
        }
    }
}
