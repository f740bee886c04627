//! One draw of parameters and data.

use crate::design::Design;
use infermark_data::{GenerateError, Generator, Process, generate_panel};
use infermark_model::design::{along, at};
use infermark_model::poisson::unit;
use infermark_model::{Layout, Likelihood, LikelihoodVisitor, Panel, PanelPart, Priors, RowLikelihood, Site};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::sync::Arc;

/// True parameters, the panel drawn with them, and the tested quantities.
#[derive(Debug, Clone)]
pub struct Replication {
    /// Its number, from 0.
    pub index: usize,
    /// The panel.
    pub panel: Arc<Panel>,
    /// The law of its counts.
    pub likelihood: Likelihood,
    /// The true natural parameters, in the order of [`infermark_model::Layout`].
    pub truth: Vec<f64>,
    /// Seed of the fits.
    pub fit_seed: u64,
    /// The latent that represents each site, as an index into the flat vector; in the order of
    /// [`infermark_model::Layout::sites`].
    pub latents: Vec<usize>,
    /// A number in `[0, 1)` for each latent, and behind them one for the log joint, which places a truth within the cell of its
    /// rank.
    pub within_cell: Vec<f64>,
}

/// Why a replication cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// The panel cannot be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A count is too large.
    #[error(
        "a row of replication {index} has {units:.1e} units, 2^31 at most; lower the means of the priors or clip_high"
    )]
    Units {
        /// The replication.
        index: usize,
        /// What was drawn.
        units: f64,
    },
}

impl Replication {
    /// Draws a replication; it depends only on the design's seed and on `index`. Prices are those of the
    /// generators and carry no information on the parameters, nor does the number of a category's products:
    /// nothing is selected by what is tested.
    ///
    /// # Errors
    /// When the design's sizes or priors cannot be drawn from.
    pub fn draw(design: &Design, index: usize) -> Result<Self, ReplicationError> {
        let mut rng = ChaCha8Rng::seed_from_u64(design.seed);
        rng.set_stream(index as u64);
        let generator = Generator {
            process: Process::Model(design.priors),
            likelihood: Likelihood::Poisson,
            products: design.products,
            periods: design.periods,
            categories: design.categories,
            seed: rng.next_u64(),
        };
        let fit_seed = rng.next_u64();
        let (mut panel, truth) = generate_panel(&generator, 1)?;
        let mut truth = truth.point.expect("the model's own process has parameters");
        let layout = panel.layout_for(design.likelihood);
        let latents = layout
            .sites()
            .iter()
            .map(|site| {
                let range = layout.range(*site);
                range.start + ((unit(&mut rng) * range.len() as f64) as usize).min(range.len() - 1)
            })
            .collect();
        let within_cell = (0..=layout.latents()).map(|_| unit(&mut rng)).collect();
        if let Some(site) = design.likelihood.parameter() {
            let (mean, sd) = (design.priors.constant_mean(site), design.priors.sd(site));
            truth.extend(layout.range(site).map(|_| {
                let normal: f64 = StandardNormal.sample(&mut rng);
                mean + sd * normal
            }));
        }
        if design.likelihood != Likelihood::Poisson {
            let redrawn = design.likelihood.visit(CountsDrawnAnew {
                panel: &panel,
                layout,
                priors: &design.priors,
                truth: &truth,
                rng: &mut rng,
            });
            panel = redrawn.map_err(|units| ReplicationError::Units { index, units })?;
        }
        Ok(Replication {
            index,
            panel: Arc::new(panel),
            likelihood: design.likelihood,
            truth,
            fit_seed,
            latents,
            within_cell,
        })
    }

    /// The latent that represents a site.
    ///
    /// # Panics
    /// When the likelihood does not have the site.
    pub fn latent(&self, site: Site) -> usize {
        let layout = self.panel.layout_for(self.likelihood);
        let place = layout.sites().iter().position(|own| *own == site);
        self.latents[place.expect("a site of the likelihood")]
    }

    /// The key of the latent that represents a site, as files write it: the category, the product, or
    /// `category@period`.
    pub fn key(&self, site: Site) -> String {
        let start = self.panel.layout_for(self.likelihood).start(site);
        self.panel.axes().key(site, self.latent(site) - start).to_string()
    }
}

/// The panel with its counts drawn anew by another likelihood. `Err` is a count that no panel holds.
struct CountsDrawnAnew<'a> {
    panel: &'a Panel,
    layout: Layout,
    priors: &'a Priors,
    truth: &'a [f64],
    rng: &'a mut ChaCha8Rng,
}

impl LikelihoodVisitor for CountsDrawnAnew<'_> {
    type Output = Result<Panel, f64>;

    fn visit<L: RowLikelihood>(self) -> Result<Panel, f64> {
        let CountsDrawnAnew {
            panel,
            layout,
            priors,
            truth,
            rng,
        } = self;
        let mut part = PanelPart::new(layout.categories, layout.periods);
        for (i, c) in panel.category_of().iter().enumerate() {
            let c = *c as usize;
            let law = L::new(layout.parameter_of(c, truth));
            let latents = at(truth, layout.product_places(i));
            let mut units = Vec::new();
            for row in panel.product_rows(i) {
                let eta = along(&latents, &row.design()) + truth[layout.time_index(c, row.period)];
                let rate = eta.clamp(priors.clip_low, priors.clip_high).exp();
                units.push(law.draw(rate, rng)?);
            }
            part.push_product_of(panel, i, c, &units)
                .expect("the panel's own rows");
        }
        let axes = panel.axes();
        Ok(Panel::from_parts(
            axes.products.clone(),
            axes.categories.clone(),
            axes.periods.clone(),
            vec![part],
        )
        .expect("the panel's own axes"))
    }
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
            (&first.latents, &first.within_cell),
            (&again.latents, &again.within_cell)
        );
        assert!(first.truth[0] != second.truth[0] && first.fit_seed != second.fit_seed);
        assert_eq!(first.within_cell.len(), first.truth.len() + 1);
        for site in Site::REPARAMETERIZED {
            assert!(first.panel.layout().range(site).contains(&first.latent(site)));
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
            for (site, (sum, squares)) in Site::REPARAMETERIZED.into_iter().zip(&mut sums) {
                let z = (replication.truth[replication.latents[site.index()]] - means[site.index()])
                    / priors.sd(site);
                *sum += z;
                *squares += z * z;
            }
        }
        for (site, (sum, squares)) in Site::REPARAMETERIZED.into_iter().zip(sums) {
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

    /// Counts vary as the shapes say: of `(y - mu)^2 - mu` over `mu^2`, the expectation is one over the shape.
    #[test]
    fn negative_binomial_counts_have_the_drawn_shapes() {
        let design = Design {
            likelihood: Likelihood::NegativeBinomial,
            products: 40,
            periods: 40,
            ..Design::default()
        };
        let poisson = Design {
            likelihood: Likelihood::Poisson,
            ..design.clone()
        };
        let (mut residuals, mut excess, mut excess_squares, mut rows) = (0.0, 0.0, 0.0, 0.0);
        for index in 0..30 {
            let drawn = Replication::draw(&design, index).unwrap();
            let layout = drawn.panel.layout_for(design.likelihood);
            assert_eq!(drawn.truth.len(), layout.latents());
            // All but the counts is as it is of Poisson counts.
            let without = Replication::draw(&poisson, index).unwrap();
            assert_eq!(drawn.truth[..without.truth.len()], without.truth);
            assert_ne!(drawn.panel.units(), without.panel.units());
            for (i, c) in drawn.panel.category_of().iter().enumerate() {
                let inverse = (-drawn.truth[layout.start(Site::LogShape) + *c as usize]).exp();
                for row in drawn.panel.product_rows(i) {
                    let mu = (drawn.truth[layout.start(Site::ProductA) + i] * row.log_price
                        + drawn.truth[layout.start(Site::ProductEffect) + i]
                        + drawn.truth[layout.time_index(*c as usize, row.period)])
                    .exp();
                    let residual = (f64::from(row.units) - mu) / mu;
                    let found = residual * residual - 1.0 / mu - inverse;
                    residuals += residual;
                    excess += found;
                    excess_squares += found * found;
                    rows += 1.0;
                }
            }
        }
        let error = excess_squares.sqrt() / rows;
        assert!(
            (excess / rows).abs() < 4.0 * error && error < 0.01,
            "{} {error}",
            excess / rows
        );
        assert!((residuals / rows).abs() < 0.02, "{}", residuals / rows);
    }
}
