//! Hamiltonian Monte Carlo on the CPU, in `f64`, on the log joint of `z` (the model's latents in the
//! requested parameterization): the No-U-Turn sampler, and trajectories of about a quarter rotation where
//! their length is known in advance.
//!
//! Chains run in parallel, one thread each; when there are fewer chains than threads, the remaining threads
//! are shared among the chains and work inside their gradients.
//!
//! Under the structured metric, the default, chains move in coordinates that the block-arrowhead precision at
//! the posterior mode makes nearly standard normal (`whitening`). All directions turn there at the same time,
//! so trajectories are about a quarter rotation long, without a search for a U-turn (`hmc`); a step between
//! two gradients is the exact motion in a standard normal, a rotation, so the error of a trajectory comes
//! only from the difference between the posterior and that normal. Only the step size is tuned (`step_size`).
//! Products of few sales, whose posterior is far from normal, are also drawn separately given the rest
//! (`few_sales`). Chains start from over-dispersed draws of the normal. A step costs the gradient and two
//! passes of the factor.
//!
//! Under the diagonal metric sampling is done by [nuts-rs](https://docs.rs/nuts-rs) (`no_u_turn`). It differs
//! from Stan and NumPyro as follows. Trajectories are the same (multinomial NUTS with the generalized U-turn
//! criterion), warm-up is not. The diagonal metric is estimated from draws and gradients together,
//! `sqrt(var(z) / var(gradient))` per latent, instead of from the draws' variance; it starts from the
//! gradient at the first point instead of from one, and is updated at every draw of the first 85% of the
//! warm-up from windows that overlap and grow, instead of at the ends of doubling windows; for the last 15%
//! it is frozen. The step size is tuned by dual averaging to the same target throughout, by an acceptance
//! statistic that weighs both directions of time once no further window fits before the freeze, and is
//! jittered by up to 10% at every draw. Gradients `g` beyond 1e9 enter the integration as
//! `1e10 asinh(g / 1e10)`, which grows like a logarithm, without a bound; the stationary distribution stays
//! as it is.
//!
//! | module | holds |
//! |---|---|
//! | `backend` | checks of requests, and devices |
//! | `run` | a run advanced in pieces; its report and warnings |
//! | `scheduler` | the scheduler of the chains: threads, pieces, interrupts |
//! | `pass` | a chain's handle to the scheduler |
//! | `sampler` | the interface of a sampler of one chain, for any metric |
//! | `chain` | the thread of one chain |
//! | `hmc`, `step_size`, `structured` | trajectories of the structured metric, the tuning of their steps, both as a sampler |
//! | `few_sales` | products of few sales, drawn separately |
//! | `no_u_turn` | nuts-rs, the sampler of the diagonal metric |
//! | `density` | the log density that is sampled |
//! | `whitening` | the coordinates of the structured metric |
//! | `start` | starting points of the chains |
//! | `record` | what is kept of a chain |
//! | `summary` | the posterior from the kept draws |

mod backend;
mod chain;
mod density;
mod few_sales;
mod hmc;
#[cfg(test)]
mod known_density;
mod memory;
mod no_u_turn;
mod pass;
mod record;
mod run;
mod sampler;
mod scheduler;
mod start;
mod step_size;
mod structured;
mod summary;
mod whitening;

pub use backend::NutsCpu;

/// The backend's name.
pub(crate) const NAME: &str = "nuts-cpu";
