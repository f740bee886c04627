//! Where files without names do not exist, neither do mappings of them.

use std::fs::File;
use std::io;
use std::ops::Range;

#[derive(Debug)]
pub(crate) struct Mapping(std::convert::Infallible);

impl Mapping {
    pub(crate) fn of(_: &File, _: bool) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self.0 {}
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self.0 {}
    }

    pub(crate) fn pages(&self) -> Pages {
        match self.0 {}
    }

    pub(crate) fn read_ahead(&self, _: Range<usize>) {}
}

#[derive(Debug)]
pub(crate) struct Pages(std::convert::Infallible);

impl Pages {
    pub(crate) fn are_mapped(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn let_go(&self) {}
}
