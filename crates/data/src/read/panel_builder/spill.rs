//! Rows that are collected in the scratch folder, because a panel is larger than memory.

use super::parts::{Collected, Run};
use infermark_scratch::{Column, ColumnWriter, ScratchError, ScratchFolder, Window};
use std::io;
use std::sync::Arc;

/// Rows that are held before they are written.
pub(super) const HELD_ROWS: usize = 1 << 16;

/// Bytes of a row while rows are collected.
const COLLECTED_BYTES: u64 = 16;

/// What is stored, for messages.
const WHAT: &str = "a panel that is larger than the memory, while it is read,";

/// Where the rows of a panel are stored that is larger than memory.
#[derive(Debug, Clone)]
pub struct RowStorage {
    /// The folder.
    pub folder: ScratchFolder,
    /// The bound on what is resident of them.
    pub window: Arc<Window>,
}

/// The rows collected so far, other than those that are held.
#[derive(Debug)]
pub(super) struct Spill {
    pub(super) storage: RowStorage,
    period: ColumnWriter<u32>,
    price: ColumnWriter<f64>,
    units: ColumnWriter<u32>,
    runs: ColumnWriter<Run>,
    /// The rows that the file says it has, or fewer.
    announced: usize,
}

/// The same to be read.
pub(super) struct Spilled {
    pub(super) storage: RowStorage,
    pub(super) period: Column<u32>,
    pub(super) price: Column<f64>,
    pub(super) units: Column<u32>,
    pub(super) runs: Column<Run>,
}

impl Spill {
    pub(super) fn new(storage: &RowStorage) -> Result<Self, ScratchError> {
        let folder = &storage.folder;
        let open = || -> io::Result<Self> {
            Ok(Spill {
                storage: storage.clone(),
                period: ColumnWriter::new(folder)?,
                price: ColumnWriter::new(folder)?,
                units: ColumnWriter::new(folder)?,
                runs: ColumnWriter::new(folder)?,
                announced: 0,
            })
        };
        open().map_err(|cause| folder.error(WHAT, 0, cause))
    }

    /// Takes the number of rows to come, and refuses more than there is room for.
    pub(super) fn announce(&mut self, rows: usize) -> Result<(), ScratchError> {
        self.announced = rows;
        self.storage.folder.check(WHAT, needed(rows))
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.period.count()
    }

    pub(super) fn append(
        &mut self,
        (period, price, units): (&[u32], &[f64], &[u32]),
        runs: &[Run],
    ) -> Result<(), ScratchError> {
        let rows = self.period.count() + period.len();
        let mut append = || -> io::Result<()> {
            self.price.append(price)?;
            self.units.append(units)?;
            self.runs.append(runs)?;
            self.period.append(period)
        };
        append().map_err(|cause| self.failed(rows, cause))
    }

    pub(super) fn finish(self) -> Result<Spilled, ScratchError> {
        let (storage, rows) = (self.storage, self.period.count());
        let window = &*storage.window;
        let failed = |cause| storage.folder.error(WHAT, needed(rows), cause);
        Ok(Spilled {
            period: self.period.finish(window).map_err(failed)?,
            price: self.price.finish(window).map_err(failed)?,
            units: self.units.finish(window).map_err(failed)?,
            runs: self.runs.finish(window).map_err(failed)?,
            storage: storage.clone(),
        })
    }

    fn failed(&self, rows: usize, cause: io::Error) -> ScratchError {
        let bytes = needed(rows.max(self.announced));
        self.storage.folder.error(WHAT, bytes, cause)
    }
}

impl Spilled {
    /// The columns.
    pub(super) fn collected(&self) -> Collected<'_> {
        Collected {
            runs: self.runs.as_slice(),
            period: self.period.as_slice(),
            price: self.price.as_slice(),
            units: self.units.as_slice(),
        }
    }

    /// Gives the room of the rows before `end` back.
    pub(super) fn discard(&mut self, end: usize) {
        self.period.discard(end);
        self.price.discard(end);
        self.units.discard(end);
    }
}

/// Bytes in the folder for `rows` rows. Of a file that is sorted by product, the panel takes the room of the rows that it was made from.
fn needed(rows: usize) -> u64 {
    COLLECTED_BYTES * rows as u64
}
