//! One line and role: its updater, and what is under way for it.

use std::sync::Arc;

use edge_agent_core::updater::{Record, RecordV1, Updater};
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;
use tributary_wire::{LineName, ReleaseRef, Role, Sha256};

use super::fetch::FetchError;
use crate::packages::{ActivePackage, OpenError};

/// Where records lie in the store.
pub(super) const RECORDS: &str = "update/line/";

/// Versions of a stored record.
#[derive(Serialize, Deserialize)]
pub(super) enum StoredRecord {
    V1(RecordV1),
    V2(Record),
}

impl From<StoredRecord> for Record {
    fn from(stored: StoredRecord) -> Self {
        match stored {
            StoredRecord::V1(record) => record.into(),
            StoredRecord::V2(record) => record,
        }
    }
}

/// What a task beside the loop has finished.
pub(super) struct Done {
    pub(super) line: LineName,
    pub(super) role: Role,
    pub(super) work: Work,
}

pub(super) enum Work {
    Fetched(Sha256, Result<Arc<ActivePackage>, FetchError>),
    /// For the order of this number.
    Opened(u64, Sha256, Result<Arc<ActivePackage>, OpenError>),
}

pub(super) struct Line {
    pub(super) name: LineName,
    pub(super) role: Role,
    pub(super) updater: Updater,
    /// Checked packages in memory: the committed one, and the candidate. Going back takes no disk.
    pub(super) loaded: Vec<Arc<ActivePackage>>,
    pub(super) engine: &'static str,
    pub(super) fetching: Option<AbortHandle>,
    /// Counts orders to serve, so that a package that was opened for an older one is not put in place.
    pub(super) order: u64,
    /// The newest order that was carried out, or failed.
    pub(super) carried_out: u64,
}

impl Line {
    pub(super) fn new(name: LineName, role: Role, updater: Updater) -> Self {
        Self { name, role, updater, loaded: Vec::new(), engine: "", fetching: None, order: 0, carried_out: 0 }
    }

    pub(super) fn key(name: &LineName, role: &Role) -> String {
        format!("{RECORDS}{name}/{role}")
    }

    pub(super) fn is(&self, name: &LineName, role: &Role) -> bool {
        (&self.name, &self.role) == (name, role)
    }

    pub(super) fn loaded(&self, release: &ReleaseRef) -> Option<Arc<ActivePackage>> {
        self.loaded.iter().find(|package| package.reference.sha256 == release.sha256).cloned()
    }

    pub(super) fn keep(&mut self, package: Arc<ActivePackage>) {
        self.loaded.retain(|other| other.reference.sha256 != package.reference.sha256);
        self.loaded.push(package);
    }

    /// Lets go of packages that are neither committed nor on their way.
    pub(super) fn release(&mut self) {
        let record = self.updater.record();
        let needed = [record.committed.as_ref(), record.candidate.release()];
        self.loaded.retain(|package| needed.iter().flatten().any(|release| release.sha256 == package.reference.sha256));
    }

    /// The names in a key of a stored record.
    pub(super) fn parse(key: &str) -> Option<(LineName, Role)> {
        let (line, role) = key.strip_prefix(RECORDS)?.split_once('/')?;
        Some((LineName::new(line).ok()?, Role::new(role).ok()?))
    }
}
