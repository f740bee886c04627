//! NVIDIA GPUs as the driver describes them: from its library (NVML) if present, else from `nvidia-smi`.

use crate::UNKNOWN;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::Clock;
use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One GPU; every entry is as the driver reports it, or `unknown`.
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

/// `none`, `unknown` with the reason, or the names; and the GPUs themselves.
type Found = (String, Vec<Gpu>);

/// A query of the drivers in a separate thread: if it hangs, in a call or in a file system, it delays nobody.
#[derive(Debug)]
pub(super) struct Asked {
    found: Receiver<Found>,
    /// The `nvidia-smi` that runs, if one does.
    child: Arc<Mutex<Option<Child>>>,
}

impl Asked {
    pub(super) fn ask() -> Self {
        Self::of(Command::new("nvidia-smi"), true)
    }

    fn of(smi: Command, library: bool) -> Self {
        let (tell, found) = channel();
        let child = Arc::default();
        let shared = Arc::clone(&child);
        let asking = std::thread::Builder::new()
            .name("describe-gpus".into())
            .spawn(move || {
                let by_library = if library { by_library() } else { None };
                // After the deadline nobody waits for the answer.
                let _ = tell.send(by_library.unwrap_or_else(|| by_command(smi, &shared)));
            });
        // Without a thread the channel is closed, which is reported as no answer.
        drop(asking);
        Asked { found, child }
    }

    /// The result, or `unknown` if there is no answer within `left`.
    pub(super) fn answer(self, left: Duration) -> Found {
        match self.found.recv_timeout(left) {
            Ok(found) => found,
            Err(error) => {
                if let Some(child) = &mut *self.child.lock().unwrap_or_else(PoisonError::into_inner) {
                    // One that cannot be ended is left alone.
                    let _ = child.kill();
                }
                let why = match error {
                    RecvTimeoutError::Timeout => "no answer in 2 s",
                    RecvTimeoutError::Disconnected => "it could not be asked",
                };
                (format!("{UNKNOWN}: {why}"), Vec::new())
            }
        }
    }
}

fn named(gpus: Vec<Gpu>) -> Found {
    match gpus.len() {
        0 => ("none".into(), gpus),
        n => {
            let names: Vec<&str> = gpus.iter().map(|g| g.name.as_str()).collect();
            (format!("{n}x {}", names.join(" + ")), gpus)
        }
    }
}

/// Queries NVML; none if its library is missing.
fn by_library() -> Option<Found> {
    let nvml = match Nvml::init() {
        Ok(nvml) => nvml,
        Err(NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound) => return None,
        Err(error) => return Some((format!("{UNKNOWN}: {error}"), Vec::new())),
    };
    let told = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.to_owned());
    let number = |value: Result<u32, NvmlError>| told(value.ok().map(|v| v.to_string()));
    let driver = told(nvml.sys_driver_version().ok());
    let count = match nvml.device_count() {
        Ok(count) => count,
        Err(error) => return Some((format!("{UNKNOWN}: {error}"), Vec::new())),
    };
    let describe = |index| {
        let gpu = nvml.device_by_index(index).ok()?;
        let watts = gpu.enforced_power_limit().ok();
        let ecc = gpu.is_ecc_enabled().ok();
        Some(Gpu {
            name: told(gpu.name().ok()),
            driver: driver.clone(),
            memory_mib: told(
                gpu.memory_info()
                    .ok()
                    .map(|memory| (memory.total >> 20).to_string()),
            ),
            clock_sm_mhz: number(gpu.clock_info(Clock::SM)),
            clock_sm_max_mhz: number(gpu.max_clock_info(Clock::SM)),
            clock_memory_max_mhz: number(gpu.max_clock_info(Clock::Memory)),
            power_limit_w: told(watts.map(|mw| format!("{:.2}", f64::from(mw) / 1000.0))),
            ecc: told(ecc.map(|ecc| {
                if ecc.currently_enabled {
                    "Enabled"
                } else {
                    "Disabled"
                }
                .to_owned()
            })),
            pcie_generation: number(gpu.current_pcie_link_gen()),
            pcie_width: number(gpu.current_pcie_link_width()),
        })
    };
    Some(named((0..count).filter_map(describe).collect()))
}

fn by_command(mut smi: Command, running: &Mutex<Option<Child>>) -> Found {
    let spawned = smi
        .arg(format!("--query-gpu={QUERY}"))
        .arg("--format=csv,noheader,nounits")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = spawned else {
        return named(Vec::new());
    };
    let output = child.stdout.take();
    *running.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    let mut text = String::new();
    let read = output.map(|mut output| std::io::Read::read_to_string(&mut output, &mut text));
    // Its output has ended, so that it ends too.
    let child = running.lock().unwrap_or_else(PoisonError::into_inner).take();
    let ended = child.and_then(|mut child| child.wait().ok());
    match (read, ended) {
        (Some(Ok(_)), Some(status)) if status.success() => named(parse(&text)),
        _ => (format!("{UNKNOWN}: nvidia-smi failed"), Vec::new()),
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

    /// A command that replaces `nvidia-smi`.
    #[cfg(unix)]
    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        // The rest are its arguments.
        command.args(["-c", script, "nvidia-smi"]);
        command
    }

    #[test]
    #[cfg(unix)]
    fn a_driver_that_hangs_is_not_waited_for() {
        let clock = std::time::Instant::now();
        let asked = Asked::of(shell("exec sleep 600"), false);
        let (gpu, gpus) = asked.answer(Duration::from_millis(300));
        assert!(clock.elapsed() < Duration::from_secs(5), "{:?}", clock.elapsed());
        assert_eq!((gpu.as_str(), gpus.len()), ("unknown: no answer in 2 s", 0));
    }

    #[test]
    #[cfg(unix)]
    fn what_the_command_says_is_told() {
        let wait = Duration::from_secs(60);
        let one = Asked::of(shell("echo NVIDIA A10G, 570.86.15, 23028"), false).answer(wait);
        assert_eq!((one.0.as_str(), one.1.len()), ("1x NVIDIA A10G", 1));
        let failed = Asked::of(shell("exit 9"), false).answer(wait);
        assert_eq!(failed.0, "unknown: nvidia-smi failed");
        let none = Asked::of(Command::new("no-such-command-here"), false).answer(wait);
        assert_eq!(none, ("none".into(), Vec::new()));
    }
}
