//! What each input changes. Where that leads is decided afterwards, in one place: `transitions`.

use std::time::Duration;

use tributary_release::Probation;
use tributary_wire::{Generation, Micros, Sha256, TrialReport};

use super::{Action, Candidate, Doubt, FetchFailure, ServeFailure, Updater, Wanted};

impl Updater {
    pub(super) fn assigned(&mut self, wanted: Wanted) {
        if self.record.wanted.as_ref().is_some_and(|known| known.generation >= wanted.generation) {
            return;
        }
        // A newer word of a hub that is there answers the question too, if it is still about the staged package.
        let staged = matches!(&self.record.candidate, Candidate::Staged { release, .. } if *release == wanted.release);
        self.confirmed = self.online && staged;
        self.record.undone = None;
        // What was committed and is ordered away is not fetched again.
        let ordered_away = wanted.allow_lower;
        self.record.lost =
            self.record.lost.take().filter(|lost| !ordered_away || wanted.release.version >= lost.version);
        self.record.wanted = Some(wanted);
        self.forget_attempts();
        self.store();
    }

    pub(super) fn unassigned(&mut self, generation: Generation) {
        if self.record.wanted.as_ref().is_some_and(|known| known.generation < generation) {
            self.record.undone = None;
            self.record.wanted = None;
            self.forget_attempts();
            // A rollout that was stopped and had nothing to go back to takes the package away: the fallback answers.
            self.record.previous = None;
            self.record.lost = None;
            let ordered_away = self.record.committed.take().is_some();
            if ordered_away {
                self.serve_committed();
            }
            self.store();
            // Its file, and those of roles that go with it, are needed until no record on the disk names them.
            if ordered_away {
                self.emit(Action::Collect);
            }
        }
    }

    pub(super) fn confirm(&mut self, generation: Generation, expires: Micros) {
        let Some(wanted) = self.record.wanted.as_mut().filter(|wanted| wanted.generation == generation) else { return };
        // Stored only where it makes a difference: the hub signs anew whenever it is asked.
        if self.now.wall > wanted.expires && expires > wanted.expires {
            wanted.expires = expires;
            self.error = None;
            self.store();
        }
        if self.online && matches!(self.record.candidate, Candidate::Staged { .. }) {
            self.confirmed = true;
        }
    }

    pub(super) fn connection(&mut self, online: bool) {
        if self.online && !online {
            self.offline_since = self.now.monotonic;
            self.confirmed = false;
        }
        if !self.online && online {
            self.ask_at = self.now.monotonic;
            // The hub is back: a download that waits for it need not wait any longer.
            self.fetch_at = self.now.monotonic;
        }
        self.online = online;
    }

    pub(super) fn fetched(&mut self, sha256: Sha256, probation: Probation) {
        if self.fetching == Some(sha256) {
            self.fetching = None;
        }
        match &self.record.candidate {
            Candidate::Fetching { release } if release.sha256 == sha256 => {
                self.record.candidate = Candidate::Staged { release: release.clone(), probation };
                self.error = None;
                self.confirmed = false;
                self.ask_at = self.now.monotonic;
                self.offline_since = self.offline_since.max(self.now.monotonic);
                self.store();
            }
            _ => {}
        }
    }

    /// What the stored metadata, and the trusted keys, say about a staged package. Where they do not tell, the way to
    /// learn more is that of a fetch, which asks the repository; what is on the disk already is not downloaded again.
    pub(super) fn take_word(&mut self, sha256: Sha256, word: Result<(), Doubt>) {
        if self.vouching != Some(sha256) {
            return;
        }
        self.vouching = None;
        let Candidate::Staged { release, .. } = &self.record.candidate else { return };
        let release = release.clone();
        if release.sha256 != sha256 {
            return;
        }
        let Err(doubt) = word else {
            self.vouched = Some(sha256);
            return;
        };
        self.fetch_at = self.now.monotonic + self.fetch_backoff.next_wait();
        self.damaged += u32::from(matches!(doubt, Doubt::TakenBack(_)));
        match doubt {
            Doubt::Unordered(reason) => self.complain(reason),
            Doubt::TakenBack(reason) if self.damaged >= self.settings.damaged_attempts => {
                self.undo(reason, Vec::new());
            }
            Doubt::TakenBack(reason) | Doubt::Unclear(reason) => {
                self.record.candidate = Candidate::Fetching { release };
                self.store();
                self.complain(reason);
            }
        }
    }

    pub(super) fn fetch_failed(&mut self, sha256: Sha256, failure: FetchFailure, reason: String) {
        if self.fetching != Some(sha256) {
            return;
        }
        self.fetching = None;
        self.fetch_at = self.now.monotonic + self.fetch_backoff.next_wait();
        if !matches!(&self.record.candidate, Candidate::Fetching { release } if release.sha256 == sha256) {
            return;
        }
        self.damaged += u32::from(failure == FetchFailure::Damaged);
        match failure {
            FetchFailure::Unfit(lacks) => self.undo(reason, lacks),
            FetchFailure::Refused => self.undo(reason, Vec::new()),
            FetchFailure::Damaged if self.damaged >= self.settings.damaged_attempts => self.undo(reason, Vec::new()),
            FetchFailure::Damaged | FetchFailure::Unreachable => self.complain(reason),
        }
    }

    /// A trial that ends because the agent was told to end has failed at nothing: after the start it begins anew, as
    /// staged. Until the process is gone the package goes on serving.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        if let Candidate::Trial { release, probation, proven: false, .. } = &self.record.candidate {
            self.record.candidate = Candidate::Staged { release: release.clone(), probation: *probation };
            self.confirmed = false;
            self.store();
        }
    }

    pub(super) fn serving(&mut self, package: Option<Sha256>) {
        if self.ordered.as_ref().map(|release| release.sha256) != package {
            return;
        }
        self.active = true;
        if let Candidate::Trial { release, proven: true, .. } = &self.record.candidate
            && Some(release.sha256) == package
        {
            self.commit();
        }
        self.emit(Action::Report);
    }

    pub(super) fn serve_failed(&mut self, sha256: Sha256, failure: ServeFailure, reason: String) {
        if self.ordered.as_ref().is_none_or(|release| release.sha256 != sha256) {
            return;
        }
        if matches!(&self.record.candidate, Candidate::Trial { release, .. } if release.sha256 == sha256) {
            self.damaged += u32::from(failure == ServeFailure::Damaged);
            if failure == ServeFailure::Damaged && self.damaged < self.settings.damaged_attempts {
                // Another copy may do: back to the committed package, and from there it is fetched again.
                self.withdraw();
                self.complain(reason);
            } else {
                self.undo(reason, Vec::new());
            }
        } else if self.record.committed.as_ref().is_some_and(|release| release.sha256 == sha256) {
            self.fall_back(failure, reason);
        }
    }

    pub(super) fn take_evidence(&mut self, sha256: Sha256, evidence: TrialReport) {
        if self.ordered.as_ref().is_none_or(|release| release.sha256 != sha256) {
            return;
        }
        // The time of a trial runs from its first prediction.
        if let Candidate::Trial { probation, .. } = &self.record.candidate
            && self.evidence.predictions == 0
        {
            self.probation_ends = self.now.monotonic + Duration::from_secs(probation.timeout_s);
        }
        self.evidence = evidence;
    }

    pub(super) fn persisted(&mut self, ticket: u64) {
        while let Some((_, record)) = self.unwritten.pop_front_if(|(written, _)| *written <= ticket) {
            self.durable = record;
        }
        if self.unwritten.is_empty() {
            self.rewrite_at = None;
        }
        while let Some((_, action)) = self.held.pop_front_if(|(needs, _)| *needs <= ticket) {
            self.out.push(action);
        }
    }
}
