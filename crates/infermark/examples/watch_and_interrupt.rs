//! Watches a run, stops it from another thread, reads the posterior at that point, and goes on to the end as
//! if nothing had happened.

use infermark::prelude::*;
use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let generator = Generator {
        process: Process::Published,
        likelihood: Likelihood::Poisson,
        products: 40,
        periods: 52,
        categories: 2,
        seed: 3,
    };
    let (panel, _) = generate_panel(&generator, 0)?;
    let panel = Arc::new(panel);
    let request = Request::new(Method::Svi(SviSettings::orthogonal().falling_over(3_000)));
    let mut run = registry().choose(&request)?.start(panel, &request)?;

    // A program would set it on Ctrl-C.
    let interrupt = Interrupt::new();
    let stop = interrupt.clone();
    let user = thread::spawn(move || {
        thread::sleep(Duration::from_millis(150));
        stop.set();
    });
    watch(&mut *run, &interrupt)?;
    user.join().map_err(|_| "the other thread panicked")?;

    // There is a report in every state and, with this method, a posterior.
    let so_far = run.posterior()?;
    println!(
        "global elasticity: {:.2}, {} warnings",
        so_far.site_mean(Site::GlobalA)[0],
        run.report().warnings.len()
    );

    // With another interrupt, which nobody sets, the run goes on from where it stopped.
    watch(&mut *run, &Interrupt::new())?;
    assert!(run.progress().state.is_complete());
    println!(
        "global elasticity: {:.2}",
        run.posterior()?.site_mean(Site::GlobalA)[0]
    );
    Ok(())
}

/// Advances a run until it ends or is interrupted, printing a line per piece of about a tenth of a second.
fn watch(run: &mut dyn Run, interrupt: &Interrupt) -> Result<(), Box<dyn Error>> {
    let mut pacer = StepPacer::of(run, Duration::from_millis(100));
    loop {
        let clock = Instant::now();
        let progress = run.advance(pacer.steps(), interrupt)?;
        pacer.took(clock.elapsed());
        println!(
            "{} of {}: {:?}, {}",
            progress.completed, progress.total, progress.state, progress.note
        );
        if progress.state != RunState::Running {
            return Ok(());
        }
    }
}

#[test]
fn it_runs() {
    main().unwrap();
}
