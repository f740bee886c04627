//! The columns of a panel's rows in files of the scratch folder.

use crate::column::Column;
use crate::folder::{ScratchError, ScratchFolder};
use crate::pieces::Pieces;
use crate::window::Window;
use infermark_model::{RowsToStore, StoredNumbers, StoredRows};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Rows of a block, which are read ahead at a time.
const AHEAD: usize = 1 << 20;

/// Blocks that are read ahead.
const TIMES_AHEAD: usize = 2;

/// The part of all rows that a thread may be behind the first in the same pass.
const MOST_BEHIND: usize = 4;

/// Rows between two visits from which on they lie apart.
const APART: usize = 1 << 16;

/// Bytes of a row in all its columns.
const ROW_BYTES: usize = 12;

/// Bytes of `rows` rows in the scratch folder.
pub fn bytes_of_rows(rows: usize) -> u64 {
    (rows * ROW_BYTES) as u64
}

/// The columns of a panel's rows while they are written.
#[derive(Debug)]
pub struct RowFilesWriter {
    folder: ScratchFolder,
    rows: usize,
    files: [File; 3],
    pieces: Pieces,
}

impl RowFilesWriter {
    /// Files of `rows` rows, with their room set aside.
    ///
    /// # Errors
    /// [`ScratchError`] where there is less.
    pub fn new(folder: &ScratchFolder, rows: usize) -> Result<Self, ScratchError> {
        folder.check(ROWS, bytes_of_rows(rows))?;
        Self::of(folder, rows, |bytes| folder.file_of(bytes))
    }

    /// Files of `rows` rows, whose room is taken as they are written.
    ///
    /// # Errors
    /// [`ScratchError`] when the folder cannot be written to.
    pub fn growing(folder: &ScratchFolder, rows: usize) -> Result<Self, ScratchError> {
        Self::of(folder, rows, |bytes| {
            let file = folder.file()?;
            file.set_len(bytes)?;
            Ok(file)
        })
    }

    fn of(
        folder: &ScratchFolder,
        rows: usize,
        make: impl Fn(u64) -> io::Result<File>,
    ) -> Result<Self, ScratchError> {
        let failed = |cause| folder.error(ROWS, bytes_of_rows(rows), cause);
        let file = || make(4 * rows as u64).map_err(failed);
        Ok(RowFilesWriter {
            folder: folder.clone(),
            rows,
            files: [file()?, file()?, file()?],
            pieces: Pieces::default(),
        })
    }

    /// Writes rows at their place, or keeps them until others that follow are there.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&mut self, rows: RowsToStore<'_>) -> io::Result<()> {
        let files = &self.files;
        self.pieces.add(rows, |rows| write_columns(files, rows))
    }

    /// The error of writing them.
    pub fn error(&self, cause: io::Error) -> ScratchError {
        self.folder.error(ROWS, bytes_of_rows(self.rows), cause)
    }

    /// The rows to read, of which `window` bounds what is resident.
    ///
    /// # Errors
    /// [`ScratchError`] when the last ones cannot be written, or the files not be mapped.
    pub fn finish(mut self, window: &Arc<Window>) -> Result<RowFiles, ScratchError> {
        let (folder, rows, files) = (self.folder, self.rows, self.files);
        let failed = |cause| folder.error(ROWS, bytes_of_rows(rows), cause);
        self.pieces
            .take(|rows| write_columns(&files, rows))
            .map_err(failed)?;
        let [deviation, deviation_residual, units] = files;
        Ok(RowFiles {
            deviation: Watched::new(deviation, rows, window).map_err(failed)?,
            deviation_residual: Watched::new(deviation_residual, rows, window).map_err(failed)?,
            units: Watched::new(units, rows, window).map_err(failed)?,
            window: window.clone(),
            folder,
            rows,
            asked: AtomicUsize::new(0),
        })
    }
}

/// Writes rows to the columns' files.
#[cfg(unix)]
fn write_columns([deviation, residual, units]: &[File; 3], rows: RowsToStore<'_>) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let at = 4 * rows.first as u64;
    deviation.write_all_at(bytemuck::cast_slice(rows.deviation), at)?;
    residual.write_all_at(bytemuck::cast_slice(rows.deviation_residual), at)?;
    units.write_all_at(bytemuck::cast_slice(rows.units), at)
}

#[cfg(not(unix))]
fn write_columns(_: &[File; 3], _: RowsToStore<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What is stored, for messages.
const ROWS: &str = "the panel";

/// A column that knows whether it was read lately.
#[derive(Debug)]
struct Watched<T> {
    column: Column<T>,
    was_read: AtomicBool,
}

impl<T: bytemuck::Pod> Watched<T> {
    fn new(file: File, rows: usize, window: &Window) -> io::Result<Self> {
        Ok(Watched {
            column: Column::of(file, rows, window, false)?,
            was_read: AtomicBool::new(false),
        })
    }

    #[inline]
    fn as_slice(&self) -> &[T] {
        self.was_read.store(true, Ordering::Relaxed);
        self.column.as_slice()
    }

    /// Reads ahead if it was read since this was last asked.
    fn read_ahead(&self, rows: Range<usize>) {
        if self.was_read.swap(false, Ordering::Relaxed) {
            self.column.read_ahead(rows);
        }
    }
}

/// The columns of a panel's rows.
#[derive(Debug)]
pub struct RowFiles {
    deviation: Watched<f32>,
    deviation_residual: Watched<f32>,
    units: Watched<u32>,
    window: Arc<Window>,
    folder: ScratchFolder,
    rows: usize,
    /// The block of rows up to which was read ahead.
    asked: AtomicUsize,
}

thread_local! {
    /// The end of the rows that this thread visited last.
    static LAST: Cell<usize> = const { Cell::new(0) };
}

impl RowFiles {
    /// Reads ahead of the block of rows that a pass has come to. Each block is asked for once in a pass, whichever thread comes first: asking
    /// for what is in the system's cache already costs as much as a tenth of a pass over it.
    #[cold]
    fn read_ahead(&self, block: usize) {
        let end = block + 1 + TIMES_AHEAD;
        let asked = self.asked.load(Ordering::Relaxed);
        // Further behind is the next pass.
        let behind = (self.rows / AHEAD / MOST_BEHIND).max(1);
        let next = if block + behind < asked {
            block
        } else {
            asked.max(block)
        };
        if next < end
            && self
                .asked
                .compare_exchange(asked, end, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let rows = next * AHEAD..end * AHEAD;
            self.deviation.read_ahead(rows.clone());
            self.deviation_residual.read_ahead(rows.clone());
            self.units.read_ahead(rows);
        }
    }
}

impl StoredRows for RowFiles {
    #[inline]
    fn deviation(&self) -> &[f32] {
        self.deviation.as_slice()
    }

    #[inline]
    fn deviation_residual(&self) -> &[f32] {
        self.deviation_residual.as_slice()
    }

    #[inline]
    fn units(&self) -> &[u32] {
        self.units.as_slice()
    }

    fn visit(&self, rows: &Range<usize>) {
        let last = LAST.replace(rows.end);
        // Passes look a few products ahead and back.
        let apart = rows.start.abs_diff(last) > APART;
        self.window.visit(ROW_BYTES * rows.len(), apart);
        // A pass in the order of the rows goes on in the next block. One in the order of the products jumps between categories with every
        // product: nothing is asked for then, since each time it would be asked for again.
        let (block, before) = (rows.end / AHEAD, last / AHEAD);
        if block > before && block - before <= TIMES_AHEAD {
            self.read_ahead(block);
        }
    }

    fn replace_prices(&mut self, first: usize, deviation: &[f32], residual: &[f32]) -> io::Result<()> {
        self.deviation.column.replace(first, deviation)?;
        self.deviation_residual.column.replace(first, residual)
    }

    fn numbers(&self, count: usize) -> io::Result<Box<dyn StoredNumbers>> {
        let column = Column::zeroed(&self.folder, count, &self.window).map_err(io::Error::other)?;
        Ok(Box::new(NumberFile(column)))
    }
}

/// Numbers of the rows.
#[derive(Debug)]
struct NumberFile(Column<f64>);

impl StoredNumbers for NumberFile {
    fn as_slice(&self) -> &[f64] {
        self.0.as_slice()
    }

    fn as_mut_slice(&mut self) -> &mut [f64] {
        self.0.as_mut_slice()
    }
}
