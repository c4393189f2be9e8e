//! What devices gave up, as they said; [`super::batches::insert_gap`] writes it.

use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tributary_wire::{DeviceId, Micros, StreamName};
use utoipa::ToSchema;

/// Records that a device gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
#[schema(as = GapView)]
pub struct Gap {
    /// Counts up in the order of arrival.
    pub number: i64,
    /// Which device.
    pub device: String,
    /// In which life of its state.
    pub incarnation: i64,
    /// Of which stream.
    pub stream: String,
    /// First batch that will not come.
    pub first_sequence: i64,
    /// Last batch that will not come.
    pub last_sequence: i64,
    /// `disk-budget`, `age` or `corrupt`.
    pub reason: String,
    /// How many records.
    pub records: i64,
    /// When the device said so, UTC microseconds.
    pub received: i64,
    /// Event time of the earliest of them; absent of an older agent.
    pub from_time: Option<i64>,
    /// Event time of the latest of them; absent of an older agent.
    pub to_time: Option<i64>,
}

/// Which gaps; what is left out means all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this device.
    pub device: Option<DeviceId>,
    /// Of this stream.
    pub stream: Option<StreamName>,
    /// For this reason.
    pub reason: Option<String>,
    /// With records from this event time on.
    pub from: Option<Micros>,
    /// With records before this event time.
    pub to: Option<Micros>,
}

/// Gaps below a number, newest first. One whose event times are not known counts as of the time when it was received.
pub async fn list(
    catalog: &mut SqliteConnection,
    filter: &Filter,
    before: i64,
    limit: u32,
) -> Result<Vec<Gap>, sqlx::Error> {
    sqlx::query_as(
        "select number, device, incarnation, stream, first_sequence, last_sequence, reason, records, received,
         from_time, to_time from gaps
         where number < $1 and ($2 is null or device = $2) and ($3 is null or stream = $3)
         and ($4 is null or reason = $4) and ($5 is null or coalesce(to_time, received) >= $5)
         and ($6 is null or coalesce(from_time, received) < $6) order by number desc limit $7",
    )
    .bind(before)
    .bind(filter.device.as_ref().map(DeviceId::as_str))
    .bind(filter.stream.as_ref().map(StreamName::as_str))
    .bind(&filter.reason)
    .bind(filter.from.map(|from| from.0))
    .bind(filter.to.map(|to| to.0))
    .bind(i64::from(limit))
    .fetch_all(catalog)
    .await
}

/// Records of a stream that gaps say were lost between two event times, by reason. A gap that reaches beyond them counts
/// whole: which of its records lay within is not known.
pub async fn lost_between(
    catalog: &mut SqliteConnection,
    stream: &str,
    (from, to): (Micros, Micros),
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "select reason, sum(records) from gaps where stream = $1 and to_time >= $2 and from_time < $3
         group by reason order by reason",
    )
    .bind(stream)
    .bind(from.0)
    .bind(to.0)
    .fetch_all(catalog)
    .await
}
