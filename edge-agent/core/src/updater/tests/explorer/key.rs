//! What makes two states the same: all but absolute times, the numbers of tickets and the words of reasons.

use std::hash::{DefaultHasher, Hash};

use super::super::*;
use super::world::World;

pub(super) fn put(world: &World, hasher: &mut DefaultHasher) {
    let updater = &world.updater;
    let mut whole = |record: &Record| put_record(record, world.now.wall, hasher);
    whole(&world.disk);
    whole(&updater.record);
    whole(&updater.durable);
    updater.unwritten.iter().for_each(|(_, record)| whole(record));
    for (ticket, action) in &updater.held {
        let what = match action {
            Action::Persist { .. } => (0, 0),
            Action::Fetch(release) => (1, version(Some(release))),
            Action::Serve(release) => (2, version(release.as_ref())),
            Action::Report => (3, 0),
            Action::Collect => (4, 0),
            Action::Vouch(release) => (5, version(Some(release))),
        };
        (updater.ticket - ticket, what).hash(hasher);
    }
    (updater.unwritten.len(), updater.held.len()).hash(hasher);
    for (ticket, _) in &world.persists {
        (updater.ticket - ticket).hash(hasher);
    }
    (world.fetches.len(), world.fetches.back().map(|release| release.version.0)).hash(hasher);
    (world.serves.len(), world.serves.back().map(|release| version(release.as_ref()))).hash(hasher);
    (world.vouches, updater.vouching).hash(hasher);
    (world.serving, &world.files, world.generation).hash(hasher);
    let until = |at: Duration| at.saturating_sub(world.now.monotonic);
    (updater.rewrite_at.map(until), updater.stopping, updater.online, updater.confirmed).hash(hasher);
    (updater.fetching, until(updater.fetch_at), updater.damaged, updater.active).hash(hasher);
    (version(updater.ordered.as_ref()), updater.evidence.predictions, updater.evidence.errors).hash(hasher);
    (until(updater.ask_at), until(updater.probation_ends), updater.error.is_some()).hash(hasher);
    let offline = world.now.monotonic.saturating_sub(updater.offline_since);
    offline.min(updater.settings.offline_wait).hash(hasher);
    world.rules.hash(hasher);
}

fn version(release: Option<&ReleaseRef>) -> u32 {
    release.map_or(0, |release| release.version.0)
}

fn put_record(record: &Record, wall: Micros, hasher: &mut DefaultHasher) {
    if let Some(wanted) = &record.wanted {
        let left = (wanted.expires.0 - wall.0).max(-1);
        (wanted.generation.0, left, wanted.release.version.0, wanted.allow_lower).hash(hasher);
    }
    let versions = [&record.committed, &record.previous, &record.lost].map(|release| version(release.as_ref()));
    (versions, version(record.candidate.release()), record.state() as u8, record.wanted.is_some()).hash(hasher);
    if let Candidate::Trial { crashes, proven, .. } = &record.candidate {
        (crashes, proven).hash(hasher);
    }
    let undone = record.undone.as_ref();
    undone.map(|undone| (undone.release.version.0, undone.generation.0, undone.unfit.len())).hash(hasher);
}
