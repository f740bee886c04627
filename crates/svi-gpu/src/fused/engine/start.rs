//! What an engine starts from.

use infermark_backend::SviSettings;
use infermark_model::guide::Guide;
use infermark_model::{Panel, Priors};
use infermark_svi::{Chart, NoiseSource};

/// What an engine starts from.
pub(crate) struct Start<'a> {
    pub(crate) panel: &'a Panel,
    pub(crate) priors: Priors,
    pub(crate) chart: Chart,
    pub(crate) settings: &'a SviSettings,
    pub(crate) guide: &'a Guide,
    pub(crate) noise: NoiseSource,
    /// The iteration to begin with.
    pub(crate) iteration: u32,
    pub(crate) native_exp2: bool,
    pub(crate) cubes: Option<usize>,
}
