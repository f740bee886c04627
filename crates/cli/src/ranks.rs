//! The ranks of a run: threads or cards of this process, or the processes that a launcher has started.

use crate::exit::Exit;
use crate::output::{notify, notify_from_any_rank, silence};
use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use infermark::{Backend, ConnectedRanks, DeviceId, DeviceKind, MethodKind, Request};
use infermark_communicator::{CommunicationError, Communicator, LAUNCHERS, Launch, World, launch, preflight};
use infermark_model::{Cut, PanelRanks};
#[cfg(feature = "cuda")]
use infermark_nccl::{NcclWorld, Place};
use std::any::Any;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long another process waits for the first one to say what both have found.
const TURN_OF_FIRST: Duration = Duration::from_secs(1);

/// What connects the ranks of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CommunicatorName {
    /// MPI where a launcher has started several processes, or NCCL in a build without MPI; threads otherwise.
    Auto,
    /// Threads of this process.
    Threads,
    /// Processes that mpirun or srun has started, one rank each.
    Mpi,
    /// CUDA devices, connected by NCCL: processes with one each, or one process with several.
    Nccl,
}

/// The ranks of a run.
#[derive(Debug, Clone, Args)]
pub struct RankArguments {
    /// What connects the shards.
    #[arg(long, value_enum, default_value = "auto", help = communicator_help())]
    pub communicator: CommunicatorName,
    /// Seconds after which a rank that does not answer ends a run of several processes, with a message that names it.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub rank_timeout: u64,
    /// File by which processes that NCCL connects find each other: one that all can read and that is not there yet. The first process writes and removes it.
    #[arg(long, value_name = "FILE")]
    pub rendezvous: Option<PathBuf>,
}

fn communicator_help() -> String {
    let variables: Vec<String> = LAUNCHERS
        .iter()
        .map(|launcher| format!("{} ({}, {})", launcher.name, launcher.rank, launcher.size))
        .collect();
    format!(
        "What connects the shards: threads of this process, MPI between processes, or NCCL between CUDA devices. `auto` is MPI where the environment \
         says that several processes were started, or NCCL in a build without MPI where each has a CUDA device; it asks, in this order, {}",
        variables.join(", ")
    )
}

/// The ranks of this program's run.
pub(crate) enum Ranks {
    /// Threads of this process.
    Threads,
    /// CUDA devices of this process, which NCCL connects.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    Cards { size: usize, world: Arc<dyn World> },
    /// Processes, one rank each.
    Processes(Processes),
}

/// The processes of a run, one rank each.
pub(crate) struct Processes {
    rank: usize,
    size: usize,
    world: Arc<dyn World>,
    /// For what the processes agree on between the steps of a run.
    between_steps: Mutex<Box<dyn Communicator>>,
    /// What connects them, in words.
    connected_by: String,
    /// Ends all of them with an exit status.
    abort: fn(i32) -> !,
    /// What must stay until the end of the run.
    _connection: Option<Box<dyn Any>>,
}

impl RankArguments {
    /// Finds the ranks of a run on `devices`. A process that is not the first writes nothing to the terminal from here on.
    ///
    /// # Errors
    /// When several processes were started that cannot be connected, or not as asked for.
    pub(crate) fn find(&self, devices: &[DeviceId]) -> anyhow::Result<Ranks> {
        let launch = launch()?;
        let several = launch.filter(|launch| launch.size > 1);
        let deadline = Duration::from_secs(self.rank_timeout);
        let are_cards = devices.iter().all(|device| device.kind == DeviceKind::Cuda);
        let by = match self.communicator {
            CommunicatorName::Auto if several.is_none() => CommunicatorName::Threads,
            CommunicatorName::Auto if !cfg!(feature = "mpi") && cfg!(feature = "cuda") && are_cards => {
                CommunicatorName::Nccl
            }
            CommunicatorName::Auto => CommunicatorName::Mpi,
            named => named,
        };
        ensure!(
            self.rendezvous.is_none() || (by == CommunicatorName::Nccl && several.is_some()),
            "--rendezvous goes with several processes that NCCL connects"
        );
        let processes = match (by, several) {
            (CommunicatorName::Threads, None) => return Ok(Ranks::Threads),
            (CommunicatorName::Threads, Some(launch)) => bail!(
                "this is {launch}, and each process would make the same fit; start one, or connect them (--communicator mpi or nccl)"
            ),
            (CommunicatorName::Nccl, several) => {
                ensure!(
                    are_cards,
                    "--communicator nccl connects CUDA devices, and --device names {}",
                    devices
                        .iter()
                        .map(DeviceId::to_string)
                        .collect::<Vec<_>>()
                        .join(",")
                );
                match several {
                    None => return by_nccl_here(devices, deadline),
                    Some(launch) => by_nccl(launch, devices, self.rendezvous.as_deref(), deadline)?,
                }
            }
            (CommunicatorName::Auto | CommunicatorName::Mpi, _) => by_mpi(launch, deadline)?,
        };
        {
            let mut first = lock(&processes.between_steps);
            preflight(
                &mut **first,
                &[("version", digest_of(infermark_machine::LONG_VERSION.as_bytes()))],
            )
            .map_err(infermark::BackendError::from)?;
        }
        match processes.rank {
            0 => notify(format_args!(
                "{} ranks, connected by {}",
                processes.size, processes.connected_by
            )),
            rank => silence(rank),
        }
        Ok(Ranks::Processes(processes))
    }
}

/// The cards of this process as ranks.
#[cfg(feature = "cuda")]
fn by_nccl_here(devices: &[DeviceId], deadline: Duration) -> anyhow::Result<Ranks> {
    let cards: Vec<usize> = devices.iter().map(|device| device.index).collect();
    let world = NcclWorld::of_cards(&cards, deadline, give_up)?;
    notify(format_args!(
        "{} card{} of one process, connected by NCCL {}",
        cards.len(),
        if cards.len() == 1 { "" } else { "s" },
        world.version()
    ));
    Ok(Ranks::Cards {
        size: cards.len(),
        world: Arc::new(world),
    })
}

/// This process as one of several, with a card each.
#[cfg(feature = "cuda")]
fn by_nccl(
    launch: Launch,
    devices: &[DeviceId],
    rendezvous: Option<&Path>,
    deadline: Duration,
) -> anyhow::Result<Processes> {
    let Some(rendezvous) = rendezvous else {
        bail!(
            "this is {launch}, which NCCL connects: name a file by which the processes find each other, in a folder that all of them see \
             (--rendezvous FILE)"
        );
    };
    let Launch {
        rank,
        size,
        local_rank,
        ..
    } = launch;
    let card = devices[local_rank.unwrap_or(rank) % devices.len()].index;
    let place = Place {
        rank,
        size,
        local_rank: Some(local_rank.unwrap_or(rank)),
    };
    let world = NcclWorld::of_processes(place, card, rendezvous, deadline, give_up)?;
    let connected_by = format!("NCCL {}", world.version());
    let world: Arc<dyn World> = Arc::new(world);
    Ok(Processes {
        rank,
        size,
        between_steps: Mutex::new(world.ranks(size).swap_remove(0)),
        connected_by,
        world,
        // The others end at their deadline, or when the launcher ends them.
        abort: |code| std::process::exit(code),
        _connection: None,
    })
}

#[cfg(not(feature = "cuda"))]
fn by_nccl_here(_: &[DeviceId], _: Duration) -> anyhow::Result<Ranks> {
    bail!("this program was built without CUDA, which NCCL connects")
}

#[cfg(not(feature = "cuda"))]
fn by_nccl(_: Launch, _: &[DeviceId], _: Option<&Path>, _: Duration) -> anyhow::Result<Processes> {
    bail!("this program was built without CUDA, which NCCL connects")
}

/// Says why a run of several ranks ends.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn give_up(error: &CommunicationError) {
    notify_from_any_rank(format_args!("error: {error}"));
}

#[cfg(feature = "mpi")]
fn by_mpi(launch: Option<Launch>, deadline: Duration) -> anyhow::Result<Processes> {
    let mpi = infermark_communicator::Mpi::start(deadline, give_up)?;
    let world = mpi.world();
    let (rank, size) = (world.rank(), world.size());
    if let Some(launch) = launch
        && (launch.rank, launch.size) != (rank, size)
    {
        bail!(
            "this is {launch}, and rank {rank} of {size} for MPI; start it with the launcher of the MPI library that it was built with, or unset \
             the variables"
        );
    }
    let world: Arc<dyn World> = Arc::new(world);
    Ok(Processes {
        rank,
        size,
        between_steps: Mutex::new(world.ranks(size).swap_remove(0)),
        world,
        connected_by: "MPI".to_owned(),
        abort: infermark_communicator::Mpi::abort,
        _connection: Some(Box::new(mpi)),
    })
}

#[cfg(not(feature = "mpi"))]
fn by_mpi(launch: Option<Launch>, _: Duration) -> anyhow::Result<Processes> {
    let started = launch.map_or_else(String::new, |launch| format!("this is {launch}, and "));
    bail!(
        "{started}this program was built without MPI; build it with `--features mpi`, which needs an MPI library and libclang, or start one process"
    )
}

fn lock(communicator: &Mutex<Box<dyn Communicator>>) -> MutexGuard<'_, Box<dyn Communicator>> {
    communicator.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A digest that is the same in every process of one program.
fn digest_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Says why process `rank` does not go on, and ends all of them.
fn end_processes(rank: usize, abort: fn(i32) -> !, error: impl std::fmt::Display) -> ! {
    if rank > 0 {
        // What all of them find, the first one says, and ends this process.
        std::thread::sleep(TURN_OF_FIRST);
    }
    notify_from_any_rank(format_args!("error: {error}"));
    abort(Exit::Usage.code().into())
}

impl Ranks {
    /// Whether this process writes the results.
    pub(crate) fn is_first(&self) -> bool {
        match self {
            Ranks::Threads | Ranks::Cards { .. } => true,
            Ranks::Processes(processes) => processes.rank == 0,
        }
    }

    /// Whether other processes take part.
    pub(crate) fn are_processes(&self) -> bool {
        matches!(self, Ranks::Processes(_))
    }

    /// Checks that all processes have the same `what`, of these bytes.
    ///
    /// # Errors
    /// When one has another.
    pub(crate) fn check_same(&self, what: &'static str, bytes: &[u8]) -> Result<(), infermark::BackendError> {
        let Ranks::Processes(processes) = self else {
            return Ok(());
        };
        Ok(preflight(
            &mut **lock(&processes.between_steps),
            &[(what, digest_of(bytes))],
        )?)
    }

    /// Says why this process does not go on, and ends the others as well, which may wait for it. Returns where there are none.
    pub(crate) fn end_all(&self, error: impl std::fmt::Display) {
        let Ranks::Processes(processes) = self else {
            return;
        };
        end_processes(processes.rank, processes.abort, error)
    }

    /// The steps that all processes make next, which are the first one's `steps`, and whether a checkpoint is `due` in any of them.
    ///
    /// # Errors
    /// When a rank has gone or does not answer.
    pub(crate) fn agree_on(&self, steps: u64, due: bool) -> Result<(u64, bool), CommunicationError> {
        let Ranks::Processes(processes) = self else {
            return Ok((steps, due));
        };
        let own = if processes.rank == 0 { steps as f64 } else { 0.0 };
        let mut sums = [own, f64::from(u8::from(due))];
        lock(&processes.between_steps).all_reduce(&mut sums)?;
        Ok((sums[0] as u64, sums[1] > 0.0))
    }

    /// The shards of a run of `method` on `devices` devices, where `asked` were asked for: one in each process or on each card that NCCL
    /// connects, or as many for each device. Chains are spread over processes, and the panel is not cut.
    ///
    /// # Errors
    /// When another number was asked for, or the method has no ranks in other processes.
    pub(crate) fn shards(
        &self,
        asked: Option<usize>,
        devices: usize,
        method: MethodKind,
    ) -> anyhow::Result<usize> {
        let (what, size) = match self {
            Ranks::Threads => {
                let asked = asked.unwrap_or(devices);
                ensure!(
                    asked.is_multiple_of(devices),
                    "--shards is {asked}, and --device names {devices}; give as many shards for each, or leave --shards out"
                );
                return Ok(asked);
            }
            Ranks::Cards { size, .. } => ("cards that NCCL connects", *size),
            Ranks::Processes(Processes { size, .. }) => ("processes", *size),
        };
        match method {
            MethodKind::Meanfield if size > 1 => {
                bail!("--method meanfield has one rank, and there are {size} {what}; start one process")
            }
            MethodKind::Nuts if asked.is_some_and(|asked| asked != 1) => {
                bail!("--method nuts spreads its chains over the {size} {what}; leave --shards out")
            }
            MethodKind::Nuts => return Ok(1),
            _ => {}
        }
        match asked {
            Some(asked) if asked != 1 && asked != size => {
                bail!("--shards is {asked}, and there are {size} {what} with one shard each; leave it out")
            }
            _ => Ok(size),
        }
    }

    /// What connects these as ranks that a panel's rows are spread over; `None` where each holds all rows: within one process, where
    /// chains are spread, and where the panel is cut by row.
    pub(crate) fn of_panel(&self, request: &Request) -> Option<Arc<dyn PanelRanks>> {
        let Ranks::Processes(Processes {
            rank,
            size,
            world,
            abort,
            ..
        }) = self
        else {
            return None;
        };
        if request.shards == 1 || request.cut != Cut::Product {
            return None;
        }
        let (rank, abort) = (*rank, *abort);
        let communicator = world.ranks(*size).swap_remove(0);
        let end = move |error: &CommunicationError| end_processes(rank, abort, error);
        Some(Arc::new(ConnectedRanks::new(communicator, end)))
    }

    /// The backend with its ranks in these.
    ///
    /// # Errors
    /// When it has none, or the ranks do not reach each other.
    pub(crate) fn connect(&self, backend: Arc<dyn Backend>) -> anyhow::Result<Arc<dyn Backend>> {
        let (size, world) = match self {
            Ranks::Threads => return Ok(backend),
            Ranks::Cards { size, world } | Ranks::Processes(Processes { size, world, .. }) => (*size, world),
        };
        if size == 1 {
            for mut rank in world.ranks(1) {
                preflight(&mut *rank, &[]).map_err(infermark::BackendError::from)?;
            }
            return Ok(backend);
        }
        match backend.among(world.clone()) {
            Some(backend) => Ok(backend),
            None => bail!(
                "{} has no ranks that are connected from outside; start one process without --communicator",
                backend.name()
            ),
        }
    }
}
