//! The least number that a new snapshot may have: a number names one content for ever, also after a restore.

use tributary_wire::{Micros, SnapshotNumber};

use crate::backup::Restore;
use crate::catalog::{Catalog, devices};

/// No hub takes so many snapshots; a device that reports more than that is wrong or lies.
const MOST: u64 = 1 << 40;

/// What devices have, and whether this hub was restored.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Floor {
    reported: SnapshotNumber,
    restored: bool,
    waits: bool,
}

impl Floor {
    /// As the catalog has it.
    pub(super) async fn of(catalog: &Catalog) -> Result<Self, sqlx::Error> {
        let restore = Restore::newest(&mut *catalog.reader().acquire().await?).await?;
        let waits = restore.as_ref().is_some_and(Restore::waits);
        let mut floor = Self { restored: restore.is_some(), waits, ..Self::default() };
        for device in devices::all(catalog.reader()).await? {
            floor.heard(device.report.and_then(|report| report.snapshot).map(|(number, _)| number));
        }
        Ok(floor)
    }

    /// A device reports that it has this snapshot.
    pub(super) fn heard(&mut self, number: Option<SnapshotNumber>) {
        if let Some(number) = number.filter(|number| number.0 <= MOST) {
            self.reported = self.reported.max(number);
        }
    }

    /// Whether no snapshot is taken because a restored hub still waits for reports: devices go on with what they have.
    pub(super) async fn holds(&mut self, catalog: &Catalog) -> bool {
        if self.waits {
            let newest = async { Restore::newest(&mut *catalog.reader().acquire().await?).await };
            match newest.await {
                Ok(restore) => self.waits = restore.is_some_and(|restore| restore.waits()),
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the restore was not looked up"),
            }
        }
        self.waits
    }

    /// The number of a snapshot taken at `due`, after the last one that is known here.
    ///
    /// The hub that was lost took at most one snapshot a step of the cadence, so after a restore as many numbers are left
    /// out: also those that only devices have which do not report now.
    pub(super) fn next(self, last: Option<(SnapshotNumber, Micros)>, due: Micros, cadence: i64) -> SnapshotNumber {
        let steps = |taken: Micros| if self.restored { due.since(taken) / cadence.max(1) } else { 1 };
        let after = last.map_or(1, |(number, taken)| number.0 + steps(taken).max(1) as u64);
        let reported = if self.restored || last.is_none() { self.reported.0 + 1 } else { 0 };
        SnapshotNumber(after.max(reported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(restored: bool, reported: u64) -> Floor {
        let mut floor = Floor { restored, ..Floor::default() };
        floor.heard(Some(SnapshotNumber(reported)));
        floor
    }

    #[test]
    fn numbers_count_up_by_one_and_after_a_restore_go_on_above_everything() {
        let last = Some((SnapshotNumber(7), Micros(700)));
        let next = |floor: Floor, last, due| floor.next(last, Micros(due), 100).0;
        assert_eq!(next(floor(false, 0), None, 300), 1);
        assert_eq!(next(floor(false, 900), last, 1_200), 8, "what devices say of another view changes nothing");
        assert_eq!(next(floor(true, 0), last, 800), 8);
        assert_eq!(next(floor(true, 0), last, 1_200), 12, "the lost hub took five at most");
        assert_eq!(next(floor(true, 40), last, 1_200), 41);
        assert_eq!(next(floor(false, 40), None, 100), 41, "the folder is lost");
        assert_eq!(next(floor(true, u64::MAX), last, 800), 8, "a liar is not believed");
    }
}
