//! The proposal for a product: a density over its latents that is constant in the cells of a grid with two
//! axes, the level of the log rate and the first coefficient. Other coefficients are proposed from their
//! prior given these: the rows' information on them costs acceptance.

use super::conditional::{Conditional, Prior};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

/// Cells of the grid along the level of the log rate, and along the first coefficient.
pub(super) const LEVELS: usize = 64;
pub(super) const ELASTICITIES: usize = 24;

/// Extent of the grid in prior standard deviations.
const REACH: f64 = 5.0;

/// Fraction of the proposals that is spread evenly over the cells, of the levels and of the elasticities in
/// each: the border moves, and every cell must stay reachable.
const EVEN: f64 = 0.05;

/// A proposal for one product: a density that is constant in the cells of a grid along the level and the
/// first coefficient, with the prior of the other coefficients given these.
#[derive(Debug, Clone)]
pub(super) struct Proposal<const D: usize> {
    pub(super) product: usize,
    /// Mean of each regressor, and 1.
    pub(super) mean: [f64; D],
    /// Start of the lower half of the cells of levels, start of the upper half, and its end.
    levels: [f64; 3],
    /// The prior of each coefficient given the level minus the contributions of the coefficients before it:
    /// mean at zero, slope, standard deviation. The last entry has no meaning.
    prior: [[f64; 3]; D],
    /// The distribution function of the level, at the ends of its cells.
    level: [f32; LEVELS],
    /// The distribution function of the first coefficient, at the ends of its cells, in each cell of the
    /// level.
    elasticity: Vec<[f32; ELASTICITIES]>,
}

/// Draws a cell from a distribution function at the cells' ends.
fn draw_cell(cumulative: &[f32], rng: &mut (impl Rng + ?Sized)) -> usize {
    let p: f32 = rng.random();
    cumulative.partition_point(|c| *c <= p).min(cumulative.len() - 1)
}

/// The mass of a cell.
fn mass(cumulative: &[f32], cell: usize) -> f64 {
    f64::from(cumulative[cell] - if cell == 0 { 0.0 } else { cumulative[cell - 1] })
}

/// The distribution function at the cells' ends, from the logs of their weights, with a fraction spread
/// evenly.
fn cumulative(logs: &[f64], into: &mut [f32]) {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
    let mut before = 0.0;
    for (into, log) in into.iter_mut().zip(logs) {
        before += (1.0 - EVEN) * (log - most).exp() / sum + EVEN / logs.len() as f64;
        *into = before as f32;
    }
}

impl<const D: usize> Proposal<D> {
    /// The proposal for `product`, whose level is `mode_level` with standard deviation `sd` at the mode without bounds.
    pub(super) fn of(conditional: &Conditional<'_, D>, product: usize, mode_level: f64, sd: f64) -> Self {
        const { assert!(D > 1, "there is a coefficient") };
        let m = conditional.rows.mean;
        let Prior {
            mean: centre,
            sd: own_sd,
        } = conditional.prior;
        // Mean and standard deviation of the level minus the contributions of the first k coefficients.
        let (mut left_mean, mut left_sd) = ([centre[D - 1]; D], [own_sd[D - 1]; D]);
        for k in (0..D - 1).rev() {
            left_mean[k] = left_mean[k + 1] + centre[k] * m[k];
            left_sd[k] = left_sd[k + 1].hypot(own_sd[k] * m[k]);
        }
        let (prior_level, prior_sd) = (left_mean[0], left_sd[0]);
        // Below the mode only the prior bounds the level; above it the likelihood falls at least as fast as
        // its curvature there implies, or rates are at the bound.
        let low = (prior_level - REACH * prior_sd).min(mode_level - REACH * sd);
        let high = mode_level.max(conditional.clip[0]) + REACH * sd;
        // Half the cells lie near the mode, half below.
        let near = (mode_level - 4.0 * sd).max(0.5 * (low + high)).min(high - sd);
        // Each coefficient given the level and those before it, from the priors.
        let given = |k: usize| {
            if k + 1 == D {
                return [0.0; 3];
            }
            let slope = own_sd[k] * own_sd[k] * m[k] / (left_sd[k] * left_sd[k]);
            let sd = own_sd[k] * left_sd[k + 1] / left_sd[k];
            [centre[k] - slope * left_mean[k], slope, sd]
        };
        let mut proposal = Proposal {
            product,
            mean: m,
            levels: [low, near, high],
            prior: std::array::from_fn(given),
            level: [0.0; LEVELS],
            elasticity: vec![[0.0; ELASTICITIES]; LEVELS],
        };
        let mut masses = [0.0; LEVELS];
        let mut logs = [0.0; ELASTICITIES];
        for l in 0..LEVELS {
            let (low, high) = (proposal.edge(l), proposal.edge(l + 1));
            let level = 0.5 * (low + high);
            let z = (level - prior_level) / prior_sd;
            let [_, slope, conditional_sd] = proposal.prior[0];
            let first = centre[0] + slope * (level - prior_level);
            for (k, log) in logs.iter_mut().enumerate() {
                let w = REACH * (2.0 * (k as f64 + 0.5) / ELASTICITIES as f64 - 1.0);
                let coefficients = proposal.others_at_their_means(level, first + conditional_sd * w);
                *log = conditional.log_likelihood(level, &coefficients) - 0.5 * (z * z + w * w);
            }
            let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
            masses[l] = (high - low).ln() + most + sum.ln();
            cumulative(&logs, &mut proposal.elasticity[l]);
        }
        cumulative(&masses, &mut proposal.level);
        proposal
    }

    /// The coefficients, with all but the first at their prior means given the level and the first.
    fn others_at_their_means(&self, level: f64, first: f64) -> [f64; D] {
        let mut coefficients = [first; D];
        let mut left = level;
        for k in 1..D - 1 {
            left -= coefficients[k - 1] * self.mean[k - 1];
            let [mean, slope, _] = self.prior[k];
            coefficients[k] = mean + slope * left;
        }
        coefficients
    }

    /// Start of a cell of the levels, or end of the last one.
    fn edge(&self, cell: usize) -> f64 {
        let [low, near, high] = self.levels;
        let half = LEVELS / 2;
        if cell < half {
            low + (near - low) * cell as f64 / half as f64
        } else {
            near + (high - near) * (cell - half) as f64 / half as f64
        }
    }

    /// Draws the latents.
    pub(super) fn draw(&self, rng: &mut (impl Rng + ?Sized)) -> [f64; D] {
        let l = draw_cell(&self.level, rng);
        let (low, high) = (self.edge(l), self.edge(l + 1));
        let u = low + (high - low) * rng.random::<f64>();
        let cell = draw_cell(&self.elasticity[l], rng);
        let mut latents = [0.0; D];
        let mut left = u;
        for k in 0..D - 1 {
            let w = if k == 0 {
                REACH * (2.0 * (cell as f64 + rng.random::<f64>()) / ELASTICITIES as f64 - 1.0)
            } else {
                StandardNormal.sample(rng)
            };
            let [mean, slope, sd] = self.prior[k];
            latents[k] = mean + slope * left + sd * w;
            left -= latents[k] * self.mean[k];
        }
        latents[D - 1] = left;
        latents
    }

    /// The log density of the proposal, up to a constant of the product.
    pub(super) fn ln_density(&self, latents: &[f64; D]) -> f64 {
        let mut u = latents[D - 1];
        for k in 0..D - 1 {
            u += latents[k] * self.mean[k];
        }
        let (mut left, mut first, mut squares) = (u, 0.0, 0.0);
        for k in 0..D - 1 {
            let [mean, slope, sd] = self.prior[k];
            let w = (latents[k] - mean - slope * left) / sd;
            if k == 0 {
                first = w;
            } else {
                squares += w * w;
            }
            left -= latents[k] * self.mean[k];
        }
        let [low, near, high] = self.levels;
        let k = (0.5 * (first / REACH + 1.0) * ELASTICITIES as f64).floor();
        if !(low..high).contains(&u) || !(0.0..ELASTICITIES as f64).contains(&k) {
            return f64::NEG_INFINITY;
        }
        let half = (LEVELS / 2) as f64;
        let l = if u < near {
            (u - low) / (near - low) * half
        } else {
            half + (u - near) / (high - near) * half
        };
        let l = (l as usize).min(LEVELS - 1);
        let width = self.edge(l + 1) - self.edge(l);
        let of_grid = (mass(&self.level, l) * mass(&self.elasticity[l], k as usize) / width).ln();
        of_grid - 0.5 * squares
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::few_sales::FewSales;
    use crate::few_sales::conditional::Rows;
    use crate::few_sales::tests::panel;
    use infermark_model::{Likelihood, Priors};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn the_proposal_is_what_it_says() {
        let panel = panel(&[5]);
        let layout = panel.layout();
        let point = vec![0.0; layout.latents()];
        let few = FewSales::new(&panel, Likelihood::Poisson, &Priors::default(), &point, 1).unwrap();
        let proposal = &few.products[0].proposal;
        let mut rng = StdRng::seed_from_u64(2);
        // Importance sampling of the area of a box: the mean of 1/q over the draws in it.
        let (mut area, mut inside) = (0.0, 0);
        let [low, _, high] = proposal.levels;
        let [mean, slope, sd] = proposal.prior[0];
        let levels = [low + 0.3 * (high - low), low + 0.9 * (high - low)];
        for _ in 0..200_000 {
            let [a, e] = proposal.draw(&mut rng);
            let u = e + a * proposal.mean[0];
            let w = (a - mean - slope * u) / sd;
            let density = proposal.ln_density(&[a, e]);
            assert!(density.is_finite());
            if (levels[0]..levels[1]).contains(&u) && w.abs() < 2.0 {
                inside += 1;
                // Cells of elasticities have width in w.
                area += (-density).exp();
            }
        }
        let cell = 2.0 * REACH / ELASTICITIES as f64;
        let exact = (levels[1] - levels[0]) * 4.0 / cell;
        assert!(inside > 20_000);
        let found = area / 200_000.0;
        assert!((found / exact - 1.0).abs() < 0.03, "{found} {exact}");
        assert_eq!(proposal.ln_density(&[0.0, high + 1.0]), f64::NEG_INFINITY);
    }

    /// A product with a price and a promotion that sold twice: draws from the proposal, accepted as in a
    /// chain, against sums over a fine grid.
    #[test]
    fn a_proposal_for_two_coefficients_leaves_their_posterior_as_it_is() {
        let price: Vec<f64> = (0..20).map(|t| 0.15 * f64::from(t % 4) - 0.2).collect();
        let promotion: Vec<f64> = (0..20).map(|t| if t % 5 == 0 { 0.8 } else { -0.2 }).collect();
        let effect: Vec<f64> = (0..20).map(|t| 0.1 * f64::from(t).sin()).collect();
        let conditional = Conditional::<3> {
            prior: Prior {
                mean: [-1.8, 0.7, -0.5],
                sd: [1.5, 0.8, 2.0],
            },
            clip: [-4.0, 20.0],
            shape: None,
            rows: Rows {
                mean: [0.9, 0.2, 1.0],
                deviation: [&price, &promotion, &[]],
                effect: &effect,
                sold: &[(5, 1), (13, 1)],
            },
        };
        let cells: [(usize, f64, f64); 3] = [(50, -8.0, 4.5), (40, -2.8, 4.2), (60, -13.0, 5.0)];
        let at = |k: usize, cell: usize| {
            let (count, low, high) = cells[k];
            low + (high - low) * (cell as f64 + 0.5) / count as f64
        };
        let (mut total, mut exact) = (0.0, [[0.0; 2]; 3]);
        for i in 0..cells[0].0 {
            for j in 0..cells[1].0 {
                for l in 0..cells[2].0 {
                    let latents = [at(0, i), at(1, j), at(2, l)];
                    let weight = conditional.ln_density(&latents).exp();
                    total += weight;
                    for (sums, x) in exact.iter_mut().zip(latents) {
                        sums[0] += weight * x;
                        sums[1] += weight * x * x;
                    }
                }
            }
        }
        let proposal = Proposal::of(&conditional, 0, -2.0, 0.7);
        let mut rng = StdRng::seed_from_u64(11);
        let ratio = |latents: &[f64; 3]| conditional.ln_density(latents) - proposal.ln_density(latents);
        let mut here = proposal.draw(&mut rng);
        const DRAWS: u32 = 100_000;
        let (mut accepted, mut found) = (0, [[0.0; 2]; 3]);
        for _ in 0..DRAWS {
            let there = proposal.draw(&mut rng);
            if rng.random::<f64>().ln() < ratio(&there) - ratio(&here) {
                here = there;
                accepted += 1;
            }
            for (sums, x) in found.iter_mut().zip(here) {
                sums[0] += x;
                sums[1] += x * x;
            }
        }
        assert!(accepted > DRAWS / 2, "{accepted} accepted");
        for (k, (found, exact)) in found.iter().zip(&exact).enumerate() {
            let moments = |[first, second]: [f64; 2], total: f64| {
                let mean = first / total;
                [mean, (second / total - mean * mean).sqrt()]
            };
            let ([mean, sd], [exact_mean, exact_sd]) =
                (moments(*found, f64::from(DRAWS)), moments(*exact, total));
            // At least 30,000 effective draws: 0.6% of an sd, and more than four of those.
            assert!(
                (mean - exact_mean).abs() < 0.03 * exact_sd && (sd / exact_sd - 1.0).abs() < 0.03,
                "{k}: {mean} +- {sd}, exact {exact_mean} +- {exact_sd}"
            );
        }
    }
}
