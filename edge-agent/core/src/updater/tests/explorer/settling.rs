//! When everything works again, a device must come to rest, and where it was ordered to.

use super::super::*;
use super::rules::Rules;
use super::world::World;

impl World {
    fn work(&mut self) {
        while !self.is_idle() {
            self.persist();
            self.fetch();
            self.vouch(Ok(()));
            self.serve(true);
        }
    }

    /// Whether nothing that was ordered is left to do.
    fn is_idle(&self) -> bool {
        self.persists.is_empty() && self.fetches.is_empty() && self.serves.is_empty() && self.vouches.is_none()
    }

    /// Everything works and the hub answers, until nothing changes any more; then the end must be the right one.
    pub(super) fn settle(&mut self) {
        if !self.updater.online {
            self.tell(Input::Online(true));
        }
        for round in 0.. {
            assert!(round < 60, "never settles: {:?}", self.updater);
            let before = self.key();
            self.work();
            self.confirm(self.generation);
            self.work();
            self.evidence(GOOD);
            self.work();
            if let Some(wake) = self.updater.next_wake() {
                self.advance(wake.saturating_sub(self.now.monotonic).max(Duration::from_millis(1)));
            }
            if self.is_idle() && self.updater.next_wake().is_none() && self.key() == before {
                break;
            }
        }
        Rules::settled(self);
    }

    /// Settles, starts anew, so that damage on the disk is found, and settles again.
    pub(super) fn settle_for_good(&mut self) {
        self.settle();
        self.restart();
        self.settle();
        let committed = self.disk.committed.as_ref();
        assert!(committed.is_none_or(|release| self.files.contains(&release.sha256)), "what serves is on the disk");
    }
}
