//! Chains spread over ranks.
//!
//! A chain depends on its number and the seed alone, so it has the same draws wherever it runs. Every rank finds the same mode, runs
//! its own chains, and knows how far the others are; once all are complete, every rank has the records of all.

use super::NutsRun;
use infermark_backend::{BackendError, Cause, Interrupt, Remedy, RunState, Setting};
use infermark_communicator::CommunicationError;
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
    /// Tells the other ranks how far the own chains are, and learns of theirs; gathers the records once all are complete. Whether a
    /// rank was interrupted.
    ///
    /// # Errors
    /// When a chain of another rank has failed, or a rank has gone.
    pub(super) fn exchange(&mut self, interrupt: &Interrupt) -> Result<bool, BackendError> {
        if self.communicator.size() == 1 {
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
        let (rank, size) = (self.communicator.rank(), self.communicator.size());
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
        self.communicator.all_reduce(&mut numbers)?;
        self.scheduler
            .has_done(numbers[..chains].iter().map(|done| *done as u64));
        let failed = numbers[chains + 1..].iter().position(|failed| *failed > 0.0);
        if failure.is_none()
            && let Some(failed) = failed
        {
            return Ok(Err(BackendError::Diverged {
                step: numbers[..chains].iter().sum::<f64>() as u64,
                reason: format!("a chain of rank {failed} cannot go on").into(),
            }));
        }
        let limit = self.draws_of_chain() as f64;
        if failed.is_none() && numbers[..chains].iter().all(|done| *done == limit) {
            self.gather()?;
        }
        Ok(Ok(numbers[chains] > 0.0))
    }

    /// Gives every rank the records of all chains.
    fn gather(&mut self) -> Result<(), CommunicationError> {
        let (rank, size) = (self.communicator.rank(), self.communicator.size());
        for (chain, record) in self.records.iter().enumerate() {
            let root = chain % size;
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            let mut numbers = if root == rank {
                record.numbers()
            } else {
                Vec::new()
            };
            let mut count = [numbers.len() as f64];
            self.communicator.broadcast(&mut count, root)?;
            numbers.resize(count[0] as usize, 0.0);
            self.communicator.broadcast(&mut numbers, root)?;
            if root != rank {
                record.take(&numbers);
            }
        }
        Ok(())
    }
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
