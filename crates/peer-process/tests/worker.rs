//! Peers that keep to the protocol, and peers that do not.

use infermark_backend::{
    Backend, BackendError, Interrupt, Method, Precision, Request, Run, RunState, SviSettings,
};
use infermark_harness::parity::check_parity;
use infermark_model::{Likelihood, Parameterization, Priors};
use infermark_peer_process::{PeerError, PeerProcess};
use infermark_test_support::conformance;
use infermark_test_support::conformance::Interrupted::ToTheBit;
use infermark_test_support::panel_with_gaps;
use std::time::{Duration, Instant};

/// Longer than any reply of the plain worker takes, on a busy machine as well.
const PATIENCE: Duration = Duration::from_secs(120);

fn command(fault: &str) -> Vec<String> {
    vec![
        env!("CARGO_BIN_EXE_infermark-plain-worker").to_owned(),
        fault.to_owned(),
    ]
}

fn peer_with(fault: &str, patience: Duration) -> PeerProcess {
    PeerProcess::connect_with("plain", command(fault), patience).unwrap()
}

fn peer(fault: &str) -> PeerProcess {
    peer_with(fault, PATIENCE)
}

fn request() -> Request {
    Request::new(Method::Svi(SviSettings {
        iterations: 200,
        precision: Precision::F64,
        ..SviSettings::default()
    }))
}

conformance!(plain, peer(""), request(), ToTheBit);

fn started(peer: &PeerProcess) -> Box<dyn Run> {
    peer.start(conformance::panel(), &request()).unwrap()
}

/// The error of the first iterations.
fn failure(fault: &str) -> BackendError {
    let mut run = started(&peer(fault));
    let failure = run.advance(10, &Interrupt::new()).unwrap_err();
    conformance::stays_failed(&mut *run, &failure);
    assert!(matches!(run.posterior(), Err(BackendError::NoPosterior(_))));
    failure
}

#[test]
fn a_peer_passes_the_parity_gate_in_double_precision_whatever_it_runs_in() {
    let peer = peer("");
    for settings in [SviSettings::default(), SviSettings::orthogonal()] {
        let request = Request::new(Method::Svi(settings));
        assert_eq!(request.method.precision(), Precision::F32);
        let record = check_parity(&peer, &panel_with_gaps(40), &request, usize::MAX).unwrap();
        assert_eq!(record.precision, Precision::F64);
        assert_eq!(record.compared, "log joint and gradient");
        assert!(record.passed(), "{}", record.failures());
    }
}

#[test]
fn a_wrong_gradient_is_not_let_through() {
    let record = check_parity(&peer("gradient"), &panel_with_gaps(40), &request(), usize::MAX).unwrap();
    assert!(
        !record.passed() && record.failures().contains("gradient"),
        "{record:?}"
    );
}

#[test]
fn what_a_peer_does_not_serve_is_refused_by_name() {
    let peer = peer("");
    let priors = Priors {
        product_a_sd: 1.0,
        ..Priors::default()
    };
    for (request, word) in [
        (Request { priors, ..request() }, "priors"),
        (
            Request {
                likelihood: Likelihood::NegativeBinomial,
                ..request()
            },
            "negative-binomial",
        ),
        (
            Request {
                parameterization: Parameterization::Learned,
                ..request()
            },
            "learned",
        ),
    ] {
        let refused = peer.start(conformance::panel(), &request).err().unwrap();
        assert!(matches!(refused, BackendError::Unsupported { .. }), "{refused}");
        assert!(refused.to_string().contains(word), "{refused}");
    }
}

#[test]
fn a_worker_that_dies_is_told_with_its_status_and_its_last_words() {
    let failure = failure("dies").to_string();
    assert!(failure.contains("plain failed"), "{failure}");
    assert!(
        failure.contains('7') && failure.contains("out of luck"),
        "{failure}"
    );
    let silent = self::failure("closes").to_string();
    assert!(silent.contains("ended with"), "{silent}");
}

#[test]
fn a_worker_that_hangs_is_given_up_and_ended() {
    let peer = peer_with("hangs", Duration::from_secs(3));
    let clock = Instant::now();
    let mut run = started(&peer);
    let failure = run.advance(10, &Interrupt::new()).unwrap_err().to_string();
    assert!(failure.contains("no reply for 3 s"), "{failure}");
    assert_eq!(run.progress().state, RunState::Failed);
    assert!(clock.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_worker_that_reads_nothing_holds_nobody_up() {
    let refused = PeerProcess::connect_with("deaf", command("deaf"), Duration::from_millis(300)).err();
    assert!(
        matches!(&refused, Some(PeerError::Failed(how)) if how.contains("no reply")),
        "{refused:?}"
    );
}

#[test]
fn garbage_is_quoted() {
    let failure = failure("garbage").to_string();
    assert!(
        failure.contains("no reply") && failure.contains("core dumped"),
        "{failure}"
    );
    let short = self::failure("short").to_string();
    assert!(short.contains("0 losses of 1 iterations"), "{short}");
}

#[test]
fn a_line_without_end_is_cut_off() {
    let failure = failure("endless").to_string();
    assert!(failure.contains("a line of more than"), "{failure}");
}

#[test]
fn what_a_worker_writes_to_standard_error_holds_nobody_up() {
    let mut run = started(&peer("floods"));
    let progress = run.advance(3, &Interrupt::new()).unwrap();
    assert_eq!(progress.completed, 3);
    assert!(run.posterior().is_ok());
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run() {
    let mut run = started(&peer("nan"));
    let failure = run.advance(100, &Interrupt::new()).unwrap_err();
    assert!(
        matches!(failure, BackendError::Diverged { step: 5.., .. }),
        "{failure}"
    );
    conformance::stays_failed(&mut *run, &failure);
    assert!(matches!(run.posterior(), Err(BackendError::NoPosterior(_))));
}

#[test]
fn what_is_not_installed_is_told_apart_from_what_is_broken() {
    let connect = |command| PeerProcess::connect_with("peer", command, PATIENCE).err();
    let none = connect(vec!["/nowhere/worker".to_owned()]);
    assert!(
        matches!(&none, Some(PeerError::Unavailable(what)) if what.contains("/nowhere/worker")),
        "{none:?}"
    );
    assert!(matches!(connect(Vec::new()), Some(PeerError::Unavailable(_))));
    let module = connect(command("missing"));
    assert!(
        matches!(&module, Some(PeerError::Unavailable(what)) if what.contains("numpyro")),
        "{module:?}"
    );
    let version = connect(command("protocol"));
    assert!(
        matches!(&version, Some(PeerError::Failed(how)) if how.contains("version 2") && how.contains("version 1")),
        "{version:?}"
    );
}

/// A worker behind a shell, as scripts start them: both end with the run.
#[cfg(target_os = "linux")]
#[test]
fn what_a_worker_started_ends_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("worker.sh");
    let worker = env!("CARGO_BIN_EXE_infermark-plain-worker");
    // Neither the sleep nor the worker is what was started itself.
    std::fs::write(
        &script,
        format!("sleep 3600 </dev/null >/dev/null 2>&1 &\necho $! >\"$0.pid\"\n'{worker}'\n"),
    )
    .unwrap();
    let command = vec!["sh".to_owned(), script.to_string_lossy().into_owned()];
    let peer = PeerProcess::connect_with("shell", command, PATIENCE).unwrap();
    let mut run = started(&peer);
    run.advance(2, &Interrupt::new()).unwrap();
    let pid = std::fs::read_to_string(folder.path().join("worker.sh.pid")).unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    let is_alive = || std::fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(is_alive());
    drop(run);
    let clock = Instant::now();
    while is_alive() {
        assert!(clock.elapsed() < Duration::from_secs(10), "it is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}
