//! The child process that trains: started, waited for, stopped; its error output is kept.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use tokio::process::{Child, Command};

use super::TrainingConfig;

/// What the child process wrote to standard error.
pub const ERROR_OUTPUT_FILE: &str = "stderr.log";

/// A child process. Dropping it kills the process.
pub struct Trainer {
    child: Child,
    folder: PathBuf,
}

impl Trainer {
    /// Starts `<program> <arguments> train run FOLDER`.
    ///
    /// The child holds one end of a pipe as standard input and ends when the other end closes: a hub that is killed
    /// cannot kill its child, and two trainers of one run must never write into one folder.
    pub fn start(config: &TrainingConfig, folder: &Path) -> anyhow::Result<Self> {
        let program = match config.program.as_os_str().is_empty() {
            true => std::env::current_exe().context("find the running program")?,
            false => config.program.clone(),
        };
        let output = folder.join(ERROR_OUTPUT_FILE);
        let output = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&output)
            .with_context(|| format!("open {}", output.display()))?;
        let child = Command::new(&program)
            .args(&config.arguments)
            .args(["train", "run", "--stop-with-input"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(output)
            .kill_on_drop(true)
            // Ctrl-C in a terminal goes to the hub alone, which then decides about its child.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child, folder: folder.to_owned() })
    }

    /// Waits for its end; an end that is not success is an error with the last words of the child.
    pub async fn wait(mut self) -> anyhow::Result<()> {
        // `wait` of tokio closes the input first, which would stop the child; so it is held here until the end.
        let input = self.child.stdin.take();
        let status = self.child.wait().await.context("wait for the trainer")?;
        drop(input);
        if status.success() {
            return Ok(());
        }
        anyhow::bail!("the trainer {}{}", describe(status), self.last_words())
    }

    fn last_words(&self) -> String {
        let bytes = std::fs::read(self.folder.join(ERROR_OUTPUT_FILE)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(8192)..]).into_owned();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(3)..].join("; ");
        if last.is_empty() { String::new() } else { format!(": {}", last.chars().take(1000).collect::<String>()) }
    }
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let hint = if signal == 9 { " (out of memory?)" } else { "" };
        return format!("was ended by signal {signal}{hint}");
    }
    match status.code() {
        Some(code) => format!("ended with code {code}"),
        None => "ended".to_owned(),
    }
}
