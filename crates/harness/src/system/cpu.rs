//! The processor: its name, instruction sets and cache.

use super::UNKNOWN;
use std::path::Path;

/// The model name from `/proc/cpuinfo`, then from `sysctl` on macOS, or `unknown`.
pub(super) fn model_name() -> String {
    let from_proc = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| field(&text, "model name"));
    from_proc
        .or_else(|| {
            let output = std::process::Command::new("sysctl")
                .args(["-n", "machdep.cpu.brand_string"])
                .output()
                .ok()
                .filter(|o| o.status.success())?;
            let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
            (!text.is_empty()).then_some(text)
        })
        .unwrap_or_else(|| UNKNOWN.to_owned())
}

fn field(cpuinfo: &str, name: &str) -> Option<String> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

/// Instruction sets that matter to the passes over the panel, as the processor reports them now.
pub(super) fn instruction_sets() -> Vec<String> {
    let mut found: Vec<&str> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        for (name, here) in [
            ("sse4.2", std::is_x86_feature_detected!("sse4.2")),
            ("avx", std::is_x86_feature_detected!("avx")),
            ("avx2", std::is_x86_feature_detected!("avx2")),
            ("fma", std::is_x86_feature_detected!("fma")),
            ("avx512f", std::is_x86_feature_detected!("avx512f")),
            ("avx512dq", std::is_x86_feature_detected!("avx512dq")),
            ("avx512bw", std::is_x86_feature_detected!("avx512bw")),
            ("avx512vl", std::is_x86_feature_detected!("avx512vl")),
        ] {
            if here {
                found.push(name);
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    found.push("neon");
    if found.is_empty() {
        found.push(UNKNOWN);
    }
    found.into_iter().map(str::to_owned).collect()
}

/// Size of the last-level cache from sysfs.
pub(super) fn last_level_cache_bytes(folder: &Path) -> Option<u64> {
    let mut largest: Option<(u32, u64)> = None;
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).ok();
        let (Some(level), Some(size)) = (read("level"), read("size")) else {
            continue;
        };
        let size = size.trim();
        let (digits, unit) = match size.as_bytes().last() {
            Some(b'K') => (&size[..size.len() - 1], 1 << 10),
            Some(b'M') => (&size[..size.len() - 1], 1 << 20),
            _ => (size, 1),
        };
        if let (Ok(level), Ok(count)) = (level.trim().parse::<u32>(), digits.parse::<u64>()) {
            largest = largest.max(Some((level, count * unit)));
        }
    }
    largest.map(|(_, bytes)| bytes)
}

/// `2-core Intel Xeon, AVX-512` from the processor's own name.
pub(super) fn in_plain_words(model: &str, cores: usize, instruction_sets: &[String]) -> String {
    let name = model.replace("(R)", "").replace("(TM)", "").replace("(tm)", "");
    let name = name.split('@').next().unwrap_or("");
    let words: Vec<&str> = name
        .split_whitespace()
        .filter(|word| !matches!(*word, "CPU" | "Processor") && !word.ends_with("-Core"))
        .collect();
    let name = match words.join(" ") {
        name if name.is_empty() || name == UNKNOWN => "processor".to_owned(),
        name => name,
    };
    let has = |set: &str| instruction_sets.iter().any(|s| s == set);
    let set = if has("avx512f") {
        ", AVX-512"
    } else if has("avx2") && has("fma") {
        ", AVX2"
    } else if has("neon") {
        ", NEON"
    } else {
        ""
    };
    format!("{cores}-core {name}{set}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_plain_words() {
        let sets = |s: &[&str]| s.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        assert_eq!(
            in_plain_words(
                "Intel(R) Xeon(R) Processor",
                2,
                &sets(&["avx2", "fma", "avx512f"])
            ),
            "2-core Intel Xeon, AVX-512"
        );
        assert_eq!(
            in_plain_words("AMD EPYC 7R13 48-Core Processor", 96, &sets(&["avx2", "fma"])),
            "96-core AMD EPYC 7R13, AVX2"
        );
        assert_eq!(
            in_plain_words("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", 12, &sets(&["sse4.2"])),
            "12-core Intel Core i7-8700K"
        );
        assert_eq!(
            in_plain_words("unknown", 4, &sets(&["neon"])),
            "4-core processor, NEON"
        );
    }

    #[test]
    fn the_model_name_is_found() {
        let text = "processor\t: 0\nmodel\t\t: 5\nmodel name\t: Some CPU @ 2GHz\nflags : a b\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Some CPU @ 2GHz"));
        assert_eq!(field("processor : 0\n", "model name"), None);
    }

    #[test]
    fn the_largest_level_is_the_last_cache() {
        let folder = tempfile::tempdir().unwrap();
        for (name, level, size) in [
            ("index0", "1", "48K\n"),
            ("index3", "3", "105M\n"),
            ("index2", "2", "2048K\n"),
        ] {
            let cache = folder.path().join(name);
            std::fs::create_dir(&cache).unwrap();
            std::fs::write(cache.join("level"), level).unwrap();
            std::fs::write(cache.join("size"), size).unwrap();
        }
        assert_eq!(last_level_cache_bytes(folder.path()), Some(105 << 20));
        assert_eq!(last_level_cache_bytes(&folder.path().join("absent")), None);
    }
}
