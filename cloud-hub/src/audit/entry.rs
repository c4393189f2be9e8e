//! One entry and its hash.
//!
//! The hash is SHA-256 over these bytes, so that no two different entries share them:
//!
//! 1. the domain, `"tributary audit entry 1\0"`: no other hash of the system begins so;
//! 2. the hash of the entry before, 32 bytes; 32 zeros for the first;
//! 3. number and time, each as eight bytes, most significant first;
//! 4. who, role, action, subject, from, to, origin, in this order: each its length in bytes as eight bytes, most
//!    significant first, then its bytes. From and to are the JSON text exactly as it is kept.

use tributary_release::Hasher;
use tributary_wire::{AuditHead, Micros, Sha256};

use super::Change;
use crate::access::{Caller, Who};

const DOMAIN: &[u8] = b"tributary audit entry 1\0";

/// What stands in the place of the entry before the first one.
pub const NOTHING: AuditHead = AuditHead { number: 0, hash: Sha256([0; 32]) };

/// What an entry says, before it has its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// When, UTC microseconds.
    pub time: Micros,
    /// `hub`, `nobody`, `device:<id>` or `token:<id>`.
    pub who: String,
    /// Role of a token, else empty.
    pub role: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// As it was before: JSON text.
    pub from: String,
    /// As it is now: JSON text.
    pub to: String,
    /// Address of the caller, else empty.
    pub origin: String,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts up from 1, without gaps.
    pub number: u64,
    /// What it says.
    pub draft: Draft,
    /// Hash of the entry before.
    pub previous: Sha256,
    /// Hash of this one.
    pub hash: Sha256,
}

impl Draft {
    /// A change in a caller's name.
    pub fn new(caller: &Caller, change: Change<'_>, now: Micros) -> Self {
        let (who, role) = name(&caller.who);
        Self {
            time: now,
            who,
            role: role.to_owned(),
            action: change.action.to_owned(),
            subject: change.subject.to_owned(),
            from: change.from.to_string(),
            to: change.to.to_string(),
            origin: caller.from.map(|address| address.to_string()).unwrap_or_default(),
        }
    }

    /// Gives it the place after an entry.
    pub fn after(self, head: AuditHead) -> Entry {
        let (number, previous) = (head.number + 1, head.hash);
        let hash = self.hash(number, &previous);
        Entry { number, draft: self, previous, hash }
    }

    fn hash(&self, number: u64, previous: &Sha256) -> Sha256 {
        let mut hasher = Hasher::new();
        hasher.update(DOMAIN);
        hasher.update(&previous.0);
        hasher.update(&number.to_be_bytes());
        hasher.update(&self.time.0.to_be_bytes());
        for text in [&self.who, &self.role, &self.action, &self.subject, &self.from, &self.to, &self.origin] {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finish()
    }
}

impl Entry {
    /// The hash that belongs to what the entry says.
    pub fn expected_hash(&self) -> Sha256 {
        self.draft.hash(self.number, &self.previous)
    }

    /// What an assignment carries of it when it is the newest.
    pub fn head(&self) -> AuditHead {
        AuditHead { number: self.number, hash: self.hash }
    }
}

/// Who somebody is, and with which role, as entries show it.
pub fn name(who: &Who) -> (String, &'static str) {
    match who {
        Who::Nobody => ("nobody".to_owned(), ""),
        Who::Device(device) => (format!("device:{device}"), ""),
        Who::Token { id, role } => (format!("token:{id}"), role.name()),
        Who::Hub => ("hub".to_owned(), ""),
    }
}
