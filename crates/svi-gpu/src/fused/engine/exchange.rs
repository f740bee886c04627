//! Between the fold and the hierarchy of one of several shards: its sums become those of all.

use super::super::crossing::Crossing;
use super::Engine;
use super::buffers::{Buffer, upload};
use cubecl::prelude::*;
use infermark_backend::BackendError;

impl<R: Runtime> Engine<R> {
    /// The sums over products on the device, high parts, then low parts: all that crosses to other devices. The fold has
    /// written it, and the hierarchy reads it.
    fn sums_over_products(&self) -> &Buffer {
        &self.changing.folded
    }

    /// Adds the sums that were folded to those of the other shards. Returns whether any rank was interrupted.
    ///
    /// # Errors
    /// When the device fails, or another rank has gone.
    pub(super) fn exchange(
        &mut self,
        crossing: &mut Crossing,
        interrupted: bool,
    ) -> Result<bool, BackendError> {
        let folded = self.read(self.sums_over_products())?;
        let (totals, interrupted) = crossing.add_up(&folded, interrupted)?;
        self.changing.folded = upload(&self.client, totals).map_err(|e| self.failed(e))?;
        Ok(interrupted)
    }
}
