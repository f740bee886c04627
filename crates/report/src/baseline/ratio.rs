//! A difference of speeds, separated from noise by the repeats of two runs.
//!
//! The rate of this run over that of the baseline is estimated by the ratio of the medians, with an interval
//! of Mann and Whitney: of the ratios of every repeat here to every repeat there, sorted, as many are cut off
//! at both ends as the rank test allows. It is valid for any distribution of the repeats, also one with a
//! long tail of disturbed ones, since only ranks count, and needs no estimate of their spread, for which five
//! repeats are too few. With five repeats of each nothing is cut off: the interval is all 25 ratios and
//! excludes 1 exactly where every repeat of one run is faster than every repeat of the other, which equal
//! speeds do in 2 of 252 orders. Hence the confidence, [`CONFIDENCE`]: a table has some dozen cases, of which
//! at 95% one would be called different by chance in most runs.
//!
//! Repeats of one run share what changes from run to run: memory placement, the clock of the CPU, other users
//! of the host. No number of repeats shows that, so a difference is only reported if the ratio of medians is
//! beyond [`SAME`] as well.

use crate::spread::Spread;
use serde::{Deserialize, Serialize};

/// The least confidence of an interval.
pub const CONFIDENCE: f64 = 0.99;

/// Ratios of medians up to this, and down to one over it, are not called a difference: what two runs of one program may differ by.
pub const SAME: f64 = 1.05;

/// Repeats of both sides together up to which the ranks are counted; beyond it they are taken as normal.
const MOST_COUNTED: usize = 40;

/// The quantile of the normal distribution at `1 - (1 - CONFIDENCE) / 2`.
const NORMAL_QUANTILE: f64 = 2.575_829_303_548_901;

/// On which side of 1 a ratio lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Above, beyond noise.
    Above,
    /// Below, beyond noise.
    Below,
    /// It cannot be distinguished from 1.
    Neither,
}

/// One rate over another, with what the repeats say of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Median here over median there.
    pub of_medians: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The interval's confidence, at least [`CONFIDENCE`]: with few repeats not every confidence is possible.
    pub confidence: f64,
}

impl Ratio {
    /// The ratio of `rates` to `others`, the repeats of two runs; `None` where they are too few for an interval of such a confidence,
    /// or not all positive and finite.
    pub fn of(rates: &[f64], others: &[f64]) -> Option<Self> {
        let sound = |rates: &[f64]| rates.iter().all(|r| r.is_finite() && *r > 0.0);
        if !sound(rates) || !sound(others) {
            return None;
        }
        let of_medians = Spread::of(rates)?.median / Spread::of(others)?.median;
        let (cut, confidence) = cut(rates.len(), others.len())?;
        let mut ratios: Vec<f64> = rates
            .iter()
            .flat_map(|rate| others.iter().map(move |other| rate / other))
            .collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let ratio = Ratio {
            of_medians,
            low: ratios[cut],
            high: ratios[ratios.len() - 1 - cut],
            confidence,
        };
        // Rates close to overflow or underflow have no finite ratio.
        (ratio.of_medians.is_finite() && ratio.low > 0.0 && ratio.high.is_finite()).then_some(ratio)
    }

    /// On which side of 1 it lies: beyond it with its whole interval, and by more than [`SAME`].
    pub fn direction(&self) -> Direction {
        if self.low > 1.0 && self.of_medians > SAME {
            Direction::Above
        } else if self.high < 1.0 && self.of_medians < 1.0 / SAME {
            Direction::Below
        } else {
            Direction::Neither
        }
    }
}

/// How many of the ordered ratios of `m` to `n` repeats are cut off at each end, and the confidence of the
/// rest; `None` where all of them together have less than [`CONFIDENCE`].
fn cut(m: usize, n: usize) -> Option<(usize, f64)> {
    if m == 0 || n == 0 {
        return None;
    }
    if m + n > MOST_COUNTED {
        return cut_of_normal(m, n);
    }
    let orders = orders_by_statistic(m, n);
    let all: f64 = orders.iter().sum();
    let mut below = 0.0;
    let mut found = None;
    for (statistic, count) in orders.iter().enumerate() {
        below += count;
        let confidence = 1.0 - 2.0 * below / all;
        if confidence < CONFIDENCE {
            break;
        }
        found = Some((statistic, confidence));
    }
    found
}

/// The same where the statistic is as good as normal, with the correction for its being a whole number.
fn cut_of_normal(m: usize, n: usize) -> Option<(usize, f64)> {
    let (m, n) = (m as f64, n as f64);
    let sd = (m * n * (m + n + 1.0) / 12.0).sqrt();
    let cut = (0.5 * m * n - 0.5 - NORMAL_QUANTILE * sd).floor();
    // The approximation is no better than that far out.
    (cut >= 0.0).then_some((cut as usize, CONFIDENCE))
}

/// In how many orders of `m` and `n` different numbers so many of the pairs have the first number above the second: 0 to `m n`.
fn orders_by_statistic(m: usize, n: usize) -> Vec<f64> {
    // Sets of `size` ranks by the sum of what each is above the least it can be.
    let most = m * n;
    let mut orders = vec![vec![0.0; most + 1]; m + 1];
    orders[0][0] = 1.0;
    for rank in 0..m + n {
        for size in (1..=m.min(rank + 1)).rev() {
            // As the set's member number `size`, this rank is above so many of the others.
            let Some(above) = rank.checked_sub(size - 1).filter(|above| *above <= n) else {
                continue;
            };
            for sum in above..=most {
                orders[size][sum] += orders[size - 1][sum - above];
            }
        }
    }
    orders.swap_remove(m)
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::noise::Stream;

    #[test]
    fn orders_by_hand() {
        // Of two and two: 0011 0101 (0110 1001) 1010 1100.
        assert_eq!(orders_by_statistic(2, 2), [1.0, 1.0, 2.0, 1.0, 1.0]);
        assert_eq!(orders_by_statistic(1, 3), [1.0; 4]);
        let five = orders_by_statistic(5, 5);
        assert_eq!(
            (five.iter().sum::<f64>(), five[0], five[1], five[2]),
            (252.0, 1.0, 1.0, 2.0)
        );
    }

    #[test]
    fn cuts_are_those_of_the_tables() {
        // Mann and Whitney's critical values, two-sided, 1%.
        for (m, n, critical) in [
            (5, 5, 0),
            (6, 6, 2),
            (8, 8, 7),
            (10, 10, 16),
            (5, 10, 4),
            (20, 20, 105),
        ] {
            let (cut, confidence) = cut(m, n).unwrap();
            assert_eq!(cut, critical, "{m} {n}");
            assert!((CONFIDENCE..1.0).contains(&confidence));
        }
        assert!((cut(5, 5).unwrap().1 - (1.0 - 2.0 / 252.0)).abs() < 1e-15);
        for (m, n) in [(4, 4), (3, 5), (1, 100), (0, 9), (2, 18)] {
            assert_eq!(cut(m, n), None, "{m} {n}");
        }
        let (normal, _) = cut_of_normal(20, 20).unwrap();
        assert!(normal.abs_diff(105) <= 1, "{normal}");
    }

    #[test]
    fn a_ratio_by_hand() {
        let base = [10.0, 10.2, 9.9, 10.1, 10.0];
        let twice = base.map(|r| 2.0 * r);
        let ratio = Ratio::of(&twice, &base).unwrap();
        assert_eq!(ratio.of_medians, 2.0);
        assert!((ratio.low - 19.8 / 10.2).abs() < 1e-12 && (ratio.high - 20.4 / 9.9).abs() < 1e-12);
        assert_eq!(ratio.direction(), Direction::Above);
        assert_eq!(Ratio::of(&base, &twice).unwrap().direction(), Direction::Below);
        assert_eq!(Ratio::of(&base, &base).unwrap().direction(), Direction::Neither);
        // One repeat within reach of the other side: an order that noise can produce.
        let mut touching = twice;
        touching[3] = 10.15;
        assert_eq!(
            Ratio::of(&touching, &base).unwrap().direction(),
            Direction::Neither
        );
        // Apart in every repeat, and by less than runs differ by.
        let near = base.map(|r| 1.04 * r);
        let ratio = Ratio::of(&near, &base).unwrap();
        assert!(ratio.low > 1.0 && ratio.direction() == Direction::Neither);
        for rates in [
            &[1.0, 2.0, 3.0][..],
            &[0.0; 5],
            &[f64::INFINITY; 5],
            &[f64::NAN; 5],
            &[],
        ] {
            assert_eq!(Ratio::of(rates, &base), None, "{rates:?}");
        }
        assert_eq!(Ratio::of(&[1e300; 5], &[1e-300; 5]), None);
    }

    /// Repeats of a run: a tenth of them disturbed, the others off by some percent.
    fn repeats(seed: u64, run: u32, count: usize, speed: f64) -> Vec<f64> {
        let stream = Stream { seed, iteration: run };
        (0..count)
            .map(|k| {
                let z = stream.normals(0, k as u32).map(f64::from);
                let disturbed = if z[1] > 1.28 { 1.0 / 1.5 } else { 1.0 };
                speed * disturbed * (0.03 * z[0]).exp()
            })
            .collect()
    }

    /// Share of simulated pairs of runs in which `called` is true of the ratio.
    fn share(count: usize, speed: f64, from_run_to_run: f64, called: impl Fn(&Ratio) -> bool) -> f64 {
        const PAIRS: u32 = 4_000;
        let of_run = |seed: u64, run: u32| {
            let stream = Stream {
                seed: seed + 100,
                iteration: run,
            };
            (from_run_to_run * f64::from(stream.normals(0, 0)[0])).exp()
        };
        let true_of = |pair: &u32| {
            let here = repeats(1, *pair, count, speed * of_run(1, *pair));
            let there = repeats(2, *pair, count, of_run(2, *pair));
            called(&Ratio::of(&here, &there).expect("enough repeats"))
        };
        (0..PAIRS).filter(true_of).count() as f64 / f64::from(PAIRS)
    }

    #[test]
    fn equal_speeds_are_called_different_as_seldom_as_is_said() {
        let excludes_one = |ratio: &Ratio| ratio.low > 1.0 || ratio.high < 1.0;
        let is_called = |ratio: &Ratio| ratio.direction() != Direction::Neither;
        // The interval alone: of 4,000 pairs 0.79% and 0.93% are expected, with a standard error of 0.15%.
        for (count, expected) in [(5, 2.0 / 252.0), (10, 1.0 - cut(10, 10).unwrap().1)] {
            let alarms = share(count, 1.0, 0.0, excludes_one);
            assert!(
                (alarms - expected).abs() < 4.0 * 0.0015,
                "{count} repeats: {alarms}"
            );
        }
        // Beyond the normal approximation's join as well.
        let alarms = share(25, 1.0, 0.0, excludes_one);
        assert!(alarms > 0.003 && alarms < 0.016, "{alarms}");
        // Runs that differ by one percent each by themselves, which no number of repeats shows: the least ratio keeps what it causes away.
        let alarms = share(10, 1.0, 0.01, excludes_one);
        assert!(alarms > 0.02, "{alarms}");
        for (count, most) in [(5, 0.014), (10, 0.022)] {
            let alarms = share(count, 1.0, 0.01, is_called);
            assert!(alarms < most, "{count} repeats: {alarms}");
        }
        assert!(share(5, 1.0, 0.0, is_called) < 0.008);
    }

    #[test]
    fn a_fifth_is_found() {
        // A disturbed repeat of the faster run hides it where there are five, two of them where there are ten.
        let is_slower = |ratio: &Ratio| ratio.direction() == Direction::Below;
        for (count, least) in [(5, 0.55), (10, 0.75), (25, 0.99)] {
            let found = share(count, 1.0 / 1.2, 0.0, is_slower);
            assert!(found > least, "{count} repeats: {found}");
        }
        assert_eq!(
            share(10, 1.0 / 1.2, 0.0, |r| r.direction() == Direction::Above),
            0.0
        );
    }
}
