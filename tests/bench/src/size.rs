//! How large the two programs are, on disk and in memory when they have nothing to do.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::figures::megabytes;
use crate::programs::Programs;

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
    let figure = |program, memory: tributary_process::resources::Memory, others| {
        let file = std::fs::metadata(programs.path(program)).with_context(|| format!("size of {program}"))?.len();
        anyhow::Ok(Figure { program, file, idle: memory.resident, peak: memory.peak, others })
    };
    Ok(vec![
        figure("edge-agent", agent.process.memory(), "Greengrass Lite 14.8 MB without ML; thin-edge 34 MB")?,
        figure("cloud-hub", hub.process.memory(), "a broker, a registry, a tracker and a database")?,
    ])
}

/// As a table.
pub fn table(figures: &[Figure]) -> String {
    let mut text =
        format!("{:<12} {:>10} {:>14} {:>14}   published of others\n", "program", "file", "memory, idle", "highest");
    for Figure { program, file, idle, peak, others } in figures {
        let [file, idle, peak] = [file, idle, peak].map(|bytes| megabytes(*bytes));
        text += &format!("{program:<12} {file:>10} {idle:>14} {peak:>14}   {others}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_in_megabytes() {
        let figure = Figure { program: "edge-agent", file: 25_000_000, idle: 12_340_000, peak: 1, others: "-" };
        let table = table(&[figure]);
        assert!(table.contains("25.0 MB") && table.contains("12.3 MB"), "{table}");
    }
}
