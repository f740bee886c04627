//! A `draws.parquet` with every byte damaged in several ways, and cut off at every byte: read or refused, never a panic.

use infermark_backend::{DrawStatistics, Draws, SiteDraws};
use infermark_fit_files::draws_parquet::{read_elasticity_draws, write_draws_parquet};
use infermark_model::{Layout, Likelihood, Site};
use std::fs::File;
use std::io::{Seek, Write};

const PRODUCTS: usize = 3;

fn draws() -> Draws {
    let layout = Layout {
        products: PRODUCTS,
        categories: 2,
        periods: 4,
        likelihood: Likelihood::Poisson,
    };
    let (chains, draws) = (2, 5);
    let statistics = DrawStatistics {
        diverging: false,
        tree_depth: 2,
        leapfrog_steps: 3,
        acceptance: 0.75,
        step_size: 0.5,
        energy: -1.5,
        log_joint: 1.5,
    };
    let values = |site: Site| (0..chains * draws * layout.len(site)).map(|i| i as f64 + 0.25);
    Draws {
        layout,
        chains,
        draws,
        sites: [Site::GlobalA, Site::ProductA]
            .map(|site| SiteDraws {
                site,
                values: values(site).collect(),
            })
            .to_vec(),
        statistics: vec![statistics; chains * draws],
    }
}

fn read(file: &mut File, bytes: &[u8]) -> std::io::Result<Option<SiteDraws>> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(bytes)?;
    read_elasticity_draws(file.try_clone()?, PRODUCTS)
}

#[test]
fn damaged_draws_are_read_or_refused() {
    let whole = draws();
    let mut bytes = Vec::new();
    write_draws_parquet(&mut bytes, &whole).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    assert_eq!(read(&mut file, &bytes).unwrap().as_ref(), whole.sites.get(1));

    let mut refused = 0;
    let mut check = |damaged: &[u8], what: &str| match read(&mut file, damaged) {
        // Damage to a number, or to a column that is not read, cannot be seen: `run.json` has the file's digest.
        Ok(found) => assert!(
            found.is_none_or(|found| found.values.len() % PRODUCTS == 0),
            "{what}"
        ),
        Err(error) => {
            refused += 1;
            let text = error.to_string();
            assert!(
                text.len() < 500 && !text.contains("a fault of this program"),
                "{what}: {text}"
            );
        }
    };
    for at in 0..bytes.len() {
        check(&bytes[..at], &format!("cut off at {at}"));
        let mut damaged = bytes.clone();
        for byte in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1] {
            damaged[at] = byte;
            check(&damaged, &format!("byte {at} is {byte}"));
        }
        // A varint of eight bytes more, negative where it is signed.
        damaged[at] = bytes[at];
        damaged.splice(at..at, [0xff; 8]);
        check(&damaged, &format!("eight bytes inserted at {at}"));
    }
    assert!(refused > 2 * bytes.len(), "{refused} of {} bytes", bytes.len());
}

#[test]
fn draws_of_other_products_are_refused() {
    let mut file = tempfile::tempfile().unwrap();
    write_draws_parquet(&file, &draws()).unwrap();
    file.rewind().unwrap();
    let error = read_elasticity_draws(file, PRODUCTS + 1).unwrap_err();
    assert_eq!(error.to_string(), "its product_a are not of 4 products");
}
