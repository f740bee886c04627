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
//! that does not depend on the state: the pair's posterior given the border at the mode, summed over the cells of a grid of levels
//! `u = product_effect + mean ln price product_a` and elasticities, and constant in each. A proposal is accepted by the ratio of
//! posterior over proposal at both pairs (Tierney, "Markov chains for exploring posterior distributions", 1994, section
//! 2.3.3), so that what the border's move and the cells leave out costs acceptance, not correctness. Trajectories and these steps
//! each leave the posterior invariant, and so do both in turn.

use infermark_cpu_kernels::{ForSimd, InstructionSet, Kernel, Simd};
use infermark_model::negative_binomial::{CountTerm, Shape};
use infermark_model::{Layout, Likelihood, Panel, Priors, Site};
use rand::{Rng, RngExt};
use std::f64::consts::LOG2_E;
use std::ops::Range;
use std::sync::Arc;

/// Units in all, up to which a product's pair is drawn by itself wherever the bound is: a wall on one side, the prior on the other.
const FEW_UNITS: u64 = 3;

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
    rows: Rows<'a>,
}

/// Rows of a product.
#[derive(Debug, Clone, Copy)]
struct Rows<'a> {
    mean_log_price: f64,
    /// Deviation of the log price from the mean, one entry per row.
    deviation: &'a [f64],
    /// The effect of the row's period.
    effect: &'a [f64],
    /// Rows with sales, and their units.
    sold: &'a [(u32, u32)],
}

/// `sum exp(clip(level + a deviation + effect))` over rows.
struct RateSum<'a> {
    rows: Rows<'a>,
    level: f64,
    a: f64,
    clip: [f64; 2],
}

impl ForSimd for RateSum<'_> {
    type Output = f64;

    fn run<I: Simd>(self, isa: I) -> f64 {
        isa.wide().vectorize(self)
    }
}

impl<I: Simd<Scalar = f64>> Kernel<I> for RateSum<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self, isa: I) -> f64 {
        let [low, high] = self.clip.map(|bound| isa.splat(bound));
        let (level, a, log2_e) = (isa.splat(self.level), isa.splat(self.a), isa.splat(LOG2_E));
        let Rows {
            deviation, effect, ..
        } = self.rows;
        let whole = deviation.len() / I::LANES * I::LANES;
        let mut sum = isa.zero();
        for at in (0..whole).step_by(I::LANES) {
            let eta = isa.mul_add(
                a,
                isa.load(&deviation[at..]),
                isa.add(level, isa.load(&effect[at..])),
            );
            let eta = isa.max(isa.min(eta, high), low);
            sum = isa.add(sum, isa.exp2(isa.mul(eta, log2_e)));
        }
        let rest: f64 = (whole..deviation.len())
            .map(|r| self.rows.eta(r, self.level, self.a))
            .map(|eta| eta.clamp(self.clip[0], self.clip[1]).exp())
            .sum();
        isa.sum(sum) + rest
    }
}

impl Rows<'_> {
    /// The log rate of a row, not clipped.
    #[inline(always)]
    fn eta(&self, row: usize, level: f64, a: f64) -> f64 {
        level + a * self.deviation[row] + self.effect[row]
    }
}

impl Conditional<'_> {
    /// Bounds of the log rate, within what `exp` can do.
    fn clip(&self) -> [f64; 2] {
        [self.priors.clip_low, self.priors.clip_high].map(|bound| bound.clamp(-700.0, 700.0))
    }

    /// The log likelihood at a level and an elasticity.
    fn log_likelihood(&self, level: f64, a: f64) -> f64 {
        let [low, high] = self.clip();
        let rows = self.rows;
        if let Some(shape) = &self.shape {
            let mut units = vec![0; rows.deviation.len()];
            for (r, y) in rows.sold {
                units[*r as usize] = *y;
            }
            let of_row = |(r, y): (usize, &u32)| {
                CountTerm::new(*y, rows.eta(r, level, a).clamp(low, high), shape).log_likelihood
            };
            return units.iter().enumerate().map(of_row).sum();
        }
        let rates = InstructionSet::best().run_f64(RateSum {
            rows,
            level,
            a,
            clip: [low, high],
        });
        let logs: f64 = rows
            .sold
            .iter()
            .map(|(r, y)| f64::from(*y) * rows.eta(*r as usize, level, a).clamp(low, high))
            .sum();
        logs - rates
    }

    /// The log density of a pair, up to a constant.
    fn ln_density(&self, [a, e]: [f64; 2]) -> f64 {
        let priors = self.priors;
        let za = (a - self.category_a) / priors.product_a_sd;
        let ze = (e - priors.product_effect_mean) / priors.product_effect_sd;
        self.log_likelihood(e + a * self.rows.mean_log_price, a) - 0.5 * (za * za + ze * ze)
    }

    /// The coordinates of `product`, whose level is `mode_level` with standard deviation `sd` at the mode without bounds.
    fn proposal(&self, product: usize, mode_level: f64, sd: f64) -> PairProposal {
        let m = self.rows.mean_log_price;
        let (a_sd, e_sd) = (self.priors.product_a_sd, self.priors.product_effect_sd);
        let prior_level = self.priors.product_effect_mean + self.category_a * m;
        let prior_sd = e_sd.hypot(a_sd * m);
        // Below the mode no more than the prior holds the level; above it the likelihood falls at least as fast as its curvature
        // there says, or rates are at the bound.
        let low = (prior_level - REACH * prior_sd).min(mode_level - REACH * sd);
        let high = mode_level.max(self.priors.clip_low) + REACH * sd;
        // Half the cells lie where the mode is, half below.
        let near = (mode_level - 4.0 * sd).max(0.5 * (low + high)).min(high - sd);
        // The elasticity given the level, by the priors.
        let slope = a_sd * a_sd * m / (prior_sd * prior_sd);
        let conditional_sd = a_sd * e_sd / prior_sd;
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
            let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
            masses[l] = (high - low).ln() + most + sum.ln();
            cumulative(&logs, &mut proposal.elasticity[l]);
        }
        cumulative(&masses, &mut proposal.level);
        proposal
    }
}

/// The products of few sales of a panel, and what is proposed for them.
#[derive(Debug)]
pub(crate) struct FewSales {
    layout: Layout,
    likelihood: Likelihood,
    priors: Priors,
    products: Vec<FewSalesProduct>,
    /// Deviations and periods of all rows, product after product.
    deviation: Vec<f64>,
    period: Vec<u32>,
    /// Rows with sales, counted from the product's first, and their units.
    sold: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct FewSalesProduct {
    category: usize,
    rows: Range<usize>,
    sold: Range<usize>,
    proposal: PairProposal,
}

/// A product's rows, read from the panel.
#[derive(Debug, Default)]
struct OwnRows {
    deviation: Vec<f64>,
    period: Vec<u32>,
    sold: Vec<(u32, u32)>,
}

impl OwnRows {
    fn of(panel: &Panel, product: usize) -> Self {
        let mut own = OwnRows::default();
        let mean = panel.mean_log_price()[product];
        for (r, row) in panel.product_rows(product).enumerate() {
            own.deviation.push(row.log_price - mean);
            own.period.push(row.period as u32);
            if row.units > 0 {
                own.sold.push((r as u32, row.units));
            }
        }
        own
    }
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
            let c = panel.category_of()[i] as usize;
            let m = panel.mean_log_price()[i];
            let own = OwnRows::of(panel, i);
            let effect: Vec<f64> = own
                .period
                .iter()
                .map(|t| point[layout.time_index(c, *t as usize)])
                .collect();
            let conditional = Conditional {
                priors,
                shape: (likelihood == Likelihood::NegativeBinomial)
                    .then(|| Shape::new(point[layout.start(Site::LogShape) + c])),
                category_a: point[layout.start(Site::CategoryA) + c],
                rows: Rows {
                    mean_log_price: m,
                    deviation: &own.deviation,
                    effect: &effect,
                    sold: &own.sold,
                },
            };
            let a = point[layout.start(Site::ProductA) + i];
            let level = point[layout.start(Site::ProductEffect) + i] + a * m;
            // All rows at the bound.
            let below = -1e3;
            let few = panel.sums().product[i] <= FEW_UNITS
                || conditional.log_likelihood(level, a) - conditional.log_likelihood(below, 0.0) < NO_WEIGHT;
            if !few {
                return None;
            }
            let rate: f64 = (0..own.deviation.len())
                .map(|r| conditional.rows.eta(r, level, a).min(priors.clip_high).exp())
                .sum();
            let prior = (priors.product_effect_sd.hypot(priors.product_a_sd * m)).powi(-2);
            let proposal = conditional.proposal(i, level, (rate + prior).sqrt().recip());
            Some((c, own, proposal))
        };
        let threads = threads.clamp(1, layout.products);
        let share = layout.products.div_ceil(threads);
        let found: Vec<(usize, OwnRows, PairProposal)> = std::thread::scope(|scope| {
            let parts: Vec<_> = (0..threads)
                .map(|t| (t * share).min(layout.products)..((t + 1) * share).min(layout.products))
                .map(|products| scope.spawn(|| products.filter_map(of_product).collect::<Vec<_>>()))
                .collect();
            parts
                .into_iter()
                .flat_map(|part| part.join().expect("sums over a grid cannot fail"))
                .collect()
        });
        let mut few = FewSales {
            layout,
            likelihood,
            priors: *priors,
            products: Vec::with_capacity(found.len()),
            deviation: Vec::new(),
            period: Vec::new(),
            sold: Vec::new(),
        };
        for (category, own, proposal) in found {
            let (row, sale) = (few.deviation.len(), few.sold.len());
            few.deviation.extend(own.deviation);
            few.period.extend(own.period);
            few.sold.extend(own.sold);
            few.products.push(FewSalesProduct {
                category,
                rows: row..few.deviation.len(),
                sold: sale..few.sold.len(),
                proposal,
            });
        }
        (!few.products.is_empty()).then_some(few)
    }

    /// Bytes that the proposals of a panel take at most: those of all products whose units rates at the bound may account for.
    pub(crate) fn most_bytes(panel: &Panel, priors: &Priors) -> u64 {
        let proposal = (4 * LEVELS * (ELASTICITIES + 1) + size_of::<FewSalesProduct>()) as u64;
        let at_bound = priors.clip_low.exp();
        (0..panel.layout().products)
            .map(|i| (panel.sums().product[i], panel.row_range(i).len()))
            .filter(|(units, rows)| {
                // Units are better by `y ln(y / b) - y + b` nats with rates of their own than with `b` expected at the bound.
                let (y, expected) = (*units as f64, *rows as f64 * at_bound);
                *units <= FEW_UNITS || y <= expected || y * (y / expected).ln() - y + expected < NO_WEIGHT
            })
            .map(|(units, rows)| proposal + 12 * rows as u64 + 8 * units.min(rows as u64))
            .sum()
    }

    /// Their number.
    #[cfg(test)]
    pub(crate) fn products(&self) -> usize {
        self.products.len()
    }

    /// Gives each of the products a new pair with the border in the natural parameters `point`, and returns how many were accepted.
    /// `effects` is scratch.
    pub(crate) fn update(
        &self,
        point: &mut [f64],
        effects: &mut Vec<f64>,
        rng: &mut (impl Rng + ?Sized),
    ) -> usize {
        let mut accepted = 0;
        for product in &self.products {
            let (c, proposal) = (product.category, &product.proposal);
            let at =
                [Site::ProductA, Site::ProductEffect].map(|site| self.layout.start(site) + proposal.product);
            let of_category = &point[self.layout.time_index(c, 0)..];
            effects.clear();
            effects.extend(
                self.period[product.rows.clone()]
                    .iter()
                    .map(|t| of_category[*t as usize]),
            );
            let conditional = Conditional {
                priors: &self.priors,
                shape: (self.likelihood == Likelihood::NegativeBinomial)
                    .then(|| Shape::new(point[self.layout.start(Site::LogShape) + c])),
                category_a: point[self.layout.start(Site::CategoryA) + c],
                rows: Rows {
                    mean_log_price: proposal.mean_log_price,
                    deviation: &self.deviation[product.rows.clone()],
                    effect: effects,
                    sold: &self.sold[product.sold.clone()],
                },
            };
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

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::log_joint::LogJoint;
    use infermark_model::{Labels, PanelPart};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    /// Two products over 30 periods with promotions: one that sold in the periods given, one that sells every day.
    fn panel(sold: &[u32]) -> Arc<Panel> {
        let mut part = PanelPart::new(1, 30);
        let prices: Vec<f64> = (0..30)
            .map(|t| {
                if t % 5 == 0 {
                    2.8
                } else {
                    4.0 + 0.02 * f64::from(t % 3)
                }
            })
            .collect();
        let units: Vec<u32> = (0..30).map(|t| u32::from(sold.contains(&t))).collect();
        part.push_product(0, None, &prices, &units).unwrap();
        let units: Vec<u32> = (0..30).map(|t| 20 + (t * 7) % 5).collect();
        part.push_product(0, None, &prices, &units).unwrap();
        let numbered = |n| Labels::numbered("x", n);
        Arc::new(Panel::from_parts(numbered(2), numbered(1), numbered(30), vec![part]).unwrap())
    }

    /// Means and standard deviations of the first product's pair given all else, by the model's own log joint on a fine grid.
    fn exact(panel: &Panel, likelihood: Likelihood, priors: Priors, point: &[f64]) -> [[f64; 2]; 2] {
        let layout = panel.layout_for(likelihood);
        let joint = LogJoint::new(panel, priors).with_likelihood(likelihood);
        let at = [Site::ProductA, Site::ProductEffect].map(|site| layout.start(site));
        let m = panel.mean_log_price()[0];
        let mut logs = Vec::new();
        let mut there = point.to_vec();
        for l in 0..320 {
            let level = -26.0 + 28.0 * (f64::from(l) + 0.5) / 320.0;
            for k in 0..160 {
                let a = -14.0 + 24.0 * (f64::from(k) + 0.5) / 160.0;
                [there[at[0]], there[at[1]]] = [a, level - m * a];
                logs.push((joint.natural(&there).0, [a, level - m * a]));
            }
        }
        let most = logs.iter().map(|(log, _)| *log).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logs.iter().map(|(log, _)| (log - most).exp()).sum();
        let mean_of = |f: &dyn Fn([f64; 2]) -> f64| {
            let sum: f64 = logs.iter().map(|(log, pair)| (log - most).exp() * f(*pair)).sum();
            sum / total
        };
        [0, 1].map(|k| {
            let mean = mean_of(&|pair| pair[k]);
            [mean, mean_of(&|pair| (pair[k] - mean).powi(2)).sqrt()]
        })
    }

    #[test]
    fn the_steps_draw_from_the_pair_s_posterior() {
        let cases: [(&[u32], f64, Likelihood); 7] = [
            (&[], -4.0, Likelihood::Poisson),
            (&[3], -4.0, Likelihood::Poisson),
            // Sales in promotions alone, as many as rates at the bound may give.
            (&[0, 5, 20], -2.5, Likelihood::Poisson),
            (&[0, 1, 2, 5, 10, 20, 25], -2.0, Likelihood::Poisson),
            (&[], -20.0, Likelihood::Poisson),
            (&[7, 10], -20.0, Likelihood::Poisson),
            (&[0, 10], -3.0, Likelihood::NegativeBinomial),
        ];
        for (case, (sold, clip_low, likelihood)) in cases.into_iter().enumerate() {
            let panel = panel(sold);
            let priors = Priors {
                clip_low,
                ..Priors::default()
            };
            let layout = panel.layout_for(likelihood);
            let mut point: Vec<f64> = (0..layout.latents()).map(|j| 0.1 * (j as f64).sin()).collect();
            point[layout.start(Site::CategoryA)] = -1.8;
            let few = FewSales::new(&panel, likelihood, &priors, &point, 1).expect("one of few sales");
            assert_eq!(few.products(), 1);
            // The border is not where the proposal was made: what is drawn must not depend on that.
            point[layout.start(Site::CategoryA)] = -1.4;
            for j in layout.range(Site::TimeCatEffects) {
                point[j] += 0.3;
            }
            let exact = exact(&panel, likelihood, priors, &point);
            let mut rng = StdRng::seed_from_u64(case as u64);
            let mut effects = Vec::new();
            let at = [Site::ProductA, Site::ProductEffect].map(|site| layout.start(site));
            let (mut sums, mut squares) = ([0.0; 2], [0.0; 2]);
            const DRAWS: usize = 100_000;
            let mut accepted = 0;
            for _ in 0..DRAWS {
                accepted += few.update(&mut point, &mut effects, &mut rng);
                for k in 0..2 {
                    sums[k] += point[at[k]];
                    squares[k] += point[at[k]].powi(2);
                }
            }
            assert!(
                accepted > DRAWS / 2,
                "case {case}: {accepted} of {DRAWS} accepted"
            );
            for k in 0..2 {
                let mean = sums[k] / DRAWS as f64;
                let sd = (squares[k] / DRAWS as f64 - mean * mean).sqrt();
                let [exact_mean, exact_sd] = exact[k];
                // At least 30,000 effective draws: 0.6% of an sd, four and more of which.
                assert!(
                    (mean - exact_mean).abs() < 0.03 * exact_sd,
                    "case {case}, {k}: mean {mean}, exact {exact_mean} +- {exact_sd}"
                );
                assert!(
                    (sd / exact_sd - 1.0).abs() < 0.03,
                    "case {case}, {k}: sd {sd}, exact {exact_sd}"
                );
            }
        }
    }

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
