//! From which state to which, and the actions that take it there.

use tributary_release::Probation;
use tributary_wire::{Generation, ReleaseRef, TrialReport};

use super::{Action, Candidate, ServeFailure, Undone, Updater, Verdict, judge};

/// Where to move.
pub(super) struct Goal {
    release: ReleaseRef,
    /// It was committed here before, and the hub orders it back or it is only fetched again: it has nothing to prove.
    proven: bool,
}

impl Updater {
    /// Moves on as far as the present knowledge allows.
    pub(super) fn pursue(&mut self) {
        if self.rewrite_at.is_some_and(|at| at <= self.now.monotonic) {
            self.rewrite_at = None;
            // Records replace each other, so the newest stands for all that wait.
            if let Some((ticket, record)) = self.unwritten.back() {
                self.out.push(Action::Persist { ticket: *ticket, record: Box::new(record.clone()) });
            }
        }
        let goal = self.goal();
        if let Some(candidate) = self.record.candidate.release()
            && goal.as_ref().is_none_or(|goal| goal.release != *candidate)
        {
            self.withdraw();
        }
        let Some(goal) = goal else { return };
        match self.record.candidate.clone() {
            Candidate::None => {
                self.record.candidate = Candidate::Fetching { release: goal.release.clone() };
                self.fetch_at = self.now.monotonic;
                self.store();
                self.fetch(goal.release);
            }
            Candidate::Fetching { release } => self.fetch(release),
            Candidate::Staged { release, probation } => self.staged(&goal, release, probation),
            Candidate::Trial { release, probation, proven: false, .. } => self.trial(&release, &probation),
            Candidate::Trial { .. } => {}
        }
    }

    /// The package to move towards, if it is not the committed one and nothing forbids it.
    pub(super) fn goal(&mut self) -> Option<Goal> {
        let restored = self.record.lost.clone().map(|release| Goal { release, proven: true });
        self.wish().or(restored)
    }

    /// What the assignment asks for.
    fn wish(&mut self) -> Option<Goal> {
        let wanted = self.record.wanted.clone()?;
        let release = &wanted.release;
        let gave_up = |undone: &Undone| undone.generation == wanted.generation && undone.release == *release;
        if self.record.undone.as_ref().is_some_and(gave_up) {
            return None;
        }
        if let Some(lost) = &self.record.lost {
            // Its installation began and ended long ago: to fetch it again no assignment has to be in force.
            if lost.sha256 == release.sha256 {
                return None;
            }
            if release.version <= lost.version && !wanted.allow_lower {
                let reason = format!("version {} is not above {}, which was committed", release.version, lost.version);
                return self.refuse(reason);
            }
        }
        if let Some(committed) = &self.record.committed {
            if committed.sha256 == release.sha256 {
                return None;
            }
            if release.version == committed.version {
                let reason = format!("another package is committed as version {}", release.version);
                return self.refuse(reason);
            }
            if release.version < committed.version && !wanted.allow_lower {
                let reason = format!("version {} is below the committed {}", release.version, committed.version);
                return self.refuse(reason);
            }
        }
        let begun = matches!(&self.record.candidate, Candidate::Trial { release, .. } if *release == wanted.release);
        if !begun && self.now.wall > wanted.expires {
            let reason = format!("the assignment to install version {} expired", release.version);
            return self.refuse(reason);
        }
        let known = self.record.previous.as_ref().is_some_and(|previous| previous.sha256 == release.sha256);
        Some(Goal { release: wanted.release, proven: known && wanted.allow_lower })
    }

    fn refuse(&mut self, reason: String) -> Option<Goal> {
        self.complain(reason);
        None
    }

    pub(super) fn fetch(&mut self, release: ReleaseRef) {
        // Another download under way is one that nobody wants any more; the shell ends it.
        if self.fetching != Some(release.sha256) && self.fetch_at <= self.now.monotonic {
            self.fetching = Some(release.sha256);
            self.emit(Action::Fetch(release));
        }
    }

    pub(super) fn staged(&mut self, goal: &Goal, release: ReleaseRef, probation: Probation) {
        if goal.proven {
            // Ordered back to what was committed here before: the order itself is the hub's word.
            self.begin_trial(release, probation, 0, true);
        } else if self.may_go_on() {
            if self.vouched == Some(release.sha256) {
                self.begin_trial(release, probation, 0, false);
            } else if self.vouching != Some(release.sha256) && self.fetch_at <= self.now.monotonic {
                self.vouching = Some(release.sha256);
                self.emit(Action::Vouch(release));
            }
        } else if self.online && self.ask_at <= self.now.monotonic {
            self.ask_at = self.now.monotonic + self.settings.ask_every;
            self.emit(Action::Report);
        }
    }

    /// Whether the hub has given its word for a staged package, or was gone for long enough to go on without.
    pub(super) fn may_go_on(&self) -> bool {
        let waited = self.now.monotonic >= self.offline_since + self.settings.offline_wait;
        self.confirmed || (!self.online && waited)
    }

    pub(super) fn begin_trial(&mut self, release: ReleaseRef, probation: Probation, crashes: u32, proven: bool) {
        self.record.candidate = Candidate::Trial { release: release.clone(), probation, crashes, proven };
        self.store();
        self.serve(release);
    }

    pub(super) fn trial(&mut self, release: &ReleaseRef, probation: &Probation) {
        if self.ordered.as_ref() != Some(release) {
            return;
        }
        // Without traffic there is nothing to judge, and a quiet device must not end a rollout.
        let timed_out = self.evidence.predictions > 0 && self.now.monotonic >= self.probation_ends;
        match judge(probation, &self.evidence, timed_out) {
            Verdict::Passed if self.active => self.commit(),
            Verdict::Open | Verdict::Passed => {}
            Verdict::Failed(reason) => self.undo(reason, Vec::new()),
        }
    }

    pub(super) fn commit(&mut self) {
        let Candidate::Trial { release, .. } = std::mem::take(&mut self.record.candidate) else { return };
        let before = self.record.committed.replace(release.clone());
        // A version that was ordered away is not kept to fall back to.
        self.record.previous = before.filter(|before| before.version < release.version);
        // What was given up beside a package that is only back again stays given up.
        if self.record.wanted.as_ref().is_some_and(|wanted| wanted.release == release) {
            self.record.undone = None;
        }
        self.record.lost = None;
        self.error = None;
        self.store();
        self.emit(Action::Collect);
    }

    /// Gives the candidate up until a newer assignment.
    pub(super) fn undo(&mut self, reason: String, unfit: Vec<String>) {
        if let Some(release) = self.record.candidate.release().cloned() {
            if self.record.lost.as_ref() == Some(&release) {
                self.record.lost = None;
            }
            self.give_up(release, reason, unfit);
        }
        self.withdraw();
    }

    /// Remembers what was given up. What was given up first under an assignment is what nobody may try again.
    fn give_up(&mut self, release: ReleaseRef, reason: String, unfit: Vec<String>) {
        let wanted = self.record.wanted.as_ref();
        let generation = wanted.map_or(Generation(0), |wanted| wanted.generation);
        let is_wanted = wanted.is_some_and(|wanted| wanted.release == release);
        match &mut self.record.undone {
            Some(undone) if undone.generation == generation && !is_wanted => {
                undone.reason = format!("{}; then version {} was given up: {reason}", undone.reason, release.version);
            }
            undone => *undone = Some(Undone { release, generation, reason, unfit }),
        }
    }

    /// What did not fit may fit what has started now: another agent, other settings, more memory.
    pub(super) fn look_again(&mut self) {
        if self.record.undone.take_if(|undone| !undone.unfit.is_empty()).is_some() {
            self.store();
        }
    }

    /// Drops the candidate; if it was on trial, the committed package serves again at once.
    pub(super) fn withdraw(&mut self) {
        let candidate = std::mem::take(&mut self.record.candidate);
        if matches!(candidate, Candidate::Trial { .. }) {
            self.serve_committed();
        }
        self.store();
        self.emit(Action::Collect);
    }

    /// The committed package cannot serve: the previous one takes its place, else the declared fallback.
    pub(super) fn fall_back(&mut self, failure: ServeFailure, reason: String) {
        let Some(broken) = self.record.committed.take() else { return };
        self.record.committed = self.record.previous.take();
        match failure {
            // The newest that was lost is the one to come back.
            ServeFailure::Damaged if self.record.lost.is_some() => {}
            ServeFailure::Damaged => self.record.lost = Some(broken),
            ServeFailure::Refused => self.give_up(broken, reason.clone(), Vec::new()),
        }
        self.serve_committed();
        self.store();
        self.complain(reason);
    }
}

/// Actions.
impl Updater {
    /// Emits the record; whatever is emitted after this waits until it is durable. Several changes on one input are
    /// one record.
    pub(super) fn store(&mut self) {
        let same_input = self.out.iter_mut().find_map(|action| match action {
            Action::Persist { ticket, record } if *ticket == self.ticket => Some(record),
            _ => None,
        });
        match (same_input, self.unwritten.back_mut()) {
            (Some(record), Some((_, unwritten))) => {
                **record = self.record.clone();
                unwritten.clone_from(&self.record);
            }
            _ => {
                self.ticket += 1;
                self.unwritten.push_back((self.ticket, self.record.clone()));
                self.out.push(Action::Persist { ticket: self.ticket, record: Box::new(self.record.clone()) });
            }
        }
        self.emit(Action::Report);
    }

    pub(super) fn emit(&mut self, action: Action) {
        match self.unwritten.back() {
            Some((ticket, _)) => self.held.push_back((*ticket, action)),
            None => self.out.push(action),
        }
    }

    /// Orders a package on trial, once its record is durable.
    pub(super) fn serve(&mut self, release: ReleaseRef) {
        self.evidence = TrialReport::default();
        self.ordered = Some(release.clone());
        self.active = false;
        self.emit(Action::Serve(Some(release)));
    }

    /// Orders the committed package at once, and takes back an order that still waits for its record.
    pub(super) fn serve_committed(&mut self) {
        self.held.retain(|(_, action)| !matches!(action, Action::Serve(_)));
        self.evidence = TrialReport::default();
        self.ordered = self.record.committed.clone();
        self.active = false;
        // A record of this input is already on its way out where the order came from the hub; the disk may be slow.
        let to_write = self.out.iter().position(|action| matches!(action, Action::Persist { .. }));
        self.out.insert(to_write.unwrap_or(self.out.len()), Action::Serve(self.ordered.clone()));
    }

    /// Shows an error in the next report, once per change.
    pub(super) fn complain(&mut self, reason: String) {
        if self.error.as_ref() != Some(&reason) {
            self.error = Some(reason);
            self.emit(Action::Report);
        }
    }

    pub(super) fn forget_attempts(&mut self) {
        self.error = None;
        self.damaged = 0;
        self.fetch_backoff.reset();
        self.fetch_at = self.now.monotonic;
    }
}
