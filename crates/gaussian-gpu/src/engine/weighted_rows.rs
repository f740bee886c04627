//! Requests to the rows after a walk: products with their weights, marginals, third derivatives.

use super::buffers::{Buffer, empty, upload};
use super::{Rows, by_period, cubes_for};
use crate::kernels::{
    LANES, THREADS, Third, border_products, gather, squares, third_order, transposed_products,
};
use cubecl::prelude::*;
use infermark_arrowhead::{BlockMatrix, FactorError, ProductThird, RowsElsewhere, ThirdOrder};
use std::fmt;
use std::sync::{Arc, MutexGuard};

/// The rows with the weights of a walk.
pub(super) struct WeightedRows<R: Runtime> {
    pub(super) rows: Arc<Rows<R>>,
    /// The columns of [`Column`](crate::kernels::Column).
    pub(super) left: Buffer,
    pub(super) walk: u64,
}

impl<R: Runtime> fmt::Debug for WeightedRows<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightedRows")
            .field("rows", &self.rows)
            .field("walk", &self.walk)
            .finish()
    }
}

impl<R: Runtime> WeightedRows<R> {
    /// Holds the rows, if their weights are still this walk's.
    fn held(&self) -> Result<MutexGuard<'_, u64>, FactorError> {
        let held = self.rows.held();
        if *held == self.walk {
            Ok(held)
        } else {
            Err(FactorError::Device(
                "its weights are those of a later point by now".into(),
            ))
        }
    }
}

impl<R: Runtime> RowsElsewhere for WeightedRows<R> {
    fn times(&self, borders: &[Vec<f64>]) -> Result<Vec<[f64; 2]>, FactorError> {
        let _held = self.held()?;
        let rows = &*self.rows;
        let (plan, client) = (&rows.plan, &rows.client);
        let of_periods: Vec<f64> = borders
            .iter()
            .flat_map(|border| &border[..plan.periods])
            .copied()
            .collect();
        let of_periods = upload(client, of_periods);
        let found = empty(client, 2 * plan.slots());
        // SAFETY: there are T entries to each category, and blocks have no others; rows and slots are those of the blocks.
        unsafe {
            border_products::launch_unchecked::<R>(
                client,
                CubeCount::Static(plan.block_count().min(plan.striding) as u32, 1, 1),
                CubeDim::new_1d(LANES as u32),
                rows.log_prices.arg(),
                rows.weights.arg(),
                of_periods.arg(),
                rows.blocks.arg(),
                found.arg(),
                plan.periods as u32,
                plan.slots() as u32,
            );
        }
        let found = rows.read(&found)?;
        let order = rows.walk.order().iter();
        let categories = order.map(|product| rows.walk.panel().category_of()[*product as usize]);
        // The coupling to `category_a` has no rows.
        let with_category = plan
            .by_place(&found)
            .zip(categories)
            .map(|([by_a, by_e], category)| {
                let by_category = rows.precision_a * borders[category as usize][plan.periods];
                [by_a - by_category, by_e]
            });
        Ok(with_category.collect())
    }

    fn squares(&self, roots: &[Vec<f64>]) -> Result<Vec<BlockMatrix<2>>, FactorError> {
        let _held = self.held()?;
        let rows = &*self.rows;
        let (plan, client) = (&rows.plan, &rows.client);
        let roots: Vec<f64> = roots.iter().flatten().copied().collect();
        let roots = upload(client, roots);
        let found = empty(client, 3 * plan.slots());
        // SAFETY: a root has T + 1 columns of T + 2 rows, one per category, and blocks have no others; rows and slots are those of the blocks.
        unsafe {
            squares::launch_unchecked::<R>(
                client,
                CubeCount::Static((2 * plan.block_count()).min(plan.striding) as u32, 1, 1),
                CubeDim::new_1d(THREADS as u32),
                rows.log_prices.arg(),
                rows.weights.arg(),
                self.left.arg(),
                rows.prior.arg(),
                roots.arg(),
                rows.blocks.arg(),
                found.arg(),
                plan.periods as u32,
                plan.slots() as u32,
            );
        }
        let square = |[aa, ae, ee]: [f64; 3]| [[aa, ae], [ae, ee]];
        Ok(plan.by_place(&rows.read(&found)?).map(square).collect())
    }

    fn transpose_times(&self, pairs: &[[f64; 2]]) -> Result<Vec<Vec<f64>>, FactorError> {
        let _held = self.held()?;
        let rows = &*self.rows;
        let (plan, client) = (&rows.plan, &rows.client);
        let pairs = upload(client, plan.by_slot(0.0, pairs.iter().copied()));
        let sums = empty(client, plan.walks.len() * plan.periods);
        // SAFETY: the runs cover the blocks, of which there are LANES slots and LANES x T rows each, and T sums to each run.
        unsafe {
            transposed_products::launch_unchecked::<R>(
                client,
                CubeCount::Static(plan.walks.len() as u32, 1, 1),
                CubeDim::new_1d(LANES as u32),
                rows.log_prices.arg(),
                rows.weights.arg(),
                pairs.arg(),
                rows.walks.arg(),
                sums.arg(),
                plan.periods as u32,
                plan.slots() as u32,
            );
        }
        let sums = rows.read(&sums)?;
        let of_category = |category| by_period(&sums, plan.walks.range_of(category), plan.periods);
        Ok((0..plan.categories).map(of_category).collect())
    }

    fn third_order(&self, covariances: &[Vec<f64>]) -> Result<ThirdOrder, FactorError> {
        let _held = self.held()?;
        let rows = &*self.rows;
        let (plan, client) = (&rows.plan, &rows.client);
        let covariances: Vec<f64> = covariances.iter().flatten().copied().collect();
        let covariances = upload(client, covariances);
        let runs = plan.thirds.len();
        let room = empty(client, runs * plan.room_of_thirds());
        let found = empty(client, Third::COUNT * plan.slots());
        let sums = empty(client, runs * plan.periods);
        // SAFETY: the runs cover the blocks, each has its own room and T sums, and each category a covariance of T + 1 by T + 1; rows and slots are
        // those of the blocks.
        unsafe {
            third_order::launch_unchecked::<R>(
                client,
                CubeCount::Static(runs as u32, 1, 1),
                CubeDim::new_1d(THREADS as u32),
                rows.log_prices.arg(),
                rows.weights.arg(),
                self.left.arg(),
                rows.prior.arg(),
                covariances.arg(),
                rows.blocks.arg(),
                rows.thirds.arg(),
                room.arg(),
                found.arg(),
                sums.arg(),
                plan.periods as u32,
                plan.slots() as u32,
            );
        }
        let (found, sums) = (rows.read(&found)?, rows.read(&sums)?);
        let product = |[elasticity, effect, by_a, by_e, cubes]: [f64; Third::COUNT]| ProductThird {
            variances: [elasticity, effect],
            sums: [by_a, by_e],
            cubes,
        };
        let of_category = |category| by_period(&sums, plan.thirds.range_of(category), plan.periods);
        Ok(ThirdOrder {
            products: plan.by_place(&found).map(product).collect(),
            by_period: (0..plan.categories).map(of_category).collect(),
        })
    }

    fn weights(&self, places: &[usize]) -> Result<Vec<f64>, FactorError> {
        let _held = self.held()?;
        let rows = &*self.rows;
        let (plan, client) = (&rows.plan, &rows.client);
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let slots: Vec<u32> = places.iter().map(|place| plan.slot_of_place[*place]).collect();
        let slots = upload(client, slots);
        let found = empty(client, slots.len * plan.periods);
        // SAFETY: slots are below the grid's, and there are T entries to each.
        unsafe {
            gather::launch_unchecked::<R>(
                client,
                CubeCount::Static(cubes_for(found.len, THREADS) as u32, 1, 1),
                CubeDim::new_1d(THREADS as u32),
                rows.weights.arg(),
                slots.arg(),
                found.arg(),
                plan.periods as u32,
            );
        }
        rows.read(&found)
    }
}
