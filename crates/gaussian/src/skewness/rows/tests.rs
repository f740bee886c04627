//! All nodes at once against one node after the other.

use super::separated::{MOST_EXPONENT, Separated};
use super::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

const ABOUT: [About; 2] = [About::Mode, About::Mean];

/// None, fewer than fill a vector, and about whole vectors and blocks of them.
const LENGTHS: [usize; 15] = [0, 1, 2, 3, 7, 8, 9, 15, 17, 31, 63, 64, 65, 156, 301];

const TILT: [f64; 2] = [0.3, -0.2];

/// Of a log at a node with a weight.
const MOST_DIFFERENCE: f64 = 1e-9;

fn cases() -> impl Iterator<Item = (InstructionSet, About)> {
    let sets = InstructionSet::available().into_iter();
    sets.flat_map(|set| ABOUT.map(|about| (set, about)))
}

/// Tight rows with rates up to a power of ten, whose leverages are below 1 as those of rows are.
fn rows(rng: &mut StdRng, length: usize, most_log10: f64) -> Vec<Row> {
    let mut row = || {
        let rate = 10f64.powf(rng.random_range(-6.0..most_log10));
        let sd = rng.random_range(0.05..1.5f64).min(0.7 / rate.sqrt());
        let [p, q, b] = [(); 3].map(|()| sd * rng.random_range(-1.0..1.0));
        Row {
            rate,
            variance: p * p + q * q + rng.random_range(0.0..LOOSE).min(sd * sd),
            by: [p, q],
            shift: b,
        }
    };
    (0..length).map(|_| row()).collect()
}

/// The tight rows' part.
struct OfTight<'a>(&'a Group);

impl ForSimd for OfTight<'_> {
    type Output = Separated;

    fn run<I: Simd>(self, isa: I) -> Separated {
        isa.wide().vectorize(Separate(&self.0.tight))
    }
}

fn at(node: usize) -> [f64; 2] {
    axes(node).map(|place| NINE[place].0)
}

/// The logs of the rule's weights with the tilt and the rows' part.
fn logs(set: InstructionSet, group: &Group, separates: bool) -> [f64; 81] {
    let mut logs = weights();
    set.run_f64(AddTo {
        group,
        logs: &mut logs,
        tilt: TILT,
        separates,
    });
    logs
}

fn weights() -> [f64; 81] {
    std::array::from_fn(|node| {
        let [first, second] = axes(node).map(|place| NINE[place].1);
        (first * second).ln()
    })
}

/// The largest difference of two logs, at the nodes whose weights are not below `e^-40` of the largest.
fn difference(found: &[f64; 81], expected: &[f64; 81]) -> f64 {
    assert!(found.iter().chain(expected).all(|log| log.is_finite()));
    let most = expected.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let with_weight = found.iter().zip(expected).filter(|(_, log)| **log >= most - 40.0);
    with_weight
        .map(|(found, expected)| (found - expected).abs())
        .fold(0.0, f64::max)
}

/// What is rounded in the sums at a node.
fn rounded(about: About, rows: &[Row], node: usize) -> f64 {
    let [u, s] = at(node);
    let of_row = |row: &Row| {
        let parts = [row.by[0] * u, row.by[1] * s, row.shift];
        let m: f64 = parts.iter().sum();
        let raised = m + 0.5 * row.noise() - about.below(row.variance);
        let size = 1.0 + parts.map(f64::abs).iter().sum::<f64>();
        row.rate * (size * raised.exp() + 0.5 * size * size)
    };
    rows.iter().map(of_row).sum()
}

/// The largest difference of a log with a weight between all nodes at once and one after the other; fails where any log differs by more
/// than rounding.
fn largest_difference(set: InstructionSet, about: About, rows: &[Row]) -> f64 {
    let group = Group::new(about, rows.iter().copied());
    assert!(separates(&group.tight) && group.loose.came.is_empty());
    let [found, expected] = [true, false].map(|separates| logs(set, &group, separates));
    for node in 0..81 {
        let off = (found[node] - expected[node]).abs();
        // 20 is about the largest log of a weight.
        let most = 2e-15 * (rounded(about, rows, node) + 20.0);
        assert!(
            off < most,
            "{set:?}, {about:?}, {} rows, node {node}: {off}",
            rows.len()
        );
    }
    difference(&found, &expected)
}

#[test]
fn all_nodes_at_once_are_one_node_after_the_other() {
    let mut rng = StdRng::seed_from_u64(5);
    for length in LENGTHS {
        for most_log10 in [-5.0, 0.0, 2.0, 4.5] {
            let rows = rows(&mut rng, length, most_log10);
            for (set, about) in cases() {
                let off = largest_difference(set, about, &rows);
                assert!(off < MOST_DIFFERENCE, "{set:?}, {about:?}, {length} rows: {off}");
            }
        }
    }
}

#[test]
fn exponents_up_to_the_largest_are_separated_as_well_as_small_ones() {
    let mut rng = StdRng::seed_from_u64(6);
    for length in LENGTHS {
        let mut row = || {
            let [p, q, b] = [(); 3].map(|()| MOST_EXPONENT * rng.random_range(-1.0..1.0));
            let by = [p, q].map(|most| most / NINE[8].0);
            Row {
                rate: 10f64.powf(rng.random_range(-6.0..0.0)),
                variance: by[0] * by[0] + by[1] * by[1],
                by,
                shift: b,
            }
        };
        let rows: Vec<Row> = (0..length).map(|_| row()).collect();
        for (set, about) in cases() {
            largest_difference(set, about, &rows);
        }
    }
}

#[test]
fn a_wrong_sign_or_order_is_noticed() {
    let mut rng = StdRng::seed_from_u64(7);
    for (set, about) in cases() {
        let group = Group::new(about, rows(&mut rng, 21, 0.0).into_iter());
        let right = set.run_f64(OfTight(&group));
        let expected = logs(set, &group, false);
        let off = |separated: &Separated| {
            let mut found = weights();
            for (node, log) in found.iter_mut().enumerate() {
                let [u, s] = at(node);
                *log += TILT[0] * u + TILT[1] * s + separated.at(node);
            }
            difference(&found, &expected)
        };
        assert!(off(&right) < MOST_DIFFERENCE);
        let mut wrong = [right; 8];
        for (coefficient, wrong) in wrong[..6].iter_mut().enumerate() {
            wrong.polynomial[coefficient] *= -1.0;
        }
        wrong[6].rates = std::array::from_fn(|node| right.rates[80 - node]);
        wrong[7].rates = std::array::from_fn(|node| right.rates[node % 9 * 9 + node / 9]);
        for (case, wrong) in wrong.iter().enumerate() {
            let off = off(wrong);
            assert!(
                off > 1e5 * MOST_DIFFERENCE,
                "{set:?}, {about:?}, case {case}: {off}"
            );
        }
    }
}

#[test]
fn groups_whose_factors_are_too_large_are_taken_node_by_node() {
    let mut rng = StdRng::seed_from_u64(8);
    let near = rows(&mut rng, 21, 0.0);
    let group_with = |by: [f64; 2], shift: f64| {
        let far = Row {
            rate: 0.01,
            variance: by[0] * by[0] + by[1] * by[1],
            by,
            shift,
        };
        Group::new(About::Mode, near.iter().copied().chain([far]))
    };
    let outermost = NINE[8].0;
    for sign in [-1.0, 1.0] {
        let (inside, beyond) = (0.999 * sign * MOST_EXPONENT, 1.001 * sign * MOST_EXPONENT);
        assert!(separates(&group_with([inside / outermost; 2], inside).tight));
        for (by, shift) in [
            ([beyond / outermost, 0.0], 0.0),
            ([0.0, beyond / outermost], 0.0),
            ([0.0, 0.0], beyond),
        ] {
            assert!(!separates(&group_with(by, shift).tight), "{by:?} {shift}");
        }
    }
    // exp(800) is beyond the numbers, exp(800 - 790), the last row's at the last u, is not.
    let (by, shift) = ([800.0 / outermost, 0.0], -790.0);
    let group = group_with(by, shift);
    let mut found = weights();
    group.add_to(&mut found, TILT);
    assert_eq!(found, logs(InstructionSet::best(), &group, false));
    let mut without = weights();
    Group::new(About::Mode, near.iter().copied()).add_to(&mut without, TILT);
    for node in 72..81 {
        let expected = without[node] + 0.01 * (1.0 + 10.0 + 50.0 - 10f64.exp());
        assert!(
            (found[node] - expected).abs() < 1e-9,
            "{node}: {} {expected}",
            found[node]
        );
    }
    for set in InstructionSet::available() {
        let separated = logs(set, &group, true);
        let same = |(log, right): (&f64, &f64)| (log - right).abs() < 1.0;
        assert!(!separated.iter().zip(&found).all(same), "{set:?}");
    }
}

#[test]
fn all_that_is_added_is_the_tilt_and_each_row() {
    let mut rng = StdRng::seed_from_u64(9);
    for about in ABOUT {
        let mut rows = rows(&mut rng, 37, 1.0);
        for row in rows.iter_mut().step_by(3) {
            row.variance += 4.0 * LOOSE;
        }
        let group = Group::new(about, rows.iter().copied());
        assert_eq!([group.tight.came.len(), group.loose.came.len()], [24, 13]);
        let mut found = weights();
        group.add_to(&mut found, TILT);
        let mut of_rows = Vec::new();
        let expected = std::array::from_fn(|node| {
            let [u, s] = at(node);
            group.each([u, s], &mut of_rows);
            weights()[node] + TILT[0] * u + TILT[1] * s + of_rows.iter().sum::<f64>()
        });
        let off = difference(&found, &expected);
        assert!(off < MOST_DIFFERENCE, "{about:?}: {off}");
    }
}
