//! One draw of parameters and data.

use crate::design::Design;
use crate::quantity::Quantity;
use infermark_data::{GenerateError, Generator, Process, generate_panel};
use infermark_model::{Panel, Site};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// True parameters, the panel that was drawn with them, and what is looked at.
#[derive(Debug, Clone)]
pub struct Replication {
    /// Its number, from 0.
    pub index: usize,
    /// The panel.
    pub panel: Arc<Panel>,
    /// The true natural parameters, in the order of [`infermark_model::Layout`].
    pub truth: Vec<f64>,
    /// Seed of the fits.
    pub fit_seed: u64,
    /// The latent that stands for each site, as an index into the flat vector; in the order of [`Site::ALL`].
    pub latents: [usize; 5],
    /// A number in `[0, 1)` for each of [`Quantity::ALL`], which places a truth within the cell of its rank.
    pub within_cell: [f64; 6],
}

impl Replication {
    /// Draws a replication; it depends on the design's seed and on `index` alone. Prices are those of the generators and
    /// tell nothing of the parameters, nor does the number of a category's products: nothing is selected by what is tested.
    ///
    /// # Errors
    /// When the design's sizes or priors cannot be drawn from.
    pub fn draw(design: &Design, index: usize) -> Result<Self, GenerateError> {
        let mut rng = ChaCha8Rng::seed_from_u64(design.seed);
        rng.set_stream(index as u64);
        let generator = Generator {
            process: Process::Model(design.priors),
            products: design.products,
            periods: design.periods,
            categories: design.categories,
            seed: rng.next_u64(),
        };
        let fit_seed = rng.next_u64();
        let (panel, truth) = generate_panel(&generator, 1)?;
        let layout = panel.layout();
        let latents = Site::ALL.map(|site| {
            let range = layout.range(site);
            range.start + ((unit(&mut rng) * range.len() as f64) as usize).min(range.len() - 1)
        });
        Ok(Replication {
            index,
            panel: Arc::new(panel),
            truth: truth.point.expect("the model's own process has parameters"),
            fit_seed,
            latents,
            within_cell: Quantity::ALL.map(|_| unit(&mut rng)),
        })
    }

    /// The key of the latent that stands for a site, as files write it: the category, the product, or `category@period`.
    pub fn key(&self, site: Site) -> String {
        let start = self.panel.layout().start(site);
        let latent = self.latents[site.index()];
        self.panel.axes().key(site, latent - start).to_string()
    }
}

/// A number in [0, 1) with 53 random bits.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * 2f64.powi(-53)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::design::MODERATE_PRIORS;
    use infermark_model::Priors;

    #[test]
    fn replications_differ_and_can_be_drawn_again() {
        let design = Design::default();
        let [first, again, second] = [3, 3, 4].map(|i| Replication::draw(&design, i).unwrap());
        assert_eq!((&first.truth, &first.panel), (&again.truth, &again.panel));
        assert_eq!(
            (first.latents, first.within_cell),
            (again.latents, again.within_cell)
        );
        assert!(first.truth[0] != second.truth[0] && first.fit_seed != second.fit_seed);
        for (site, latent) in Site::ALL.into_iter().zip(first.latents) {
            assert!(first.panel.layout().range(site).contains(&latent));
        }
    }

    #[test]
    fn the_smallest_panel_is_drawn() {
        let design = Design {
            products: 1,
            periods: 1,
            categories: 3,
            ..Design::default()
        };
        let replication = Replication::draw(&design, 0).unwrap();
        assert_eq!(replication.truth.len(), 5);
        assert_eq!(replication.latents, [0, 1, 2, 3, 4]);
    }

    /// Calibration compares with these very priors: every site's truths must have its mean and standard deviation.
    #[test]
    fn truths_have_the_moments_of_the_priors() {
        let priors = Priors {
            category_a_sd: 0.4,
            time_cat_effects_mean: -0.7,
            ..MODERATE_PRIORS
        };
        let design = Design {
            priors,
            products: 3,
            periods: 2,
            ..Design::default()
        };
        let n = 4_000;
        let mut sums = [(0.0, 0.0); 5];
        for index in 0..n {
            let replication = Replication::draw(&design, index).unwrap();
            let category = replication.latents[2] - replication.panel.layout().start(Site::ProductA);
            let category = 1 + replication.panel.category_of()[category] as usize;
            let means = [
                priors.global_a_mean,
                replication.truth[0],
                replication.truth[category],
                priors.product_effect_mean,
                priors.time_cat_effects_mean,
            ];
            for (site, (sum, squares)) in Site::ALL.into_iter().zip(&mut sums) {
                let z = (replication.truth[replication.latents[site.index()]] - means[site.index()])
                    / priors.sd(site);
                *sum += z;
                *squares += z * z;
            }
        }
        for (site, (sum, squares)) in Site::ALL.into_iter().zip(sums) {
            let n = n as f64;
            // Four standard errors of mean and variance of a standard normal: one false alarm in 3,000 seeds.
            assert!(
                (sum / n).abs() < 4.0 / n.sqrt(),
                "{}: mean {}",
                site.name(),
                sum / n
            );
            assert!(
                (squares / n - 1.0).abs() < 4.0 * (2.0 / n).sqrt(),
                "{}: variance {}",
                site.name(),
                squares / n
            );
        }
    }

    #[test]
    fn moderate_priors_keep_clear_of_the_clip() {
        let design = Design::default();
        let mut rates = Vec::new();
        for index in 0..200 {
            let Replication { panel, truth, .. } = Replication::draw(&design, index).unwrap();
            let layout = panel.layout();
            for (i, c) in panel.category_of().iter().enumerate() {
                rates.extend(panel.product_rows(i).map(|row| {
                    truth[layout.start(Site::ProductA) + i] * row.log_price
                        + truth[layout.start(Site::ProductEffect) + i]
                        + truth[layout.time_index(*c as usize, row.period)]
                }));
            }
        }
        rates.sort_by(f64::total_cmp);
        let quantile = |p: f64| rates[(p * rates.len() as f64) as usize].exp();
        // What is written of them: 1.5, 50 and 1,700, within a fifth; 24,000 rows of 200 draws of the hierarchy.
        for (p, expected) in [(0.025, 1.5), (0.5, 50.0), (0.975, 1_700.0)] {
            let found = quantile(p);
            assert!((found / expected).ln().abs() < 0.2, "{p}: {found}");
        }
        assert!(rates[0] > design.priors.clip_low && rates[rates.len() - 1] < design.priors.clip_high);
    }
}
