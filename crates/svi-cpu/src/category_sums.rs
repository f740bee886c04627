//! A category's sums over its products, which its period effects and the top of the hierarchy need.

use crate::batches::Batches;
use crate::state::{ChunkRows, ChunkState, groups};
use infermark_cpu_kernels::Simd;
use infermark_cpu_kernels::team::Shared;
use infermark_model::{Layout, Site};
use infermark_svi::Sums;
use std::ops::Range;

/// The sums, of this shard's products or, once they have been exchanged, of all. Entries are by particle.
pub(crate) struct CategorySums {
    /// Derivatives of the log-weight with respect to the prior mean of elasticities.
    pub(crate) by_mean: Vec<f64>,
    /// The same for the prior mean of effects.
    pub(crate) by_effect_mean: Vec<f64>,
    /// With respect to the centredness of elasticities and of effects.
    pub(crate) by_centredness: [Vec<f64>; 2],
    /// With respect to the category's `log_shape`; 0 where the likelihood has none.
    pub(crate) by_log_shape: Vec<f64>,
    /// Rates by period: of particle k from `k * T` on.
    pub(crate) rates: Vec<f64>,
}

/// The sites whose centredness the products' sums are for.
pub(crate) const CENTRED: [Site; 2] = [Site::ProductA, Site::ProductEffect];

impl CategorySums {
    pub(crate) fn new(layout: &Layout, particles: usize) -> Self {
        let zeros = || vec![0.0; particles];
        CategorySums {
            by_mean: zeros(),
            by_effect_mean: zeros(),
            by_centredness: [zeros(), zeros()],
            by_log_shape: zeros(),
            rates: vec![0.0; particles * layout.periods],
        }
    }

    /// The sums of rates of particle k, length T.
    pub(crate) fn rates_of(&self, k: usize) -> &[f64] {
        let periods = self.rates.len() / self.by_mean.len();
        &self.rates[k * periods..][..periods]
    }

    /// Adds up the category's chunks `own` in their order, whichever thread computed them; of a mini-batch those that it has, scaled.
    #[inline(always)]
    pub(crate) fn fold<I: Simd>(
        &mut self,
        isa: I,
        chunks: &Shared<ChunkState<I>>,
        own: Range<usize>,
        batches: Option<&Batches>,
    ) {
        match batches {
            None => self.fold_chunks(isa, chunks, own),
            Some(batches) => {
                let of_batch = batches.chunks_in(&own).iter().map(|chunk| *chunk as usize);
                self.fold_chunks(isa, chunks, of_batch);
                let scale = batches.scale();
                for sums in self.all() {
                    sums.iter_mut().for_each(|sum| *sum *= scale);
                }
            }
        }
    }

    /// All sums.
    fn all(&mut self) -> [&mut Vec<f64>; 6] {
        let [of_elasticity, of_effect] = &mut self.by_centredness;
        [
            &mut self.by_mean,
            &mut self.by_effect_mean,
            &mut self.by_log_shape,
            &mut self.rates,
            of_elasticity,
            of_effect,
        ]
    }

    #[inline(always)]
    fn fold_chunks<I: Simd>(
        &mut self,
        isa: I,
        chunks: &Shared<ChunkState<I>>,
        of_them: impl Iterator<Item = usize>,
    ) {
        let particles = self.by_mean.len();
        let periods = self.rates.len() / particles;
        for sums in self.all() {
            sums.fill(0.0);
        }
        for index in of_them {
            let chunk = chunks.read(index);
            for k in 0..particles {
                let (elasticity, effect) = (chunk.elasticity_sums[k], chunk.effect_sums[k]);
                self.by_mean[k] += elasticity.by_mean;
                self.by_effect_mean[k] += effect.by_mean;
                self.by_centredness[0][k] += elasticity.by_centredness;
                self.by_centredness[1][k] += effect.by_centredness;
            }
            let mut rates = self.rates.chunks_exact_mut(periods);
            match &chunk.rows {
                ChunkRows::Poisson { by_period, .. } => {
                    for (by_period, count) in by_period.iter().zip(groups(particles)) {
                        for (particle, rates) in rates.by_ref().take(count).enumerate() {
                            by_period.add_to(isa, particle, rates);
                        }
                    }
                }
                ChunkRows::NegativeBinomial {
                    by_period,
                    by_log_shape,
                    ..
                } => {
                    for (rates, by_period) in rates.zip(by_period) {
                        add(rates, &by_period[..periods]);
                    }
                    add(&mut self.by_log_shape, by_log_shape);
                }
            }
        }
    }

    /// Writes the sums of a category to the buffer that crosses to the other ranks.
    pub(crate) fn write(&self, category: usize, sums: &Sums, buffer: &mut [f64]) {
        buffer[sums.means(category)].copy_from_slice(&self.by_mean);
        if let Some(place) = sums.effect_means(category) {
            buffer[place].copy_from_slice(&self.by_effect_mean);
        }
        if let Some(place) = sums.shapes(category) {
            buffer[place].copy_from_slice(&self.by_log_shape);
        }
        for (place, by_centredness) in sums.centredness().into_iter().flatten().zip(&self.by_centredness) {
            add(&mut buffer[place], by_centredness);
        }
        for k in 0..sums.particles() {
            buffer[sums.rates(category, k)].copy_from_slice(self.rates_of(k));
        }
    }

    /// Reads the sums of a category over all ranks. Those for the centredness are over all categories, and only their total counts: the
    /// first category takes them.
    pub(crate) fn read(&mut self, category: usize, sums: &Sums, buffer: &[f64]) {
        self.by_mean.copy_from_slice(&buffer[sums.means(category)]);
        if let Some(place) = sums.effect_means(category) {
            self.by_effect_mean.copy_from_slice(&buffer[place]);
        }
        if let Some(place) = sums.shapes(category) {
            self.by_log_shape.copy_from_slice(&buffer[place]);
        }
        let places = sums.centredness().into_iter().flatten();
        for (place, by_centredness) in places.zip(&mut self.by_centredness) {
            match category {
                0 => by_centredness.copy_from_slice(&buffer[place]),
                _ => by_centredness.fill(0.0),
            }
        }
        let periods = self.rates.len() / self.by_mean.len();
        for (k, rates) in self.rates.chunks_exact_mut(periods).enumerate() {
            rates.copy_from_slice(&buffer[sums.rates(category, k)]);
        }
    }
}

fn add(totals: &mut [f64], parts: &[f64]) {
    for (total, part) in totals.iter_mut().zip(parts) {
        *total += part;
    }
}
