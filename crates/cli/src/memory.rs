//! The bound on memory, and the scratch folder of a panel that is larger.

use clap::Args;
use infermark::{DeviceId, DeviceKind, MethodKind};
use infermark_data::RowStorage;
use infermark_scratch::{ScratchFolder, Window};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bounds of the memory.
#[derive(Debug, Clone, Args)]
pub(crate) struct MemoryArguments {
    /// Bound of the resident memory, such as 1GiB or 500MB. The rows then stay in a scratch folder and pass through memory in every
    /// iteration, for --method svi, laplace, structured-vi and meanfield on the CPU; others have them in memory and are refused if they
    /// do not fit. Results are the same to the bit.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) memory: Option<u64>,
    /// Folder for the rows under --memory: 16 bytes per row while the file is read (28 if it is not sorted by product), then 12, and under structured-vi 8 more. By default the one
    /// that --out is in. Its files have no names and end with the program.
    #[arg(long, value_name = "DIR", requires = "memory")]
    pub(crate) scratch: Option<PathBuf>,
}

/// Least bound: the program itself, and threads with their stacks.
const LEAST_BYTES: u64 = 64 << 20;

/// The part of the bound that pages of the rows may take.
const WINDOW_PART: u64 = 8;

/// Most bytes for pages of the rows: more make no pass faster.
const MOST_WINDOW: u64 = 256 << 20;

impl MemoryArguments {
    /// Sets the bound, if there is one; before threads start. Returns where a fit by `method` on `devices` stores its rows, if outside of memory.
    pub(crate) fn bound(&self, method: MethodKind, devices: &[DeviceId], out: &Path) -> Option<RowStorage> {
        let bytes = self.memory?;
        let on_cpu = devices.iter().all(|device| device.kind == DeviceKind::Cpu);
        let stores = on_cpu && method != MethodKind::Nuts;
        let window = if stores {
            (bytes / WINDOW_PART).min(MOST_WINDOW)
        } else {
            0
        };
        infermark_memory::bound_resident(bytes, window);
        stores.then(|| RowStorage {
            folder: ScratchFolder::new(self.scratch.clone().unwrap_or_else(|| folder_of(out))),
            window: Arc::new(Window::new(window as usize)),
        })
    }
}

/// The folder that a folder is in or will be in: the first above it that exists.
fn folder_of(out: &Path) -> PathBuf {
    let absolute = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
    let above = absolute.ancestors().skip(1).find(|folder| folder.is_dir());
    above.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Bytes from a number with an optional unit.
fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let ends = |unit: &str| {
        text.len() >= unit.len() && text.is_char_boundary(text.len() - unit.len()) && {
            text[text.len() - unit.len()..].eq_ignore_ascii_case(unit)
        }
    };
    let (unit, factor) = UNITS.into_iter().find(|(unit, _)| ends(unit)).unwrap_or(("", 1));
    let number = text[..text.len() - unit.len()].trim_end().parse::<f64>();
    match number {
        Ok(number) if number.is_finite() && number * factor as f64 >= LEAST_BYTES as f64 => {
            Ok((number * factor as f64) as u64)
        }
        Ok(number) if number.is_finite() => Err("the program itself needs 64MiB".into()),
        _ => Err("expected bytes, such as 1GiB or 500MB".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        assert_eq!(bytes("1.5 GiB"), Ok(3 << 29));
        assert_eq!(bytes("500MB"), Ok(500_000_000));
        assert_eq!(bytes("500mb"), Ok(500_000_000));
        assert_eq!(bytes("100000000"), Ok(100_000_000));
        assert_eq!(bytes("100000000B"), Ok(100_000_000));
        for none in ["", "GiB", "much", "1PiB", "-1GiB", "infGiB", "1\u{e9}"] {
            assert!(bytes(none).is_err(), "{none}");
        }
        assert!(bytes("1MB").unwrap_err().contains("64MiB"));
    }
}
