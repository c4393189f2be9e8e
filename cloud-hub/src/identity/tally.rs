//! What happened, counted by outcome, and how often a log says so.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tributary_wire::Micros;

/// After a line in the log, this long nothing more is said of the same reason.
const SILENCE: i64 = 10_000_000;

/// Counters by outcome.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    enrolments: Mutex<BTreeMap<&'static str, u64>>,
    renewals: Mutex<BTreeMap<&'static str, u64>>,
    admissions: Mutex<BTreeMap<&'static str, u64>>,
    said: Mutex<BTreeMap<&'static str, Said>>,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    at: Micros,
    unsaid: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counters: &Mutex<BTreeMap<&'static str, u64>>, outcome: &'static str) {
    *lock(counters).entry(outcome).or_default() += 1;
}

impl Tally {
    /// Somebody asked for a first certificate.
    pub fn enrolment(&self, outcome: &'static str) {
        count(&self.enrolments, outcome);
    }

    /// A device asked for its next certificate.
    pub fn renewal(&self, outcome: &'static str) {
        count(&self.renewals, outcome);
    }

    /// Somebody connected.
    pub fn admission(&self, outcome: &'static str) {
        count(&self.admissions, outcome);
    }

    /// Enrolments by outcome.
    pub fn enrolments(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.enrolments).clone()
    }

    /// Renewals by outcome.
    pub fn renewals(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.renewals).clone()
    }

    /// Admissions by outcome.
    pub fn admissions(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.admissions).clone()
    }

    /// Whether the log should hear of this now: the first of its kind at once, then one line per ten seconds with the
    /// number of those that were not said. A flood fills no disk.
    pub fn may_say(&self, reason: &'static str, now: Micros) -> Option<u64> {
        let mut said = lock(&self.said);
        match said.get_mut(reason) {
            Some(said) if (0..SILENCE).contains(&now.0.saturating_sub(said.at.0)) => {
                said.unsaid += 1;
                None
            }
            before => {
                let unsaid = before.map_or(0, |said| said.unsaid);
                said.insert(reason, Said { at: now, unsaid: 0 });
                Some(unsaid)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_whole_and_said_now_and_then() {
        let tally = Tally::default();
        let said: Vec<u64> = (0..1_000).filter_map(|n| tally.may_say("expired", Micros(n * 25_000))).collect();
        assert_eq!(said, [0, 399, 399]);
        assert_eq!(tally.may_say("revoked", Micros(0)), Some(0));
        tally.enrolment("enrolled");
        tally.enrolment("enrolled");
        assert_eq!(tally.enrolments(), BTreeMap::from([("enrolled", 2)]));
    }
}
