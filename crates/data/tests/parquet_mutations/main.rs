//! Parquet files with damage of every kind: each is read or refused, and none takes much memory or panics.

mod bases;
#[path = "../counting/mod.rs"]
mod counting;
mod damage;

use damage::damaged;
use infermark_data::{Columns, read_panel};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many damaged files of each sort are read without the variable below.
const ORDINARY: u64 = 400;

/// Says how many files of each sort are read instead.
const MANY: &str = "INFERMARK_PARQUET_MUTATIONS";

#[test]
fn damaged_files_are_read_or_refused() {
    let count = std::env::var(MANY).map_or(ORDINARY, |count| count.parse().unwrap());
    let bases = bases::all();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.parquet");
    for (name, base) in &bases {
        std::fs::write(&path, base).unwrap();
        let panel = read_panel(&path, &Columns::default());
        panel.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let page = bases::constant_page();
    std::fs::write(&path, &page).unwrap();
    let before = counting::start();
    assert!(read_panel(&path, &Columns::default()).is_err());
    let grown = counting::peak() - before;
    assert!(
        grown <= 20 * page.len() + 200_000_000,
        "{grown} bytes of memory for {}",
        page.len()
    );
    for structured in [true, false] {
        let (mut read, mut contained, mut failures, mut most) = (0, 0, Vec::new(), (0, String::new()));
        for seed in 0..count {
            let (name, base) = &bases[seed as usize % bases.len()];
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (bytes, what) = damaged(base, structured, &mut rng);
            std::fs::write(&path, &bytes).unwrap();
            let label = format!("{name}, seed {seed}, structured {structured}: {what}");
            let before = counting::start();
            let result = catch_unwind(AssertUnwindSafe(|| {
                let result = read_panel(&path, &Columns::default());
                result.map(drop).map_err(|e| e.to_string())
            }));
            let grown = counting::peak() - before;
            if grown > most.0 {
                most = (grown, label.clone());
            }
            if grown > 20 * bytes.len() + 200_000_000 {
                failures.push(format!("{label}: {grown} bytes of memory for {}", bytes.len()));
            }
            match result {
                Ok(Ok(())) => read += 1,
                Ok(Err(message)) => {
                    contained += u64::from(message.contains("its parts contradict each other"));
                    // A panic of this crate is not due to the damage of the file.
                    if message.contains("a fault of this program")
                        || message.len() > 8_000
                        || !message.starts_with(&path.display().to_string())
                    {
                        failures.push(format!("{label}: {message}"));
                    }
                }
                Err(_) => failures.push(format!("{label}: a panic")),
            }
        }
        println!(
            "structured {structured}: {count} files, {read} read, {contained} with a panic that was contained; \
             at most {} bytes of memory ({})",
            most.0, most.1
        );
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
