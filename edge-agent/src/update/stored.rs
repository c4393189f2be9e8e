//! What updates keep in the device's state. Calls block on the disk.

use edge_agent_core::lines::{AuditSeen, Of, Remembered};
use edge_agent_core::updater::{Record, RecordV1};
use serde::{Deserialize, Serialize};
use tributary_release::digest;
use tributary_wire::{Generation, LineName, Role, Sha256};

use super::UpdateError;
use crate::state::{Store, StoreError};

const RECORDS: &str = "update/line/";
const ASSIGNMENT: &str = "update/assignment";
const GENERATION: &str = "update/generation";
const AUDIT: &str = "update/audit";

/// Versions of a stored record.
#[derive(Serialize, Deserialize)]
enum StoredRecord {
    V1(RecordV1),
    V2(Record),
}

/// Versions of the stored generation. The digest of its bytes stands beside it: a number that the disk has changed must
/// not count, for nothing would ever be newer than the highest there is.
#[derive(Serialize, Deserialize)]
enum StoredGeneration {
    V1(Generation, Sha256),
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

/// Makes an assignment durable, and its generation with it by itself: that one must not be lost with the other.
pub fn put_assignment(store: &Store, signed: &[u8], generation: Generation) -> Result<(), StoreError> {
    let stored = StoredGeneration::V1(generation, of_number(generation));
    let bytes = postcard::to_allocvec(&stored).expect("plain data always serialises");
    store.blobs_put(&[(ASSIGNMENT.to_owned(), signed.to_owned()), (GENERATION.to_owned(), bytes)])
}

fn of_number(generation: Generation) -> Sha256 {
    digest(&generation.0.to_le_bytes())
}

/// The generation that was accepted last; none where an older agent has stored the assignment.
fn generation(store: &Store) -> Result<Option<Generation>, StoreError> {
    let Some(bytes) = store.blob_get(GENERATION)? else { return Ok(None) };
    match postcard::from_bytes(&bytes) {
        Ok(StoredGeneration::V1(generation, sha256)) if of_number(generation) == sha256 => Ok(Some(generation)),
        _ => {
            tracing::warn!("the stored generation is damaged; that of the assignment and of the records counts");
            Ok(None)
        }
    }
}

/// What is stored beside the records.
pub fn remembered(store: &Store) -> Result<Remembered, StoreError> {
    Ok(Remembered { assignment: assignment(store)?, generation: generation(store)?, audit: audit(store)? })
}

/// How far the hub's audit log had come.
fn audit(store: &Store) -> Result<Option<AuditSeen>, StoreError> {
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
