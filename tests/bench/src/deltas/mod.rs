//! What a retrained package costs on the way to a device that holds the one before: compressed, and as every kind of
//! patch that was considered, after three kinds of retraining. The same for its int8 graph by itself, which is a small
//! part of a package.

mod retrain;
mod int8;
mod ways;
mod weights;
mod programs;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tributary_process::resources::memory;

use crate::figures::{count, megabytes, seconds};
use int8::Moved;
use retrain::Retrained;
use ways::Way;

/// One way to one package.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Which net, such as `15-64-32-1`.
    pub net: String,
    /// What the new package is.
    pub retraining: &'static str,
    /// `package`, or `int8 graph` for that one by itself.
    pub part: &'static str,
    /// How far the weights of an int8 graph moved.
    pub moved: Option<Moved>,
    /// How it was written.
    pub way: String,
    /// Bytes on the wire.
    pub bytes: u64,
    /// Of those of the package as it is.
    pub of_full: f64,
    /// Seconds to make it.
    pub make: f64,
    /// Seconds from patch and old package to the new one.
    pub apply: f64,
    /// Bytes of memory that this took at most, both packages included; of a program, all of its memory.
    pub peak: Option<u64>,
}

/// Trains, makes patches and applies them, each in a process of its own.
pub fn measure(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for net in retrain::NETS {
        for Retrained { kind, old, new } in retrain::all(net, folder)? {
            let like = Figure {
                net: net.name(),
                retraining: kind,
                part: "package",
                moved: None,
                way: "as it is".to_owned(),
                bytes: new.len() as u64,
                of_full: 1.0,
                make: 0.0,
                apply: 0.0,
                peak: None,
            };
            let (old_graph, new_graph) = (int8::graph(&old)?, int8::graph(&new)?);
            let moved = Some(int8::moved(&old_graph, &new_graph)?);
            let of_graph = Figure { part: "int8 graph", moved, bytes: new_graph.len() as u64, ..like.clone() };
            every_way(&like, &Way::ALL, (&old, &new), folder, &mut figures)?;
            every_way(&of_graph, &Way::OF_GRAPH, (&old_graph, &new_graph), folder, &mut figures)?;
        }
    }
    Ok(figures)
}

/// From one old file to its new one; `like` is the figure of the new one as it is.
fn every_way(
    like: &Figure,
    ways: &[Way],
    (old, new): (&[u8], &[u8]),
    folder: &Path,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<()> {
    fs::write(folder.join("old"), old)?;
    fs::write(folder.join("new"), new)?;
    let figure = |way: String, bytes: usize, make, apply, peak| Figure {
        way,
        bytes: bytes as u64,
        of_full: bytes as f64 / new.len() as f64,
        make,
        apply,
        peak,
        ..like.clone()
    };
    figures.push(like.clone());
    for way in ways {
        let start = Instant::now();
        let patch = way.make(old, new).with_context(|| way.name())?;
        let make = start.elapsed().as_secs_f64();
        let applied = in_child(*way, folder, &patch).with_context(|| way.name())?;
        figures.push(figure(way.name().to_owned(), patch.len(), make, applied.seconds, Some(applied.peak)));
    }
    for peer in programs::ALL {
        match peer.measure(folder, new)? {
            Some(found) => figures.push(figure(found.name, found.bytes, found.make, found.apply, found.peak)),
            None => eprintln!("\n*** NO PEER: {} is not installed; its figures stay empty. ***\n", peer.name),
        }
    }
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Applied {
    seconds: f64,
    peak: u64,
}

/// A process that does nothing else shows what applying takes.
fn in_child(way: Way, folder: &Path, patch: &[u8]) -> anyhow::Result<Applied> {
    fs::write(folder.join("patch"), patch)?;
    fs::write(folder.join("way"), way.name())?;
    let program = std::env::current_exe().context("the path of this program")?;
    let done = Command::new(program).arg("apply-patch").arg("--folder").arg(folder).output().context("start")?;
    ensure!(done.status.success(), "applying failed: {}", String::from_utf8_lossy(&done.stderr));
    ensure!(fs::read(folder.join("new"))? == fs::read(folder.join("made"))?, "another package came out");
    serde_json::from_slice(&done.stdout).context("the answer of the process that applied")
}

/// What the process does: reads `old` and `patch`, writes `made`, prints what it took.
pub fn apply(folder: &Path) -> anyhow::Result<()> {
    let name = fs::read_to_string(folder.join("way"))?;
    let way = Way::of_name(&name).with_context(|| format!("no way {name:?}"))?;
    let before = memory().resident;
    let start = Instant::now();
    way.apply(folder)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string(&Applied { seconds, peak: memory().peak.saturating_sub(before) })?);
    Ok(())
}

/// As a table.
pub fn table(figures: &[Figure]) -> String {
    let mut text = String::new();
    let mut last = None;
    for Figure { net, retraining, part, moved, way, bytes, of_full, make, apply, peak } in figures {
        if last != Some((net, retraining, part)) {
            last = Some((net, retraining, part));
            let moved = moved.map_or(String::new(), |Moved { weights, share, steps }| {
                format!("; of {weights} weights {:.1} % are others, by {steps:.1} steps on average", share * 100.0)
            });
            text += &format!(
                "{}{net}, {retraining}: {part}{moved}\n{:<34} {:>12} {:>8} {:>10} {:>10} {:>10}\n",
                if text.is_empty() { "" } else { "\n" },
                "way",
                "bytes",
                "of full",
                "make",
                "apply",
                "memory"
            );
        }
        let (bytes, share) = (count(*bytes as f64), of_full * 100.0);
        let [make, apply] = [*make, *apply].map(|time| if time > 0.0 { seconds(time) } else { "-".to_owned() });
        let peak = peak.map_or("-".to_owned(), megabytes);
        text += &format!("{way:<34} {bytes:>12} {share:>7.1}% {make:>10} {apply:>10} {peak:>10}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_leads_to_the_package() {
        let scratch = tempfile::tempdir().unwrap();
        for Retrained { kind, old, new } in retrain::all(retrain::TINY, scratch.path()).unwrap() {
            let graphs = (int8::graph(&old).unwrap(), int8::graph(&new).unwrap());
            let moved = int8::moved(&graphs.0, &graphs.1).unwrap();
            assert!(moved.weights >= 16 * 8 && moved.share > 0.0 && moved.steps >= 1.0, "{kind}: {moved:?}");
            assert_eq!(int8::moved(&graphs.0, &graphs.0).unwrap(), Moved { share: 0.0, steps: 0.0, ..moved });
            for (ways, old, new) in [(&Way::ALL[..], old, new), (&Way::OF_GRAPH, graphs.0, graphs.1)] {
                fs::write(scratch.path().join("old"), &old).unwrap();
                for way in ways {
                    let patch = way.make(&old, &new).unwrap();
                    fs::write(scratch.path().join("patch"), &patch).unwrap();
                    way.apply(scratch.path()).unwrap();
                    assert!(fs::read(scratch.path().join("made")).unwrap() == new, "{kind}: {}", way.name());
                    assert_eq!(Way::of_name(way.name()), Some(*way));
                }
            }
        }
    }

    #[test]
    fn one_table_per_net_retraining_and_part() {
        let figure = |retraining, part| Figure {
            net: "15-8-1".to_owned(),
            retraining,
            part,
            moved: (part == "int8 graph").then_some(Moved { weights: 128, share: 0.25, steps: 1.5 }),
            way: "zstd".to_owned(),
            bytes: 1_234,
            of_full: 0.5,
            make: 0.1,
            apply: 0.0,
            peak: Some(2_000_000),
        };
        let table = table(&[figure("last layer", "package"), figure("last layer", "int8 graph")]);
        for expected in ["15-8-1, last layer: package\n", "int8 graph; of 128 weights 25.0 % are", "50.0%", "2.0 MB"] {
            assert!(table.contains(expected), "{expected}: {table}");
        }
    }
}
