//! A small library that is loaded before a program's own: it shifts the wall clock and refuses writes, while the
//! program runs. Made from C, which a stock machine with a Rust toolchain has a compiler for.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::agent::Agent;
use crate::process::Hub;
use crate::source::Source;

const SOURCE: &str = include_str!("shim.c");
/// Read-only file system, input/output error.
pub const READ_ONLY: i64 = 30;

fn library() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
        std::fs::write(&source, SOURCE).unwrap();
        let compiler = std::env::var_os("CC").unwrap_or("cc".into());
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source);
        let done = command.output().expect("a C compiler, as the README asks for");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        library
    })
}

/// A hub and a device under a shim each, and a source that has been at work for a while.
pub struct Shimmed {
    pub hubs: Shim,
    pub agents: Shim,
    pub hub: Hub,
    pub agent: Agent,
    pub source: Source,
}

impl Shimmed {
    /// In this folder.
    pub async fn begin(path: &Path) -> Self {
        let (data, state) = (path.join("data"), path.join("state"));
        let (hubs, agents) = (Shim::new(&path.join("hub-shim"), &data), Shim::new(&path.join("agent-shim"), &state));
        let mut hub = Hub::start_with(path, data, "", hubs.environment()).await;
        let mut agent = Agent::enrol(&hub, "edge-1", state, "").with(agents.environment());
        agent.start();
        agent.connected().await;
        let source = Source::start("e", &agent.local);
        source.goes_on(&mut hub, 20).await;
        Self { hubs, agents, hub, agent, source }
    }
}

/// What is done to one program.
pub struct Shim {
    control: File,
    environment: Vec<(String, String)>,
}

impl Shim {
    /// Nothing yet; it is told what to do by a file in the folder `own`. Writes below `folder` can be refused.
    pub fn new(own: &Path, folder: &Path) -> Self {
        std::fs::create_dir_all(own).unwrap();
        let path = own.join("shim.control");
        let control = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        control.set_len(16).unwrap();
        let set = |name: &str, value: &Path| (name.to_owned(), value.display().to_string());
        let environment = vec![
            set("LD_PRELOAD", library()),
            set("TRIBUTARY_SHIM_CONTROL", &path),
            set("TRIBUTARY_SHIM_FOLDER", folder),
        ];
        Self { control, environment }
    }

    /// Variables that load it.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The wall clock is so far ahead of the true one.
    pub fn ahead(&self, by: Duration) {
        self.shift(by.as_micros() as i64);
    }

    /// Behind it.
    pub fn behind(&self, by: Duration) {
        self.shift(-(by.as_micros() as i64));
    }

    fn shift(&self, micros: i64) {
        self.control.write_all_at(&micros.to_ne_bytes(), 0).unwrap();
    }

    /// Every write fails with this number; 0: none does.
    pub fn refuse(&self, error: i64) {
        self.control.write_all_at(&error.to_ne_bytes(), 8).unwrap();
    }
}
