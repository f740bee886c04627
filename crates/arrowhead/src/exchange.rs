//! The categories' sums of all ranks, in one buffer.

use crate::border::ChunkSums;
use crate::error::FactorError;
use crate::partition::Partition;

/// Adds up the sums of all ranks: those of every category, and the squares of the products' right-hand sides. A category may have no
/// product on a rank, and then has no sums there.
///
/// # Errors
/// When a block is not positive definite on a rank, or the pass was stopped on one.
pub(crate) fn sum_borders<const D: usize>(
    partition: &Partition<D>,
    own: Vec<(usize, ChunkSums<D>)>,
    squares: f64,
) -> Result<(Vec<ChunkSums<D>>, f64), FactorError> {
    let layout = Exchanged::new(partition);
    let of_category = layout.numbers();
    let mut numbers = vec![0.0; partition.layout.categories * of_category];
    let mut failed = Ok(());
    for (category, sums) in &own {
        layout.write(sums, &mut numbers[category * of_category..][..of_category]);
        if let (Some(product), Ok(())) = (sums.failed, &failed) {
            failed = Err(FactorError::Product(product));
        }
    }
    drop(own);
    numbers.push(squares);
    partition.sum(&mut numbers, partition.unless_stopped().and(failed))?;
    let squares = numbers.pop().expect("it was pushed");
    let sums = numbers.chunks_exact(of_category).map(|of| layout.read(of));
    Ok((sums.collect(), squares))
}

/// The numbers that cross for a category, in the order of the fields of [`ChunkSums`]: of symmetric matrices the lower triangle, of
/// padded columns the periods.
struct Exchanged {
    periods: usize,
    /// Whether there is a log shape.
    has_shape: bool,
    coefficients: usize,
    /// Rows of the Schur complement with the right-hand side.
    order: usize,
}

impl Exchanged {
    fn new<const D: usize>(partition: &Partition<D>) -> Self {
        Exchanged {
            periods: partition.layout.periods,
            has_shape: partition.has_shape(),
            coefficients: D - 1,
            order: partition.border() + 1,
        }
    }

    fn numbers(&self) -> usize {
        let of_shape = if self.has_shape { self.periods + 3 } else { 0 };
        let triangle = self.order * (self.order + 1) / 2;
        1 + 2 * self.periods + of_shape + self.coefficients * self.coefficients + triangle
    }

    fn write<const D: usize>(&self, sums: &ChunkSums<D>, into: &mut [f64]) {
        let mut into = into.iter_mut();
        let mut put = |from: &[f64]| {
            from.iter()
                .zip(into.by_ref())
                .for_each(|(from, into)| *into = *from);
        };
        put(&[sums.value]);
        put(&sums.by_period[..self.periods]);
        put(&sums.weights[..self.periods]);
        if self.has_shape {
            put(&sums.cross[..self.periods]);
            put(&sums.shape);
        }
        for row in &sums.by_category[..self.coefficients] {
            put(&row[..self.coefficients]);
        }
        let padded = sums.schur.len().isqrt();
        for j in 0..self.order {
            put(&sums.schur[j * padded..][j..self.order]);
        }
    }

    fn read<const D: usize>(&self, from: &[f64]) -> ChunkSums<D> {
        let mut left = from;
        let mut take = |count: usize| {
            let (own, rest) = left.split_at(count);
            left = rest;
            own
        };
        let value = take(1)[0];
        let by_period = take(self.periods).to_vec();
        let weights = take(self.periods).to_vec();
        let (mut cross, mut shape) = (Vec::new(), [0.0; 3]);
        if self.has_shape {
            cross = take(self.periods).to_vec();
            shape.copy_from_slice(take(3));
        }
        let mut by_category = [[0.0; D]; D];
        for row in &mut by_category[..self.coefficients] {
            row[..self.coefficients].copy_from_slice(take(self.coefficients));
        }
        let mut schur = vec![0.0; self.order * self.order];
        for j in 0..self.order {
            schur[j * self.order..][j..self.order].copy_from_slice(take(self.order - j));
        }
        ChunkSums {
            value,
            by_period,
            weights,
            cross,
            shape,
            by_category,
            schur,
            failed: None,
        }
    }
}
