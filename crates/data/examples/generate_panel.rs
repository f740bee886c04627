//! Times generation, and with a file also its reading: `generate_panel PRODUCTS [FILE]`.

use infermark_data::{Columns, Generator, Process, generate_panel, generate_to_file, read_panel};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let products = arguments
        .next()
        .ok_or("usage: generate_panel PRODUCTS [FILE]")?
        .parse()?;
    let generator = Generator {
        process: Process::Published,
        products,
        periods: 156,
        categories: 10,
        seed: 1,
    };
    let start = Instant::now();
    let panel = match arguments.next().map(PathBuf::from) {
        None => generate_panel(&generator, 0)?.0,
        Some(file) => {
            generate_to_file(
                &generator,
                &file,
                &file.with_extension("truth.csv"),
                0,
                &mut |_| ControlFlow::Continue(()),
            )?;
            println!("written in {:.2} s", start.elapsed().as_secs_f64());
            read_panel(&file, &Columns::default())?
        }
    };
    println!(
        "{} rows after {:.2} s",
        panel.rows(),
        start.elapsed().as_secs_f64()
    );
    // On Linux the kernel keeps the largest resident size.
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        status
            .lines()
            .filter(|line| line.starts_with("VmHWM"))
            .for_each(|line| println!("{line}"));
    }
    Ok(())
}
