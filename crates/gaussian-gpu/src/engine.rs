//! The rows on the device, and the launches that walk them.

mod buffers;
mod weighted_rows;

use crate::kernels::{
    ABSENT, ABSENT_DEVIATION, CUBE_SUMS, Column, LANES, SHARED_BYTES, THREADS, TILE, fill, fold, place_rows,
    products, schur,
};
use crate::plan::{DeviceLimits, Plan, ROWS_AT_A_TIME};
use buffers::{Buffer, empty, lasting, upload};
use cubecl::prelude::*;
use infermark_arrowhead::{AtOptimum, CategoryWalked, FactorError, Partition, ProductWalked, Walked};
use infermark_backend::{BackendError, Cause, Remedy};
use infermark_gaussian::{GaussianObjective, LAST_CHANGE, MOST_GROWTH, MovingPairs, RowWalker, STEPS};
use infermark_model::{Panel, Site};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weighted_rows::WeightedRows;

/// The rows of a panel on a device.
pub(crate) struct Engine<R: Runtime>(Arc<Rows<R>>);

struct Rows<R: Runtime> {
    client: ComputeClient<R>,
    device: String,
    walk: Arc<Partition>,
    plan: Plan,
    /// Log prices by row of the grid.
    log_prices: Buffer,
    weights: Buffer,
    /// Constants by slot: units, and their sums weighted with log prices.
    constants: Buffer,
    /// Mean of the effects' prior, precisions of both.
    prior: Buffer,
    precision_a: f64,
    tuning: Buffer,
    blocks: Buffer,
    walks: Buffer,
    schurs: Buffer,
    schurs_of_category: Buffer,
    thirds: Buffer,
    tiles: Buffer,
    nothing: Buffer,
    /// The number of the walk that the weights are of; launches are made while it is held.
    number: Mutex<u64>,
}

impl<R: Runtime> fmt::Debug for Engine<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<R: Runtime> fmt::Debug for Rows<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("device", &self.device).finish()
    }
}

impl<R: Runtime> Engine<R> {
    /// Uploads the panel; see [`Plan::new`] for `cubes`.
    ///
    /// # Errors
    /// When the device has too little room or no double precision, or fails.
    pub(crate) fn new(
        client: ComputeClient<R>,
        limits: DeviceLimits,
        counts: &GaussianObjective,
        cubes: Option<usize>,
    ) -> Result<Self, BackendError> {
        let hardware = &client.properties().hardware;
        if (hardware.max_units_per_cube as usize) < THREADS || hardware.max_shared_memory_size < SHARED_BYTES
        {
            return Err(BackendError::Unsupported {
                backend: crate::NAME,
                what: Cause::new(
                    format!(
                        "the device {}, whose cubes have no {THREADS} threads with {SHARED_BYTES} bytes of shared memory",
                        limits.device
                    ),
                    [Remedy::CPU],
                ),
            });
        }
        let plan = Plan::new(counts.partition(), cubes);
        plan.check(&limits)?;
        // What earlier runs held is given back only when it is asked for.
        client.memory_cleanup();
        let (panel, priors) = (counts.panel(), counts.priors());
        let failed = |reason: String| BackendError::Device {
            device: limits.device.clone(),
            reason,
        };
        let log_prices = uploaded_rows(&client, panel, counts.partition().order(), &plan).map_err(failed)?;
        let sums = panel.sums();
        let of_product = |product: &u32| {
            let i = *product as usize;
            let units = sums.product[i] as f64;
            [
                units,
                sums.product_deviation[i] + panel.mean_log_price()[i] * units,
            ]
        };
        let constants = plan.by_slot(0.0, counts.partition().order().iter().map(of_product));
        let precision = |sd: f64| sd.powi(-2);
        let prior = [
            priors.product_effect_mean,
            precision(priors.product_a_sd),
            precision(priors.product_effect_sd),
        ];
        let rows = Rows {
            walk: counts.partition().clone(),
            precision_a: prior[1],
            weights: lasting(&client, plan.rows()).map_err(failed)?,
            constants: upload(&client, constants),
            prior: upload(&client, prior.to_vec()),
            tuning: upload(&client, vec![MOST_GROWTH, LAST_CHANGE]),
            blocks: upload(&client, plan.blocks.clone()),
            walks: upload(&client, plan.walks.words.clone()),
            schurs: upload(&client, plan.schurs.words.clone()),
            thirds: upload(&client, plan.thirds.words.clone()),
            schurs_of_category: upload(&client, plan.schurs.of_category.clone()),
            tiles: upload(&client, plan.tiles.clone()),
            nothing: upload(&client, vec![0.0f64]),
            log_prices,
            plan,
            device: limits.device.clone(),
            client,
            number: Mutex::new(0),
        };
        // An error of the upload belongs here.
        rows.read(&rows.prior)
            .map_err(|error| failed(error.to_string()))?;
        Ok(Engine(Arc::new(rows)))
    }
}

/// The log prices on the grid.
fn uploaded_rows<R: Runtime>(
    client: &ComputeClient<R>,
    panel: &Panel,
    order: &[u32],
    plan: &Plan,
) -> Result<Buffer, String> {
    let periods = plan.periods;
    let log_prices = lasting(client, plan.rows())?;
    let absent = upload(client, vec![ABSENT]);
    // SAFETY: the kernel stays within the length of its buffer.
    unsafe {
        fill::launch_unchecked::<R>(
            client,
            CubeCount::Static(cubes_for(plan.rows(), 256).min(plan.striding) as u32, 1, 1),
            CubeDim::new_1d(256),
            log_prices.arg(),
            absent.arg(),
        );
    }
    let mut slots = vec![0u32; order.len()];
    for (product, slot) in order.iter().zip(&plan.slot_of_place) {
        slots[*product as usize] = *slot;
    }
    let at_a_time = (ROWS_AT_A_TIME / periods).max(1);
    let products: Vec<usize> = (0..order.len()).collect();
    for products in products.chunks(at_a_time) {
        let (first, end) = (products[0], products[0] + products.len());
        let rows = panel.row_range(first).start..panel.row_range(end - 1).end;
        let columns = [panel.deviation(), panel.deviation_residual()];
        let [deviation, residual] = if panel.presence().is_none() {
            columns.map(|column| upload(client, column[rows.clone()].to_vec()))
        } else {
            let mut grids = [
                vec![ABSENT_DEVIATION; products.len() * periods],
                vec![0.0; products.len() * periods],
            ];
            for product in products {
                let own = panel.row_range(*product);
                for (row, at) in panel.product_rows(*product).zip(own) {
                    let to = (product - first) * periods + row.period;
                    for (grid, column) in grids.iter_mut().zip(columns) {
                        grid[to] = column[at];
                    }
                }
            }
            grids.map(|grid| upload(client, grid))
        };
        let means = upload(client, panel.mean_log_price()[first..end].to_vec());
        let to = upload(client, slots[first..end].to_vec());
        // SAFETY: there are as many deviations as residuals, and `periods` of them to each mean and slot, which is below the grid's.
        unsafe {
            place_rows::launch_unchecked::<R>(
                client,
                CubeCount::Static(cubes_for(deviation.len, 256) as u32, 1, 1),
                CubeDim::new_1d(256),
                deviation.arg(),
                residual.arg(),
                means.arg(),
                to.arg(),
                log_prices.arg(),
                periods as u32,
            );
        }
        client.flush().map_err(|error| format!("{error:?}"))?;
    }
    Ok(log_prices)
}

fn cubes_for(entries: usize, threads: usize) -> usize {
    entries.div_ceil(threads).max(1)
}

/// Sums over runs of what each has left by period.
fn by_period(of_runs: &[f64], runs: Range<usize>, periods: usize) -> Vec<f64> {
    let mut sums = vec![0.0; periods];
    for run in runs {
        let own = &of_runs[run * periods..][..periods];
        sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
    }
    sums
}

/// What a launch over the products leaves.
struct Left {
    period_sums: Vec<f64>,
    cube_sums: Vec<f64>,
}

impl Left {
    /// Sums of the rates of a category by period.
    fn by_period(&self, plan: &Plan, category: usize) -> Vec<f64> {
        by_period(&self.period_sums, plan.walks.range_of(category), plan.periods)
    }

    /// Value, sizes, and the information on the category's coefficient.
    fn sums(&self, plan: &Plan, category: usize) -> [f64; CUBE_SUMS] {
        let mut sums = [0.0; CUBE_SUMS];
        for run in plan.walks.range_of(category) {
            let own = &self.cube_sums[run * CUBE_SUMS..][..CUBE_SUMS];
            sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        sums
    }
}

impl<R: Runtime> Rows<R> {
    fn failed(&self, reason: impl fmt::Debug) -> FactorError {
        FactorError::Device(format!("{reason:?}"))
    }

    fn read(&self, buffer: &Buffer) -> Result<Vec<f64>, FactorError> {
        // On wgpu only this reports launches that failed; a read would return the earlier contents.
        self.client.flush().map_err(|error| self.failed(error))?;
        let bytes = self
            .client
            .read_one(buffer.handle.clone())
            .map_err(|error| self.failed(error))?;
        // An uncaptured error of the driver.
        match infermark_gpu_devices::take_error(&self.device) {
            Some(reason) => Err(FactorError::Device(reason)),
            None => Ok(f64::from_bytes(&bytes)[..buffer.len].to_vec()),
        }
    }

    /// The walk over the products, whose pairs lie in `pairs`; see [`products`].
    fn launch_products(
        &self,
        point: &[f64],
        pairs: &Buffer,
        left: Option<&Buffer>,
    ) -> Result<Left, FactorError> {
        let (plan, client) = (&self.plan, &self.client);
        let layout = self.walk.layout();
        let effects = upload(client, point[layout.range(Site::TimeCatEffects)].to_vec());
        let category_a = upload(client, point[layout.range(Site::CategoryA)].to_vec());
        let cubes = plan.walks.len();
        let period_sums = empty(client, cubes * plan.periods);
        let cube_sums = empty(client, cubes * CUBE_SUMS);
        let weights = left.map_or(&self.nothing, |_| &self.weights);
        // SAFETY: the runs cover the blocks, of which there are LANES slots and LANES x T rows each; effects and elasticities are as many as
        // blocks have categories. Weights and columns are written only where products stay, and are whole then.
        unsafe {
            products::launch_unchecked::<R>(
                client,
                CubeCount::Static(cubes as u32, 1, 1),
                CubeDim::new_1d(LANES as u32),
                self.log_prices.arg(),
                self.constants.arg(),
                effects.arg(),
                category_a.arg(),
                self.prior.arg(),
                self.tuning.arg(),
                self.blocks.arg(),
                self.walks.arg(),
                pairs.arg(),
                weights.arg(),
                left.unwrap_or(&self.nothing).arg(),
                period_sums.arg(),
                cube_sums.arg(),
                plan.periods as u32,
                plan.slots() as u32,
                STEPS as u32,
                left.is_none(),
            );
        }
        Ok(Left {
            period_sums: self.read(&period_sums)?,
            cube_sums: self.read(&cube_sums)?,
        })
    }

    /// `sum U' U` of every category, in tiles.
    fn launch_schur(&self, left: &Buffer) -> Result<Vec<f64>, FactorError> {
        let (plan, client) = (&self.plan, &self.client);
        let (entries, tiles) = (plan.entries(), plan.tile_count());
        let parts = empty(client, plan.schurs.len() * entries);
        let sums = empty(client, plan.categories * entries);
        // SAFETY: runs and tiles are those that the parts are counted of; the kernels' indices stay within rows and slots of the blocks.
        unsafe {
            schur::launch_unchecked::<R>(
                client,
                CubeCount::Static(plan.schurs.len() as u32, tiles as u32, 1),
                CubeDim::new_1d(THREADS as u32),
                self.log_prices.arg(),
                self.weights.arg(),
                left.arg(),
                self.prior.arg(),
                self.blocks.arg(),
                self.schurs.arg(),
                self.tiles.arg(),
                parts.arg(),
                plan.periods as u32,
                plan.slots() as u32,
            );
            fold::launch_unchecked::<R>(
                client,
                CubeCount::Static(cubes_for(sums.len, THREADS).min(plan.striding) as u32, 1, 1),
                CubeDim::new_1d(THREADS as u32),
                parts.arg(),
                self.schurs_of_category.arg(),
                sums.arg(),
                entries as u32,
            );
        }
        self.read(&sums)
    }

    /// The lower triangle of `- sum U' U`, column-major, of a category's tiles.
    fn schur_of(&self, tiles: &[f64]) -> Vec<f64> {
        let order = self.plan.periods + 2;
        let mut schur = vec![0.0; order * order];
        for (at, tile) in self.plan.tiles.chunks(2).zip(tiles.chunks(TILE * TILE)) {
            let [first_row, first_column] = [at[0], at[1]].map(|at| at as usize * TILE);
            for (r, entries) in tile.chunks(TILE).enumerate() {
                for (c, entry) in entries.iter().enumerate() {
                    let (row, column) = (first_row + r, first_column + c);
                    if row < order && column <= row {
                        schur[column * order + row] = -entry;
                    }
                }
            }
        }
        schur
    }

    /// Where the work is to stop, before a pass.
    fn stop(&self) -> Result<(), FactorError> {
        if self.walk.watch().is_stopped() {
            return Err(FactorError::Stopped);
        }
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, u64> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Runtime> RowWalker for Engine<R> {
    fn moving(&self, pairs: &[[f64; 2]]) -> Box<dyn MovingPairs> {
        let columns = self.0.plan.by_slot(0.0, pairs.iter().copied());
        Box::new(Moving {
            pairs: upload(&self.0.client, columns),
            rows: self.0.clone(),
        })
    }

    fn walked(&self, point: &[f64]) -> Result<Walked, FactorError> {
        let rows = &*self.0;
        rows.stop()?;
        let mut number = rows.held();
        *number += 1;
        let plan = &rows.plan;
        let pairs = upload(
            &rows.client,
            plan.by_slot(0.0, rows.walk.blocks(point).into_iter()),
        );
        let left = empty(&rows.client, Column::COUNT * plan.slots());
        let sums = rows.launch_products(point, &pairs, Some(&left))?;
        let tiles = rows.launch_schur(&left)?;
        let columns = rows.read(&left)?;
        let product = |[aa, ea, ee, by_a, by_e, a, e]: [f64; Column::COUNT]| ProductWalked {
            lower: [[aa, 0.0], [ea, ee]],
            gradient: [by_a, by_e],
            forwarded: [a, e],
        };
        let of_category = |(category, tiles): (usize, &[f64])| {
            let [value, _, by_category] = sums.sums(plan, category);
            let weights = sums.by_period(plan, category);
            CategoryWalked {
                value,
                by_period: weights.iter().map(|rates| -rates).collect(),
                weights,
                by_category: [[by_category, 0.0], [0.0; 2]],
                schur: rows.schur_of(tiles),
            }
        };
        Ok(Walked {
            products: plan.by_place(&columns).map(product).collect(),
            categories: tiles
                .chunks(plan.entries())
                .enumerate()
                .map(of_category)
                .collect(),
            rows: Arc::new(WeightedRows {
                rows: self.0.clone(),
                left,
                walk: *number,
            }),
        })
    }
}

/// Pairs on the device, by slot.
struct Moving<R: Runtime> {
    rows: Arc<Rows<R>>,
    pairs: Buffer,
}

impl<R: Runtime> MovingPairs for Moving<R> {
    fn at_optimum(&mut self, point: &[f64]) -> Result<AtOptimum, FactorError> {
        let rows = &*self.rows;
        rows.stop()?;
        let _held = rows.held();
        let plan = &rows.plan;
        let left = rows.launch_products(point, &self.pairs, None)?;
        let mut found = AtOptimum {
            value: 0.0,
            size: 0.0,
            by_period: Vec::with_capacity(plan.categories),
            coefficients: Vec::with_capacity(plan.categories),
        };
        for category in 0..plan.categories {
            let [value, size, elasticities] = left.sums(plan, category);
            found.value += value;
            found.size += size;
            found.coefficients.push([elasticities, 0.0]);
            let by_period = left.by_period(plan, category);
            found
                .by_period
                .push(by_period.into_iter().map(|rates| -rates).collect());
        }
        Ok(found)
    }

    fn pairs(&self) -> Result<Vec<[f64; 2]>, FactorError> {
        let columns = self.rows.read(&self.pairs)?;
        Ok(self.rows.plan.by_place(&columns).collect())
    }
}
