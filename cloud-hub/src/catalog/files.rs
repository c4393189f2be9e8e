//! Files that count, and the columns of streams.

use cloud_hub_lake::schema::{kind_from_name, kind_name};
use cloud_hub_lake::{FileEntry, StreamColumn, StreamSchema};
use sqlx::{Row, SqliteConnection, SqliteExecutor};
use tributary_wire::{Micros, StreamName};

fn wrong(column: &str, problem: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.into(), source: problem.into() }
}

/// All files, in commit order.
pub async fn all(catalog: impl SqliteExecutor<'_>) -> Result<Vec<FileEntry>, sqlx::Error> {
    let rows = sqlx::query(
        "select number, path, stream, day, rows, bytes, min_time, max_time from lake_files order by number",
    )
    .fetch_all(catalog)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(FileEntry {
                number: row.try_get("number")?,
                path: row.try_get("path")?,
                stream: row.try_get::<String, _>("stream")?.parse().map_err(|e| wrong("stream", Box::new(e)))?,
                day: row.try_get("day")?,
                rows: row.try_get::<i64, _>("rows")? as u64,
                bytes: row.try_get::<i64, _>("bytes")? as u64,
                min_time: Micros(row.try_get("min_time")?),
                max_time: Micros(row.try_get("max_time")?),
            })
        })
        .collect()
}

/// The highest file number so far.
pub async fn last_number(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select coalesce(max(number), 0) from lake_files").fetch_one(connection).await
}

/// Makes a file count.
pub async fn insert(connection: &mut SqliteConnection, file: &FileEntry, now: Micros) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into lake_files (number, path, stream, day, rows, bytes, min_time, max_time, committed)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(file.number)
    .bind(&file.path)
    .bind(file.stream.as_str())
    .bind(file.day)
    .bind(file.rows as i64)
    .bind(file.bytes as i64)
    .bind(file.min_time.0)
    .bind(file.max_time.0)
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// The columns of all streams.
pub async fn schemas(catalog: impl SqliteExecutor<'_>) -> Result<Vec<(StreamName, StreamSchema)>, sqlx::Error> {
    let rows =
        sqlx::query("select stream, name, kind, unit, nullable from stream_columns order by stream, position, name")
            .fetch_all(catalog)
            .await?;
    let mut schemas: Vec<(StreamName, StreamSchema)> = Vec::new();
    for row in &rows {
        let stream: StreamName =
            row.try_get::<String, _>("stream")?.parse().map_err(|e| wrong("stream", Box::new(e)))?;
        let kind: String = row.try_get("kind")?;
        let column = StreamColumn {
            name: row.try_get("name")?,
            kind: kind_from_name(&kind).ok_or_else(|| wrong("kind", format!("unknown type {kind:?}")))?,
            unit: row.try_get("unit")?,
            nullable: row.try_get::<i64, _>("nullable")? != 0,
        };
        match schemas.last_mut() {
            Some((last, schema)) if *last == stream => schema.columns.push(column),
            _ => schemas.push((stream, StreamSchema { columns: vec![column] })),
        }
    }
    Ok(schemas)
}

/// Adds columns to a stream, after those it has.
pub async fn add_columns(
    connection: &mut SqliteConnection,
    stream: &StreamName,
    first_position: usize,
    columns: &[StreamColumn],
    now: Micros,
) -> Result<(), sqlx::Error> {
    for (offset, column) in columns.iter().enumerate() {
        sqlx::query(
            "insert into stream_columns (stream, name, position, kind, unit, nullable, since)
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(stream.as_str())
        .bind(&column.name)
        .bind((first_position + offset) as i64)
        .bind(kind_name(column.kind))
        .bind(&column.unit)
        .bind(i64::from(column.nullable))
        .bind(now.0)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
