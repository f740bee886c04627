//! The memory that the control groups of this process (version 1 and 2) leave.
//!
//! A group is bounded by its own limit and by those of all groups above it. File pages count as used but are
//! reclaimed when needed, so they count as free here.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that the tightest of this process's control groups leaves; `None` where none has a limit.
pub(crate) fn left() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let groups = Groups::find(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?);
    groups
        .iter()
        .flat_map(Groups::levels)
        .filter_map(|(version, folder)| version.left(&folder))
        .min()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The memory that one group leaves, by its own limit.
    fn left(self, folder: &Path) -> Option<u64> {
        let (limit, usage, files) = match self {
            Version::One => (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ["total_inactive_file", "total_active_file"],
            ),
            Version::Two => ("memory.max", "memory.current", ["inactive_file", "active_file"]),
        };
        let number =
            |name: &str| -> Option<u64> { fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok() };
        // "max" is not a number; version 1 writes a number beyond any memory.
        let limit = number(limit).filter(|limit| *limit < 1 << 60)?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let of_files: u64 = stat
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(key, _)| files.contains(key))
            .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
            .sum();
        let taken = number(usage)?.saturating_sub(of_files);
        Some(limit.saturating_sub(taken))
    }
}

/// A hierarchy that bounds memory: its mount point, and the process's own group in it.
#[derive(Debug, PartialEq, Eq)]
struct Groups {
    version: Version,
    mount: PathBuf,
    own: PathBuf,
}

impl Groups {
    /// The hierarchies in `/proc/self/cgroup` and `/proc/self/mountinfo`.
    fn find(of_process: &str, mounts: &str) -> Vec<Groups> {
        of_process
            .lines()
            .filter_map(|line| {
                let mut fields = line.splitn(3, ':');
                let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
                let version = match controllers {
                    "" => Version::Two,
                    one if one.split(',').any(|controller| controller == "memory") => Version::One,
                    _ => return None,
                };
                let (root, mount) = mounts.lines().find_map(|line| mounted(line, version))?;
                // In a container the mount may begin below the hierarchy's root, at `root`.
                let below = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
                let own = mount.join(below.strip_prefix("/").unwrap_or(below));
                Some(Groups { version, mount, own })
            })
            .collect()
    }

    /// The process's own group, and those above it.
    fn levels(&self) -> impl Iterator<Item = (Version, PathBuf)> + '_ {
        self.own
            .ancestors()
            .take_while(|folder| folder.starts_with(&self.mount))
            .map(|folder| (self.version, folder.to_owned()))
    }
}

/// Root and mount point in a line of mountinfo, if it is a hierarchy of `version` that bounds memory.
fn mounted(line: &str, version: Version) -> Option<(String, PathBuf)> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let (kind, _, options) = (after.next()?, after.next()?, after.next()?);
    let matches = match version {
        Version::One => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
        Version::Two => kind == "cgroup2",
    };
    let mut before = before.split(' ').skip(3);
    let (root, mount) = (before.next()?, before.next()?);
    matches.then(|| (root.to_owned(), PathBuf::from(mount)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "36 32 0:31 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n\
                       37 32 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                       38 32 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_process_is_found_in_both_versions() {
        let found = Groups::find("4:memory:/jobs/a\n1:cpu:/\n0::/jobs/b\n", ONE);
        let groups = |version, mount: &str, own: &str| Groups {
            version,
            mount: mount.into(),
            own: own.into(),
        };
        assert_eq!(
            found,
            [
                groups(
                    Version::One,
                    "/sys/fs/cgroup/memory",
                    "/sys/fs/cgroup/memory/jobs/a"
                ),
                groups(
                    Version::Two,
                    "/sys/fs/cgroup/unified",
                    "/sys/fs/cgroup/unified/jobs/b"
                ),
            ]
        );
        let levels: Vec<PathBuf> = found[0].levels().map(|(_, folder)| folder).collect();
        assert_eq!(
            levels,
            [
                "/sys/fs/cgroup/memory/jobs/a",
                "/sys/fs/cgroup/memory/jobs",
                "/sys/fs/cgroup/memory"
            ]
            .map(PathBuf::from)
        );
    }

    #[test]
    fn a_container_sees_its_group_as_the_root() {
        let mounts = "36 32 0:31 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let found = Groups::find("4:memory:/docker/x\n", mounts);
        assert_eq!(found[0].own, Path::new("/sys/fs/cgroup/memory"));
        // A group outside the mount: the mount's own group is the best known.
        let found = Groups::find("4:memory:/elsewhere\n", mounts);
        assert_eq!(found[0].own, Path::new("/sys/fs/cgroup/memory"));
    }

    #[test]
    fn pages_of_files_can_be_had_again_and_no_limit_is_none() {
        let folder = std::env::temp_dir().join(format!("infermark-memory-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("memory.max", "1000000\n");
        write("memory.current", "700000\n");
        write(
            "memory.stat",
            "anon 400000\ninactive_file 200000\nactive_file 100000\n",
        );
        assert_eq!(Version::Two.left(&folder), Some(600_000));
        write("memory.max", "max\n");
        assert_eq!(Version::Two.left(&folder), None);
        write("memory.limit_in_bytes", "500000\n");
        write("memory.usage_in_bytes", "700000\n");
        write("memory.stat", "total_inactive_file 0\n");
        assert_eq!(Version::One.left(&folder), Some(0));
        write("memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(Version::One.left(&folder), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
