//! Starting the program again in place: the process keeps its number, so whoever supervises it sees no end.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the process is to be started again when it has drained. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// It is.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The program as it was started.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The present one. To be asked at start: once its file was replaced, the system does not know its path any more.
    pub fn present() -> io::Result<Self> {
        Ok(Self { path: std::env::current_exe()?, arguments: std::env::args_os().skip(1).collect() })
    }

    /// Puts the program, as its file now is, in the place of this process. Returns only when that fails.
    pub fn start_again(self) -> io::Error {
        let mut command = std::process::Command::new(&self.path);
        command.args(&self.arguments);
        #[cfg(unix)]
        {
            std::os::unix::process::CommandExt::exec(&mut command)
        }
        #[cfg(not(unix))]
        {
            // The exit code asks a supervisor for another start.
            io::Error::other("this system cannot start a program in place; its supervisor has to")
        }
    }
}
