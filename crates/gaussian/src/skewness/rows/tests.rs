//! All nodes at once against one node after the other.

use super::separated::{MOST_EXPONENT, Polynomial, Separated};
use super::*;
use crate::gauss_hermite::{Rule, nodes};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const ABOUT: [About; 2] = [About::Mode, About::Mean];

/// None, fewer than a vector, and around whole vectors and blocks of them.
const LENGTHS: [usize; 15] = [0, 1, 2, 3, 7, 8, 9, 15, 17, 31, 63, 64, 65, 156, 301];

/// The tilt of a group in D dimensions.
fn tilt<const D: usize>() -> [f64; D] {
    std::array::from_fn(|k| [0.3, -0.2, 0.1][k])
}

/// Largest difference of a log at a node with a weight.
const MOST_DIFFERENCE: f64 = 1e-9;

fn cases() -> impl Iterator<Item = (InstructionSet, About)> {
    let sets = InstructionSet::available().into_iter();
    sets.flat_map(|set| ABOUT.map(|about| (set, about)))
}

/// Tight rows with rates up to a power of ten, whose leverages are below 1 as for real rows.
fn rows<const D: usize>(rng: &mut StdRng, length: usize, most_log10: f64) -> Vec<Row<D>> {
    let mut row = || {
        let rate = 10f64.powf(rng.random_range(-6.0..most_log10));
        let sd = rng.random_range(0.05..1.5f64).min(0.7 / rate.sqrt());
        let by = [(); D].map(|()| sd * rng.random_range(-1.0..1.0));
        let b = sd * rng.random_range(-1.0..1.0);
        Row {
            rate,
            variance: squares(&by) + rng.random_range(0.0..LOOSE).min(sd * sd),
            by,
            shift: b,
        }
    };
    (0..length).map(|_| row()).collect()
}

fn squares(by: &[f64]) -> f64 {
    by.iter().map(|by| by * by).sum()
}

/// The contribution of the tight rows.
struct OfTight<'a, const D: usize>(&'a Group<D>);

impl<const D: usize> ForSimd for OfTight<'_, D> {
    type Output = Separated<D>;

    fn run<I: Simd>(self, isa: I) -> Separated<D> {
        isa.wide().vectorize(Separate(&self.0.tight))
    }
}

fn at<const D: usize>(node: usize) -> [f64; D] {
    axes(node).map(|place| NINE[place].0)
}

fn dot<const D: usize>(a: &[f64; D], b: &[f64; D]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The logs of the rule's weights with the tilt and the rows' contribution.
fn logs<const D: usize>(set: InstructionSet, group: &Group<D>, separates: bool) -> Vec<f64> {
    let mut logs = Rule::<D>::new().logs;
    set.run_f64(AddTo {
        group,
        logs: &mut logs,
        tilt: tilt(),
        separates,
    });
    logs
}

/// The largest difference of two logs, at the nodes whose weights are not below `e^-40` of the largest.
fn difference(found: &[f64], expected: &[f64]) -> f64 {
    assert!(found.iter().chain(expected).all(|log| log.is_finite()));
    let most = expected.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let with_weight = found.iter().zip(expected).filter(|(_, log)| **log >= most - 40.0);
    with_weight
        .map(|(found, expected)| (found - expected).abs())
        .fold(0.0, f64::max)
}

/// The size of the rounded terms in the sums at a node.
fn rounded<const D: usize>(about: About, rows: &[Row<D>], node: usize) -> f64 {
    let u = at::<D>(node);
    let of_row = |row: &Row<D>| {
        let parts = row.by.iter().zip(u).map(|(by, u)| by * u).chain([row.shift]);
        let m: f64 = parts.clone().sum();
        let raised = m + 0.5 * row.noise() - about.below(row.variance);
        let size = 1.0 + parts.map(f64::abs).sum::<f64>();
        row.rate * (size * raised.exp() + 0.5 * size * size)
    };
    rows.iter().map(of_row).sum()
}

/// The largest difference of a log with a weight between all nodes at once and one after the other; fails where any log differs by more
/// than rounding.
fn largest_difference<const D: usize>(set: InstructionSet, about: About, rows: &[Row<D>]) -> f64 {
    let group = Group::new(about, rows.iter().copied());
    assert!(separates(&group.tight) && group.loose.came.is_empty());
    let [found, expected] = [true, false].map(|separates| logs(set, &group, separates));
    for node in 0..nodes(D) {
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

fn check_all_at_once<const D: usize>(lengths: &[usize]) {
    let mut rng = StdRng::seed_from_u64(5);
    for length in lengths.iter().copied() {
        for most_log10 in [-5.0, 0.0, 2.0, 4.5] {
            let rows = rows::<D>(&mut rng, length, most_log10);
            for (set, about) in cases() {
                let off = largest_difference(set, about, &rows);
                assert!(off < MOST_DIFFERENCE, "{set:?}, {about:?}, {length} rows: {off}");
            }
        }
    }
}

#[test]
fn all_nodes_at_once_are_one_node_after_the_other() {
    check_all_at_once::<2>(&LENGTHS);
    check_all_at_once::<3>(&[0, 1, 9, 63, 156]);
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
        let rows: Vec<Row<2>> = (0..length).map(|_| row()).collect();
        for (set, about) in cases() {
            largest_difference(set, about, &rows);
        }
    }
}

#[test]
fn a_wrong_sign_or_order_is_noticed() {
    let mut rng = StdRng::seed_from_u64(7);
    for (set, about) in cases() {
        let group = Group::new(about, rows::<2>(&mut rng, 21, 0.0).into_iter());
        let right = set.run_f64(OfTight(&group));
        let expected = logs(set, &group, false);
        let off = |separated: &Separated<2>| {
            let mut found = Rule::<2>::new().logs;
            for (node, log) in found.iter_mut().enumerate() {
                *log += dot(&tilt(), &at::<2>(node)) + separated.at(node);
            }
            difference(&found, &expected)
        };
        assert!(off(&right) < MOST_DIFFERENCE);
        let coefficients: [fn(&mut Polynomial<f64, 2>) -> &mut f64; 6] = [
            |of| &mut of.constant,
            |of| &mut of.linear[0],
            |of| &mut of.linear[1],
            |of| &mut of.quadratic[0][0],
            |of| &mut of.quadratic[0][1],
            |of| &mut of.quadratic[1][1],
        ];
        let mut wrong = vec![right.clone(); 8];
        for (coefficient, wrong) in coefficients.iter().zip(&mut wrong) {
            *coefficient(&mut wrong.polynomial) *= -1.0;
        }
        wrong[6].rates = (0..81).map(|node| right.rates[80 - node]).collect();
        wrong[7].rates = (0..81).map(|node| right.rates[node % 9 * 9 + node / 9]).collect();
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
    let near = rows::<2>(&mut rng, 21, 0.0);
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
    // exp(800) overflows, exp(800 - 790), the last row's at the last u, is not.
    let (by, shift) = ([800.0 / outermost, 0.0], -790.0);
    let group = group_with(by, shift);
    let mut found = Rule::<2>::new().logs;
    group.add_to(&mut found, tilt());
    assert_eq!(found, logs(InstructionSet::best(), &group, false));
    let mut without = Rule::<2>::new().logs;
    Group::new(About::Mode, near.iter().copied()).add_to(&mut without, tilt());
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

fn check_what_is_added<const D: usize>() {
    let mut rng = StdRng::seed_from_u64(9);
    for about in ABOUT {
        let mut rows = rows::<D>(&mut rng, 37, 1.0);
        for row in rows.iter_mut().step_by(3) {
            row.variance += 4.0 * LOOSE;
        }
        let group = Group::new(about, rows.iter().copied());
        assert_eq!([group.tight.came.len(), group.loose.came.len()], [24, 13]);
        let rule = Rule::<D>::new();
        let mut found = rule.logs.clone();
        group.add_to(&mut found, tilt());
        let mut of_rows = Vec::new();
        let mut expected = rule.logs;
        for (log, node) in expected.iter_mut().zip(&rule.nodes) {
            group.each(*node, &mut of_rows);
            *log += dot(&tilt(), node) + of_rows.iter().sum::<f64>();
        }
        let off = difference(&found, &expected);
        assert!(off < MOST_DIFFERENCE, "{about:?}: {off}");
    }
}

#[test]
fn all_that_is_added_is_the_tilt_and_each_row() {
    check_what_is_added::<1>();
    check_what_is_added::<2>();
    check_what_is_added::<3>();
}

#[test]
fn the_rule_integrates_polynomials_in_three_dimensions() {
    let rule = Rule::<3>::new();
    let mean = |of: &dyn Fn(&[f64; 3]) -> f64| -> f64 {
        let nodes = rule.nodes.iter().zip(&rule.logs);
        nodes.map(|(node, log)| log.exp() * of(node)).sum()
    };
    assert!((mean(&|_| 1.0) - 1.0).abs() < 1e-12);
    assert!((mean(&|u| u[0].powi(2) * u[1].powi(4) * u[2].powi(6)) - 45.0).abs() < 1e-9);
    assert!(mean(&|u| u[0] * u[2].powi(2)).abs() < 1e-12);
}
