#![no_main]
//! `baseline.json`, as `report` reads it, and the output derived from it.

use infermark_fuzz::{assert_readable, file, place};
use infermark_report::baseline::BaselineComparison;
use infermark_report::records::results_folder::ResultsFolder;
use infermark_report::table::baseline::section;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    file("compared/baseline.json", data);
    match BaselineComparison::kept_in(&ResultsFolder::existing(&place("compared"))) {
        Ok(Some(comparison)) => {
            assert!(!section(&comparison).is_empty());
            comparison.write_csv(std::io::sink()).expect("a sink takes all");
        }
        Ok(None) => panic!("it was written"),
        Err(error) => assert_readable(&error),
    }
});
