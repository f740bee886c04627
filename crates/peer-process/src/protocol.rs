//! The messages: one JSON object a line, a reply to each request.

use infermark_backend::{Device, Precision, SviSettings};
use serde::{Deserialize, Serialize};

/// Version of the protocol; a worker that speaks another is refused.
pub const PROTOCOL_VERSION: u32 = 1;

/// What a worker is asked. It answers in turn, and ends when its standard input does.
#[derive(Debug, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Question<'a> {
    /// What it is: [`Description`].
    Describe { protocol: u32 },
    /// Take a panel, whose arrays are files in `folder` ([`crate::panel_files`]): [`Done`] once they are read.
    Open {
        folder: &'a str,
        products: usize,
        categories: usize,
        periods: usize,
        rows: usize,
        device: String,
        threads: usize,
        precision: Precision,
    },
    /// The log joint and its gradient at natural parameters: [`LogJointAnswer`].
    LogJoint { point: &'a [f64] },
    /// Start SVI on the panel, compiled: [`Done`].
    Start { settings: &'a SviSettings, seed: u64 },
    /// Iterate: [`Losses`].
    Advance { iterations: u64 },
    /// Means and standard deviations of the natural parameters under the guide: [`Moments`].
    Moments,
}

/// What a worker answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply<T> {
    /// The answer.
    Ok(T),
    /// The program behind it is not installed: what is missing.
    Unavailable(String),
    /// It does not serve this: what.
    Unsupported(String),
    /// It went wrong: how.
    Failed(String),
}

/// What a worker is.
#[derive(Debug, Deserialize)]
pub(crate) struct Description {
    pub(crate) protocol: u32,
    /// The program with its version, for instance `NumPyro 0.22.0, JAX 0.10.2`.
    pub(crate) program: String,
    /// Where it runs.
    pub(crate) devices: Vec<Device>,
}

/// That something was done.
#[derive(Debug, Deserialize)]
pub(crate) struct Done {}

/// A log joint with its gradient by every latent.
#[derive(Debug, Deserialize)]
pub(crate) struct LogJointAnswer {
    pub(crate) log_joint: f64,
    pub(crate) gradient: Vec<f64>,
}

/// The loss of each iteration that was done; `None` where it is not a finite number.
#[derive(Debug, Deserialize)]
pub(crate) struct Losses {
    pub(crate) losses: Vec<Option<f64>>,
}

/// Moments of every latent.
#[derive(Debug, Deserialize)]
pub(crate) struct Moments {
    pub(crate) mean: Vec<f64>,
    pub(crate) sd: Vec<f64>,
}
