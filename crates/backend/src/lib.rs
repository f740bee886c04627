//! Inference backends: ways of computing the posterior, each on some hardware, behind one trait.
//!
//! A [`Backend`] takes a panel and a [`Request`] and starts a [`Run`]. The caller advances a run in pieces
//! and reads its [`Progress`] in between. A run can be left after any piece, has a [`Report`] at every
//! moment, and a [`Posterior`] as soon as there is one (for a sampler, after its warm-up). The same five
//! types serve samplers and optimizers, one device and many. A backend declares what it serves
//! ([`Capabilities`]), and a [`Registry`] of backends chooses among them.

mod capabilities;
mod checkpoint;
mod convergence;
mod device;
mod draws;
mod error;
mod gaussian_pass;
mod interrupt;
mod limits;
mod method_kind;
mod metric;
mod posterior;
mod precision;
mod progress;
mod ranks;
mod registry;
mod remedy;
mod report;
mod request;
mod step_pacer;
mod warning;

use infermark_communicator::World;
use infermark_model::Panel;
use infermark_model::dispersion::Dispersion;
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::LossAndGradient;
use std::sync::Arc;

pub use capabilities::Capabilities;
pub use checkpoint::{Checkpoint, StateFormat};
pub use convergence::{Convergence, ESS_LIMIT, RHAT_LIMIT, chains_have_converged};
pub use device::{Device, DeviceId, DeviceKind, UnknownDevice};
pub use draws::{DrawStatistics, Draws, SiteDraws};
pub use error::BackendError;
pub use gaussian_pass::{GaussianPass, GaussianPoint};
pub use interrupt::Interrupt;
pub use limits::Limits;
pub use method_kind::MethodKind;
pub use metric::Metric;
pub use posterior::{ChainDiagnostics, NORMAL_Q95, NORMAL_Q975, Posterior};
pub use precision::Precision;
pub use progress::{Progress, RunState, StepUnit};
pub use ranks::{ConnectedRanks, check_ranks};
pub use registry::Registry;
pub use remedy::{Cause, Choice, Remedy, Setting};
pub use report::{
    ChainReport, CommunicationReport, Detail, GaussianReport, ModeSearchReport, NutsReport, Report,
    StepPoint, SviReport, TracePoint,
};
pub use request::{
    BenchmarkSettings, EarlyStop, LaplaceSettings, MOST_SHARDS, MOST_THREADS, MeanfieldSettings, Method,
    NutsSettings, Request, StructuredViSettings, SviSettings, check_threads, objective_in_words,
};
pub use step_pacer::StepPacer;
pub use warning::{GaussianWarning, NutsWarning, ShapeShiftWarning, SviWarning, Warning};

/// One way of inferring the posterior on one kind of hardware.
///
/// Whatever a program does with backends - choosing one for a request, listing devices, checking parity,
/// measuring - follows from what they declare here: see [`Registry`].
pub trait Backend: Send + Sync {
    /// The name in the command, in result files and in tables, for instance `svi-cpu`.
    fn name(&self) -> &'static str;

    /// The method that it implements.
    fn method(&self) -> MethodKind;

    /// What it serves, whatever the panel and whatever devices are available.
    fn capabilities(&self) -> Capabilities;

    /// The devices on this machine that it can run on; empty when there are none. Never panics, whatever
    /// drivers are missing.
    fn devices(&self) -> Vec<Device>;

    /// Checks, before a panel is read, that it serves `request`. [`Backend::start`] refuses whatever this
    /// refuses, and also what depends on the panel.
    ///
    /// # Errors
    /// [`BackendError::Request`] for a setting out of its range, [`BackendError::Unsupported`] for what is not served.
    fn supports(&self, request: &Request) -> Result<(), BackendError> {
        self.capabilities().check(self.name(), self.method(), request)
    }

    /// Whether it exists only for comparison: it is measured and checked like any other, but never chosen for
    /// a request that does not name it.
    fn is_reference(&self) -> bool {
        false
    }

    /// The settings that it is measured with, in the order of the table.
    fn benchmark_settings(&self) -> Vec<BenchmarkSettings> {
        self.method().benchmark_settings()
    }

    /// The precision that [`Backend::log_joint`] computes in, and whose tolerances parity is held to: by default that of a run. A
    /// program that sums in single precision misses the tolerances of single precision, which ask for sums in double; its formulas are compared in double.
    fn parity_precision(&self, request: &Request) -> Precision {
        request.method.precision()
    }

    /// Log joint and its gradient at natural parameters (length [`infermark_model::Layout::latents`]) under the request's
    /// likelihood, computed by the very code that a run uses, in [`Backend::parity_precision`]: what parity is checked with. The
    /// Gaussian methods, which do not know the clip of the log rate, leave it out.
    ///
    /// # Errors
    /// When the request cannot be served here.
    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError>;

    /// Loss, log-weights and gradient of a guide under the noise of `stream`, by the same code as in a run.
    /// `None` for methods that have no guide.
    ///
    /// # Errors
    /// When the request cannot be served here.
    fn loss_and_gradient(
        &self,
        _panel: &Arc<Panel>,
        _request: &Request,
        _guide: &Guide,
        _stream: Stream,
    ) -> Result<Option<LossAndGradient>, BackendError> {
        Ok(None)
    }

    /// The pass over the rows that a step of a Gaussian method makes, with everything that a run takes from
    /// it, by the same code as in a run. `None` for methods that have no such pass.
    ///
    /// # Errors
    /// When the request cannot be served here, or the precision is not positive definite.
    fn gaussian_pass(
        &self,
        _panel: &Arc<Panel>,
        _request: &Request,
        _at: GaussianPoint<'_>,
    ) -> Result<Option<GaussianPass>, BackendError> {
        Ok(None)
    }

    /// The limits of the request's device, measured now, in about a second; `None` if this backend does not
    /// measure them.
    ///
    /// # Errors
    /// When the device cannot be opened, or fails.
    fn limits(&self, _request: &Request) -> Result<Option<Limits>, BackendError> {
        Ok(None)
    }

    /// The rate of the bare kernel: likelihood and gradient alone, with no noise, no priors and no optimizer,
    /// measured now, in about a second. Row-particles per second on `panel` in the request's precision,
    /// particles and threads (for samplers: rows per second of one gradient), or `None` if there is no such
    /// kernel.
    fn kernel_limit(&self, _panel: &Arc<Panel>, _request: &Request) -> Option<f64> {
        None
    }

    /// Starts a run: everything that is done once (checks, uploads, compilation, start values) happens here.
    ///
    /// # Errors
    /// When the request is out of range, or cannot be served here.
    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError>;

    /// This backend with the ranks of its runs in `world`, other processes for instance, instead of threads of this one. All processes
    /// make the same calls of a run in the same order, since readings are put together from all ranks. `None`, which is the default, for
    /// a backend that has no ranks.
    fn among(&self, _world: Arc<dyn World>) -> Option<Arc<dyn Backend>> {
        None
    }

    /// Starts a run from `checkpoint`, which a run of the same panel and request gave, up to threads, shards and devices. On as
    /// many shards of the same kind of device it goes on to bit-identical results, on others up to the order of sums; a search
    /// goes on to the same optimum within its tolerance.
    ///
    /// # Errors
    /// As [`Backend::start`]; [`BackendError::Unsupported`] if runs give no checkpoints, which is the default, or the
    /// checkpoint is of another format; [`BackendError::Request`] if it is of another panel.
    fn resume(
        &self,
        _panel: Arc<Panel>,
        _request: &Request,
        _checkpoint: &Checkpoint,
    ) -> Result<Box<dyn Run>, BackendError> {
        Err(BackendError::Unsupported {
            backend: self.name(),
            what: "checkpoints".into(),
        })
    }
}

/// A run under way. It owns its state; nothing happens between calls.
///
/// # Contract
///
/// Every run keeps to this, whichever backend started it; one test suite
/// (`infermark_test_support::conformance`) checks every backend.
///
/// - **Steps.** [`advance(n)`](Run::advance) makes `n` steps, or fewer when the run comes to its end, fails
///   or is interrupted. A run that is fitted whole ([`MethodKind::is_fitted_whole`]) may also return earlier,
///   still [`Running`](RunState::Running), to show a note: to reach the end, call until the state is
///   complete. `advance(0)` does nothing.
/// - **Pieces.** However a run is split into pieces, its results are bit-identical: posterior, draws,
///   dispersion and every figure of its report except times.
/// - **Threads.** The number of threads changes no bit either. A GPU reproduces its own bits, which differ
///   from those of another device.
/// - **Totals.** `progress().completed` counts the steps made, in the method's unit, and never exceeds
///   `total`. A run that has [`Finished`](RunState::Finished) has made them all; one that has
///   [`Converged`](RunState::Converged) may have made fewer. `total` is constant, except for a search that
///   does not know how many steps precede the limited ones.
/// - **Interruption.** Once the interrupt is set, also before the call, `advance` returns at its next
///   consistent state: after at most one step or, where steps are short, after the batch under way (about 50
///   ms). The state is [`Interrupted`](RunState::Interrupted), unless the run has come to its end. The next
///   call goes on. Iterations and draws are bit-identical to those of an uninterrupted run; a search that was
///   stopped within a step goes on from the point that it had reached, to the same optimum within its
///   tolerance.
/// - **End.** A complete run does nothing more: `advance` returns its progress.
/// - **Failure.** An `advance` that cannot go on returns why, and the state is [`Failed`](RunState::Failed) from then on: every
///   further call returns the same error and does nothing.
/// - **Readings.** Everything else can be asked at any moment, before the first step and after the last,
///   between pieces, after an interruption or a failure, and changes nothing. The state of a failed run
///   before the step that failed stays readable, as long as its device still answers.
pub trait Run: Send {
    /// Advances by up to `steps` steps (iterations, draws of a chain, steps of a search) and returns with the device idle, and
    /// a consistent state. See the contract above.
    ///
    /// # Errors
    /// When the device fails or the state is no longer finite, now or in an earlier call.
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError>;

    /// Where the run is.
    fn progress(&self) -> Progress;

    /// The posterior as known so far.
    ///
    /// # Errors
    /// [`BackendError::NoPosterior`] while there is none (a sampler still in warm-up, an unfinished search);
    /// [`BackendError::Device`] when it cannot be read from the device.
    fn posterior(&self) -> Result<Posterior, BackendError>;

    /// What the run did, in figures.
    fn report(&self) -> Report;

    /// The state of the run now, from which [`Backend::resume`] goes on; `None`, which is the default, where that is not
    /// supported.
    ///
    /// # Errors
    /// When the state cannot be read from the device, or the run has failed.
    fn checkpoint(&self) -> Result<Option<Checkpoint>, BackendError> {
        Ok(None)
    }

    /// How many steps can be under way at once: the number of chains of a sampler, 1 for an optimizer.
    /// Advancing by multiples of it keeps all chains busy, as [`StepPacer`] does.
    fn width(&self) -> u64 {
        1
    }

    /// Gradients of the log joint in all steps done, warm-up included; `None` where they are not counted. Unlike
    /// [`Run::report`] it costs nothing, so that it can be asked for at every step.
    fn gradients(&self) -> Option<u64> {
        None
    }

    /// A function that reports, from another thread while [`Run::advance`] is at work, how much of the
    /// current step is done, between 0 and 1; `None` where steps are short.
    fn within_step(&self) -> Option<Box<dyn Fn() -> f64 + Send + Sync>> {
        None
    }

    /// The draws that were kept; `None` for methods without draws.
    fn draws(&self) -> Option<Draws> {
        None
    }

    /// How much more the counts vary than the fit predicts, using the method's variances of the log rates;
    /// the excess is stated only for a fit that has converged. `None` where the method does not know the
    /// variances, or has no fit.
    fn dispersion(&self) -> Option<Dispersion> {
        None
    }
}
