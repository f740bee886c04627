//! Links between devices and between machines, as assumed in projections. None of them was measured here.

use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A link, in one direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Seconds of an operation that do not depend on its size or the ranks: starting it.
    pub operation_seconds: f64,
    /// Seconds of a message, whatever its size.
    pub message_seconds: f64,
    /// Bytes per second in one direction.
    pub bytes_per_second: f64,
    /// Where the figures are from.
    pub source: String,
}

/// NCCL's own model of its times, `baseLat` and `hwLat` of `src/graph/tuning.cc`, ring, protocol LL.
const NCCL: &str = "latencies of NCCL's tuning model (src/graph/tuning.cc: ring, LL)";

impl Link {
    /// Names of the links that are known by name, with what connects GPUs within a machine first.
    pub const NAMES: [&str; 5] = [
        "nvlink",
        "pcie",
        "infiniband-200",
        "infiniband-400",
        "ethernet-25",
    ];

    /// The link of a name.
    pub fn named(name: &str) -> Option<Self> {
        let (operation, message, gigabytes, source) = match name {
            "nvlink" => (6.6e-6, 0.6e-6, 450.0, format!("{NCCL}; 900 GB/s of an H100 or H200 in both directions together, NVIDIA's data sheet")),
            "pcie" => (6.6e-6, 1.0e-6, 31.5, format!("{NCCL}; 16 lanes of PCIe 4.0 at 16 GT/s, 128b/130b")),
            "infiniband-200" => (0.0, 2.7e-6, 25.0, format!("{NCCL}; the line rate of HDR, 200 Gb/s")),
            "infiniband-400" => (0.0, 2.7e-6, 50.0, format!("{NCCL}; the line rate of NDR, 400 Gb/s")),
            "ethernet-25" => (0.0, 20e-6, 3.125, "20 us as the tuner of AWS's plugin for NCCL takes for its network (nccl_ofi_tuner.h); the line rate of 25 Gb/s".to_owned()),
            _ => return None,
        };
        Some(Link {
            name: name.to_owned(),
            operation_seconds: operation,
            message_seconds: message,
            bytes_per_second: gigabytes * 1e9,
            source,
        })
    }

    /// In words: `infiniband-200 (2.7 us per message, 25 GB/s)`.
    pub fn in_words(&self) -> String {
        let start = match self.operation_seconds {
            0.0 => String::new(),
            seconds => format!("{} us per operation, ", microseconds(seconds)),
        };
        format!(
            "{} ({start}{} us per message, {} GB/s)",
            self.name,
            microseconds(self.message_seconds),
            self.bytes_per_second / 1e9
        )
    }
}

/// Microseconds, to the nanosecond.
fn microseconds(seconds: f64) -> f64 {
    (1e9 * seconds).round() / 1e3
}

impl FromStr for Link {
    type Err = String;

    /// A name, or microseconds of a message and gigabytes per second: `5us:12GB/s`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(link) = Link::named(text) {
            return Ok(link);
        }
        let parts = text.split_once(':').and_then(|(latency, bandwidth)| {
            let latency: f64 = latency.strip_suffix("us")?.parse().ok()?;
            let bandwidth: f64 = bandwidth.strip_suffix("GB/s")?.parse().ok()?;
            let valid = latency.is_finite() && latency >= 0.0 && bandwidth.is_finite() && bandwidth > 0.0;
            valid.then_some((latency, bandwidth))
        });
        let (latency, bandwidth) = parts.ok_or_else(|| {
            format!(
                "give {}, or microseconds of a message and gigabytes per second, as in 5us:12GB/s",
                Link::NAMES.join(", ")
            )
        })?;
        Ok(Link {
            name: text.to_owned(),
            operation_seconds: 0.0,
            message_seconds: latency / 1e6,
            bytes_per_second: bandwidth * 1e9,
            source: "given".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_names_or_figures() {
        for name in Link::NAMES {
            let link: Link = name.parse().unwrap();
            assert!(link.name == name && link.bytes_per_second >= 1e9 && !link.source.is_empty());
        }
        let link: Link = "5us:12.5GB/s".parse().unwrap();
        assert_eq!((link.message_seconds, link.bytes_per_second), (5e-6, 12.5e9));
        assert_eq!(link.in_words(), "5us:12.5GB/s (5 us per message, 12.5 GB/s)");
        let known = Link::named("nvlink").unwrap();
        assert_eq!(
            known.in_words(),
            "nvlink (6.6 us per operation, 0.6 us per message, 450 GB/s)"
        );
        for wrong in [
            "",
            "nvlink9",
            "5:12",
            "5us:0GB/s",
            "-1us:3GB/s",
            "nanus:3GB/s",
            "5us:infGB/s",
        ] {
            let refused = wrong.parse::<Link>().unwrap_err();
            assert!(refused.contains("infiniband-200") && refused.contains("5us:12GB/s"));
        }
    }
}
