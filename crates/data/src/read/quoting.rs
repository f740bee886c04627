//! A strict check of the bytes of a CSV file while it is read: parsers silently accept broken quoting, and
//! records of any length.

use std::io::Read;

/// A fault in quoting, or in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuoteFault {
    /// A quote inside a field that does not start with one.
    Stray,
    /// Text between a closing quote and the next comma.
    AfterClosing,
    /// The file ends inside a quoted field.
    Unclosed,
    /// A quoted field does not end within the longest record.
    UnclosedSoFar,
    /// A record is longer than the limit.
    TooLong,
    /// A byte that does not occur in text.
    Nul,
}

/// The longest record, in bytes. Otherwise a file without line ends would be held in memory whole.
pub(crate) const LONGEST_RECORD: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote in a quoted field: it closes the field or is the first of two.
    Closing,
}

/// Passes bytes through and keeps the first faults, with the offset of the quote at fault.
#[derive(Debug)]
pub(crate) struct QuoteCheck<R> {
    inner: R,
    state: State,
    offset: u64,
    opened_at: u64,
    /// Where the current record began.
    record_at: u64,
    /// Whether a record was too long, so that the rest is not read.
    stopped: bool,
    faults: Vec<(u64, QuoteFault)>,
}

const KEPT_FAULTS: usize = 16;

impl<R: Read> QuoteCheck<R> {
    pub(crate) fn new(inner: R) -> Self {
        QuoteCheck {
            inner,
            state: State::FieldStart,
            offset: 0,
            opened_at: 0,
            record_at: 0,
            stopped: false,
            faults: Vec::new(),
        }
    }

    /// The faults, once the file has been read to its end.
    pub(crate) fn faults(&self) -> Vec<(u64, QuoteFault)> {
        let mut faults = self.faults.clone();
        if self.state == State::Quoted && !self.stopped {
            faults.push((self.opened_at, QuoteFault::Unclosed));
        }
        faults
    }

    /// How many of the faults kept so far are before an offset.
    pub(crate) fn seen_before(&self, offset: u64) -> usize {
        self.faults.iter().take_while(|(at, _)| *at < offset).count()
    }

    /// Whether a record was too long, so that the rest of the file is not read.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    fn scan(&mut self, block: &[u8]) {
        if block.contains(&0) && self.faults.iter().all(|(_, fault)| *fault != QuoteFault::Nul) {
            let at = block.iter().position(|byte| *byte == 0).unwrap_or(0);
            self.note(self.offset + at as u64, QuoteFault::Nul);
        }
        let plain = matches!(self.state, State::FieldStart | State::Unquoted);
        // A byte-order mark may come in pieces.
        let past_mark = self.offset > 2 || block.len() > 3;
        if plain && past_mark && !block.contains(&b'"') {
            self.skip_plain(block);
        } else {
            for byte in block {
                self.step(*byte);
                self.offset += 1;
                if self.state == State::FieldStart && is_line_end(*byte) {
                    self.record_at = self.offset;
                }
            }
        }
        if self.offset - self.record_at > LONGEST_RECORD {
            self.stopped = true;
            if self.state == State::Quoted {
                self.note(self.opened_at, QuoteFault::UnclosedSoFar);
            } else {
                self.note(self.record_at, QuoteFault::TooLong);
            }
        }
    }

    /// A block without quotes that starts outside them.
    fn skip_plain(&mut self, block: &[u8]) {
        let Some(last) = block.last() else { return };
        self.state = after_plain(*last);
        if let Some(end) = block.iter().rposition(|byte| is_line_end(*byte)) {
            self.record_at = self.offset + end as u64 + 1;
        }
        self.offset += block.len() as u64;
    }

    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            // The byte-order mark is not a part of the first field.
            (State::FieldStart, 0xef) if self.offset == 0 => State::FieldStart,
            (State::FieldStart, 0xbb | 0xbf) if self.offset < 3 => State::FieldStart,
            (State::FieldStart, b'"') => {
                self.opened_at = self.offset;
                State::Quoted
            }
            (State::Unquoted, b'"') => {
                self.note(self.offset, QuoteFault::Stray);
                State::Unquoted
            }
            (State::FieldStart | State::Unquoted, other) => after_plain(other),
            (State::Quoted, b'"') => State::Closing,
            (State::Quoted, _) => State::Quoted,
            (State::Closing, b'"') => State::Quoted,
            (State::Closing, b',' | b'\n' | b'\r') => State::FieldStart,
            (State::Closing, _) => {
                self.note(self.opened_at, QuoteFault::AfterClosing);
                State::Unquoted
            }
        };
    }

    fn note(&mut self, offset: u64, fault: QuoteFault) {
        if self.faults.len() < KEPT_FAULTS {
            // In the order of the file: a NUL is seen before the quotes of its block are.
            let place = self.faults.partition_point(|(at, _)| *at <= offset);
            self.faults.insert(place, (offset, fault));
        }
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn after_plain(byte: u8) -> State {
    match byte {
        b',' | b'\n' | b'\r' => State::FieldStart,
        _ => State::Unquoted,
    }
}

impl<R: Read> Read for QuoteCheck<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.stopped {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        self.scan(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<(u64, QuoteFault)> {
        // Blocks of every size: the state must carry over.
        let whole: Vec<_> = (1..=text.len())
            .map(|size| {
                let mut check = QuoteCheck::new(std::io::empty());
                text.as_bytes().chunks(size).for_each(|block| check.scan(block));
                check.faults()
            })
            .collect();
        assert!(whole.iter().all(|f| *f == whole[0]), "{text:?}: {whole:?}");
        whole[0].clone()
    }

    #[test]
    fn sound_quoting_has_no_fault() {
        for text in [
            "a,b\n1,2\n",
            "\"a\",\"b,c\"\r\n\"d\"\"e\",\"\"\n",
            "\u{feff}\"a\",b\n",
            "\"two\nlines\",x\n",
        ] {
            assert_eq!(faults(text), [], "{text:?}");
        }
    }

    #[test]
    fn a_record_without_an_end_is_not_read_to_it() {
        for (start, fault) in [
            ("a\nb", (2, QuoteFault::TooLong)),
            ("a\n\"b", (2, QuoteFault::UnclosedSoFar)),
        ] {
            let endless = start.as_bytes().chain(std::io::repeat(b'x'));
            let mut check = QuoteCheck::new(endless);
            let read = std::io::copy(&mut check, &mut std::io::sink()).unwrap();
            assert!(read < LONGEST_RECORD + (1 << 18), "{read}");
            assert_eq!(check.faults(), [fault]);
        }
        let longest = "x".repeat(LONGEST_RECORD as usize - 1) + "\n";
        let mut check = QuoteCheck::new(std::io::empty());
        check.scan(longest.repeat(2).as_bytes());
        assert_eq!(check.faults(), []);
    }

    #[test]
    fn faults_are_at_their_quotes() {
        assert_eq!(faults("a\nb\"c,d\n"), [(3, QuoteFault::Stray)]);
        assert_eq!(faults("a\n\"b\"c,d\n"), [(2, QuoteFault::AfterClosing)]);
        assert_eq!(faults("a,b\n1,\"2\n3,4\n"), [(6, QuoteFault::Unclosed)]);
        assert_eq!(faults("a,b\n1\0,2\0\n"), [(5, QuoteFault::Nul)]);
    }
}
