#![no_main]
//! The folder of a fit, as `compare` reads it: `run.json` up to the first zero byte, `posterior.csv` behind it.

use infermark_fuzz::{assert_readable, file, place};
use infermark_fit_files::fit_folder::FitFolder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    file("fit/run.json", parts.next().unwrap_or_default());
    file("fit/posterior.csv", parts.next().unwrap_or_default());
    if let Err(error) = FitFolder::read(&place("fit")) {
        assert_readable(&error);
    }
});
