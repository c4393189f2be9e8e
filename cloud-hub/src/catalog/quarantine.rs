//! Messages kept as they came. Their bytes lie in files; the catalog says what and why.

use sqlx::SqliteConnection;
use tributary_wire::{DeviceId, Micros, SequenceNumber, Sha256};

use super::batches::Numbering;

/// A message to keep aside.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its id, also the name of its file.
    pub id: String,
    /// Who sent it.
    pub device: DeviceId,
    /// Its numbers, if its header could be read.
    pub named: Option<(Numbering, u64)>,
    /// Why, for programs.
    pub reason: &'static str,
    /// Why, in words.
    pub detail: String,
    /// Hash of the whole message.
    pub hash: Sha256,
    /// Its size.
    pub bytes: u64,
    /// Where its bytes lie, below the quarantine folder.
    pub path: String,
}

/// A message that was kept aside.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct KeptRow {
    /// Who sent it.
    pub device: String,
    /// Where its bytes lie.
    pub path: String,
    /// `kept` or `replayed`.
    pub state: String,
}

/// Whether a message of a device is kept, or was until it was replayed.
pub async fn is_kept(connection: &mut SqliteConnection, device: &DeviceId, hash: &Sha256) -> Result<bool, sqlx::Error> {
    let found = sqlx::query("select 1 from quarantine where device = $1 and hash = $2")
        .bind(device.as_str())
        .bind(&hash.0[..])
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// Counts one more arrival of a message that is already kept; whether it is.
pub async fn again(connection: &mut SqliteConnection, device: &DeviceId, hash: &Sha256) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("update quarantine set times = times + 1 where device = $1 and hash = $2")
        .bind(device.as_str())
        .bind(&hash.0[..])
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Bytes kept for a device.
pub async fn bytes_of(connection: &mut SqliteConnection, device: &DeviceId) -> Result<u64, sqlx::Error> {
    let bytes: i64 =
        sqlx::query_scalar("select coalesce(sum(bytes), 0) from quarantine where device = $1 and state = 'kept'")
            .bind(device.as_str())
            .fetch_one(connection)
            .await?;
    Ok(bytes as u64)
}

/// Writes down that a message is kept.
pub async fn insert(connection: &mut SqliteConnection, kept: &Kept, now: Micros) -> Result<(), sqlx::Error> {
    let (numbering, sequence) = kept.named.as_ref().map(|(of, sequence)| (of, *sequence as i64)).unzip();
    sqlx::query(
        "insert into quarantine
             (id, device, incarnation, stream, sequence, reason, detail, hash, bytes, path, received)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict (device, hash) do update set times = quarantine.times + 1",
    )
    .bind(&kept.id)
    .bind(kept.device.as_str())
    .bind(numbering.map(|of| i64::from(of.incarnation.0)))
    .bind(numbering.map(|of| of.stream.as_str()))
    .bind(sequence)
    .bind(kept.reason)
    .bind(&kept.detail)
    .bind(&kept.hash.0[..])
    .bind(kept.bytes as i64)
    .bind(&kept.path)
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// One message, if there is one of that id.
pub async fn get(connection: &mut SqliteConnection, id: &str) -> Result<Option<KeptRow>, sqlx::Error> {
    sqlx::query_as("select device, path, state from quarantine where id = $1").bind(id).fetch_optional(connection).await
}

/// Marks a message as replayed.
pub async fn mark_replayed(connection: &mut SqliteConnection, id: &str, now: Micros) -> Result<(), sqlx::Error> {
    sqlx::query("update quarantine set state = 'replayed', replayed = $2 where id = $1")
        .bind(id)
        .bind(now.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Marks the message that was kept under a number as replayed; not those that came later with other bodies.
pub async fn mark_number_replayed(
    connection: &mut SqliteConnection,
    of: &Numbering,
    sequence: SequenceNumber,
    now: Micros,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update quarantine set state = 'replayed', replayed = $5
         where device = $1 and incarnation = $2 and stream = $3 and sequence = $4 and state = 'kept'
         and reason <> 'conflict'",
    )
    .bind(of.device.as_str())
    .bind(i64::from(of.incarnation.0))
    .bind(of.stream.as_str())
    .bind(sequence.0 as i64)
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// Paths of all files that belong to rows.
pub async fn paths(connection: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("select path from quarantine").fetch_all(connection).await
}
