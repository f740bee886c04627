//! The state of a run in a checkpoint.
//!
//! It holds what was recorded of every chain and its sampler's state after its last draw. A draw that was under way is made
//! again, from the same random numbers.

use super::NutsRun;
use crate::NAME;
use crate::record::ChainRecord;
use infermark_backend::{BackendError, Checkpoint, Metric, StateFormat};
use serde::{Deserialize, Serialize};

/// The format of the state.
const FORMAT: StateFormat = StateFormat {
    name: "nuts-structured",
    version: 1,
};

/// The state as it is written; chain by chain, records or references to them.
#[derive(Debug, Serialize, Deserialize)]
struct Saved<R> {
    run_seconds: f64,
    chains: Vec<R>,
}

/// The state of a run that was read from a checkpoint.
#[derive(Debug)]
pub(crate) struct SavedRun(Saved<ChainRecord>);

impl SavedRun {
    /// The state in `checkpoint`.
    ///
    /// # Errors
    /// When it is of another format.
    pub(crate) fn read(checkpoint: &Checkpoint) -> Result<Self, BackendError> {
        checkpoint.state(NAME, FORMAT).map(SavedRun)
    }

    /// The records of the chains, in place of `fresh` ones, and the seconds of advancing.
    ///
    /// # Errors
    /// When they are of another panel or request.
    pub(super) fn over(
        self,
        fresh: impl ExactSizeIterator<Item = ChainRecord>,
    ) -> Result<(Vec<ChainRecord>, f64), BackendError> {
        let Saved { run_seconds, chains } = self.0;
        if chains.len() != fresh.len() {
            let reason = format!("it has {} chains, the request {}", chains.len(), fresh.len());
            return Err(Checkpoint::malformed(reason));
        }
        let records: Option<Vec<_>> = fresh
            .zip(chains)
            .map(|(fresh, saved)| fresh.gone_on_from(saved))
            .collect();
        let records =
            records.ok_or_else(|| Checkpoint::malformed("a chain is of another panel or request"))?;
        Ok((records, run_seconds))
    }
}

impl NutsRun {
    /// The checkpoint of the run now; the sampler of the diagonal metric has none.
    pub(super) fn saved(&self) -> Result<Option<Checkpoint>, BackendError> {
        let (done, failure) = self.scheduler.standing();
        let completed = done.iter().sum();
        if let Some(reason) = failure {
            return Err(BackendError::Diverged {
                step: completed,
                reason: reason.into(),
            });
        }
        if self.settings.metric == Metric::Diagonal {
            return Ok(None);
        }
        let of_others = self.records_of_all()?;
        let own = self.records();
        let chains = own.iter().zip(&of_others);
        let saved = Saved {
            run_seconds: self.run_seconds,
            chains: chains
                .map(|(own, of_other)| of_other.as_ref().unwrap_or(own))
                .collect::<Vec<&ChainRecord>>(),
        };
        Checkpoint::new(NAME, FORMAT, completed, &saved).map(Some)
    }
}
