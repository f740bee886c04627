//! The No-U-Turn sampler on the CPU.
//!
//! Sampling is done by [nuts-rs](https://docs.rs/nuts-rs), in `f64`, on the log joint of `z` (the model's latents in
//! the requested parameterization). Chains run in parallel, one thread each; when there are fewer chains than
//! threads, the threads left over are shared among the chains and work inside their gradients.
//!
//! Under the structured metric, the default, chains move in coordinates that the block-arrow precision at the posterior
//! mode makes nearly standard normal (`whitening`): the metric is the identity, only the step size is tuned, and a step
//! between two gradients is the exact motion in a standard normal, a rotation by at most a quarter turn, so that the
//! error of a trajectory comes only from where the posterior is not that normal. It starts from over-dispersed
//! draws of the normal. A leapfrog step costs the gradient and two passes of the factor.
//!
//! Under the diagonal metric, this is how it differs from Stan and NumPyro: trajectories are the same (multinomial NUTS with the generalized U-turn
//! criterion), warm-up is not. The diagonal metric is estimated from draws and gradients together,
//! `sqrt(var(z) / var(gradient))` per latent, instead of from the draws' variance; it starts from the gradient at the
//! first point instead of from one, and is updated at every draw of the first 85% of the warm-up from windows that
//! overlap and grow, instead of at the ends of doubling windows; for the last 15% it is frozen. The step size is tuned
//! by dual averaging to the same target throughout, by an acceptance statistic that weighs both directions of time once
//! no further window fits before the freeze, and is jittered by up to 10% at every draw. Gradients `g` beyond 1e9 enter
//! the integration as `1e10 asinh(g / 1e10)`, which grows like a logarithm, without a bound; the stationary
//! distribution stays as it is.
//!
//! | module | holds |
//! |---|---|
//! | `backend` | what is asked for, checked; the devices |
//! | `run` | a run advanced in pieces |
//! | `gate` | which chains may work now: threads, pieces, interrupts |
//! | `chain` | the thread of one chain |
//! | `density` | the log density that is sampled |
//! | `whitening` | the coordinates of the structured metric |
//! | `start` | where chains start |
//! | `record` | what is kept of a chain |
//! | `summary` | the posterior of what was kept |
//! | `findings` | the report and its warnings |

mod backend;
mod chain;
mod density;
mod findings;
mod gate;
mod hmc;
#[cfg(test)]
mod known_density;
mod memory;
mod no_u_turn;
mod pair;
mod record;
mod run;
mod start;
mod step_size;
mod structured;
mod summary;
mod whitening;

pub use backend::NutsCpu;
