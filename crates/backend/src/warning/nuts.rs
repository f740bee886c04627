//! Warnings of NUTS.

use crate::convergence::{ESS_LIMIT, RHAT_LIMIT};
use crate::metric::Metric;
use crate::remedy::{Remedy, Setting};
use infermark_model::Site;
use std::fmt;

/// A warning of NUTS. Latents are named with their labels.
#[derive(Debug, Clone, PartialEq)]
pub enum NutsWarning {
    /// The run failed.
    Failed,
    /// The run is not at its end.
    Unfinished {
        /// Fewest draws of a chain after warm-up.
        fewest: u64,
        /// Most draws of a chain after warm-up.
        most: u64,
        /// Draws asked for.
        draws: u64,
    },
    /// Chains are of unequal length.
    UnequalChains {
        /// Draws of each chain that summaries use.
        used: u64,
    },
    /// The warm-up is too short for what it tunes.
    ShortWarmup {
        /// Warm-up draws.
        warmup: u64,
        /// The metric.
        metric: Metric,
    },
    /// The search for the mode was not within its tolerance.
    ModeNotReached {
        /// Newton steps.
        steps: u64,
        /// Log density still to be gained, in nats.
        decrement: f64,
    },
    /// A learned centredness is not sampled.
    FixedCentredness,
    /// Transitions diverged.
    Divergences {
        /// Transitions that diverged.
        divergences: u64,
        /// All transitions.
        transitions: u64,
        /// The metric.
        metric: Metric,
    },
    /// Trajectories met the limit of their length.
    SaturatedTrees {
        /// Trajectories that met it.
        saturated: u64,
        /// All trajectories.
        trajectories: u64,
        /// The limit of the doublings.
        max_depth: u32,
    },
    /// A chain's acceptance is far from what was asked for.
    Acceptance {
        /// The chain, from 1.
        chain: usize,
        /// Its mean acceptance.
        acceptance: f64,
        /// What was asked for.
        target: f64,
        /// Its step size.
        step_size: f64,
    },
    /// There is no second chain to compare with.
    OneChain,
    /// R-hat is undefined for latents.
    UndefinedRhat {
        /// Latents without R-hat.
        undefined: usize,
        /// All latents.
        latents: usize,
    },
    /// R-hat is above [`RHAT_LIMIT`].
    Rhat {
        /// Latents above the limit.
        above: usize,
        /// All latents.
        latents: usize,
        /// The largest R-hat.
        worst: f64,
        /// The latent that has it.
        place: String,
    },
    /// An effective sample size is below [`ESS_LIMIT`].
    EffectiveSamples {
        /// `bulk` or `tail`.
        kind: &'static str,
        /// Latents below the limit.
        below: usize,
        /// All latents.
        latents: usize,
        /// The smallest effective sample size.
        worst: f64,
        /// The latent that has it.
        place: String,
    },
    /// Not every draw is kept.
    MomentsOnly {
        /// Bytes that draws may take.
        limit_bytes: u64,
        /// Sites whose draws are kept.
        kept: Vec<Site>,
    },
}

impl NutsWarning {
    pub(super) fn remedies(&self) -> Vec<Remedy> {
        use Remedy::{Change, Raise};
        match self {
            NutsWarning::ShortWarmup { .. } | NutsWarning::Acceptance { .. } => vec![Raise(Setting::Warmup)],
            NutsWarning::Divergences { metric, .. } => match metric {
                Metric::Diagonal => vec![Raise(Setting::TargetAccept), Change(Setting::Parameterization)],
                Metric::Structured => vec![Raise(Setting::TargetAccept)],
            },
            NutsWarning::SaturatedTrees { .. } => vec![Raise(Setting::MaxDepth), Raise(Setting::Warmup)],
            NutsWarning::OneChain => vec![Raise(Setting::Chains)],
            NutsWarning::Rhat { .. } => vec![Raise(Setting::Draws), Raise(Setting::Warmup)],
            NutsWarning::EffectiveSamples { .. } => vec![Raise(Setting::Draws)],
            NutsWarning::Failed
            | NutsWarning::Unfinished { .. }
            | NutsWarning::UnequalChains { .. }
            | NutsWarning::ModeNotReached { .. }
            | NutsWarning::FixedCentredness
            | NutsWarning::UndefinedRhat { .. }
            | NutsWarning::MomentsOnly { .. } => Vec::new(),
        }
    }

    pub(super) fn write_facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NutsWarning::Failed => f.write_str("The run failed; figures are of the draws before"),
            NutsWarning::Unfinished { fewest, most, draws } => write!(
                f,
                "The run is unfinished: chains have {fewest} to {most} of {draws} draws after warm-up"
            ),
            NutsWarning::UnequalChains { used } => {
                write!(
                    f,
                    "Chains are of unequal length; summaries use the first {used} draws of each"
                )
            }
            NutsWarning::ShortWarmup { warmup, metric } => {
                let tuned = match metric {
                    Metric::Diagonal => "the step size and the metric",
                    Metric::Structured => "the step size",
                };
                write!(f, "The warm-up of {warmup} draws is too short to tune {tuned}")
            }
            NutsWarning::ModeNotReached { steps, decrement } => write!(
                f,
                "The search for the mode ended after {steps} steps with {decrement:.1e} nats still to be gained: draws are correct, \
                 but the metric may fit the posterior less well"
            ),
            NutsWarning::FixedCentredness => {
                f.write_str("The centredness is not sampled: it stays at its start value, 0.5")
            }
            NutsWarning::Divergences {
                divergences,
                transitions,
                ..
            } => write!(
                f,
                "{divergences} of {transitions} transitions diverged: the posterior has regions that the step size cannot follow"
            ),
            NutsWarning::SaturatedTrees {
                saturated,
                trajectories,
                max_depth,
            } => write!(
                f,
                "{saturated} of {trajectories} trajectories met the limit of {} steps (maximum depth {max_depth}): draws are correct \
                 but correlated",
                (1_u64 << max_depth) - 1
            ),
            NutsWarning::Acceptance {
                chain,
                acceptance,
                target,
                step_size,
            } => write!(
                f,
                "Chain {chain} accepts {acceptance:.2} on average where {target:.2} was asked for, at a step size of \
                 {step_size:.3}: its step size was tuned elsewhere than where it draws"
            ),
            NutsWarning::OneChain => {
                f.write_str("There is one chain: R-hat is undefined, and a missed mode would not show")
            }
            NutsWarning::UndefinedRhat { undefined, latents } => write!(
                f,
                "R-hat is undefined for {undefined} of {latents} latents: there are too few draws, or all are equal"
            ),
            NutsWarning::Rhat {
                above,
                latents,
                worst,
                place,
            } => write!(
                f,
                "R-hat is above {RHAT_LIMIT} for {above} of {latents} latents, {worst:.3} for {place}: the chains have not mixed"
            ),
            NutsWarning::EffectiveSamples {
                kind,
                below,
                latents,
                worst,
                place,
            } => write!(
                f,
                "The {kind} effective sample size is below {ESS_LIMIT} for {below} of {latents} latents, {worst:.0} for {place}"
            ),
            NutsWarning::MomentsOnly { limit_bytes, kept } => {
                let kept: Vec<&str> = kept.iter().map(|site| site.name()).collect();
                write!(
                    f,
                    "Not every draw is kept (limit {limit_bytes} bytes). Of the sites other than [{}]: quantiles are those of a \
                     normal, R-hat is not rank-normalised, the effective sample size is that of the mean by batch means, and the \
                     tail's is not known",
                    kept.join(", ")
                )
            }
        }
    }
}
