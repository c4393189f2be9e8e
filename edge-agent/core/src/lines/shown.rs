//! What a device's lines show of themselves, to reports and to serving.

use std::collections::BTreeMap;

use tributary_wire::{
    Assignment, AuditHead, ChallengerShare, Generation, LineName, LineReport, Report, ReportV2, Role, SamplingPolicy,
    Sha256, Unfit, UpdaterState,
};

use super::{Lines, Of};

/// What one challenger answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Which challenger.
    pub role: Role,
    /// Of how many entities in 10 000.
    pub per_10_000: u16,
    /// The package that may answer them: committed, and as assigned. Until there is one the primary answers them, and
    /// nobody else: what one challenger cannot answer is not shared out among the others.
    pub package: Option<Sha256>,
}

impl Lines {
    /// Where every line stands; `engine` names what serves it.
    pub fn reports<'a>(&self, engine: impl Fn(&Of) -> &'a str) -> Vec<LineReport> {
        self.updaters().map(|(of, updater)| updater.report(engine(of))).collect()
    }

    /// The assigned releases that this device cannot run, and what it lacks for each.
    pub fn unfit(&self) -> Vec<Unfit> {
        self.updaters().filter_map(|(_, updater)| updater.unfit()).collect()
    }

    /// The newest accepted assignment; 0: none yet.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether a checked package waits for the hub's word.
    pub fn asks(&self) -> bool {
        self.updaters().any(|(_, updater)| updater.asks())
    }

    /// Why the last assignment was refused, if it was.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// The newest entry of the hub's audit log that this device knows of.
    pub fn audit(&self) -> Option<AuditHead> {
        self.audit.head()
    }

    /// What is wrong with the hub's audit log, if this device can tell.
    pub fn audit_problem(&self) -> Option<String> {
        self.audit.problem()
    }

    /// Feature flags of the newest accepted assignment, for the application beside the agent.
    pub fn flags(&self) -> BTreeMap<String, String> {
        self.accepted.iter().flat_map(|accepted| accepted.desired().flags.iter().cloned()).collect()
    }

    /// The highest version of messages that the hub is known to write: that of the newest accepted assignment. It reads
    /// as much.
    pub fn hub_reads(&self) -> u8 {
        match &self.accepted {
            None => 0,
            Some(Assignment::V1(_)) => 1,
            Some(Assignment::V2(_)) => 2,
            Some(Assignment::V3(_)) => 3,
        }
    }

    /// What is sent of raw observations, where the newest accepted assignment says so.
    pub fn sampling(&self) -> Option<&SamplingPolicy> {
        self.accepted.as_ref()?.sampling()
    }

    /// What every challenger of a line may answer. One that fetches, is on trial or gave up answers nothing.
    pub fn shares(&self, line: &LineName) -> Vec<Share> {
        let committed = |role: &Role| {
            let record = self.updater(&(line.clone(), role.clone()))?.record();
            let wanted = record.wanted.as_ref()?.release.sha256;
            let committed = record.committed.as_ref()?.sha256;
            (record.state() == UpdaterState::Committed && committed == wanted).then_some(committed)
        };
        let all = self.accepted.iter().flat_map(Assignment::shares).filter(|share| share.line == *line);
        all.map(|ChallengerShare { role, per_10_000, .. }| Share {
            role: role.clone(),
            per_10_000: *per_10_000,
            package: committed(role),
        })
        .collect()
    }
}

/// A report in the newest form that the hub is known to read: one that has never sent the third version of an
/// assignment may be an older one, which could not read more.
pub fn report(hub_reads: u8, whole: ReportV2) -> Report {
    match hub_reads {
        0..3 => Report::V1(whole.base),
        _ => Report::V2(whole),
    }
}
