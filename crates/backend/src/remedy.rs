//! What helps against a problem, as data: its text names settings by the library's terms, and a program adds its own options.

use crate::device::DeviceKind;
use crate::method_kind::MethodKind;
use crate::metric::Metric;
use crate::precision::Precision;
use infermark_model::{Coordinates, Cut, Specification};
use std::fmt;

/// A setting of a fit that can be raised, lowered or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// CPU threads: [`Request::threads`](crate::Request::threads).
    Threads,
    /// Shards of the panel: [`Request::shards`](crate::Request::shards).
    Shards,
    /// Chains of NUTS: [`NutsSettings::chains`](crate::NutsSettings::chains).
    Chains,
    /// Draws of a chain after warm-up: [`NutsSettings::draws`](crate::NutsSettings::draws).
    Draws,
    /// Warm-up draws of a chain: [`NutsSettings::warmup`](crate::NutsSettings::warmup).
    Warmup,
    /// Acceptance that the step size of NUTS is tuned to: [`NutsSettings::target_accept`](crate::NutsSettings::target_accept).
    TargetAccept,
    /// Limit of the doublings of a trajectory: [`NutsSettings::max_depth`](crate::NutsSettings::max_depth).
    MaxDepth,
    /// Iterations of SVI: [`SviSettings::iterations`](crate::SviSettings::iterations).
    Iterations,
    /// Particles of SVI: [`SviSettings::particles`](crate::SviSettings::particles).
    Particles,
    /// Learning rate of SVI: [`SviSettings::optimizer`](crate::SviSettings::optimizer).
    LearningRate,
    /// Limit of the steps of a Gaussian method, for instance [`LaplaceSettings::steps`](crate::LaplaceSettings::steps).
    Steps,
    /// Form in which the sites are inferred: [`Request::parameterization`](crate::Request::parameterization).
    Parameterization,
    /// Lower clip bound of the log rate: [`Priors::clip_low`](infermark_model::Priors::clip_low).
    ClipLow,
    /// Upper clip bound of the log rate: [`Priors::clip_high`](infermark_model::Priors::clip_high).
    ClipHigh,
}

impl Setting {
    /// Its name in a sentence, without an article.
    pub const fn name(self) -> &'static str {
        match self {
            Setting::Threads => "threads",
            Setting::Shards => "shards",
            Setting::Chains => "chains",
            Setting::Draws => "draws",
            Setting::Warmup => "warm-up draws",
            Setting::TargetAccept => "target acceptance",
            Setting::MaxDepth => "maximum depth",
            Setting::Iterations => "iterations",
            Setting::Particles => "particles",
            Setting::LearningRate => "learning rate",
            Setting::Steps => "steps",
            Setting::Parameterization => "parameterization",
            Setting::ClipLow => "clip_low",
            Setting::ClipHigh => "clip_high",
        }
    }

    /// Whether it counts things, so that there are more or fewer of them.
    const fn is_count(self) -> bool {
        matches!(
            self,
            Setting::Threads
                | Setting::Shards
                | Setting::Chains
                | Setting::Draws
                | Setting::Warmup
                | Setting::Iterations
                | Setting::Particles
                | Setting::Steps
        )
    }

    /// The article in front of [`Setting::name`], with a space; a prior setting is named as in its file.
    const fn article(self) -> &'static str {
        match self {
            Setting::ClipLow | Setting::ClipHigh => "",
            _ => "the ",
        }
    }
}

/// A value of a setting that has names for its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The method.
    Method(MethodKind),
    /// The metric of NUTS.
    Metric(Metric),
    /// The coordinates of a mean-field guide.
    Coordinates(Coordinates),
    /// The precision of the passes over the panel.
    Precision(Precision),
    /// The kind of device.
    Device(DeviceKind),
    /// The model.
    Model(Specification),
    /// The cut of the panel into shards.
    Cut(Cut),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Method(method) => write!(f, "the method {}", method.name()),
            Choice::Metric(metric) => write!(f, "the {} metric", metric.name()),
            Choice::Coordinates(coordinates) => write!(f, "the {} coordinates", coordinates.name()),
            Choice::Precision(precision) => write!(f, "precision {}", precision.name()),
            Choice::Device(kind) => write!(f, "the device {}", kind.name()),
            Choice::Model(model) => write!(f, "the {} model", model.name()),
            Choice::Cut(cut) => write!(f, "the cut by {}", cut.name()),
        }
    }
}

/// Something that helps against a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// A named value.
    Choose(Choice),
    /// More of a setting.
    Raise(Setting),
    /// Less of a setting.
    Lower(Setting),
    /// Another value of a setting.
    Change(Setting),
    /// More memory for the process.
    GiveMemory,
    /// A device with more memory.
    LargerDevice,
    /// Another backend of the method.
    UseBackend(&'static str),
    /// A panel with fewer of these.
    FitFewer(&'static str),
    /// A higher limit of the processes and threads that the system allows.
    RaiseProcessLimit,
}

impl Remedy {
    /// The remedy of another method.
    pub const fn method(method: MethodKind) -> Self {
        Remedy::Choose(Choice::Method(method))
    }

    /// The remedy of running on the CPU.
    pub const CPU: Remedy = Remedy::Choose(Choice::Device(DeviceKind::Cpu));
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remedy::Choose(choice) => write!(f, "choose {choice}"),
            Remedy::Raise(setting) if setting.is_count() => write!(f, "ask for more {}", setting.name()),
            Remedy::Raise(setting) => write!(f, "raise {}{}", setting.article(), setting.name()),
            Remedy::Lower(setting) if setting.is_count() => write!(f, "ask for fewer {}", setting.name()),
            Remedy::Lower(setting) => write!(f, "lower {}{}", setting.article(), setting.name()),
            Remedy::Change(setting) => write!(f, "try another {}", setting.name()),
            Remedy::GiveMemory => f.write_str("give it more memory"),
            Remedy::LargerDevice => f.write_str("use a device with more memory"),
            Remedy::UseBackend(name) => write!(f, "use the backend {name}"),
            Remedy::FitFewer(what) => write!(f, "fit fewer {what} at a time"),
            Remedy::RaiseProcessLimit => {
                f.write_str("raise the limit of processes (`ulimit -u`, or `pids.max` of a container)")
            }
        }
    }
}

/// Remedies as alternatives: `ask for fewer chains, ask for fewer draws, or give it more memory`.
pub(crate) struct Alternatives<'r>(pub(crate) &'r [Remedy]);

impl fmt::Display for Alternatives<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, remedy) in self.0.iter().enumerate() {
            match i {
                0 => {}
                _ if i + 1 == self.0.len() => f.write_str(", or ")?,
                _ => f.write_str(", ")?,
            }
            write!(f, "{remedy}")?;
        }
        Ok(())
    }
}

/// What is the matter, in words, and what helps. Written as `problem; remedies`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// What is the matter.
    pub problem: String,
    /// What helps: alternatives, the best first.
    pub remedies: Vec<Remedy>,
}

impl Cause {
    /// A cause with what helps.
    pub fn new(problem: impl Into<String>, remedies: impl Into<Vec<Remedy>>) -> Self {
        Cause {
            problem: problem.into(),
            remedies: remedies.into(),
        }
    }
}

impl From<String> for Cause {
    fn from(problem: String) -> Self {
        Cause::new(problem, [])
    }
}

impl From<&str> for Cause {
    fn from(problem: &str) -> Self {
        Cause::new(problem, [])
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)?;
        match &self.remedies[..] {
            [] => Ok(()),
            remedies => write!(f, "; {}", Alternatives(remedies)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_are_worded_as_alternatives() {
        let cause = |remedies: &[Remedy]| Cause::new("too large", remedies).to_string();
        assert_eq!(cause(&[]), "too large");
        assert_eq!(
            cause(&[Remedy::Choose(Choice::Metric(Metric::Diagonal))]),
            "too large; choose the diagonal metric"
        );
        assert_eq!(
            cause(&[
                Remedy::Lower(Setting::Chains),
                Remedy::Lower(Setting::ClipLow),
                Remedy::Raise(Setting::TargetAccept),
            ]),
            "too large; ask for fewer chains, lower clip_low, or raise the target acceptance"
        );
    }
}
