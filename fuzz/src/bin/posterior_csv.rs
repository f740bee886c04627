#![no_main]
//! `posterior.csv` of a fit of three products, as `compare` reads it: with the digest that its record says it has.

use infermark_fit_files::digest_writer::DigestWriter;
use infermark_fit_files::fit_folder::FitFolder;
use infermark_fit_files::fit_record::FitRecord;
use infermark_fuzz::{assert_readable, file, place};
use libfuzzer_sys::fuzz_target;
use std::io::{Write, sink};
use std::sync::LazyLock;

static RECORD: LazyLock<FitRecord> = LazyLock::new(|| {
    let fit = include_bytes!("../../corpus/fit_record/laplace");
    let record = fit.split(|byte| *byte == 0).next().expect("a record");
    serde_json::from_slice(record).expect("a sound record")
});

fuzz_target!(|data: &[u8]| {
    let mut digest = DigestWriter::new(sink());
    digest.write_all(data).expect("a sink takes all");
    let mut record = RECORD.clone();
    record.files.insert("posterior.csv".into(), digest.finish());
    let mut json = Vec::new();
    record.write(&mut json).expect("a vector takes all");
    file("posterior/run.json", &json);
    file("posterior/posterior.csv", data);
    match FitFolder::read(&place("posterior")) {
        Ok(fit) => assert_eq!(fit.keys.len(), fit.posterior.layout.latents()),
        Err(error) => assert_readable(&error),
    }
});
