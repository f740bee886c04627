//! The contract of a run, and that its test suite detects violations.

use infermark_backend::{
    Backend, BackendError, Capabilities, Cause, Device, DeviceId, Interrupt, Method, MethodKind, Posterior,
    Precision, Progress, Report, Request, Run, RunState, SviSettings,
};
use infermark_model::objective::Objective;
use infermark_model::optimizer::AdamW;
use infermark_model::{Likelihood, Panel, Parameterization};
use infermark_svi_cpu::SviCpu;
use infermark_test_support::conformance;
use infermark_test_support::conformance::Interrupted::ToTheBit;
use infermark_test_support::iterations::{FORMS, Form, svi_request};
use infermark_test_support::random_panel;
use rand::{SeedableRng, rngs::StdRng};
use std::sync::Arc;

fn request(form: Form, likelihood: Likelihood) -> Request {
    Request {
        likelihood,
        ..svi_request(DeviceId::CPU, form, 3, Objective::Renyi { alpha: 0.0 })
    }
}

conformance!(
    published,
    SviCpu::new(),
    request(FORMS[0], Likelihood::Poisson),
    ToTheBit
);
conformance!(
    learned,
    SviCpu::new(),
    request(FORMS[1], Likelihood::Poisson),
    ToTheBit
);
conformance!(
    orthogonal,
    SviCpu::new(),
    request(Form::ORTHOGONAL, Likelihood::Poisson),
    ToTheBit
);
conformance!(
    negative_binomial,
    SviCpu::new(),
    request(FORMS[0], Likelihood::NegativeBinomial),
    ToTheBit
);
conformance!(
    negative_binomial_in_orthogonal_coordinates,
    SviCpu::new(),
    request(Form::ORTHOGONAL, Likelihood::NegativeBinomial),
    ToTheBit
);

/// A request whose parameters grow a thousandfold at every step: the decay overshoots by that.
fn divergent(precision: Precision, parameterization: Parameterization) -> Request {
    let settings = SviSettings {
        iterations: 1000,
        precision,
        optimizer: AdamW {
            learning_rate: 1e3,
            weight_decay: 1.0,
            ..AdamW::default()
        },
        ..SviSettings::default()
    };
    Request {
        threads: Some(2),
        parameterization,
        ..Request::new(Method::Svi(settings))
    }
}

/// Large enough that threads share it.
fn large_panel() -> Arc<Panel> {
    random_panel(&mut StdRng::seed_from_u64(6), 200, 3, 12, 0.2, 30)
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_before_its_step() {
    for precision in [Precision::F32, Precision::F64] {
        for parameterization in [Parameterization::Centered, Parameterization::Learned] {
            conformance::a_run_that_diverges_stays_readable(
                &SviCpu::new(),
                &large_panel(),
                &divergent(precision, parameterization),
            );
        }
    }
}

/// The fault of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A piece of 41 steps makes one more.
    StepPacer,
    /// The seed depends on the threads.
    Threads,
    /// An interrupted run starts anew.
    Interruption,
    /// A failure is forgotten.
    Failure,
    /// A complete run goes on to change its figures.
    End,
    /// There is a total before, and another one.
    Total,
    /// The method of a request is ignored.
    Refusal,
}

/// svi-cpu with a fault in its runs.
#[derive(Clone, Copy)]
struct Faulty(Fault);

impl Backend for Faulty {
    fn name(&self) -> &'static str {
        "svi-cpu"
    }

    fn method(&self) -> MethodKind {
        MethodKind::Svi
    }

    fn capabilities(&self) -> Capabilities {
        SviCpu::new().capabilities()
    }

    fn devices(&self) -> Vec<Device> {
        SviCpu::new().devices()
    }

    fn supports(&self, request: &Request) -> Result<(), BackendError> {
        match self.0 {
            Fault::Refusal => Ok(()),
            _ => SviCpu::new().supports(request),
        }
    }

    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        SviCpu::new().log_joint(panel, request, point)
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        let mut request = request.clone();
        if self.0 == Fault::Threads {
            request.seed += request.resolved_threads() as u64;
        }
        Ok(Box::new(FaultyRun {
            fault: self.0,
            right: SviCpu::new().start(panel.clone(), &request)?,
            panel,
            request,
            calls_after_the_end: 0,
        }))
    }
}

struct FaultyRun {
    fault: Fault,
    right: Box<dyn Run>,
    panel: Arc<Panel>,
    request: Request,
    calls_after_the_end: usize,
}

impl Run for FaultyRun {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        self.calls_after_the_end += usize::from(self.right.progress().state.is_complete());
        let more = u64::from(self.fault == Fault::StepPacer && steps == 41);
        let progress = self.right.advance(steps.saturating_add(more), interrupt);
        match (self.fault, progress) {
            (Fault::Interruption, Ok(progress)) if progress.state == RunState::Interrupted => {
                let mut request = self.request.clone();
                request.seed += 1;
                self.right = SviCpu::new().start(self.panel.clone(), &request)?;
                self.right.advance(1, interrupt)
            }
            (Fault::Failure, Err(_)) if steps == 0 => Ok(self.right.progress()),
            (_, progress) => progress,
        }
    }

    fn progress(&self) -> Progress {
        let mut progress = self.right.progress();
        if self.fault == Fault::Total && !progress.state.is_complete() {
            progress.total += progress.completed;
        }
        progress
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        self.right.posterior()
    }

    fn report(&self) -> Report {
        let mut report = self.right.report();
        if self.fault == Fault::End {
            report
                .warnings
                .push(Cause::from(format!("{} calls", self.calls_after_the_end)).into());
        }
        report
    }
}

/// Whether a check fails.
fn fails(check: impl FnOnce() + std::panic::UnwindSafe) -> bool {
    std::panic::catch_unwind(check).is_err()
}

#[test]
fn the_suite_notices_each_fault() {
    let request = &request(FORMS[0], Likelihood::Poisson);
    let divergent = &divergent(Precision::F64, Parameterization::Centered);
    assert!(fails(|| conformance::pieces_give_the_bits_of_one_go(
        &Faulty(Fault::StepPacer),
        request
    )));
    assert!(fails(|| conformance::pieces_give_the_bits_of_one_go(
        &Faulty(Fault::Total),
        request
    )));
    assert!(fails(|| conformance::threads_change_no_bit(
        &Faulty(Fault::Threads),
        request
    )));
    assert!(fails(|| conformance::an_interrupted_run_goes_on(
        &Faulty(Fault::Interruption),
        request,
        ToTheBit
    )));
    assert!(fails(|| conformance::an_end_is_an_end(
        &Faulty(Fault::End),
        request
    )));
    assert!(fails(|| conformance::a_run_that_diverges_stays_readable(
        &Faulty(Fault::Failure),
        &large_panel(),
        divergent
    )));
    assert!(fails(|| conformance::what_is_not_served_is_refused_by_name(
        &Faulty(Fault::Refusal),
        request
    )));
}
