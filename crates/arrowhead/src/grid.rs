//! A product's rows spread over the grid of periods, in whole vectors.

use crate::walk::Walk;
use infermark_cpu_kernels::Simd;
use infermark_model::Panel;

/// Places ahead whose log prices are asked for.
const AHEAD: usize = 2;

/// The rows of one product, one entry a period and whole vectors of them. A period without a row repeats the log price of
/// the product's first row, so that its log rate is one that could be, and has the presence 0.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    pub(crate) log_price: Vec<f64>,
    pub(crate) present: Vec<f64>,
    pub(crate) weights: Vec<f64>,
    /// Minus the second derivatives of the rows by log rate and log shape, where there is one.
    pub(crate) cross: Vec<f64>,
    /// Half of the variances of the log rates, where those are asked for.
    pub(crate) half_variance: Vec<f64>,
    /// The periods of the rows, where some are missing.
    periods: Vec<u32>,
}

impl Grid {
    pub(crate) fn new<I: Simd<Scalar = f64>>(panel: &Panel) -> Self {
        let periods = panel.layout().periods;
        let padded = periods.next_multiple_of(I::LANES);
        let mut present = vec![0.0; padded];
        present[..periods].fill(1.0);
        Grid {
            log_price: vec![0.0; padded],
            present,
            weights: vec![0.0; padded],
            cross: vec![0.0; padded],
            half_variance: vec![0.0; padded],
            periods: Vec::with_capacity(periods),
        }
    }

    /// Takes the log prices of the product at a place of the walk, and asks for those of the next but one: products of a category
    /// lie apart, so that no processor foresees where.
    #[inline(always)]
    pub(crate) fn load_place<I: Simd<Scalar = f64>>(&mut self, isa: I, walk: &Walk, place: usize) {
        if let Some(ahead) = walk.order.get(place + AHEAD) {
            let rows = walk.panel.row_range(*ahead as usize);
            isa.prefetch_singles(&walk.panel.deviation()[rows.clone()]);
            isa.prefetch_singles(&walk.panel.deviation_residual()[rows]);
        }
        self.load(isa, &walk.panel, walk.order[place] as usize);
    }

    /// Takes a product's log prices.
    #[inline(always)]
    fn load<I: Simd<Scalar = f64>>(&mut self, isa: I, panel: &Panel, product: usize) {
        let rows = panel.row_range(product);
        let mean = panel.mean_log_price()[product];
        let deviation = &panel.deviation()[rows.clone()];
        let residual = &panel.deviation_residual()[rows];
        let log_price = |d: &f32, r: &f32| mean + (f64::from(*d) + f64::from(*r));
        let Some(presence) = panel.presence() else {
            let in_vectors = deviation.len() / I::LANES * I::LANES;
            let centre = isa.splat(mean);
            for t in (0..in_vectors).step_by(I::LANES) {
                let off = isa.add(isa.load_single(&deviation[t..]), isa.load_single(&residual[t..]));
                isa.store(isa.add(centre, off), &mut self.log_price[t..]);
            }
            for t in in_vectors..deviation.len() {
                self.log_price[t] = log_price(&deviation[t], &residual[t]);
            }
            let first = self.log_price[0];
            self.log_price[deviation.len()..].fill(first);
            return;
        };
        self.log_price.fill(log_price(&deviation[0], &residual[0]));
        self.present.fill(0.0);
        self.periods.clear();
        for (at, word) in presence.product(product).iter().enumerate() {
            let mut word = *word;
            while word != 0 {
                self.periods.push(64 * at as u32 + word.trailing_zeros());
                word &= word - 1;
            }
        }
        for ((t, d), r) in self.periods.iter().zip(deviation).zip(residual) {
            self.log_price[*t as usize] = log_price(d, r);
            self.present[*t as usize] = 1.0;
        }
    }

    /// Takes the weights of the product that was loaded, one a row; zero where there is no row.
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

    /// Hands the weights back, one a row.
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
