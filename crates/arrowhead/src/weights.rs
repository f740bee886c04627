//! The rows' weights of a factor: in memory, next to rows that lie outside of it, or computed again wherever they are needed.

use crate::grid::Grid;
use crate::partition::Partition;
use crate::rates::{ProductRows, Reweigh};
use infermark_cpu_kernels::Simd;
use infermark_model::{Panel, StoredNumbers};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// One weight per row, in the order of the walk.
#[derive(Debug, Clone)]
pub(crate) enum Weights<const D: usize> {
    /// In memory; empty where the rows lie on another device.
    Held(Vec<f64>),
    /// Outside of memory, like the rows.
    Stored(Arc<dyn StoredNumbers>),
    /// Nowhere: they depend on a point alone.
    Again(Again<D>),
}

/// Weights that are computed again.
#[derive(Clone)]
pub(crate) struct Again<const D: usize>(pub(crate) Arc<dyn Reweigh<D>>);

impl<const D: usize> fmt::Debug for Again<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Again")
    }
}

impl<const D: usize> Weights<D> {
    /// Room for the weights of `rows` rows of `panel`.
    ///
    /// # Errors
    /// The reason why there is none outside of memory.
    pub(crate) fn zeros(panel: &Panel, rows: usize) -> Result<Self, String> {
        match panel.stored() {
            None => Ok(Weights::Held(vec![0.0; rows])),
            Some(stored) => match stored.numbers(rows) {
                Ok(numbers) => Ok(Weights::Stored(numbers.into())),
                Err(error) => Err(error.to_string()),
            },
        }
    }

    /// Bytes of memory that they take.
    pub(crate) fn bytes(panel: &Panel) -> u64 {
        match panel.stored() {
            None => 8 * panel.held_rows() as u64,
            Some(_) => 0,
        }
    }

    /// The weights in memory.
    ///
    /// # Panics
    /// When they are elsewhere.
    pub(crate) fn held(&self) -> &[f64] {
        match self {
            Weights::Held(weights) => weights,
            _ => panic!("the weights are in memory"),
        }
    }

    /// The weights to write; none where they are computed again.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [f64] {
        match self {
            Weights::Held(weights) => weights,
            Weights::Stored(numbers) => Arc::get_mut(numbers)
                .expect("weights of one factor")
                .as_mut_slice(),
            Weights::Again(_) => &mut [],
        }
    }

    /// Loads the weights of the product at a place, whose rows are loaded.
    #[inline(always)]
    pub(crate) fn load<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        partition: &Partition<D>,
        place: usize,
        grid: &mut Grid<D>,
    ) {
        let rows = || -> Range<usize> { partition.row_start[place]..partition.row_start[place + 1] };
        match self {
            Weights::Held(weights) => grid.load_weights(&weights[rows()]),
            Weights::Stored(numbers) => grid.load_weights(&numbers.as_slice()[rows()]),
            Weights::Again(again) => again.load(isa, partition, place, grid),
        }
    }
}

impl<const D: usize> Again<D> {
    /// As [`Weights::load`].
    #[inline(never)]
    pub(crate) fn load<I: Simd<Scalar = f64>>(
        &self,
        _: I,
        partition: &Partition<D>,
        place: usize,
        grid: &mut Grid<D>,
    ) {
        let product = partition.order[place] as usize;
        let spare = grid.spare.get_or_insert_with(|| Spare {
            none: vec![0.0; grid.weights.len()],
            by_period: vec![0.0; grid.weights.len()],
        });
        let rows = ProductRows {
            product,
            category: partition.panel.category_of()[product] as usize,
            design: grid.design.each_ref().map(Vec::as_slice),
            half_variance: &spare.none,
        };
        self.0
            .weights(rows, &mut grid.weights, &mut grid.cross, &mut spare.by_period);
    }
}

/// Room for what weights that are computed again bring along.
#[derive(Debug, Clone)]
pub(crate) struct Spare {
    none: Vec<f64>,
    by_period: Vec<f64>,
}
