//! All that may happen to a device.

use super::world::World;

/// Assignments on one way.
const ASSIGNMENTS: u64 = 3;
/// Crashes, and other accidents, on one way.
const ACCIDENTS: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Assign {
        version: u32,
        allow_lower: bool,
    },
    AssignOlder,
    Unassign,
    Confirm,
    ConfirmOlder,
    Online(bool),
    Persist,
    PersistFails,
    /// The record reaches the disk, and the power goes before anybody hears of it.
    PersistAndCrash,
    Fetch,
    FetchFails(u8),
    Vouch,
    Doubt(u8),
    Serve,
    ServeFails,
    Evidence(u8),
    Wake,
    Expire,
    Crash,
    Stop,
    /// The file of what is committed changes on the disk: found at the next start.
    Rot,
}

impl Event {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        use Event::*;
        let assign = (1..=3).flat_map(|version| [false, true].map(|allow_lower| Assign { version, allow_lower }));
        let once = [AssignOlder, Unassign, Confirm, ConfirmOlder, Online(true), Online(false), Persist, PersistFails];
        let more = [PersistAndCrash, Fetch, Vouch, Serve, ServeFails, Wake, Expire, Crash, Stop, Rot];
        let ways = (0..4).map(FetchFails).chain((0..3).map(Evidence)).chain((0..3).map(Doubt));
        assign.chain(once).chain(more).chain(ways)
    }
}

impl World {
    /// Whether this can happen now and may make a difference.
    pub(super) fn can(&self, event: Event) -> bool {
        let accident = self.accidents < ACCIDENTS;
        match event {
            Event::Assign { .. } | Event::Unassign => self.generation - self.rules.first < ASSIGNMENTS,
            Event::AssignOlder => self.updater.record.wanted.as_ref().is_some_and(|wanted| wanted.generation.0 > 1),
            Event::Confirm | Event::ConfirmOlder => self.assigned.is_some(),
            Event::Online(online) => online != self.updater.online,
            Event::Persist => !self.persists.is_empty(),
            Event::PersistFails | Event::PersistAndCrash => accident && !self.persists.is_empty(),
            Event::Fetch => !self.fetches.is_empty(),
            Event::FetchFails(_) => accident && !self.fetches.is_empty(),
            Event::Vouch => self.vouches.is_some(),
            Event::Doubt(_) => accident && self.vouches.is_some(),
            Event::Serve => !self.serves.is_empty(),
            Event::ServeFails => accident && matches!(self.serves.back(), Some(Some(_))),
            Event::Evidence(_) => self.serving.is_some(),
            Event::Wake => self.updater.next_wake().is_some(),
            Event::Expire => self.updater.record.wanted.as_ref().is_some_and(|wanted| wanted.expires >= self.now.wall),
            Event::Crash | Event::Stop => accident,
            Event::Rot => accident && self.disk.committed.as_ref().is_some_and(|it| self.files.contains(&it.sha256)),
        }
    }
}
