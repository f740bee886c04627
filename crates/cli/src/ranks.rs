//! The ranks of a run: threads of this process, or the processes that a launcher has started.

#[cfg(feature = "mpi")]
use crate::output::notify_from_any_rank;
use crate::output::{notify, silence};
use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use infermark::Backend;
use infermark_communicator::{LAUNCHERS, Launch, World, launch};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// What connects the ranks of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CommunicatorName {
    /// MPI where a launcher has started several processes, threads otherwise.
    Auto,
    /// Threads of this process.
    Threads,
    /// Processes that mpirun or srun has started, one rank each.
    Mpi,
}

/// The ranks of a run.
#[derive(Debug, Clone, Args)]
pub struct RankArguments {
    /// What connects the shards: threads of this process, or MPI between processes.
    #[arg(long, value_enum, default_value = "auto", help = communicator_help())]
    pub communicator: CommunicatorName,
    /// Seconds after which a rank that does not answer ends a run of several processes, with a message that names it.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub rank_timeout: u64,
}

fn communicator_help() -> String {
    let variables: Vec<String> = LAUNCHERS
        .iter()
        .map(|launcher| format!("{} ({}, {})", launcher.name, launcher.rank, launcher.size))
        .collect();
    format!(
        "What connects the shards: threads of this process, or MPI between processes. `auto` is MPI where the environment says that several \
         processes were started; it asks, in this order, {}",
        variables.join(", ")
    )
}

/// The ranks of this program's run.
pub(crate) struct Ranks(Option<Processes>);

/// The processes of a run, one rank each.
struct Processes {
    rank: usize,
    size: usize,
    world: Arc<dyn World>,
    /// What connects them, until the end of the run.
    _connection: Box<dyn Any>,
}

impl RankArguments {
    /// Finds the ranks. A process that is not the first writes nothing to the terminal from here on.
    ///
    /// # Errors
    /// When several processes were started that cannot be connected, or not as asked for.
    pub(crate) fn find(&self) -> anyhow::Result<Ranks> {
        let launch = launch()?;
        let several = launch.filter(|launch| launch.size > 1);
        let processes = match (self.communicator, several) {
            (CommunicatorName::Auto | CommunicatorName::Threads, None) => return Ok(Ranks(None)),
            (CommunicatorName::Threads, Some(launch)) => bail!(
                "this is {launch}, and each process would make the same fit; start one, or connect them (--communicator mpi)"
            ),
            (CommunicatorName::Auto | CommunicatorName::Mpi, _) => {
                by_mpi(launch, Duration::from_secs(self.rank_timeout))?
            }
        };
        match processes.rank {
            0 => notify(format_args!("{} ranks, connected by MPI", processes.size)),
            rank => silence(rank),
        }
        Ok(Ranks(Some(processes)))
    }
}

#[cfg(feature = "mpi")]
fn by_mpi(launch: Option<Launch>, deadline: Duration) -> anyhow::Result<Processes> {
    let mpi = infermark_communicator::Mpi::start(deadline, |error| {
        notify_from_any_rank(format_args!("error: {error}"));
    })?;
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
    Ok(Processes {
        rank,
        size,
        world: Arc::new(world),
        _connection: Box::new(mpi),
    })
}

#[cfg(not(feature = "mpi"))]
fn by_mpi(launch: Option<Launch>, _: Duration) -> anyhow::Result<Processes> {
    let started = launch.map_or_else(String::new, |launch| format!("this is {launch}, and "));
    bail!(
        "{started}this program was built without MPI; build it with `--features mpi`, which needs an MPI library and libclang, or start one process"
    )
}

impl Ranks {
    /// Whether this process writes the results.
    pub(crate) fn is_first(&self) -> bool {
        self.0.as_ref().is_none_or(|processes| processes.rank == 0)
    }

    /// Whether other processes take part.
    pub(crate) fn are_processes(&self) -> bool {
        self.0.is_some()
    }

    /// The shards of a run on `devices` devices, where `asked` were asked for: one in each process, or as many for each device.
    ///
    /// # Errors
    /// When another number was asked for.
    pub(crate) fn shards(&self, asked: Option<usize>, devices: usize) -> anyhow::Result<usize> {
        match (&self.0, asked) {
            (None, None) => Ok(devices),
            (None, Some(asked)) => {
                ensure!(
                    asked.is_multiple_of(devices),
                    "--shards is {asked}, and --device names {devices}; give as many shards for each, or leave --shards out"
                );
                Ok(asked)
            }
            (Some(Processes { size, .. }), _) => {
                ensure!(
                    asked.is_none_or(|asked| asked == 1 || asked == *size),
                    "--shards is {}, and there are {size} processes with one shard each; leave it out",
                    asked.unwrap_or_default()
                );
                Ok(*size)
            }
        }
    }

    /// The backend with its ranks in these.
    ///
    /// # Errors
    /// When it has none.
    pub(crate) fn connect(&self, backend: Arc<dyn Backend>) -> anyhow::Result<Arc<dyn Backend>> {
        match &self.0 {
            Some(processes) if processes.size > 1 => match backend.among(processes.world.clone()) {
                Some(backend) => Ok(backend),
                None => bail!(
                    "{} has no ranks in other processes; start one process",
                    backend.name()
                ),
            },
            _ => Ok(backend),
        }
    }
}
