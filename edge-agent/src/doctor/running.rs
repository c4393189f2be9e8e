//! Whether an agent runs on this state, and what it says.

use serde_json::Value;
use tributary_process::checkup::host::{self, Holder, Locked};
use tributary_process::checkup::{Finding, bytes};
use tributary_process::http::{Client, Endpoint};

use super::Subject;
use crate::words::in_words;

const SECTION: &str = "State";

/// Who works with the state.
#[derive(Debug)]
pub(super) enum Running {
    /// Nobody.
    Nobody {
        /// Keeps an agent from starting in the middle of the look; none before the first start.
        lock: Option<std::fs::File>,
    },
    /// Somebody, and its status if its local API answered.
    Somebody {
        /// Who.
        holder: Holder,
        /// What it says, or why it says nothing.
        status: Result<Value, String>,
        /// Where it was asked.
        asked: Endpoint,
    },
    /// It cannot be known.
    Unknown(String),
}

impl Running {
    pub(super) async fn find(subject: &Subject) -> Self {
        let path = subject.path("state.redb");
        match host::share_lock(&path) {
            Ok(Locked::Free(lock)) => Self::Nobody { lock: Some(lock) },
            Ok(Locked::Held(holder)) => {
                let asked = subject.config.endpoint();
                let client = Client::new(asked.clone()).with_timeout(subject.options.patience);
                let status = client.get("/v1/status").await.map_err(|error| in_words(&error));
                Self::Somebody { holder, status, asked }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::Nobody { lock: None },
            Err(error) => Self::Unknown(format!("{}: {error}", path.display())),
        }
    }

    /// Lets an agent start again: what was to be read is read.
    pub(super) fn let_go(&mut self) {
        if let Self::Nobody { lock } = self {
            drop(lock.take());
        }
    }

    /// What the running agent says of itself.
    pub(super) fn status(&self) -> Option<&Value> {
        match self {
            Self::Somebody { status: Ok(status), .. } => Some(status),
            _ => None,
        }
    }

    /// Why nothing can be opened here, if that is so.
    pub(super) fn in_the_way(&self) -> Option<&'static str> {
        match self {
            Self::Nobody { .. } => None,
            Self::Somebody { status: Ok(_), .. } => Some("the running agent has it open"),
            Self::Somebody { .. } => Some("a running process has it open and says nothing"),
            Self::Unknown(_) => Some("the state file cannot be opened"),
        }
    }
}

pub(super) fn check(subject: &Subject, running: &Running) -> Vec<Finding> {
    match running {
        Running::Nobody { .. } => {
            let mut findings = vec![Finding::ok(SECTION, "agent", "does not run on this state; its files are read")];
            findings.extend(left_socket(subject));
            findings
        }
        Running::Unknown(why) => vec![
            Finding::fail(SECTION, "agent", format!("whether one runs cannot be known: {why}"))
                .advise("run the doctor as the user that the agent runs as"),
        ],
        Running::Somebody { holder, status: Err(why), asked } => vec![
            Finding::fail(
                SECTION,
                "agent",
                format!("{holder} has the state open, but does not answer at {asked}: {why}"),
            )
            .advise("are these the settings that it runs with? If it is stuck, its log says where; restart it"),
        ],
        Running::Somebody { holder, status: Ok(status), asked } => {
            judge(&format!("{holder}, asked at {asked}"), status)
        }
    }
}

/// A socket that nobody listens at is replaced at the next start, but whoever calls it meanwhile gets no answer.
fn left_socket(subject: &Subject) -> Option<Finding> {
    let Endpoint::Unix(path) = subject.config.endpoint() else { return None };
    let connected = std::os::unix::net::UnixStream::connect(&path);
    connected.is_ok().then(|| {
        let found = format!("another program answers at {}, where the agent wants to listen", path.display());
        Finding::fail(SECTION, "local API", found).advise("stop it, or set `listen.unix` to another path")
    })
}

fn judge(who: &str, status: &Value) -> Vec<Finding> {
    let memory = status["memory_bytes"].as_u64().map_or(String::new(), |found| format!(", {} of memory", bytes(found)));
    let version = status["agent"].as_str().unwrap_or("unknown");
    let mut findings = vec![Finding::ok(SECTION, "agent", format!("runs: {who}; version {version}{memory}"))];
    if version != crate::VERSION {
        let found = format!("this doctor has version {}, the running agent {version}", crate::VERSION);
        findings.push(Finding::warn(SECTION, "version", found).advise("restart the agent, or use its own doctor"));
    }
    let problems: Vec<String> = status["health"]["problems"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it.as_str().map(str::to_owned))
        .collect();
    if problems.is_empty() {
        findings.push(Finding::ok(SECTION, "health", "the running agent has no complaint"));
    } else {
        let found = format!(
            "the running agent has {}",
            tributary_process::checkup::count(problems.len() as u64, "complaint", "complaints")
        );
        findings.push(Finding::fail(SECTION, "health", found).with_details(problems));
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tributary_process::checkup::Mark;

    use super::*;

    #[test]
    fn what_the_running_agent_says_is_judged() {
        let marks = |status: Value| judge("edge-agent", &status).iter().map(Finding::mark).collect::<Vec<_>>();
        let well = json!({"agent": crate::VERSION, "memory_bytes": 1 << 20, "health": {"ok": true, "problems": []}});
        assert_eq!(marks(well), [Mark::Ok, Mark::Ok]);
        let ill = json!({"agent": "0.0.1", "health": {"ok": false, "problems": ["nothing can be stored"]}});
        assert_eq!(marks(ill), [Mark::Ok, Mark::Warn, Mark::Fail]);
        assert_eq!(marks(json!({})), [Mark::Ok, Mark::Warn, Mark::Ok]);
    }
}
