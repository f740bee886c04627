//! The device's side of a run: its plan, its buffers, its launches, and reading back.

mod buffers;
mod exchange;
mod launches;
mod plan;
mod profile;
mod reading;
mod start;

use super::crossing::Crossing;
use super::layout::{DeviceLimits, Hardware};
use crate::profile::{BatchTime, LaunchTime};
use buffers::{PanelBuffers, StateBuffers};
use cubecl::prelude::*;
use infermark_backend::BackendError;
use infermark_model::guide::Guide;
use infermark_model::svi::LossAndGradient;
use infermark_svi::GuideState;
use plan::Plan;

pub(crate) use super::layout::LOG_ENTRIES;
pub(crate) use start::Start;

/// The loss of an iteration that was done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) loss: f64,
    pub(crate) effective_particles: f64,
    pub(crate) log_weights: Vec<f64>,
}

/// An engine, whatever its runtime.
pub(crate) trait Machine: Send {
    /// Compiles every kernel by an iteration that is then undone, and places the first iteration.
    fn prepare(&mut self, guide: &Guide) -> Result<(), BackendError>;

    /// Does up to [`LOG_ENTRIES`] iterations and reads their losses; the products' last step stays pending.
    fn iterate(&mut self, count: u32) -> Result<Vec<Outcome>, BackendError>;

    /// The same for one of several shards, whose sums `crossing` adds to those of the others in every iteration; the others
    /// must do as many. Ends early after an iteration at which any rank was interrupted, and returns whether it did;
    /// `is_interrupted` says so of this one.
    ///
    /// # Errors
    /// Also when another rank has gone.
    fn iterate_with_others(
        &mut self,
        count: u32,
        crossing: &mut Crossing,
        is_interrupted: &dyn Fn() -> bool,
    ) -> Result<(Vec<Outcome>, bool), BackendError>;

    /// Makes the pending step, so that every parameter has made as many.
    fn settle(&mut self) -> Result<(), BackendError>;

    /// Places the present iteration and takes its loss and gradient, without a step; `crossing` is that of one of several
    /// shards.
    fn evaluate(&mut self, crossing: Option<&mut Crossing>) -> Result<LossAndGradient, BackendError>;

    /// The guide's parameters now.
    fn guide(&self) -> Result<Guide, BackendError>;

    /// The guide's parameters and the optimizer's moments, once no step is pending.
    fn state(&self) -> Result<GuideState, BackendError>;

    /// Puts a state in place, as of `completed` iterations, and places the next.
    fn restore(&mut self, state: &GuideState, completed: u32) -> Result<(), BackendError>;

    /// Where an iteration's time goes; the machine is used up.
    fn profile(&mut self) -> Result<(Vec<LaunchTime>, Vec<BatchTime>), BackendError>;

    /// Gives the device's memory back.
    fn release(self: Box<Self>);
}

/// See the module.
pub(crate) struct Engine<R: Runtime> {
    client: ComputeClient<R>,
    device: String,
    plan: Plan,
    given: PanelBuffers,
    changing: StateBuffers,
    first_iteration: u32,
    iteration: u32,
    /// Which half of the prior sums belongs to the iteration that is placed.
    half: u32,
    step_pending: bool,
}

impl<R: Runtime> Engine<R> {
    /// Uploads the panel and the guide. `barrier` says whether the device's compiler may regroup sums.
    pub(crate) fn new(
        client: ComputeClient<R>,
        limits: DeviceLimits,
        barrier: bool,
        start: Start<'_>,
    ) -> Result<Self, BackendError> {
        let known = &client.properties().hardware;
        let hardware = Hardware {
            threads: (known.max_units_per_cube.min(known.max_cube_dim.0)) as usize,
            shared_bytes: known.max_shared_memory_size,
            cubes: known.max_cube_count.0 as usize,
            multiprocessors: known.num_streaming_multiprocessors.map(|n| n as usize),
        };
        let (panel, guide, iteration) = (start.shard.panel().clone(), start.guide, start.iteration);
        let (plan, cubes) = Plan::new(hardware, &limits, barrier, start)?;
        let device = limits.device;
        // What earlier runs held is given back only when it is asked for.
        client.memory_cleanup();
        let failed = |reason| device_error(&device, reason);
        let given = PanelBuffers::new(&client, &plan, &panel, cubes).map_err(failed)?;
        let changing = StateBuffers::new(&client, &plan, guide, None).map_err(failed)?;
        Ok(Engine {
            plan,
            given,
            changing,
            first_iteration: iteration,
            iteration,
            half: 0,
            step_pending: false,
            client,
            device,
        })
    }

    /// Goes to `iteration`, at `guide` with the moments of `saved`, and places it.
    fn begin_at(
        &mut self,
        guide: &Guide,
        saved: Option<&GuideState>,
        iteration: u32,
    ) -> Result<(), BackendError> {
        // The old buffers go first: there may be room for one set of them.
        self.changing = StateBuffers::none(&self.client).map_err(|e| self.failed(e))?;
        self.changing =
            StateBuffers::new(&self.client, &self.plan, guide, saved).map_err(|e| self.failed(e))?;
        self.iteration = iteration;
        self.half = 0;
        self.step_pending = false;
        self.place()?;
        // Waits until everything is compiled and done.
        self.read(&self.changing.log).map(drop)
    }

    fn failed(&self, reason: impl std::fmt::Debug) -> BackendError {
        device_error(&self.device, format!("{reason:?}"))
    }
}

fn device_error(device: &str, reason: String) -> BackendError {
    BackendError::Device {
        device: device.to_owned(),
        reason,
    }
}

impl<R: Runtime> Machine for Engine<R> {
    fn prepare(&mut self, guide: &Guide) -> Result<(), BackendError> {
        self.place()?;
        self.iterate_once()?;
        self.settle()?;
        self.begin_at(guide, None, self.first_iteration)
    }

    fn iterate(&mut self, count: u32) -> Result<Vec<Outcome>, BackendError> {
        let first = self.iteration;
        for _ in 0..count {
            self.iterate_once()?;
        }
        self.outcomes(first, count)
    }

    fn iterate_with_others(
        &mut self,
        count: u32,
        crossing: &mut Crossing,
        is_interrupted: &dyn Fn() -> bool,
    ) -> Result<(Vec<Outcome>, bool), BackendError> {
        let first = self.iteration;
        let mut interrupted = false;
        while self.iteration - first < count && !interrupted {
            self.launch_products(false);
            self.launch_fold();
            interrupted = self.exchange(crossing, is_interrupted())?;
            self.advance_hierarchy()?;
        }
        let outcomes = self.outcomes(first, self.iteration - first)?;
        Ok((outcomes, interrupted))
    }

    fn settle(&mut self) -> Result<(), BackendError> {
        if self.step_pending {
            self.launch_products(true);
            self.step_pending = false;
        }
        self.wait()
    }

    fn evaluate(&mut self, crossing: Option<&mut Crossing>) -> Result<LossAndGradient, BackendError> {
        self.derive(crossing)?;
        self.read_loss_and_gradient()
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        self.read_guide()
    }

    fn state(&self) -> Result<GuideState, BackendError> {
        self.read_state()
    }

    fn restore(&mut self, state: &GuideState, completed: u32) -> Result<(), BackendError> {
        self.begin_at(&state.guide, Some(state), completed)
    }

    fn profile(&mut self) -> Result<(Vec<LaunchTime>, Vec<BatchTime>), BackendError> {
        self.measure()
    }

    fn release(self: Box<Self>) {
        let client = self.client.clone();
        drop(self);
        client.memory_cleanup();
    }
}
