//! How large the two programs are, on disk and in memory when they have nothing to do.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::figures::megabytes;
use crate::programs::{Process, Programs};

/// After start, so that what was only needed for it has been given back.
const SETTLE: Duration = Duration::from_secs(3);

/// One program.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Its name.
    pub program: &'static str,
    /// Bytes of its file; release builds are stripped.
    pub file: u64,
    /// Resident bytes when idle: started, connected, nothing to do, no package.
    pub idle: u64,
    /// Of those, bytes that belong to the process alone; the rest is pages of its file, which the kernel can drop.
    pub private: u64,
    /// Highest resident bytes until then.
    pub peak: u64,
    /// What others report of theirs, for comparison; not measured here.
    pub others: &'static str,
}

/// Starts a hub and an agent, and looks.
pub async fn measure(programs: &Programs, scratch: &Path) -> anyhow::Result<Vec<Figure>> {
    let hub = programs.hub(scratch).await?;
    let agent = programs.agent(scratch, &hub).await?;
    tokio::time::sleep(SETTLE).await;
    let figure = |program, process: &Process, others| {
        let memory = process.memory();
        let file = std::fs::metadata(programs.path(program)).with_context(|| format!("size of {program}"))?.len();
        let (idle, peak) = (memory.resident, memory.peak);
        anyhow::Ok(Figure { program, file, idle, private: process.private(), peak, others })
    };
    Ok(vec![
        figure("edge-agent", &agent.process, "Greengrass Lite 14.8 MB without ML; thin-edge 34 MB")?,
        figure("cloud-hub", &hub.process, "a broker, a registry, a tracker and a database")?,
    ])
}

/// As a table.
pub fn table(figures: &[Figure]) -> String {
    let columns = ["file", "idle memory", "of it private", "highest"].map(|name| format!("{name:>14}")).join("");
    let mut text = format!("{:<12}{columns}   published of others\n", "program");
    for Figure { program, file, idle, private, peak, others } in figures {
        let sizes = [file, idle, private, peak].map(|bytes| format!("{:>14}", megabytes(*bytes))).join("");
        text += &format!("{program:<12}{sizes}   {others}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_in_megabytes() {
        let figure =
            Figure { program: "edge-agent", file: 25_000_000, idle: 12_340_000, private: 2, peak: 1, others: "-" };
        let table = table(&[figure]);
        assert!(table.contains("25.0 MB") && table.contains("12.3 MB"), "{table}");
    }
}
