//! What must hold of a footer before the decoder sees it.

use super::Failure;
use super::thrift::{Compact, I32, LIST, STRUCT};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// The deepest schema that is followed; the decoder descends into one by recursion.
const DEEPEST_SCHEMA: usize = 100;

/// Bytes of the footer's length and of the magic after it.
const TAIL: u64 = 8;
const MAGIC: u64 = 4;

/// Whether the footer lies inside the file, holds the lists that it declares, and nests no deeper than it should.
pub(super) fn check(file: &mut File, bytes: u64) -> Result<(), Failure> {
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
    const SCHEMA: i64 = 2;
    let mut depth = Ok(());
    Compact::new(footer).fields(|compact, id, kind| {
        if (id, kind) != (SCHEMA, LIST) {
            return Some(false);
        }
        let (element, count) = compact.list()?;
        if element != STRUCT {
            return None;
        }
        depth = check_schema(compact, count)?;
        Some(true)
    })?;
    Some(depth)
}

/// Follows the schema, which lists its groups before their children.
fn check_schema(compact: &mut Compact<'_>, count: usize) -> Option<Result<(), Failure>> {
    const CHILDREN: i64 = 5;
    // How many children each open group still expects.
    let mut open: Vec<i64> = Vec::new();
    for _ in 0..count {
        let mut children = 0;
        compact.fields(|compact, id, kind| {
            if (id, kind) != (CHILDREN, I32) {
                return Some(false);
            }
            children = compact.signed()?;
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
