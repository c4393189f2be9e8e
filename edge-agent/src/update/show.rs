//! What the updates show of themselves, to reports and to serving.

use std::sync::PoisonError;

use tributary_wire::{Assignment, ChallengerShare, LineName, Role, UpdaterState};

use super::Updates;
use crate::serve::Share;

impl Updates {
    pub(super) fn show(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.lines = self.lines.iter().map(|line| line.updater.report(line.engine)).collect();
        shown.metadata = self.parts.trust.versions();
        shown.unfit = self.lines.iter().filter_map(|line| line.updater.unfit()).collect();
        shown.generation = self.generation;
        shown.asks = self.lines.iter().any(|line| line.updater.asks());
        shown.problem.clone_from(&self.problem);
        (shown.audit, shown.audit_problem) = (self.audit.head(), self.audit.problem());
        let Some(accepted) = &self.accepted else { return };
        shown.flags = accepted.desired().flags.iter().cloned().collect();
        shown.reads = match accepted {
            Assignment::V1(_) => 1,
            Assignment::V2(_) => 2,
            Assignment::V3(_) => 3,
        };
        drop(shown);
        for line in &self.parts.lines {
            self.parts.serving.share_out(line, &self.shares(accepted, line));
        }
    }

    /// What every challenger of a line may answer. One that fetches, is on trial or gave up answers nothing.
    fn shares(&self, accepted: &Assignment, line: &LineName) -> Vec<Share> {
        let committed = |role: &Role| {
            let record = self.lines.iter().find(|it| it.is(line, role))?.updater.record();
            let wanted = record.wanted.as_ref()?.release.sha256;
            let committed = record.committed.as_ref()?.sha256;
            (record.state() == UpdaterState::Committed && committed == wanted).then_some(committed)
        };
        let own = accepted.shares().iter().filter(|share| share.line == *line);
        own.map(|ChallengerShare { role, per_10_000, .. }| Share {
            role: role.clone(),
            per_10_000: *per_10_000,
            package: committed(role),
        })
        .collect()
    }
}
