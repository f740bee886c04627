//! Numbers in a file of the scratch folder.

use crate::folder::{ScratchError, ScratchFolder};
use crate::mapping::Mapping;
use crate::window::Window;
use bytemuck::Pod;
use std::fs::File;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::ops::Range;

/// What is stored, for messages.
const NUMBERS: &str = "a number for each row";

/// Numbers that are appended to a file.
#[derive(Debug)]
pub struct ColumnWriter<T> {
    file: File,
    count: usize,
    of: PhantomData<T>,
}

impl<T: Pod> ColumnWriter<T> {
    /// No numbers yet.
    ///
    /// # Errors
    /// Those of [`ScratchFolder::file`].
    pub fn new(folder: &ScratchFolder) -> io::Result<Self> {
        Ok(ColumnWriter {
            file: folder.file()?,
            count: 0,
            of: PhantomData,
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Appends numbers, which should be many.
    ///
    /// # Errors
    /// The system's, where the file system is full for instance.
    pub fn append(&mut self, numbers: &[T]) -> io::Result<()> {
        self.file.write_all(bytemuck::cast_slice(numbers))?;
        self.count += numbers.len();
        Ok(())
    }

    /// The numbers to read, resident as far as `window` allows.
    ///
    /// # Errors
    /// The system's of mapping the file.
    pub fn finish(self, window: &Window) -> io::Result<Column<T>> {
        Column::of(self.file, self.count, window, false)
    }
}

/// Numbers in a mapped file.
#[derive(Debug)]
pub struct Column<T> {
    file: File,
    /// `None` where there are no numbers: nothing is mapped.
    mapping: Option<Mapping>,
    count: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Column<T> {
    pub(crate) fn of(file: File, count: usize, window: &Window, writable: bool) -> io::Result<Self> {
        let mapping = match count {
            0 => None,
            _ => Some(Mapping::of(&file, writable)?),
        };
        if let Some(mapping) = &mapping {
            window.add(mapping.pages());
        }
        Ok(Column {
            file,
            mapping,
            count,
            of: PhantomData,
        })
    }

    /// As many zeros, to be written to.
    ///
    /// # Errors
    /// [`ScratchError`] where there is no room for them.
    pub fn zeroed(folder: &ScratchFolder, count: usize, window: &Window) -> Result<Self, ScratchError> {
        let bytes = (count * size_of::<T>()) as u64;
        folder.check(NUMBERS, bytes)?;
        let made = folder
            .file_of(bytes)
            .and_then(|file| Self::of(file, count, window, true));
        made.map_err(|cause| folder.error(NUMBERS, bytes, cause))
    }

    /// The numbers.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        match &self.mapping {
            None => &[],
            Some(mapping) => &bytemuck::cast_slice(mapping.bytes())[..self.count],
        }
    }

    /// The numbers to write.
    ///
    /// # Panics
    /// When the column is not [`Column::zeroed`].
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        match &mut self.mapping {
            None => &mut [],
            Some(mapping) => &mut bytemuck::cast_slice_mut(mapping.bytes_mut())[..self.count],
        }
    }

    /// Replaces the numbers from `first` on.
    #[cfg(unix)]
    pub(crate) fn replace(&mut self, first: usize, numbers: &[T]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.file
            .write_all_at(bytemuck::cast_slice(numbers), (first * size_of::<T>()) as u64)
    }

    #[cfg(not(unix))]
    pub(crate) fn replace(&mut self, _: usize, _: &[T]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives the room of the numbers before `end` back to the file system, where it can take it; they are then zero, or what they were.
    pub fn discard(&mut self, end: usize) {
        crate::folder::give_back(&self.file, (end * size_of::<T>()) as u64);
    }

    /// Asks for some numbers to be read ahead.
    pub(crate) fn read_ahead(&self, numbers: Range<usize>) {
        if let Some(mapping) = &self.mapping {
            mapping.read_ahead(numbers.start * size_of::<T>()..numbers.end * size_of::<T>());
        }
    }
}
