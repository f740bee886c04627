//! The error for a lack of memory, with figures.

use crate::Available;

/// Something needs more memory than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} needs {}, and {} leaves {}", gigabytes(*needed_bytes), available.bound, gigabytes(available.bytes))]
pub struct Shortage {
    /// What does not fit.
    pub what: String,
    /// Bytes that it needs.
    pub needed_bytes: u64,
    /// The available memory.
    pub available: Available,
}

/// Bytes in gigabytes (10^9 bytes), or in bytes if they are few.
pub fn gigabytes(bytes: u64) -> String {
    if bytes < 1_000_000 {
        return format!("{bytes} bytes");
    }
    let gigabytes = bytes as f64 / 1e9;
    let decimals = match gigabytes {
        g if g < 0.1 => 3,
        _ => 2,
    };
    format!("{gigabytes:.decimals$} GB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_figures_can_be_read() {
        assert_eq!(gigabytes(4_096), "4096 bytes");
        assert_eq!(gigabytes(3_456_000), "0.003 GB");
        assert_eq!(gigabytes(1_234_000_000), "1.23 GB");
        assert_eq!(gigabytes(320_000_000_000), "320.00 GB");
    }
}
