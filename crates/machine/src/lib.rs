//! What a result states of the machine that it was made on and of the program that made it. What is not known is `unknown`; nothing is
//! blank.
//!
//! The build script records compiler, commit and versions. It runs again whenever a source changes, so that whatever depends on this
//! crate is compiled again too: kernels and backends take what they need of the CPU from `infermark_processor`.

mod cpu;
mod gpu;

use infermark_processor::{model_name, processor_name};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

pub use gpu::Gpu;

/// The word for unknown entries.
pub const UNKNOWN: &str = "unknown";

/// The version with the commit that it was built from.
pub const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("INFERMARK_BUILD_COMMIT"),
    ")"
);

/// The system that a result was made on. It holds no host name and no path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct System {
    /// In plain words, for instance `2-core Intel Xeon, AVX-512`.
    pub device: String,
    /// The CPU's own name.
    pub cpu: String,
    /// Threads that the program may use.
    pub cores: usize,
    /// Last-level cache in bytes; `None` if it is unknown.
    pub cache_bytes: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Instruction sets found at run time, for instance `avx2`, `fma`, `avx512f`.
    pub instruction_sets: Vec<String>,
    /// Operating system and its version.
    pub os: String,
    /// Kernel and its version.
    pub kernel: String,
    /// Load of the last minute before the run, in busy threads: above zero, other programs used the machine
    /// too.
    pub load_average: f64,
    /// Whether there are GPUs: `none`, `unknown` with the reason (a driver that does not answer), or their names.
    pub gpu: String,
    /// The GPUs, one by one.
    pub gpus: Vec<Gpu>,
    /// The program.
    pub program: Program,
}

/// How the program was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Version of this project.
    pub version: String,
    /// The compiler.
    pub rustc: String,
    /// `release` or `debug`, with the optimization level.
    pub profile: String,
    /// Target triple.
    pub target: String,
    /// Flags given to the compiler, or `none`.
    pub rustflags: String,
    /// Commit that was checked out when the program was built.
    pub git_commit: String,
    /// Whether tracked files outside `results/` differed from the commit when the program was built: `clean`, `dirty`, or
    /// `unknown` where there was no tree.
    pub git_tree: String,
    /// Versions of the crates that the workspace names, as `name version`.
    pub crates: Vec<String>,
}

/// How long to wait for a driver's answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// A description in progress: drivers are queried in the background during the work, so that one that hangs
/// does not delay a result.
#[derive(Debug)]
pub struct Description {
    system: System,
    gpus: gpu::Asked,
    asked: Instant,
}

impl Description {
    /// Queries the machine and the program. Must be called before the work.
    pub fn ask() -> Self {
        Description {
            gpus: gpu::Asked::ask(),
            asked: Instant::now(),
            system: System::without_gpus(),
        }
    }

    /// The description: waits for drivers until at most two seconds after the query.
    pub fn answer(self) -> System {
        let left = DEADLINE.saturating_sub(self.asked.elapsed());
        let (gpu, gpus) = self.gpus.answer(left);
        System {
            gpu,
            gpus,
            ..self.system
        }
    }
}

impl System {
    /// Queries the machine and the program, and waits for the answers.
    pub fn describe() -> Self {
        Description::ask().answer()
    }

    fn without_gpus() -> Self {
        let system = sysinfo::System::new_with_specifics(
            sysinfo::RefreshKind::nothing().with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram()),
        );
        let told = |text: Option<String>| {
            text.filter(|t| !t.is_empty())
                .unwrap_or_else(|| UNKNOWN.to_owned())
        };
        System {
            device: processor_name(),
            cpu: told(model_name()),
            cores: infermark_threads::available(),
            cache_bytes: cpu::last_level_cache_bytes(Path::new("/sys/devices/system/cpu/cpu0/cache")),
            memory_bytes: system.total_memory(),
            instruction_sets: cpu::instruction_sets(),
            os: told(sysinfo::System::long_os_version()),
            kernel: told(sysinfo::System::kernel_version()),
            load_average: sysinfo::System::load_average().one,
            gpu: UNKNOWN.to_owned(),
            gpus: Vec::new(),
            program: Program::describe(),
        }
    }
}

impl Program {
    /// What the build recorded.
    pub fn describe() -> Self {
        Program {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rustc: env!("INFERMARK_BUILD_RUSTC").to_owned(),
            profile: format!(
                "{}, opt-level {}",
                env!("INFERMARK_BUILD_PROFILE"),
                env!("INFERMARK_BUILD_OPT_LEVEL")
            ),
            target: env!("INFERMARK_BUILD_TARGET").to_owned(),
            rustflags: env!("INFERMARK_BUILD_RUSTFLAGS").to_owned(),
            git_commit: env!("INFERMARK_BUILD_COMMIT").to_owned(),
            git_tree: env!("INFERMARK_BUILD_TREE").to_owned(),
            crates: env!("INFERMARK_BUILD_CRATES")
                .split(';')
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// Peak resident memory of the program so far, in bytes; `None` if the system does not report it (it is read
/// from Linux's `/proc`).
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The host's name; `None` where it has none. A [`System`] does not carry it.
pub fn host_name() -> Option<String> {
    sysinfo::System::host_name()
}

#[cfg(test)]
#[path = "../build/tree.rs"]
mod tree;

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn nothing_is_blank_and_it_reads_back() {
        let system = System::describe();
        let json = serde_json::to_value(&system).unwrap();
        fn blanks(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
            match value {
                serde_json::Value::String(s) if s.trim().is_empty() => found.push(path.to_owned()),
                serde_json::Value::Object(o) => {
                    o.iter()
                        .for_each(|(k, v)| blanks(v, &format!("{path}.{k}"), found));
                }
                serde_json::Value::Array(a) => {
                    a.iter().for_each(|v| blanks(v, &format!("{path}[]"), found));
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        blanks(&json, "system", &mut found);
        assert!(found.is_empty(), "{found:?}");
        assert!(system.cores >= 1 && system.memory_bytes > 1 << 26);
        assert!(
            system.program.rustc.starts_with("rustc 1."),
            "{}",
            system.program.rustc
        );
        assert_eq!(serde_json::from_value::<System>(json).unwrap(), system);
    }

    #[test]
    fn a_tree_is_judged_by_its_tracked_files_against_the_commit() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(tree::state(root), None, "no tree");
        let git = |arguments: &[&str]| {
            let output = Command::new("git")
                .arg("-C")
                .arg(root)
                .args([
                    "-c",
                    "user.name=x",
                    "-c",
                    "user.email=x@x",
                    "-c",
                    "commit.gpgsign=false",
                ])
                .args(arguments)
                .output();
            output.is_ok_and(|o| o.status.success())
        };
        if !git(&["init", "--quiet"]) {
            return; // without git every tree is unknown
        }
        std::fs::create_dir(root.join("results")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
        write("code.rs", "1");
        write("results/table.md", "1");
        assert!(git(&["add", "."]) && git(&["commit", "--quiet", "-m", "first"]));
        assert_eq!(tree::state(root), Some("clean"));
        write("new.rs", "untracked");
        write("results/table.md", "2");
        assert_eq!(tree::state(root), Some("clean"));
        write("code.rs", "2");
        assert_eq!(tree::state(root), Some("dirty"));
        // While another git holds the lock.
        write(".git/index.lock", "");
        assert_eq!(tree::state(root), Some("dirty"));
    }

    #[test]
    fn the_peak_covers_what_was_touched() {
        let Some(before) = peak_memory_bytes() else { return };
        let touched = vec![1_u8; 64 << 20];
        assert!(std::hint::black_box(&touched).iter().all(|b| *b == 1));
        let after = peak_memory_bytes().unwrap();
        assert!(before <= after && after >= 64 << 20, "{before} {after}");
    }
}
