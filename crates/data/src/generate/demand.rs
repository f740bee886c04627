//! The processes that panels are drawn from: the parts that products share, drawn before any product.

use super::Generator;
use infermark_model::Priors;
use infermark_model::design::COEFFICIENTS;
use infermark_model::poisson::unit;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// The process that a panel is drawn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Process {
    /// The published process. Per category base demand U(1000, 10000), trend U(0, 0.01), volatility U(0.01,
    /// 0.05) and a demand path that starts at 1 and adds trend + volatility * N(0, 1) per period, floored at
    /// 0.1. Per product a uniform category, elasticity N(-2, 0.7) clipped to [-5, -0.1], and a multiplier
    /// lognormal(3, 0.5). Units are Poisson with mean base * path * multiplier * (1 + U(-0.05, 0.05)) *
    /// price^elasticity. Products with at most 100 units in total are dropped (about 41%).
    Published,
    /// Parameters from the model's priors, units from the model; no product is dropped. With the published
    /// prices (ln price about 6) and priors, many rates are clipped at the lower or the upper bound.
    Model(Priors),
}

/// Independent random streams of one seed.
#[derive(Debug, Clone)]
pub(crate) struct Streams(ChaCha8Rng);

impl Streams {
    pub(crate) fn new(seed: u64) -> Self {
        Streams(ChaCha8Rng::seed_from_u64(seed))
    }

    fn stream(&self, id: u64) -> ChaCha8Rng {
        let mut rng = self.0.clone();
        rng.set_stream(id);
        rng
    }

    /// The stream of a candidate product; candidates stay below 2^62.
    pub(crate) fn candidate(&self, candidate: u64) -> ChaCha8Rng {
        self.stream(candidate)
    }

    fn category(&self, category: usize) -> ChaCha8Rng {
        self.stream(1 << 62 | category as u64)
    }

    fn global(&self) -> ChaCha8Rng {
        self.stream(1 << 63)
    }

    /// The stream of the likelihood's own parameter in a category.
    fn parameter(&self, category: usize) -> ChaCha8Rng {
        self.stream(3 << 62 | category as u64)
    }
}

/// A standard normal.
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

/// A number in [low, high).
pub(crate) fn uniform(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * unit(rng)
}

/// What all products share.
#[derive(Debug, Clone)]
pub(crate) enum Demand {
    Published {
        /// base * path, C * T, category-major.
        level: Vec<f64>,
    },
    Model {
        priors: Priors,
        /// The global means of the coefficients.
        global: [f64; COEFFICIENTS.len()],
        /// The means of each coefficient in the categories, length C.
        category: [Vec<f64>; COEFFICIENTS.len()],
        /// C * T, category-major.
        time_cat_effects: Vec<f64>,
    },
}

impl Demand {
    pub(crate) fn draw(generator: &Generator, streams: &Streams) -> Self {
        let (categories, periods) = (generator.categories, generator.periods);
        match generator.process {
            Process::Published => Demand::Published {
                level: (0..categories)
                    .flat_map(|c| published_levels(streams.category(c), periods))
                    .collect(),
            },
            Process::Model(priors) => {
                let mut rng = streams.global();
                let global = COEFFICIENTS
                    .map(|of| priors.constant_mean(of.global) + priors.sd(of.global) * normal(&mut rng));
                let mut category = [const { Vec::new() }; COEFFICIENTS.len()];
                let mut time_cat_effects = Vec::with_capacity(categories * periods);
                for c in 0..categories {
                    let mut rng = streams.category(c);
                    for (k, of) in COEFFICIENTS.iter().enumerate() {
                        category[k].push(global[k] + priors.sd(of.category) * normal(&mut rng));
                    }
                    time_cat_effects.extend((0..periods).map(|_| {
                        priors.time_cat_effects_mean + priors.time_cat_effects_sd * normal(&mut rng)
                    }));
                }
                Demand::Model {
                    priors,
                    global,
                    category,
                    time_cat_effects,
                }
            }
        }
    }
}

/// The likelihood's own parameter of each category, length C; empty where it has none.
pub(crate) fn draw_parameters(generator: &Generator, streams: &Streams) -> Vec<f64> {
    let Some(site) = generator.likelihood.parameter() else {
        return Vec::new();
    };
    let (mean, sd) = match &generator.process {
        Process::Published => generator.likelihood.synthetic_parameter(),
        Process::Model(priors) => (priors.constant_mean(site), priors.sd(site)),
    };
    (0..generator.categories)
        .map(|c| mean + sd * normal(&mut streams.parameter(c)))
        .collect()
}

fn published_levels(mut rng: ChaCha8Rng, periods: usize) -> Vec<f64> {
    let base = uniform(&mut rng, 1000.0, 10_000.0);
    let trend = uniform(&mut rng, 0.0, 0.01);
    let volatility = uniform(&mut rng, 0.01, 0.05);
    let mut path = 1.0;
    (0..periods)
        .map(|period| {
            if period > 0 {
                path += trend + volatility * normal(&mut rng);
            }
            base * f64::max(path, 0.1)
        })
        .collect()
}
