//! The thread of one chain: its sampler, which takes a permit from the scheduler for every draw.

use crate::density::Density;
use crate::no_u_turn;
use crate::pass::Pass;
use crate::record::{ChainRecord, DrawOutcome};
use crate::sampler::Sampler;
use crate::scheduler::ChainScheduler;
use crate::start::{ATTEMPTS, start_point, whitened_start_point};
use crate::structured::{Structured, Whitened};
use infermark_backend::{DrawStatistics, Metric, NutsSettings};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_chacha::ChaCha12Rng;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

/// Turns a draw of `z` into natural parameters.
pub(crate) type ToNatural = Arc<dyn Fn(&[f64]) -> Vec<f64> + Send + Sync>;

/// The inputs of a chain's thread.
pub(crate) struct ChainTask<D> {
    /// The chain's number, from 0.
    pub chain: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Settings of the sampler.
    pub settings: NutsSettings,
    /// What is sampled.
    pub density: D,
    /// Map from `z` to natural parameters.
    pub to_natural: ToNatural,
    /// The scheduler that permits the chain to work.
    pub scheduler: Arc<ChainScheduler>,
    /// The record that draws are added to.
    pub record: Arc<Mutex<ChainRecord>>,
}

/// Works until the run is dropped, or the chain has failed and reported it to the scheduler.
pub(crate) fn run_chain<D: Density>(task: ChainTask<D>) {
    let (scheduler, chain) = (task.scheduler.clone(), task.chain);
    // A panic must not leave the run waiting for this chain.
    let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| draw_until_shut(task)));
    match worked {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => scheduler.fail(chain, reason),
        Err(_) => scheduler.fail(chain, "the sampler panicked".into()),
    }
}

/// `Ok` when the run was dropped, `Err` with the reason when the chain cannot go on.
fn draw_until_shut<D: Density>(task: ChainTask<D>) -> Result<(), String> {
    let pass = Rc::new(Pass::new(task.scheduler, task.chain));
    let (seed, chain, settings) = (task.seed, task.chain, &task.settings);
    let mut sampling = Sampling {
        pass: pass.clone(),
        warmup: settings.warmup,
        to_natural: task.to_natural,
        record: task.record,
    };
    if sampling.pass.enter().is_err() {
        return Ok(());
    }
    match settings.metric {
        Metric::Diagonal => {
            let latents = task.density.dimension();
            let sampler = no_u_turn::sampler(
                task.density,
                pass,
                settings,
                chain,
                &mut StdRng::from_seed(key(seed, chain)),
            )?;
            sampling.go(sampler, |attempt| start_point(latents, seed, chain, attempt))
        }
        Metric::Structured => {
            let latents = task.density.dimension();
            let rng = ChaCha12Rng::from_seed(key(seed, chain));
            let sampler = Structured::new(Whitened::new(task.density, pass), settings, rng);
            sampling.go(sampler, |attempt| {
                whitened_start_point(latents, seed, chain, attempt)
            })
        }
    }
}

/// A chain at work, whatever its metric.
struct Sampling {
    pass: Rc<Pass>,
    warmup: u64,
    to_natural: ToNatural,
    record: Arc<Mutex<ChainRecord>>,
}

impl Sampling {
    /// `Ok` when the run was dropped, `Err` with the reason when the chain cannot go on.
    fn go(&mut self, mut sampler: impl Sampler, start: impl Fn(u32) -> Vec<f64>) -> Result<(), String> {
        let pass = self.pass.clone();
        let (saved, mut draw) = {
            let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            (record.sampler.clone(), record.all_draws())
        };
        let unless_shut = |reason: String| if pass.is_shut() { Ok(()) } else { Err(reason) };
        let begun = match &saved {
            Some(state) => sampler.go_on(state, draw),
            None => begin(&mut sampler, start, &pass),
        };
        if let Err(reason) = begun {
            return unless_shut(reason);
        }
        // The first draw counts the gradients of the start. One was made to go on, and none in the unbroken run.
        let mut gradients_before = if saved.is_some() { pass.gradients() } else { 0 };
        let mut z = Vec::new();
        loop {
            let figures = match sampler.draw(&mut z) {
                Ok(figures) => figures,
                Err(error) => return unless_shut(error),
            };
            let natural = (draw >= self.warmup).then(|| (self.to_natural)(&z));
            let gradients = pass.gradients();
            let outcome = DrawOutcome {
                statistics: DrawStatistics {
                    diverging: figures.diverging,
                    tree_depth: figures.depth as u32,
                    leapfrog_steps: figures.steps as u32,
                    acceptance: figures.acceptance,
                    step_size: figures.step_size,
                    energy: figures.energy,
                    log_joint: figures.log_joint,
                },
                saturated: figures.saturated,
                gradients: gradients - gradients_before,
                seconds: pass.take_busy().as_secs_f64(),
                step_size: figures.tuned_step_size,
            };
            gradients_before = gradients;
            draw += 1;
            {
                // Nobody reads the record until the scheduler knows that the draw is finished.
                let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
                match natural {
                    None => record.push_warmup(&outcome),
                    Some(natural) => record.push_draw(&outcome, &natural),
                }
                sampler.save(&mut record.sampler);
            }
            pass.finish_draw();
            if pass.enter().is_err() {
                return Ok(());
            }
        }
    }
}

/// Starts a sampler at the first start that it can start from.
fn begin(sampler: &mut impl Sampler, start: impl Fn(u32) -> Vec<f64>, pass: &Pass) -> Result<(), String> {
    let mut attempt = 0;
    while let Err(error) = sampler.start(&start(attempt)) {
        attempt += 1;
        if pass.is_shut() || attempt == ATTEMPTS {
            return Err(format!(
                "no start out of {ATTEMPTS} has a finite log joint and gradient ({error}); check prices and units for \
                 extreme values"
            ));
        }
    }
    Ok(())
}

/// The key of the sampler's own random numbers, a ChaCha stream: the seed and the chain.
fn key(seed: u64, chain: usize) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(chain as u64).to_le_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, RngExt};
    use rand_distr::{Distribution, StandardNormal};

    /// Numbers of all kinds that samplers take.
    fn numbers(rng: &mut impl Rng, count: usize) -> Vec<f64> {
        (0..count)
            .map(|k| match k % 3 {
                0 => rng.random_range(0.7..1.3),
                1 => StandardNormal.sample(rng),
                _ => f64::from(rng.random::<u32>()),
            })
            .collect()
    }

    #[test]
    fn the_stream_goes_on_from_any_word() {
        let mut whole = ChaCha12Rng::from_seed(key(7, 2));
        let mut standard = StdRng::from_seed(key(7, 2));
        for count in 0..300 {
            let mut later = ChaCha12Rng::from_seed(key(7, 2));
            later.set_word_pos(whole.get_word_pos());
            assert_eq!(numbers(&mut later, 100), numbers(&mut whole.clone(), 100));
            assert_eq!(numbers(&mut whole, count % 7), numbers(&mut standard, count % 7));
        }
    }
}
