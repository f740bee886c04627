//! What the optimizer of a guide carries from one iteration to the next, whatever iterates it.

use infermark_backend::{BackendError, Checkpoint};
use infermark_model::Layout;
use infermark_model::guide::Guide;
use serde::{Deserialize, Serialize};

/// A guide and AdamW's moments of each of its parameters, in double precision, which holds those of single precision exactly.
/// Entries are by the latents of the whole panel, so that an engine of any kind and any number of shards can go on from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuideState {
    /// The parameters.
    pub guide: Guide,
    /// Running means of the gradient, each in the place of its parameter.
    pub first: Guide,
    /// Running means of the squared gradient.
    pub second: Guide,
    /// What an engine has made of the centredness in its own precision, so that it goes on to the same bits: an engine of another
    /// kind makes its own. Empty for engines that compute it anew.
    pub transforms: Vec<f32>,
}

impl GuideState {
    /// A state in which everything is `guide`'s, for an engine to overwrite.
    pub fn filled_with(guide: &Guide) -> Self {
        GuideState {
            guide: guide.clone(),
            first: guide.clone(),
            second: guide.clone(),
            transforms: Vec::new(),
        }
    }

    /// Of parameters, first and second moments, and the transforms.
    pub fn of_parts([guide, first, second]: [Guide; 3], transforms: Vec<f32>) -> Self {
        GuideState {
            guide,
            first,
            second,
            transforms,
        }
    }

    /// Parameters, first and second moments, and the transforms.
    pub fn into_parts(self) -> ([Guide; 3], Vec<f32>) {
        ([self.guide, self.first, self.second], self.transforms)
    }

    /// Parameters, first and second moments.
    pub fn parts(&self) -> [&Guide; 3] {
        [&self.guide, &self.first, &self.second]
    }

    /// Parameters, first and second moments, to be changed.
    pub fn parts_mut(&mut self) -> [&mut Guide; 3] {
        [&mut self.guide, &mut self.first, &mut self.second]
    }

    /// Checks that it is of a guide over `layout`, with or without learned centredness.
    pub(crate) fn check(&self, layout: &Layout, learns_centredness: bool) -> Result<(), BackendError> {
        let latents = layout.latents();
        let fits = self.parts().iter().all(|part| {
            part.loc.len() == latents
                && part.unconstrained_scale.len() == latents
                && part.unconstrained_centredness.is_some() == learns_centredness
        });
        if fits {
            return Ok(());
        }
        Err(Checkpoint::malformed(format!(
            "it has {} latents, the panel {latents}",
            self.guide.loc.len()
        )))
    }
}
