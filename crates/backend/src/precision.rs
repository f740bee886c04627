//! The precision of the passes over the panel.

use serde::{Deserialize, Serialize};

/// Floating-point type of the passes over the panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision for rates and gradients, double for every sum that decides a log-weight.
    #[default]
    F32,
    /// Double precision throughout.
    F64,
}

impl Precision {
    /// The name in files and in the command.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
        }
    }
}
