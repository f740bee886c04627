//! The factor, and solving with it.

use crate::block::{BlockFactor, BlockMatrix, parallel_sum};
use crate::coupling::Coupling;
use crate::elsewhere::RowsElsewhere;
use crate::error::FactorError;
use crate::partition::{Partition, products_of_part};
use crate::sites::BlockPriors;
use crate::triangular::{BorderFactor, Lower};
use crate::weights::Weights;
use infermark_model::Panel;
use infermark_model::design::PRODUCT_LATENTS;
use std::sync::{Arc, OnceLock};

/// The allocator holds back one part in this many of the squares' bytes between passes (measured).
const HELD_BACK: u64 = 10;
/// Bytes into which a thread's matrix products pack their operands: a core's second-level cache, for which 2
/// MiB is large.
const WORKSPACE_BYTES: u64 = 2 << 20;

/// `L` of `Q = L L'`, of a model whose products have D latents; see the [crate's page](crate). Vectors are
/// natural parameters, in the order of [`Partition::sites`], which with the model's two latents is that of
/// [`Layout`](infermark_model::Layout).
#[derive(Debug, Clone)]
pub struct ArrowheadFactor<const D: usize = PRODUCT_LATENTS> {
    pub(crate) partition: Arc<Partition<D>>,
    pub(crate) priors: BlockPriors<D>,
    pub(crate) weights: Weights<D>,
    /// `L_i`, in the order of the walk.
    pub(crate) products: Vec<BlockFactor<D>>,
    /// Couplings of the products to the log shapes, in the order of the walk; empty if there are none.
    pub(crate) shapes: Vec<[f64; D]>,
    /// `R_c`.
    pub(crate) categories: Vec<Lower>,
    /// The diagonals of `D_c`.
    pub(crate) diagonals: Vec<Vec<f64>>,
    /// The last block of `L`, of the global coefficients; 1 at the position of the effect, which has no
    /// parent.
    pub(crate) top: BlockFactor<D>,
    /// Covariances of the borders, once they were requested.
    pub(crate) covariances: OnceLock<Vec<Vec<f64>>>,
    pub(crate) threads: usize,
    /// The owner of the weights, if it is not the host.
    pub(crate) elsewhere: Option<Arc<dyn RowsElsewhere<D>>>,
    /// Whether the precision of a log shape was below the least one, which then replaces it.
    uses_fallback_curvature: bool,
}

/// A factor's data for rows and products, by place.
pub(crate) struct Blocks<const D: usize> {
    /// Weights of the rows; empty if they lie elsewhere.
    pub(crate) weights: Weights<D>,
    pub(crate) lower: Vec<BlockFactor<D>>,
    /// Couplings of the products to the log shapes; empty if there are none.
    pub(crate) shapes: Vec<[f64; D]>,
    pub(crate) elsewhere: Option<Arc<dyn RowsElsewhere<D>>>,
}

/// Buffers recovered from a factor that is being replaced.
pub(crate) struct FactorBuffers<const D: usize> {
    pub(crate) partition: Arc<Partition<D>>,
    pub(crate) priors: BlockPriors<D>,
    /// Weights of the rows, factors of the products, their couplings to the log shapes.
    pub(crate) by_place: (Weights<D>, Vec<BlockFactor<D>>, Vec<[f64; D]>),
    pub(crate) covariances: Option<Vec<Vec<f64>>>,
    pub(crate) threads: usize,
}

impl<const D: usize> ArrowheadFactor<D> {
    /// Number of coefficients of a product, of a category, and of the global ones.
    const COEFFICIENTS: usize = D - 1;

    pub(crate) fn of_parts(
        partition: Arc<Partition<D>>,
        priors: BlockPriors<D>,
        blocks: Blocks<D>,
        borders: Vec<BorderFactor>,
        diagonals: Vec<Vec<f64>>,
        threads: usize,
    ) -> Self {
        // P - U' U = (P^-1 + K^-1)^-1, with K the data's information on the category's coefficients: the
        // difference is lost if P is large.
        let mut top = [[0.0; D]; D];
        for border in &borders {
            let informed = parallel_sum(&Self::of_triangle(&border.informed), &priors.category);
            let entries = top.iter_mut().flatten();
            entries
                .zip(informed.iter().flatten())
                .for_each(|(sum, own)| *sum += own);
        }
        for k in 0..Self::COEFFICIENTS {
            top[k][k] += priors.global[k];
        }
        top[D - 1][D - 1] = 1.0;
        ArrowheadFactor {
            partition,
            priors,
            weights: blocks.weights,
            products: blocks.lower,
            shapes: blocks.shapes,
            elsewhere: blocks.elsewhere,
            uses_fallback_curvature: borders.iter().any(|border| border.uses_fallback_curvature),
            categories: borders.into_iter().map(|border| border.lower).collect(),
            diagonals,
            top: BlockFactor::unchecked(&top),
            covariances: OnceLock::new(),
            threads,
        }
    }

    /// The symmetric matrix over the coefficients, from its lower triangle by rows.
    fn of_triangle(triangle: &[f64]) -> BlockMatrix<D> {
        let mut matrix = [[0.0; D]; D];
        let places = (0..Self::COEFFICIENTS).flat_map(|j| (0..=j).map(move |k| (j, k)));
        for ((j, k), entry) in places.zip(triangle) {
            matrix[j][k] = *entry;
            matrix[k][j] = *entry;
        }
        matrix
    }

    /// The same with another walk, without rows and products.
    pub(crate) fn clone_above_products(&self, partition: Arc<Partition<D>>) -> Self {
        ArrowheadFactor {
            partition,
            priors: self.priors,
            weights: Weights::Held(Vec::new()),
            products: Vec::new(),
            shapes: Vec::new(),
            categories: self.categories.clone(),
            diagonals: self.diagonals.clone(),
            top: self.top,
            covariances: self.covariances.clone(),
            threads: self.threads,
            elsewhere: None,
            uses_fallback_curvature: self.uses_fallback_curvature,
        }
    }

    /// The buffers that a pass overwrites, the covariances of the borders if they were requested, and the
    /// pass's arguments; the rest is freed.
    pub(crate) fn into_buffers(self) -> FactorBuffers<D> {
        FactorBuffers {
            partition: self.partition,
            priors: self.priors,
            by_place: (self.weights, self.products, self.shapes),
            covariances: self.covariances.into_inner(),
            threads: self.threads,
        }
    }

    /// What couples the products to the borders.
    pub(crate) fn coupling(&self) -> Coupling<'_, D> {
        Coupling {
            partition: &self.partition,
            priors: &self.priors,
            weights: &self.weights,
            shapes: &self.shapes,
            threads: self.threads,
        }
    }

    /// Threads that it works on.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Whether the matrix is not the exact one: with all else moving along, the log joint has less curvature
    /// along the log shape of a category, if any, than its rows can leave, and that least curvature replaces
    /// it.
    pub fn uses_fallback_curvature(&self) -> bool {
        self.uses_fallback_curvature
    }

    /// The walk over its panel.
    pub fn partition(&self) -> &Arc<Partition<D>> {
        &self.partition
    }

    /// Peak bytes, in addition to the panel, of a factor, the passes that compute it and its marginals, on as
    /// many threads as the machine has.
    pub fn bytes(panel: &Panel) -> u64 {
        Self::bytes_on(panel, std::thread::available_parallelism().map_or(1, |n| n.get()))
    }

    /// The same on `threads` threads.
    ///
    /// Counted in squares of a border. A pass holds one per category, of the covariance or of the factor that
    /// replaces it; each thread holds a packed covariance and the sum of its part, of which memory has the
    /// lower triangle alone; if categories have several parts there is one more such triangle for the
    /// finished ones. Marginals hold a factor and a covariance, or a root of it, per category, and a packed
    /// covariance per thread. The allocator holds back some of the memory freed between passes, and each
    /// thread's matrix products have a workspace.
    ///
    /// Compared with the growth of the resident memory in structured variational fits on two threads: 456 MB
    /// estimated and 483 measured for 1,000 periods in 24 categories, 494 and 465 for 3,000 periods in 2
    /// categories of 600 products.
    pub fn bytes_on(panel: &Panel, threads: usize) -> u64 {
        let layout = panel.layout();
        let square = (layout.periods as u64 + D as u64 + 1).next_multiple_of(24).pow(2);
        let categories = layout.categories as u64;
        let of_part = products_of_part(layout.products);
        let several = layout.products > layout.categories * of_part;
        let parts = categories
            + if several {
                (layout.products / of_part) as u64
            } else {
                0
            };
        let at_work = (threads as u64).clamp(1, parts.max(1));
        // In halves of a square.
        let pass = 2 * categories + 3 * at_work + if several { at_work.min(categories) } else { 0 };
        let marginals = 4 * categories + 2 * at_work;
        let squares = 4 * pass.max(marginals).saturating_mul(square);
        Weights::<D>::bytes(panel)
            + (20 + 8 * (2 * D * D + D) as u64) * layout.products as u64
            + squares.saturating_add(squares / HELD_BACK)
            + WORKSPACE_BYTES * at_work
    }

    /// `ln det Q`, of a walk over all products.
    pub fn ln_det(&self) -> f64 {
        self.ln_det_with(self.ln_det_of_products())
    }

    /// The same with the products of all ranks.
    ///
    /// # Errors
    /// When a rank has gone.
    pub fn ln_det_over_ranks(&self) -> Result<f64, FactorError> {
        let mut products = vec![self.ln_det_of_products()];
        self.partition.sum(&mut products, Ok(()))?;
        Ok(self.ln_det_with(products[0]))
    }

    fn ln_det_of_products(&self) -> f64 {
        self.products.iter().map(BlockFactor::ln_det).sum()
    }

    fn ln_det_with(&self, products: f64) -> f64 {
        let categories: f64 = self.categories.iter().map(Lower::ln_det).sum();
        2.0 * (products + categories + self.top.ln_det())
    }

    /// The diagonal of `Q`; zero for products of other ranks.
    pub fn diagonal(&self) -> Vec<f64> {
        let (sites, priors) = (&self.partition.sites, &self.priors);
        let mut diagonal = vec![0.0; sites.latents];
        for k in 0..Self::COEFFICIENTS {
            diagonal[sites.global[k]] =
                priors.global[k] + self.partition.layout.categories as f64 * priors.category[k];
        }
        for (category, border) in self.diagonals.iter().enumerate() {
            self.write_border(&mut diagonal, category, border);
        }
        for (product, lower) in self.partition.order.iter().zip(&self.products) {
            for (k, start) in sites.product.into_iter().enumerate() {
                diagonal[start + *product as usize] = lower.entry(k, k);
            }
        }
        diagonal
    }

    /// The entries of `Q` between the first coefficient and the effect of each product, length N.
    pub fn couplings_of_products(&self) -> Vec<f64> {
        let mut coupled = vec![0.0; self.partition.layout.products];
        for (product, lower) in self.partition.order.iter().zip(&self.products) {
            coupled[*product as usize] = lower.entry(0, D - 1);
        }
        coupled
    }

    /// `Q^-1 b`.
    pub fn solved(&self, mut b: Vec<f64>) -> Vec<f64> {
        self.solve(&mut b);
        b
    }

    /// `Q^-1 b`, in place. The walk is over all products, or `b` is zero for products.
    pub fn solve(&self, b: &mut [f64]) {
        self.solve_lower(b);
        self.solve_upper(b);
    }

    /// `L^-1 b`, in place: converts a gradient with respect to the parameters into one with respect to the
    /// whitened ones.
    pub fn solve_lower(&self, b: &mut [f64]) {
        self.solve_lower_by(b, |products| self.coupling().transpose_times(products));
    }

    /// The same with `transpose_times` for [`Coupling::transpose_times`].
    pub(crate) fn solve_lower_by(
        &self,
        b: &mut [f64],
        transpose_times: impl FnOnce(&[[f64; D]]) -> Vec<Vec<f64>>,
    ) {
        let mut products = self.partition.blocks(b);
        for (own, lower) in products.iter_mut().zip(&self.products) {
            *own = lower.forward(*own);
        }
        debug_assert!(
            self.partition.ranks().is_none() || products.iter().flatten().all(|entry| *entry == 0.0),
            "products of other ranks contribute to the borders"
        );
        self.partition.write_blocks(b, &products);
        // V' y = B' L^-T y.
        for (own, lower) in products.iter_mut().zip(&self.products) {
            *own = lower.backward(*own);
        }
        let coupled = transpose_times(&products);
        self.forward_borders(b, &coupled);
    }

    /// The rest of `L^-1 b` after the products' part: borders, minus the products' contributions, and the
    /// top.
    pub(crate) fn forward_borders(&self, b: &mut [f64], coupled: &[Vec<f64>]) {
        let mut top = self.read_top(b);
        for (c, sum) in coupled.iter().enumerate() {
            let mut z = self.read_border(b, c);
            z.iter_mut().zip(sum).for_each(|(z, s)| *z -= s);
            self.categories[c].forward(&mut z);
            let coupling = self.top_coupling(c);
            for i in 0..Self::COEFFICIENTS {
                for k in 0..=i {
                    top[k] -= coupling[i][k] * z[self.partition.tail() + i];
                }
            }
            self.write_border(b, c, &z);
        }
        self.write_top(b, self.top.forward(top));
    }

    /// `L^-T y`, in place: whitened coordinates to parameters.
    pub fn solve_upper(&self, y: &mut [f64]) {
        self.solve_upper_by(y, |borders| self.coupling().times(borders));
    }

    /// The same with `times` for [`Coupling::times`].
    pub(crate) fn solve_upper_by(&self, y: &mut [f64], times: impl FnOnce(&[Vec<f64>]) -> Vec<[f64; D]>) {
        let borders = self.backward_borders(y);
        let by_border = times(&borders);
        self.solve_upper_products(y, by_border);
    }

    /// The products' part of `L^-T y`, in place, with `by_border` equal to `B_i` times the border's part.
    pub(crate) fn solve_upper_products(&self, y: &mut [f64], by_border: Vec<[f64; D]>) {
        let mut products = self.partition.blocks(y);
        for ((own, by), lower) in products.iter_mut().zip(by_border).zip(&self.products) {
            let by = lower.forward(by);
            own.iter_mut().zip(by).for_each(|(own, by)| *own -= by);
            *own = lower.backward(*own);
        }
        self.partition.write_blocks(y, &products);
    }

    /// The top and the borders of `L^-T y`, in place; also returns the borders.
    pub(crate) fn backward_borders(&self, y: &mut [f64]) -> Vec<Vec<f64>> {
        let top = self.top.backward(self.read_top(y));
        self.write_top(y, top);
        let mut borders = Vec::with_capacity(self.categories.len());
        for c in 0..self.categories.len() {
            let mut x = self.read_border(y, c);
            let coupling = self.top_coupling(c);
            for i in 0..Self::COEFFICIENTS {
                for k in 0..=i {
                    x[self.partition.tail() + i] -= coupling[i][k] * top[k];
                }
            }
            self.categories[c].backward(&mut x);
            self.write_border(y, c, &x);
            borders.push(x);
        }
        borders
    }

    /// Solves for the parameters above the products, with the products eliminated: if `g` has the derivatives
    /// of a log density maximized over the products, `S^-1 g`, in place, is its Newton step. Entries of
    /// products stay unchanged. Returns `g' S^-1 g`.
    pub fn solve_above_products(&self, g: &mut [f64]) -> f64 {
        let nothing = vec![vec![0.0; self.partition.border()]; self.categories.len()];
        self.forward_borders(g, &nothing);
        let slope = self.squares_above_products(g);
        self.backward_borders(g);
        slope
    }

    /// The sum of the squares of the entries above the products.
    pub(crate) fn squares_above_products(&self, of: &[f64]) -> f64 {
        let (layout, sites) = (&self.partition.layout, &self.partition.sites);
        let coefficients = ..Self::COEFFICIENTS;
        let global = sites.global[coefficients].iter().map(|start| (start, 1));
        let category = sites.category[coefficients]
            .iter()
            .map(|start| (start, layout.categories));
        let shapes = if self.partition.has_shape() {
            layout.categories
        } else {
            0
        };
        let border = [
            (&sites.time, layout.categories * layout.periods),
            (&sites.log_shape, shapes),
        ];
        let above = global.chain(category).chain(border);
        above
            .flat_map(|(start, len)| &of[*start..start + len])
            .map(|z| z * z)
            .sum()
    }

    /// `L' x`, in place: parameters to whitened coordinates, the inverse of [`ArrowheadFactor::solve_upper`].
    pub fn times_upper(&self, x: &mut [f64]) {
        self.times_upper_by(x, |borders| self.coupling().times(borders));
    }

    /// The same with `times` for [`Coupling::times`].
    pub(crate) fn times_upper_by(&self, x: &mut [f64], times: impl FnOnce(&[Vec<f64>]) -> Vec<[f64; D]>) {
        let borders: Vec<Vec<f64>> = (0..self.categories.len())
            .map(|c| self.read_border(x, c))
            .collect();
        let mut products = self.partition.blocks(x);
        let by_border = times(&borders);
        for ((own, by), lower) in products.iter_mut().zip(by_border).zip(&self.products) {
            let by = lower.forward(by);
            *own = lower.transpose_times(*own);
            own.iter_mut().zip(by).for_each(|(own, by)| *own += by);
        }
        self.partition.write_blocks(x, &products);
        let top = self.read_top(x);
        for (c, mut border) in borders.into_iter().enumerate() {
            self.categories[c].transpose_times(&mut border);
            let coupling = self.top_coupling(c);
            for i in 0..Self::COEFFICIENTS {
                for k in 0..=i {
                    border[self.partition.tail() + i] += coupling[i][k] * top[k];
                }
            }
            self.write_border(x, c, &border);
        }
        self.write_top(x, self.top.transpose_times(top));
    }

    /// The nonzero rows, those of the coefficients, of `R_c^-1` times the coupling of category c to the top:
    /// a lower triangle.
    pub(crate) fn top_coupling(&self, category: usize) -> BlockMatrix<D> {
        let (lower, tail) = (&self.categories[category], self.partition.tail());
        let mut coupling = [[0.0; D]; D];
        for k in 0..Self::COEFFICIENTS {
            coupling[k][k] = -self.priors.category[k] / lower.entry(tail + k, tail + k);
            for i in k + 1..Self::COEFFICIENTS {
                let known = (k..i).map(|m| lower.entry(tail + i, tail + m) * coupling[m][k]);
                coupling[i][k] = -known.sum::<f64>() / lower.entry(tail + i, tail + i);
            }
        }
        coupling
    }

    /// The global coefficients of a vector; zero at the position of the effect.
    fn read_top(&self, of: &[f64]) -> [f64; D] {
        let mut top = [0.0; D];
        for k in 0..Self::COEFFICIENTS {
            top[k] = of[self.partition.sites.global[k]];
        }
        top
    }

    fn write_top(&self, to: &mut [f64], top: [f64; D]) {
        for k in 0..Self::COEFFICIENTS {
            to[self.partition.sites.global[k]] = top[k];
        }
    }

    fn read_border(&self, of: &[f64], category: usize) -> Vec<f64> {
        let (periods, sites) = (self.partition.layout.periods, &self.partition.sites);
        let start = self.partition.time_index(category, 0);
        let mut border = Vec::with_capacity(self.partition.border());
        border.extend_from_slice(&of[start..start + periods]);
        if self.partition.has_shape() {
            border.push(of[sites.log_shape + category]);
        }
        border.extend((0..Self::COEFFICIENTS).map(|k| of[sites.category[k] + category]));
        border
    }

    pub(crate) fn write_border(&self, to: &mut [f64], category: usize, border: &[f64]) {
        let (periods, sites) = (self.partition.layout.periods, &self.partition.sites);
        let start = self.partition.time_index(category, 0);
        to[start..start + periods].copy_from_slice(&border[..periods]);
        if self.partition.has_shape() {
            to[sites.log_shape + category] = border[periods];
        }
        for k in 0..Self::COEFFICIENTS {
            to[sites.category[k] + category] = border[self.partition.tail() + k];
        }
    }
}
