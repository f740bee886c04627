//! The part of Thrift's compact protocol that Parquet's headers need, on slices, without allocation.

/// Wire types of lists and structs, as of elements of lists.
const LIST: u8 = 9;
pub(crate) const STRUCT: u8 = 12;

/// What a field of a known number holds. The decoder goes by the number alone: if the file had another wire
/// type, it would read on at another place than the check.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Bool,
    Byte,
    I32,
    I64,
    Binary,
    List,
    Struct(Fields),
}

/// The fields of a struct that the decoder knows, each by its number.
pub(crate) type Fields = &'static [(i64, Kind)];

impl Kind {
    fn is(self, wire: u8) -> bool {
        match self {
            Kind::Bool => matches!(wire, 1 | 2),
            Kind::Byte => wire == 3,
            Kind::I32 => wire == 5,
            Kind::I64 => wire == 6,
            Kind::Binary => wire == 8,
            Kind::List => wire == LIST,
            Kind::Struct(_) => wire == STRUCT,
        }
    }
}

/// The deepest nesting that is followed; Parquet's own structures nest five deep.
const DEEPEST: u8 = 32;

/// A position in bytes. `None` from a method means that the bytes end early or are invalid.
pub(crate) struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Compact<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Compact { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(crate) fn pass(&mut self, count: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(count).ok()?)?;
        (end <= self.bytes.len()).then(|| self.at = end)
    }

    /// The next `count` bytes.
    pub(crate) fn slice(&mut self, count: u64) -> Option<&'a [u8]> {
        let start = self.at;
        self.pass(count)?;
        self.bytes.get(start..self.at)
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// An unsigned number with seven bits per byte.
    pub(crate) fn number(&mut self) -> Option<u64> {
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
    pub(crate) fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A signed number of 32 bits; the decoder would cut a longer one.
    pub(crate) fn signed_32(&mut self) -> Option<i32> {
        i32::try_from(self.signed()?).ok()
    }

    /// Reads a struct, of which the fields in `known` must be of their kinds; `field` is called with the number of each
    /// and says whether it has read the value.
    pub(crate) fn fields(
        &mut self,
        known: Fields,
        mut field: impl FnMut(&mut Self, i64) -> Option<bool>,
    ) -> Option<()> {
        self.fields_at(0, known, &mut field)
    }

    fn fields_at(
        &mut self,
        depth: u8,
        known: Fields,
        field: &mut dyn FnMut(&mut Self, i64) -> Option<bool>,
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
            // The decoder keeps 16 bits of it.
            i16::try_from(id).ok()?;
            match known.iter().find(|(number, _)| *number == id) {
                None => self.skip(kind, depth)?,
                Some((_, expected)) if !expected.is(kind) => return None,
                Some((_, expected)) => {
                    if !field(self, id)? {
                        self.skip_known(*expected, kind, depth)?;
                    }
                }
            }
        }
    }

    /// Wire type and number of a list's elements, each of which takes at least one byte.
    pub(crate) fn list(&mut self) -> Option<(u8, usize)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => usize::try_from(self.number()?).ok()?,
            few => usize::from(few),
        };
        (count <= self.bytes.len() - self.at).then_some((head & 0x0f, count))
    }

    fn skip_known(&mut self, expected: Kind, kind: u8, depth: u8) -> Option<()> {
        match expected {
            Kind::I32 => self.signed_32().map(drop),
            Kind::Struct(fields) if depth < DEEPEST => {
                self.fields_at(depth + 1, fields, &mut |_, _| Some(false))
            }
            _ => self.skip(kind, depth),
        }
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
            STRUCT => self.fields_at(depth + 1, &[], &mut |_, _| Some(false)),
            13 => self.pass(16),
            _ => None,
        }
    }

    /// Skips an element of a list or map. A Boolean takes a byte there, but the decoder reads none: a list of
    /// them, which no footer or page header needs, is not followed.
    fn skip_element(&mut self, kind: u8, depth: u8) -> Option<()> {
        match kind {
            1 | 2 => None,
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
            .fields(&[(1, Kind::I32), (2, Kind::List), (7, Kind::I32)], |c, id| {
                Some(if id == 2 {
                    false
                } else {
                    found.push((id, c.signed()?));
                    true
                })
            })
            .unwrap();
        assert_eq!(found, [(1, -3), (7, 200)]);
        assert_eq!(compact.at(), bytes.len());
        for length in 0..bytes.len() {
            assert!(
                Compact::new(&bytes[..length])
                    .fields(&[], |_, _| Some(false))
                    .is_none()
            );
        }
    }

    #[test]
    fn what_cannot_be_is_not_followed() {
        // A list of 2^31 elements in a few bytes, and structs in structs without end.
        let mut list = vec![0x19, 0xfc];
        list.extend([0xff, 0xff, 0xff, 0xff, 0x07, 0, 0]);
        assert!(followed(&list, &[]).is_none());
        let deep = vec![0x1c; 1_000_000];
        assert!(followed(&deep, &[]).is_none());
        // A number of a field beyond 16 bits, and a list of truth values.
        assert!(followed(&[0x05, 0x80, 0x80, 0x08, 2, 0], &[]).is_none());
        assert!(followed(&[0x19, 0x21, 1, 1, 0], &[]).is_none());
    }

    #[test]
    fn a_known_field_is_of_its_kind() {
        const INNER: Fields = &[(1, Kind::I32)];
        const OUTER: Fields = &[(1, Kind::I32), (2, Kind::Bool), (3, Kind::Struct(INNER))];
        // 1: i32 1; 2: true; 3: struct with 1: i32 1 and 2: i64 2.
        let sound = [0x15, 2, 0x11, 0x1c, 0x15, 2, 0x16, 4, 0, 0];
        assert!(followed(&sound, OUTER).is_some());
        for (at, head) in [(0, 0x16), (2, 0x14), (3, 0x1b), (4, 0x16)] {
            let mut other = sound;
            other[at] = head;
            assert!(followed(&other, OUTER).is_none(), "{at}");
        }
        // 1: i32 2^32 + 1.
        assert!(followed(&[0x15, 0x82, 0x80, 0x80, 0x80, 0x20, 0], OUTER).is_none());
    }

    fn followed(bytes: &[u8], known: Fields) -> Option<()> {
        Compact::new(bytes).fields(known, |_, _| Some(false))
    }
}
