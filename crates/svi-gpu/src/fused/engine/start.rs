//! What an engine starts from.

use infermark_backend::SviSettings;
use infermark_model::guide::Guide;
use infermark_model::{Priors, Shard};
use infermark_svi::{Chart, NoiseSource};

/// What an engine starts from.
pub(crate) struct Start<'a> {
    /// The panel, and which of its products are on the device.
    pub(crate) shard: Shard,
    pub(crate) priors: Priors,
    pub(crate) chart: Chart,
    pub(crate) settings: &'a SviSettings,
    /// For all latents of the panel.
    pub(crate) guide: &'a Guide,
    pub(crate) noise: NoiseSource,
    /// The iteration to begin with.
    pub(crate) iteration: u32,
    pub(crate) native_exp2: bool,
    pub(crate) cubes: Option<usize>,
}
