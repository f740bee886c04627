//! Damage to a sound file: to a field of a header, which stays readable, or to bytes anywhere.

use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A number in thrift's compact protocol.
#[derive(Debug, Clone, Copy)]
struct Spot {
    at: usize,
    length: usize,
    /// Whether its sign is in the lowest bit; lengths have none.
    signed: bool,
}

/// The parts of a header that can be changed.
#[derive(Debug, Default)]
struct Found {
    numbers: Vec<Spot>,
    /// Where its fields start: each head holds the increment of the field number, and the wire type.
    heads: Vec<usize>,
}

/// The numbers and heads of the struct at `at`, and where it ends.
fn spots(bytes: &[u8], mut at: usize, found: &mut Found) -> usize {
    loop {
        let head = bytes[at];
        at += 1;
        if head == 0 {
            return at;
        }
        found.heads.push(at - 1);
        if head >> 4 == 0 {
            at = number(bytes, at, true, found).1;
        }
        at = match head & 0x0f {
            1 | 2 => at,
            kind => value(bytes, at, kind, found),
        };
    }
}

fn value(bytes: &[u8], at: usize, kind: u8, found: &mut Found) -> usize {
    match kind {
        1..=3 => at + 1,
        4..=6 => number(bytes, at, true, found).1,
        7 => at + 8,
        8 => {
            let (length, at) = number(bytes, at, false, found);
            at + length as usize
        }
        9 => {
            let (mut count, mut next) = (u64::from(bytes[at] >> 4), at + 1);
            if count == 15 {
                (count, next) = number(bytes, next, false, found);
            }
            (0..count).fold(next, |next, _| value(bytes, next, bytes[at] & 0x0f, found))
        }
        12 => spots(bytes, at, found),
        other => panic!("wire type {other}"),
    }
}

fn number(bytes: &[u8], at: usize, signed: bool, found: &mut Found) -> (u64, usize) {
    let length = 1 + bytes[at..].iter().position(|byte| *byte < 0x80).unwrap();
    let number = (0..length).fold(0, |n, i| n | u64::from(bytes[at + i] & 0x7f) << (7 * i));
    found.numbers.push(Spot { at, length, signed });
    (number, at + length)
}

fn encoded(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Another value for the number at a spot.
fn replacement(bytes: &[u8], spot: Spot, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let raw = number(bytes, spot.at, spot.signed, &mut Found::default()).0;
    let old = (raw >> 1) as i64 ^ -((raw & 1) as i64);
    let values = [
        0,
        1,
        -1,
        old.wrapping_add(1),
        old.wrapping_sub(1),
        old.wrapping_mul(2),
        old.wrapping_neg(),
        i64::from(i32::MAX),
        i64::from(i32::MIN),
        1 << 32,
        1 << 40,
        i64::MAX,
        i64::MIN,
        rng.random_range(0..100),
        rng.random_range(0..1 << 24),
    ];
    let value = values[rng.random_range(0..values.len())];
    encoded(if spot.signed {
        ((value << 1) ^ (value >> 63)) as u64
    } else {
        value as u64
    })
}

fn footer_start(bytes: &[u8]) -> usize {
    let tail = bytes.len() - 8;
    tail - u32::from_le_bytes(bytes[tail..tail + 4].try_into().unwrap()) as usize
}

fn metadata(bytes: &[u8]) -> ParquetMetaData {
    ParquetMetaDataReader::decode_metadata(&bytes[footer_start(bytes)..bytes.len() - 8]).unwrap()
}

/// A page of a file.
struct Page {
    /// What its header holds, and where that is.
    found: Found,
    header: usize,
    /// Its own bytes.
    bytes: std::ops::Range<usize>,
    /// Where its chunk ends.
    chunk_end: usize,
}

fn pages(bytes: &[u8]) -> Vec<Page> {
    let mut pages = Vec::new();
    for chunk in metadata(bytes)
        .row_groups()
        .iter()
        .flat_map(|group| group.columns())
    {
        let (mut at, length) = chunk.byte_range();
        let end = at + length;
        while at < end {
            let mut found = Found::default();
            let start = spots(bytes, at as usize, &mut found);
            // The third number is the compressed size.
            let size = number(bytes, found.numbers[2].at, true, &mut Found::default()).0 >> 1;
            let header = at as usize;
            at = start as u64 + size;
            pages.push(Page {
                found,
                header,
                bytes: start..at as usize,
                chunk_end: end as usize,
            });
        }
    }
    pages
}

/// A damaged copy of a file, and what was done to it.
pub(crate) fn damaged(base: &[u8], structured: bool, rng: &mut ChaCha8Rng) -> (Vec<u8>, String) {
    if !structured {
        return anywhere(base, rng);
    }
    match rng.random_range(0..8) {
        0 | 1 => footer(base, rng),
        2 | 3 => page_header(base, rng),
        4 => page_start(base, rng),
        5 | 6 => field_head(base, rng),
        _ => repeated_page(base, rng),
    }
}

fn footer(base: &[u8], rng: &mut ChaCha8Rng) -> (Vec<u8>, String) {
    let start = footer_start(base);
    let mut footer = base[start..base.len() - 8].to_vec();
    let mut found = Found::default();
    spots(&footer, 0, &mut found);
    let changes = rng.random_range(1..3);
    let mut places: Vec<usize> = (0..changes)
        .map(|_| rng.random_range(0..found.numbers.len()))
        .collect();
    // From the last on, because a change moves what follows it.
    places.sort_unstable_by(|a, b| b.cmp(a));
    places.dedup();
    for place in &places {
        let spot = found.numbers[*place];
        let new = replacement(&footer, spot, rng);
        footer.splice(spot.at..spot.at + spot.length, new);
    }
    let length = (footer.len() as u32).to_le_bytes();
    (
        [&base[..start], &footer[..], &length[..], b"PAR1"].concat(),
        format!("numbers {places:?} of the footer"),
    )
}

/// Changes the wire type or the number of a field of the footer or of a page's header, in place.
fn field_head(base: &[u8], rng: &mut ChaCha8Rng) -> (Vec<u8>, String) {
    let mut found = Found::default();
    if rng.random_range(0..2) == 0 {
        spots(base, footer_start(base), &mut found);
    } else {
        let mut pages = pages(base);
        found = pages.swap_remove(rng.random_range(0..pages.len())).found;
    }
    let at = found.heads[rng.random_range(0..found.heads.len())];
    let mut bytes = base.to_vec();
    bytes[at] = match rng.random_range(0..2) {
        0 => bytes[at] & 0xf0 | rng.random_range(0..16),
        _ => bytes[at] & 0x0f | rng.random_range(0..16) << 4,
    };
    (
        bytes,
        format!("the head of a field at byte {at}, {:#x} before", base[at]),
    )
}

/// Repeats a page at the end of its chunk, with its header changed or not.
fn repeated_page(base: &[u8], rng: &mut ChaCha8Rng) -> (Vec<u8>, String) {
    let pages = pages(base);
    let page = &pages[rng.random_range(0..pages.len())];
    let mut copy = base[page.header..page.bytes.end].to_vec();
    if rng.random_range(0..2) == 0 {
        let spot = page.found.numbers[rng.random_range(0..page.found.numbers.len())];
        let at = spot.at - page.header;
        copy.splice(at..at + spot.length, replacement(base, spot, rng));
    }
    let end = page.chunk_end;
    (
        spliced(base, end..end, copy),
        format!("the page at byte {} once more at {end}", page.header),
    )
}

/// Changes a number of a page's header, and moves what follows without a further contradiction.
fn page_header(base: &[u8], rng: &mut ChaCha8Rng) -> (Vec<u8>, String) {
    let pages = pages(base);
    let found = &pages[rng.random_range(0..pages.len())].found;
    let place = rng.random_range(0..found.numbers.len());
    let spot = found.numbers[place];
    let new = replacement(base, spot, rng);
    (
        spliced(base, spot.at..spot.at + spot.length, new),
        format!("number {place} of the page header before byte {}", spot.at),
    )
}

/// Replaces bytes of a chunk, behind its first one, and moves what follows.
fn spliced(base: &[u8], old: std::ops::Range<usize>, new: Vec<u8>) -> Vec<u8> {
    let grown = new.len() as i64 - old.len() as i64;
    let at = old.start as u64;
    let mut bytes = base[..footer_start(base)].to_vec();
    bytes.splice(old, new);
    let moved = |offset: i64| {
        if offset >= at as i64 {
            offset + grown
        } else {
            offset
        }
    };
    let mut metadata = metadata(base).into_builder();
    let groups = metadata.take_row_groups().into_iter().map(|group| {
        let mut group = group.into_builder();
        let chunks = group.take_columns().into_iter().map(|chunk| {
            let (start, length) = chunk.byte_range();
            let inside = start < at && at <= start + length;
            let data = moved(chunk.data_page_offset());
            let dictionary = chunk.dictionary_page_offset().map(moved);
            let size = chunk.compressed_size() + if inside { grown } else { 0 };
            let chunk = chunk.into_builder().set_data_page_offset(data);
            let chunk = chunk.set_dictionary_page_offset(dictionary);
            chunk.set_total_compressed_size(size).build().unwrap()
        });
        let chunks = chunks.collect();
        group.set_column_metadata(chunks).build().unwrap()
    });
    let groups = groups.collect();
    let metadata = metadata.set_row_groups(groups).build();
    ParquetMetaDataWriter::new(&mut bytes, &metadata)
        .finish()
        .unwrap();
    bytes
}

/// Changes the first bytes of a page, where encodings keep their own headers.
fn page_start(base: &[u8], rng: &mut ChaCha8Rng) -> (Vec<u8>, String) {
    let pages = pages(base);
    let start = pages[rng.random_range(0..pages.len())].bytes.start;
    let mut bytes = base.to_vec();
    let at = start + rng.random_range(0..16);
    let new = encoded(rng.random::<u64>() >> rng.random_range(0..64));
    let end = (at + new.len()).min(bytes.len());
    bytes[at..end].copy_from_slice(&new[..end - at]);
    (bytes, format!("a number at byte {at} of a page from {start} on"))
}

fn anywhere(base: &[u8], rng: &mut ChaCha8Rng) -> (Vec<u8>, String) {
    let mut bytes = base.to_vec();
    let at = rng.random_range(0..bytes.len());
    let end = (at + rng.random_range(1..64)).min(bytes.len());
    let what = match rng.random_range(0..5) {
        0 | 1 => {
            let flips = rng.random_range(1..9);
            for _ in 0..flips {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            format!("{flips} bits")
        }
        2 => {
            bytes[at..end].fill(rng.random());
            format!("bytes {at} to {end} alike")
        }
        3 => {
            rng.fill(&mut bytes[at..end]);
            format!("bytes {at} to {end} at random")
        }
        _ => {
            bytes.drain(at..end);
            format!("bytes {at} to {end} left out")
        }
    };
    (bytes, what)
}
