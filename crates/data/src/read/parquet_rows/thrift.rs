//! Thrift's compact protocol, as far as Parquet's headers need it, in slices: nothing is allocated.

/// Wire types of fields and of elements of lists.
pub(super) const I32: u8 = 5;
pub(super) const LIST: u8 = 9;
pub(super) const STRUCT: u8 = 12;

/// The deepest nesting that is followed; Parquet's own structures nest five deep.
const DEEPEST: u8 = 32;

/// A place in bytes. `None` from a method says that the bytes end early or are no such thing.
pub(super) struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Compact<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Compact { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn pass(&mut self, count: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(count).ok()?)?;
        (end <= self.bytes.len()).then(|| self.at = end)
    }

    /// The next `count` bytes.
    pub(super) fn slice(&mut self, count: u64) -> Option<&'a [u8]> {
        let start = self.at;
        self.pass(count)?;
        self.bytes.get(start..self.at)
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// An unsigned number of seven bits a byte.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// A signed number, its sign in the lowest bit.
    pub(super) fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Reads a struct; `field` is called with the number and wire type of each of its fields and says whether it has read
    /// the value.
    pub(super) fn fields(&mut self, mut field: impl FnMut(&mut Self, i64, u8) -> Option<bool>) -> Option<()> {
        self.fields_at(0, &mut field)
    }

    fn fields_at(
        &mut self,
        depth: u8,
        field: &mut dyn FnMut(&mut Self, i64, u8) -> Option<bool>,
    ) -> Option<()> {
        let mut id = 0;
        loop {
            let head = self.byte()?;
            let kind = head & 0x0f;
            if kind == 0 {
                return Some(());
            }
            id = match head >> 4 {
                0 => self.signed()?,
                step => i64::from(step).checked_add(id)?,
            };
            if !field(self, id, kind)? {
                self.skip(kind, depth)?;
            }
        }
    }

    /// Wire type and number of a list's elements, of which each takes a byte at least.
    pub(super) fn list(&mut self) -> Option<(u8, usize)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => usize::try_from(self.number()?).ok()?,
            few => usize::from(few),
        };
        (count <= self.bytes.len() - self.at).then_some((head & 0x0f, count))
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Option<()> {
        if depth == DEEPEST {
            return None;
        }
        match kind {
            1 | 2 => Some(()),
            3 => self.pass(1),
            4..=6 => self.number().map(drop),
            7 => self.pass(8),
            8 => {
                let length = self.number()?;
                self.pass(length)
            }
            LIST | 10 => {
                let (element, count) = self.list()?;
                for _ in 0..count {
                    self.skip_element(element, depth + 1)?;
                }
                Some(())
            }
            11 => {
                let count = self.number()?;
                if count > 0 {
                    let kinds = self.byte()?;
                    for _ in 0..count {
                        self.skip_element(kinds >> 4, depth + 1)?;
                        self.skip_element(kinds & 0x0f, depth + 1)?;
                    }
                }
                Some(())
            }
            STRUCT => self.fields_at(depth + 1, &mut |_, _, _| Some(false)),
            13 => self.pass(16),
            _ => None,
        }
    }

    /// Skips an element of a list or map: unlike a field, a truth value takes a byte.
    fn skip_element(&mut self, kind: u8, depth: u8) -> Option<()> {
        match kind {
            1 | 2 => self.pass(1),
            _ => self.skip(kind, depth),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_the_rest_is_skipped() {
        // 1: i32 -3; 2: list of two i32; 4: binary of two bytes; 5: struct with 1: i32; 6: true; 7: i32 200.
        let bytes = [
            0x15, 5, 0x19, 0x25, 2, 4, 0x28, 2, 9, 9, 0x1c, 0x15, 2, 0, 0x11, 0x15, 0x90, 3, 0,
        ];
        let mut found = Vec::new();
        let mut compact = Compact::new(&bytes);
        compact
            .fields(|c, id, kind| {
                Some(if kind == I32 {
                    found.push((id, c.signed()?));
                    true
                } else {
                    false
                })
            })
            .unwrap();
        assert_eq!(found, [(1, -3), (7, 200)]);
        assert_eq!(compact.at(), bytes.len());
        for length in 0..bytes.len() {
            assert!(
                Compact::new(&bytes[..length])
                    .fields(|_, _, _| Some(false))
                    .is_none()
            );
        }
    }

    #[test]
    fn what_cannot_be_is_not_followed() {
        // A list of 2^31 elements in a few bytes, and structs in structs without end.
        let mut list = vec![0x19, 0xfc];
        list.extend([0xff, 0xff, 0xff, 0xff, 0x07, 0, 0]);
        assert!(Compact::new(&list).fields(|_, _, _| Some(false)).is_none());
        let deep = vec![0x1c; 1_000_000];
        assert!(Compact::new(&deep).fields(|_, _, _| Some(false)).is_none());
    }
}
