#![no_main]
//! True parameters as CSV, for a panel of three products.

use infermark_data::{Columns, read_panel, read_true_elasticities, read_truth};
use infermark_fuzz::{assert_readable, file};
use infermark_model::Panel;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static PANEL: LazyLock<Panel> = LazyLock::new(|| {
    let sales = b"product,category,week,price,units\na,x,1,2,3\nb,x,1,2,3\nc,y,1,2,3\na,x,2,1,4\n";
    read_panel(&file("panel.csv", sales), &Columns::default()).expect("a sound file")
});

fuzz_target!(|data: &[u8]| {
    let panel = &*PANEL;
    let path = file("truth.csv", data);
    if let Err(error) = read_truth(&path, panel) {
        assert_readable(&error);
    }
    let names = ["a", "b", "c"].map(str::to_owned);
    if let Err(error) = read_true_elasticities(&path, &names) {
        assert_readable(&error);
    }
});
