//! The factor of rows that were walked elsewhere, and its use.

use crate::assemble::{Assembled, squares_of};
use crate::block::BlockFactor;
use crate::border::{Border, ChunkSums, all_of};
use crate::elsewhere::{CategoryWalked, ProductThird, ProductWalked, Walked};
use crate::error::FactorError;
use crate::factor::{ArrowheadFactor, Blocks};
use crate::partition::Partition;
use crate::sites::BlockPriors;
use crate::tasks;
use crate::weights::Weights;
use std::sync::Arc;

/// Weights that are fetched at a time.
const WEIGHTS_AT_A_TIME: usize = 1 << 22;

impl<const D: usize> Assembled<D> {
    /// The factor and the other results of a pass that was walked elsewhere. This is only for counts without
    /// a shape.
    ///
    /// # Errors
    /// When the precision is not positive definite, or the work is stopped.
    ///
    /// # Panics
    /// When the walk has a shape.
    pub fn of_walked(
        partition: &Arc<Partition<D>>,
        priors: &BlockPriors<D>,
        walked: Walked<D>,
        threads: usize,
    ) -> Result<Self, FactorError> {
        assert!(!partition.has_shape(), "no other device knows shapes");
        let Walked {
            products,
            categories,
            rows,
        } = walked;
        let lower = |of: &ProductWalked<D>| BlockFactor { rows: of.lower };
        if let Some(place) = products.iter().position(|of| !lower(of).is_sound()) {
            return Err(FactorError::Product(partition.order[place] as usize));
        }
        partition.watch.begin(0.5 * partition.operations_of_covariances());
        let categories: Vec<(usize, CategoryWalked<D>)> = categories.into_iter().enumerate().collect();
        let borders = tasks::run(
            threads,
            categories,
            || (),
            |(), (category, of)| {
                let sums = ChunkSums {
                    value: of.value,
                    by_period: of.by_period,
                    weights: of.weights,
                    cross: Vec::new(),
                    shape: [0.0; 3],
                    by_category: of.by_category,
                    schur: of.schur,
                    failed: None,
                };
                Border::new(partition, category, sums, priors, 0.0)
            },
        );
        if partition.watch.is_stopped() {
            return Err(FactorError::Stopped);
        }
        let borders = all_of(borders)?;
        let blocks = Blocks {
            weights: Weights::Held(Vec::new()),
            lower: products.iter().map(lower).collect(),
            shapes: Vec::new(),
            elsewhere: Some(rows),
        };
        let gradients = products.iter().map(|of| of.gradient).collect();
        let forwarded: Vec<[f64; D]> = products.iter().map(|of| of.forwarded).collect();
        let squares = squares_of(&forwarded);
        Ok(Assembled::of_borders(
            partition,
            priors,
            borders,
            (blocks, gradients, forwarded, squares),
            threads,
        ))
    }
}

impl<const D: usize> ArrowheadFactor<D> {
    /// Whether the rows' weights lie elsewhere, so that visiting the rows requires
    /// [`ArrowheadFactor::at_home`] first.
    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// For a factor whose rows lie elsewhere: the same factor with the weights of only the products that are
    /// `asked` for. It visits those as the whole factor would, but cannot solve.
    ///
    /// # Errors
    /// When the device fails.
    pub fn at_home(&self, asked: impl Fn(usize) -> bool) -> Result<Self, FactorError> {
        let Some(rows) = &self.elsewhere else {
            return Ok(self.clone());
        };
        let places: Vec<usize> = (0..self.partition.order.len())
            .filter(|place| asked(self.partition.order[*place] as usize))
            .collect();
        let partition = self.partition.through_places(&places);
        let (panel, periods) = (&partition.panel, partition.layout.periods);
        let mut weights = Vec::with_capacity(partition.rows());
        for places in places.chunks((WEIGHTS_AT_A_TIME / periods).max(1)) {
            let found = rows.weights(places)?;
            for (place, own) in places.iter().zip(found.chunks_exact(periods)) {
                let product = self.partition.order[*place] as usize;
                match panel.presence() {
                    None => weights.extend_from_slice(own),
                    Some(_) => weights.extend(panel.product_rows(product).map(|row| own[row.period])),
                }
            }
        }
        let mut home = self.clone_above_products(Arc::new(partition));
        home.weights = Weights::Held(weights);
        home.products = places.iter().map(|place| self.products[*place]).collect();
        Ok(home)
    }

    /// For a factor whose rows lie elsewhere and whose weights are the rates of Poisson rows:
    /// `-Q^-1 sum_r x_r w_r v_r / 2`, in the order of [`Partition::sites`], with `v_r` the variance of a row's log
    /// rate; and the intermediate results for every product, in their order.
    ///
    /// # Errors
    /// When the device fails, or the work is stopped.
    ///
    /// # Panics
    /// When the rows lie on the host.
    pub fn shifted_by_third_order(&self) -> Result<(Vec<f64>, Vec<ProductThird<D>>), FactorError> {
        let partition = &*self.partition;
        let rows = self.elsewhere.as_ref().expect("the rows lie elsewhere");
        partition.watch.begin(self.operations_of_covariances());
        let covariances = self.border_covariances();
        if partition.watch.is_stopped() {
            return Err(FactorError::Stopped);
        }
        let found = rows.third_order(covariances)?;
        let mut solved = vec![0.0; partition.sites.latents];
        for (category, by_period) in found.by_period.iter().enumerate() {
            let to = &mut solved[partition.time_index(category, 0)..][..partition.layout.periods];
            to.iter_mut().zip(by_period).for_each(|(to, third)| *to = -third);
        }
        let gradients = found.products.iter().map(|of| of.sums.map(|sum| -sum));
        let forwarded: Vec<[f64; D]> = gradients
            .zip(&self.products)
            .map(|(gradient, lower)| lower.forward(gradient))
            .collect();
        // V' y = B' L^-T y.
        let backward = forwarded.iter().zip(&self.products);
        let backward: Vec<[f64; D]> = backward.map(|(own, lower)| lower.backward(*own)).collect();
        let mut coupled = rows.transpose_times(&backward)?;
        let mut first = 0;
        for (category, sums) in coupled.iter_mut().enumerate() {
            let own = &backward[first..first + partition.sizes[category]];
            first += own.len();
            for k in 0..D - 1 {
                let coefficients: f64 = own.iter().map(|own| own[k]).sum();
                sums.push(-self.priors.product[k] * coefficients);
            }
        }
        partition.write_blocks(&mut solved, &forwarded);
        self.forward_borders(&mut solved, &coupled);
        let borders = self.backward_borders(&mut solved);
        self.solve_upper_products(&mut solved, rows.times(&borders)?);
        let mut products = vec![None; partition.order.len()];
        for (product, of) in partition.order.iter().zip(found.products) {
            products[*product as usize] = Some(of);
        }
        Ok((solved, products.into_iter().flatten().collect()))
    }
}
