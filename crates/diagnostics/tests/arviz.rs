//! The diagnostics against ArviZ's figures on recorded draws.

use infermark_diagnostics::diagnose;

struct Case {
    name: String,
    expected: [f64; 4],
    chains: Vec<Vec<f64>>,
}

fn cases() -> Vec<Case> {
    let text = include_str!("data/arviz.txt");
    let mut lines = text.lines().filter(|l| !l.starts_with('#'));
    let numbers = |line: &str| -> Vec<f64> { line.split(' ').map(|v| v.parse().expect(v)).collect() };
    let mut cases = Vec::new();
    while let Some(head) = lines.next() {
        let words: Vec<&str> = head.split(' ').collect();
        let (chains, draws): (usize, usize) = (words[2].parse().unwrap(), words[3].parse().unwrap());
        let expected = numbers(lines.next().unwrap()).try_into().unwrap();
        let chains: Vec<Vec<f64>> = (0..chains).map(|_| numbers(lines.next().unwrap())).collect();
        assert!(chains.iter().all(|c| c.len() == draws));
        cases.push(Case {
            name: words[1].to_owned(),
            expected,
            chains,
        });
    }
    cases
}

#[test]
fn every_figure_equals_arviz() {
    let cases = cases();
    assert!(cases.len() >= 16);
    for case in cases {
        let chains: Vec<&[f64]> = case.chains.iter().map(Vec::as_slice).collect();
        let d = diagnose(&chains);
        for (what, ours, theirs) in [
            ("rhat", d.rhat, case.expected[0]),
            ("ess_bulk", d.ess_bulk, case.expected[1]),
            ("ess_tail", d.ess_tail, case.expected[2]),
            ("mcse_mean", d.mcse_mean, case.expected[3]),
        ] {
            // Both are in double precision and sum in different orders; a case centred at 1e6 with sd 1e-3 leaves
            // 1e-7 of the deviations' digits, and the ESS is a ratio of their sums.
            let tolerance = if case.name.starts_with("offset") {
                1e-6
            } else {
                1e-10
            };
            assert!(
                (ours - theirs).abs() <= tolerance * theirs.abs() || (ours.is_nan() && theirs.is_nan()),
                "{} {what}: {ours}, ArviZ {theirs}",
                case.name
            );
        }
    }
}
