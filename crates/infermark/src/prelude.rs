//! What most programs need: `use infermark::prelude::*`.

pub use crate::{
    Backend, BackendError, Columns, DeviceId, Generator, Interrupt, Labels, LaplaceSettings, Likelihood,
    MeanfieldSettings, Method, MethodKind, NutsSettings, Panel, PanelPart, Posterior, Priors, Process,
    Progress, Registry, Report, Request, Run, RunState, Site, Specification, StepPacer, StructuredViSettings,
    SviSettings, generate_panel, read_panel, registry,
};
pub use std::sync::Arc;
