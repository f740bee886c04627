//! A chunk's log prices in the order of the pass: whole vectors in the pass's precision, product after
//! product.
//!
//! The panel's rows lie in the order of its products, a pass walks them category by category; a copy in that order
//! streams from memory, is aligned, and needs no conversion. It takes 4 bytes per row in single precision.

use crate::chunk::Chunk;
use crate::simd::{Scalar, Simd, lanes_below};
use infermark_model::Panel;
use std::marker::PhantomData;

/// One vector of a product with gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Which vector of periods it is: its first lane is period `vector * LANES`.
    pub vector: u32,
    /// The periods with a row, one bit each; never 0.
    pub lanes: u32,
}

/// The location and coverage of a product's vectors, for a panel with gaps.
#[derive(Debug, Clone)]
struct Gaps {
    /// First vector of each product, and the end.
    start: Vec<u32>,
    blocks: Vec<Block>,
}

/// Deviations of log price of a chunk's products. Lanes without a row hold zero.
#[derive(Debug, Clone)]
pub struct PackedRows<I: Simd> {
    deviation: Vec<I::V>,
    gaps: Option<Gaps>,
    periods: usize,
    /// Smallest deviation of each product, padded like the chunk.
    pub low: Vec<I::Scalar>,
    /// Largest deviation of each product, padded like the chunk.
    pub high: Vec<I::Scalar>,
}

/// Room for the rows of one chunk at a time, for a thread that packs them anew in every pass.
#[derive(Debug, Clone)]
pub struct PackedRoom<I: Simd> {
    deviation: Vec<I::V>,
    gaps: Option<Gaps>,
}

impl<I: Simd> Default for PackedRoom<I> {
    fn default() -> Self {
        PackedRoom {
            deviation: Vec::new(),
            gaps: None,
        }
    }
}

impl<I: Simd> PackedRows<I> {
    /// Packs the rows of `chunk`.
    pub fn new(isa: I, panel: &Panel, chunk: &Chunk) -> Self {
        let mut packed = Self::outline(panel, chunk);
        packed
            .deviation
            .reserve_exact(chunk.products.len() * vectors_of::<I>(packed.periods));
        packed.pack(isa, panel, chunk);
        packed
    }

    /// The rows of `chunk` without the rows themselves: they are there from [`PackedRows::load`] to [`PackedRows::unload`].
    pub fn outline(panel: &Panel, chunk: &Chunk) -> Self {
        let zero = I::Scalar::default();
        let mut packed = PackedRows {
            deviation: Vec::new(),
            gaps: panel.presence().map(|_| Gaps {
                start: Vec::new(),
                blocks: Vec::new(),
            }),
            periods: panel.layout().periods,
            low: vec![zero; chunk.padded()],
            high: vec![zero; chunk.padded()],
        };
        for (i, product) in chunk.products.iter().enumerate() {
            for row in Deviations::<I>::of(panel, *product).iter() {
                packed.low[i] = if row < packed.low[i] { row } else { packed.low[i] };
                packed.high[i] = if row > packed.high[i] { row } else { packed.high[i] };
            }
        }
        packed
    }

    /// Packs the rows of `chunk`, that of the [`PackedRows::outline`], into `room`, which is given back by [`PackedRows::unload`].
    #[inline(always)]
    pub fn load(&mut self, isa: I, panel: &Panel, chunk: &Chunk, room: &mut PackedRoom<I>) {
        std::mem::swap(&mut self.deviation, &mut room.deviation);
        if let (Some(own), Some(gaps)) = (&mut self.gaps, &mut room.gaps) {
            std::mem::swap(own, gaps);
        }
        self.pack(isa, panel, chunk);
    }

    /// Gives back the room.
    pub fn unload(&mut self, room: &mut PackedRoom<I>) {
        std::mem::swap(&mut self.deviation, &mut room.deviation);
        if let Some(own) = &mut self.gaps {
            let none = Gaps {
                start: Vec::new(),
                blocks: Vec::new(),
            };
            room.gaps = Some(std::mem::replace(own, none));
        }
    }

    /// Packs the rows.
    #[inline(always)]
    fn pack(&mut self, isa: I, panel: &Panel, chunk: &Chunk) {
        let (periods, zero) = (self.periods, I::Scalar::default());
        self.deviation.clear();
        if let Some(gaps) = &mut self.gaps {
            gaps.blocks.clear();
            gaps.start.clear();
            gaps.start.push(0);
        }
        for product in &chunk.products {
            let rows = Deviations::<I>::of(panel, *product);
            let mut row = 0;
            for vector in 0..vectors_of::<I>(periods) {
                let first = vector * I::LANES;
                let lanes = match panel.presence() {
                    None => dense_lanes::<I>(periods, vector),
                    Some(presence) => {
                        let word = presence.product(*product as usize)[first / 64];
                        (word >> (first % 64)) as u32 & dense_lanes::<I>(periods, vector)
                    }
                };
                if lanes == 0 {
                    continue;
                }
                let mut x = [zero; 16];
                if lanes == lanes_below::<I>(I::LANES) {
                    rows.copy(row, &mut x[..I::LANES]);
                    row += I::LANES;
                } else {
                    for lane in (0..I::LANES).filter(|lane| lanes >> lane & 1 == 1) {
                        x[lane] = rows.at(row);
                        row += 1;
                    }
                }
                self.deviation.push(isa.load(&x));
                if let Some(gaps) = &mut self.gaps {
                    let vector = vector as u32;
                    gaps.blocks.push(Block { vector, lanes });
                }
            }
            if let Some(gaps) = &mut self.gaps {
                gaps.start.push(gaps.blocks.len() as u32);
            }
        }
    }

    /// A product's vectors, and the coverage of each if the panel has gaps; `product` counts within the
    /// chunk.
    #[inline(always)]
    pub fn product(&self, product: usize) -> (&[I::V], Option<&[Block]>) {
        match &self.gaps {
            None => {
                let vectors = vectors_of::<I>(self.periods);
                (&self.deviation[product * vectors..][..vectors], None)
            }
            Some(gaps) => {
                let range = gaps.start[product] as usize..gaps.start[product + 1] as usize;
                (&self.deviation[range.clone()], Some(&gaps.blocks[range]))
            }
        }
    }

    /// Number of periods, T.
    #[inline(always)]
    pub fn periods(&self) -> usize {
        self.periods
    }
}

/// Deviations of log price of a product's rows, in the pass's precision.
struct Deviations<'p, I: Simd> {
    high: &'p [f32],
    /// Their residuals; not read in single precision.
    low: Option<&'p [f32]>,
    of: PhantomData<I>,
}

impl<'p, I: Simd> Deviations<'p, I> {
    #[inline(always)]
    fn of(panel: &'p Panel, product: u32) -> Self {
        let range = panel.row_range(product as usize);
        // `ANCHORED` is single precision.
        let low = (!I::ANCHORED).then(|| &panel.deviation_residual()[range.clone()]);
        Deviations {
            high: &panel.deviation()[range],
            low,
            of: PhantomData,
        }
    }

    #[inline(always)]
    fn at(&self, row: usize) -> I::Scalar {
        I::Scalar::from_parts(self.high[row], self.low.map_or(0.0, |low| low[row]))
    }

    fn iter(&self) -> impl Iterator<Item = I::Scalar> + '_ {
        (0..self.high.len()).map(|row| self.at(row))
    }

    /// Copies as many as `to` has, from `row` on.
    #[inline(always)]
    fn copy(&self, row: usize, to: &mut [I::Scalar]) {
        let high = &self.high[row..][..to.len()];
        match self.low {
            None => {
                for (to, high) in to.iter_mut().zip(high) {
                    *to = I::Scalar::from_parts(*high, 0.0);
                }
            }
            Some(low) => {
                let low = &low[row..][..to.len()];
                for ((to, high), low) in to.iter_mut().zip(high).zip(low) {
                    *to = I::Scalar::from_parts(*high, *low);
                }
            }
        }
    }
}

/// Number of vectors that T periods take.
#[inline(always)]
pub fn vectors_of<I: Simd>(periods: usize) -> usize {
    periods.div_ceil(I::LANES)
}

/// Lanes of a vector of periods that lie below T.
#[inline(always)]
pub fn dense_lanes<I: Simd>(periods: usize, vector: usize) -> u32 {
    lanes_below::<I>(periods - vector * I::LANES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::chunks;
    use crate::dispatch::{ForSimd, SimdDispatch, for_each_instruction_set};
    use infermark_test_support::random_panel;
    use rand::{SeedableRng, rngs::StdRng};

    struct Loaded<'p>(&'p Panel);

    impl ForSimd for Loaded<'_> {
        type Output = ();

        fn run<I: Simd>(self, isa: I) {
            let mut room = PackedRoom::default();
            for chunk in chunks(self.0) {
                let whole = PackedRows::new(isa, self.0, &chunk);
                let mut outline = PackedRows::<I>::outline(self.0, &chunk);
                for _ in 0..2 {
                    outline.load(isa, self.0, &chunk, &mut room);
                    assert_eq!(format!("{outline:?}"), format!("{whole:?}"));
                    outline.unload(&mut room);
                    assert!(outline.deviation.is_empty());
                }
            }
        }
    }

    #[test]
    fn rows_loaded_into_a_room_are_those_packed_once() {
        let mut rng = StdRng::seed_from_u64(12);
        for (n, c, t, gaps) in [(700, 3, 37, 0.0), (1, 1, 1, 0.0), (90, 2, 70, 0.6)] {
            let panel = random_panel(&mut rng, n, c, t, gaps, 5);
            for_each_instruction_set(|set| {
                set.run_f32(Loaded(&panel));
                set.run_f64(Loaded(&panel));
            });
        }
    }

    struct Check<'p>(&'p Panel);

    impl ForSimd for Check<'_> {
        type Output = ();

        fn run<I: Simd>(self, isa: I) {
            let panel = self.0;
            for chunk in chunks(panel) {
                let packed = PackedRows::new(isa, panel, &chunk);
                for (i, product) in chunk.products.iter().enumerate() {
                    let product = *product as usize;
                    let mean = panel.mean_log_price()[product];
                    let mut expected: Vec<Option<f64>> = vec![None; packed.periods()];
                    for row in panel.product_rows(product) {
                        expected[row.period] = Some(row.log_price - mean);
                    }
                    let (vectors, blocks) = packed.product(i);
                    let mut found = vec![None; packed.periods()];
                    for (v, x) in vectors.iter().enumerate() {
                        let mut lanes = [I::Scalar::default(); 16];
                        isa.store(*x, &mut lanes);
                        let block = blocks.map_or(
                            Block {
                                vector: v as u32,
                                lanes: dense_lanes::<I>(packed.periods(), v),
                            },
                            |blocks| blocks[v],
                        );
                        for lane in 0..I::LANES {
                            if block.lanes >> lane & 1 == 1 {
                                found[block.vector as usize * I::LANES + lane] = Some(lanes[lane].to_f64());
                            } else {
                                assert_eq!(lanes[lane].to_f64(), 0.0);
                            }
                        }
                    }
                    // The mean is about 3 in size, so the difference of a log price and it is good to 1e-15.
                    let close = if I::ANCHORED { 1e-6 } else { 1e-14 };
                    for (found, expected) in found.iter().zip(&expected) {
                        match (found, expected) {
                            (None, None) => {}
                            (Some(f), Some(e)) => {
                                assert!((f - e).abs() < close, "{f} {e}");
                                assert!(packed.low[i].to_f64() <= *f && *f <= packed.high[i].to_f64());
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_row_is_in_its_lane() {
        let mut rng = StdRng::seed_from_u64(11);
        for (n, c, t, gaps) in [
            (1, 1, 1, 0.0),
            (5, 2, 16, 0.0),
            (40, 3, 37, 0.3),
            (9, 1, 130, 0.9),
        ] {
            let panel = random_panel(&mut rng, n, c, t, gaps, 5);
            for_each_instruction_set(|set| {
                set.run_f32(Check(&panel));
                set.run_f64(Check(&panel));
            });
        }
    }
}
