//! `cloud-hub doctor`: everything that a hub needs, looked at; what is wrong, and what to do about it.
//!
//! A look changes nothing and may be taken while the hub works: the catalog is only read, files are. What can be mended
//! without losing anything comes as a [`Mend`](tributary_process::checkup::Mend): whoever called decides whether it is
//! carried out. Each module gathers facts about one subject and judges them.

mod catalog;
mod mend;
mod lake;
mod packages;
mod repository;
mod identity;
mod service;
mod doors;

use std::path::PathBuf;
use std::time::Duration;

use sqlx::SqlitePool;
use tributary_process::checkup::host::{self, Holder, Locked};
use tributary_process::checkup::{Finding, FolderRules, Report, folder};
use tributary_process::config::Sources;
use tributary_wire::Micros;

use crate::api::chain;
use crate::config::Config;

const FOLDER: FolderRules = FolderRules {
    section: "Folder",
    name: "data folder",
    setting: "data_dir",
    program: "hub",
    is_secret: |path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(".key") || name == "admin.token" || name.starts_with("catalog.db")
    },
    private: "",
};

/// How far a look goes.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Longest wait for each answer over the network.
    pub patience: Duration,
    /// Whether every record of the lake is read.
    pub deep: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { patience: Duration::from_secs(5), deep: false }
    }
}

/// What the checks share.
struct Subject {
    config: Config,
    options: Options,
    now: Micros,
    /// The hub that works in the folder, if one does.
    running: Option<Holder>,
}

impl Subject {
    fn path(&self, name: &str) -> PathBuf {
        self.config.data_dir.join(name)
    }

    fn at(&self) -> String {
        whole(self.now).to_string()
    }
}

/// Without parts of a second.
fn whole(time: Micros) -> Micros {
    Micros(time.0 - time.0.rem_euclid(Micros::SECOND))
}

/// An error with its causes.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error)
}

/// Looks at everything that the settings speak of.
pub async fn examine(sources: &Sources, options: Options) -> Report {
    let now = crate::catalog::now();
    let (config, mut findings) = settings(sources);
    let Some(config) = config else { return report("unknown hub".to_owned(), now, findings) };
    let subject_of = config.data_dir.display().to_string();
    findings.extend(folder(&FOLDER, &config.data_dir));
    if !config.data_dir.is_dir() {
        findings.extend(tributary_process::checkup::disk("Machine", &config.data_dir, 0));
        return report(subject_of, now, findings);
    }
    // Held until the catalog is read: a hub that starts in the middle would change it.
    let (running, lock) = match host::share_lock(&config.data_dir.join("lock")) {
        Ok(Locked::Held(holder)) => (Some(holder), None),
        Ok(Locked::Free(lock)) => (None, Some(lock)),
        Err(_) => (None, None),
    };
    let subject = Subject { config, options, now, running };
    let (found, catalog) = catalog::check(&subject).await;
    findings.extend(found);
    findings.extend(lake::check(&subject, catalog.as_ref()).await);
    findings.extend(packages::check(&subject, catalog.as_ref()).await);
    findings.extend(repository::check(&subject, catalog.as_ref()).await);
    findings.extend(identity::check(&subject));
    findings.extend(service::check(&subject, catalog.as_ref()).await);
    if let Some(catalog) = catalog {
        SqlitePool::close(&catalog).await;
    }
    drop(lock);
    report(subject_of, now, findings)
}

fn settings(sources: &Sources) -> (Option<Config>, Vec<Finding>) {
    let section = "Settings";
    let wrong = |problem: String| {
        let advice = "correct it; `cloud-hub config show` prints every key with its default";
        (None, vec![Finding::fail(section, "settings", problem).advise(advice)])
    };
    let mut config: Config = match sources.load() {
        Ok(config) => config,
        Err(error) => return wrong(words(&error)),
    };
    if let Err(error) = config.identity.check().and_then(|()| config.publish.check()) {
        return wrong(format!("{error:#}"));
    }
    if let Ok(absolute) = std::path::absolute(&config.data_dir) {
        config.data_dir = absolute;
    }
    let from =
        sources.file.as_ref().map_or("defaults, variables and flags".to_owned(), |path| path.display().to_string());
    let mut findings = vec![Finding::ok(section, "settings", format!("{from}; every key is known"))];
    let plain = [
        ("api.insecure_plain_on_loopback", config.api.insecure_plain_on_loopback.is_some()),
        ("gateway.insecure_plain_on_loopback", config.gateway.insecure_plain_on_loopback.is_some()),
    ];
    let plain: Vec<&str> = plain.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect();
    if !plain.is_empty() {
        let found = format!("{}: whoever is on this machine gets in without encryption", plain.join(", "));
        findings.push(Finding::warn(section, "unsafe settings", found).advise("for development only"));
    }
    (Some(config), findings)
}

fn report(subject: String, now: Micros, mut findings: Vec<Finding>) -> Report {
    const ORDER: [&str; 9] =
        ["Settings", "Folder", "Service", "Catalog", "Lake", "Packages", "Repository", "Identity", "Machine"];
    findings.sort_by_key(|finding| ORDER.iter().position(|section| *section == finding.key().0));
    let at = whole(now).to_string();
    Report { program: "cloud-hub", version: env!("CARGO_PKG_VERSION"), subject, at, findings }
}
