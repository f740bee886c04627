//! Products of few sales: proposals for the pair (`product_a`, `product_effect`) of one product at a time.
//!
//! A product that hardly sold has a posterior with a wall on one side, where sales would have been seen, and its prior on
//! the other. That is so most of all where the lower clip bound of the log rate is active: below it the likelihood is
//! constant, so that a product of which a handful of units are compatible with rates at the bound in all its periods may be
//! anywhere below. No linear map fits both sides: trajectories as wide as the prior need tiny steps at the wall, and ones
//! as wide as the wall cross the other side by a random walk.
//!
//! Given the border of its category (period effects, `category_a`, shape) the pair of a product is independent of all others. So
//! between trajectories every such product is given a new pair by a Metropolis-Hastings step of its own, from a proposal
//! that does not depend on the state: the pair's posterior given the border at the mode, summed over a grid of levels
//! `u = product_effect + mean ln price product_a` and elasticities. With `F` the marginal distribution function of the level there,
//!
//! ```text
//! u = F^-1(Phi(z_1)),    product_a = a_0 + a_1 (u - u_0) + s z_2,    z_1, z_2 ~ Normal(0, 1)
//! ```
//!
//! with the regression of the elasticity on the level; `F^-1(Phi(z))` is kept as a cubic spline that goes on in straight lines. A
//! proposal is accepted by the ratio of posterior over proposal at both pairs (Tierney, "Markov chains for exploring
//! posterior distributions", 1994, section 2.3.3), so that what the border's move, the spline and the regression leave out costs
//! acceptance, not correctness. Trajectories and these steps each leave the posterior invariant, and so do both in turn.

use infermark_model::negative_binomial::{CountTerm, Shape};
use infermark_model::{Layout, Likelihood, Panel, Priors, Site};
use rand::{Rng, RngExt};
use std::sync::Arc;

/// Units in all, up to which a product has coordinates of its own: its level's skewness, one over their root, is then above 0.2.
const FEW_UNITS: u64 = 20;

/// Nats by which the mode is better than rates at the bound in all periods, beyond which the latter have no weight: the prior's
/// volume below the bound is some tens of times that of the mode.
const NO_WEIGHT: f64 = 12.0;

/// Cells of the grid along the level of the log rate, and along the elasticity.
const LEVELS: usize = 64;
const ELASTICITIES: usize = 24;

/// Prior standard deviations that the grid reaches to.
const REACH: f64 = 5.0;

/// Part of the proposals that are spread evenly over the cells, of the levels and of the elasticities of each: the border moves, and
/// no cell may be out of reach.
const EVEN: f64 = 0.05;

/// A proposal for one product: a density that is constant in the cells of a grid.
#[derive(Debug, Clone)]
pub(crate) struct PairProposal {
    product: usize,
    mean_log_price: f64,
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
    fn draw(&self, rng: &mut (impl Rng + ?Sized)) -> [f64; 2] {
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
    fn ln_density(&self, [a, e]: [f64; 2]) -> f64 {
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

/// The posterior of a product's pair given the border of its category.
struct Conditional<'a> {
    priors: &'a Priors,
    shape: Option<Shape>,
    /// Mean of the elasticity's prior.
    category_a: f64,
    mean_log_price: f64,
    /// Deviation of the log price from the product's mean, period effect, units; one entry per row.
    rows: Vec<(f64, f64, u32)>,
}

impl Conditional<'_> {
    /// The log likelihood at a level and an elasticity.
    fn log_likelihood(&self, level: f64, a: f64) -> f64 {
        let Priors {
            clip_low, clip_high, ..
        } = *self.priors;
        let at_bound = clip_low.exp();
        let mut sum = 0.0;
        for (deviation, effect, units) in &self.rows {
            let eta = level + a * deviation + effect;
            let clipped = eta.clamp(clip_low, clip_high);
            sum += match &self.shape {
                Some(shape) => CountTerm::new(*units, clipped, shape).log_likelihood,
                None if eta <= clip_low => f64::from(*units) * clip_low - at_bound,
                None => f64::from(*units) * clipped - clipped.exp(),
            };
        }
        sum
    }

    /// What the likelihood would be if all rows were at the lower bound.
    fn at_lower_bound(&self) -> f64 {
        let low = self.priors.clip_low;
        self.rows
            .iter()
            .map(|(_, _, units)| match &self.shape {
                Some(shape) => CountTerm::new(*units, low, shape).log_likelihood,
                None => f64::from(*units) * low - low.exp(),
            })
            .sum()
    }

    /// The coordinates of `product`, whose level is `mode_level` with standard deviation `sd` at the mode without bounds; `None`
    /// where the grid does not resolve the posterior.
    fn proposal(&self, product: usize, mode_level: f64, sd: f64) -> PairProposal {
        let m = self.mean_log_price;
        let (a_sd, e_sd) = (self.priors.product_a_sd, self.priors.product_effect_sd);
        let prior_level = self.priors.product_effect_mean + self.category_a * m;
        let prior_sd = e_sd.hypot(a_sd * m);
        // Below, no more than the prior holds the level; above the mode the likelihood falls at least as fast as its curvature
        // there says, or rates are at the bound.
        let low = if self.priors.clip_low > mode_level - 2.0 * REACH * sd {
            (prior_level - REACH * prior_sd).min(mode_level - REACH * sd)
        } else {
            (mode_level - 2.0 * REACH * sd).max(prior_level.min(mode_level) - REACH * prior_sd)
        };
        let high = mode_level.max(self.priors.clip_low) + REACH * sd;
        // The elasticity given the level, by the priors.
        let slope = a_sd * a_sd * m / (prior_sd * prior_sd);
        let conditional_sd = a_sd * e_sd / prior_sd;
        // Half the cells lie where the mode is, half below.
        let near = (mode_level - 4.0 * sd).max(0.5 * (low + high)).min(high - sd);
        let mut proposal = PairProposal {
            product,
            mean_log_price: m,
            levels: [low, near, high],
            prior: [self.category_a - slope * prior_level, slope, conditional_sd],
            level: [0.0; LEVELS],
            elasticity: vec![[0.0; ELASTICITIES]; LEVELS],
        };
        let mut masses = [0.0; LEVELS];
        let mut logs = [0.0; ELASTICITIES];
        for l in 0..LEVELS {
            let (low, high) = (proposal.edge(l), proposal.edge(l + 1));
            let level = 0.5 * (low + high);
            let z = (level - prior_level) / prior_sd;
            let centre = self.category_a + slope * (level - prior_level);
            for (k, log) in logs.iter_mut().enumerate() {
                let w = REACH * (2.0 * (k as f64 + 0.5) / ELASTICITIES as f64 - 1.0);
                *log = self.log_likelihood(level, centre + conditional_sd * w) - 0.5 * (z * z + w * w);
            }
            let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            masses[l] =
                (high - low).ln() + most + logs.iter().map(|log| (log - most).exp()).sum::<f64>().ln();
            cumulative(&logs, &mut proposal.elasticity[l]);
        }
        cumulative(&masses, &mut proposal.level);
        proposal
    }
}

impl<'a> Conditional<'a> {
    /// Of product `i`, given the border in a point of natural parameters.
    fn of(
        panel: &Panel,
        layout: &Layout,
        likelihood: Likelihood,
        priors: &'a Priors,
        point: &[f64],
        i: usize,
    ) -> Self {
        let c = panel.category_of()[i] as usize;
        let m = panel.mean_log_price()[i];
        let effects = &point[layout.time_index(c, 0)..];
        Conditional {
            priors,
            shape: (likelihood == Likelihood::NegativeBinomial)
                .then(|| Shape::new(point[layout.start(Site::LogShape) + c])),
            category_a: point[layout.start(Site::CategoryA) + c],
            mean_log_price: m,
            rows: panel
                .product_rows(i)
                .map(|row| (row.log_price - m, effects[row.period], row.units))
                .collect(),
        }
    }

    /// The log density of a pair, up to a constant.
    fn ln_density(&self, [a, e]: [f64; 2]) -> f64 {
        let priors = self.priors;
        let za = (a - self.category_a) / priors.product_a_sd;
        let ze = (e - priors.product_effect_mean) / priors.product_effect_sd;
        self.log_likelihood(e + a * self.mean_log_price, a) - 0.5 * (za * za + ze * ze)
    }
}

/// The products of few sales of a panel, and what is proposed for them.
#[derive(Debug)]
pub(crate) struct FewSales {
    panel: Arc<Panel>,
    layout: Layout,
    likelihood: Likelihood,
    priors: Priors,
    proposals: Vec<PairProposal>,
}

impl FewSales {
    /// With the border fixed at the natural parameters `point`; `None` where no product is one of few sales.
    pub(crate) fn new(
        panel: &Arc<Panel>,
        likelihood: Likelihood,
        priors: &Priors,
        point: &[f64],
        threads: usize,
    ) -> Option<Self> {
        let layout = panel.layout_for(likelihood);
        let of_product = |i: usize| {
            let conditional = Conditional::of(panel, &layout, likelihood, priors, point, i);
            let m = conditional.mean_log_price;
            let a = point[layout.start(Site::ProductA) + i];
            let level = point[layout.start(Site::ProductEffect) + i] + a * m;
            let few = panel.sums().product[i] <= FEW_UNITS
                || conditional.log_likelihood(level, a) - conditional.at_lower_bound() < NO_WEIGHT;
            if !few {
                return None;
            }
            let rate: f64 = conditional
                .rows
                .iter()
                .map(|(d, effect, _)| (level + a * d + effect).min(priors.clip_high).exp())
                .sum();
            let prior = (priors.product_effect_sd.hypot(priors.product_a_sd * m)).powi(-2);
            Some(conditional.proposal(i, level, (rate + prior).sqrt().recip()))
        };
        let threads = threads.clamp(1, layout.products);
        let share = layout.products.div_ceil(threads);
        let proposals: Vec<PairProposal> = std::thread::scope(|scope| {
            let parts: Vec<_> = (0..threads)
                .map(|t| (t * share).min(layout.products)..((t + 1) * share).min(layout.products))
                .map(|products| scope.spawn(|| products.filter_map(of_product).collect::<Vec<_>>()))
                .collect();
            parts
                .into_iter()
                .flat_map(|part| part.join().expect("sums over a grid cannot fail"))
                .collect()
        });
        (!proposals.is_empty()).then(|| FewSales {
            panel: panel.clone(),
            layout,
            likelihood,
            priors: *priors,
            proposals,
        })
    }

    /// Their number.
    pub(crate) fn products(&self) -> usize {
        self.proposals.len()
    }

    /// Gives each of the products a new pair with the border in the natural parameters `point`, and returns how many were accepted.
    pub(crate) fn update(&self, point: &mut [f64], rng: &mut (impl Rng + ?Sized)) -> usize {
        let mut accepted = 0;
        for proposal in &self.proposals {
            let i = proposal.product;
            let at = [Site::ProductA, Site::ProductEffect].map(|site| self.layout.start(site) + i);
            let conditional =
                Conditional::of(&self.panel, &self.layout, self.likelihood, &self.priors, point, i);
            let ratio = |pair: [f64; 2]| conditional.ln_density(pair) - proposal.ln_density(pair);
            let there = proposal.draw(rng);
            let uniform: f64 = rng.random();
            let here = at.map(|j| point[j]);
            if uniform.ln() < ratio(there) - ratio(here) {
                [point[at[0]], point[at[1]]] = there;
                accepted += 1;
            }
        }
        accepted
    }
}
