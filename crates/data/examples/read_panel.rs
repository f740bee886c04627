//! Times the reading of a panel: `read_panel FILE`.

use infermark_data::{Columns, read_panel};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("usage: read_panel FILE")?;
    let start = Instant::now();
    let panel = read_panel(file.as_ref(), &Columns::default())?;
    let seconds = start.elapsed().as_secs_f64();
    let rate = panel.rows() as f64 / seconds / 1e6;
    println!(
        "{} rows in {seconds:.2} s, {rate:.1} million rows per second",
        panel.rows()
    );
    Ok(())
}
