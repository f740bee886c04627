//! The sums over products of one of several shards, on their way to the other ranks and back: the device has them in two floats
//! ([`super::fold`]), and the buffer that crosses in double precision.

use super::fold::{BY_MEAN, OF_EFFECTS, OF_ELASTICITIES, Sums};
use super::layout::split;
use infermark_backend::BackendError;
use infermark_communicator::Communicator;
use infermark_model::Layout;
use infermark_svi::{Chart, Link, Sums as SharedSums};

/// A shard's connection to the others, for the sums as its device has them.
pub(crate) struct Crossing {
    pub(crate) link: Link,
    /// For every sum of the device its place in the buffer that crosses.
    places: Vec<usize>,
}

impl Crossing {
    /// The connection of a run with K particles, through `communicator`.
    pub(crate) fn new(
        communicator: Box<dyn Communicator>,
        layout: &Layout,
        chart: &Chart,
        particles: usize,
    ) -> Self {
        let shared = SharedSums::new(layout, chart, particles);
        Crossing {
            places: places(Sums::new(chart, particles), &shared, layout),
            link: Link::new(communicator, shared),
        }
    }

    /// Adds `folded`, the high and then the low parts of a shard's sums, to those of the others. Returns the totals alike, and whether
    /// any rank was interrupted.
    ///
    /// # Errors
    /// When a rank has gone or does not answer.
    pub(crate) fn add_up(
        &mut self,
        folded: &[f32],
        interrupted: bool,
    ) -> Result<(Vec<f32>, bool), BackendError> {
        let (high, low) = folded.split_at(self.places.len());
        let buffer = self.link.buffer_mut();
        buffer.fill(0.0);
        for (place, (hi, lo)) in self.places.iter().zip(high.iter().zip(low)) {
            buffer[*place] += f64::from(*hi) + f64::from(*lo);
        }
        let interrupted = self.link.all_reduce(interrupted)?;
        let mut totals = vec![0.0; folded.len()];
        let (high, low) = totals.split_at_mut(self.places.len());
        for (place, (hi, lo)) in self.places.iter().zip(high.iter_mut().zip(low)) {
            // Where several sums of the device have one place, only their total counts: the first takes it.
            [*hi, *lo] = split(std::mem::take(&mut self.link.buffer_mut()[*place]));
        }
        Ok((totals, interrupted))
    }
}

/// For every sum of the device, in its order, the place in the buffer that crosses. The derivatives with respect to the centredness,
/// which the device has by category, have one place for all categories.
fn places(sums: Sums, shared: &SharedSums, layout: &Layout) -> Vec<usize> {
    let mut places: Vec<usize> = shared.log_weights().collect();
    let centredness = shared.centredness();
    for sum in 0..sums.by_category() {
        for category in 0..layout.categories {
            places.extend(match (sum, &centredness) {
                (BY_MEAN, _) => shared.means(category),
                (OF_ELASTICITIES, Some([of_elasticities, _])) => of_elasticities.clone(),
                (OF_EFFECTS, Some([_, of_effects])) => of_effects.clone(),
                (OF_EFFECTS, None) => shared
                    .effect_means(category)
                    .expect("without a centredness the effects' sum is that of orthogonal coordinates"),
                _ => unreachable!("there are three sums by category"),
            });
        }
    }
    for category in 0..layout.categories {
        for k in 0..shared.particles() {
            places.extend(shared.rates(category, k));
        }
    }
    debug_assert_eq!(places.len(), sums.len(layout.categories, layout.periods));
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_communicator::{Local, threads};
    use infermark_model::{Likelihood, Orthogonal, Parameterization, Priors};
    use infermark_test_support::random_panel;
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use std::sync::Arc;

    const K: usize = 3;

    fn charts() -> (Layout, Vec<Chart>) {
        let panel = random_panel(&mut StdRng::seed_from_u64(2), 20, 4, 9, 0.2, 9);
        let orthogonal = Orthogonal::new(&panel, Likelihood::Poisson, &Priors::default());
        let published = [
            Parameterization::Centered,
            Parameterization::Learned,
            Parameterization::Noncentered,
        ];
        let charts = published.map(Chart::Published).into_iter();
        (
            panel.layout(),
            charts.chain([Chart::Orthogonal(Arc::new(orthogonal))]).collect(),
        )
    }

    /// Numbers of the size of sums, and their low parts.
    fn random_folded(rng: &mut StdRng, len: usize) -> Vec<f32> {
        let values: Vec<[f32; 2]> = (0..len).map(|_| split(rng.random_range(-1e9..1e9))).collect();
        let part = |i: usize| values.iter().map(move |v| v[i]);
        part(0).chain(part(1)).collect()
    }

    fn value(folded: &[f32], at: usize) -> f64 {
        f64::from(folded[at]) + f64::from(folded[folded.len() / 2 + at])
    }

    /// The sums of K particles before the rates, by their place in the device's buffer: see the fold.
    fn by_category(sum: usize, category: usize, k: usize, layout: &Layout) -> usize {
        K + (sum * layout.categories + category) * K + k
    }

    #[test]
    fn totals_are_the_sums_over_ranks() {
        let (layout, charts) = charts();
        let mut rng = StdRng::seed_from_u64(4);
        for chart in charts {
            let sums = Sums::new(&chart, K);
            let len = sums.len(layout.categories, layout.periods);
            let of_ranks: Vec<Vec<f32>> = (0..3).map(|_| random_folded(&mut rng, len)).collect();
            let totals: Vec<(Vec<f32>, bool)> = std::thread::scope(|scope| {
                let ranks = threads(3).into_iter().zip(&of_ranks).enumerate();
                let started: Vec<_> = ranks
                    .map(|(rank, (communicator, folded))| {
                        let mut crossing = Crossing::new(Box::new(communicator), &layout, &chart, K);
                        scope.spawn(move || crossing.add_up(folded, rank == 1).unwrap())
                    })
                    .collect();
                started.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let expected = |at: usize| of_ranks.iter().map(|folded| value(folded, at)).sum::<f64>();
            let near =
                |found: f64, expected: f64| assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            let is_summed = |at: usize| {
                sums.learned && (K + layout.categories * K..K + 3 * layout.categories * K).contains(&at)
            };
            for (of_rank, interrupted) in &totals {
                assert!(interrupted);
                assert_eq!(of_rank, &totals[0].0);
                for at in (0..len).filter(|at| !is_summed(*at)) {
                    near(value(of_rank, at), expected(at));
                }
                for k in 0..if sums.learned { K } else { 0 } {
                    for sum in [OF_EFFECTS, OF_ELASTICITIES] {
                        let all = |of: &dyn Fn(usize) -> f64| -> f64 {
                            (0..layout.categories)
                                .map(|c| of(by_category(sum, c, k, &layout)))
                                .sum()
                        };
                        near(all(&|at| value(of_rank, at)), all(&expected));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let (layout, charts) = charts();
        let len = Sums::new(&charts[0], K).len(layout.categories, layout.periods);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut folded = vec![0.0; 2 * len];
            folded[1] = bad;
            let mut crossing = Crossing::new(Box::new(Local::default()), &layout, &charts[0], K);
            let (totals, interrupted) = crossing.add_up(&folded, false).unwrap();
            assert!(!interrupted && !value(&totals, 1).is_finite());
            assert_eq!(value(&totals, 0), 0.0);
        }
    }
}
