//! The signed repository: whether a device would believe it, until when, and whether the keys for the next are here.

use sqlx::SqlitePool;
use tributary_process::checkup::{Finding, Mark, count, span};
use tributary_wire::Micros;

use super::{Subject, words};
use crate::publish::lifetimes::Standing;
use crate::publish::status::{RoleStatus, status};
use crate::publish::{Keys, proof};

const SECTION: &str = "Repository";

pub(super) async fn check(subject: &Subject, catalog: Option<&SqlitePool>) -> Vec<Finding> {
    let Some(catalog) = catalog else {
        return vec![Finding::skipped(SECTION, "all", "without the catalog there is none")];
    };
    let mut findings = Vec::new();
    let keys = match Keys::read(&subject.path("keys")) {
        Ok(keys) => keys,
        Err(error) => {
            let advice =
                "restore the folder keys/ from a backup; the hub makes no new one while the repository names the old";
            findings.push(Finding::fail(SECTION, "keys", format!("{error:#}")).advise(advice));
            return findings;
        }
    };
    let roles = match catalog.acquire().await {
        Ok(mut connection) => status(&mut connection, &keys, subject.now).await.map_err(|error| words(&error)),
        Err(error) => Err(words(&error)),
    };
    let roles = match roles {
        Ok(roles) => roles,
        Err(problem) => {
            findings.push(Finding::fail(SECTION, "roles", problem));
            return findings;
        }
    };
    if roles.is_empty() {
        let found = "none yet: devices install nothing from this hub";
        findings.push(Finding::warn(SECTION, "roles", found).advise("cloud-hub keys init --out DIR --line NAME"));
        return findings;
    }
    findings.push(match proof::as_a_device(catalog, subject.now).await {
        Ok(proven) => {
            let releases = count(proven.releases, "release", "releases");
            let found = format!(
                "root {}, snapshot {}, timestamp {}; {releases} named as published",
                proven.versions.root, proven.versions.snapshot, proven.versions.timestamp
            );
            Finding::ok(SECTION, "signatures", format!("a device believes it: {found}"))
        }
        Err(error) => Finding::fail(SECTION, "signatures", format!("a device would not believe it: {}", words(&error)))
            .advise("cloud-hub keys status says which role needs whom"),
    });
    findings.extend(roles.iter().map(|role| judge(role, subject.now)));
    findings
}

fn judge(role: &RoleStatus, now: Micros) -> Finding {
    let mark = match role.standing {
        Standing::Fine if role.next.is_empty() => Mark::Ok,
        Standing::Fine | Standing::Soon => Mark::Warn,
        Standing::Urgent | Standing::Expired => Mark::Fail,
    };
    let version = role.version.map_or("none yet".to_owned(), |version| format!("version {version}"));
    let term = role.expires.map(|expires| Micros(expires).since(now)).map_or(String::new(), |left| match left {
        ..=0 => format!(", expired {} ago", span(left)),
        _ => format!(", good for {}", span(left)),
    });
    let signer = match role.by_hub {
        true => "this hub signs it".to_owned(),
        false => {
            format!("{} of {} sign it", role.threshold, count(role.keys.len() as u64, "person's key", "people's keys"))
        }
    };
    let name = role.role.strip_prefix("models/").unwrap_or(&role.role);
    let found = match role.role.as_str() {
        "assignments" => format!(
            "{}, {} here",
            count(role.keys.len() as u64, "key announced", "keys announced"),
            role.keys.iter().filter(|key| key.here).count()
        ),
        _ => format!("{version}{term}; {signer}"),
    };
    let finding = Finding::new(SECTION, name, mark, found);
    if role.next.is_empty() { finding } else { finding.advise(role.next.clone()) }
}
