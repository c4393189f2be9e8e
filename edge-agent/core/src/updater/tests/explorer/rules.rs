//! What must hold at every step, and the history that it takes to know.

use std::collections::BTreeSet;

use super::super::*;
use super::event::Event;
use super::world::World;

/// The history.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct Rules {
    /// Generations up to this one were the way to the start.
    pub(super) first: u64,
    /// Were downloaded and passed every check.
    pub(super) verified: BTreeSet<Sha256>,
    /// Served well enough for a commit.
    pub(super) passed: BTreeSet<Sha256>,
    /// Could not serve.
    pub(super) failed: BTreeSet<Sha256>,
    /// Were committed, durably.
    committed: BTreeSet<Sha256>,
    /// Given up under a generation, durably; a trial that a crash cut short counts.
    gave_up: BTreeSet<(u64, Sha256)>,
}

/// What a step may not change.
pub(super) struct Before {
    committed: Option<ReleaseRef>,
    serving: Option<Sha256>,
    candidate: Candidate,
}

fn generation(record: &Record) -> u64 {
    record.wanted.as_ref().map_or(0, |wanted| wanted.generation.0)
}

impl Rules {
    /// A record became durable.
    pub(super) fn written(&mut self, disk: &Record) {
        self.committed.extend(disk.committed.as_ref().map(|release| release.sha256));
        // What did not fit is looked at again after a start.
        if let Some(undone) = disk.undone.as_ref().filter(|undone| undone.unfit.is_empty()) {
            self.gave_up.insert((undone.generation.0, undone.release.sha256));
        }
    }

    /// The power goes, with this on the disk.
    pub(super) fn crashed(&mut self, disk: &Record) {
        if let Candidate::Trial { release, proven: false, .. } = &disk.candidate {
            self.gave_up.insert((generation(disk), release.sha256));
        }
    }

    /// A package begins to serve: a crash at this moment must find what it was.
    pub(super) fn serves(&self, disk: &Record, sha256: Sha256) {
        assert!(self.verified.contains(&sha256), "serves without having passed its checks");
        let is = |release: &Option<ReleaseRef>| release.as_ref().is_some_and(|release| release.sha256 == sha256);
        let trial = matches!(&disk.candidate, Candidate::Trial { release, .. } if release.sha256 == sha256);
        assert!(trial || is(&disk.committed) || is(&disk.previous), "{sha256} serves, the disk says {disk:?}");
        if trial && !is(&disk.committed) && !is(&disk.previous) {
            assert!(!self.gave_up.contains(&(generation(disk), sha256)), "tried again after it was given up");
        }
    }

    /// A process has begun and carries out its first orders. Nothing is written meanwhile: what is on the disk must do.
    pub(super) fn restarted(world: &World) {
        let mut world = world.clone();
        world.persists.clear();
        while !world.serves.is_empty() {
            world.serve(true);
            world.persists.clear();
        }
        let here = |release: &Option<ReleaseRef>| {
            release.as_ref().map(|release| release.sha256).filter(|sha256| world.files.contains(sha256))
        };
        let ordered_back = match &world.disk.candidate {
            Candidate::Trial { release, proven: true, .. } => here(&Some(release.clone())),
            _ => None,
        };
        let expected = ordered_back.or(here(&world.disk.committed)).or(here(&world.disk.previous));
        assert_eq!(world.serving, expected, "after a crash with {:?}", world.disk);
        assert!(expected.is_none_or(|sha256| world.rules.committed.contains(&sha256)), "never committed");
    }

    pub(super) fn before(&self, world: &World) -> Before {
        let record = &world.updater.record;
        Before { committed: record.committed.clone(), serving: world.serving, candidate: record.candidate.clone() }
    }

    pub(super) fn after(world: &mut World, event: Event, before: Before) {
        let record = &world.updater.record;
        let rules = &world.rules;
        let (was, is) = (before.committed.as_ref(), record.committed.as_ref());
        let restarts = matches!(event, Event::Crash | Event::Stop | Event::PersistAndCrash);
        if was != is
            && let Some(release) = is
            && !restarts
        {
            let proven = rules.committed.contains(&release.sha256);
            assert!(proven || rules.passed.contains(&release.sha256), "{event:?}: committed without a probation");
        }
        // Only an order, a package that cannot serve, or a crash before the record was durable lowers the version.
        let lower = was.map(|it| it.version) > is.map(|it| it.version);
        let ordered = event == Event::Unassign || record.wanted.as_ref().is_some_and(|wanted| wanted.allow_lower);
        let failed = was.is_some_and(|release| rules.failed.contains(&release.sha256));
        assert!(!lower || ordered || failed || restarts, "{event:?}: from {was:?} to {is:?}");
        if let (Some(undone), Some(candidate)) = (&record.undone, record.candidate.release()) {
            let again = undone.generation.0 == generation(record) && undone.release == *candidate;
            assert!(!again, "{event:?}: tries again what was given up");
        }
        if let (Candidate::Staged { .. }, Candidate::Trial { proven: false, .. }) =
            (&before.candidate, &record.candidate)
        {
            assert_eq!(event, Event::Vouch, "a trial begins on the word of the stored metadata alone");
        }
        if event == Event::Expire {
            assert_eq!(was, is, "expiry stops nothing that is committed");
            let served_committed = before.serving == was.map(|release| release.sha256);
            assert!(!served_committed || before.serving == world.serving, "expiry ended service");
        }
        if event == Event::AssignOlder {
            assert!(generation(record) >= generation(&world.disk), "an older assignment was taken");
        }
    }

    /// Nothing more happens by itself.
    pub(super) fn settled(world: &World) {
        let record = &world.disk;
        assert_eq!(*record, world.updater.record, "all that was decided is durable");
        assert_eq!(record.candidate, Candidate::None, "nothing is under way");
        let committed = record.committed.as_ref().map(|release| release.sha256);
        assert_eq!(world.serving, committed);
        let Some(wanted) = &record.wanted else {
            assert_eq!(committed, None, "nothing is wanted, and nothing serves");
            return;
        };
        let gave_up = record.undone.as_ref().is_some_and(|it| it.generation == wanted.generation);
        let lower = record.committed.as_ref().is_some_and(|it| it.version > wanted.release.version);
        let there = committed == Some(wanted.release.sha256);
        assert!(there || gave_up || (lower && !wanted.allow_lower), "ends elsewhere than ordered: {record:?}");
    }
}
