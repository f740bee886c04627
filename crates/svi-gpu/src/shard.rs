//! One of several shards of a panel, on its device.

use crate::SviGpu;
use crate::backend::MachineSetup;
use crate::fused::crossing::Crossing;
use crate::fused::engine::Machine;
use cubecl::stream_id::StreamId;
use infermark_backend::{Backend, BackendError};
use infermark_communicator::Communicator;
use infermark_model::guide::Guide;
use infermark_model::svi::LossAndGradient;
use infermark_svi::{Decision, GuideState, Iterate, Piece, ShardEngine, ShardIterate, ShardSetup};

/// Iterations between two readings of the losses: the same on all ranks, which so end together whatever the losses are. Every iteration
/// waits for the device anyway, and one at which a rank is interrupted is the last of its batch.
const BATCH: u64 = 32;

/// The first stream of shards. CubeCL numbers those of threads from 0, and by default keeps 128 apart.
const FIRST_STREAM: u64 = (1 << 32) + 64;

/// A shard's machine on a stream of its own: what shards on one device issue and hold is kept apart, whatever threads they are
/// iterated by.
struct ShardMachine {
    /// There until it is dropped.
    machine: Option<Box<dyn Machine>>,
    stream: StreamId,
}

impl ShardMachine {
    /// The machine of a rank that `start` starts.
    fn start(
        rank: usize,
        start: impl FnOnce() -> Result<Box<dyn Machine>, BackendError>,
    ) -> Result<Self, BackendError> {
        let stream = StreamId {
            value: FIRST_STREAM + rank as u64,
        };
        let machine = Some(stream.executes(start)?);
        Ok(ShardMachine { machine, stream })
    }

    fn with<R>(&mut self, work: impl FnOnce(&mut dyn Machine) -> R) -> R {
        let machine = self.machine.as_mut().expect("it is there until the drop");
        self.stream.executes(|| work(&mut **machine))
    }

    /// What `read` reads.
    fn of<R>(&self, read: impl FnOnce(&dyn Machine) -> R) -> R {
        let machine = self.machine.as_ref().expect("it is there until the drop");
        self.stream.executes(|| read(&**machine))
    }
}

impl Drop for ShardMachine {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            // A later run may have other streams, and would not find the memory of these.
            self.stream.executes(|| machine.release());
        }
    }
}

/// The iterations of a shard.
struct ShardIterations {
    machine: ShardMachine,
    crossing: Crossing,
}

impl Iterate for ShardIterations {
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), BackendError> {
        let crossing = &mut self.crossing;
        let mut decision = Decision::Continue;
        while decision == Decision::Continue {
            let from = piece.seconds();
            let count = BATCH.min(piece.decides_in()).min(piece.left());
            let (outcomes, interrupted) = self.machine.with(|machine| {
                machine.iterate_with_others(count as u32, crossing, &|| piece.is_interrupted())
            })?;
            let batch_seconds = piece.seconds() - from;
            let done = outcomes.len();
            for (i, outcome) in outcomes.iter().enumerate() {
                decision = piece.record_at(
                    from + batch_seconds * (i + 1) as f64 / done as f64,
                    outcome.loss,
                    outcome.effective_particles,
                    interrupted && i + 1 == done,
                );
                if decision != Decision::Continue {
                    break;
                }
            }
        }
        self.machine.with(|machine| machine.settle())
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        self.machine.of(|machine| machine.guide())
    }

    fn state(&self) -> Result<Option<GuideState>, BackendError> {
        self.machine.of(|machine| machine.state()).map(Some)
    }

    fn restore(&mut self, state: &GuideState, completed: u64) -> Result<bool, BackendError> {
        self.machine
            .with(|machine| machine.restore(state, completed as u32))?;
        Ok(true)
    }
}

impl ShardIterate for ShardIterations {
    fn threads(&self) -> usize {
        1
    }

    fn communicator(&mut self) -> &mut dyn Communicator {
        self.crossing.link.communicator()
    }
}

impl SviGpu {
    /// The machine of a shard and its connection. `iteration` is the first.
    fn shard_machine(
        &self,
        setup: ShardSetup<'_>,
        iteration: u32,
    ) -> Result<(ShardMachine, Crossing), BackendError> {
        let ShardSetup {
            shard,
            request,
            chart,
            guide,
            noise,
            communicator,
            shards_on_device,
        } = setup;
        self.supports(request)?;
        let rank = communicator.rank();
        let layout = shard.layout_for(request.likelihood);
        let crossing = Crossing::new(communicator, &layout, chart, request.method.particles());
        let machine = ShardMachine::start(rank, || {
            self.machine(MachineSetup {
                shard,
                request,
                chart,
                guide,
                noise,
                iteration,
                shards_on_device,
            })
        })?;
        Ok((machine, crossing))
    }
}

impl ShardEngine for SviGpu {
    fn start_shard(&self, setup: ShardSetup<'_>) -> Result<Box<dyn ShardIterate>, BackendError> {
        let guide = setup.guide;
        let (mut machine, crossing) = self.shard_machine(setup, 0)?;
        machine.with(|machine| machine.prepare(guide))?;
        Ok(Box::new(ShardIterations { machine, crossing }))
    }

    fn shard_loss_and_gradient(
        &self,
        setup: ShardSetup<'_>,
        iteration: u32,
    ) -> Result<LossAndGradient, BackendError> {
        let (mut machine, mut crossing) = self.shard_machine(setup, iteration)?;
        machine.with(|machine| machine.evaluate(Some(&mut crossing)))
    }
}
