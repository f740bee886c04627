//! The sampler of the structured metric: Hamiltonian Monte Carlo in whitened coordinates, and its warm-up.

use crate::density::Density;
use crate::hmc::{Hmc, LONGEST_STEP, Target};
use crate::pass::Pass;
use crate::sampler::{DrawFigures, Sampler, SamplerState};
use crate::scheduler::Shut;
use crate::step_size::DualAveraging;
use crate::whitening::Whitening;
use infermark_backend::NutsSettings;
use rand_chacha::ChaCha12Rng;
use std::rc::Rc;
use std::sync::Arc;

/// A density in whitened coordinates, or in its own if it has no whitening.
pub(crate) struct Whitened<D> {
    density: D,
    whitening: Option<Arc<Whitening>>,
    pass: Rc<Pass>,
    natural: Vec<f64>,
    by_natural: Vec<f64>,
    /// The point in which products of few sales are moved.
    drawn: Vec<f64>,
    /// Scratch for that.
    effects: Vec<f64>,
}

impl<D: Density> Whitened<D> {
    /// The density, whose gradients wait at the scheduler.
    pub(crate) fn new(density: D, pass: Rc<Pass>) -> Self {
        let latents = density.dimension();
        Whitened {
            whitening: density.whitening(),
            density,
            pass,
            natural: vec![0.0; latents],
            by_natural: vec![0.0; latents],
            drawn: vec![0.0; latents],
            effects: Vec::new(),
        }
    }

    /// Writes the density's own coordinates of a point.
    fn natural(&self, whitened: &[f64], natural: &mut [f64]) {
        match &self.whitening {
            Some(whitening) => whitening.natural(whitened, natural),
            None => natural.copy_from_slice(whitened),
        }
    }
}

impl<D: Density> Target for Whitened<D> {
    fn dimension(&self) -> usize {
        self.natural.len()
    }

    fn value_and_gradient(&mut self, position: &[f64], gradient: &mut [f64]) -> Result<f64, Shut> {
        self.pass.before_gradient()?;
        let Some(whitening) = &self.whitening else {
            return Ok(self.density.value_and_gradient(position, gradient));
        };
        whitening.natural(position, &mut self.natural);
        let value = self
            .density
            .value_and_gradient(&self.natural, &mut self.by_natural);
        whitening.gradient(&self.by_natural, gradient);
        Ok(value)
    }
}

impl<D: Density> Whitened<D> {
    /// Draws the latents of products of few sales separately, and moves the state to the result.
    fn move_few_sales(&mut self, hmc: &mut Hmc, rng: &mut ChaCha12Rng) -> Result<(), Shut> {
        let Some(whitening) = self.whitening.clone() else {
            return Ok(());
        };
        let Some(few_sales) = whitening.few_sales() else {
            return Ok(());
        };
        let mut point = std::mem::take(&mut self.drawn);
        whitening.natural(hmc.position(), &mut point);
        few_sales.update(&mut point, &mut self.effects, rng);
        let moved = hmc.move_to(self, |position| whitening.whitened(&point, position));
        self.drawn = point;
        moved
    }
}

/// The sampler.
pub(crate) struct Structured<D> {
    target: Whitened<D>,
    rng: ChaCha12Rng,
    warmup: u64,
    target_accept: f64,
    most_steps: u32,
    draws: u64,
    state: Option<(Hmc, DualAveraging)>,
}

impl<D: Density> Structured<D> {
    pub(crate) fn new(target: Whitened<D>, settings: &NutsSettings, rng: ChaCha12Rng) -> Self {
        Structured {
            target,
            rng,
            warmup: settings.warmup,
            target_accept: settings.target_accept,
            most_steps: (1 << settings.max_depth) - 1,
            draws: 0,
            state: None,
        }
    }
}

impl<D: Density> Sampler for Structured<D> {
    fn start(&mut self, point: &[f64]) -> Result<(), String> {
        let shut = |shut: Shut| shut.to_string();
        let mut hmc = Hmc::at(&mut self.target, point.to_vec())
            .map_err(shut)?
            .ok_or("the log joint or its gradient is not finite")?;
        let first = hmc
            .first_step_size(&mut self.target, &mut self.rng)
            .map_err(shut)?;
        self.state = Some((hmc, DualAveraging::new(first, self.target_accept, LONGEST_STEP)));
        Ok(())
    }

    fn go_on(&mut self, state: &SamplerState, draws: u64) -> Result<(), String> {
        let hmc = Hmc::at(&mut self.target, state.position.clone())
            .map_err(|shut| shut.to_string())?
            .ok_or("the log joint or its gradient is not finite where the checkpoint was written")?;
        self.state = Some((hmc, state.tuning.clone()));
        let [low, high] = state.random_words.map(u128::from);
        self.rng.set_word_pos(low | high << 64);
        self.draws = draws;
        Ok(())
    }

    fn save(&self, state: &mut Option<SamplerState>) {
        let Some((hmc, tuning)) = &self.state else {
            return;
        };
        let words = self.rng.get_word_pos();
        // The position's memory is used again.
        let mut position = state.take().map(|state| state.position).unwrap_or_default();
        position.clear();
        position.extend_from_slice(hmc.position());
        *state = Some(SamplerState {
            position,
            tuning: tuning.clone(),
            random_words: [words as u64, (words >> 64) as u64],
        });
    }

    fn draw(&mut self, z: &mut Vec<f64>) -> Result<DrawFigures, String> {
        let (hmc, step_size) = self.state.as_mut().expect("a sampler is started before it draws");
        let tuning = self.draws < self.warmup;
        let longest = if tuning {
            step_size.step_size()
        } else {
            step_size.tuned()
        };
        self.target
            .move_few_sales(hmc, &mut self.rng)
            .map_err(|shut| shut.to_string())?;
        let transition = hmc
            .transition(&mut self.target, &mut self.rng, longest, self.most_steps)
            .map_err(|shut| shut.to_string())?;
        if tuning {
            step_size.update(transition.acceptance);
        }
        self.draws += 1;
        z.resize(self.target.dimension(), 0.0);
        self.target.natural(hmc.position(), z);
        Ok(DrawFigures {
            steps: u64::from(transition.steps),
            step_size: transition.step_size,
            tuned_step_size: step_size.tuned(),
            depth: u64::from((transition.steps + 1).next_power_of_two().ilog2()),
            saturated: transition.saturated,
            diverging: transition.diverging,
            acceptance: transition.acceptance,
            energy: transition.energy,
            log_joint: hmc.log_density(),
        })
    }
}
