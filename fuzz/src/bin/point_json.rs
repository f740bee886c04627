#![no_main]
//! A point of the parameters of a small panel.

use infermark_fuzz::{assert_readable, file};
use infermark_fit_files::given::read_point;
use infermark_model::Layout;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let layout = Layout::new(3, 2, 2);
    match read_point(&file("point.json", data), &layout) {
        Ok(point) => assert_eq!(point.len(), layout.latents()),
        Err(error) => assert_readable(&format!("{error:#}")),
    }
});
