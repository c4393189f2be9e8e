//! Entries in the catalog.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use tributary_wire::{AuditHead, Micros, Sha256};

use super::entry::{Draft, Entry, NOTHING};

const COLUMNS: &str = "number, time, who, role, action, subject, from_json, to_json, origin, previous, hash";

/// The newest entry; [`NOTHING`] of an empty log.
pub async fn head(connection: &mut SqliteConnection) -> Result<AuditHead, sqlx::Error> {
    let query = "select number, hash from audit order by number desc limit 1";
    let row = sqlx::query(query).fetch_optional(connection).await?;
    row.map_or(Ok(NOTHING), |row| Ok(AuditHead { number: number(&row)?, hash: hash(&row, "hash")? }))
}

/// Writes an entry after the newest. The catalog has one writer at a time, so nobody comes between the two.
pub(super) async fn append(connection: &mut SqliteConnection, draft: Draft) -> Result<(), sqlx::Error> {
    let entry = draft.after(head(connection).await?);
    let Entry { number, draft, previous, hash } = entry;
    let query = format!("insert into audit ({COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)");
    sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(number as i64)
        .bind(draft.time.0)
        .bind(draft.who)
        .bind(draft.role)
        .bind(draft.action)
        .bind(draft.subject)
        .bind(draft.from)
        .bind(draft.to)
        .bind(draft.origin)
        .bind(&previous.0[..])
        .bind(&hash.0[..])
        .execute(connection)
        .await?;
    Ok(())
}

/// Which entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only by this one, such as `token:01J…` or `hub`.
    pub who: Option<String>,
    /// Only this action, or all of a thing: `rollout.pause`, `rollout`.
    pub action: Option<String>,
    /// Only about this.
    pub subject: Option<String>,
    /// Only from then on, UTC microseconds.
    pub from: Option<i64>,
    /// Only before then, UTC microseconds.
    pub to: Option<i64>,
}

/// Entries below a number, newest first.
pub async fn list(
    connection: &mut SqliteConnection,
    filter: &Filter,
    before: i64,
    limit: u32,
) -> Result<Vec<Entry>, sqlx::Error> {
    let query = format!(
        "select {COLUMNS} from audit where number < $1 and ($2 is null or who = $2)
         and ($3 is null or action = $3 or substr(action, 1, length($3) + 1) = $3 || '.')
         and ($4 is null or subject = $4) and ($5 is null or time >= $5) and ($6 is null or time < $6)
         order by number desc limit $7"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(before)
        .bind(&filter.who)
        .bind(&filter.action)
        .bind(&filter.subject)
        .bind(filter.from)
        .bind(filter.to)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    rows.iter().map(read).collect()
}

/// The entries after a number, oldest first.
pub async fn after(connection: &mut SqliteConnection, number: u64, limit: u32) -> Result<Vec<Entry>, sqlx::Error> {
    let query = format!("select {COLUMNS} from audit where number > $1 order by number limit $2");
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(number).bind(i64::from(limit));
    query.fetch_all(connection).await?.iter().map(read).collect()
}

/// All entries, oldest first, without holding them in memory. An entry that cannot be read is an error of its own, after
/// which the others go on.
pub fn all(connection: &mut SqliteConnection) -> BoxStream<'_, Result<Entry, sqlx::Error>> {
    let query = format!("select {COLUMNS} from audit order by number");
    let rows = sqlx::query(sqlx::AssertSqlSafe(query)).fetch(connection);
    rows.map(|row| row.and_then(|row| read(&row))).boxed()
}

fn read(row: &SqliteRow) -> Result<Entry, sqlx::Error> {
    let text = |column: &str| row.try_get::<String, _>(column);
    Ok(Entry {
        number: number(row)?,
        draft: Draft {
            time: Micros(row.try_get("time")?),
            who: text("who")?,
            role: text("role")?,
            action: text("action")?,
            subject: text("subject")?,
            from: text("from_json")?,
            to: text("to_json")?,
            origin: text("origin")?,
        },
        previous: hash(row, "previous")?,
        hash: hash(row, "hash")?,
    })
}

fn number(row: &SqliteRow) -> Result<u64, sqlx::Error> {
    let number: i64 = row.try_get("number")?;
    u64::try_from(number).map_err(|error| sqlx::Error::ColumnDecode { index: "number".into(), source: error.into() })
}

fn hash(row: &SqliteRow, column: &str) -> Result<Sha256, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    let wrong = |bytes: Vec<u8>| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: format!("a hash has 32 bytes, found {}", bytes.len()).into(),
    };
    bytes.try_into().map(Sha256).map_err(wrong)
}
