//! Where events come from: lines with sensor nodes, and a file to play.

use std::path::Path;

use rustix::fs::{Access, access};
use serde_json::Value;
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
    findings.extend(running.status().map(told).unwrap_or_default());
    findings
}

/// What a running agent says is wrong with the lines of its nodes.
fn told(status: &Value) -> Vec<Finding> {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    let told = nodes.filter_map(|node| Some((node["node"].as_str().unwrap_or_default(), node["problem"].as_str()?)));
    told.map(|(node, problem)| {
        Finding::fail(SECTION, format!("node {node}"), format!("the running agent says: {problem}"))
    })
    .collect()
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
    use crate::sources::SerialConfig;
    use crate::sources::serial::Serial;

    #[test]
    fn a_line_is_there_or_not() {
        assert_eq!(line("node a", Path::new("/dev/null")).mark(), Mark::Ok);
        let gone = line("node a", Path::new("/dev/no-such-line"));
        assert!(gone.mark() == Mark::Fail && gone.found().contains("/dev/no-such-line"));
    }

    #[test]
    fn what_the_running_agent_says_of_a_line_is_a_finding() {
        let folder = tempfile::tempdir().unwrap();
        let mut node =
            Serial::new(SerialConfig { node: "pump-1".into(), ..SerialConfig::default() }, folder.path()).status();
        let findings = |node| told(&serde_json::json!({ "nodes": [node] }));
        assert!(findings(node.clone()).is_empty());
        node.problem = Some("the line is not open: no such file".into());
        let found = findings(node);
        assert!(found.len() == 1 && found[0].mark() == Mark::Fail, "{}", found.len());
        assert!(found[0].found().contains("the line is not open"), "{}", found[0].found());
    }
}
