//! Products of few sales: proposals for the latents of one product at a time (its coefficients and its
//! effect).
//!
//! A product that hardly sold has a posterior with a wall on one side, where sales would have been seen, and
//! its prior on the other. This is most extreme where the lower clip bound of the log rate is active: below
//! it the likelihood is constant, so that a product whose few units are compatible with rates at the bound in
//! all periods may be anywhere below. No linear map fits both sides: trajectories as wide as the prior need
//! tiny steps at the wall, and ones as wide as the wall cross the other side by a random walk.
//!
//! Given the border of its category (period effects, its coefficients, shape) a product is independent of all
//! others. So between trajectories every such product gets new latents from its own Metropolis-Hastings step,
//! from a proposal that does not depend on the state: their posterior given the border at the mode,
//! integrated over the cells of a grid of levels `u = product_effect + mean ln price product_a` and
//! elasticities, and constant in each cell. A proposal is accepted by the ratio of posterior over proposal at
//! both points (Tierney, "Markov chains for exploring posterior distributions", 1994, section 2.3.3), so that
//! moves of the border and the coarseness of the cells cost acceptance, not correctness. Trajectories and
//! these steps each leave the posterior invariant, and so do both in turn.
//!
//! | module | holds |
//! |---|---|
//! | `conditional` | the posterior of a product's latents given the border, from its rows |
//! | `proposal` | the density that they are proposed from |

mod conditional;
mod proposal;

use conditional::{Conditional, OwnRows, Prior, Rows};
use infermark_model::design::{PRODUCT_LATENTS as LATENTS, PRODUCT_SITES, prior_means};
use infermark_model::negative_binomial::Shape;
use infermark_model::{Layout, Likelihood, Panel, Priors, Site};
use infermark_threads::run_parts;
use proposal::{ELASTICITIES, LEVELS, Proposal};
use rand::{Rng, RngExt};
use std::array::from_fn;
use std::ops::Range;
use std::sync::Arc;

/// Log rate of one unit in 20,000 rows: bounds below it affect no product.
const NEVER_SELLS: f64 = -10.0;

/// Total units up to which a product is drawn separately wherever the bound is: a wall on one side, the prior
/// on the other.
const FEW_UNITS: u64 = 3;

/// If the mode is better than rates at the bound in all periods by more than this many nats, the latter have
/// no weight: the prior's volume below the bound is some tens of times that of the mode.
const NO_WEIGHT: f64 = 12.0;

/// The products of few sales of a panel, and their proposals.
#[derive(Debug)]
pub(crate) struct FewSales {
    layout: Layout,
    likelihood: Likelihood,
    priors: Priors,
    products: Vec<FewSalesProduct>,
    /// Deviations of each regressor and periods of all rows, product after product.
    deviation: [Vec<f64>; LATENTS],
    period: Vec<u32>,
    /// Rows with sales, counted from the product's first, and their units.
    sold: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct FewSalesProduct {
    category: usize,
    rows: Range<usize>,
    sold: Range<usize>,
    proposal: Proposal<LATENTS>,
}

/// Priors of a product's latents given the border of its category at `point`.
fn prior(priors: &Priors, layout: Layout, point: &[f64], category: usize) -> Prior<LATENTS> {
    Prior {
        mean: prior_means(priors, layout, point, category),
        sd: PRODUCT_SITES.map(|site| priors.sd(site)),
    }
}

impl FewSales {
    /// The proposals given the border at the natural parameters `point`; `None` if no product has few sales.
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
            let own = OwnRows::of(panel, i);
            let effect: Vec<f64> = own
                .period
                .iter()
                .map(|t| point[layout.time_index(c, *t as usize)])
                .collect();
            let places = layout.product_places(i);
            let conditional = Conditional {
                prior: prior(priors, layout, point, c),
                clip: [priors.clip_low, priors.clip_high],
                shape: likelihood
                    .has_shape()
                    .then(|| Shape::new(point[layout.start(Site::LogShape) + c])),
                rows: Rows {
                    mean: panel.mean_design(i),
                    deviation: own.deviation.each_ref().map(Vec::as_slice),
                    effect: &effect,
                    sold: &own.sold,
                },
            };
            let latents = places.map(|j| point[j]);
            let level = conditional.rows.level(&latents);
            // All rows at the bound.
            let below = -1e3;
            let few = panel.sums().product[i] <= FEW_UNITS
                || conditional.log_likelihood(level, &latents)
                    - conditional.log_likelihood(below, &[0.0; LATENTS])
                    < NO_WEIGHT;
            if !few {
                return None;
            }
            let rate: f64 = (0..own.period.len())
                .map(|r| {
                    conditional
                        .rows
                        .eta(r, level, &latents)
                        .min(priors.clip_high)
                        .exp()
                })
                .sum();
            let (sd, mean) = (conditional.prior.sd, conditional.rows.mean);
            let of_level = (0..LATENTS - 1).fold(sd[LATENTS - 1], |of, k| of.hypot(sd[k] * mean[k]));
            let proposal = Proposal::of(&conditional, i, level, (rate + of_level.powi(-2)).sqrt().recip());
            Some((c, own, proposal))
        };
        let threads = threads.clamp(1, layout.products);
        let share = layout.products.div_ceil(threads);
        let of_product = &of_product;
        let parts = (0..threads)
            .map(|t| (t * share).min(layout.products)..((t + 1) * share).min(layout.products))
            .map(|products| move || products.filter_map(of_product).collect::<Vec<_>>());
        let found: Vec<(usize, OwnRows<LATENTS>, Proposal<LATENTS>)> =
            run_parts(parts).into_iter().flatten().collect();
        let mut few = FewSales {
            layout,
            likelihood,
            priors: *priors,
            products: Vec::with_capacity(found.len()),
            deviation: from_fn(|_| Vec::new()),
            period: Vec::new(),
            sold: Vec::new(),
        };
        for (category, own, proposal) in found {
            let (row, sale) = (few.period.len(), few.sold.len());
            for (all, own) in few.deviation.iter_mut().zip(own.deviation) {
                all.extend(own);
            }
            few.period.extend(own.period);
            few.sold.extend(own.sold);
            few.products.push(FewSalesProduct {
                category,
                rows: row..few.period.len(),
                sold: sale..few.sold.len(),
                proposal,
            });
        }
        (!few.products.is_empty()).then_some(few)
    }

    /// Approximate bytes of a panel's proposals: of all products whose units may be due to rates at the
    /// bound. With Poisson counts this is judged from one rate each; with negative-binomial counts, which say
    /// less about their rates, it is all products unless the bound is a rate that never sells.
    pub(crate) fn bytes(panel: &Panel, likelihood: Likelihood, priors: &Priors) -> u64 {
        let may_be_any = likelihood.has_shape() && priors.clip_low > NEVER_SELLS;
        let proposal = (4 * LEVELS * (ELASTICITIES + 1) + size_of::<FewSalesProduct>()) as u64;
        let at_bound = priors.clip_low.exp();
        (0..panel.layout().products)
            .map(|i| (panel.sums().product[i], panel.rows_of(i)))
            .filter(|(units, rows)| {
                // With rates of their own, units are more likely by `y ln(y / b) - y + b` nats than with `b`
                // expected at the bound.
                let (y, expected) = (*units as f64, *rows as f64 * at_bound);
                let told = *units > FEW_UNITS && y > expected;
                may_be_any || !told || y * (y / expected).ln() - y + expected < NO_WEIGHT
            })
            .map(|(units, rows)| proposal + 12 * rows as u64 + 8 * units.min(rows as u64))
            .sum()
    }

    /// Their number.
    #[cfg(test)]
    pub(crate) fn products(&self) -> usize {
        self.products.len()
    }

    /// Gives each of the products new latents with the border in the natural parameters `point`, and returns how many were accepted.
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
            let places = self.layout.product_places(proposal.product);
            let of_category = &point[self.layout.time_index(c, 0)..];
            effects.clear();
            effects.extend(
                self.period[product.rows.clone()]
                    .iter()
                    .map(|t| of_category[*t as usize]),
            );
            let conditional = Conditional {
                prior: prior(&self.priors, self.layout, point, c),
                clip: [self.priors.clip_low, self.priors.clip_high],
                shape: self
                    .likelihood
                    .has_shape()
                    .then(|| Shape::new(point[self.layout.start(Site::LogShape) + c])),
                rows: Rows {
                    mean: proposal.mean,
                    deviation: from_fn(|k| match k + 1 {
                        LATENTS => &[][..],
                        _ => &self.deviation[k][product.rows.clone()],
                    }),
                    effect: effects,
                    sold: &self.sold[product.sold.clone()],
                },
            };
            let ratio = |latents| conditional.ln_density(latents) - proposal.ln_density(latents);
            let there = proposal.draw(rng);
            let uniform: f64 = rng.random();
            let here = places.map(|j| point[j]);
            if uniform.ln() < ratio(&there) - ratio(&here) {
                for (j, latent) in places.into_iter().zip(there) {
                    point[j] = latent;
                }
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
    pub(super) fn panel(sold: &[u32]) -> Arc<Panel> {
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

    /// Means and standard deviations of the first product's pair given all else, from the model's own log
    /// joint on a fine grid.
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
            // Sales only in promotions, as many as rates at the bound may give.
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
            // The border is not where the proposal was built: the draws must not depend on that.
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
                // At least 30,000 effective draws: 0.6% of an sd, and more than four of those.
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
}
