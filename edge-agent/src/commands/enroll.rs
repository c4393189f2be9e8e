//! `edge-agent enroll`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use tributary_identity::{DeviceClock, EnrolmentToken};
use tributary_process::http::Endpoint;
use tributary_wire::{DeviceId, Micros};

use super::{Failure, Settings, show};
use crate::identity::{Enrolment, Folder, Time, enrol, token_from};
use crate::sources::rfc3339;

/// Join a hub: make a key on this device, which never leaves it, and get a
/// certificate for it. The hub is checked by the fingerprint in the token
/// before anything is sent to it. When the answer is lost, enrol again with
/// the same token: it is the same key.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  edge-agent enroll --hub https://hub:8443 --token-file /run/token
  ssh hub cloud-hub token create --uses 1 | edge-agent enroll \\
      --config agent.toml --device edge-7 --token-file -
  edge-agent enroll --again --hub https://hub:8443 --token-file token

Exit codes: 0 enrolled, 1 failed, or enrolled before, 2 wrong usage,
3 the hub cannot be reached, 5 the hub refused, or is not the one that
the token names.

Do this as the user that the agent runs as; then start the agent, or
start it again.")]
pub(super) struct Enroll {
    /// Address of the hub's web API; unless given, hub.url of the settings
    #[arg(long, value_name = "URL")]
    hub: Option<String>,
    /// The token. Others on this machine can read it in the list of
    /// processes; a file or standard input keeps it from them
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// File that holds the token; - is standard input
    #[arg(long, value_name = "FILE", required_unless_present = "token")]
    token_file: Option<PathBuf>,
    /// Id of this device; unless given, that of the settings
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Give a device that is enrolled another identity
    #[arg(long)]
    again: bool,
}

pub(super) fn enroll(settings: &Settings, enroll: &Enroll) -> Result<ExitCode, Failure> {
    let config = settings.load()?;
    let hub = enroll.hub.as_ref().unwrap_or(&config.hub.url);
    if hub.is_empty() {
        return Err(Failure::Usage("which hub? Say --hub https://HOST:8443, or set hub.url".into()));
    }
    let hub: Endpoint = hub.parse().map_err(Failure::Usage)?;
    let device = match &enroll.device {
        Some(id) => DeviceId::new(id).map_err(|error| Failure::Usage(format!("--device {id:?}: {error}")))?,
        None => config.device.clone(),
    };
    let text = match (&enroll.token, &enroll.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => token_from(path).with_context(|| format!("token from {}", path.display()))?,
        // The parser asks for one of them.
        (None, None) => String::new(),
    };
    let token: EnrolmentToken = text.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    let folder = Folder::of(&config.state_dir);
    // Whoever enrols again may do so because the old identity's time went wrong.
    let time = if enroll.again { Time::of(DeviceClock::new(Micros(0))) } else { Time::open(folder.clone()) };
    let enrolment = Enrolment { hub, token, device, again: enroll.again };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let done = runtime.block_on(enrol(&folder, &time, &enrolment))?;
    let shown = json!({
        "device": done.device,
        "serial": done.serial.as_str(),
        "not_after": rfc3339(&done.not_after),
        "renew_after": rfc3339(&done.renew_after),
        "identity": folder.path(),
    });
    show::print(settings.json, &shown, human);
    Ok(ExitCode::SUCCESS)
}

fn human(done: &Value) -> String {
    let text = |name: &str| done[name].as_str().unwrap_or_default().to_owned();
    format!(
        "Enrolled as {}.\n  certificate {}\n  valid until {}, renewed from {} on\n  kept in {}\n\
         Start the agent, or start it again.\n",
        text("device"),
        text("serial"),
        text("not_after"),
        text("renew_after"),
        text("identity"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &tempfile::TempDir) -> Settings {
        let state = format!("state_dir={:?}", folder.path().join("state").display().to_string());
        Settings { config: None, set: vec![state], json: false }
    }

    fn wish(hub: Option<&str>, token: &str) -> Enroll {
        let (hub, token) = (hub.map(str::to_owned), Some(token.to_owned()));
        Enroll { hub, token, token_file: None, device: None, again: false }
    }

    #[test]
    fn wrong_usage_and_an_absent_hub_are_told_apart_and_no_secret_is_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let token = EnrolmentToken::new("k7", [7; 32], tributary_wire::Sha256([9; 32])).unwrap().to_string();
        let half = &token[..token.len() / 2];
        for (hub, token) in [(None, &*token), (Some("hub"), &*token), (Some("https://127.0.0.1:1"), half)] {
            let failure = enroll(&settings(&folder), &wish(hub, token)).unwrap_err();
            assert_eq!(failure.code(), 2, "{failure}");
            assert!(!failure.to_string().contains("BwcH"), "{failure}");
        }
        let failure = enroll(&settings(&folder), &wish(Some("http://127.0.0.1:1"), &token)).unwrap_err();
        assert_eq!(failure.code(), 2);
        let failure = enroll(&settings(&folder), &wish(Some("https://127.0.0.1:1"), &token)).unwrap_err();
        assert_eq!(failure.code(), 3);
        let words = format!("{:#}", anyhow::Error::from(failure));
        assert!(words.contains("https://127.0.0.1:1"), "{words}");
    }

    #[test]
    fn a_token_comes_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "  secret\n").unwrap();
        assert_eq!(token_from(&file).unwrap(), "secret");
    }
}
