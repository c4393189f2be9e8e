//! Where a figure comes from: without it no figure means anything.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use serde::Serialize;

/// The machine and its state.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory: u64,
    /// Kernel.
    pub kernel: String,
    /// `release` or `dev`: how this program was built.
    pub profile: &'static str,
    /// Processes that wanted a core, averaged over the last minute; figures of a busy machine are worse than ours.
    pub load: f64,
}

impl Machine {
    /// Looks now.
    pub fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let memory = read("/proc/meminfo");
        Self {
            processor: field(&cpus, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: field(&memory, "MemTotal").map_or(0, |text| kibibytes(&text)),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" },
            load: load(),
        }
    }

    /// As the first lines of a report.
    pub fn table(&self) -> String {
        let Self { processor, cores, memory, kernel, profile, load } = self;
        let gibibytes = *memory as f64 / (1u64 << 30) as f64;
        let busy = if *load > *cores as f64 * 0.5 { " (busy: figures will be worse than they could)" } else { "" };
        let slow = if *profile == "dev" { " (not optimised: figures say nothing about the product)" } else { "" };
        format!(
            "machine     {processor}, {cores} cores, {gibibytes:.0} GiB, Linux {kernel}\n\
             build       {profile}{slow}\nload        {load:.2}{busy}\n"
        )
    }
}

/// Processes that wanted a core, averaged over the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// Lets this program and those that it starts open as many files as the system allows. A program cannot do this to
/// itself without unsafe code, so it starts itself anew through a shell, once.
pub fn raise_file_limit() -> anyhow::Result<()> {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some((soft, hard)) = file_limits(&limits).filter(|(soft, hard)| soft < hard) else { return Ok(()) };
    if std::env::var_os(RAISED).is_some() {
        anyhow::bail!("this program may open {soft} files, of {hard}; first: ulimit -n {hard}");
    }
    let program = std::env::current_exe().context("the path of this program")?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n \"$1\"; shift; exec \"$@\"", "sh", &hard.to_string()]).arg(program);
    Err(shell.args(std::env::args_os().skip(1)).env(RAISED, "1").exec()).context("start this program with more files")
}

/// Given to the program that was started anew.
const RAISED: &str = "TRIBUTARY_BENCH_FILES";

/// How many files a process may open: now, and if it asks.
fn file_limits(limits: &str) -> Option<(u64, u64)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn kibibytes(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_kernels_texts_are_found() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nMemTotal:       2048 kB\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(field(text, "MemTotal").map(|text| kibibytes(&text)), Some(2 << 20));
        assert_eq!(field(text, "none"), None);
    }

    #[test]
    fn limits_of_files_are_read() {
        let text = "Limit          Soft Limit   Hard Limit   Units\nMax open files   1024    524288    files\n";
        assert_eq!((file_limits(text), file_limits("")), (Some((1024, 524_288)), None));
    }

    #[test]
    fn a_report_says_when_its_figures_mean_little() {
        let mut machine = Machine::look();
        (machine.cores, machine.load, machine.profile) = (2, 5.0, "dev");
        let table = machine.table();
        assert!(table.contains("busy") && table.contains("not optimised"), "{table}");
    }
}
