#![no_main]
//! A sales file as Parquet.

use infermark_data::{Columns, read_panel};
use infermark_fuzz::{assert_readable, file};
use libfuzzer_sys::fuzz_target;
use std::sync::Once;

static SILENT: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    // The decoders' panics are contained by the reader; the fuzzer's own hook would end the process at them.
    SILENT.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let path = file("sales.parquet", data);
    match std::panic::catch_unwind(|| read_panel(&path, &Columns::default())) {
        Ok(Ok(panel)) => assert!(panel.rows() > 0),
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
