//! The description of a panel, beside the run of its fit.

use infermark_fit_files::panel_description::PanelDescription;
use infermark_model::Panel;
use infermark_threads::start_detached;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A panel's description; computing its fingerprint on one thread takes as long as a pass of a fit on all
/// threads.
pub(super) enum Fingerprint {
    Taken(PanelDescription),
    Begun(JoinHandle<PanelDescription>),
}

impl Fingerprint {
    /// Begins on a separate thread, if there is one.
    pub(super) fn begun(panel: &Arc<Panel>, source: impl Into<String>) -> Self {
        let (source, of) = (source.into(), panel.clone());
        let name = source.clone();
        match start_detached("fingerprint", move || PanelDescription::new(&of, name)) {
            Some(thread) => Fingerprint::Begun(thread),
            None => Fingerprint::Taken(PanelDescription::new(panel, source)),
        }
    }

    pub(super) fn taken(self) -> PanelDescription {
        match self {
            Fingerprint::Taken(description) => description,
            Fingerprint::Begun(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
        }
    }
}
