//! Line numbers of defective rows, found by reading a CSV file once more.

use super::csv_rows::{BUFFER_BYTES, CsvTable, failed, reader};
use super::defect::{Place, ReadError};
use super::source::Source;
use csv::ByteRecord;
use std::fs::File;
use std::io::Read;

impl CsvTable {
    /// The unit that [`CsvTable::lines`] counts.
    pub(crate) fn row_word(&self) -> &'static str {
        if self.regular { "line" } else { "data row" }
    }

    /// Line of every place, from 1, by reading the file once more; for a pipe, which cannot be read again,
    /// the row below the header.
    pub(crate) fn lines(&self, places: &[Place]) -> Result<Vec<Option<u64>>, ReadError> {
        if !self.regular {
            return Ok(places.iter().map(|place| place.data_row()).collect());
        }
        let offsets = self.offsets(places)?;
        let io = |cause| ReadError::Io {
            path: self.path.clone(),
            cause,
        };
        let mut order: Vec<(u64, usize)> = offsets
            .iter()
            .enumerate()
            .filter_map(|(i, offset)| Some(((*offset)?, i)))
            .collect();
        order.sort_unstable();
        let mut lines = vec![None; places.len()];
        let mut file = File::open(&self.path).map_err(io)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let (mut position, mut line) = (0u64, 1u64);
        // CR, LF and CRLF each end one line; the two bytes of a CRLF may come in two buffers.
        let mut after_return = false;
        let mut next = order.into_iter().peekable();
        while next.peek().is_some() {
            let read = file.read(&mut buffer).map_err(io)?;
            if read == 0 {
                break;
            }
            for byte in &buffer[..read] {
                // A record's offset precedes the line ends and blank lines before it.
                let at_line_end = matches!(byte, b'\n' | b'\r');
                while !at_line_end && next.peek().is_some_and(|(offset, _)| *offset <= position) {
                    lines[next.next().expect("peeked").1] = Some(line);
                }
                line += u64::from(*byte == b'\r' || (*byte == b'\n' && !after_return));
                after_return = *byte == b'\r';
                position += 1;
            }
        }
        Ok(lines)
    }

    fn offsets(&self, places: &[Place]) -> Result<Vec<Option<u64>>, ReadError> {
        let mut wanted: Vec<(u64, usize)> = Vec::new();
        let mut offsets = vec![None; places.len()];
        for (i, place) in places.iter().enumerate() {
            match place {
                Place::Row(row) => wanted.push((*row, i)),
                Place::Byte(offset) => offsets[i] = Some(*offset),
                Place::File => {}
            }
        }
        wanted.sort_unstable();
        let mut reader = reader(Source::open(&self.path)?);
        let mut record = ByteRecord::new();
        reader
            .read_byte_record(&mut record)
            .map_err(|e| failed(&self.path, e))?;
        let mut read = 0;
        for (row, i) in wanted {
            while read <= row
                && reader
                    .read_byte_record(&mut record)
                    .map_err(|e| failed(&self.path, e))?
            {
                read += 1;
            }
            offsets[i] = record.position().map(|p| p.byte());
        }
        Ok(offsets)
    }
}
