#![no_main]
//! A sales file as CSV.

use infermark_data::{Columns, read_panel};
use infermark_fuzz::{assert_readable, file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match read_panel(&file("sales.csv", data), &Columns::default()) {
        Ok(panel) => assert!(panel.rows() > 0),
        Err(error) => assert_readable(&error),
    }
});
