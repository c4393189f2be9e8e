//! Tables of the state file, and the small values among them.

use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};
use tributary_wire::{Incarnation, Micros};

use super::{Store, StoreError};

/// Small numbers by name; see the constants below.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Opaque values of other modules, by name.
pub(super) const BLOBS: TableDefinition<&str, &[u8]> = TableDefinition::new("blobs");
/// Accept number → accepted event.
pub(super) const ACCEPTED: TableDefinition<u64, &[u8]> = TableDefinition::new("accepted");
/// Event id → answer.
pub(super) const SEEN: TableDefinition<&str, &[u8]> = TableDefinition::new("seen");
/// Accept number → event id, so that the oldest ids are found.
pub(super) const SEEN_ORDER: TableDefinition<u64, &str> = TableDefinition::new("seen_order");
/// Source → where it stands.
pub(super) const SOURCES: TableDefinition<&str, &[u8]> = TableDefinition::new("sources");
/// Sketches that are still being filled.
pub(super) const SKETCHES: TableDefinition<&str, &[u8]> = TableDefinition::new("sketches");
/// (stream, sequence) → batch as it travels.
pub(super) const OUTBOX: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("outbox");
/// (stream, sequence) → what the batch is, so that the outbox is counted without reading it.
pub(super) const OUTBOX_INDEX: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("outbox_index");

pub(super) const INCARNATION: &str = "incarnation";
pub(super) const NEXT_ACCEPT: &str = "next_accept";
pub(super) const BATCHED_THROUGH: &str = "batched_through";
/// Event time (as bits) below which accepted events are not all kept any more.
pub(super) const LOST_THROUGH: &str = "lost_through";
pub(super) const REPORT: &str = "report";
pub(super) const DROPPED: &str = "dropped";
/// What the sampler remembers, among the opaque values.
pub(super) const SAMPLING: &str = "sampling/memory";

/// 2020-01-01 in seconds.
const FIRST_SECOND: i64 = 1_577_836_800;

/// Numbers for states that begin without a clock: four years of seconds.
const WITHOUT_CLOCK: u64 = 4 * 365 * 86_400;

/// Makes all tables, and the incarnation of a new state.
///
/// A wiped device no longer knows how often it was wiped; seconds count up all the same. Without a clock they do not:
/// then `chance` decides, below every second since 2024, so that whoever begins with a clock later comes behind.
pub(super) fn prepare(database: &Database, wall: Micros, chance: u64) -> Result<Incarnation, StoreError> {
    let transaction = database.begin_write().map_err(StoreError::write)?;
    let incarnation = create(&transaction, wall, chance).map_err(StoreError::write)?;
    transaction.commit().map_err(StoreError::write)?;
    Ok(incarnation)
}

fn create(transaction: &WriteTransaction, wall: Micros, chance: u64) -> Result<Incarnation, redb::Error> {
    let is_new = transaction.list_tables()?.next().is_none();
    transaction.open_table(BLOBS)?;
    transaction.open_table(ACCEPTED)?;
    transaction.open_table(SEEN)?;
    transaction.open_table(SEEN_ORDER)?;
    transaction.open_table(SOURCES)?;
    transaction.open_table(SKETCHES)?;
    transaction.open_table(OUTBOX)?;
    transaction.open_table(OUTBOX_INDEX)?;
    let mut meta = transaction.open_table(META)?;
    let stored = meta.get(INCARNATION)?.map(|value| value.value());
    let number = match stored {
        Some(number) => number,
        // All tables were made in one step with it. Whoever begins anew in silence hides that this one lost everything.
        None if !is_new => return Err(redb::Error::Corrupted("its incarnation is gone".to_owned())),
        None => {
            let seconds = u32::try_from(wall.0 / Micros::SECOND - FIRST_SECOND).ok().filter(|seconds| *seconds > 0);
            let number = seconds.map_or(1 + chance % WITHOUT_CLOCK, u64::from);
            meta.insert(INCARNATION, number)?;
            number
        }
    };
    Ok(Incarnation(number as u32))
}

impl Store {
    /// A stored value of another module.
    pub fn blob_get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.database()?.begin_read()?.open_table(BLOBS).map_err(StoreError::read)?;
        let value = table.get(key).map_err(StoreError::read)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    /// Stores a value; it is durable when this returns.
    pub fn blob_put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(BLOBS)?.insert(key, value)?;
            Ok(())
        })
    }

    /// Stores several values in one step: after a power cut all of them are there, or none.
    pub fn blobs_put(&self, values: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(BLOBS)?;
            for (key, value) in values {
                table.insert(key.as_str(), value.as_slice())?;
            }
            Ok(())
        })
    }

    /// Removes a value, durably; none there is fine.
    pub fn blob_delete(&self, key: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(BLOBS)?.remove(key)?;
            Ok(())
        })
    }

    /// Names of the values that begin with `prefix`, in order.
    pub fn blob_keys(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let table = self.database()?.begin_read()?.open_table(BLOBS).map_err(StoreError::read)?;
        let mut keys = Vec::new();
        for entry in table.range(prefix..).map_err(StoreError::read)? {
            let (key, _) = entry.map_err(StoreError::read)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            keys.push(key.value().to_owned());
        }
        Ok(keys)
    }

    /// The number of the next report; it never comes again in this incarnation.
    pub fn next_report_number(&self) -> Result<u64, StoreError> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let next = meta.get(REPORT)?.map_or(0, |value| value.value()) + 1;
            meta.insert(REPORT, next)?;
            Ok(next)
        })
    }

    /// One durable transaction outside the path of events.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.database()?;
        let transaction = database.begin_write()?;
        let result = work(&transaction).map_err(|error| self.failed(error))?;
        transaction.commit().map_err(|error| self.failed(error))?;
        Ok(result)
    }
}
