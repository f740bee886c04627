#![no_main]
//! `draws.parquet` of three products, as `compare` reads it.

use infermark_fit_files::draws_parquet::read_elasticity_draws;
use infermark_fuzz::{assert_readable, file};
use libfuzzer_sys::fuzz_target;
use std::fs::File;

fuzz_target!(|data: &[u8]| {
    let path = file("draws.parquet", data);
    match read_elasticity_draws(File::open(path).expect("it was written"), 3) {
        Ok(Some(draws)) => assert!(draws.values.len().is_multiple_of(3)),
        Ok(None) => {}
        Err(error) => assert_readable(&error),
    }
});
