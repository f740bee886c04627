//! The diagnostics where theory says what they must be.

use infermark_diagnostics::{StreamingChain, StreamingSummary, Workspace, diagnose, quantile};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;

/// Stationary first-order autoregression with unit variance.
fn autoregression(rng: &mut StdRng, phi: f64, draws: usize) -> Vec<f64> {
    let innovation = (1.0 - phi * phi).sqrt();
    let mut x: f64 = rng.sample(StandardNormal);
    (0..draws)
        .map(|_| {
            let noise: f64 = rng.sample(StandardNormal);
            x = phi * x + innovation * noise;
            x
        })
        .collect()
}

fn stream(chains: &[Vec<f64>]) -> StreamingSummary {
    let streams: Vec<StreamingChain> = chains
        .iter()
        .map(|c| {
            let mut stream = StreamingChain::new(1);
            c.iter().for_each(|x| stream.push(&[*x]));
            stream
        })
        .collect();
    StreamingSummary::of(&streams.iter().collect::<Vec<_>>(), 0)
}

#[test]
fn autoregressions_have_their_known_effective_size() {
    let mut rng = StdRng::seed_from_u64(3);
    for phi in [0.0, 0.5, 0.9, -0.4] {
        let chains: Vec<Vec<f64>> = (0..4).map(|_| autoregression(&mut rng, phi, 20_000)).collect();
        let views: Vec<&[f64]> = chains.iter().map(Vec::as_slice).collect();
        // The mean of an AR(1) has the variance of n (1 - phi) / (1 + phi) independent draws.
        let expected = 80_000.0 * (1.0 - phi) / (1.0 + phi);
        let exact = diagnose(&views);
        // The estimator's own relative error at this length, about sqrt(4 * lags / n), is below 4%: three of them.
        assert!(
            (exact.ess_bulk / expected - 1.0).abs() < 0.12,
            "{phi}: {} of {expected}",
            exact.ess_bulk
        );
        let mcse = exact.sd / expected.sqrt();
        assert!((exact.mcse_mean / mcse - 1.0).abs() < 0.06, "{phi}");
        assert!(exact.mean.abs() < 5.0 * mcse);
        // sqrt(1 + 1 / (effective draws of a half chain)) at the least, and at the most twice that excess.
        assert!(exact.rhat < 1.0 + 40.0 / expected, "{phi}: {}", exact.rhat);

        // 64 to 128 batch means in all: a relative error of at most sqrt(2 / 63), three of them.
        let streamed = stream(&chains);
        assert!(
            (streamed.ess / expected).ln().abs() < 0.54,
            "{phi}: {}",
            streamed.ess
        );
        assert!((streamed.mean - exact.mean).abs() < 1e-6);
        assert!((streamed.sd / exact.sd - 1.0).abs() < 1e-5);
        assert!((streamed.rhat - 1.0).abs() < 40.0 / expected);
    }
}

#[test]
fn chains_that_disagree_are_seen() {
    let mut rng = StdRng::seed_from_u64(4);
    let mut chains: Vec<Vec<f64>> = (0..4).map(|_| autoregression(&mut rng, 0.2, 1000)).collect();
    chains[2].iter_mut().for_each(|x| *x += 3.0);
    let views: Vec<&[f64]> = chains.iter().map(Vec::as_slice).collect();
    let exact = diagnose(&views);
    assert!(exact.rhat > 1.3 && exact.ess_bulk < 20.0, "{exact:?}");
    let streamed = stream(&chains);
    assert!(streamed.rhat > 1.3, "{streamed:?}");
    assert!(streamed.ess < 200.0, "{streamed:?}");

    // Equal locations, different scales: only the folded half of R-hat sees it.
    let mut chains: Vec<Vec<f64>> = (0..4).map(|_| autoregression(&mut rng, 0.0, 1000)).collect();
    chains[1].iter_mut().for_each(|x| *x *= 5.0);
    let views: Vec<&[f64]> = chains.iter().map(Vec::as_slice).collect();
    assert!(diagnose(&views).rhat > 1.1);
}

#[test]
fn constant_chains() {
    let constant = diagnose(&[&[2.5; 50], &[2.5; 50]]);
    assert_eq!((constant.mean, constant.sd, constant.mcse_mean), (2.5, 0.0, 0.0));
    assert_eq!((constant.ess_bulk, constant.ess_tail), (100.0, 100.0));
    assert!(constant.rhat.is_nan());
    let streamed = stream(&[vec![2.5; 100], vec![2.5; 100]]);
    assert_eq!((streamed.mean, streamed.sd, streamed.ess), (2.5, 0.0, 200.0));
    // Each chain stuck at its own value: no variance within, all of it between.
    let stuck = diagnose(&[&[0.0; 50], &[1.0; 50]]);
    assert!(stuck.rhat > 1e3, "{}", stuck.rhat);
}

#[test]
fn what_cannot_be_told_is_nan() {
    let nan = diagnose(&[&[1.0, f64::NAN, 2.0, 3.0, 4.0], &[1.0; 5]]);
    for figure in [
        nan.mean,
        nan.sd,
        nan.rhat,
        nan.ess_bulk,
        nan.ess_tail,
        nan.mcse_mean,
    ] {
        assert!(figure.is_nan());
    }
    let short = diagnose(&[&[1.0, 2.0, 3.0], &[2.0, 3.0, 4.0]]);
    assert_eq!(short.mean, 2.5);
    assert!(short.sd > 0.0 && short.rhat.is_nan() && short.ess_bulk.is_nan() && short.mcse_mean.is_nan());
    assert!(diagnose(&[&[], &[]]).mean.is_nan());
    let one_chain = diagnose(&[&[1.0, 3.0, 2.0, 5.0, 4.0, 0.0]]);
    assert!(one_chain.rhat.is_nan() && one_chain.ess_bulk > 0.0);
    let few = stream(&[vec![1.0, 2.0, 3.0], vec![2.0, 1.0, 0.0]]);
    assert!(few.mean == 1.5 && few.rhat.is_nan() && few.ess.is_nan() && few.mcse_mean.is_nan());
    assert!(StreamingSummary::of(&[&StreamingChain::new(2)], 1).mean.is_nan());
}

#[test]
fn a_workspace_forgets_the_quantity_before() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut workspace = Workspace::new();
    for (chains, draws) in [(4, 400), (1, 31), (2, 4), (3, 700), (2, 2)] {
        let chains: Vec<Vec<f64>> = (0..chains)
            .map(|_| autoregression(&mut rng, 0.95, draws))
            .collect();
        let views: Vec<&[f64]> = chains.iter().map(Vec::as_slice).collect();
        let (again, fresh) = (workspace.diagnose(&views), diagnose(&views));
        assert_eq!(format!("{again:?}"), format!("{fresh:?}"));
        let mut pooled = chains.concat();
        pooled.sort_by(f64::total_cmp);
        assert_eq!(workspace.sorted(), pooled);
        assert_eq!(quantile(workspace.sorted(), 1.0), pooled[pooled.len() - 1]);
    }
}
