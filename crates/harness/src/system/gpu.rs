//! NVIDIA GPUs as `nvidia-smi` describes them.

use super::UNKNOWN;
use serde::{Deserialize, Serialize};
use std::process::Command;

/// One GPU; every entry is as the driver prints it, `unknown` where it prints nothing useful.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Product name.
    pub name: String,
    /// Driver version.
    pub driver: String,
    /// Memory, MiB.
    pub memory_mib: String,
    /// Clock of the multiprocessors now, MHz.
    pub clock_sm_mhz: String,
    /// Highest clock of the multiprocessors, MHz.
    pub clock_sm_max_mhz: String,
    /// Highest memory clock, MHz.
    pub clock_memory_max_mhz: String,
    /// Power limit, W.
    pub power_limit_w: String,
    /// Error-correcting memory.
    pub ecc: String,
    /// PCIe generation now.
    pub pcie_generation: String,
    /// PCIe lanes now.
    pub pcie_width: String,
}

const QUERY: &str = "name,driver_version,memory.total,clocks.current.sm,clocks.max.sm,clocks.max.memory,power.limit,\
    ecc.mode.current,pcie.link.gen.current,pcie.link.width.current";

/// `none`, `unknown` or the names, and the GPUs themselves.
pub(super) fn describe() -> (String, Vec<Gpu>) {
    let output = Command::new("nvidia-smi")
        .arg(format!("--query-gpu={QUERY}"))
        .arg("--format=csv,noheader,nounits")
        .output();
    match output {
        Err(_) => ("none".into(), Vec::new()),
        Ok(output) if output.status.success() => {
            let gpus = parse(&String::from_utf8_lossy(&output.stdout));
            match gpus.len() {
                0 => ("none".into(), gpus),
                n => {
                    let names: Vec<&str> = gpus.iter().map(|g| g.name.as_str()).collect();
                    (format!("{n}x {}", names.join(" + ")), gpus)
                }
            }
        }
        Ok(_) => (UNKNOWN.into(), Vec::new()),
    }
}

fn parse(text: &str) -> Vec<Gpu> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let mut fields = line.split(',').map(|field| match field.trim() {
                "" | "[N/A]" | "N/A" | "[Not Supported]" | "[Unknown Error]" => UNKNOWN.to_owned(),
                field => field.to_owned(),
            });
            let mut next = || fields.next().unwrap_or_else(|| UNKNOWN.to_owned());
            Gpu {
                name: next(),
                driver: next(),
                memory_mib: next(),
                clock_sm_mhz: next(),
                clock_sm_max_mhz: next(),
                clock_memory_max_mhz: next(),
                power_limit_w: next(),
                ecc: next(),
                pcie_generation: next(),
                pcie_width: next(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_driver_is_read() {
        let gpus = parse(
            "NVIDIA H100 80GB HBM3, 570.86.15, 81559, 345, 1980, 2619, 700.00, Enabled, 5, 16\n\
             NVIDIA A10G, 570.86.15, 23028, [N/A]\n",
        );
        assert_eq!(gpus.len(), 2);
        assert_eq!(gpus[0].name, "NVIDIA H100 80GB HBM3");
        assert_eq!(gpus[0].pcie_width, "16");
        assert_eq!(gpus[1].clock_sm_mhz, UNKNOWN);
        assert_eq!(gpus[1].pcie_width, UNKNOWN);
        assert!(parse("\n").is_empty());
    }
}
