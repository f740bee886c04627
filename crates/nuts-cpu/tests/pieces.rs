//! Runs in pieces, interrupted, with odd numbers of chains and threads, and with bounded memory.

use infermark_backend::{
    Backend, BackendError, Detail, Draws, Interrupt, Method, Metric, NutsSettings, Request, Run, RunState,
    StepPacer,
};
use infermark_model::{Labels, Likelihood, Panel, PanelPart, Parameterization, Site};
use infermark_nuts_cpu::NutsCpu;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A panel of `n` products in `c` categories over `t` periods, with gaps when there is more than one period.
fn panel(n: usize, c: usize, t: usize, units: impl Fn(usize, usize) -> u32) -> Arc<Panel> {
    let mut part = PanelPart::new(c, t);
    for i in 0..n {
        let periods: Vec<u32> = (0..t as u32)
            .filter(|p| t == 1 || !(*p as usize + i).is_multiple_of(5))
            .collect();
        let prices: Vec<f64> = periods
            .iter()
            .map(|p| 1.5 + 0.1 * ((*p as usize * 7 + i * 3) % 11) as f64)
            .collect();
        let units: Vec<u32> = periods.iter().map(|p| units(i, *p as usize)).collect();
        part.push_product(i % c, Some(&periods), &prices, &units).unwrap();
    }
    let panel = Panel::from_parts(
        Labels::numbered("p", n),
        Labels::numbered("c", c),
        Labels::numbered("t", t),
        vec![part],
    );
    Arc::new(panel.unwrap())
}

fn small_panel() -> Arc<Panel> {
    panel(6, 2, 4, |i, t| ((i * 5 + t * 3) % 9) as u32)
}

fn request(chains: usize, threads: usize, warmup: u64, draws: u64) -> Request {
    let mut request = Request::new(Method::Nuts(NutsSettings {
        chains,
        warmup,
        draws,
        ..NutsSettings::diagonal()
    }));
    request.threads = Some(threads);
    request.seed = 11;
    request
}

/// The request under either metric.
fn either_metric(request: &Request) -> [Request; 2] {
    [Metric::Diagonal, Metric::Structured].map(|metric| {
        let mut request = request.clone();
        let Method::Nuts(settings) = &mut request.method else {
            panic!("not NUTS")
        };
        settings.metric = metric;
        request
    })
}

fn start(panel: &Arc<Panel>, request: &Request) -> Box<dyn Run> {
    NutsCpu.start(panel.clone(), request).unwrap()
}

fn all_draws(panel: &Arc<Panel>, request: &Request) -> Draws {
    let mut run = start(panel, request);
    assert_eq!(
        run.advance(u64::MAX, &Interrupt::new()).unwrap().state,
        RunState::Finished
    );
    run.draws().unwrap()
}

#[test]
fn the_same_seed_gives_the_same_draws_and_another_does_not() {
    let panel = small_panel();
    for mut request in either_metric(&request(3, 2, 60, 40)) {
        let first = all_draws(&panel, &request);
        assert_eq!(first, all_draws(&panel, &request));
        request.seed = 12;
        assert_ne!(first.sites, all_draws(&panel, &request).sites);
        // Chains differ from each other.
        let values = &first.sites[0].values;
        assert!(values[..40].iter().zip(&values[40..80]).all(|(a, b)| a != b));
    }
}

#[test]
fn a_posterior_is_there_once_every_chain_has_a_draw() {
    let panel = small_panel();
    for request in either_metric(&request(3, 2, 30, 25)) {
        let mut run = start(&panel, &request);
        for _ in 0..165 {
            let progress = run.advance(1, &Interrupt::new()).unwrap();
            assert_eq!(progress.total, 165);
            if progress.completed < 31 * 3 {
                assert!(matches!(run.posterior(), Err(BackendError::NoPosterior(_))));
            } else {
                let posterior = run.posterior().unwrap();
                assert!(posterior.mean.iter().all(|m| m.is_finite()));
            }
            let unfinished = run
                .report()
                .warnings
                .iter()
                .any(|w| w.to_string().contains("unfinished"));
            assert_eq!(unfinished, progress.completed < 165);
        }
    }
}

#[test]
fn chains_work_side_by_side_in_pieces() {
    // Slow enough that a draw is long compared with passing the scheduler.
    let panel = panel(3000, 3, 20, |i, t| ((i * 5 + t * 3) % 30) as u32);
    let mut request = request(2, 2, 60, 40);
    let Method::Nuts(settings) = &mut request.method else {
        panic!("not NUTS")
    };
    // Trees so short that all are full: the chains' draws cost the same.
    settings.max_depth = 4;
    // Run one after the other, chains are never busy for longer than the wall-clock time. Run side by side,
    // they may not exceed it either while the machine is crowded, but not every time.
    let busy_over_wall: Vec<f64> = (0..3).map(|_| busy_over_wall(&panel, &request)).collect();
    assert!(busy_over_wall.iter().any(|r| *r > 1.3), "{busy_over_wall:?}");
}

/// Total busy seconds of all chains, divided by wall-clock seconds, for a run advanced as `infermark fit`
/// does.
fn busy_over_wall(panel: &Arc<Panel>, request: &Request) -> f64 {
    let mut run = start(panel, request);
    let mut pacer = StepPacer::of(&*run, Duration::from_millis(200));
    let clock = Instant::now();
    loop {
        let piece = Instant::now();
        let progress = run.advance(pacer.steps(), &Interrupt::new()).unwrap();
        pacer.took(piece.elapsed());
        assert_eq!(progress.completed % 2, 0, "as many draws in each chain");
        if progress.state.is_complete() {
            break;
        }
    }
    let wall = clock.elapsed().as_secs_f64();
    let Detail::Nuts(nuts) = run.report().detail else {
        panic!("not NUTS")
    };
    assert_eq!(run.gradients(), Some(nuts.gradients));
    let busy: f64 = nuts.chains.iter().map(|c| c.warmup_seconds + c.seconds).sum();
    busy / wall
}

#[test]
fn an_interrupted_run_goes_on_as_if_it_had_not_been() {
    // Large enough that interrupts fall into the middle of draws.
    let panel = panel(400, 3, 20, |i, t| ((i * 5 + t * 3) % 30) as u32);
    let [diagonal, _] = either_metric(&request(2, 2, 40, 10));
    // Short trees: the same work takes more draws.
    let [_, structured] = either_metric(&request(2, 2, 60, 400));
    for request in [diagonal, structured] {
        let whole = all_draws(&panel, &request);
        let mut run = start(&panel, &request);
        let mut interrupted = 0;
        loop {
            let interrupt = Interrupt::new();
            let state = std::thread::scope(|scope| {
                let flag = interrupt.clone();
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(15));
                    flag.set();
                });
                run.advance(u64::MAX, &interrupt).unwrap().state
            });
            let progress = run.progress();
            assert_eq!(progress.state, state);
            let Detail::Nuts(nuts) = run.report().detail else {
                panic!("not NUTS")
            };
            let counted: u64 = nuts.chains.iter().map(|c| c.warmup_draws + c.draws).sum();
            assert_eq!(counted, progress.completed);
            match state {
                RunState::Interrupted => interrupted += 1,
                RunState::Finished => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(interrupted >= 3, "interrupted {interrupted} times");
        assert_eq!(run.draws().unwrap(), whole);

        // With a flag that is already set nothing happens, and the run can be dropped in the middle of a
        // draw.
        let mut run = start(&panel, &request);
        let set = Interrupt::new();
        set.set();
        let progress = run.advance(10, &set).unwrap();
        assert_eq!((progress.completed, progress.state), (0, RunState::Interrupted));
    }
}

#[test]
fn odd_panels_chains_and_threads_run_through() {
    for (panel, name) in [
        (panel(1, 1, 1, |_, _| 3), "one product, one period"),
        (panel(1, 1, 8, |_, t| t as u32), "one product"),
        (panel(5, 1, 1, |i, _| i as u32), "one period"),
        (panel(4, 2, 6, |_, _| 0), "all zeros"),
    ] {
        for (chains, threads) in [(1, 1), (1, 3), (3, 2), (2, 5), (5, 1)] {
            for request in either_metric(&request(chains, threads, 60, 20)) {
                let mut run = start(&panel, &request);
                let progress = run.advance(u64::MAX, &Interrupt::new()).unwrap();
                assert_eq!(progress.state, RunState::Finished, "{name} {chains} {threads}");
                let posterior = run.posterior().unwrap();
                assert!(posterior.sd.iter().all(|s| *s > 0.0 && s.is_finite()), "{name}");
                let report = run.report();
                assert_eq!(
                    report
                        .warnings
                        .iter()
                        .any(|w| w.to_string().contains("one chain")),
                    chains == 1
                );
                let Detail::Nuts(nuts) = &report.detail else {
                    panic!("not NUTS")
                };
                assert_eq!(nuts.chains.len(), chains);
                let Method::Nuts(settings) = &request.method else {
                    panic!("not NUTS")
                };
                assert_eq!(nuts.metric, settings.metric);
                match nuts.mode_search {
                    Some(search) => {
                        assert!(search.newton_steps > 0 && search.seconds <= report.setup_seconds)
                    }
                    None => assert_eq!(nuts.metric, Metric::Diagonal),
                }
                assert_eq!(nuts.tree_depths.iter().sum::<u64>(), 20 * chains as u64);
                for chain in &nuts.chains {
                    assert_eq!((chain.warmup_draws, chain.draws), (60, 20));
                    assert!(chain.gradients >= 20 && chain.warmup_gradients >= 60);
                    assert!(chain.step_size > 0.0 && chain.seconds > 0.0 && chain.warmup_seconds > 0.0);
                }
                let sum: u64 = nuts.chains.iter().map(|c| c.gradients + c.warmup_gradients).sum();
                assert_eq!(nuts.gradients, sum);
                let steps: u64 = run
                    .draws()
                    .unwrap()
                    .statistics
                    .iter()
                    .map(|s| u64::from(s.leapfrog_steps))
                    .sum();
                // If products of few sales are drawn separately, there is also a gradient at the start of
                // each trajectory.
                let gradients: u64 = nuts.chains.iter().map(|c| c.gradients).sum();
                let starts = match nuts.metric {
                    Metric::Diagonal => 0,
                    Metric::Structured => 20 * chains as u64,
                };
                assert!(
                    gradients == steps || gradients == steps + starts,
                    "{name}: {gradients}, {steps} steps"
                );
            }
        }
    }
}

#[test]
fn moments_agree_with_the_draws_that_they_stand_for() {
    let panel = small_panel();
    let every = request(4, 2, 300, 1000);
    let mut bounded = every.clone();
    let Method::Nuts(settings) = &mut bounded.method else {
        panic!("not NUTS")
    };
    settings.draw_bytes_limit = 1000;
    settings.sites_beyond_limit = vec![Site::CategoryA, Site::GlobalA, Site::CategoryA];
    let mut runs = [start(&panel, &every), start(&panel, &bounded)];
    for run in &mut runs {
        run.advance(u64::MAX, &Interrupt::new()).unwrap();
    }
    let [every, bounded] = runs;
    let (full, part) = (every.posterior().unwrap(), bounded.posterior().unwrap());
    let (full_d, part_d) = (
        full.diagnostics.as_ref().unwrap(),
        part.diagnostics.as_ref().unwrap(),
    );
    let layout = panel.layout();
    for site in Site::REPARAMETERIZED {
        let kept = matches!(site, Site::GlobalA | Site::CategoryA);
        for j in layout.range(site) {
            // Deviations are stored in single precision.
            assert!((full.mean[j] - part.mean[j]).abs() < 1e-5 * full.sd[j]);
            assert!((full.sd[j] / part.sd[j] - 1.0).abs() < 1e-5);
            if kept {
                assert_eq!(full.q975[j], part.q975[j]);
                assert_eq!(
                    (full_d.rhat[j], full_d.ess_tail[j]),
                    (part_d.rhat[j], part_d.ess_tail[j])
                );
            } else {
                // The marginals are close to normal; a 2.5% quantile from 1,000 effective draws has an error
                // of 0.07 sd.
                assert!((full.q975[j] - part.q975[j]).abs() < 0.35 * full.sd[j]);
                // Both estimate the same, one with, one without ranks.
                assert!((full_d.rhat[j] - part_d.rhat[j]).abs() < 0.02);
                // 120 batch means: 13% relative error; three of those, plus the exact estimate's own.
                assert!(
                    (full_d.mcse_mean[j] / part_d.mcse_mean[j]).ln().abs() < 0.4,
                    "{site:?}"
                );
                assert!(part_d.ess_tail[j].is_nan());
            }
        }
    }
    let kept = bounded.draws().unwrap();
    let sites: Vec<Site> = kept.sites.iter().map(|s| s.site).collect();
    assert_eq!(sites, [Site::GlobalA, Site::CategoryA]);
    assert_eq!(kept.sites[1], every.draws().unwrap().sites[1]);
    assert_eq!(kept.statistics, every.draws().unwrap().statistics);
    let report = bounded.report();
    assert!(
        report
            .warnings
            .iter()
            .any(|w| w.to_string().contains("quantiles are those of a normal"))
    );
    let Detail::Nuts(nuts) = report.detail else {
        panic!("not NUTS")
    };
    assert!(!nuts.every_draw_kept);
}

#[test]
fn trouble_is_told_in_the_warnings() {
    let panel = small_panel();
    let mut request = request(2, 2, 5, 30);
    let Method::Nuts(settings) = &mut request.method else {
        panic!("not NUTS")
    };
    settings.max_depth = 1;
    let mut run = start(&panel, &request);
    run.advance(u64::MAX, &Interrupt::new()).unwrap();
    let report = run.report();
    let Detail::Nuts(nuts) = &report.detail else {
        panic!("not NUTS")
    };
    assert!(nuts.saturated_trees > 0 && nuts.max_rhat.unwrap() > 1.01);
    for word in [
        "limit of 1 steps (maximum depth 1)",
        "R-hat is above",
        "bulk effective",
        "warm-up of 5",
    ] {
        assert!(
            report.warnings.iter().any(|w| w.to_string().contains(word)),
            "{word}: {:#?}",
            report.warnings
        );
    }
}

#[test]
fn requests_that_are_not_for_this_backend_are_refused() {
    let panel = small_panel();
    let refusal = |request: &Request| NutsCpu.start(panel.clone(), request).err().unwrap().to_string();
    assert!(refusal(&request(0, 1, 1, 1)).contains("chains"));
    let [_, mut structured] = either_metric(&request(1, 1, 1, 1));
    for parameterization in [Parameterization::Learned, Parameterization::Noncentered] {
        structured.parameterization = parameterization;
        assert!(refusal(&structured).contains("the diagonal metric"));
    }
    let short = NutsCpu
        .log_joint(&panel, &request(1, 1, 1, 1), &[0.0; 3])
        .unwrap_err();
    assert!(short.to_string().contains("3 entries"), "{short}");
}

#[test]
fn the_log_joint_is_the_references() {
    let panel = small_panel();
    let request = request(1, 2, 1, 1);
    let point: Vec<f64> = (0..panel.layout().latents())
        .map(|j| (j as f64 * 0.9).sin())
        .collect();
    let (value, gradient) = NutsCpu.log_joint(&panel, &request, &point).unwrap();
    let reference = infermark_model::log_joint::LogJoint::new(&panel, request.priors);
    let (expected, by) = reference.natural(&point);
    // Double precision, another order of sums, another exponential.
    assert!((value / expected - 1.0).abs() < 1e-12);
    for (a, b) in gradient.iter().zip(&by) {
        assert!((a - b).abs() < 1e-10 * b.abs().max(1.0), "{a} {b}");
    }
    assert_eq!(NutsCpu.devices().len(), 1);
}

#[test]
fn negative_binomial_chains_keep_the_shapes() {
    let panel = small_panel();
    let request = Request {
        likelihood: Likelihood::NegativeBinomial,
        ..request(2, 3, 30, 5)
    };
    let layout = panel.layout_for(request.likelihood);
    let point: Vec<f64> = (0..layout.latents()).map(|j| (j as f64 * 0.9).sin()).collect();
    let (value, gradient) = NutsCpu.log_joint(&panel, &request, &point).unwrap();
    let reference = infermark_model::log_joint::LogJoint::new(&panel, request.priors);
    let (expected, by) = reference.with_likelihood(request.likelihood).natural(&point);
    // As with Poisson counts, but the parts of a row's term are summed separately.
    assert!((value / expected - 1.0).abs() < 1e-11);
    for (a, b) in gradient.iter().zip(&by) {
        assert!((a - b).abs() < 1e-9 * b.abs().max(1.0), "{a} {b}");
    }
    let mut run = NutsCpu.start(panel.clone(), &request).unwrap();
    while !run.advance(100, &Interrupt::new()).unwrap().state.is_complete() {}
    let posterior = run.posterior().unwrap();
    assert_eq!(posterior.layout, layout);
    let shapes = layout.range(Site::LogShape);
    assert_eq!(shapes.len(), layout.categories);
    assert!(posterior.sd[shapes].iter().all(|sd| *sd > 0.0));
    let draws = run.draws().unwrap();
    let of_shapes = draws.sites.last().unwrap();
    assert_eq!(of_shapes.site, Site::LogShape);
    let kept = layout.categories * draws.chains * draws.draws;
    assert_eq!(of_shapes.values.len(), kept);
}
