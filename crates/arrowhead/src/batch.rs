//! Products whose couplings are gathered and multiplied together.

use crate::block::{BlockFactor, write_coupling};
use crate::factor::ArrowheadFactor;
use crate::grid::Grid;
use crate::partition::{GATHERED, Partition};
use crate::tiles::Packed;
use infermark_cpu_kernels::Simd;
use infermark_model::design::PRODUCT_LATENTS;

/// Room for the couplings of at most [`GATHERED`] products.
pub(crate) struct Batch<const D: usize> {
    pub(crate) grid: Grid<D>,
    /// `V` of product number k, in the columns from D k on.
    pub(crate) v: Packed,
    /// The same times a matrix.
    pub(crate) moved: Packed,
}

impl<const D: usize> Batch<D> {
    pub(crate) fn new<I: Simd<Scalar = f64>>(partition: &Partition<D>) -> Self {
        // With room for a right-hand side, and for the rows that the global coefficients add to a root.
        let rows = partition.border() + Partition::<D>::COEFFICIENTS.max(1);
        Batch {
            grid: Grid::new::<I>(&partition.panel),
            v: Packed::new::<I>(rows, D * GATHERED),
            moved: Packed::new::<I>(rows, D * GATHERED),
        }
    }

    /// Loads the rows of the product at a place, with their weights.
    #[inline(always)]
    pub(crate) fn load<I: Simd<Scalar = f64>>(&mut self, isa: I, factor: &ArrowheadFactor<D>, place: usize) {
        let partition = &*factor.partition;
        self.grid.load_place(isa, partition, place);
        factor.weights.load(isa, partition, place, &mut self.grid);
    }

    /// Writes the couplings of the products at the places.
    #[inline(always)]
    pub(crate) fn couple<I: Simd<Scalar = f64>>(
        &mut self,
        isa: I,
        factor: &ArrowheadFactor<D>,
        places: &[usize],
    ) {
        let periods = factor.partition.layout.periods;
        for (k, place) in places.iter().enumerate() {
            self.load(isa, factor, *place);
            let shape = factor.shapes.get(*place).copied();
            let lower = &factor.products[*place];
            let into = (&mut self.v, k, periods);
            write_coupling(isa, &self.grid, lower, &factor.priors, shape, [0.0; D], into);
        }
    }
}

/// Covariances of a product's latents with the period effects of its category, after the couplings were
/// multiplied with the covariance of the border: `-L^-T V C`.
///
/// It is not a closure, so that it is compiled for the caller's instruction set.
#[derive(Debug, Clone, Copy)]
pub struct WithPeriods<'a, V, const D: usize = PRODUCT_LATENTS> {
    moved: &'a Packed,
    /// The first column of the product.
    first: usize,
    /// Negative reciprocals of the diagonal of `L`.
    over: [V; D],
    /// `L_kj / L_jj` by row j and column k.
    slope: [[V; D]; D],
}

impl<'a, V: Copy, const D: usize> WithPeriods<'a, V, D> {
    /// The covariances of product number k; `lower` is the factor of its block.
    #[inline(always)]
    pub(crate) fn new<I: Simd<Scalar = f64, V = V>>(
        isa: I,
        moved: &'a Packed,
        lower: &BlockFactor<D>,
        k: usize,
    ) -> Self {
        let l = &lower.rows;
        let (mut over, mut slope) = ([isa.zero(); D], [[isa.zero(); D]; D]);
        for j in 0..D {
            over[j] = isa.splat(-1.0 / l[j][j]);
            for m in j + 1..D {
                slope[j][m] = isa.splat(l[m][j] / l[j][j]);
            }
        }
        WithPeriods {
            moved,
            first: D * k,
            over,
            slope,
        }
    }

    /// The values from a multiple of the lanes on.
    #[inline(always)]
    pub fn at<I: Simd<Scalar = f64, V = V>>(&self, isa: I, t: usize) -> [V; D] {
        let mut found = [isa.zero(); D];
        for j in (0..D).rev() {
            let own = isa.load(&self.moved.values[self.moved.place(t, self.first + j)..]);
            found[j] = isa.mul(own, self.over[j]);
            for m in j + 1..D {
                found[j] = isa.sub(found[j], isa.mul(self.slope[j][m], found[m]));
            }
        }
        found
    }
}
