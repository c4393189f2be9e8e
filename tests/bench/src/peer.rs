//! Runs what we compare with: other libraries, through scripts that are part of this program.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

/// A Python interpreter.
#[derive(Debug, Clone)]
pub struct Python {
    program: String,
}

impl Python {
    /// By name or path.
    pub fn new(program: &str) -> Self {
        Self { program: program.to_owned() }
    }

    /// Whether all modules can be imported; if not, says so where nobody can miss it.
    pub fn has(&self, modules: &[&str]) -> bool {
        let imports = modules.iter().map(|module| format!("import {module}\n")).collect::<String>();
        let done = Command::new(&self.program).args(["-c", &imports]).output();
        let found = done.is_ok_and(|done| done.status.success());
        if !found {
            let (program, modules) = (&self.program, modules.join(", "));
            eprintln!("\n*** NO PEER: {program} cannot import {modules}; those figures stay empty. ***\n");
        }
        found
    }

    /// Runs a script with arguments and reads the JSON that it prints.
    pub fn run<T: DeserializeOwned>(&self, script: &str, arguments: &[&str]) -> anyhow::Result<T> {
        let done = Command::new(&self.program).arg("-c").arg(script).args(arguments).output();
        let done = done.with_context(|| format!("start {}", self.program))?;
        if !done.status.success() {
            bail!("the peer {arguments:?} failed:\n{}", String::from_utf8_lossy(&done.stderr));
        }
        serde_json::from_slice(&done.stdout).with_context(|| format!("the answer of the peer {arguments:?}"))
    }

    /// Starts a script that goes on until it is dropped.
    pub fn serve(&self, script: &str, arguments: &[&str]) -> anyhow::Result<Service> {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(script).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| format!("start {}", self.program))?;
        Ok(Service { child })
    }
}

/// A script that runs.
#[derive(Debug)]
pub struct Service {
    child: Child,
}

impl Service {
    /// Waits for the line of JSON that it prints when it is ready.
    pub fn ready<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let output = self.child.stdout.take().context("the peer was asked before")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("read from the peer")?;
        serde_json::from_str(&line).with_context(|| format!("the peer said {line:?} and not that it is ready"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_that_is_not_there_has_nothing() {
        let python = Python::new("no-such-python");
        assert!(!python.has(&["json"]));
        assert!(python.run::<u32>("print(1)", &[]).unwrap_err().to_string().contains("no-such-python"));
    }
}
