#![no_main]
//! A case of a benchmark, as `report` reads it, and the tables drawn of it.

use infermark_fuzz::{assert_readable, file, place};
use infermark_report::results_csv::write_results_csv;
use infermark_report::records::results_folder::ResultsFolder;
use infermark_report::table::table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    file("results/runs/000-case.json", data);
    match ResultsFolder::existing(&place("results")).read_cases() {
        Ok(cases) => {
            assert!(!table(&cases).is_empty());
            write_results_csv(std::io::sink(), &cases).expect("a sink takes all");
        }
        Err(error) => assert_readable(&error),
    }
});
