//! How the processes of a run were started: what launchers put into the environment.

use std::fmt;

/// A launcher, by the variables that it sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launcher {
    /// Its name.
    pub name: &'static str,
    /// The variable with the rank of this process, from 0.
    pub rank: &'static str,
    /// The variable with the number of ranks.
    pub size: &'static str,
    /// The variable with the rank among those on this machine.
    pub local_rank: &'static str,
    /// The variable without which the others are not of this process: a batch script of Slurm has a rank too, and mpirun hands it on.
    pub only_with: Option<&'static str>,
}

const SLURM: &str = "Slurm";

/// The launchers whose variables are read, the first that is there first.
pub const LAUNCHERS: [Launcher; 4] = [
    Launcher {
        name: "torchrun",
        rank: "RANK",
        size: "WORLD_SIZE",
        local_rank: "LOCAL_RANK",
        only_with: None,
    },
    Launcher {
        name: "Open MPI",
        rank: "OMPI_COMM_WORLD_RANK",
        size: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        only_with: None,
    },
    Launcher {
        name: "PMI",
        rank: "PMI_RANK",
        size: "PMI_SIZE",
        local_rank: "MPI_LOCALRANKID",
        only_with: None,
    },
    Launcher {
        name: SLURM,
        rank: "SLURM_PROCID",
        size: "SLURM_NTASKS",
        local_rank: "SLURM_LOCALID",
        only_with: Some("SLURM_STEP_ID"),
    },
];

/// The place of this process among those of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Its rank, from 0.
    pub rank: usize,
    /// The number of ranks.
    pub size: usize,
    /// Its rank among those on this machine, where the launcher says it.
    pub local_rank: Option<usize>,
    /// Who started it.
    pub launcher: Launcher,
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Launcher { name, rank, size, .. } = self.launcher;
        write!(f, "rank {} of {} ({name}: {rank}, {size})", self.rank, self.size)
    }
}

/// Variables of launchers that say nothing, or different things.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// A variable that is no number, or a rank that is none of the size.
    #[error("{variable} is '{value}'; {expected}")]
    Value {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// Two launchers say different things.
    #[error(
        "{variable} is {value}, and {other} is {other_value}: unset the one that another job has left in the environment"
    )]
    Disagreement {
        /// The variable that comes first in [`LAUNCHERS`].
        variable: &'static str,
        /// Its value.
        value: usize,
        /// The other.
        other: &'static str,
        /// Its value.
        other_value: usize,
    },
}

/// The place of this process, from the environment; `None` where no launcher has set its variables.
///
/// # Errors
/// When a variable makes no sense, or launchers disagree on rank or size.
pub fn launch() -> Result<Option<Launch>, LaunchError> {
    launch_in(|name| std::env::var(name).ok())
}

fn launch_in(variable: impl Fn(&'static str) -> Option<String>) -> Result<Option<Launch>, LaunchError> {
    let number = |name: &'static str| {
        let Some(value) = variable(name) else {
            return Ok(None);
        };
        match value.trim().parse::<usize>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(LaunchError::Value {
                variable: name,
                value,
                expected: "it must be a whole number".to_owned(),
            }),
        }
    };
    let mut first: Option<Launch> = None;
    for launcher in LAUNCHERS {
        if launcher.only_with.is_some_and(|name| variable(name).is_none()) {
            continue;
        }
        // Launchers that are started within a step of Slurm, or start their daemons in one, hand its variables on.
        if launcher.name == SLURM && first.is_some() {
            continue;
        }
        let (Some(rank), Some(size)) = (number(launcher.rank)?, number(launcher.size)?) else {
            continue;
        };
        if rank >= size {
            return Err(LaunchError::Value {
                variable: launcher.rank,
                value: rank.to_string(),
                expected: format!("{} is {size}, so that it must be below", launcher.size),
            });
        }
        let found = Launch {
            rank,
            size,
            local_rank: number(launcher.local_rank)?,
            launcher,
        };
        let Some(known) = &first else {
            first = Some(found);
            continue;
        };
        for (variable, value, other, other_value) in [
            (known.launcher.size, known.size, launcher.size, size),
            (known.launcher.rank, known.rank, launcher.rank, rank),
        ] {
            if value != other_value {
                return Err(LaunchError::Disagreement {
                    variable,
                    value,
                    other,
                    other_value,
                });
            }
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&'static str, &str)]) -> Result<Option<(usize, usize, &'static str)>, String> {
        let variable = |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        launch_in(variable)
            .map(|launch| launch.map(|launch| (launch.rank, launch.size, launch.launcher.name)))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_launcher_counts() {
        assert_eq!(found(&[]), Ok(None));
        // Alone they say nothing.
        assert_eq!(found(&[("RANK", "1")]), Ok(None));
        let slurm = [
            ("SLURM_PROCID", "2"),
            ("SLURM_NTASKS", "4"),
            ("SLURM_STEP_ID", "0"),
        ];
        // A batch script is no step.
        assert_eq!(found(&slurm[..2]), Ok(None));
        assert_eq!(found(&slurm), Ok(Some((2, 4, "Slurm"))));
        let both = [
            &slurm[..],
            &[("OMPI_COMM_WORLD_RANK", "2"), ("OMPI_COMM_WORLD_SIZE", "4")],
        ]
        .concat();
        assert_eq!(found(&both), Ok(Some((2, 4, "Open MPI"))));
    }

    #[test]
    fn a_daemon_of_slurm_says_nothing_of_the_ranks_that_it_starts() {
        let by_a_daemon = [
            ("OMPI_COMM_WORLD_RANK", "2"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("SLURM_PROCID", "0"),
            ("SLURM_NTASKS", "1"),
            ("SLURM_STEP_ID", "0"),
        ];
        assert_eq!(found(&by_a_daemon), Ok(Some((2, 4, "Open MPI"))));
    }

    #[test]
    fn what_disagrees_is_refused_with_both_values() {
        let left_over = [
            ("RANK", "0"),
            ("WORLD_SIZE", "1"),
            ("OMPI_COMM_WORLD_RANK", "2"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
        ];
        let error = found(&left_over).unwrap_err();
        assert!(
            error.starts_with("WORLD_SIZE is 1, and OMPI_COMM_WORLD_SIZE is 4"),
            "{error}"
        );
        let error = found(&[("RANK", "x"), ("WORLD_SIZE", "2")]).unwrap_err();
        assert!(error.starts_with("RANK is 'x'"), "{error}");
        let error = found(&[("RANK", "2"), ("WORLD_SIZE", "2")]).unwrap_err();
        assert!(error.starts_with("RANK is '2'; WORLD_SIZE is 2"), "{error}");
    }
}
