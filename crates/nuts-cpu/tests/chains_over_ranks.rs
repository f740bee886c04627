//! Chains spread over ranks have the draws of one process, to the bit.

use infermark_backend::{
    Backend, BackendError, Detail, Interrupt, Method, NutsReport, NutsSettings, Request, Run, RunState,
};
use infermark_communicator::{Communicator, threads};
use infermark_model::{Panel, Site};
use infermark_nuts_cpu::NutsCpu;
use infermark_test_support::random_panel;
use rand::{SeedableRng, rngs::StdRng};
use std::sync::Arc;

fn panel() -> Arc<Panel> {
    random_panel(&mut StdRng::seed_from_u64(8), 12, 2, 9, 0.1, 30)
}

fn request(settings: &NutsSettings) -> Request {
    Request {
        threads: Some(2),
        seed: 3,
        ..Request::new(Method::Nuts(settings.clone()))
    }
}

/// Structured and diagonal metric; every draw kept, and only moments but for a site.
fn all_settings() -> [NutsSettings; 3] {
    let structured = NutsSettings {
        warmup: 60,
        draws: 50,
        chains: 5,
        ..NutsSettings::default()
    };
    [
        structured.clone(),
        NutsSettings {
            draw_bytes_limit: 0,
            sites_beyond_limit: vec![Site::CategoryA],
            ..structured
        },
        NutsSettings {
            warmup: 100,
            draws: 40,
            chains: 4,
            ..NutsSettings::diagonal()
        },
    ]
}

/// All results but times.
fn readings(run: &dyn Run) -> String {
    let Detail::Nuts(mut report) = run.report().detail else {
        panic!("a report of NUTS")
    };
    without_times(&mut report);
    format!(
        "{:?}\n{:?}\n{:?}\n{:?}",
        run.posterior(),
        run.draws(),
        report,
        run.progress()
    )
}

fn without_times(report: &mut NutsReport) {
    report.gradients_per_second = 0.0;
    if let Some(search) = &mut report.mode_search {
        search.seconds = 0.0;
    }
    for chain in &mut report.chains {
        (chain.warmup_seconds, chain.seconds) = (0.0, 0.0);
    }
}

/// The readings of every rank after pieces of `piece` steps.
fn on_ranks(request: &Request, size: usize, piece: u64) -> Vec<String> {
    let panel = panel();
    std::thread::scope(|scope| {
        let started: Vec<_> = threads(size)
            .into_iter()
            .map(|rank| {
                let panel = panel.clone();
                scope.spawn(move || {
                    let mut run = NutsCpu.start_on_rank(panel, request, Box::new(rank)).unwrap();
                    while !run.advance(piece, &Interrupt::new()).unwrap().state.is_complete() {}
                    readings(&*run)
                })
            })
            .collect();
        started.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn every_rank_has_the_draws_of_one_process_to_the_bit() {
    for settings in all_settings() {
        let request = request(&settings);
        let mut whole = NutsCpu.start(panel(), &request).unwrap();
        while !whole
            .advance(u64::MAX, &Interrupt::new())
            .unwrap()
            .state
            .is_complete()
        {}
        let expected = readings(&*whole);
        for size in 2..=4 {
            for (rank, found) in on_ranks(&request, size, 37).into_iter().enumerate() {
                assert!(found == expected, "rank {rank} of {size}, {:?}", settings.metric);
            }
        }
    }
}

#[test]
fn an_interrupt_of_a_rank_is_that_of_all_and_the_run_goes_on() {
    let [settings, ..] = all_settings();
    let request = request(&settings);
    let panel = panel();
    let found: Vec<String> = std::thread::scope(|scope| {
        let started: Vec<_> = threads(2)
            .into_iter()
            .map(|rank| {
                let (panel, request) = (panel.clone(), &request);
                scope.spawn(move || {
                    let asked = Interrupt::new();
                    if rank.rank() == 1 {
                        asked.set();
                    }
                    let mut run = NutsCpu.start_on_rank(panel, request, Box::new(rank)).unwrap();
                    let state = run.advance(40, &asked).unwrap().state;
                    assert_eq!(state, RunState::Interrupted);
                    while !run.advance(50, &Interrupt::new()).unwrap().state.is_complete() {}
                    readings(&*run)
                })
            })
            .collect();
        started.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    let mut whole = NutsCpu.start(panel.clone(), &request).unwrap();
    while !whole
        .advance(u64::MAX, &Interrupt::new())
        .unwrap()
        .state
        .is_complete()
    {}
    assert!(found.iter().all(|found| *found == readings(&*whole)));
}

#[test]
fn a_rank_that_leaves_ends_the_others() {
    let [settings, ..] = all_settings();
    let request = request(&settings);
    let mut ranks = threads(3);
    let gone = ranks.pop();
    let ends: Vec<BackendError> = std::thread::scope(|scope| {
        let started: Vec<_> = ranks
            .into_iter()
            .map(|rank| {
                let request = &request;
                scope.spawn(move || {
                    let mut run = NutsCpu.start_on_rank(panel(), request, Box::new(rank)).unwrap();
                    let failure = run.advance(10, &Interrupt::new()).unwrap_err();
                    assert_eq!(run.advance(10, &Interrupt::new()), Err(failure.clone()));
                    assert_eq!(run.progress().state, RunState::Failed);
                    failure
                })
            })
            .collect();
        drop(gone);
        started.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    for end in ends {
        assert!(matches!(end, BackendError::Communication(_)), "{end:?}");
    }
}
