//! Hamiltonian Monte Carlo in coordinates where the target is close to a standard normal: trajectories of about a quarter
//! rotation, accepted or rejected at their end.
//!
//! With `H(q, p) = U(q) + p'p / 2` and `U = q'q / 2 + R(q)` a step of length `h` is
//!
//! ```text
//! p <- p - (h/2) grad R(q),    (q, p) <- rotation of every plane (q_j, p_j) by h,    p <- p - (h/2) grad R(q)
//! ```
//!
//! a symmetric composition of shears and rotations: it preserves volume and is its own inverse with the
//! momentum turned, so that accepting the end of a trajectory of `n` steps with probability
//! `min(1, exp(H(start) - H(end)))` leaves the target invariant for any `R`, `h` and `n`, as long as `h` and
//! `n` are chosen without looking at the state (Neal, "MCMC using Hamiltonian dynamics", 2011, sections 5.3.2
//! and 5.5.1, the latter for this splitting). The length of a trajectory is drawn uniformly about a quarter
//! rotation, so that no coordinate has a period (Mackenzie 1989; Bou-Rabee and Sanz-Serna, "Randomized
//! Hamiltonian Monte Carlo", 2017). For the standard normal itself the step is exact, every proposal is
//! accepted, and after a quarter rotation the new position is the old momentum: an independent draw.
//!
//! There is no search for a U-turn: in these coordinates all directions turn at the same time, which is known
//! in advance. Trajectories that end by a criterion which is checked only at some doublings do not leave the
//! target invariant.

use crate::scheduler::Shut;
use rand::Rng;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use std::f64::consts::FRAC_PI_2;

/// What is sampled, in the sampler's coordinates.
pub(crate) trait Target {
    /// Length of the vectors.
    fn dimension(&self) -> usize;

    /// The log density at `position`, whose gradient is written to `gradient`; not finite where there is none.
    ///
    /// # Errors
    /// [`Shut`] when the run is over.
    fn value_and_gradient(&mut self, position: &[f64], gradient: &mut [f64]) -> Result<f64, Shut>;
}

/// Longest step, in radians: a quarter rotation, after which a draw from a standard normal is independent.
pub(crate) const LONGEST_STEP: f64 = FRAC_PI_2;

/// Trajectories are between `1 - JITTER` and `1 + JITTER` quarter rotations long. Squares of a coordinate of
/// a standard normal then have an autocorrelation of 0.07; one that is half or twice as wide as the
/// coordinates assume still has no period.
const JITTER: f64 = 0.3;

/// Energy error beyond which a trajectory has diverged, in nats, as in Stan.
const MOST_ENERGY_ERROR: f64 = 1000.0;

/// A point, with its log density and gradient.
#[derive(Debug, Clone)]
struct Point {
    position: Vec<f64>,
    gradient: Vec<f64>,
    log_density: f64,
}

/// The outcome of a trajectory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Transition {
    /// Probability with which its end was accepted.
    pub acceptance: f64,
    /// Its energy error passed the limit, or the log density was not finite.
    pub diverging: bool,
    /// Steps made.
    pub steps: u32,
    /// It had fewer steps than its length required, because it met the limit.
    pub saturated: bool,
    /// Length of a step, in radians.
    pub step_size: f64,
    /// The Hamiltonian at the new state, momentum of this trajectory.
    pub energy: f64,
}

/// A chain's state.
#[derive(Debug)]
pub(crate) struct Hmc {
    current: Point,
    proposed: Point,
    momentum: Vec<f64>,
}

impl Hmc {
    /// A state at a position; `None` unless log density and gradient are finite there.
    ///
    /// # Errors
    /// [`Shut`] when the run is over.
    pub(crate) fn at(target: &mut impl Target, position: Vec<f64>) -> Result<Option<Self>, Shut> {
        let mut gradient = vec![0.0; position.len()];
        let log_density = target.value_and_gradient(&position, &mut gradient)?;
        if !finite(log_density, &gradient) {
            return Ok(None);
        }
        let current = Point {
            position,
            gradient,
            log_density,
        };
        Ok(Some(Hmc {
            momentum: vec![0.0; current.position.len()],
            proposed: current.clone(),
            current,
        }))
    }

    /// The state.
    pub(crate) fn position(&self) -> &[f64] {
        &self.current.position
    }

    /// The log density there.
    pub(crate) fn log_density(&self) -> f64 {
        self.current.log_density
    }

    /// Moves to the position that `write` writes; stays if log density or gradient there are not finite.
    ///
    /// # Errors
    /// [`Shut`] when the run is over.
    pub(crate) fn move_to(
        &mut self,
        target: &mut impl Target,
        write: impl FnOnce(&mut [f64]),
    ) -> Result<(), Shut> {
        let there = &mut self.proposed;
        write(&mut there.position);
        there.log_density = target.value_and_gradient(&there.position, &mut there.gradient)?;
        if finite(there.log_density, &there.gradient) {
            std::mem::swap(&mut self.current, &mut self.proposed);
        }
        Ok(())
    }

    /// A step size for a start: the longest one, halved until a single step is accepted with probability a half.
    ///
    /// # Errors
    /// [`Shut`] when the run is over.
    pub(crate) fn first_step_size(
        &mut self,
        target: &mut impl Target,
        rng: &mut (impl Rng + ?Sized),
    ) -> Result<f64, Shut> {
        let mut step_size = LONGEST_STEP;
        self.draw_momentum(rng);
        let momentum = self.momentum.clone();
        // Twenty halvings are a factor of a millionth: beyond that the step is not the problem.
        for _ in 0..20 {
            self.momentum.copy_from_slice(&momentum);
            let energy = self.energy();
            let error = self.integrate(target, step_size, 1, energy)?;
            if error.is_some_and(|error| (-error).exp() >= 0.5) {
                break;
            }
            step_size *= 0.5;
        }
        Ok(step_size)
    }

    /// One trajectory of at most `most_steps` steps of at most `step_size`, whose end is accepted or
    /// rejected.
    ///
    /// # Errors
    /// [`Shut`] when the run is over.
    pub(crate) fn transition(
        &mut self,
        target: &mut impl Target,
        rng: &mut (impl Rng + ?Sized),
        step_size: f64,
        most_steps: u32,
    ) -> Result<Transition, Shut> {
        let length = FRAC_PI_2 * rng.random_range(1.0 - JITTER..1.0 + JITTER);
        let asked = (length / step_size).ceil().max(1.0);
        let (steps, saturated) = if asked <= f64::from(most_steps) {
            (asked as u32, false)
        } else {
            (most_steps, true)
        };
        let step_size = if saturated { step_size } else { length / asked };
        self.draw_momentum(rng);
        let before = self.energy();
        let error = self.integrate(target, step_size, steps, before)?;
        let acceptance = error.map_or(0.0, |error| (-error).exp().min(1.0));
        // A number is drawn in any case, so that later draws do not depend on whether it was needed.
        let accepted = rng.random::<f64>() < acceptance;
        if accepted {
            std::mem::swap(&mut self.current, &mut self.proposed);
        }
        Ok(Transition {
            acceptance,
            diverging: error.is_none(),
            steps,
            saturated,
            step_size,
            energy: if accepted {
                before + error.unwrap_or(0.0)
            } else {
                before
            },
        })
    }

    fn draw_momentum(&mut self, rng: &mut (impl Rng + ?Sized)) {
        for p in &mut self.momentum {
            *p = StandardNormal.sample(rng);
        }
    }

    /// The Hamiltonian at the state with its momentum.
    fn energy(&self) -> f64 {
        0.5 * square(&self.momentum) - self.current.log_density
    }

    /// Writes the end of a trajectory from the state into `proposed` and returns its energy error; `None` if
    /// it diverges.
    fn integrate(
        &mut self,
        target: &mut impl Target,
        step_size: f64,
        steps: u32,
        energy: f64,
    ) -> Result<Option<f64>, Shut> {
        let (sin, cos) = step_size.sin_cos();
        let (momentum, proposed) = (&mut self.momentum, &mut self.proposed);
        proposed.position.copy_from_slice(&self.current.position);
        proposed.gradient.copy_from_slice(&self.current.gradient);
        for step in 0..steps {
            // The adjacent half kicks of two steps are merged.
            let kick = if step == 0 { 0.5 * step_size } else { step_size };
            for ((q, p), g) in proposed
                .position
                .iter_mut()
                .zip(&mut *momentum)
                .zip(&proposed.gradient)
            {
                let kicked = *p + kick * (*q + g);
                let turned = *q * cos + kicked * sin;
                *p = kicked * cos - *q * sin;
                *q = turned;
            }
            let value = target.value_and_gradient(&proposed.position, &mut proposed.gradient)?;
            if !finite(value, &proposed.gradient) {
                return Ok(None);
            }
            proposed.log_density = value;
        }
        for ((q, p), g) in proposed
            .position
            .iter()
            .zip(&mut *momentum)
            .zip(&proposed.gradient)
        {
            *p += 0.5 * step_size * (*q + g);
        }
        let error = 0.5 * square(momentum) - proposed.log_density - energy;
        Ok((error < MOST_ENERGY_ERROR).then_some(error))
    }
}

/// Whether a log density and its gradient are finite; without a branch per entry, so that it is vectorized.
pub(crate) fn finite(value: f64, gradient: &[f64]) -> bool {
    gradient
        .iter()
        .fold(value.is_finite(), |all, g| all & g.is_finite())
}

/// The squared norm, in sums that are independent of each other.
fn square(x: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let chunks = x.chunks_exact(8);
    let rest: f64 = chunks.remainder().iter().map(|x| x * x).sum();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    /// Independent coordinates, each with its own density.
    struct Product<F>(usize, F);

    impl<F: Fn(f64) -> [f64; 2]> Target for Product<F> {
        fn dimension(&self) -> usize {
            self.0
        }

        fn value_and_gradient(&mut self, position: &[f64], gradient: &mut [f64]) -> Result<f64, Shut> {
            let mut sum = 0.0;
            for (q, g) in position.iter().zip(gradient) {
                let [value, slope] = (self.1)(*q);
                sum += value;
                *g = slope;
            }
            Ok(sum)
        }
    }

    /// Means over draws and coordinates of `x`, `x^2` and `x^4`, and their standard errors from 50 batches.
    fn moments(target: &mut impl Target, step_size: f64, draws: usize, seed: u64) -> [[f64; 2]; 3] {
        const BATCHES: usize = 50;
        let mut rng = StdRng::seed_from_u64(seed);
        let d = target.dimension();
        let mut hmc = Hmc::at(target, vec![0.5; d]).unwrap().unwrap();
        for _ in 0..20 {
            hmc.transition(target, &mut rng, step_size, 1000).unwrap();
        }
        let mut means = [[0.0; BATCHES]; 3];
        for batch in 0..BATCHES {
            let of_batch = draws / BATCHES;
            for _ in 0..of_batch {
                hmc.transition(target, &mut rng, step_size, 1000).unwrap();
                for q in hmc.position() {
                    for (sums, power) in means.iter_mut().zip([1, 2, 4]) {
                        sums[batch] += q.powi(power) / (of_batch * d) as f64;
                    }
                }
            }
        }
        means.map(|of| {
            let mean = of.iter().sum::<f64>() / BATCHES as f64;
            let square = of.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (BATCHES - 1) as f64;
            [mean, (square / BATCHES as f64).sqrt()]
        })
    }

    fn assert_moments(found: [[f64; 2]; 3], exact: [f64; 3], most_error: f64, what: &str) {
        for (k, ([mean, error], exact)) in found.into_iter().zip(exact).enumerate() {
            let distance = (mean - exact) / error;
            // Fifty batches: Student's t; 5 is passed once in 100,000 times.
            assert!(
                distance.abs() < 5.0,
                "{what}, moment {k}: {mean} +- {error}, exact {exact}"
            );
            assert!(
                error < most_error * exact.abs().max(1.0),
                "{what}, moment {k}: the error {error} is too large to tell"
            );
        }
    }

    #[test]
    fn a_standard_normal_has_its_moments_in_any_dimension() {
        for (d, draws) in [
            (1, 400_000),
            (2, 200_000),
            (5, 100_000),
            (15, 40_000),
            (100, 10_000),
        ] {
            for step_size in [LONGEST_STEP, 0.7] {
                let found = moments(
                    &mut Product(d, |x: f64| [-0.5 * x * x, -x]),
                    step_size,
                    draws,
                    d as u64,
                );
                assert_moments(found, [0.0, 1.0, 3.0], 0.006, &format!("{d} dimensions"));
            }
        }
    }

    #[test]
    fn wrong_widths_leave_the_moments_as_they_are() {
        // Coordinates that assume half or twice the standard deviation.
        for sd in [0.5, 2.0] {
            for d in [1, 5, 15] {
                let normal = move |x: f64| [-0.5 * (x / sd).powi(2), -x / (sd * sd)];
                let found = moments(&mut Product(d, normal), 0.4, 600_000 / d, 7 + d as u64);
                let exact = [0.0, sd * sd, 3.0 * sd.powi(4)];
                assert_moments(found, exact, 0.02, &format!("sd {sd}, {d} dimensions"));
            }
        }
    }

    #[test]
    fn a_skewed_target_has_its_moments() {
        // The log of a gamma variable of shape 2 about its mode: mean psi(2) - ln 2, variance psi'(2).
        let shape = 2.0f64;
        let log_gamma = move |x: f64| {
            let rate = shape * x.exp();
            [shape * x - rate, shape - rate]
        };
        let psi = 1.0 - 0.577_215_664_901_532_9;
        let psi_1 = std::f64::consts::PI.powi(2) / 6.0 - 1.0;
        let zeta_3 = 1.202_056_903_159_594;
        // psi''(2) and psi'''(2).
        let (psi_2, psi_3) = (-2.0 * zeta_3 + 2.0, std::f64::consts::PI.powi(4) / 15.0 - 6.0);
        let mean = psi - shape.ln();
        let fourth =
            psi_3 + 3.0 * psi_1 * psi_1 + 4.0 * psi_2 * mean + 6.0 * psi_1 * mean * mean + mean.powi(4);
        let exact = [mean, psi_1 + mean * mean, fourth];
        for d in [1, 2, 5, 15, 100] {
            let draws = (600_000 / d).max(30_000);
            let found = moments(&mut Product(d, log_gamma), 0.5, draws, 70 + d as u64);
            assert_moments(found, exact, 0.03, &format!("{d} dimensions"));
        }
    }

    #[test]
    fn a_trajectory_goes_back_the_way_it_came() {
        let mut target = Product(3, |x: f64| [-x.cosh(), -x.sinh()]);
        let mut rng = StdRng::seed_from_u64(1);
        let mut hmc = Hmc::at(&mut target, vec![0.3, -1.0, 0.8]).unwrap().unwrap();
        let start = hmc.current.clone();
        hmc.draw_momentum(&mut rng);
        let energy = hmc.energy();
        let there = hmc.integrate(&mut target, 0.37, 5, energy).unwrap().unwrap();
        std::mem::swap(&mut hmc.current, &mut hmc.proposed);
        hmc.momentum.iter_mut().for_each(|p| *p = -*p);
        let energy = hmc.energy();
        let back = hmc.integrate(&mut target, 0.37, 5, energy).unwrap().unwrap();
        assert!((there + back).abs() < 1e-12, "{there} {back}");
        for (a, b) in start.position.iter().zip(&hmc.proposed.position) {
            assert!((a - b).abs() < 1e-12);
        }
    }

    #[test]
    fn the_first_step_is_never_longer_than_a_quarter_rotation() {
        let mut rng = StdRng::seed_from_u64(3);
        // A normal is followed exactly at any step.
        let mut normal = Product(50, |x: f64| [-0.5 * x * x, -x]);
        let mut hmc = Hmc::at(&mut normal, vec![2.0; 50]).unwrap().unwrap();
        assert_eq!(hmc.first_step_size(&mut normal, &mut rng).unwrap(), LONGEST_STEP);
        // One a hundred times as narrow is not.
        let mut narrow = Product(50, |x: f64| [-0.5 * 1e4 * x * x, -1e4 * x]);
        let mut hmc = Hmc::at(&mut narrow, vec![0.02; 50]).unwrap().unwrap();
        let step_size = hmc.first_step_size(&mut narrow, &mut rng).unwrap();
        assert!((0.001..0.05).contains(&step_size), "{step_size}");
    }

    #[test]
    fn too_long_a_trajectory_is_cut_and_says_so() {
        let mut rng = StdRng::seed_from_u64(4);
        let mut normal = Product(2, |x: f64| [-0.5 * x * x, -x]);
        let mut hmc = Hmc::at(&mut normal, vec![1.0; 2]).unwrap().unwrap();
        let cut = hmc.transition(&mut normal, &mut rng, 0.01, 7).unwrap();
        assert_eq!((cut.steps, cut.saturated, cut.step_size), (7, true, 0.01));
        let whole = hmc.transition(&mut normal, &mut rng, 0.5, 7).unwrap();
        assert!(!whole.saturated && whole.step_size <= 0.5 && whole.steps <= 5);
        assert!(whole.acceptance > 1.0 - 1e-12);
    }
}
