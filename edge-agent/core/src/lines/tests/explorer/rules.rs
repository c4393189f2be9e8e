//! What must hold.

use tributary_wire::{Generation, Role};

use super::world::{World, roles};
use super::{Event, WISHES};
use crate::updater::Candidate;

impl World {
    pub(super) fn check(&mut self) {
        let (generation, kept) = (self.lines.generation(), self.kept());
        // What rotted is asked for again, so that its own generation is welcome, and no other that was there before.
        let welcome = u64::from(self.disk.assignment.is_none() && kept > Generation(0));
        assert!(generation.0 + welcome >= self.highest.0, "generation {generation:?} after {:?}", self.highest);
        self.highest = generation.max(self.highest);
        assert!(kept >= generation, "generation {generation:?} counts, the disk has {kept:?}");
        for (of, updater) in self.lines.updaters() {
            let told = updater.record().wanted.as_ref().map_or(Generation(0), |wanted| wanted.generation);
            assert!(told.0 <= generation.0 + welcome, "{of:?} follows generation {told:?}, {generation:?} counts");
        }
        self.check_serving();
    }

    pub(super) fn kept(&self) -> Generation {
        self.disk.generation.unwrap_or_default()
    }

    pub(super) fn check_serving(&self) {
        for (of, record) in &self.disk.records {
            let Some(committed) = &record.committed else { continue };
            // What was ordered away leaves before that is written.
            let counts = self.lines.generation().0.checked_sub(1).map(|at| WISHES[self.signed[at as usize].0]);
            if counts == Some((None, None)) {
                continue;
            }
            let answers = self.serving.get(of).copied().flatten();
            let trial = match &record.candidate {
                Candidate::Trial { release, .. } => Some(release.sha256),
                _ => None,
            };
            let known = [Some(committed.sha256), trial, record.previous.as_ref().map(|it| it.sha256)];
            assert!(answers.is_some() && known.contains(&answers), "{of:?} is answered by {answers:?}: {record:?}");
        }
    }

    /// Everything works, and the hub gives its word: every wish comes true, and nothing else is left.
    pub(super) fn settle(&mut self) {
        self.fuse = None;
        self.step(Event::Online(true));
        for _ in 0..8 {
            for event in [Event::Again, Event::Fetch(0), Event::Fetch(1), Event::Again] {
                if self.can(event) {
                    self.step(event);
                }
            }
            for role in 0..2 {
                self.step(Event::Evidence(role, true));
            }
            self.step(Event::Wait);
        }
        // The hub's last word counts, unless it wants a lower version without saying that this is meant.
        let Some((wish, _)) = self.signed.last() else { return };
        if self.lines.generation().0 < self.signed.len() as u64 {
            return assert!(self.lines.problem().is_some_and(|problem| problem.contains("lower")));
        }
        let (primary, beside) = WISHES[*wish];
        for (of, wish) in roles().into_iter().zip([primary, beside]) {
            let Some(version) = wish else {
                // The primary stays, with nothing.
                let left = self.disk.records.get(&of);
                assert!(left.is_none_or(|record| of.1 == Role::primary() && record.committed.is_none()), "{left:?}");
                continue;
            };
            let record = &self.disk.records[&of];
            let has = record.committed.as_ref().map(|release| release.version.0);
            let gave_up = record.undone.as_ref().is_some_and(|undone| undone.release.version.0 == version);
            let lower = has.is_some_and(|has| has > version);
            assert!(has == Some(version) || gave_up || lower, "{of:?} is to have {version}: {record:?}");
        }
    }
}
