//! The CPU: its instruction sets and cache.

use crate::UNKNOWN;
use std::path::Path;

/// Instruction sets that matter to the passes over the panel, as the CPU reports them now.
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

#[cfg(test)]
mod tests {
    use super::*;

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
