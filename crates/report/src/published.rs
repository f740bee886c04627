//! The published figures, as they were published: never measured here, and never mixed with what was.
//!
//! Expected hours for 1,000,000 iterations of SVI with 4 particles, read off a progress bar; none of the runs was made to
//! its end. The factors in brackets were published as the ratio to the CPU's time.

/// Iterations of the published schedule.
pub const ITERATIONS: f64 = 1e6;
/// Particles of the published runs.
pub const PARTICLES: usize = 4;

/// A system of the published figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishedSystem {
    /// A CPU described as having 192 cores.
    Cpu192,
    /// One NVIDIA A10G.
    A10g,
    /// Four NVIDIA A10G.
    FourA10g,
}

impl PublishedSystem {
    /// All of them.
    pub const ALL: [PublishedSystem; 3] = [
        PublishedSystem::Cpu192,
        PublishedSystem::A10g,
        PublishedSystem::FourA10g,
    ];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            PublishedSystem::Cpu192 => "CPU, \"192 cores\"",
            PublishedSystem::A10g => "1x A10G",
            PublishedSystem::FourA10g => "4x A10G",
        }
    }
}

/// One published figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublishedTime {
    /// Where it ran.
    pub system: PublishedSystem,
    /// Hours and minutes for 1M iterations.
    pub hours_minutes: (u32, u32),
    /// Ratio of the CPU's time to this one, as published.
    pub factor: Option<f64>,
    /// Iterations per second, as published.
    pub iterations_per_second: f64,
}

impl PublishedTime {
    /// Seconds for 1M iterations.
    pub fn seconds(&self) -> f64 {
        f64::from(self.hours_minutes.0 * 60 + self.hours_minutes.1) * 60.0
    }
}

/// The figures of one data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublishedSet {
    /// Products.
    pub products: usize,
    /// Rows.
    pub rows: usize,
    /// The three systems.
    pub times: [PublishedTime; 3],
}

const fn set(
    products: usize,
    cpu: ((u32, u32), f64),
    one: ((u32, u32), f64, f64),
    four: ((u32, u32), f64, f64),
) -> PublishedSet {
    PublishedSet {
        products,
        rows: products * 156,
        times: [
            PublishedTime {
                system: PublishedSystem::Cpu192,
                hours_minutes: cpu.0,
                factor: None,
                iterations_per_second: cpu.1,
            },
            PublishedTime {
                system: PublishedSystem::A10g,
                hours_minutes: one.0,
                factor: Some(one.1),
                iterations_per_second: one.2,
            },
            PublishedTime {
                system: PublishedSystem::FourA10g,
                hours_minutes: four.0,
                factor: Some(four.1),
                iterations_per_second: four.2,
            },
        ],
    }
}

/// All published SVI times.
pub const SETS: [PublishedSet; 3] = [
    set(
        10_000,
        ((22, 5), 12.6),
        ((0, 41), 32.3, 406.0),
        ((0, 21), 63.1, 793.0),
    ),
    set(
        100_000,
        ((202, 20), 1.37),
        ((6, 5), 33.3, 45.7),
        ((2, 14), 90.6, 124.0),
    ),
    set(
        1_000_000,
        ((2132, 30), 0.130),
        ((60, 18), 35.4, 4.61),
        ((20, 50), 102.4, 13.3),
    ),
];

/// The published figures for a panel of this size, where there are any: the cost of an iteration is that of
/// its rows, so their number must agree, too.
pub fn set_of(products: usize, rows: usize) -> Option<&'static PublishedSet> {
    SETS.iter().find(|s| s.products == products && s.rows == rows)
}

/// Published draws of the NUTS reference, warm-up included.
pub const NUTS_DRAWS: u64 = 3_000;
/// Warm-up draws included in [`NUTS_DRAWS`].
pub const NUTS_WARMUP: u64 = 1_000;
/// Published time of the NUTS reference on the smallest set, hours; [`NUTS_TIME`] says what it is.
pub const NUTS_HOURS: f64 = 20.0;
/// [`NUTS_HOURS`] in words, wherever they are written: about, on which machine, and what is not known of the run.
pub const NUTS_TIME: &str = "about 20 h on 192 cores, not known to have converged";

/// Mean absolute error of the product elasticities that was published for the mean-field fit.
pub const PRODUCT_A_MAE: f64 = 0.0724;
/// Share of true product elasticities in the published fit's 95% intervals.
pub const PRODUCT_A_COVERAGE_95: f64 = 0.097;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_rates_and_factors_agree_to_their_digits() {
        for set in SETS {
            let cpu = set.times[0].seconds();
            for time in set.times {
                // Times are given to the minute: half a minute is 2.5% of the shortest.
                let rounding = 30.0 / time.seconds() + 0.005;
                let rate = ITERATIONS / time.seconds();
                assert!(
                    (rate / time.iterations_per_second - 1.0).abs() < rounding,
                    "{time:?}"
                );
                if let Some(factor) = time.factor {
                    assert!((cpu / time.seconds() / factor - 1.0).abs() < rounding, "{time:?}");
                }
            }
        }
        assert_eq!(set_of(10_000, 1_560_000), Some(&SETS[0]));
        assert!(set_of(12_000, 1_560_000).is_none());
        assert!(set_of(10_000, 1_559_999).is_none(), "another panel of that size");
        assert!(NUTS_TIME.contains(&format!("about {NUTS_HOURS} h")));
    }
}
