//! Decoding on a separate thread, ahead of the processing of the rows.

use super::BatchCells;
use super::dates::Clock;
use crate::read::columns::Places;
use arrow_array::RecordBatch;
use infermark_checked_parquet::{Failure, contained};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};

/// Largest number of decoded batches that wait: a few MB.
const WAITING: usize = 2;

/// A batch, decoded.
pub(super) struct Decoded {
    pub(super) batch: RecordBatch,
    pub(super) cells: BatchCells,
    /// The times of day up to the end of this batch.
    pub(super) clock: Clock,
}

/// The batches of a file, one after the other.
pub(super) struct Ahead {
    reader: ParquetRecordBatchReader,
    order: Places,
    clock: Clock,
}

impl Ahead {
    /// The batches of `reader`, whose columns are the panel's in this order.
    pub(super) fn new(reader: ParquetRecordBatchReader, order: Places) -> Self {
        Ahead {
            reader,
            order,
            clock: Clock::default(),
        }
    }

    fn next(&mut self) -> Result<Option<Decoded>, Failure> {
        let Some(batch) = contained(|| self.reader.next().transpose())? else {
            return Ok(None);
        };
        let cells = contained(|| BatchCells::new(&batch, self.order, &mut self.clock))?;
        Ok(Some(Decoded {
            batch,
            cells,
            clock: self.clock.clone(),
        }))
    }

    /// Passes every batch to `take`, in order, until that breaks off. They are decoded on a separate thread
    /// if the machine has one and the system starts it, otherwise in turn.
    ///
    /// # Errors
    /// The error that stopped the decoder, after the batches before it were taken.
    pub(super) fn each(self, mut take: impl FnMut(Decoded) -> ControlFlow<()>) -> Result<(), Failure> {
        if infermark_threads::available() == 1 {
            return self.in_turn(take);
        }
        // If no thread is started, the batches must not be lost.
        let source = Mutex::new(Some(self));
        let of = |source: &Mutex<Option<Ahead>>| source.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(WAITING);
            let source = &source;
            let decode = move || {
                let Some(mut ahead) = of(source) else { return };
                while let Some(next) = ahead.next().transpose() {
                    let failed = next.is_err();
                    // There is no receiver if the rest is not read.
                    if sender.send(next).is_err() || failed {
                        return;
                    }
                }
            };
            let Ok(thread) = infermark_threads::start(scope, decode) else {
                return of(source).map_or(Ok(()), |ahead| ahead.in_turn(take));
            };
            for next in &receiver {
                if take(next?).is_break() {
                    return Ok(());
                }
            }
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok(())
        })
    }

    fn in_turn(mut self, mut take: impl FnMut(Decoded) -> ControlFlow<()>) -> Result<(), Failure> {
        while let Some(next) = self.next()? {
            if take(next).is_break() {
                break;
            }
        }
        Ok(())
    }
}
