//! The factor, and solving with it.

use crate::coupling::Coupling;
use crate::elsewhere::RowsElsewhere;
use crate::product::Lower2;
use crate::triangular::{BorderFactor, Lower};
use crate::walk::{Walk, products_of_part};
use infermark_model::Panel;
use infermark_model::priors::Priors;
use infermark_model::site::Site;
use std::sync::{Arc, OnceLock};

/// One part in so many of the squares' bytes that the allocator holds back between passes; measured.
const HELD_BACK: u64 = 10;

/// `L` of `Q = L L'`; see the [crate's page](crate). Vectors are natural parameters in the order of
/// [`Layout`](infermark_model::Layout).
#[derive(Debug, Clone)]
pub struct ArrowheadFactor {
    pub(crate) walk: Arc<Walk>,
    pub(crate) priors: Priors,
    /// One a row, in the order of the walk.
    pub(crate) weights: Vec<f64>,
    /// `L_i`, in the order of the walk.
    pub(crate) products: Vec<Lower2>,
    /// Couplings of the products to the log shapes, in the order of the walk; empty where there are none.
    pub(crate) shapes: Vec<[f64; 2]>,
    /// `R_c`.
    pub(crate) categories: Vec<Lower>,
    /// The diagonals of `D_c`.
    pub(crate) diagonals: Vec<Vec<f64>>,
    /// The last entry of `L`.
    pub(crate) top: f64,
    /// Covariances of the borders, once they were asked for.
    pub(crate) covariances: OnceLock<Vec<Vec<f64>>>,
    pub(crate) threads: usize,
    /// Who has the weights, where the host has not.
    pub(crate) elsewhere: Option<Arc<dyn RowsElsewhere>>,
    /// Whether the precision of a log shape was below the least one, which stands in for it.
    stands_in: bool,
}

/// What a factor has of rows and products, by place.
pub(crate) struct Blocks {
    /// Weights of the rows; none where they lie elsewhere.
    pub(crate) weights: Vec<f64>,
    pub(crate) lower: Vec<Lower2>,
    /// Couplings of the products to the log shapes; empty where there are none.
    pub(crate) shapes: Vec<[f64; 2]>,
    pub(crate) elsewhere: Option<Arc<dyn RowsElsewhere>>,
}

/// What is left of a factor whose place another one takes.
pub(crate) struct Dismantled {
    pub(crate) walk: Arc<Walk>,
    pub(crate) priors: Priors,
    /// Weights of the rows, factors of the products, their couplings to the log shapes.
    pub(crate) by_place: (Vec<f64>, Vec<Lower2>, Vec<[f64; 2]>),
    pub(crate) covariances: Option<Vec<Vec<f64>>>,
    pub(crate) threads: usize,
}

impl ArrowheadFactor {
    pub(crate) fn of_parts(
        walk: Arc<Walk>,
        priors: Priors,
        blocks: Blocks,
        borders: Vec<BorderFactor>,
        diagonals: Vec<Vec<f64>>,
        threads: usize,
    ) -> Self {
        // 1/s_c^2 - u_c^2 = p d / (p + d), d what the data tell of category_a: the difference is lost where p is large.
        let precision = priors.category_a_sd.powi(-2);
        let informed = |border: &BorderFactor| border.informed / (1.0 + border.informed / precision);
        let top = priors.global_a_sd.powi(-2) + borders.iter().map(informed).sum::<f64>();
        ArrowheadFactor {
            walk,
            priors,
            weights: blocks.weights,
            products: blocks.lower,
            shapes: blocks.shapes,
            elsewhere: blocks.elsewhere,
            stands_in: borders.iter().any(|border| border.stands_in),
            categories: borders.into_iter().map(|border| border.lower).collect(),
            diagonals,
            top: top.sqrt(),
            covariances: OnceLock::new(),
            threads,
        }
    }

    /// The same with another walk, and nothing of rows and products.
    pub(crate) fn clone_above_products(&self, walk: Arc<Walk>) -> Self {
        ArrowheadFactor {
            walk,
            priors: self.priors,
            weights: Vec::new(),
            products: Vec::new(),
            shapes: Vec::new(),
            categories: self.categories.clone(),
            diagonals: self.diagonals.clone(),
            top: self.top,
            covariances: self.covariances.clone(),
            threads: self.threads,
            elsewhere: None,
            stands_in: self.stands_in,
        }
    }

    /// What a pass writes over, the covariances of the borders if they were asked for, and what it is called with; the rest is
    /// freed.
    pub(crate) fn dismantled(self) -> Dismantled {
        Dismantled {
            walk: self.walk,
            priors: self.priors,
            by_place: (self.weights, self.products, self.shapes),
            covariances: self.covariances.into_inner(),
            threads: self.threads,
        }
    }

    /// What couples the products to the borders.
    pub(crate) fn coupling(&self) -> Coupling<'_> {
        Coupling {
            walk: &self.walk,
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

    /// Whether the matrix is not the exact one: all else moved along, the log joint has less curvature along the log shape of a category
    /// than its rows can leave it, if any, and that least curvature stands in for it.
    pub fn stands_in(&self) -> bool {
        self.stands_in
    }

    /// The walk that its panel is passed in.
    pub fn walk(&self) -> &Arc<Walk> {
        &self.walk
    }

    /// Peak bytes, in addition to the panel, of a factor, the passes that make it and its marginals, on as many threads as the
    /// machine has.
    pub fn bytes(panel: &Panel) -> u64 {
        Self::bytes_on(panel, std::thread::available_parallelism().map_or(1, |n| n.get()))
    }

    /// The same on `threads` threads.
    ///
    /// Counted in squares of a border. A pass holds one per category, of the covariance or of the factor that replaces it; each thread
    /// holds a packed covariance and the sum of its part, of which memory has the lower triangle alone; where categories have several
    /// parts there is one more such triangle for those that are done. Marginals hold a factor and a covariance, or a root of it, per category,
    /// and a packed covariance per thread. The allocator holds back some of what is freed between passes.
    ///
    /// Against the growth of the resident memory in structured variational fits on two threads: 452 MB estimated and 483 measured for
    /// 1,000 periods in 24 categories, 490 and 465 for 3,000 periods in 2 categories of 600 products.
    pub fn bytes_on(panel: &Panel, threads: usize) -> u64 {
        let layout = panel.layout();
        let square = (layout.periods as u64 + 3).next_multiple_of(24).pow(2);
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
        8 * panel.rows() as u64
            + (44 + 16 + 24) * layout.products as u64
            + squares.saturating_add(squares / HELD_BACK)
    }

    /// `ln det Q`.
    pub fn ln_det(&self) -> f64 {
        let products: f64 = self.products.iter().map(Lower2::ln_det).sum();
        let categories: f64 = self.categories.iter().map(Lower::ln_det).sum();
        2.0 * (products + categories + self.top.ln())
    }

    /// The diagonal of `Q`.
    pub fn diagonal(&self) -> Vec<f64> {
        let layout = &self.walk.layout;
        let mut diagonal = vec![0.0; layout.latents()];
        let precision = self.priors.category_a_sd.powi(-2);
        diagonal[0] = self.priors.global_a_sd.powi(-2) + layout.categories as f64 * precision;
        for (category, border) in self.diagonals.iter().enumerate() {
            self.write_border(&mut diagonal, category, border);
        }
        let (a, e) = (layout.start(Site::ProductA), layout.start(Site::ProductEffect));
        for (product, lower) in self.walk.order.iter().zip(&self.products) {
            [diagonal[a + *product as usize], diagonal[e + *product as usize]] = lower.diagonal();
        }
        diagonal
    }

    /// The entries of `Q` between the elasticity and the effect of each product, length N.
    pub fn couplings_of_products(&self) -> Vec<f64> {
        let mut coupled = vec![0.0; self.walk.layout.products];
        for (product, lower) in self.walk.order.iter().zip(&self.products) {
            coupled[*product as usize] = lower.coupling();
        }
        coupled
    }

    /// `Q^-1 b`.
    pub fn solved(&self, mut b: Vec<f64>) -> Vec<f64> {
        self.solve(&mut b);
        b
    }

    /// `Q^-1 b`, where it lies.
    pub fn solve(&self, b: &mut [f64]) {
        self.solve_lower(b);
        self.solve_upper(b);
    }

    /// `L^-1 b`, where it lies: what turns a gradient by the parameters into one by the whitened ones.
    pub fn solve_lower(&self, b: &mut [f64]) {
        self.solve_lower_by(b, |pairs| self.coupling().transpose_times(pairs));
    }

    /// The same with `transpose_times` for [`Coupling::transpose_times`].
    pub(crate) fn solve_lower_by(
        &self,
        b: &mut [f64],
        transpose_times: impl FnOnce(&[[f64; 2]]) -> Vec<Vec<f64>>,
    ) {
        let mut pairs = self.walk.pairs(b);
        for (pair, lower) in pairs.iter_mut().zip(&self.products) {
            *pair = lower.forward(*pair);
        }
        self.walk.write_pairs(b, &pairs);
        // V' y = B' L^-T y.
        for (pair, lower) in pairs.iter_mut().zip(&self.products) {
            *pair = lower.backward(*pair);
        }
        let coupled = transpose_times(&pairs);
        self.forward_borders(b, &coupled);
    }

    /// The rest of `L^-1 b` once the products' part is there: borders, less what the products put on them, and the top.
    pub(crate) fn forward_borders(&self, b: &mut [f64], coupled: &[Vec<f64>]) {
        let mut top = b[0];
        for (c, sum) in coupled.iter().enumerate() {
            let mut z = self.read_border(b, c);
            z.iter_mut().zip(sum).for_each(|(z, s)| *z -= s);
            self.categories[c].forward(&mut z);
            top -= self.top_coupling(c) * z[self.walk.border() - 1];
            self.write_border(b, c, &z);
        }
        b[0] = top / self.top;
    }

    /// `L^-T y`, where it lies: whitened coordinates to parameters.
    pub fn solve_upper(&self, y: &mut [f64]) {
        self.solve_upper_by(y, |borders| self.coupling().times(borders));
    }

    /// The same with `times` for [`Coupling::times`].
    pub(crate) fn solve_upper_by(&self, y: &mut [f64], times: impl FnOnce(&[Vec<f64>]) -> Vec<[f64; 2]>) {
        let borders = self.backward_borders(y);
        let by_border = times(&borders);
        self.solve_upper_products(y, by_border);
    }

    /// The products' part of `L^-T y`, where it lies, `by_border` being `B_i` times the border's part.
    pub(crate) fn solve_upper_products(&self, y: &mut [f64], by_border: Vec<[f64; 2]>) {
        let mut pairs = self.walk.pairs(y);
        for ((pair, by), lower) in pairs.iter_mut().zip(by_border).zip(&self.products) {
            let by = lower.forward(by);
            *pair = lower.backward([pair[0] - by[0], pair[1] - by[1]]);
        }
        self.walk.write_pairs(y, &pairs);
    }

    /// The top and the borders of `L^-T y`, where they lie; also returns the borders.
    pub(crate) fn backward_borders(&self, y: &mut [f64]) -> Vec<Vec<f64>> {
        y[0] /= self.top;
        let mut borders = Vec::with_capacity(self.categories.len());
        for c in 0..self.categories.len() {
            let mut x = self.read_border(y, c);
            x[self.walk.border() - 1] -= self.top_coupling(c) * y[0];
            self.categories[c].backward(&mut x);
            self.write_border(y, c, &x);
            borders.push(x);
        }
        borders
    }

    /// Solves for the parameters above the products, these eliminated: with `g` the derivatives of a log density that was maximized
    /// over the products, `S^-1 g`, where it lies, is its Newton step. Entries of products stay as they are. Returns `g' S^-1 g`.
    pub fn solve_above_products(&self, g: &mut [f64]) -> f64 {
        let nothing = vec![vec![0.0; self.walk.border()]; self.categories.len()];
        self.forward_borders(g, &nothing);
        let slope = self.squares_above_products(g);
        self.backward_borders(g);
        slope
    }

    /// The sum of the squares of the entries above the products.
    pub(crate) fn squares_above_products(&self, of: &[f64]) -> f64 {
        let layout = &self.walk.layout;
        let sites = layout.sites().iter();
        let above = sites.filter(|site| !matches!(site, Site::ProductA | Site::ProductEffect));
        above
            .flat_map(|site| &of[layout.range(*site)])
            .map(|z| z * z)
            .sum()
    }

    /// `L' x`, where it lies: parameters to whitened coordinates, the inverse of [`ArrowheadFactor::solve_upper`].
    pub fn times_upper(&self, x: &mut [f64]) {
        self.times_upper_by(x, |borders| self.coupling().times(borders));
    }

    /// The same with `times` for [`Coupling::times`].
    pub(crate) fn times_upper_by(&self, x: &mut [f64], times: impl FnOnce(&[Vec<f64>]) -> Vec<[f64; 2]>) {
        let borders: Vec<Vec<f64>> = (0..self.categories.len())
            .map(|c| self.read_border(x, c))
            .collect();
        let mut pairs = self.walk.pairs(x);
        let by_border = times(&borders);
        for ((pair, by), lower) in pairs.iter_mut().zip(by_border).zip(&self.products) {
            let by = lower.forward(by);
            let own = lower.transpose_times(*pair);
            *pair = [own[0] + by[0], own[1] + by[1]];
        }
        self.walk.write_pairs(x, &pairs);
        for (c, mut border) in borders.into_iter().enumerate() {
            self.categories[c].transpose_times(&mut border);
            border[self.walk.border() - 1] += self.top_coupling(c) * x[0];
            self.write_border(x, c, &border);
        }
        x[0] *= self.top;
    }

    /// `R_c^-1` times the coupling of category c to the top: all zeros but its last entry, which is this.
    pub(crate) fn top_coupling(&self, category: usize) -> f64 {
        -self.priors.category_a_sd.powi(-2) / self.categories[category].last()
    }

    fn read_border(&self, of: &[f64], category: usize) -> Vec<f64> {
        let layout = &self.walk.layout;
        let start = layout.time_index(category, 0);
        let mut border = Vec::with_capacity(self.walk.border());
        border.extend_from_slice(&of[start..start + layout.periods]);
        if self.walk.has_shape() {
            border.push(of[layout.start(Site::LogShape) + category]);
        }
        border.push(of[layout.start(Site::CategoryA) + category]);
        border
    }

    pub(crate) fn write_border(&self, to: &mut [f64], category: usize, border: &[f64]) {
        let layout = &self.walk.layout;
        let start = layout.time_index(category, 0);
        to[start..start + layout.periods].copy_from_slice(&border[..layout.periods]);
        if self.walk.has_shape() {
            to[layout.start(Site::LogShape) + category] = border[layout.periods];
        }
        to[layout.start(Site::CategoryA) + category] = border[self.walk.border() - 1];
    }
}
