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

/// The numbers of the struct at `at`, and where it ends.
fn spots(bytes: &[u8], mut at: usize, found: &mut Vec<Spot>) -> usize {
    loop {
        let head = bytes[at];
        at += 1;
        if head == 0 {
            return at;
        }
        if head >> 4 == 0 {
            at = number(bytes, at, true, found).1;
        }
        at = match head & 0x0f {
            1 | 2 => at,
            kind => value(bytes, at, kind, found),
        };
    }
}

fn value(bytes: &[u8], at: usize, kind: u8, found: &mut Vec<Spot>) -> usize {
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

fn number(bytes: &[u8], at: usize, signed: bool, found: &mut Vec<Spot>) -> (u64, usize) {
    let length = 1 + bytes[at..].iter().position(|byte| *byte < 0x80).unwrap();
    let number = (0..length).fold(0, |n, i| n | u64::from(bytes[at + i] & 0x7f) << (7 * i));
    found.push(Spot { at, length, signed });
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
    let raw = number(bytes, spot.at, spot.signed, &mut Vec::new()).0;
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

/// The numbers of every page's header, and where its own bytes start.
fn pages(bytes: &[u8]) -> Vec<(Vec<Spot>, usize)> {
    let mut pages = Vec::new();
    for chunk in metadata(bytes)
        .row_groups()
        .iter()
        .flat_map(|group| group.columns())
    {
        let (mut at, length) = chunk.byte_range();
        let end = at + length;
        while at < end {
            let mut found = Vec::new();
            let start = spots(bytes, at as usize, &mut found);
            // The third number is the compressed size.
            let size = number(bytes, found[2].at, true, &mut Vec::new()).0 >> 1;
            pages.push((found, start));
            at = start as u64 + size;
        }
    }
    pages
}

/// A damaged copy of a file, and what was done to it.
pub(crate) fn damaged(base: &[u8], structured: bool, rng: &mut ChaCha8Rng) -> (Vec<u8>, String) {
    if !structured {
        return anywhere(base, rng);
    }
    match rng.random_range(0..5) {
        0 | 1 => footer(base, rng),
        2 | 3 => page_header(base, rng),
        _ => page_start(base, rng),
    }
}

fn footer(base: &[u8], rng: &mut ChaCha8Rng) -> (Vec<u8>, String) {
    let start = footer_start(base);
    let mut footer = base[start..base.len() - 8].to_vec();
    let mut found = Vec::new();
    spots(&footer, 0, &mut found);
    let changes = rng.random_range(1..3);
    let mut places: Vec<usize> = (0..changes).map(|_| rng.random_range(0..found.len())).collect();
    // From the last on, as a change moves what follows it.
    places.sort_unstable_by(|a, b| b.cmp(a));
    places.dedup();
    for place in &places {
        let spot = found[*place];
        let new = replacement(&footer, spot, rng);
        footer.splice(spot.at..spot.at + spot.length, new);
    }
    let length = (footer.len() as u32).to_le_bytes();
    (
        [&base[..start], &footer[..], &length[..], b"PAR1"].concat(),
        format!("numbers {places:?} of the footer"),
    )
}

/// Changes a number of a page's header, and moves what follows without a further contradiction.
fn page_header(base: &[u8], rng: &mut ChaCha8Rng) -> (Vec<u8>, String) {
    let pages = pages(base);
    let (found, _) = &pages[rng.random_range(0..pages.len())];
    let place = rng.random_range(0..found.len());
    let spot = found[place];
    let new = replacement(base, spot, rng);
    let grown = new.len() as i64 - spot.length as i64;
    let mut bytes = base[..footer_start(base)].to_vec();
    bytes.splice(spot.at..spot.at + spot.length, new);
    let moved = |offset: i64| {
        if offset > spot.at as i64 {
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
            let inside = (start..start + length).contains(&(spot.at as u64));
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
    (
        bytes,
        format!("number {place} of the page header before byte {}", spot.at),
    )
}

/// Changes the first bytes of a page, where encodings keep their own headers.
fn page_start(base: &[u8], rng: &mut ChaCha8Rng) -> (Vec<u8>, String) {
    let pages = pages(base);
    let (_, start) = pages[rng.random_range(0..pages.len())];
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
