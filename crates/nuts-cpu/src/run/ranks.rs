//! Chains spread over ranks.
//!
//! A chain depends on its number and the seed alone, so it has the same draws wherever it runs. Every rank finds the same mode, runs
//! its own chains, and knows how far the others are; once all are complete, every rank has the records of all.

use super::NutsRun;
use crate::record::ChainRecord;
use infermark_backend::{BackendError, Cause, Interrupt, Remedy, RunState, Setting};
use infermark_communicator::{CommunicationError, Communicator};
use std::sync::PoisonError;

/// The chains of rank `rank` of `size`: `rank`, `rank + size`, and so on.
///
/// # Errors
/// When there are more ranks than chains.
pub(super) fn chains_of(rank: usize, size: usize, chains: usize) -> Result<Vec<usize>, BackendError> {
    if size > chains {
        return Err(BackendError::request(Cause::new(
            format!("{chains} chains cannot be spread over {size} ranks"),
            [Remedy::Raise(Setting::Chains)],
        )));
    }
    Ok((rank..chains).step_by(size).collect())
}

impl NutsRun {
    /// What `ask` has of the ranks.
    pub(super) fn of_ranks<T>(&self, ask: impl FnOnce(&mut dyn Communicator) -> T) -> T {
        let mut communicator = self.communicator.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut **communicator)
    }

    /// Tells the other ranks how far the own chains are, and learns of theirs; gathers the records once all are complete. Whether a
    /// rank was interrupted.
    ///
    /// # Errors
    /// When a chain of another rank has failed, or a rank has gone.
    pub(super) fn exchange(&mut self, interrupt: &Interrupt) -> Result<bool, BackendError> {
        if self.of_ranks(|own| own.size()) == 1 {
            return Ok(interrupt.is_set());
        }
        let found = self.exchanged(interrupt);
        let found = found.unwrap_or_else(|error| Err(BackendError::Communication(error)));
        if let Err(error) = &found {
            self.state = RunState::Failed;
            self.of_others = Some(error.clone());
        }
        found
    }

    fn exchanged(&mut self, interrupt: &Interrupt) -> Result<Result<bool, BackendError>, CommunicationError> {
        let (rank, size) = self.of_ranks(|own| (own.rank(), own.size()));
        let (done, failure) = self.scheduler.standing();
        let chains = done.len();
        // Draws of every chain; whether this rank is interrupted; and which ranks have a chain that failed.
        let mut numbers: Vec<f64> = done
            .iter()
            .enumerate()
            .map(|(chain, done)| if chain % size == rank { *done as f64 } else { 0.0 })
            .collect();
        numbers.push(f64::from(u8::from(interrupt.is_set())));
        numbers.resize(chains + 1 + size, 0.0);
        numbers[chains + 1 + rank] = f64::from(u8::from(failure.is_some()));
        self.of_ranks(|own| own.all_reduce(&mut numbers))?;
        self.scheduler
            .has_done(numbers[..chains].iter().map(|done| *done as u64));
        let failed = numbers[chains + 1..].iter().position(|failed| *failed > 0.0);
        let is_interrupted = numbers[chains] > 0.0;
        let limit = self.draws_of_chain() as f64;
        if failed.is_some() || is_interrupted || numbers[..chains].iter().all(|done| *done == limit) {
            self.gather()?;
        }
        if let Some(failed) = failed {
            let mut reason = failure.unwrap_or_default().into_bytes();
            self.of_ranks(|own| broadcast_bytes(own, &mut reason, failed))?;
            return Ok(Err(BackendError::Diverged {
                step: numbers[..chains].iter().sum::<f64>() as u64,
                reason: String::from_utf8_lossy(&reason).into_owned().into(),
            }));
        }
        Ok(Ok(is_interrupted))
    }

    /// Gives every rank the records of all chains.
    fn gather(&mut self) -> Result<(), CommunicationError> {
        for (chain, found) in self.records_of_all()?.into_iter().enumerate() {
            if let Some(found) = found {
                let mut record = self.records[chain].lock().unwrap_or_else(PoisonError::into_inner);
                record.replace(found);
            }
        }
        Ok(())
    }

    /// The records of the chains of other ranks; `None` for those of this one. All ranks call it.
    pub(super) fn records_of_all(&self) -> Result<Vec<Option<ChainRecord>>, CommunicationError> {
        let (rank, size) = self.of_ranks(|own| (own.rank(), own.size()));
        let mut all = Vec::with_capacity(self.records.len());
        for (chain, record) in self.records.iter().enumerate() {
            let root = chain % size;
            let mut bytes = Vec::new();
            if root == rank {
                let record = record.lock().unwrap_or_else(PoisonError::into_inner);
                bytes = postcard::to_allocvec(&*record).expect("a record has a length for every list");
            }
            self.of_ranks(|own| broadcast_bytes(own, &mut bytes, root))?;
            all.push(
                (root != rank).then(|| postcard::from_bytes(&bytes).expect("a record of the same program")),
            );
        }
        Ok(all)
    }
}

/// Replaces `bytes` by those of `root`.
fn broadcast_bytes(
    communicator: &mut dyn Communicator,
    bytes: &mut Vec<u8>,
    root: usize,
) -> Result<(), CommunicationError> {
    const WORD: usize = size_of::<f64>();
    let mut length = [bytes.len() as f64];
    communicator.broadcast(&mut length, root)?;
    let length = length[0] as usize;
    bytes.resize(length.next_multiple_of(WORD), 0);
    let words = bytes.chunks_exact(WORD);
    let mut words: Vec<f64> = words
        .map(|word| f64::from_ne_bytes(word.try_into().expect("a word")))
        .collect();
    communicator.broadcast(&mut words, root)?;
    bytes.clear();
    bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    bytes.truncate(length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chain_is_on_one_rank() {
        for (size, chains) in [(1, 4), (2, 4), (3, 4), (4, 4), (3, 10)] {
            let mut all: Vec<usize> = (0..size)
                .flat_map(|rank| chains_of(rank, size, chains).unwrap())
                .collect();
            all.sort_unstable();
            assert_eq!(all, (0..chains).collect::<Vec<usize>>());
        }
        assert_eq!(chains_of(1, 3, 7).unwrap(), [1, 4]);
        assert_eq!(
            chains_of(0, 5, 4).unwrap_err().to_string(),
            "4 chains cannot be spread over 5 ranks; ask for more chains"
        );
    }
}
