//! Finds a changed, missing, foreign or cut-off entry: entries go in one by one, in the order of the log.

use std::fmt;
use std::str::FromStr;

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tributary_wire::{AuditHead, IdError, Sha256};
use utoipa::ToSchema;

use super::entry::{Entry, NOTHING};
use super::store;

/// What somebody else remembers of the log: a device from its last assignment, a person from a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Number of the entry, where it was noted.
    pub number: Option<u64>,
    /// Its hash.
    pub hash: Sha256,
}

impl FromStr for Claim {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (number, hash) = match text.split_once(':') {
            None => (None, text),
            Some((number, hash)) => {
                let number = number.parse().map_err(|_| format!("{number:?} is not the number of an entry"))?;
                (Some(number), hash)
            }
        };
        let hash = hash.parse().map_err(|error: IdError| format!("{error}; expected HASH or NUMBER:HASH"))?;
        Ok(Self { number, hash })
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "{number}:{}", self.hash),
            None => write!(f, "{}", self.hash),
        }
    }
}

/// What is wrong with the log, at the first place where something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Number of the first bad entry.
    pub number: u64,
    /// `changed`, `missing`, `replaced`, `cut-off`, `rewritten` or `unreadable`.
    pub kind: String,
    /// In words.
    pub problem: String,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// Whether nothing is wrong.
    pub whole: bool,
    /// Number of the first entry that was looked at; 0 of an empty log.
    pub first: u64,
    /// Number of the last entry up to which all is well.
    pub last: u64,
    /// Hash of that entry; zeros of an empty log.
    #[schema(value_type = String)]
    pub head: Sha256,
    /// What is wrong first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finding: Option<Finding>,
}

/// Looks at one entry after the other.
#[derive(Debug)]
pub struct Verifier {
    first: u64,
    last: AuditHead,
    claim: Option<Claim>,
    claim_met: bool,
    finding: Option<Finding>,
}

impl Verifier {
    /// Begins at the first entry of a log; or, of a part of one, after the entry numbered `after`, whose hash is then
    /// taken from what follows it. `claim`: what the log must hold.
    pub fn new(after: u64, claim: Option<Claim>) -> Self {
        let last = AuditHead { number: after, ..NOTHING };
        Self { first: 0, last, claim, claim_met: false, finding: None }
    }

    /// Looks at the next entry. `false`: something is wrong, the rest need not be looked at.
    pub fn take(&mut self, entry: &Entry) -> bool {
        if self.finding.is_some() {
            return false;
        }
        let (number, expected) = (entry.number, self.last.number + 1);
        let begins_later = self.first == 0 && self.last.number > 0;
        if number > expected {
            let problem = match number - expected {
                1 => format!("entry {expected} is missing"),
                more => format!("{more} entries are missing, {expected} to {}", number - 1),
            };
            return self.wrong(expected, "missing", problem);
        }
        if number < expected {
            return self.wrong(number, "replaced", format!("entry {number} comes after entry {}", expected - 1));
        }
        if entry.expected_hash() != entry.hash {
            return self.wrong(number, "changed", format!("entry {number} was changed: its hash does not fit it"));
        }
        if !begins_later && entry.previous != self.last.hash {
            // Both are whole by themselves: one of them was written anew, with a new hash.
            let problem = match self.last.number {
                0 => "entry 1 was written after another entry, which is gone".to_owned(),
                before => format!("entry {number} was not written after entry {before} as it is now"),
            };
            return self.wrong(self.last.number.max(1), "replaced", problem);
        }
        if let Some(Claim { number: claimed, hash }) = self.claim {
            if claimed == Some(number) && hash != entry.hash {
                let found = entry.hash;
                let problem = format!("entry {number} was rewritten: its hash is {found}, remembered is {hash}");
                return self.wrong(number, "rewritten", problem);
            }
            self.claim_met |= hash == entry.hash;
        }
        if self.first == 0 {
            self.first = number;
        }
        self.last = entry.head();
        true
    }

    /// An entry could not be read at all.
    pub fn unreadable(&mut self, problem: impl fmt::Display) {
        let number = self.last.number + 1;
        if self.finding.is_none() {
            self.wrong(number, "unreadable", format!("entry {number} cannot be read: {problem}"));
        }
    }

    fn wrong(&mut self, number: u64, kind: &str, problem: String) -> bool {
        self.finding = Some(Finding { number, kind: kind.to_owned(), problem });
        false
    }

    /// After the last entry.
    pub fn finish(mut self) -> Verdict {
        let (first, last) = (self.first, self.last);
        if let (Some(claim), false, None) = (self.claim, self.claim_met, &self.finding) {
            let (end, hash) = (last.number, claim.hash);
            match claim.number {
                // The head of a log without entries.
                Some(0) | None if claim.hash == NOTHING.hash => {}
                Some(number) if number > end => {
                    let problem = format!("the log ends at entry {end}, but entry {number} was remembered");
                    self.wrong(end + 1, "cut-off", problem);
                }
                Some(number) => {
                    let problem = format!("entry {number} with the remembered hash {hash} is not in this part");
                    self.wrong(number, "missing", problem);
                }
                None => {
                    let problem = format!(
                        "no entry up to {end} has the remembered hash {hash}: the end was cut off, or the log written anew"
                    );
                    self.wrong(end + 1, "cut-off", problem);
                }
            }
        }
        let head = if first == 0 { NOTHING.hash } else { last.hash };
        Verdict { whole: self.finding.is_none(), first, last: last.number, head, finding: self.finding }
    }
}

/// Looks at the whole log of a catalog, in one view of it: entries that are added meanwhile do not matter.
pub async fn stored(connection: &mut SqliteConnection, claim: Option<Claim>) -> Result<Verdict, sqlx::Error> {
    let mut verifier = Verifier::new(0, claim);
    let mut entries = store::all(connection);
    while let Some(entry) = entries.next().await {
        let fine = match entry {
            Ok(entry) => verifier.take(&entry),
            Err(error @ (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))) => {
                verifier.unreadable(error);
                false
            }
            Err(error) => return Err(error),
        };
        if !fine {
            break;
        }
    }
    drop(entries);
    Ok(verifier.finish())
}
