//! A product's rows spread over the grid of periods, in whole vectors.

use crate::partition::Partition;
use crate::regressor::Regressor;
use crate::weights::Spare;
use infermark_cpu_kernels::Simd;
use infermark_model::Panel;

/// Number of places ahead whose log prices are prefetched.
const AHEAD: usize = 2;

/// The rows of one product, one entry per period and whole vectors of them. A period without a row repeats
/// the regressors of the product's first row, so that its log rate is plausible, and has the presence 0.
#[derive(Debug, Clone)]
pub(crate) struct Grid<const D: usize> {
    /// The regressors, and the presence as the last entry.
    pub(crate) design: [Vec<f64>; D],
    pub(crate) weights: Vec<f64>,
    /// Minus the rows' mixed second derivatives with respect to log rate and log shape, if there is one.
    pub(crate) cross: Vec<f64>,
    /// Half of the variances of the log rates, if requested.
    pub(crate) half_variance: Vec<f64>,
    /// The periods of the rows, if some are missing.
    periods: Vec<u32>,
    /// Room for weights that are computed again.
    pub(crate) spare: Option<Spare>,
}

impl<const D: usize> Grid<D> {
    /// Index of the presence.
    const PRESENT: usize = D - 1;

    pub(crate) fn new<I: Simd<Scalar = f64>>(panel: &Panel) -> Self {
        let periods = panel.layout().periods;
        let padded = periods.next_multiple_of(I::LANES);
        let mut design = std::array::from_fn(|_| vec![0.0; padded]);
        design[Self::PRESENT][..periods].fill(1.0);
        Grid {
            design,
            weights: vec![0.0; padded],
            cross: vec![0.0; padded],
            half_variance: vec![0.0; padded],
            periods: Vec::with_capacity(periods),
            spare: None,
        }
    }

    /// Loads the regressors of the product at a place of the walk, and prefetches the log prices of the next
    /// but one: products of a category lie apart, so that a CPU cannot predict where.
    #[inline(always)]
    pub(crate) fn load_place<I: Simd<Scalar = f64>>(
        &mut self,
        isa: I,
        partition: &Partition<D>,
        place: usize,
    ) {
        if let Some(ahead) = partition.order.get(place + AHEAD) {
            let rows = partition.panel.row_range(*ahead as usize);
            for regressor in &partition.regressors {
                if let Regressor::LogPrice = regressor {
                    isa.prefetch_singles(&partition.panel.deviation()[rows.clone()]);
                    isa.prefetch_singles(&partition.panel.deviation_residual()[rows.clone()]);
                }
            }
        }
        self.load(
            isa,
            &partition.panel,
            &partition.regressors,
            partition.order[place] as usize,
        );
    }

    /// Loads a product's regressors.
    #[inline(always)]
    fn load<I: Simd<Scalar = f64>>(
        &mut self,
        isa: I,
        panel: &Panel,
        regressors: &[Regressor],
        product: usize,
    ) {
        if let Some(presence) = panel.presence() {
            self.design[Self::PRESENT].fill(0.0);
            self.periods.clear();
            for (at, word) in presence.product(product).iter().enumerate() {
                let mut word = *word;
                while word != 0 {
                    let t = 64 * at as u32 + word.trailing_zeros();
                    self.periods.push(t);
                    self.design[Self::PRESENT][t as usize] = 1.0;
                    word &= word - 1;
                }
            }
        }
        let rows = panel.row_range(product);
        for (column, regressor) in self.design.iter_mut().zip(regressors) {
            match regressor {
                Regressor::LogPrice => {
                    let mean = panel.mean_log_price()[product];
                    let deviation = &panel.deviation()[rows.clone()];
                    let residual = &panel.deviation_residual()[rows.clone()];
                    let log_price = |d: &f32, r: &f32| mean + (f64::from(*d) + f64::from(*r));
                    if panel.presence().is_some() {
                        column.fill(log_price(&deviation[0], &residual[0]));
                        for ((t, d), r) in self.periods.iter().zip(deviation).zip(residual) {
                            column[*t as usize] = log_price(d, r);
                        }
                        continue;
                    }
                    let in_vectors = deviation.len() / I::LANES * I::LANES;
                    let centre = isa.splat(mean);
                    for t in (0..in_vectors).step_by(I::LANES) {
                        let off = isa.add(isa.load_single(&deviation[t..]), isa.load_single(&residual[t..]));
                        isa.store(isa.add(centre, off), &mut column[t..]);
                    }
                    for t in in_vectors..deviation.len() {
                        column[t] = log_price(&deviation[t], &residual[t]);
                    }
                    let first = column[0];
                    column[deviation.len()..].fill(first);
                }
                Regressor::Column(of) => {
                    let values = &of.values[rows.clone()];
                    column.fill(values[0]);
                    if panel.presence().is_some() {
                        for (t, x) in self.periods.iter().zip(values) {
                            column[*t as usize] = *x;
                        }
                    } else {
                        column[..values.len()].copy_from_slice(values);
                    }
                }
            }
        }
    }

    /// Loads the weights of the loaded product, one per row; zero where there is no row.
    #[inline(always)]
    pub(crate) fn load_weights(&mut self, weights: &[f64]) {
        if self.periods.is_empty() {
            self.weights[..weights.len()].copy_from_slice(weights);
            self.weights[weights.len()..].fill(0.0);
            return;
        }
        self.weights.fill(0.0);
        for (t, w) in self.periods.iter().zip(weights) {
            self.weights[*t as usize] = *w;
        }
    }

    /// Returns the weights, one per row.
    #[inline(always)]
    pub(crate) fn store_weights(&self, weights: &mut [f64]) {
        if self.periods.is_empty() {
            let rows = weights.len();
            weights.copy_from_slice(&self.weights[..rows]);
            return;
        }
        for (t, w) in self.periods.iter().zip(weights) {
            *w = self.weights[*t as usize];
        }
    }
}
