//! Remembers how far the hub's audit log had come, so that somebody who cuts its end off is found out.

use serde::{Deserialize, Serialize};
use tributary_wire::{AuditHead, Micros};

/// A head, and when the assignment that carried it was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSeen {
    /// The newest entry.
    pub head: AuditHead,
    /// When the assignment was signed.
    pub issued: Micros,
}

/// The highest head seen in a verified assignment, and what contradicts it.
#[derive(Debug, Clone, Default)]
pub(super) struct AuditWatch {
    seen: Option<AuditSeen>,
    /// The newest head that contradicts it. A log that has grown past what is remembered says no more than that.
    found: Option<AuditHead>,
}

impl AuditWatch {
    /// With what was stored.
    pub(super) fn recall(&mut self, seen: Option<AuditSeen>) {
        self.seen = seen.or(self.seen);
    }

    pub(super) fn head(&self) -> Option<AuditHead> {
        self.seen.map(|seen| seen.head)
    }

    /// What a person must know.
    pub(super) fn problem(&self) -> Option<String> {
        let (known, found) = (self.head()?, self.found?);
        Some(if found.number < known.number {
            format!(
                "the hub's audit log became shorter: this device has seen entry {}, the newest is now {}",
                known.number, found.number
            )
        } else {
            format!(
                "the hub's audit log was rewritten: entry {} had the hash {}, now {}",
                known.number, known.hash, found.hash
            )
        })
    }

    /// Takes in a head; what to store, if anything.
    pub(super) fn witness(&mut self, issued: Micros, head: AuditHead) -> Option<AuditSeen> {
        let seen = AuditSeen { head, issued };
        match self.seen {
            Some(known) if head == known.head => self.found = None,
            // The network may bring an older answer late.
            Some(known) if head.number < known.head.number && issued <= known.issued => {}
            Some(known) if head.number <= known.head.number => self.found = Some(head),
            _ => {
                (self.seen, self.found) = (Some(seen), None);
                return Some(seen);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use tributary_wire::Sha256;

    use super::*;

    fn head(number: u64, hash: u8) -> AuditHead {
        AuditHead { number, hash: Sha256([hash; 32]) }
    }

    #[test]
    fn a_log_may_only_grow() {
        let (mut watch, at) = (AuditWatch::default(), Micros);
        assert!(watch.witness(at(10), head(7, 1)).is_some());
        assert!(watch.witness(at(11), head(7, 1)).is_none(), "nothing new");
        watch.witness(at(9), head(5, 2));
        assert_eq!(watch.problem(), None, "an older answer that came late");
        assert!(watch.witness(at(12), head(5, 2)).is_none());
        assert!(watch.problem().unwrap().contains("became shorter"));
        assert_eq!(watch.head(), Some(head(7, 1)), "what was seen is not forgotten");
        watch.witness(at(12), head(7, 2));
        assert!(watch.problem().unwrap().contains("rewritten"));
        assert!(watch.witness(at(13), head(8, 3)).is_some());
        assert_eq!((watch.problem(), watch.head()), (None, Some(head(8, 3))));
    }
}
