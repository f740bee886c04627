#![no_main]
//! Prior settings.

use infermark_fuzz::{assert_readable, file};
use infermark_fit_files::given::GivenPriors;
use infermark_model::Priors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = file("priors.json", data);
    match GivenPriors::read(Some(&path)).and_then(|given| given.over(Priors::default())) {
        Ok(priors) => assert!(priors.validate().is_ok()),
        Err(error) => assert_readable(&format!("{error:#}")),
    }
});
