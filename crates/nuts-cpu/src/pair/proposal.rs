//! What is proposed for a product: a density over its pair that is constant in the cells of a grid.

use super::conditional::Conditional;
use rand::{Rng, RngExt};

/// Cells of the grid along the level of the log rate, and along the elasticity.
pub(super) const LEVELS: usize = 64;
pub(super) const ELASTICITIES: usize = 24;

/// Prior standard deviations that the grid reaches to.
const REACH: f64 = 5.0;

/// Part of the proposals that are spread evenly over the cells, of the levels and of the elasticities of each: the border moves, and
/// no cell may be out of reach.
const EVEN: f64 = 0.05;

/// A proposal for one product: a density that is constant in the cells of a grid.
#[derive(Debug, Clone)]
pub(super) struct PairProposal {
    pub(super) product: usize,
    pub(super) mean_log_price: f64,
    /// Where the cells of the lower half of the levels begin, those of the upper half, and where these end.
    levels: [f64; 3],
    /// The elasticity's prior given the level: mean at level zero, slope, standard deviation.
    prior: [f64; 3],
    /// The distribution function of the level at the ends of its cells.
    level: [f32; LEVELS],
    /// In each cell of the level that of the elasticity at the ends of its cells.
    elasticity: Vec<[f32; ELASTICITIES]>,
}

/// The cell that a number in (0, 1) falls into, by a distribution function at the cells' ends.
fn draw_cell(cumulative: &[f32], rng: &mut (impl Rng + ?Sized)) -> usize {
    let p: f32 = rng.random();
    cumulative.partition_point(|c| *c <= p).min(cumulative.len() - 1)
}

/// The mass of a cell.
fn mass(cumulative: &[f32], cell: usize) -> f64 {
    f64::from(cumulative[cell] - if cell == 0 { 0.0 } else { cumulative[cell - 1] })
}

/// The distribution function at the cells' ends, from the logs of their weights, a part spread evenly.
fn cumulative(logs: &[f64], into: &mut [f32]) {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
    let mut before = 0.0;
    for (into, log) in into.iter_mut().zip(logs) {
        before += (1.0 - EVEN) * (log - most).exp() / sum + EVEN / logs.len() as f64;
        *into = before as f32;
    }
}

impl PairProposal {
    /// The proposal for `product`, whose level is `mode_level` with standard deviation `sd` at the mode without bounds.
    pub(super) fn of(conditional: &Conditional<'_>, product: usize, mode_level: f64, sd: f64) -> Self {
        let m = conditional.rows.mean_log_price;
        let (a_sd, e_sd) = (
            conditional.priors.product_a_sd,
            conditional.priors.product_effect_sd,
        );
        let prior_level = conditional.priors.product_effect_mean + conditional.category_a * m;
        let prior_sd = e_sd.hypot(a_sd * m);
        // Below the mode no more than the prior holds the level; above it the likelihood falls at least as fast as its curvature
        // there says, or rates are at the bound.
        let low = (prior_level - REACH * prior_sd).min(mode_level - REACH * sd);
        let high = mode_level.max(conditional.priors.clip_low) + REACH * sd;
        // Half the cells lie where the mode is, half below.
        let near = (mode_level - 4.0 * sd).max(0.5 * (low + high)).min(high - sd);
        // The elasticity given the level, by the priors.
        let slope = a_sd * a_sd * m / (prior_sd * prior_sd);
        let conditional_sd = a_sd * e_sd / prior_sd;
        let mut proposal = PairProposal {
            product,
            mean_log_price: m,
            levels: [low, near, high],
            prior: [
                conditional.category_a - slope * prior_level,
                slope,
                conditional_sd,
            ],
            level: [0.0; LEVELS],
            elasticity: vec![[0.0; ELASTICITIES]; LEVELS],
        };
        let mut masses = [0.0; LEVELS];
        let mut logs = [0.0; ELASTICITIES];
        for l in 0..LEVELS {
            let (low, high) = (proposal.edge(l), proposal.edge(l + 1));
            let level = 0.5 * (low + high);
            let z = (level - prior_level) / prior_sd;
            let centre = conditional.category_a + slope * (level - prior_level);
            for (k, log) in logs.iter_mut().enumerate() {
                let w = REACH * (2.0 * (k as f64 + 0.5) / ELASTICITIES as f64 - 1.0);
                *log = conditional.log_likelihood(level, centre + conditional_sd * w) - 0.5 * (z * z + w * w);
            }
            let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
            masses[l] = (high - low).ln() + most + sum.ln();
            cumulative(&logs, &mut proposal.elasticity[l]);
        }
        cumulative(&masses, &mut proposal.level);
        proposal
    }

    /// Where a cell of the levels begins, or the last one ends.
    fn edge(&self, cell: usize) -> f64 {
        let [low, near, high] = self.levels;
        let half = LEVELS / 2;
        if cell < half {
            low + (near - low) * cell as f64 / half as f64
        } else {
            near + (high - near) * (cell - half) as f64 / half as f64
        }
    }

    /// Draws elasticity and effect.
    pub(super) fn draw(&self, rng: &mut (impl Rng + ?Sized)) -> [f64; 2] {
        let l = draw_cell(&self.level, rng);
        let (low, high) = (self.edge(l), self.edge(l + 1));
        let u = low + (high - low) * rng.random::<f64>();
        let k = draw_cell(&self.elasticity[l], rng);
        let w = REACH * (2.0 * (k as f64 + rng.random::<f64>()) / ELASTICITIES as f64 - 1.0);
        let [mean, slope, sd] = self.prior;
        let a = mean + slope * u + sd * w;
        [a, u - a * self.mean_log_price]
    }

    /// The log density of the proposal at a pair, up to a constant of the product.
    pub(super) fn ln_density(&self, [a, e]: [f64; 2]) -> f64 {
        let u = e + a * self.mean_log_price;
        let [low, near, high] = self.levels;
        let [mean, slope, sd] = self.prior;
        let w = (a - mean - slope * u) / sd;
        let k = (0.5 * (w / REACH + 1.0) * ELASTICITIES as f64).floor();
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
        (mass(&self.level, l) * mass(&self.elasticity[l], k as usize) / width).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::FewSales;
    use crate::pair::tests::panel;
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
        let [mean, slope, sd] = proposal.prior;
        let levels = [low + 0.3 * (high - low), low + 0.9 * (high - low)];
        for _ in 0..200_000 {
            let [a, e] = proposal.draw(&mut rng);
            let u = e + a * proposal.mean_log_price;
            let w = (a - mean - slope * u) / sd;
            let density = proposal.ln_density([a, e]);
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
        assert_eq!(proposal.ln_density([0.0, high + 1.0]), f64::NEG_INFINITY);
    }
}
