//! SVI in another program as a backend: a child process that speaks JSON lines.
//!
//! A worker is any program that keeps to the protocol of `peers/README.md`: it reads one question per line from its standard input and
//! writes one line per answer to its standard output. [`PeerProcess`] makes a backend of the command that starts it, so that it is compared with
//! the reference, timed, recorded and drawn as any other. Every run has a process of its own, which ends with the run.
//!
//! Limits, all declared: the worker sums as its program does, so that its log joint is compared in double precision whatever a run
//! computes in ([`Backend::parity_precision`]); the number of threads may change its bits; it reports no effective particles; a failure loses
//! what the run had.

mod panel_files;
mod process;
mod process_group;
mod protocol;
mod run;

use infermark_backend::{
    Backend, BackendError, BenchmarkSettings, Capabilities, Device, DeviceId, DeviceKind, Interrupt, Method,
    MethodKind, Precision, Request, Run,
};
use infermark_model::{Likelihood, Panel, Parameterization, Priors};
use infermark_svi::RunRecorder;
use process::{Process, Trouble};
use protocol::{Description, Done, LogJointAnswer, Question};
use run::PeerRun;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use process_group::{ProcessGroup, kill_group};
pub use protocol::PROTOCOL_VERSION;

/// How long a worker may take for a reply; compiling for a large panel takes minutes.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A backend whose runs are workers: processes that one command starts.
pub struct PeerProcess {
    name: &'static str,
    command: Vec<String>,
    program: String,
    devices: Vec<Device>,
    patience: Duration,
    /// The worker that the log joint was last asked of, and what it holds: parity asks at two points of one panel.
    evaluator: Mutex<Option<Evaluator>>,
}

struct Evaluator {
    panel: Arc<Panel>,
    request: Request,
    process: Process,
}

/// Why a peer cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PeerError {
    /// The worker, or the program that it runs, is not installed here.
    #[error("{0}")]
    Unavailable(String),
    /// The command starts no worker, or one of another protocol version.
    #[error("{0}")]
    Failed(String),
}

impl PeerProcess {
    /// The peer that `command`, a program and its arguments, starts, called `name` in tables and files. Starts a worker once, for its
    /// description.
    ///
    /// # Errors
    /// [`PeerError::Unavailable`] where the program is not installed, [`PeerError::Failed`] where what starts is no worker of this version, or
    /// `interrupt` is set before it has described itself.
    pub fn connect(name: &str, command: Vec<String>, interrupt: &Interrupt) -> Result<Self, PeerError> {
        Self::connect_until(name, command, PATIENCE, interrupt)
    }

    /// As [`PeerProcess::connect`], waiting at most `patience` for each reply.
    ///
    /// # Errors
    /// See [`PeerProcess::connect`].
    pub fn connect_with(name: &str, command: Vec<String>, patience: Duration) -> Result<Self, PeerError> {
        Self::connect_until(name, command, patience, &Interrupt::new())
    }

    fn connect_until(
        name: &str,
        command: Vec<String>,
        patience: Duration,
        interrupt: &Interrupt,
    ) -> Result<Self, PeerError> {
        let question = Question::Describe {
            protocol: PROTOCOL_VERSION,
        };
        let described = Process::start(&command, 0, patience)
            .and_then(|mut process| process.ask_until::<Description>(&question, interrupt));
        let description = described.map_err(|trouble| match trouble {
            Trouble::Unavailable(what) => PeerError::Unavailable(what),
            other => PeerError::Failed(other.to_string()),
        })?;
        if description.protocol != PROTOCOL_VERSION {
            return Err(PeerError::Failed(format!(
                "it speaks version {} of the protocol, and this program version {PROTOCOL_VERSION}",
                description.protocol
            )));
        }
        if let Some(device) = description
            .devices
            .iter()
            .find(|device| !is_served(device.id.kind))
        {
            return Err(PeerError::Failed(format!(
                "it runs on {}, which peers do not",
                device.id
            )));
        }
        Ok(PeerProcess {
            // A peer is there until the program ends.
            name: name.to_owned().leak(),
            command,
            program: description.program,
            devices: description.devices,
            patience,
            evaluator: Mutex::new(None),
        })
    }

    /// The program behind it, with its version.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// A worker that has read `panel`.
    fn open(&self, panel: &Panel, request: &Request, precision: Precision) -> Result<Process, BackendError> {
        let failed = |trouble| backend_error(self.name, trouble);
        let layout = panel.layout();
        let mut process =
            Process::start(&self.command, 2 * layout.latents(), self.patience).map_err(failed)?;
        let unwritten = |error| failed(Trouble::Failed(format!("its panel cannot be written: {error}")));
        let folder = tempfile::tempdir().map_err(unwritten)?;
        panel_files::write(panel, folder.path()).map_err(unwritten)?;
        let question = Question::Open {
            folder: &folder.path().to_string_lossy(),
            products: layout.products,
            categories: layout.categories,
            periods: layout.periods,
            rows: panel.rows(),
            device: request.devices[0].to_string(),
            threads: self.threads(request),
            precision,
        };
        process.ask::<Done>(&question).map_err(failed)?;
        Ok(process)
    }

    fn threads(&self, request: &Request) -> usize {
        match request.devices[0] {
            DeviceId::CPU => request.resolved_threads(),
            _ => 1,
        }
    }
}

/// Whether workers run on devices of this kind: JAX has no other.
const fn is_served(kind: DeviceKind) -> bool {
    matches!(kind, DeviceKind::Cpu | DeviceKind::Cuda)
}

fn backend_error(backend: &'static str, trouble: Trouble) -> BackendError {
    match trouble {
        Trouble::Unavailable(what) | Trouble::Unsupported(what) => BackendError::Unsupported {
            backend,
            what: what.into(),
        },
        Trouble::Failed(reason) => BackendError::Device {
            device: backend.into(),
            reason,
        },
    }
}

impl Backend for PeerProcess {
    fn name(&self) -> &'static str {
        self.name
    }

    fn method(&self) -> MethodKind {
        MethodKind::Svi
    }

    fn capabilities(&self) -> Capabilities {
        let is_on = |kind| self.devices.iter().any(|device| device.id.kind == kind);
        Capabilities {
            device_kinds: match (is_on(DeviceKind::Cpu), is_on(DeviceKind::Cuda)) {
                (true, true) => &[DeviceKind::Cpu, DeviceKind::Cuda],
                (true, false) => &[DeviceKind::Cpu],
                (false, true) => &[DeviceKind::Cuda],
                (false, false) => &[],
            },
            likelihoods: &[Likelihood::Poisson],
            parameterizations: &[Parameterization::Centered],
            precisions: &[Precision::F32, Precision::F64],
            ..Capabilities::CPU
        }
    }

    fn devices(&self) -> Vec<Device> {
        self.devices.clone()
    }

    fn supports(&self, request: &Request) -> Result<(), BackendError> {
        self.capabilities().check(self.name, self.method(), request)?;
        if request.priors != Priors::PUBLISHED {
            return Err(BackendError::Unsupported {
                backend: self.name,
                what: "priors other than the published ones".into(),
            });
        }
        Ok(())
    }

    fn is_reference(&self) -> bool {
        true
    }

    /// With all threads alone, in both coordinates.
    fn benchmark_settings(&self) -> Vec<BenchmarkSettings> {
        let mut settings = self.method().benchmark_settings();
        settings
            .iter_mut()
            .for_each(|measured| measured.by_threads = false);
        settings
    }

    fn parity_precision(&self, _request: &Request) -> Precision {
        Precision::F64
    }

    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        self.supports(request)?;
        request.check_point(panel, point)?;
        let mut evaluator = self.evaluator.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out: a worker that failed is not asked again.
        let known = evaluator
            .take()
            .filter(|known| Arc::ptr_eq(&known.panel, panel) && known.request == *request);
        let mut known = match known {
            Some(known) => known,
            None => Evaluator {
                panel: panel.clone(),
                request: request.clone(),
                process: self.open(panel, request, self.parity_precision(request))?,
            },
        };
        let asked = known.process.ask::<LogJointAnswer>(&Question::LogJoint { point });
        let answer = asked.map_err(|trouble| backend_error(self.name, trouble))?;
        *evaluator = Some(known);
        Ok((answer.log_joint, answer.gradient))
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        let clock = Instant::now();
        self.supports(request)?;
        let Method::Svi(settings) = &request.method else {
            unreachable!("other methods were refused");
        };
        // Parity is behind; a run is not to share the memory with its worker.
        *self.evaluator.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut process = self.open(&panel, request, settings.precision)?;
        let question = Question::Start {
            settings,
            seed: request.seed,
        };
        process
            .ask::<Done>(&question)
            .map_err(|trouble| backend_error(self.name, trouble))?;
        let layout = panel.layout();
        let device = self.devices.iter().find(|device| device.id == request.devices[0]);
        let name = device.map_or("a device", |device| &device.name);
        Ok(Box::new(PeerRun {
            backend: self.name,
            device: format!("{name}, {}", self.program),
            threads: self.threads(request),
            layout,
            recorder: RunRecorder::new(settings.clone(), layout.latents(), clock.elapsed().as_secs_f64()),
            batch: 1,
            process: Mutex::new(process),
        }))
    }
}
