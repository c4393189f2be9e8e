//! What the lake holds, and what was kept aside.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tributary_wire::StreamName;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Json, Page, PageQuery, Path, Problem, Query, State};
use crate::hub::Hub;
use crate::ingest::SubmitError;

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(streams)).routes(routes!(quarantine)).routes(routes!(replay))
}

/// One stream of the lake.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
pub struct StreamSummary {
    /// Its name.
    pub stream: String,
    /// Rows in committed files.
    pub rows: i64,
    /// Committed files.
    pub files: i64,
    /// Their size.
    pub bytes: i64,
    /// Earliest event time, UTC microseconds.
    pub from_time: Option<i64>,
    /// Latest event time, UTC microseconds: the stream's watermark.
    pub to_time: Option<i64>,
    /// Distinct batches that were stored.
    pub batches: i64,
    /// Distinct batches kept aside.
    pub quarantined: i64,
    /// Records that devices reported as dropped.
    pub dropped: i64,
    /// Columns with their types.
    #[sqlx(skip)]
    pub columns: Vec<ColumnSummary>,
}

/// One column of a stream.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
pub struct ColumnSummary {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Its unit; empty when it has none.
    pub unit: String,
}

/// What the lake holds, stream by stream.
#[utoipa::path(get, path = "/lake/streams", tag = "lake",
    security(("token" = ["viewer"])),
    responses((status = 200, body = [StreamSummary]), (status = "default", body = Problem)))]
async fn streams(hub: State) -> Result<Json<Vec<StreamSummary>>, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    let query = "
        with names as (select stream from lake_files union select stream from batches union select stream from gaps)
        select names.stream as stream,
            (select coalesce(sum(rows), 0) from lake_files f where f.stream = names.stream) as rows,
            (select count(*) from lake_files f where f.stream = names.stream) as files,
            (select coalesce(sum(bytes), 0) from lake_files f where f.stream = names.stream) as bytes,
            (select min(min_time) from lake_files f where f.stream = names.stream and f.rows > 0) as from_time,
            (select max(max_time) from lake_files f where f.stream = names.stream and f.rows > 0) as to_time,
            (select count(*) from batches b where b.stream = names.stream and b.state = 'stored') as batches,
            (select count(*) from batches b where b.stream = names.stream and b.state = 'quarantined') as quarantined,
            (select coalesce(sum(records), 0) from gaps g where g.stream = names.stream) as dropped
        from names order by names.stream";
    let mut streams: Vec<StreamSummary> = sqlx::query_as(query).fetch_all(&mut *catalog).await?;
    for stream in &mut streams {
        let query = "select name, kind, unit from stream_columns where stream = $1 order by position";
        stream.columns = sqlx::query_as(query).bind(&stream.stream).fetch_all(&mut *catalog).await?;
    }
    Ok(Json(streams))
}

/// A message that was kept aside.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
pub struct Quarantined {
    /// Its id.
    pub id: String,
    /// Who sent it.
    pub device: String,
    /// Its stream, if it could be read.
    pub stream: Option<String>,
    /// Its number, if it could be read.
    pub sequence: Option<i64>,
    /// Why, for programs.
    pub reason: String,
    /// Why, in words.
    pub detail: String,
    /// Its size.
    pub bytes: i64,
    /// How often it came.
    pub times: i64,
    /// When it came first, UTC microseconds.
    pub received: i64,
    /// `kept` or `replayed`.
    pub state: String,
    /// When it was replayed, UTC microseconds.
    pub replayed: Option<i64>,
}

const QUARANTINED: &str = "select id, device, stream, sequence, reason, detail, bytes, times, received, state, replayed
                           from quarantine where id < $1 order by id desc limit $2";

/// What was kept aside, newest first.
#[utoipa::path(get, path = "/quarantine", tag = "lake",
    security(("token" = ["viewer"])), params(PageQuery),
    responses((status = 200, body = Page<Quarantined>), (status = "default", body = Problem)))]
async fn quarantine(hub: State, Query(page): Query<PageQuery>) -> Result<Json<Page<Quarantined>>, Problem> {
    let limit = page.limit()?;
    let before = match page.after_text()? {
        start if start.is_empty() => "~".to_owned(),
        before => before,
    };
    let rows =
        sqlx::query_as(QUARANTINED).bind(before).bind(i64::from(limit) + 1).fetch_all(hub.catalog.reader()).await?;
    Ok(Json(Page::cut(rows, limit, |row: &Quarantined| row.id.clone())))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReplayQuery {
    /// Put the records into this stream instead of their own: the way to take in a column whose type changed.
    #[param(value_type = Option<String>)]
    stream: Option<StreamName>,
}

/// Takes a message out of quarantine and reads it again, as if it came now.
#[utoipa::path(post, path = "/quarantine/{id}/replay", tag = "lake",
    security(("token" = ["operator"])), params(("id" = String, Path), ReplayQuery),
    responses((status = 200, body = Quarantined), (status = "default", body = Problem)))]
async fn replay(
    hub: State,
    Path(id): Path<String>,
    Query(query): Query<ReplayQuery>,
) -> Result<Json<Quarantined>, Problem> {
    find(&hub, &id).await?;
    hub.ingest.replay(&id, query.stream).await.map_err(|error| match error {
        SubmitError::NotKept { .. } => Problem::not_found(error),
        SubmitError::Stopping | SubmitError::Holding => Problem::unavailable(error),
        SubmitError::Settled { .. } => Problem::conflict(error),
        SubmitError::Read(error) => error.into(),
        other => Problem::unacceptable(super::chain(&other)),
    })?;
    find(&hub, &id).await.map(Json)
}

async fn find(hub: &Hub, id: &str) -> Result<Quarantined, Problem> {
    let query = "select id, device, stream, sequence, reason, detail, bytes, times, received, state, replayed
                 from quarantine where id = $1";
    let row: Option<Quarantined> = sqlx::query_as(query).bind(id).fetch_optional(hub.catalog.reader()).await?;
    row.ok_or_else(|| Problem::not_found(format!("there is no message {id} in quarantine")))
}
