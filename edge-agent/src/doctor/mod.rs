//! `edge-agent doctor`: everything that this device needs, looked at; what is wrong, and what to do about it.
//!
//! A look changes nothing. Where an agent runs it is asked for what only it can open; where none runs its files are read
//! under their lock. What can be mended without losing anything comes as a [`Mend`](tributary_process::checkup::Mend):
//! whoever called decides whether it is carried out. Each module gathers facts about one subject and judges them.

mod settings;
mod running;
mod state;
mod outbox;
mod windows;
mod packages;
mod trust;
mod certificate;
mod clock;
mod hub;
mod sources;
mod machine;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use tributary_process::checkup::{Finding, FolderRules, Report, folder};
use tributary_process::clock::wall_now;
use tributary_process::config::Sources;
use tributary_wire::Micros;

use crate::config::Config;
use crate::identity::{Folder, Identity, IdentityError, Time};
use running::Running;

const FOLDER: FolderRules = FolderRules {
    section: "Folder",
    name: "state folder",
    setting: "state_dir",
    program: "agent",
    is_secret: |path| path.file_name().is_some_and(|name| name == "key.pem" || name == "pending.pem"),
    private: "identity",
};

/// How far a look goes.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Longest wait for each answer over the network.
    pub patience: Duration,
    /// Nobody is asked over the network.
    pub offline: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { patience: Duration::from_secs(5), offline: false }
    }
}

/// What the checks share.
struct Subject {
    config: Config,
    options: Options,
    now: Micros,
    time: Time,
    identity: Result<Option<std::sync::Arc<Identity>>, IdentityError>,
}

impl Subject {
    fn new(config: Config, options: Options) -> Self {
        let folder = Folder::of(&config.state_dir);
        let time = Time::open(folder.clone());
        let identity = Identity::open(folder, &config.hub, time.clone());
        Self { config, options, now: Micros(wall_now()), time, identity }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.config.state_dir.join(name)
    }

    /// The instant of this look, for names and reports.
    fn at(&self) -> String {
        Micros(self.now.0 - self.now.0.rem_euclid(Micros::SECOND)).to_string()
    }
}

/// Looks at everything that the settings speak of.
pub async fn examine(sources: &Sources, options: Options) -> Report {
    let (config, mut findings) = settings::load(sources);
    let subject = match config {
        Some(config) => Subject::new(config, options),
        None => {
            let why = "the settings cannot be read";
            let sections = ["State", "Packages", "Trust", "Hub", "Machine"];
            findings.extend(sections.into_iter().map(|section| Finding::skipped(section, "all", why)));
            return report("unknown device".to_owned(), Micros(wall_now()), findings);
        }
    };
    findings.extend(folder(&FOLDER, &subject.config.state_dir));
    let mut running = Running::find(&subject).await;
    findings.extend(running::check(&subject, &running));
    let opened = state::check(&subject, &running);
    findings.extend(opened.findings);
    let store = opened.store;
    findings.extend(packages::check(&subject, store.as_deref()));
    findings.extend(windows::check(&subject, &running, store.as_deref()));
    findings.extend(trust::check(&subject, &running, store.clone()).await);
    drop(store);
    running.let_go();
    findings.extend(certificate::check(&subject));
    let (reached, heard) = hub::check(&subject).await;
    findings.extend(clock::check(&subject, heard));
    findings.extend(reached);
    findings.extend(sources::check(&subject, &running));
    findings.extend(machine::check(&subject));
    let device = match &subject.identity {
        Ok(Some(identity)) => identity.current().device.to_string(),
        _ => subject.config.device.to_string(),
    };
    report(device, subject.now, findings)
}

fn report(device: String, now: Micros, mut findings: Vec<Finding>) -> Report {
    const ORDER: [&str; 8] = ["Settings", "Folder", "State", "Packages", "Trust", "Hub", "Sources", "Machine"];
    findings.sort_by_key(|finding| ORDER.iter().position(|section| *section == finding.key().0));
    let at = Micros(now.0 - now.0.rem_euclid(Micros::SECOND)).to_string();
    Report { program: "edge-agent", version: crate::VERSION, subject: device, at, findings }
}
