//! Where events come from: lines with sensor nodes, and a file to play.

use std::path::Path;

use rustix::fs::{Access, access};
use tributary_process::checkup::Finding;

use super::Subject;
use super::running::Running;
use crate::sources::serial::PortName;

const SECTION: &str = "Sources";

pub(super) fn check(subject: &Subject, running: &Running) -> Vec<Finding> {
    let mut findings = Vec::new();
    for serial in &subject.config.sources.serial {
        let name = format!("node {}", serial.node);
        findings.push(match &serial.port {
            PortName::Tty(path) => line(&name, path),
            PortName::Unix(path) if path.exists() => Finding::ok(SECTION, name, format!("{} is there", path.display())),
            PortName::Unix(path) => missing(&name, path),
            PortName::Tcp(address) => Finding::skipped(SECTION, name, format!("{address} takes one caller at a time")),
        });
        if let Some(path) = &serial.image_keys
            && let Err(error) = std::fs::read(path)
        {
            let found = format!("`image_keys` of node {}: {}: {error}", serial.node, path.display());
            findings.push(
                Finding::fail(SECTION, "image keys", found)
                    .advise("put the file there: no image is brought by hand without it"),
            );
        }
    }
    if let Some(replay) = &subject.config.sources.replay {
        let path = &replay.file;
        findings.push(match std::fs::File::open(path).and_then(|file| file.metadata()) {
            Ok(about) => {
                let bytes = tributary_process::checkup::bytes(about.len());
                Finding::ok(SECTION, "replay", format!("{}, {bytes}", path.display()))
            }
            Err(error) => Finding::fail(SECTION, "replay", format!("{}: {error}", path.display()))
                .advise("put the file there, or take it out of the settings"),
        });
    }
    for node in running.status().and_then(|status| status["nodes"].as_array()).into_iter().flatten() {
        if let Some(error) = node["error"].as_str() {
            let name = format!("node {}", node["node"].as_str().unwrap_or_default());
            findings.push(Finding::fail(SECTION, name, format!("the running agent says: {error}")));
        }
    }
    findings
}

fn missing(name: &str, path: &Path) -> Finding {
    Finding::fail(SECTION, name, format!("{} is not there", path.display()))
        .advise("is the node plugged in? `ls -l /dev/serial/by-id` shows lines under names that stay")
}

fn line(name: &str, path: &Path) -> Finding {
    if !path.exists() {
        return missing(name, path);
    }
    if access(path, Access::READ_OK | Access::WRITE_OK).is_err() {
        return Finding::fail(SECTION, name, format!("{} is there, but this user may not use it", path.display()))
            .advise("put the agent's user into the group that owns it (often dialout), and start the agent again");
    }
    Finding::ok(SECTION, name, format!("{} is there and may be used", path.display()))
}

#[cfg(test)]
mod tests {
    use tributary_process::checkup::Mark;

    use super::*;

    #[test]
    fn a_line_is_there_or_not() {
        assert_eq!(line("node a", Path::new("/dev/null")).mark(), Mark::Ok);
        let gone = line("node a", Path::new("/dev/no-such-line"));
        assert!(gone.mark() == Mark::Fail && gone.found().contains("/dev/no-such-line"));
    }
}
