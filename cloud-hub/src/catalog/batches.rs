//! Which batch numbers were answered for, and what devices gave up.

use sqlx::{Row, SqliteConnection};
use tributary_wire::{DeviceId, Incarnation, Lost, Micros, SequenceNumber, Sha256, StreamName};

/// The numbers of one stream of one life of a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Numbering {
    /// Who numbers.
    pub device: DeviceId,
    /// In which life.
    pub incarnation: Incarnation,
    /// Which stream.
    pub stream: StreamName,
}

/// How a number was answered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its rows are in the lake.
    Stored,
    /// Its bytes were kept aside.
    Quarantined,
    /// The device dropped what it, and the numbers up to the last, would have held.
    Gap,
}

impl State {
    /// Its name in the catalog.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Quarantined => "quarantined",
            Self::Gap => "gap",
        }
    }
}

/// Answers for a number, or for the numbers up to `last` of a gap. `false` when it was answered for before: nothing
/// changed then.
#[expect(clippy::too_many_arguments, reason = "one per column")]
pub async fn insert(
    connection: &mut SqliteConnection,
    of: &Numbering,
    sequence: SequenceNumber,
    last: SequenceNumber,
    hash: &Sha256,
    rows: u64,
    state: State,
    now: Micros,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "insert into batches (device, incarnation, stream, sequence, last_sequence, body_hash, rows, state, received)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (device, incarnation, stream, sequence) do nothing",
    )
    .bind(of.device.as_str())
    .bind(i64::from(of.incarnation.0))
    .bind(of.stream.as_str())
    .bind(sequence.0 as i64)
    .bind(last.0 as i64)
    .bind(&hash.0[..])
    .bind(rows as i64)
    .bind(state.name())
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Turns an answer of quarantine into one of the lake, when a replay succeeded; whether there was one.
pub async fn replayed(
    connection: &mut SqliteConnection,
    of: &Numbering,
    sequence: SequenceNumber,
    rows: u64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "update batches set state = 'stored', rows = $5
         where device = $1 and incarnation = $2 and stream = $3 and sequence = $4 and state = 'quarantined'",
    )
    .bind(of.device.as_str())
    .bind(i64::from(of.incarnation.0))
    .bind(of.stream.as_str())
    .bind(sequence.0 as i64)
    .bind(rows as i64)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The hash and the state that a number was answered for with; none for one inside a gap, or one never answered for.
pub async fn answered(
    connection: &mut SqliteConnection,
    of: &Numbering,
    sequence: SequenceNumber,
) -> Result<Option<(Vec<u8>, State)>, sqlx::Error> {
    let row: Option<(Vec<u8>, String)> = sqlx::query_as(
        "select body_hash, state from batches
         where device = $1 and incarnation = $2 and stream = $3 and sequence = $4",
    )
    .bind(of.device.as_str())
    .bind(i64::from(of.incarnation.0))
    .bind(of.stream.as_str())
    .bind(sequence.0 as i64)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(hash, state)| {
        let state = match state.as_str() {
            "quarantined" => State::Quarantined,
            "gap" => State::Gap,
            _ => State::Stored,
        };
        (hash, state)
    }))
}

/// The numbers of quarantined messages with a body of this hash.
pub async fn quarantined_with(
    connection: &mut SqliteConnection,
    hash: &Sha256,
) -> Result<Vec<(Numbering, SequenceNumber)>, sqlx::Error> {
    let query = "select device, incarnation, stream, sequence from batches
                 where state = 'quarantined' and body_hash = $1";
    let rows: Vec<(String, i64, String, i64)> = sqlx::query_as(query).bind(&hash.0[..]).fetch_all(connection).await?;
    let read = |(device, incarnation, stream, sequence): (String, i64, String, i64)| {
        let device = DeviceId::new(&device).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let stream = StreamName::new(&stream).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let of = Numbering { device, incarnation: Incarnation(incarnation as _), stream };
        Ok((of, SequenceNumber(sequence as u64)))
    };
    rows.into_iter().map(read).collect()
}

/// Up to where a stream is complete, and the ranges of numbers answered for beyond that.
pub async fn progress(
    connection: &mut SqliteConnection,
    of: &Numbering,
) -> Result<(SequenceNumber, Vec<(u64, u64)>), sqlx::Error> {
    let through: Option<i64> = sqlx::query_scalar(
        "select through from stream_progress where device = $1 and incarnation = $2 and stream = $3",
    )
    .bind(of.device.as_str())
    .bind(i64::from(of.incarnation.0))
    .bind(of.stream.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let through = through.unwrap_or(0);
    let rows = sqlx::query(
        "select sequence, last_sequence from batches
         where device = $1 and incarnation = $2 and stream = $3 and sequence > $4 order by sequence",
    )
    .bind(of.device.as_str())
    .bind(i64::from(of.incarnation.0))
    .bind(of.stream.as_str())
    .bind(through)
    .fetch_all(connection)
    .await?;
    let range = |row: &sqlx::sqlite::SqliteRow| {
        Ok((row.try_get::<i64, _>("sequence")? as u64, row.try_get::<i64, _>("last_sequence")? as u64))
    };
    Ok((SequenceNumber(through as u64), rows.iter().map(range).collect::<Result<_, sqlx::Error>>()?))
}

/// Stores up to where a stream is complete.
pub async fn set_through(
    connection: &mut SqliteConnection,
    of: &Numbering,
    through: SequenceNumber,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into stream_progress (device, incarnation, stream, through) values ($1, $2, $3, $4)
         on conflict (device, incarnation, stream) do update set through = excluded.through",
    )
    .bind(of.device.as_str())
    .bind(i64::from(of.incarnation.0))
    .bind(of.stream.as_str())
    .bind(through.0 as i64)
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores what a device gave up.
pub async fn insert_gap(
    connection: &mut SqliteConnection,
    of: &Numbering,
    (first, last): (SequenceNumber, SequenceNumber),
    lost: &[Lost],
    now: Micros,
) -> Result<(), sqlx::Error> {
    for lost in lost {
        sqlx::query(
            "insert into gaps (number, device, incarnation, stream, first_sequence, last_sequence, reason, records,
             received, from_time, to_time)
             values ((select coalesce(max(number), 0) + 1 from gaps), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(of.device.as_str())
        .bind(i64::from(of.incarnation.0))
        .bind(of.stream.as_str())
        .bind(first.0 as i64)
        .bind(last.0 as i64)
        .bind(lost.reason.name())
        .bind(i64::try_from(lost.records).unwrap_or(i64::MAX))
        .bind(now.0)
        .bind(lost.span.map(|(from, _)| from.0))
        .bind(lost.span.map(|(_, to)| to.0))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
