#![no_main]
//! `draws.parquet` of three products, as `compare` reads it.

use infermark_fit_files::draws_parquet::read_elasticity_draws;
use infermark_fuzz::{assert_readable, file};
use libfuzzer_sys::fuzz_target;
use std::fs::File;
use std::sync::Once;

static SILENT: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    // The decoders' panics are contained by the reader; the fuzzer's own hook would end the process at them.
    SILENT.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let path = file("draws.parquet", data);
    let read = || read_elasticity_draws(File::open(path).expect("it was written"), 3);
    match std::panic::catch_unwind(read) {
        Ok(Ok(Some(draws))) => assert!(draws.values.len().is_multiple_of(3)),
        Ok(Ok(None)) => {}
        Ok(Err(error)) => {
            assert_readable(&error);
            // So it says where the reader itself panicked, and not the decoder.
            if error.to_string().contains("a fault of this program") {
                std::process::abort();
            }
        }
        Err(_) => std::process::abort(),
    }
});
