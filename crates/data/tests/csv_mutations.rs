//! Damaged and hostile CSV files: read or refused with a short message, in memory that the file's size bounds.
//!
//! `INFERMARK_CSV_MUTATIONS` sets how many files are tried.

mod counting;
mod in_parts;

use infermark_data::{Columns, read_panel};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

const ROOM: usize = 200 << 20;
const LONGEST_MESSAGE: usize = 8 << 10;

/// Whether the file was read, and the peak of memory; panics if that, or the message, is too large.
fn attempt(path: &Path, bytes: &[u8], what: &str) -> (bool, usize) {
    std::fs::write(path, bytes).unwrap();
    let before = counting::start();
    let read = read_panel(path, &Columns::default());
    let peak = counting::peak() - before;
    assert!(
        peak <= 20 * bytes.len() + ROOM,
        "{what}: {peak} bytes of memory for a file of {}",
        bytes.len()
    );
    // By several ranks as well, of some files.
    if bytes.len().is_multiple_of(8) {
        let _ = in_parts::read_panel(path, &Columns::default());
    }
    let read = match read {
        Ok(_) => true,
        Err(e) => {
            let message = e.to_string();
            assert!(
                message.len() <= LONGEST_MESSAGE,
                "{what}: {} bytes: {message}",
                message.len()
            );
            false
        }
    };
    (read, peak)
}

/// Sound files of several kinds.
fn bases() -> Vec<Vec<u8>> {
    let header = "product,category,week,price,units";
    let mut files = vec![String::new(); 4];
    for (i, text) in files.iter_mut().enumerate() {
        let end = if i == 1 { "\r\n" } else { "\n" };
        *text += &[header, ",store"].concat()[..header.len() + if i == 2 { 6 } else { 0 }];
        *text += end;
        for product in 0..8 {
            for week in 1..=12 {
                let price = 2.0 + 0.1 * f64::from((product * week) % 7);
                *text += &match i {
                    0 => format!("{},{},{week},{price},{}", 100 + product, product % 2, week % 5),
                    1 => format!(
                        "\"P {product}, \"\"x\"\"\",c{},2024-01-{week:02},{price},{}",
                        product % 3,
                        week % 4
                    ),
                    2 => format!("P{product},c,{week},{price},{},s{week}", week % 4),
                    _ => format!(
                        "{}.0,{}.0,2024{week:02}.0,{price},{}.0",
                        100 + product,
                        product % 2,
                        week % 5
                    ),
                };
                *text += end;
            }
        }
    }
    files.into_iter().map(String::into_bytes).collect()
}

/// Cells that a table should not have, or only rarely.
fn hostile_cell(random: &mut impl Rng) -> Vec<u8> {
    let fixed: [&[u8]; 24] = [
        b"",
        b" ",
        b"\"",
        b"\"\"",
        b"\0",
        b"nan",
        b"-inf",
        b"1e308",
        b"1e-320",
        b"-0",
        b"2147483648",
        b"9223372036854775807",
        b"-9223372036854775808",
        b"99999999999999999999",
        b"0001-01-01",
        b"9999-12-31",
        b"2024-02-30",
        b"1.0",
        b"1",
        b"\xff\xfe",
        "\u{202e}\u{10ffff}".as_bytes(),
        b"a\nb",
        b"=1+1",
        b"\xef\xbb\xbf",
    ];
    match random.random_range(0..28) {
        i if i < fixed.len() => fixed[i].to_vec(),
        24 => vec![random.random(); random.random_range(1..3000)],
        25 => "\u{1}".repeat(random.random_range(1..3000)).into_bytes(),
        26 => random.random::<i64>().to_string().into_bytes(),
        _ => vec![b','; random.random_range(1..200)],
    }
}

fn mutated(base: &[u8], random: &mut impl Rng) -> Vec<u8> {
    let mut file = base.to_vec();
    for _ in 0..random.random_range(1..5) {
        if file.is_empty() {
            break;
        }
        let at = random.random_range(0..file.len());
        let mut lines: Vec<Vec<u8>> = file
            .split_inclusive(|b| *b == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        let line = random.random_range(0..lines.len());
        let other = random.random_range(0..lines.len());
        match random.random_range(0..10) {
            0 => file[at] = random.random(),
            1 => file.insert(at, *b"\",\n\r\0;\t\xff".get(random.random_range(0..8)).unwrap()),
            2 => drop(file.remove(at)),
            3 => file.truncate(at),
            4 => {
                let mut cells: Vec<Vec<u8>> = lines[line].split(|b| *b == b',').map(<[u8]>::to_vec).collect();
                let cell = random.random_range(0..cells.len());
                cells[cell] = hostile_cell(random);
                lines[line] = cells.join(&b","[..]);
                file = lines.concat();
            }
            5 => {
                lines.remove(line);
                file = lines.concat();
            }
            6 => {
                let copies = vec![lines[line].clone(); random.random_range(1..300)];
                lines.splice(line..line, copies);
                file = lines.concat();
            }
            7 => {
                lines.swap(line, other);
                file = lines.concat();
            }
            8 => {
                let (from, to) = *[
                    (b',', b';'),
                    (b'\n', b'\r'),
                    (b'\n', b' '),
                    (b'"', b'\''),
                    (b'1', b'"'),
                ]
                .get(random.random_range(0..5))
                .unwrap();
                file.iter_mut().filter(|b| **b == from).for_each(|b| *b = to);
            }
            _ => {
                let end = random.random_range(at..file.len());
                let part = file[at..end].to_vec();
                let to = random.random_range(0..file.len());
                file.splice(to..to, part);
            }
        }
    }
    file
}

/// Large files that are built to take memory or to produce long messages.
fn oversized() -> Vec<(&'static str, Vec<u8>)> {
    let header = "product,category,week,price,units\n";
    let rows = |row: &dyn Fn(usize) -> String, count: usize| {
        let text: String = (0..count).map(row).collect();
        format!("{header}{text}").into_bytes()
    };
    let long = "k".repeat(1000);
    let columns: Vec<String> = (0..1_000_000).map(|i| format!("c{i}")).collect();
    vec![
        ("one line", vec![b'x'; 64 << 20]),
        ("zeros", vec![0; 64 << 20]),
        ("commas", vec![b','; 16 << 20]),
        ("line ends", vec![b'\n'; 16 << 20]),
        ("quotes", vec![b'"'; 16 << 20]),
        ("a header of a million columns", columns.join(",").into_bytes()),
        (
            "rows of a million cells",
            [
                header.as_bytes(),
                &[vec![b','; 1_000_000], b"\n".to_vec()].concat().repeat(20),
            ]
            .concat(),
        ),
        (
            "an open quote",
            [header.as_bytes(), b"\"", &[b'\n'; 32 << 20][..]].concat(),
        ),
        (
            "long keys",
            rows(&|i| format!("{long}{i},{long}{i},1,1,1\n"), 10_000),
        ),
        (
            "as many products as periods",
            rows(&|i| format!("{i},1,{i},1,1\n"), 46_000),
        ),
        (
            "as many categories as periods",
            rows(&|i| format!("{i},{i},{i},1,1\n"), 5_000),
        ),
        ("many products", rows(&|i| format!("{i:x},1,1,1,1\n"), 1_000_000)),
        (
            "many products in turn",
            rows(
                &|i| format!("{:x},1,{},1,1\n", i % 500_000, i / 500_000),
                1_000_000,
            ),
        ),
        (
            "many categories",
            rows(&|i| format!("{i:x},{i:x},1,1,1\n"), 500_000),
        ),
        (
            "many periods",
            rows(&|i| format!("a,1,{},1,1\n", i as i64 * 99_991), 500_000),
        ),
        ("many defects", rows(&|i| format!("{i},{i},x,x,x\n"), 500_000)),
        ("repeated rows", rows(&|_| "1,1,1,1,1\n".into(), 1_000_000)),
    ]
}

#[test]
fn damaged_files_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.csv");
    let bases = bases();
    for base in &bases {
        assert!(attempt(&path, base, "base").0);
    }
    let count: u64 = std::env::var("INFERMARK_CSV_MUTATIONS").map_or(400, |n| n.parse().unwrap());
    let mut read = 0;
    for seed in 0..count {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let file = mutated(&bases[seed as usize % bases.len()], random);
        read += u64::from(attempt(&path, &file, &format!("mutation {seed}")).0);
    }
    println!("{read} of {count} files were read, the others refused");
    for (what, bytes) in oversized() {
        let before = std::time::Instant::now();
        let (read, peak) = attempt(&path, &bytes, what);
        println!(
            "{what}: {:.1} MB, {:.1} MB of memory above the rest, {:.2} s, read: {read}",
            bytes.len() as f64 / 1e6,
            peak as f64 / 1e6,
            before.elapsed().as_secs_f64()
        );
    }
}
