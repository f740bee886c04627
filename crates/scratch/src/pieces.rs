//! Rows that are gathered until they are worth a write.

use infermark_model::RowsToStore;
use std::collections::HashMap;
use std::io;

/// Rows of a piece, which begins at a multiple of as many. The system's cache holds what one write brings in pages as large as the write is
/// and its place allows; large ones are mapped several times as fast.
const PIECE: usize = 1 << 16;

/// Rows that are held in all pieces.
const HELD: usize = 1 << 20;

/// Rows that are held until their piece is whole, wherever products that follow each other come from: the products of a file take turns
/// between categories, and those of one category follow each other in the columns.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// By the place of the row that would follow.
    pieces: HashMap<usize, Piece>,
    /// Rows in them.
    held: usize,
}

#[derive(Debug, Default)]
struct Piece {
    deviation: Vec<f32>,
    deviation_residual: Vec<f32>,
    units: Vec<u32>,
}

impl Piece {
    fn add(&mut self, rows: &RowsToStore<'_>, from: usize, end: usize) {
        self.deviation.extend_from_slice(&rows.deviation[from..end]);
        self.deviation_residual
            .extend_from_slice(&rows.deviation_residual[from..end]);
        self.units.extend_from_slice(&rows.units[from..end]);
    }

    fn write(&self, end: usize, write: &mut impl FnMut(RowsToStore<'_>) -> io::Result<()>) -> io::Result<()> {
        write(RowsToStore {
            first: end - self.units.len(),
            deviation: &self.deviation,
            deviation_residual: &self.deviation_residual,
            units: &self.units,
        })
    }

    fn clear(&mut self) {
        self.deviation.clear();
        self.deviation_residual.clear();
        self.units.clear();
    }
}

impl Pieces {
    /// Adds rows, and lets `write` write what is whole, or all if too many are held.
    pub(crate) fn add(
        &mut self,
        rows: RowsToStore<'_>,
        mut write: impl FnMut(RowsToStore<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let count = rows.units.len();
        let mut piece = self.pieces.remove(&rows.first).unwrap_or_default();
        let mut done = 0;
        while done < count {
            let place = rows.first + done;
            let end = count.min(done + PIECE - place % PIECE);
            piece.add(&rows, done, end);
            self.held += end - done;
            done = end;
            if (rows.first + done).is_multiple_of(PIECE) {
                piece.write(rows.first + done, &mut write)?;
                self.held -= piece.units.len();
                piece.clear();
            }
        }
        if !piece.units.is_empty() {
            self.pieces.insert(rows.first + count, piece);
        }
        if self.held > HELD {
            return self.take(write);
        }
        Ok(())
    }

    /// Lets `write` write all that is held.
    pub(crate) fn take(
        &mut self,
        mut write: impl FnMut(RowsToStore<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.held = 0;
        self.pieces
            .drain()
            .try_for_each(|(end, piece)| piece.write(end, &mut write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng};

    /// Rows of products whose sizes and order are drawn, in as many streams as there are categories.
    #[test]
    fn every_row_is_written_once_at_its_place() {
        for (seed, streams, most) in [
            (1, 1, 900),
            (2, 7, 300),
            (3, 40, 5),
            (4, 3, 3 * PIECE),
            (5, 400, 9000),
        ] {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut ends = Vec::new();
            let mut total = 0;
            let mut products = Vec::new();
            for _ in 0..streams {
                let mut of_stream = Vec::new();
                for _ in 0..12 {
                    let rows = rng.random_range(0..=most);
                    of_stream.push(total..total + rows);
                    total += rows;
                }
                ends.push(of_stream.into_iter());
            }
            // Mostly in turns, with some out of order.
            let mut turns: Vec<usize> = (0..streams).flat_map(|s| [s; 12]).collect();
            turns.shuffle(&mut rng);
            products.extend(turns.iter().map(|stream| ends[*stream].next().unwrap()));
            let last = products.len() - 1;
            products.swap(0, last);
            let mut written: [Vec<u32>; 3] = std::array::from_fn(|_| vec![0; total]);
            let mut times = vec![0u8; total];
            let mut most_held = 0;
            let mut pieces = Pieces::default();
            let mut write = |rows: RowsToStore<'_>| {
                assert!(rows.units.len() <= PIECE);
                let of = rows.first..rows.first + rows.units.len();
                times[of.clone()].iter_mut().for_each(|t| *t += 1);
                let bits = |values: &[f32]| values.iter().map(|v| *v as u32).collect::<Vec<_>>();
                written[0][of.clone()].copy_from_slice(&bits(rows.deviation));
                written[1][of.clone()].copy_from_slice(&bits(rows.deviation_residual));
                written[2][of].copy_from_slice(rows.units);
                Ok(())
            };
            for rows in products {
                let numbers: Vec<f32> = rows.clone().map(|row| (row % 1000) as f32).collect();
                let others: Vec<f32> = numbers.iter().map(|n| n + 1.0).collect();
                let units: Vec<u32> = rows.clone().map(|row| row as u32).collect();
                let rows = RowsToStore {
                    first: rows.start,
                    deviation: &numbers,
                    deviation_residual: &others,
                    units: &units,
                };
                pieces.add(rows, &mut write).unwrap();
                most_held = most_held.max(pieces.held);
            }
            pieces.take(&mut write).unwrap();
            assert!(most_held <= HELD && (total < HELD || most_held > 0));
            assert!(times.iter().all(|times| *times == 1));
            for (row, units) in written[2].iter().enumerate() {
                assert_eq!(
                    (written[0][row], written[1][row], *units),
                    ((row % 1000) as u32, (row % 1000) as u32 + 1, row as u32)
                );
            }
        }
    }
}
