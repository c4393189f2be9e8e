//! What this process uses, as the kernel counts it.

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

/// Memory that this process can have at all: the machine's, or less where a control group says so.
pub fn memory_of_machine() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().map(|text| kilobytes(&text, "MemTotal:"));
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    machine.filter(|bytes| *bytes > 0).into_iter().chain(group).min()
}

fn memory_of(process: &str) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    Memory { resident: kilobytes(&status, "VmRSS:"), peak: kilobytes(&status, "VmHWM:") }
}

fn kilobytes(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernels_figures_are_read() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!((super::kilobytes(status, "VmRSS:"), super::kilobytes(status, "VmHWM:")), (1 << 20, 2 << 20));
        assert_eq!(super::kilobytes(status, "VmSwap:"), 0);
    }
}
