//! Panels of Poisson counts of all kinds, and over-dispersed ones, for the tests of the dispersion.

use infermark_model::{Labels, Panel, PanelPart, Priors};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Gamma, Normal, Poisson};
use std::sync::Arc;

/// How prices are generated. All vary about the product's usual price.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Prices {
    /// The same in all periods.
    Constant,
    /// A random walk: a factor of up to 1.2 in every second period.
    Walk,
    /// Noise of 2%, and 10 to 40% off in one period of five.
    Promotions,
}

/// How a panel is generated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) products: usize,
    pub(crate) periods: usize,
    pub(crate) categories: usize,
    /// Mean and standard deviation over products of the log rate at the usual price.
    pub(crate) log_rate: (f64, f64),
    /// Mean and standard deviation over products of the log of the usual price.
    pub(crate) log_price: (f64, f64),
    pub(crate) prices: Prices,
    /// Mean and standard deviation over products of the elasticity.
    pub(crate) elasticity: (f64, f64),
    /// Standard deviation of the period effects.
    pub(crate) period_sd: f64,
    /// Share of the rows that are missing.
    pub(crate) gaps: f64,
    /// Lower bound of the log rate, in the counts as in the fit.
    pub(crate) clip_low: f64,
    /// Shape of a gamma factor of every rate; none for Poisson counts.
    pub(crate) shape: Option<f64>,
}

const PLAIN: Kind = Kind {
    name: "",
    products: 100,
    periods: 26,
    categories: 4,
    log_rate: (1.0, 0.5),
    log_price: (0.0, 0.0),
    prices: Prices::Promotions,
    elasticity: (-1.8, 0.8),
    period_sd: 0.3,
    gaps: 0.0,
    clip_low: -20.0,
    shape: None,
};

/// Prices as in the published process: between 100 and 1,000.
const PUBLISHED_PRICES: (f64, f64) = (6.2, 0.6);

/// Poisson counts.
pub(crate) const POISSON: [Kind; 20] = [
    Kind {
        name: "5,000 x 8 at 1 unit, published",
        products: 5000,
        periods: 8,
        categories: 10,
        log_rate: (0.0, 0.0),
        log_price: PUBLISHED_PRICES,
        prices: Prices::Walk,
        clip_low: -4.0,
        ..PLAIN
    },
    Kind {
        name: "3,000 x 52, constant prices",
        products: 3000,
        periods: 52,
        log_rate: (0.5, 1.0),
        prices: Prices::Constant,
        ..PLAIN
    },
    Kind {
        name: "one product, 156 periods",
        products: 1,
        periods: 156,
        categories: 1,
        log_rate: (1.6, 0.0),
        ..PLAIN
    },
    Kind {
        name: "one row",
        products: 1,
        periods: 1,
        categories: 1,
        ..PLAIN
    },
    Kind {
        name: "categories of one product",
        products: 200,
        periods: 52,
        categories: 200,
        log_rate: (0.7, 0.5),
        ..PLAIN
    },
    Kind {
        name: "60 x 20 at 0.01 to 3 units",
        products: 60,
        periods: 20,
        log_rate: (-1.8, 1.4),
        ..PLAIN
    },
    Kind {
        name: "long tail, 2,000 x 104",
        products: 2000,
        periods: 104,
        categories: 8,
        log_rate: (-2.2, 1.8),
        log_price: (1.5, 0.8),
        ..PLAIN
    },
    Kind {
        name: "500 x 26 at 1,000 units",
        products: 500,
        log_rate: (6.9, 0.5),
        ..PLAIN
    },
    Kind {
        name: "300 x 156 at 0.01 units",
        products: 300,
        periods: 156,
        log_rate: (-4.6, 0.3),
        ..PLAIN
    },
    Kind {
        name: "300 x 156 at the lower bound of the clip",
        products: 300,
        periods: 156,
        log_rate: (-3.5, 1.0),
        period_sd: 1.0,
        clip_low: -4.0,
        ..PLAIN
    },
    Kind {
        name: "1,000 x 12 at 0.1 units, half of the rows missing",
        products: 1000,
        periods: 12,
        log_rate: (-2.3, 0.5),
        gaps: 0.5,
        ..PLAIN
    },
    Kind {
        name: "40 x 52 at 0.02 to 400 units",
        products: 40,
        periods: 52,
        categories: 2,
        log_rate: (1.0, 2.5),
        ..PLAIN
    },
    Kind {
        name: "12 x 10 at 50 units",
        products: 12,
        periods: 10,
        categories: 2,
        log_rate: (3.9, 0.5),
        ..PLAIN
    },
    Kind {
        name: "200 x 52 in cents",
        products: 200,
        periods: 52,
        log_rate: (0.0, 1.0),
        log_price: (9.0, 0.5),
        clip_low: -4.0,
        ..PLAIN
    },
    Kind {
        name: "100 x 156 at 30 units, gaps",
        periods: 156,
        categories: 3,
        log_rate: (3.4, 1.0),
        log_price: PUBLISHED_PRICES,
        prices: Prices::Walk,
        gaps: 0.3,
        clip_low: -4.0,
        ..PLAIN
    },
    Kind {
        name: "1,000 x 2",
        products: 1000,
        periods: 2,
        log_rate: (1.6, 0.5),
        ..PLAIN
    },
    Kind {
        name: "5,000 x 1",
        products: 5000,
        periods: 1,
        ..PLAIN
    },
    Kind {
        name: "elasticities far apart",
        products: 20,
        periods: 104,
        categories: 2,
        log_rate: (2.5, 1.0),
        elasticity: (-2.0, 2.5),
        ..PLAIN
    },
    Kind {
        name: "many small categories",
        products: 800,
        periods: 36,
        categories: 250,
        log_rate: (0.0, 1.5),
        ..PLAIN
    },
    Kind {
        name: "seasons of a factor of 50",
        products: 800,
        periods: 36,
        categories: 10,
        log_rate: (0.0, 1.5),
        period_sd: 2.0,
        ..PLAIN
    },
];

/// Counts whose rates vary by a gamma factor of shape 5: the variance is `mu + mu^2 / 5`.
pub(crate) const OVER_DISPERSED: [Kind; 4] = [
    Kind {
        name: "shape 5, 200 x 26 at 3 units",
        products: 200,
        log_rate: (1.1, 0.3),
        shape: Some(5.0),
        ..PLAIN
    },
    Kind {
        name: "shape 5, 100 x 26 at 20 units",
        log_rate: (3.0, 0.5),
        shape: Some(5.0),
        ..PLAIN
    },
    Kind {
        name: "shape 5, 2,000 x 52 at 1 unit",
        products: 2000,
        periods: 52,
        log_rate: (0.0, 0.5),
        shape: Some(5.0),
        ..PLAIN
    },
    Kind {
        name: "shape 5, 60 x 52 at 10 units, published",
        products: 60,
        periods: 52,
        log_rate: (2.3, 0.5),
        log_price: PUBLISHED_PRICES,
        prices: Prices::Walk,
        clip_low: -4.0,
        shape: Some(5.0),
        ..PLAIN
    },
];

impl Kind {
    /// The priors that a panel is fitted with: the published ones, except for the clip.
    pub(crate) fn priors(&self) -> Priors {
        Priors {
            clip_low: self.clip_low,
            ..Priors::default()
        }
    }

    /// A panel.
    pub(crate) fn panel(&self, seed: u64) -> Arc<Panel> {
        let mut rng = StdRng::seed_from_u64(seed);
        let normal = |(mean, sd): (f64, f64)| Normal::new(mean, sd).unwrap();
        let effects: Vec<f64> = (0..self.categories * self.periods)
            .map(|_| normal((0.0, self.period_sd)).sample(&mut rng))
            .collect();
        let mut part = PanelPart::new(self.categories, self.periods);
        for product in 0..self.products {
            let category = product % self.categories;
            let usual = normal(self.log_price).sample(&mut rng);
            let level = normal(self.log_rate).sample(&mut rng);
            let elasticity = normal(self.elasticity).sample(&mut rng);
            let mut deviation: f64 = 0.0;
            let (mut periods, mut prices, mut units) = (Vec::new(), Vec::new(), Vec::new());
            let kept = rng.random_range(0..self.periods);
            for t in 0..self.periods {
                match self.prices {
                    Prices::Constant => {}
                    Prices::Walk => {
                        if rng.random_bool(0.5) {
                            deviation += (1.0 + rng.random_range(-0.2f64..0.2)).ln();
                        }
                    }
                    Prices::Promotions => {
                        deviation = normal((0.0, 0.02)).sample(&mut rng);
                        if rng.random_bool(0.2) {
                            deviation += (1.0 - rng.random_range(0.1f64..0.4)).ln();
                        }
                    }
                }
                if rng.random_bool(self.gaps) && t != kept {
                    continue;
                }
                let eta = level + elasticity * deviation + effects[category * self.periods + t];
                let mut rate = eta.clamp(self.clip_low, 20.0).exp();
                if let Some(shape) = self.shape {
                    rate *= Gamma::new(shape, 1.0 / shape).unwrap().sample(&mut rng);
                }
                periods.push(t as u32);
                prices.push((usual + deviation).exp());
                units.push(Poisson::new(rate).unwrap().sample(&mut rng) as u32);
            }
            part.push_product(category, Some(&periods), &prices, &units)
                .unwrap();
        }
        let numbered = |n| Labels::numbered("x", n);
        let panel = Panel::from_parts(
            numbered(self.products),
            numbered(self.categories),
            numbered(self.periods),
            vec![part],
        );
        Arc::new(panel.unwrap())
    }
}
