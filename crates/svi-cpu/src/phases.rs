//! The phases of an iteration, each a kernel over one item taken by a thread.
//!
//! 1. [`ChunkPhase`]: products make the pending step of the last iteration, draw noise, place particles, pass
//!    over their rows and convert derivatives.
//! 2. [`CategoryFold`], only in one of several shards: a category adds up its chunks' sums, which are then exchanged.
//! 3. [`CategoryBack`]: a category adds up its chunks' sums if it has not, converts them and makes its step.
//! 4. [`Top`]: one thread does the same for `category_a`, `global_a`, the shapes and the centredness, then draws and places the
//!    next iteration's.
//! 5. [`CategoryPlace`]: categories draw, place and lay out the next iteration's tables.
//!
//! Where gradients are exchanged, [`crate::replica`] has other steps after the third.

use crate::batches::Batches;
use crate::block::{ParentSums, Step};
use crate::category_sums::CENTRED;
use crate::state::{
    CategoryState, ChunkRows, ChunkState, Exchange, Frame, PeriodEffects, State, ThreadScratch, TopState,
};
use infermark_cpu_kernels::likelihood::{GROUP, PoissonLikelihood, Scratch};
use infermark_cpu_kernels::negative_binomial::CountPass;
use infermark_cpu_kernels::{Kernel, Scalar, Simd};
use infermark_model::negative_binomial::Shape;
use infermark_model::optimizer::StepScalars;
use infermark_model::{Centredness, PerSite, Site};

/// The optimizer step that a frame describes.
#[inline(always)]
pub(crate) fn step_of<'a, I: Simd>(state: &'a State<I>, frame: &'a Frame) -> Step<'a> {
    Step {
        weights: &frame.weights,
        scalars: frame.scalars,
        adam: &state.settings.optimizer,
    }
}

/// See the module. With `step_only` the pending step is made and nothing drawn.
pub(crate) struct ChunkPhase<'a, I: Simd> {
    pub(crate) state: &'a State<I>,
    pub(crate) frame: &'a Frame,
    pub(crate) item: &'a mut ChunkState<I>,
    pub(crate) scratch: &'a mut ThreadScratch<I>,
    pub(crate) step_only: bool,
}

impl<I: Simd> Kernel<I> for ChunkPhase<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let ChunkPhase {
            state,
            frame,
            item,
            scratch,
            step_only,
        } = self;
        if frame.step_pending {
            let mut step = step_of(state, frame);
            if frame.batches.is_some() {
                // The moments are of its own steps, the rate is that of the iteration.
                step.scalars = StepScalars {
                    learning_rate: step.scalars.learning_rate,
                    ..state.settings.optimizer.scalars(item.steps)
                };
                item.steps += 1;
            }
            if frame.gradient.is_empty() {
                item.elasticity.step(isa, &step);
                item.effect.step(isa, &step);
            } else {
                let gradient = &frame.gradient[item.place.clone()];
                let (of_elasticity, of_effect) = gradient.split_at(gradient.len() / 2);
                item.elasticity.step_by(isa, &step, of_elasticity);
                item.effect.step_by(isa, &step, of_effect);
            }
        }
        if step_only {
            return;
        }
        let elasticity = &frame.transforms[Site::ProductA];
        let effect = &frame.transforms[Site::ProductEffect];
        let means = &frame.category_value[item.chunk.category];
        item.log_weights.fill(0.0);
        item.elasticity.draw(isa, &state.noise, frame.iteration);
        item.effect.draw(isa, &state.noise, frame.iteration);
        item.elasticity
            .place(isa, elasticity, means, &mut item.log_weights);
        match &item.origin {
            None => item
                .effect
                .place(isa, effect, &frame.constant_means.effect, &mut item.log_weights),
            Some(origin) => {
                let category = state.categories.read(item.chunk.category);
                let contrasts = category
                    .contrasts
                    .as_ref()
                    .expect("products and periods go together");
                item.effect.place_along(
                    isa,
                    effect,
                    &contrasts.effect_means,
                    origin,
                    &item.elasticity,
                    &mut item.log_weights,
                );
            }
        }
        let ThreadScratch { pass, rooms } = scratch;
        let is_stored = state.panel.stored().is_some();
        if is_stored {
            item.rows.load(isa, &state.panel, &item.chunk, rooms);
        }
        self::rows(isa, state, frame, item, pass);
        if is_stored {
            item.rows.unload(rooms);
        }
        if let Some(origin) = &item.origin {
            item.elasticity.pull_back_along(isa, effect, origin, &item.effect);
        }
        item.elasticity_sums.fill(ParentSums::default());
        item.elasticity
            .back(isa, elasticity, means, Some(&mut item.elasticity_sums));
        item.effect_sums.fill(ParentSums::default());
        let needed = state.learns_centredness() || item.origin.is_some();
        let sums = needed.then_some(&mut item.effect_sums[..]);
        item.effect.back(isa, effect, &frame.constant_means.effect, sums);
    }
}

/// The likelihood of a chunk: under the Poisson one a group of particles at a time.
#[inline(always)]
fn rows<I: Simd>(
    isa: I,
    state: &State<I>,
    frame: &Frame,
    item: &mut ChunkState<I>,
    scratch: &mut Scratch<I>,
) {
    let category = state.categories.read(item.chunk.category);
    let (packed, sums, tables) = match (&mut item.rows, &category.effects) {
        (ChunkRows::Poisson { rows, by_period }, PeriodEffects::Poisson(tables)) => (rows, by_period, tables),
        (
            ChunkRows::NegativeBinomial {
                rows,
                by_period,
                by_log_shape,
            },
            PeriodEffects::NegativeBinomial(effects),
        ) => {
            for (k, by_period) in by_period.iter_mut().enumerate() {
                by_period.fill(0.0);
                let pass = CountPass {
                    panel: &state.panel,
                    priors: &state.priors,
                    chunk: &item.chunk,
                    shape: Shape::new(frame.log_shape[item.chunk.category][k]),
                    effects: &effects[k],
                    elasticity: &mut item.elasticity.particle[k],
                    effect: &mut item.effect.particle[k],
                    by_period,
                };
                let terms = rows.pass(isa.wide(), pass);
                item.log_weights[k] += terms.log_likelihood;
                by_log_shape[k] = terms.by_log_shape;
            }
            return;
        }
        _ => unreachable!("rows and periods are built for one likelihood"),
    };
    let likelihood = PoissonLikelihood::new(&state.panel, &state.priors);
    let mut first = 0;
    for (group, by_period) in sums.iter_mut().enumerate() {
        by_period.clear(isa);
        let count = GROUP.min(item.log_weights.len() - first);
        let elasticity = &mut item.elasticity.particle[first..first + count];
        let effect = &mut item.effect.particle[first..first + count];
        let (chunk, table, packed) = (&item.chunk, &tables[group], &*packed);
        let log_weights = &mut item.log_weights[first..first + count];
        macro_rules! pass {
            ($k:literal) => {{
                let terms = likelihood.chunk::<I, $k>(
                    isa, chunk, packed, table, elasticity, effect, by_period, scratch,
                );
                for k in 0..$k {
                    log_weights[k] += terms[k];
                }
            }};
        }
        match count {
            1 => pass!(1),
            2 => pass!(2),
            3 => pass!(3),
            _ => pass!(4),
        }
        first += count;
    }
}

/// See the module.
pub(crate) struct CategoryFold<'a, I: Simd> {
    pub(crate) state: &'a State<I>,
    pub(crate) frame: &'a Frame,
    pub(crate) item: &'a mut CategoryState<I>,
}

impl<I: Simd> Kernel<I> for CategoryFold<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let CategoryFold { state, frame, item } = self;
        let chunks = item.chunks.clone();
        item.over_products
            .fold(isa, &state.chunks, chunks, frame.batches.as_ref());
    }
}

/// A chunk's share of the gradient, once the particles are weighed.
pub(crate) struct ChunkShare<'a, I: Simd> {
    pub(crate) frame: &'a Frame,
    pub(crate) item: &'a mut ChunkState<I>,
}

impl<I: Simd> Kernel<I> for ChunkShare<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let ChunkShare { frame, item } = self;
        let (of_elasticity, of_effect) = item.share.split_at_mut(item.place.len() / 2);
        item.elasticity.write_share(isa, &frame.weights, of_elasticity);
        item.effect.write_share(isa, &frame.weights, of_effect);
    }
}

/// See the module. Without `learn` the step is left out.
pub(crate) struct CategoryBack<'a, I: Simd> {
    pub(crate) state: &'a State<I>,
    pub(crate) frame: &'a Frame,
    pub(crate) item: &'a mut CategoryState<I>,
    pub(crate) learn: bool,
}

impl<I: Simd> Kernel<I> for CategoryBack<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let CategoryBack {
            state,
            frame,
            item,
            learn,
        } = self;
        // The sums of one of several shards were folded before they were exchanged.
        if state.exchange != Exchange::Sums {
            let chunks = item.chunks.clone();
            item.over_products
                .fold(isa, &state.chunks, chunks, frame.batches.as_ref());
        }
        for k in 0..frame.weights.len() {
            let rates = item.over_products.rates_of(k);
            for ((by_value, units), rate) in item.by_values.iter_mut().zip(&item.units).zip(rates) {
                *by_value = units - rate;
            }
            let by_free = &mut item.time.particle[k];
            match &mut item.contrasts {
                None => {
                    for (by_effect, by) in by_free.iter_mut().zip(&item.by_values) {
                        *by_effect = I::Scalar::from_f64(*by);
                    }
                }
                Some(contrasts) => {
                    let by_effect_mean = item.over_products.by_effect_mean[k];
                    contrasts.back(isa, &item.by_values, by_effect_mean, k, by_free);
                }
            }
        }
        item.sums.fill(ParentSums::default());
        let sums = state.learns_centredness().then_some(&mut item.sums[..]);
        let transform = &frame.transforms[Site::TimeCatEffects];
        item.time.back(isa, transform, &frame.constant_means.time, sums);
        if let Some(contrasts) = &mut item.contrasts {
            contrasts.back_level(isa);
        }
        if learn {
            let step = step_of(state, frame);
            item.time.step(isa, &step);
            if let Some(contrasts) = &mut item.contrasts {
                contrasts.step(isa, &step);
            }
        }
    }
}

/// See the module.
pub(crate) struct CategoryPlace<'a, I: Simd> {
    pub(crate) state: &'a State<I>,
    pub(crate) frame: &'a Frame,
    pub(crate) item: &'a mut CategoryState<I>,
}

impl<I: Simd> Kernel<I> for CategoryPlace<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let CategoryPlace { state, frame, item } = self;
        let transform = &frame.transforms[Site::TimeCatEffects];
        if let Some(batches) = &frame.batches {
            units_of_batch(state, batches, item);
        }
        item.log_weights.fill(0.0);
        item.time.draw(isa, &state.noise, frame.iteration);
        item.time
            .place(isa, transform, &frame.constant_means.time, &mut item.log_weights);
        if let Some(contrasts) = &mut item.contrasts {
            contrasts.place_level(isa, &state.noise, frame.iteration, &mut item.log_weights);
        }
        for k in 0..item.log_weights.len() {
            let values = match &mut item.contrasts {
                None => &item.time.particle[k][..item.units.len()],
                Some(contrasts) => {
                    contrasts.place(isa, &item.time.particle[k], k);
                    &contrasts.values[..]
                }
            };
            let linear: f64 = values.iter().zip(&item.units).map(|(v, y)| v.to_f64() * y).sum();
            item.log_weights[k] += linear;
            match &mut item.effects {
                PeriodEffects::Poisson(tables) => tables[k / GROUP].set(isa, k % GROUP, values),
                PeriodEffects::NegativeBinomial(effects) => effects[k]
                    .iter_mut()
                    .zip(values)
                    .for_each(|(effect, value)| *effect = value.to_f64()),
            }
        }
    }
}

/// Sets a category's units to those of the batch, scaled: with the rates of the same products they nearly cancel, which those of all
/// products would not.
fn units_of_batch<I: Simd>(state: &State<I>, batches: &Batches, item: &mut CategoryState<I>) {
    item.units.fill(0.0);
    for chunk in batches.chunks_in(&item.chunks) {
        let chunk = state.chunks.read(*chunk as usize);
        for (total, units) in item.units.iter_mut().zip(&chunk.units) {
            *total += units;
        }
    }
    let scale = batches.scale();
    item.units.iter_mut().for_each(|units| *units *= scale);
}

/// The work of the top in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TopTask {
    /// Convert derivatives, for a gradient.
    Back,
    /// Convert derivatives, step, draw and place: between two iterations.
    Advance,
    /// Draw and place: before the first iteration.
    Place,
}

/// See the module. `frame.iteration` is the iteration to be placed.
pub(crate) struct Top<'a, I: Simd> {
    pub(crate) state: &'a State<I>,
    pub(crate) frame: &'a mut Frame,
    pub(crate) top: &'a mut TopState<I::Scalar>,
    pub(crate) task: TopTask,
}

impl<I: Simd> Kernel<I> for Top<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let Top {
            state,
            frame,
            top,
            task,
        } = self;
        if task != TopTask::Place {
            back(isa, state, frame, top);
        }
        if task == TopTask::Advance {
            let step = step_of(state, frame);
            top.category.step(isa, &step);
            top.global.step(isa, &step);
            if let Some(log_shape) = &mut top.log_shape {
                log_shape.step(isa, &step);
            }
            step_centredness(state, frame, top);
        }
        if task != TopTask::Back {
            place(isa, state, frame, top);
        }
    }
}

/// One step of the centredness, where it is learned.
pub(crate) fn step_centredness<I: Simd>(state: &State<I>, frame: &mut Frame, top: &mut TopState<I::Scalar>) {
    if !state.learns_centredness() {
        return;
    }
    for s in Site::REPARAMETERIZED {
        top.unconstrained_centredness[s] = state.settings.optimizer.step(
            &frame.scalars,
            top.unconstrained_centredness[s],
            top.by_centredness[s],
            &mut top.centredness_moments[s],
        );
    }
    let centredness = Centredness::from_unconstrained(&top.unconstrained_centredness);
    frame.transforms = centredness.transforms(&state.priors);
}

#[inline(always)]
fn place<I: Simd>(isa: I, state: &State<I>, frame: &mut Frame, top: &mut TopState<I::Scalar>) {
    top.log_weights.fill(0.0);
    top.global.draw(isa, &state.noise, frame.iteration);
    top.category.draw(isa, &state.noise, frame.iteration);
    let means = &frame.constant_means.global;
    top.global
        .place(isa, &frame.transforms[Site::GlobalA], means, &mut top.log_weights);
    let global_values = global_values(top);
    let transform = &frame.transforms[Site::CategoryA];
    top.category
        .place(isa, transform, &global_values, &mut top.log_weights);
    for (c, values) in frame.category_value.iter_mut().enumerate() {
        for (k, value) in values.iter_mut().enumerate() {
            *value = top.category.particle[k][c].to_f64();
        }
    }
    top.global_value = global_values;
    if let Some(log_shape) = &mut top.log_shape {
        log_shape.draw(isa, &state.noise, frame.iteration);
        let means = &frame.constant_means.log_shape;
        log_shape.place(
            isa,
            &frame.transforms[Site::LogShape],
            means,
            &mut top.log_weights,
        );
        for (c, values) in frame.log_shape.iter_mut().enumerate() {
            for (k, value) in values.iter_mut().enumerate() {
                *value = log_shape.particle[k][c].to_f64();
            }
        }
    }
}

fn global_values<S: Scalar>(top: &TopState<S>) -> Vec<f64> {
    top.global
        .particle
        .iter()
        .map(|values| values[0].to_f64())
        .collect()
}

#[inline(always)]
fn back<I: Simd>(isa: I, state: &State<I>, frame: &Frame, top: &mut TopState<I::Scalar>) {
    let particles = frame.weights.len();
    let mut by_centredness = vec![PerSite::all(0.0); particles];
    for k in 0..particles {
        top.category.particle[k].fill(I::Scalar::default());
    }
    for index in 0..state.categories.len() {
        let category = state.categories.read(index);
        let over_products = &category.over_products;
        for k in 0..particles {
            for (site, sums) in CENTRED.into_iter().zip(&over_products.by_centredness) {
                by_centredness[k][site] += sums[k];
            }
            by_centredness[k][Site::TimeCatEffects] += category.sums[k].by_centredness;
            top.category.particle[k][index] = I::Scalar::from_f64(over_products.by_mean[k]);
            if let Some(log_shape) = &mut top.log_shape {
                log_shape.particle[k][index] = I::Scalar::from_f64(over_products.by_log_shape[k]);
            }
        }
    }
    if let Some(log_shape) = &mut top.log_shape {
        let means = &frame.constant_means.log_shape;
        log_shape.back(isa, &frame.transforms[Site::LogShape], means, None);
    }
    let mut sums = vec![ParentSums::default(); particles];
    let global_value = std::mem::take(&mut top.global_value);
    let transform = &frame.transforms[Site::CategoryA];
    top.category.back(isa, transform, &global_value, Some(&mut sums));
    top.global_value = global_value;
    for k in 0..particles {
        by_centredness[k][Site::CategoryA] = sums[k].by_centredness;
        top.global.particle[k][0] = I::Scalar::from_f64(sums[k].by_mean);
    }
    sums.fill(ParentSums::default());
    let transform = &frame.transforms[Site::GlobalA];
    top.global
        .back(isa, transform, &frame.constant_means.global, Some(&mut sums));
    top.by_centredness = PerSite::all(0.0);
    for k in 0..particles {
        by_centredness[k][Site::GlobalA] = sums[k].by_centredness;
        for s in Site::REPARAMETERIZED {
            let slope = State::<I>::centredness_slope(top.unconstrained_centredness[s]);
            top.by_centredness[s] -= frame.weights[k] * by_centredness[k][s] * slope;
        }
    }
}
