//! The outbox: how full it is by the policy in force, and what it gave up and why.

use std::collections::BTreeMap;

use edge_agent_core::sampling::{InForce, in_force};
use serde_json::Value;
use tributary_process::checkup::{Finding, bytes, count, span};
use tributary_wire::{Assignment, DroppedRecords, LossReason, Micros, SamplingPolicy, SignedAssignment};

use crate::config::Config;
use crate::state::{Contents, Store};
use crate::update::stored::assignment;

const SECTION: &str = "State";
/// From this share of its budget on the outbox is nearly full.
const NEARLY: u64 = 80;
/// Records that wait for longer than this wait for something that is wrong.
const LONG: i64 = Micros::DAY;

/// What waits for the hub, how much may, and what was given up.
#[derive(Debug, Clone, Default)]
pub(super) struct Outbox {
    batches: u64,
    /// Of those, not as they were stored; where that was looked at.
    damaged: u64,
    bytes: u64,
    /// Where that was counted.
    records: Option<u64>,
    /// How long the oldest has waited, microseconds.
    waits: Option<i64>,
    /// Disk for what waits: the smaller of what the settings and the hub's policy say.
    budget: u64,
    /// What the settings say, where the hub's policy says less.
    narrowed: Option<u64>,
    /// Seconds after which observations are given up.
    keep: Option<u64>,
    /// Records given up in this life of the state.
    dropped: u64,
    /// The same, as far as it was counted by stream and reason.
    dropped_by: Vec<DroppedRecords>,
}

impl Outbox {
    /// Of a state file that nobody has open.
    pub(super) fn of_file(store: &Store, contents: &Contents, config: &Config, now: Micros) -> Self {
        let own = config.outbox.budget.0;
        let hub = assignment(store).ok().flatten().and_then(|bytes| policy(&bytes));
        let InForce { policy, .. } = in_force(&config.sampling.policy(), own, hub.as_ref());
        let (dropped, dropped_by) = (contents.dropped, store.dropped());
        Self {
            batches: contents.batches,
            damaged: contents.damaged,
            bytes: contents.bytes,
            records: Some(contents.records),
            waits: contents.oldest.map(|oldest| now.since(oldest)),
            dropped,
            dropped_by,
            ..Self::within(&policy, own)
        }
    }

    /// As the running agent says.
    pub(super) fn of_agent(status: &Value, config: &Config) -> Self {
        let outbox = &status["outbox"];
        let number = |name: &str| outbox[name].as_u64().unwrap_or_default();
        let policy = serde_json::from_value(status["sampling"]["policy"].clone());
        Self {
            batches: number("batches"),
            bytes: number("bytes"),
            dropped: number("dropped_records"),
            dropped_by: serde_json::from_value(outbox["dropped"].clone()).unwrap_or_default(),
            ..Self::within(&policy.unwrap_or(SamplingPolicy::EVERYTHING), config.outbox.budget.0)
        }
    }

    fn within(policy: &SamplingPolicy, own: u64) -> Self {
        let budget = policy.outbox_bytes.unwrap_or(own);
        let narrowed = (policy.number > 0 && budget < own).then_some(own);
        Self { budget, narrowed, keep: policy.keep_seconds, ..Self::default() }
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut findings = vec![self.judge_room()];
        findings.extend(self.judge_dropped());
        findings
    }

    fn judge_room(&self) -> Finding {
        let Self { batches, bytes: size, budget, .. } = *self;
        let share = (size.saturating_mul(100)).checked_div(budget).unwrap_or(100);
        let records =
            self.records.map_or(String::new(), |records| format!(" with {}", count(records, "record", "records")));
        let batches_wait = count(batches, "batch", "batches");
        let mut found = format!("{batches_wait}{records} wait, {} of {} ({share} %)", bytes(size), bytes(budget));
        if let Some(own) = self.narrowed {
            found += &format!(" that the hub's sampling policy leaves it; `outbox.budget` is {}", bytes(own));
        }
        let waits = self.waits.filter(|_| batches > 0);
        if let Some(waits) = waits {
            found += &format!("; the oldest for {}", span(waits));
        }
        if share >= NEARLY {
            return Finding::fail(SECTION, "outbox", found).advise(format!(
                "bring the device to its hub, or {}. What is too much is given up: ordinary observations first, then \
                 close and rare ones, then events, sketches last; never what has already been sent",
                self.more_room()
            ));
        }
        if self.damaged > 0 {
            found += &format!("; {} not what was stored", count(self.damaged, "batch is", "batches are"));
            return Finding::warn(SECTION, "outbox", found).advise(format!(
                "what is damaged is given up when its turn comes, and told to the hub as a gap. {}",
                self.against(LossReason::Corrupt)
            ));
        }
        match waits {
            Some(waits) if waits > LONG => {
                Finding::warn(SECTION, "outbox", found).advise("the hub takes nothing: see the section Hub")
            }
            _ => Finding::ok(SECTION, "outbox", found),
        }
    }

    fn more_room(&self) -> &'static str {
        match self.narrowed {
            Some(_) => "give it more there (cloud-hub sampling set NAME --outbox SIZE)",
            None => "raise `outbox.budget`",
        }
    }

    fn judge_dropped(&self) -> Option<Finding> {
        if self.dropped == 0 {
            return None;
        }
        let mut by_reason: BTreeMap<LossReason, u64> = BTreeMap::new();
        for lost in &self.dropped_by {
            *by_reason.entry(lost.reason).or_default() += lost.records;
        }
        let mut parts: Vec<String> =
            by_reason.iter().map(|(reason, records)| format!("{records} {}", because(*reason))).collect();
        let counted: u64 = by_reason.values().sum();
        if counted < self.dropped {
            parts.push(format!("{} before reasons were counted", self.dropped - counted));
        }
        let found = format!(
            "{} given up in this life, and told to the hub as gaps: {}",
            count(self.dropped, "record", "records"),
            parts.join(", ")
        );
        let items = self.dropped_by.iter();
        let items = items.map(|lost| format!("{}: {} {}", lost.stream, lost.records, because(lost.reason)));
        let advice: Vec<String> = by_reason.keys().map(|reason| self.against(*reason)).collect();
        let finding = Finding::warn(SECTION, "dropped", found).with_details(items);
        Some(match advice.is_empty() {
            true => finding.advise("find out why the hub was away for so long"),
            false => finding.advise(advice.join(". ")),
        })
    }

    fn against(&self, reason: LossReason) -> String {
        match reason {
            LossReason::DiskBudget => format!("Room: find out why the hub was away, or {}", self.more_room()),
            LossReason::Age => {
                let keep = self.keep.map_or("a while".to_owned(), |seconds| {
                    span(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(Micros::SECOND))
                });
                format!(
                    "Age: observations wait for {keep} at most (`sampling.keep`, or the hub's policy); the hub was away \
                     for longer, or the clock leapt ahead"
                )
            }
            LossReason::Corrupt => {
                "Damage: the disk did not keep what was written to it: look at dmesg, and replace it".to_owned()
            }
        }
    }
}

fn because(reason: LossReason) -> &'static str {
    match reason {
        LossReason::DiskBudget => "for want of room",
        LossReason::Age => "for their age",
        LossReason::Corrupt => "damaged on the disk",
    }
}

/// What the assignment that was accepted last says of sampling. It was verified before it was stored.
fn policy(signed: &[u8]) -> Option<SamplingPolicy> {
    let signed = SignedAssignment::decode(signed).ok()?;
    Assignment::decode(&signed.payload).ok()?.sampling().cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tributary_process::checkup::Mark;
    use tributary_wire::StreamName;

    use super::*;
    use crate::update::tests::{release, third};

    const WAITING: Outbox = Outbox {
        batches: 2,
        damaged: 0,
        bytes: 1 << 20,
        records: Some(90),
        waits: Some(3 * Micros::HOUR),
        budget: 10 << 20,
        narrowed: None,
        keep: None,
        dropped: 0,
        dropped_by: Vec::new(),
    };

    fn marks(outbox: &Outbox) -> Vec<Mark> {
        outbox.judge().iter().map(Finding::mark).collect()
    }

    fn lost(stream: &str, reason: LossReason, records: u64) -> DroppedRecords {
        DroppedRecords { stream: StreamName::new(stream).unwrap(), reason, records }
    }

    #[test]
    fn an_outbox_that_fills_waits_or_loses_is_told() {
        assert_eq!(marks(&WAITING), [Mark::Ok]);
        assert_eq!(marks(&Outbox { waits: Some(2 * LONG), ..WAITING }), [Mark::Warn]);
        assert_eq!(marks(&Outbox { bytes: 9 << 20, ..WAITING }), [Mark::Fail]);
        assert_eq!(marks(&Outbox { dropped: 5, ..WAITING }), [Mark::Ok, Mark::Warn]);
        let damaged = &Outbox { damaged: 1, ..WAITING }.judge()[0];
        assert!(damaged.mark() == Mark::Warn && damaged.found().ends_with("; 1 batch is not what was stored"));
        assert!(damaged.advice().is_some_and(|advice| advice.contains("dmesg")), "{damaged:?}");
        let found = WAITING.judge();
        assert_eq!(found[0].found(), "2 batches with 90 records wait, 1.0 MiB of 10.0 MiB (10 %); the oldest for 3 h");
    }

    #[test]
    fn the_narrower_of_the_hubs_policy_and_the_settings_is_what_an_outbox_is_held_against() {
        let config = Config::default();
        let status = |number: u64, budget: u64| {
            let policy = SamplingPolicy { number, outbox_bytes: Some(budget), ..SamplingPolicy::EVERYTHING };
            json!({"outbox": {"batches": 1, "bytes": 9 << 10, "dropped_records": 0, "dropped": [], "budget": budget},
                   "sampling": {"policy": policy}})
        };
        let narrowed = Outbox::of_agent(&status(3, 10 << 10), &config).judge();
        assert_eq!(narrowed[0].mark(), Mark::Fail);
        assert!(narrowed[0].found().contains("(90 %) that the hub's sampling policy leaves it"), "{narrowed:?}");
        assert!(narrowed[0].advice().is_some_and(|advice| advice.contains("cloud-hub sampling set")), "{narrowed:?}");
        let own = Outbox::of_agent(&status(0, config.outbox.budget.0), &config).judge();
        assert_eq!(own[0].mark(), Mark::Ok);
        assert!(!own[0].found().contains("policy"), "{own:?}");
        assert_eq!(Outbox::of_agent(&json!({}), &config).budget, config.outbox.budget.0);

        let policy = SamplingPolicy { number: 1, outbox_bytes: Some(1), ..SamplingPolicy::EVERYTHING };
        let signed = third(1, release(1, b"package"), None, 0);
        assert_eq!(super::policy(&signed.encode()), None);
        let Ok(Assignment::V3(mut assignment)) = Assignment::decode(&signed.payload) else { panic!("{signed:?}") };
        assignment.sampling = Some(policy.clone());
        let signed = SignedAssignment { payload: Assignment::V3(assignment).encode(), ..signed };
        assert_eq!(super::policy(&signed.encode()), Some(policy));
        assert_eq!(super::policy(b"nonsense"), None);
    }

    #[test]
    fn what_was_given_up_is_told_by_reason_and_so_is_what_to_do() {
        let dropped_by = vec![
            lost("events", LossReason::DiskBudget, 2),
            lost("observations", LossReason::DiskBudget, 5),
            lost("observations", LossReason::Age, 3),
        ];
        let outbox = Outbox { dropped: 11, dropped_by, keep: Some(7_200), ..WAITING };
        let finding = &outbox.judge()[1];
        let expected = "11 records given up in this life, and told to the hub as gaps: 7 for want of room, 3 for their age, \
                        1 before reasons were counted";
        assert_eq!(finding.found(), expected);
        let advice = finding.advice().unwrap();
        assert!(advice.contains("raise `outbox.budget`") && advice.contains("wait for 2 h at most"), "{advice}");
        assert!(!advice.contains("dmesg"), "{advice}");
        let damaged = Outbox { dropped: 1, dropped_by: vec![lost("events", LossReason::Corrupt, 1)], ..WAITING };
        let advice = damaged.judge()[1].advice().unwrap().to_owned();
        assert!(advice.contains("dmesg") && !advice.contains("outbox.budget"), "{advice}");
    }
}
