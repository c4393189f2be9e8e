//! What updates keep in the device's state. Calls block on the disk.

use edge_agent_core::lines::{AuditSeen, Of};
use edge_agent_core::updater::{Record, RecordV1};
use serde::{Deserialize, Serialize};
use tributary_wire::{LineName, Role};

use super::UpdateError;
use crate::state::{Store, StoreError};

const RECORDS: &str = "update/line/";
const ASSIGNMENT: &str = "update/assignment";
const AUDIT: &str = "update/audit";

/// Versions of a stored record.
#[derive(Serialize, Deserialize)]
enum StoredRecord {
    V1(RecordV1),
    V2(Record),
}

/// Versions of the remembered audit head.
#[derive(Serialize, Deserialize)]
enum StoredAudit {
    V1(AuditSeen),
}

fn key((line, role): &Of) -> String {
    format!("{RECORDS}{line}/{role}")
}

fn parse(key: &str) -> Option<Of> {
    let (line, role) = key.strip_prefix(RECORDS)?.split_once('/')?;
    Some((LineName::new(line).ok()?, Role::new(role).ok()?))
}

/// The records of all lines and roles.
pub fn records(store: &Store) -> Result<Vec<(Of, Record)>, UpdateError> {
    let known: Vec<Of> = store.blob_keys(RECORDS)?.iter().filter_map(|key| parse(key)).collect();
    known.into_iter().map(|of| Ok((of.clone(), record(store, &of)?))).collect()
}

/// The record of one line and role; a new one is empty.
pub fn record(store: &Store, of: &Of) -> Result<Record, UpdateError> {
    let key = key(of);
    let Some(bytes) = store.blob_get(&key)? else { return Ok(Record::default()) };
    match postcard::from_bytes(&bytes).map_err(|source| UpdateError::Record { key, source })? {
        StoredRecord::V1(record) => Ok(record.into()),
        StoredRecord::V2(record) => Ok(record),
    }
}

/// Makes a record durable.
pub fn put_record(store: &Store, of: &Of, record: Record) -> Result<(), StoreError> {
    let bytes = postcard::to_allocvec(&StoredRecord::V2(record)).expect("plain data always serialises");
    store.blob_put(&key(of), &bytes)
}

/// Forgets a record.
pub fn delete_record(store: &Store, of: &Of) -> Result<(), StoreError> {
    store.blob_delete(&key(of))
}

/// The assignment that was accepted last.
pub fn assignment(store: &Store) -> Result<Option<Vec<u8>>, StoreError> {
    store.blob_get(ASSIGNMENT)
}

/// Makes an assignment durable.
pub fn put_assignment(store: &Store, signed: &[u8]) -> Result<(), StoreError> {
    store.blob_put(ASSIGNMENT, signed)
}

/// How far the hub's audit log had come.
pub fn audit(store: &Store) -> Result<Option<AuditSeen>, StoreError> {
    let Some(bytes) = store.blob_get(AUDIT)? else { return Ok(None) };
    match postcard::from_bytes(&bytes) {
        Ok(StoredAudit::V1(seen)) => Ok(Some(seen)),
        Err(error) => {
            tracing::warn!(%error, "the remembered audit head is damaged; the next one replaces it");
            Ok(None)
        }
    }
}

/// Remembers how far the hub's audit log had come.
pub fn put_audit(store: &Store, seen: AuditSeen) -> Result<(), StoreError> {
    let bytes = postcard::to_allocvec(&StoredAudit::V1(seen)).expect("plain data always serialises");
    store.blob_put(AUDIT, &bytes)
}
