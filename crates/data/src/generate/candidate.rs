//! One candidate product: its parameters, prices and units.

use super::demand::{Demand, Streams, draw_parameters, normal, uniform};
use super::{GenerateError, Generator, MAX_RATE};
use infermark_model::design::{EFFECT, PRODUCT_LATENTS, PRODUCT_SITES, along_regressors, design_of};
use infermark_model::poisson::unit;
use infermark_model::{Likelihood, LikelihoodVisitor, PanelError, PanelPart, RowLikelihood};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::array::from_fn;

/// Products of the published process with at most this many units in total are dropped.
const DROPPED_UNITS: u64 = 100;

/// A Poisson candidate that expects fewer units in total is dropped without drawing it: it would have more
/// than 100 units once in 1e37.
const HOPELESS_UNITS: f64 = 20.0;

/// The parameters of a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Draw {
    pub(crate) category: u32,
    /// Its coefficients and its effect; the published process has only the elasticity, the others are 0.
    pub(crate) latents: [f64; PRODUCT_LATENTS],
}

/// Rows of one product, one per period, reused from product to product.
#[derive(Debug, Default)]
pub(crate) struct ProductRows {
    /// In currency units, whole cents.
    pub(crate) prices: Vec<f64>,
    pub(crate) units: Vec<u32>,
    rates: Vec<f64>,
}

impl ProductRows {
    /// Appends the product to `part`, in `category` of the panel.
    pub(crate) fn push_to(&self, part: &mut PanelPart, category: usize) -> Result<(), PanelError> {
        part.push_product(category, None, &self.prices, &self.units)
    }

    /// The multipliers of the product's latents in each row, see
    /// [`Row::design`](infermark_model::Row::design).
    fn designs(&self) -> impl Iterator<Item = [f64; PRODUCT_LATENTS]> + '_ {
        self.prices.iter().map(|price| design_of(price.ln()))
    }
}

/// Draws candidates by their number.
#[derive(Debug, Clone)]
pub(crate) struct Candidates {
    pub(crate) demand: Demand,
    /// The likelihood's own parameter of each category, length C; empty where it has none.
    pub(crate) parameters: Vec<f64>,
    likelihood: Likelihood,
    streams: Streams,
    categories: usize,
    periods: usize,
}

impl Candidates {
    pub(crate) fn new(generator: &Generator) -> Self {
        let streams = Streams::new(generator.seed);
        Candidates {
            demand: Demand::draw(generator, &streams),
            parameters: draw_parameters(generator, &streams),
            likelihood: generator.likelihood,
            streams,
            categories: generator.categories,
            periods: generator.periods,
        }
    }

    /// Draws a candidate into `rows`; `None` if it is dropped.
    ///
    /// # Errors
    /// [`GenerateError::Units`] when a count is too large.
    pub(crate) fn draw(&self, candidate: u64, rows: &mut ProductRows) -> Result<Option<Draw>, GenerateError> {
        let mut rng = self.streams.candidate(candidate);
        let category = ((unit(&mut rng) * self.categories as f64) as usize).min(self.categories - 1);
        let draw = match &self.demand {
            Demand::Published { level } => {
                let elasticity = (-2.0 + 0.7 * normal(&mut rng)).clamp(-5.0, -0.1);
                let ln_multiplier = 3.0 + 0.5 * normal(&mut rng);
                draw_prices(&mut rng, self.periods, &mut rows.prices);
                published_rates(
                    &mut rng,
                    &level[category * self.periods..],
                    elasticity,
                    ln_multiplier,
                    rows,
                );
                if self.likelihood.is_equidispersed() && rows.rates.iter().sum::<f64>() < HOPELESS_UNITS {
                    return Ok(None);
                }
                let mut latents = [0.0; PRODUCT_LATENTS];
                latents[0] = elasticity;
                Draw {
                    category: category as u32,
                    latents,
                }
            }
            Demand::Model {
                priors,
                category: means,
                time_cat_effects,
                ..
            } => {
                let mean = |k: usize| means.get(k).map_or(priors.product_effect_mean, |of| of[category]);
                let latents = from_fn(|k| mean(k) + priors.sd(PRODUCT_SITES[k]) * normal(&mut rng));
                draw_prices(&mut rng, self.periods, &mut rows.prices);
                let mut rates = std::mem::take(&mut rows.rates);
                rates.clear();
                rates.extend(
                    rows.designs()
                        .zip(&time_cat_effects[category * self.periods..])
                        .map(|(design, time_effect)| {
                            let own = along_regressors(&latents, &design);
                            let eta = own + time_effect + latents[EFFECT];
                            eta.clamp(priors.clip_low, priors.clip_high).exp()
                        }),
                );
                rows.rates = rates;
                Draw {
                    category: category as u32,
                    latents,
                }
            }
        };
        let drawn = self.likelihood.visit(UnitsOfRates {
            parameter: self.parameters.get(category).copied().unwrap_or_default(),
            rows,
            rng: &mut rng,
        });
        drawn.map_err(|units| GenerateError::Units { units })?;
        let dropped = matches!(self.demand, Demand::Published { .. })
            && rows.units.iter().map(|y| u64::from(*y)).sum::<u64>() <= DROPPED_UNITS;
        Ok((!dropped).then_some(draw))
    }
}

/// Draws a count for every rate.
struct UnitsOfRates<'a> {
    parameter: f64,
    rows: &'a mut ProductRows,
    rng: &'a mut ChaCha8Rng,
}

impl LikelihoodVisitor for UnitsOfRates<'_> {
    type Output = Result<(), f64>;

    fn visit<L: RowLikelihood>(self) -> Result<(), f64> {
        let law = L::new(self.parameter);
        self.rows.units.clear();
        for rate in &self.rows.rates {
            self.rows.units.push(law.draw(*rate, self.rng)?);
        }
        Ok(())
    }
}

/// First price U(100, 1000); then each period, with probability 1/2, times 1 + U(-0.2, 0.2). The path
/// continues unrounded; the price is rounded to cents, and is at least one cent.
fn draw_prices(rng: &mut ChaCha8Rng, periods: usize, prices: &mut Vec<f64>) {
    prices.clear();
    let mut path = uniform(rng, 100.0, 1000.0);
    let mut price = in_cents(path);
    prices.push(price);
    for _ in 1..periods {
        // One word serves both: its lowest bit is the coin, its top 53 bits the step.
        let word = rng.next_u64();
        if word & 1 == 1 {
            path *= 0.8 + 0.4 * ((word >> 11) as f64 * 2f64.powi(-53));
            price = in_cents(path);
        }
        prices.push(price);
    }
}

fn in_cents(price: f64) -> f64 {
    (price * 100.0).round().max(1.0) / 100.0
}

fn published_rates(
    rng: &mut ChaCha8Rng,
    level: &[f64],
    elasticity: f64,
    ln_multiplier: f64,
    rows: &mut ProductRows,
) {
    rows.rates.clear();
    let mut last = (0.0, 0.0);
    for (price, level) in rows.prices.iter().zip(level) {
        // Every second price repeats the one before.
        if *price != last.0 {
            last = (*price, (ln_multiplier + elasticity * price.ln()).exp());
        }
        let noise = 0.95 + 0.1 * unit(rng);
        rows.rates.push((level * last.1 * noise).min(MAX_RATE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Process;

    #[test]
    fn the_published_process_has_the_published_statistics() {
        // Two hundred categories: with ten, their few base levels would move the share by several percent.
        let candidates = Candidates::new(&Generator {
            process: Process::Published,
            likelihood: Likelihood::Poisson,
            products: 1,
            periods: 156,
            categories: 200,
            seed: 3,
        });
        let n = 20_000u64;
        let mut rows = ProductRows::default();
        let (mut kept, mut elasticity, mut changes, mut noise) = (0u64, 0.0, 0u64, 0.0);
        for candidate in 0..n {
            if let Some(draw) = candidates.draw(candidate, &mut rows).unwrap() {
                kept += 1;
                elasticity += draw.latents[0];
                assert!((-5.0..=-0.1).contains(&draw.latents[0]));
                assert!(rows.units.iter().map(|y| u64::from(*y)).sum::<u64>() > DROPPED_UNITS);
                changes += rows.prices.windows(2).filter(|w| w[0] != w[1]).count() as u64;
                noise += rows
                    .prices
                    .iter()
                    .map(|p| (p * 100.0 - (p * 100.0).round()).abs())
                    .sum::<f64>();
            }
        }
        // The published draw with its ten categories has 41% dropped and a mean elasticity of -1.597683. Between draws
        // of ten categories the two vary with standard deviations of 0.024 and 0.020 (forty simulated draws); those
        // of this test, with two hundred, by a quarter of it. Three of them.
        let dropped = 1.0 - kept as f64 / n as f64;
        assert!((dropped - 0.41).abs() < 0.075, "dropped {dropped}");
        let mean = elasticity / kept as f64;
        assert!((mean + 1.597_683).abs() < 0.06, "mean elasticity {mean}");
        // A coin per period; steps below half a cent are rare at these prices. Five standard errors.
        let flips = (kept * 155) as f64;
        assert!((changes as f64 / flips - 0.5).abs() < 5.0 * 0.5 / flips.sqrt() + 1e-3);
        assert!(noise / flips < 1e-9, "prices are whole cents");
    }

    #[test]
    fn rates_follow_price_level_and_multiplier() {
        let mut rng = Streams::new(1).candidate(0);
        let mut rows = ProductRows {
            prices: vec![200.0, 200.0, 400.0],
            ..ProductRows::default()
        };
        published_rates(&mut rng, &[1000.0, 2000.0, 1000.0], -2.0, 3.0, &mut rows);
        for (rate, expected) in rows.rates.iter().zip([1000.0 / 4e4, 2000.0 / 4e4, 1000.0 / 16e4]) {
            let ratio = rate / (expected * 3f64.exp());
            assert!((0.95..1.05).contains(&ratio), "{ratio}");
        }
    }
}
