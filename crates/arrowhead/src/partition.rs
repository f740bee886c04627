//! The order in which passes walk the panel: products by category, cut into parts.

use crate::error::FactorError;
use crate::ranks::Ranks;
use crate::regressor::Regressor;
use crate::sites::BlockLayout;
use crate::watch::Watch;
use infermark_model::design::PRODUCT_LATENTS;
use infermark_model::{Layout, Likelihood, Panel, Shard, Site};
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

/// Products whose couplings are gathered before they are multiplied: 2 x 64 columns of 168 periods stay in
/// the second-level cache.
pub(crate) const GATHERED: usize = 64;

/// Least number of products of a part: its sums have to be reduced with those of the other parts.
const LEAST_PRODUCTS: usize = 8 * GATHERED;

/// Largest number of parts of a panel, in addition to one per category: enough for the threads of a large
/// machine.
const MOST_PARTS: usize = 256;

/// A sample is small if it has at most one in this many products.
const SMALL_PART: usize = 2;

/// A part of a category's products, by place in the walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) category: usize,
    pub(crate) places: Range<usize>,
    /// Products that the same part of the whole panel has before these, on another rank.
    pub(crate) before: usize,
}

/// A panel with its products by category, or the products of one of its shards. The parts do not depend on the number of threads, so neither do sums over them.
#[derive(Debug)]
pub struct Partition<const D: usize = PRODUCT_LATENTS> {
    pub(crate) panel: Arc<Panel>,
    /// One for each coefficient of a product.
    pub(crate) regressors: Vec<Regressor>,
    pub(crate) layout: Layout,
    pub(crate) sites: BlockLayout<D>,
    /// The product at every place.
    pub(crate) order: Vec<u32>,
    /// Number of rows before every place, and in total: the offset of a place's weights.
    pub(crate) row_start: Vec<usize>,
    pub(crate) parts: Vec<Chunk>,
    /// Number of products of each category, whether or not they are walked; for a sample, of those that it represents.
    pub(crate) sizes: Vec<usize>,
    /// How many products each place represents; empty if that is one.
    scales: Vec<f64>,
    pub(crate) watch: Arc<Watch>,
    /// The ranks that walk the other products, if not all are walked here.
    ranks: Option<Arc<Ranks>>,
}

/// The products of a walk.
#[derive(Default)]
struct Walked {
    /// In the order of the walk.
    order: Vec<u32>,
    /// How many products each represents; empty if that is one.
    scales: Vec<f64>,
    /// Products of the first one's category that come before it in the whole panel.
    before: usize,
    ranks: Option<Arc<Ranks>>,
}

/// The panel and axes of a walk, whatever its products.
struct Axes<'a, const D: usize> {
    panel: &'a Arc<Panel>,
    regressors: Vec<Regressor>,
    layout: Layout,
    sites: BlockLayout<D>,
}

/// Number of products of each category.
fn sizes_of(panel: &Panel) -> Vec<usize> {
    let mut sizes = vec![0; panel.layout().categories];
    for category in panel.category_of() {
        sizes[*category as usize] += 1;
    }
    sizes
}

/// Largest number of products of a part, for a panel with `products`.
pub(crate) fn products_of_part(products: usize) -> usize {
    products
        .div_ceil(MOST_PARTS)
        .next_multiple_of(GATHERED)
        .max(LEAST_PRODUCTS)
}

impl Partition<PRODUCT_LATENTS> {
    /// The walk over a panel whose counts follow `likelihood`, with the model's sites.
    pub fn new(panel: &Arc<Panel>, likelihood: Likelihood) -> Self {
        let sites = BlockLayout::of_model(panel.layout_for(likelihood));
        Self::with_sites(panel, likelihood, sites, Regressor::of_model(panel).into())
    }

    /// The walk over the products of a shard, whose sums the ranks add up to those of the whole panel. Its parts are those of the
    /// whole panel's walk, as far as the shard has them.
    pub fn of_shard(shard: &Shard, likelihood: Likelihood, ranks: Arc<Ranks>) -> Self {
        let panel = shard.panel();
        let axes = Axes {
            panel,
            regressors: Regressor::of_model(panel).into(),
            layout: panel.layout_for(likelihood),
            sites: BlockLayout::of_model(panel.layout_for(likelihood)),
        };
        let category_of = panel.category_of();
        let first = shard.products()[0];
        let category = category_of[first as usize];
        let earlier = &category_of[..first as usize];
        let walked = Walked {
            order: shard.products().to_vec(),
            before: earlier.iter().filter(|of| **of == category).count(),
            ranks: Some(ranks),
            ..Walked::default()
        };
        Self::through(axes, sizes_of(panel), walked, Arc::default())
    }
}

impl<const D: usize> Partition<D> {
    /// The walk over a panel whose log rates have D - 1 `regressors`, with the sites of [`BlockLayout::new`].
    ///
    /// # Panics
    /// When the number of regressors is not D - 1.
    pub fn with_regressors(panel: &Arc<Panel>, likelihood: Likelihood, regressors: Vec<Regressor>) -> Self {
        let sites = BlockLayout::new(panel.layout_for(likelihood));
        Self::with_sites(panel, likelihood, sites, regressors)
    }

    fn with_sites(
        panel: &Arc<Panel>,
        likelihood: Likelihood,
        sites: BlockLayout<D>,
        regressors: Vec<Regressor>,
    ) -> Self {
        assert_eq!(
            regressors.len() + 1,
            D,
            "a coefficient for each regressor, and the effect"
        );
        let order = panel.products_by_category();
        let layout = panel.layout_for(likelihood);
        let axes = Axes {
            panel,
            regressors,
            layout,
            sites,
        };
        let walked = Walked {
            order,
            ..Walked::default()
        };
        Self::through(axes, sizes_of(panel), walked, Arc::default())
    }

    /// The walk over a sample of at least this many products of each category that represents all: half of
    /// them are those with the most units, the others each represent an equal share of the rest. `None` if
    /// that would not be a small fraction.
    ///
    /// A few products may account for most of a category's sales, and a sample by number would miss them.
    pub fn sample(&self, least: usize) -> Option<Self> {
        debug_assert!(self.scales.is_empty(), "a sample is taken of all");
        let units = &self.panel.sums().product;
        let all = match &self.ranks {
            Some(_) => &self.panel.products_by_category(),
            None => &self.order,
        };
        let (mut order, mut scales) = (Vec::new(), Vec::new());
        let mut start = 0;
        for size in &self.sizes {
            let own = &all[start..start + size];
            start += size;
            let whole = (least / 2).min(*size);
            let every = ((size - whole) / (least / 2).max(1)).max(1);
            let mut by_units = own.to_vec();
            by_units.sort_unstable_by_key(|product| (Reverse(units[*product as usize]), *product));
            let (most, others) = by_units.split_at(whole);
            let mut drawn: Vec<(u32, f64)> = others
                .iter()
                .step_by(every)
                .map(|product| (*product, 0.0))
                .collect();
            let scale = others.len() as f64 / drawn.len() as f64;
            drawn.iter_mut().for_each(|(_, own)| *own = scale);
            drawn.extend(most.iter().map(|product| (*product, 1.0)));
            // In the order of memory.
            drawn.sort_unstable_by_key(|(product, _)| *product);
            order.extend(drawn.iter().map(|(product, _)| *product));
            scales.extend(drawn.iter().map(|(_, scale)| *scale));
        }
        if order.len() * SMALL_PART > all.len() {
            return None;
        }
        if self.ranks.is_some() {
            let is_own = |product: &u32| self.is_walked(*product as usize);
            let both = order.into_iter().zip(scales);
            (order, scales) = both.filter(|(product, _)| is_own(product)).unzip();
        }
        let (sizes, watch) = (self.sizes.clone(), self.watch.clone());
        let walked = Walked {
            order,
            scales,
            before: 0,
            ranks: self.ranks.clone(),
        };
        Some(Self::through(self.axes(), sizes, walked, watch))
    }

    /// The walk over only the products at some places, in their order.
    pub(crate) fn through_places(&self, places: &[usize]) -> Self {
        let order = places.iter().map(|place| self.order[*place]).collect();
        let (sizes, watch) = (self.sizes.clone(), self.watch.clone());
        let walked = Walked {
            order,
            ..Walked::default()
        };
        Self::through(self.axes(), sizes, walked, watch)
    }

    fn axes(&self) -> Axes<'_, D> {
        Axes {
            panel: &self.panel,
            regressors: self.regressors.clone(),
            layout: self.layout,
            sites: self.sites,
        }
    }

    fn through(axes: Axes<'_, D>, sizes: Vec<usize>, walked: Walked, watch: Arc<Watch>) -> Self {
        let Walked {
            order,
            scales,
            before,
            ranks,
        } = walked;
        let Axes {
            panel,
            regressors,
            layout,
            sites,
        } = axes;
        let mut row_start = Vec::with_capacity(order.len() + 1);
        row_start.push(0);
        let mut rows = 0;
        for product in &order {
            rows += panel.rows_of(*product as usize);
            row_start.push(rows);
        }
        let most = products_of_part(if ranks.is_some() {
            layout.products
        } else {
            order.len()
        });
        let mut parts: Vec<Chunk> = Vec::new();
        for (place, product) in order.iter().enumerate() {
            let category = panel.category_of()[*product as usize] as usize;
            match parts.last_mut() {
                Some(part) if part.category == category && part.before + part.places.len() < most => {
                    part.places.end += 1;
                }
                last => {
                    let before = if last.is_none() { before % most } else { 0 };
                    parts.push(Chunk {
                        category,
                        places: place..place + 1,
                        before,
                    });
                }
            }
        }
        Partition {
            panel: panel.clone(),
            regressors,
            layout,
            sites,
            order,
            row_start,
            parts,
            sizes,
            scales,
            watch,
            ranks,
        }
    }

    /// The ranks that walk the panel's other products; `None` of a walk over all of them.
    pub fn ranks(&self) -> Option<&Ranks> {
        self.ranks.as_deref()
    }

    /// Whether the walk visits a product.
    pub fn is_walked(&self, product: usize) -> bool {
        if self.ranks.is_none() {
            return true;
        }
        let key = |product: u32| (self.panel.category_of()[product as usize], product);
        let [first, last] = [self.order.first(), self.order.last()].map(|end| end.map(|end| key(*end)));
        let own = Some(key(product as u32));
        first <= own && own <= last
    }

    /// Replaces sums over the products that are walked here by those over all products. An error of a rank is the result on all.
    ///
    /// # Errors
    /// The own one, that of another rank, or [`FactorError::Communication`].
    pub fn sum(&self, numbers: &mut Vec<f64>, own: Result<(), FactorError>) -> Result<(), FactorError> {
        match &self.ranks {
            Some(ranks) => ranks.sum(numbers, own),
            None => own,
        }
    }

    /// The result of work that every rank does alike; an error of a rank is the result on all.
    ///
    /// # Errors
    /// The own one, that of another rank, or [`FactorError::Communication`].
    pub fn agreed<T>(&self, own: Result<T, FactorError>) -> Result<T, FactorError> {
        let (own, error) = match own {
            Ok(own) => (Some(own), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.sum(&mut Vec::new(), error)?;
        Ok(own.expect("there is no error"))
    }

    /// [`FactorError::Stopped`] if passes are to stop.
    ///
    /// # Errors
    /// That one.
    pub fn unless_stopped(&self) -> Result<(), FactorError> {
        if self.watch.is_stopped() {
            Err(FactorError::Stopped)
        } else {
            Ok(())
        }
    }

    /// Number of coefficients of a product, and thus of a category.
    pub(crate) const COEFFICIENTS: usize = D - 1;

    /// Position of a category's effect in a period.
    pub(crate) fn time_index(&self, category: usize, period: usize) -> usize {
        self.sites.time + category * self.layout.periods + period
    }

    /// The watch over its passes.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Approximate number of floating-point operations of a pass: the products' updates of the borders and
    /// the borders' Cholesky factors and, if `with_variances`, the borders' covariances and the variances of
    /// the rows.
    pub fn operations_of_pass(&self, with_variances: bool) -> f64 {
        let factors = 0.5 * self.operations_of_covariances();
        self.operations_of_products(self.order.len(), with_variances)
            + if with_variances { 3.0 * factors } else { factors }
    }

    /// Operations of the borders' covariances: twice as many as for their factors.
    pub(crate) fn operations_of_covariances(&self) -> f64 {
        2.0 / 3.0 * self.layout.categories as f64 * (self.border() as f64).powi(3)
    }

    /// Operations of multiplying this many products' couplings with a covariance.
    pub(crate) fn operations_of_moments(&self, products: usize) -> f64 {
        self.operations_of_products(products, true) - self.operations_of_products(products, false)
    }

    /// Operations of this many products: two outer products, and a multiplication with the covariance.
    pub(crate) fn operations_of_products(&self, products: usize, with_variances: bool) -> f64 {
        let square = (self.border() as f64).powi(2);
        products as f64 * square * if with_variances { 6.0 } else { 2.0 }
    }

    /// The panel.
    pub fn panel(&self) -> &Arc<Panel> {
        &self.panel
    }

    /// The sizes of the axes, and of the model's sites.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The positions of the latents.
    pub fn sites(&self) -> &BlockLayout<D> {
        &self.sites
    }

    /// The product at every place: products by category, and within a category in their order.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// Products of a category.
    pub fn products_of(&self, category: usize) -> usize {
        self.sizes[category]
    }

    /// How many products a place represents.
    pub(crate) fn stands_for(&self, place: usize) -> f64 {
        self.scales.get(place).copied().unwrap_or(1.0)
    }

    /// Length of a category's border: its periods, `log_shape` if the likelihood has it, and its
    /// coefficients.
    pub(crate) fn border(&self) -> usize {
        self.tail() + Self::COEFFICIENTS
    }

    /// Position of the category's coefficients in its border.
    pub(crate) fn tail(&self) -> usize {
        self.layout.periods + usize::from(self.has_shape())
    }

    /// Whether the border has a `log_shape`.
    pub(crate) fn has_shape(&self) -> bool {
        self.layout.len(Site::LogShape) > 0
    }

    /// Number of rows of its products.
    pub(crate) fn rows(&self) -> usize {
        self.row_start[self.order.len()]
    }

    /// Rows of a part.
    pub(crate) fn rows_of(&self, part: &Chunk) -> Range<usize> {
        self.row_start[part.places.start]..self.row_start[part.places.end]
    }
}
