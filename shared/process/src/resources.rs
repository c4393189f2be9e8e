//! What this process uses, as the kernel counts it.

use std::fs::read_to_string;
use std::path::{Component, Path};

/// Resident memory in bytes now and at its highest; zeros where the system does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// Highest ever resident.
    pub peak: u64,
}

/// Reads this process's memory.
pub fn memory() -> Memory {
    memory_of("self")
}

/// Reads another process's memory by its id.
pub fn memory_of_process(id: u32) -> Memory {
    memory_of(&id.to_string())
}

/// Memory that this process can have at all: the machine's, or less where the control group that it belongs to, or one
/// above that, says so (`MemoryMax=` of a service, the limit of a container).
pub fn memory_of_machine() -> Option<u64> {
    memory_under(Path::new("/"))
}

fn memory_under(root: &Path) -> Option<u64> {
    let machine = read_to_string(root.join("proc/meminfo")).ok().map(|text| kilobytes(&text, "MemTotal:"));
    let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| limit_of_group(&root.join("sys/fs/cgroup"), line));
    machine.filter(|bytes| *bytes > 0).into_iter().chain(limits).min()
}

/// The lowest limit on the way from a group, as a line of `/proc/self/cgroup` names it, to the top. A group that cannot be
/// seen from here, as in a container that shows its own part of the tree alone, counts by what is above it.
fn limit_of_group(tree: &Path, line: &str) -> Option<u64> {
    let (_, of) = line.split_once(':')?;
    let (controllers, path) = of.split_once(':')?;
    let (tree, file) = match controllers {
        "" => (tree.to_owned(), "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => (tree.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    let path = Path::new(path.trim_start_matches('/'));
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    let groups = path.ancestors().filter(|group| inside || group.as_os_str().is_empty());
    let limit = |group: &Path| read_to_string(tree.join(group).join(file)).ok()?.trim().parse::<u64>().ok();
    groups.filter_map(limit).min()
}

fn memory_of(process: &str) -> Memory {
    let status = read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    Memory { resident: kilobytes(&status, "VmRSS:"), peak: kilobytes(&status, "VmHWM:") }
}

fn kilobytes(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root folder with these files; the machine has 64 MiB.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/meminfo", "MemTotal:       65536 kB\n")].iter().chain(files) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn memory_is_limited_by_the_group_of_the_process_and_those_above_it() {
        const SERVICE: &str = "sys/fs/cgroup/system.slice/edge-agent.service/memory.max";
        const SLICE: &str = "sys/fs/cgroup/system.slice/memory.max";
        let own = ("proc/self/cgroup", "0::/system.slice/edge-agent.service\n");
        let found = |files: &[(&str, &str)]| memory_under(root(files).path()).unwrap() >> 20;
        assert_eq!(found(&[]), 64);
        assert_eq!(found(&[own, (SERVICE, "max\n"), (SLICE, "max\n")]), 64);
        assert_eq!(found(&[own, (SERVICE, "33554432\n"), (SLICE, "max\n")]), 32);
        assert_eq!(found(&[own, (SERVICE, "33554432\n"), (SLICE, "16777216\n")]), 16, "the one above is lower");
        assert_eq!(found(&[own, ("sys/fs/cgroup/system.slice/other.service/memory.max", "1048576\n")]), 64);
        // A container that sees its own part of the tree as the whole, and one whose own group lies outside of it.
        for path in ["0::/\n", "0::/../neighbour\n", "0::/docker/0123\n"] {
            let files = [("proc/self/cgroup", path), ("sys/fs/cgroup/memory.max", "8388608\n")];
            assert_eq!(found(&files), 8, "{path}");
        }
        let older = ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/agents/a\n0::/\n");
        let limits = [
            ("sys/fs/cgroup/memory/agents/a/memory.limit_in_bytes", "25165824\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(found(&[&[older], &limits[..]].concat()), 24);
        assert_eq!(memory_under(tempfile::tempdir().unwrap().path()), None);
    }

    #[test]
    fn the_kernels_figures_are_read() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!((kilobytes(status, "VmRSS:"), kilobytes(status, "VmHWM:")), (1 << 20, 2 << 20));
        assert_eq!(kilobytes(status, "VmSwap:"), 0);
    }
}
