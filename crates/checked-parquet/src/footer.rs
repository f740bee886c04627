//! Requirements on a footer, checked before the decoder sees it.

use crate::Failure;
use crate::thrift::{Compact, Fields, Kind, STRUCT};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// The deepest schema that is followed; the decoder descends into one by recursion.
const DEEPEST_SCHEMA: usize = 100;

/// Bytes of the footer's length and of the magic after it.
const TAIL: u64 = 8;
const MAGIC: u64 = 4;

/// The fields of a footer.
const SCHEMA: i64 = 2;
const FILE: Fields = &[
    (1, Kind::I32),
    (SCHEMA, Kind::List),
    (3, Kind::I64),
    (4, Kind::List),
    (5, Kind::List),
    (6, Kind::Binary),
    (7, Kind::List),
];

/// The fields of an element of the schema.
const CHILDREN: i64 = 5;
const ELEMENT: Fields = &[
    (1, Kind::I32),
    (2, Kind::I32),
    (3, Kind::I32),
    (4, Kind::Binary),
    (CHILDREN, Kind::I32),
    (6, Kind::I32),
    (7, Kind::I32),
    (8, Kind::I32),
    (9, Kind::I32),
    (10, Kind::Struct(LOGICAL_TYPE)),
];

const LOGICAL_TYPE: Fields = &[
    (1, Kind::Struct(&[])),
    (2, Kind::Struct(&[])),
    (3, Kind::Struct(&[])),
    (4, Kind::Struct(&[])),
    // Decimals.
    (5, Kind::Struct(&[(1, Kind::I32), (2, Kind::I32)])),
    (6, Kind::Struct(&[])),
    // Times and timestamps.
    (7, Kind::Struct(TIME)),
    (8, Kind::Struct(TIME)),
    // Whole numbers.
    (10, Kind::Struct(&[(1, Kind::Byte), (2, Kind::Bool)])),
    (11, Kind::Struct(&[])),
    (12, Kind::Struct(&[])),
    (13, Kind::Struct(&[])),
    (14, Kind::Struct(&[])),
    (15, Kind::Struct(&[])),
    // Variants, geometries and geographies.
    (16, Kind::Struct(&[(1, Kind::Byte)])),
    (17, Kind::Struct(&[(1, Kind::Binary)])),
    (18, Kind::Struct(&[(1, Kind::Binary), (2, Kind::I32)])),
    (19, Kind::Struct(&[])),
];

const TIME: Fields = &[(1, Kind::Bool), (2, Kind::Struct(UNIT))];
const UNIT: Fields = &[
    (1, Kind::Struct(&[])),
    (2, Kind::Struct(&[])),
    (3, Kind::Struct(&[])),
];

/// Whether the footer lies inside the file, holds the lists that it declares, and nests no deeper than it should.
pub(crate) fn check(file: &mut File, bytes: u64) -> Result<(), Failure> {
    if bytes < TAIL + MAGIC {
        return Err(Failure::damaged("it is too short to have a footer"));
    }
    let mut tail = [0; TAIL as usize];
    file.seek(SeekFrom::Start(bytes - TAIL))?;
    file.read_exact(&mut tail)?;
    let [a, b, c, d, magic @ ..] = tail;
    match &magic {
        b"PAR1" => {}
        b"PARE" => return Err(Failure::damaged("its footer is encrypted")),
        _ => return Err(Failure::damaged("it has no footer at its end")),
    }
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    if length > bytes - TAIL - MAGIC {
        return Err(Failure::damaged(format!(
            "it declares a footer of {length} bytes and has {bytes} bytes itself"
        )));
    }
    file.seek(SeekFrom::Start(bytes - TAIL - length))?;
    let mut footer = Vec::new();
    file.take(length).read_to_end(&mut footer)?;
    check_lists(&footer).ok_or_else(|| Failure::damaged("its footer cannot be followed"))?
}

fn check_lists(footer: &[u8]) -> Option<Result<(), Failure>> {
    let mut depth = Ok(());
    let mut last = 0;
    let followed = Compact::new(footer).fields(FILE, |compact, id| {
        // Every writer keeps this order. So only the version comes before the schema, and a footer that is
        // not followed to its end here cannot hide another schema from these checks.
        if id <= last {
            return None;
        }
        last = id;
        if id != SCHEMA {
            return Some(false);
        }
        let (element, count) = compact.list()?;
        if element != STRUCT {
            return None;
        }
        depth = check_schema(compact, count)?;
        depth.is_ok().then_some(true)
    });
    match depth {
        Ok(()) => followed.map(Ok),
        Err(_) => Some(depth),
    }
}

/// Follows the schema, which lists its groups before their children.
fn check_schema(compact: &mut Compact<'_>, count: usize) -> Option<Result<(), Failure>> {
    // How many children each open group still expects.
    let mut open: Vec<i64> = Vec::new();
    for _ in 0..count {
        let mut children = 0;
        compact.fields(ELEMENT, |compact, id| {
            if id != CHILDREN {
                return Some(false);
            }
            children = i64::from(compact.signed_32()?);
            Some(true)
        })?;
        if !(0..=count as i64).contains(&children) {
            return Some(Err(Failure::damaged(format!(
                "a group of its schema of {count} elements declares {children} children"
            ))));
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        open.push(children);
        while open.last() == Some(&0) {
            open.pop();
        }
        if open.len() > DEEPEST_SCHEMA {
            return Some(Err(Failure::damaged(format!(
                "its schema nests more than {DEEPEST_SCHEMA} groups"
            ))));
        }
    }
    Some(Ok(()))
}
