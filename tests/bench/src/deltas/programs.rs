//! What others patch with, as it is installed on the machine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};

/// A program that makes and applies patches.
pub struct Peer {
    /// As people call it.
    pub name: &'static str,
    make: (&'static str, &'static [&'static str]),
    apply: (&'static str, &'static [&'static str]),
}

/// All of them. `OLD`, `NEW`, `PATCH` and `MADE` stand for files.
pub const ALL: [Peer; 3] = [
    Peer {
        name: "zstd --patch-from -19 --long=27",
        make: ("zstd", &["-qf", "-19", "--long=27", "--patch-from=OLD", "NEW", "-o", "PATCH"]),
        apply: ("zstd", &["-qdf", "--long=27", "--patch-from=OLD", "PATCH", "-o", "MADE"]),
    },
    Peer {
        name: "bsdiff (program)",
        make: ("bsdiff", &["OLD", "NEW", "PATCH"]),
        apply: ("bspatch", &["OLD", "MADE", "PATCH"]),
    },
    Peer {
        name: "xdelta3 -9",
        make: ("xdelta3", &["-f", "-9", "-e", "-s", "OLD", "NEW", "PATCH"]),
        apply: ("xdelta3", &["-f", "-d", "-s", "OLD", "PATCH", "MADE"]),
    },
];

/// What a peer took.
pub struct Found {
    /// With what it was.
    pub name: String,
    /// Length of its patch.
    pub bytes: usize,
    /// Seconds.
    pub make: f64,
    /// Seconds.
    pub apply: f64,
    /// Highest resident bytes of the program that applied.
    pub peak: Option<u64>,
}

impl Peer {
    /// Makes a patch in the folder and applies it; nothing when it is not installed.
    pub fn measure(&self, folder: &Path, new: &[u8]) -> anyhow::Result<Option<Found>> {
        let name = self.name;
        let timed = |(program, arguments): (&str, &[&str])| {
            let arguments = arguments.iter().map(|argument| {
                let files = [("OLD", "old"), ("NEW", "new"), ("PATCH", "peer"), ("MADE", "made")];
                files.iter().fold(argument.to_string(), |argument, (word, file)| argument.replace(word, file))
            });
            // GNU time knows the highest memory of what it starts.
            let mut command = Command::new("/usr/bin/time");
            command.args(["-f", "%M", "-o", "memory", program]).args(arguments).current_dir(folder);
            let start = Instant::now();
            let done = command.output().context("start /usr/bin/time")?;
            let seconds = start.elapsed().as_secs_f64();
            ensure!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
            let kibibytes = fs::read_to_string(folder.join("memory")).ok().and_then(|text| text.trim().parse().ok());
            anyhow::Ok((seconds, kibibytes.map(|kibibytes: u64| kibibytes << 10)))
        };
        let installed = |program: &str| Command::new("which").arg(program).output().is_ok_and(|it| it.status.success());
        if ![self.make.0, self.apply.0, "/usr/bin/time"].into_iter().all(installed) {
            return Ok(None);
        }
        let (make, _) = timed(self.make)?;
        let (apply, peak) = timed(self.apply)?;
        ensure!(fs::read(folder.join("made"))? == new, "{name}: another package came out");
        let bytes = fs::metadata(folder.join("peer"))?.len() as usize;
        Ok(Some(Found { name: name.to_owned(), bytes, make, apply, peak }))
    }
}
