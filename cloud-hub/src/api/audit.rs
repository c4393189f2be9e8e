//! The audit log: read, exported, verified.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Instant, Json, Page, PageQuery, Problem, Query, State};
use crate::audit::{self, Claim, Verdict, export, store, verify};
use crate::catalog::Catalog;
use crate::hub::Hub;

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(head))
}

pub(super) fn work_routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(exported)).routes(routes!(verified))
}

/// One change of state.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Counts up from 1, without gaps.
    pub number: u64,
    /// When, UTC microseconds.
    pub time: i64,
    /// `hub`, `nobody`, `device:<id>` or `token:<id>`.
    pub who: String,
    /// Role of a token, else empty.
    pub role: String,
    /// What was done, such as `rollout.pause`.
    pub action: String,
    /// To what.
    pub subject: String,
    /// As it was before; null when it did not exist.
    #[schema(value_type = Option<Object>)]
    pub from: Value,
    /// As it was then; null when it was gone.
    #[schema(value_type = Option<Object>)]
    pub to: Value,
    /// Address of the caller, else empty.
    pub origin: String,
    /// Hash of the entry before.
    pub previous: String,
    /// Hash of this one.
    pub hash: String,
}

impl From<audit::Entry> for AuditEntry {
    fn from(entry: audit::Entry) -> Self {
        // A text that is no JSON any more was changed by somebody; verification says so.
        let json = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
        let draft = entry.draft;
        Self {
            number: entry.number,
            time: draft.time.0,
            who: draft.who,
            role: draft.role,
            action: draft.action,
            subject: draft.subject,
            from: json(draft.from),
            to: json(draft.to),
            origin: draft.origin,
            previous: entry.previous.to_string(),
            hash: entry.hash.to_string(),
        }
    }
}

/// Which entries.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Only by this one: `hub`, `nobody`, `device:<id>`, `token:<id>`.
    who: Option<String>,
    /// Only this action (`rollout.pause`), or all about a kind of thing (`rollout`).
    action: Option<String>,
    /// Only about this.
    subject: Option<String>,
    /// Only from then on: UTC microseconds or RFC 3339.
    from: Option<String>,
    /// Only before then.
    to: Option<String>,
    /// How many at most; 100 unless given, 1000 at most.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

fn instant(name: &str, text: Option<&String>) -> Result<Option<i64>, Problem> {
    let wrong = |problem: String| Problem::malformed("a parameter of the query is wrong").with(name, problem);
    text.map(|text| text.parse::<Instant>().map(|instant| instant.0.0).map_err(wrong)).transpose()
}

/// Changes of state, newest first.
#[utoipa::path(get, path = "/audit", tag = "audit", security(("token" = ["operator"])), params(AuditQuery),
    responses((status = 200, body = Page<AuditEntry>), (status = "default", body = Problem)))]
async fn list(hub: State, Query(query): Query<AuditQuery>) -> Result<Json<Page<AuditEntry>>, Problem> {
    let (from, to) = (instant("from", query.from.as_ref())?, instant("to", query.to.as_ref())?);
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let (limit, before) = (page.limit()?, page.before_number()?);
    let filter = store::Filter { who: query.who, action: query.action, subject: query.subject, from, to };
    let entries = store::list(&mut *hub.catalog.reader().acquire().await?, &filter, before, limit + 1).await?;
    Ok(Json(Page::cut(entries.into_iter().map(AuditEntry::from).collect(), limit, |entry| entry.number.to_string())))
}

/// The newest entry.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditHead {
    /// Its number; 0 of an empty log.
    pub number: u64,
    /// Its hash, which covers all entries before it.
    pub hash: String,
}

/// The newest entry of the audit log, as assignments carry it to devices.
#[utoipa::path(get, path = "/audit/head", tag = "audit", security(("token" = ["viewer"])),
    responses((status = 200, body = AuditHead), (status = "default", body = Problem)))]
async fn head(hub: State) -> Result<Json<AuditHead>, Problem> {
    let head = audit::head(&mut *hub.catalog.reader().acquire().await?).await?;
    Ok(Json(AuditHead { number: head.number, hash: head.hash.to_string() }))
}

#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct ExportQuery {
    /// Only entries after this number.
    after: u64,
}

/// The log as JSON lines, oldest entry first: to be kept elsewhere, and verified with `cloud-hub audit verify --file`.
#[utoipa::path(get, path = "/audit/export", tag = "audit", security(("token" = ["operator"])), params(ExportQuery),
    responses((status = 200, body = String, content_type = "application/x-ndjson"),
              (status = "default", body = Problem)))]
async fn exported(hub: State, Query(query): Query<ExportQuery>) -> Result<Response, Problem> {
    let (sender, lines) = mpsc::channel(4);
    tokio::spawn(stream(hub.catalog.clone(), query.after, sender));
    let lines = futures_util::stream::unfold(lines, |mut lines| async { Some((lines.recv().await?, lines)) });
    let media = HeaderValue::from_static("application/x-ndjson");
    Ok(([(header::CONTENT_TYPE, media)], Body::from_stream(lines)).into_response())
}

/// Entries read at once; between two reads nobody waits for the export.
const AT_ONCE: u32 = 500;

/// Reads in pieces, so that a slow client holds no view of the catalog open.
async fn stream(catalog: Catalog, mut after: u64, sender: mpsc::Sender<Result<Bytes, std::io::Error>>) {
    loop {
        let read = async {
            let mut reader = catalog.reader().acquire().await?;
            store::after(&mut reader, after, AT_ONCE).await
        };
        let piece = match read.await {
            Ok(entries) => {
                let Some(last) = entries.last() else { return };
                after = last.number;
                Ok(Bytes::from(entries.iter().map(export::write).collect::<String>()))
            }
            Err(error) => {
                // The connection is cut: a client that took half for all would be worse.
                tracing::error!(error = &error as &dyn std::error::Error, after, "the audit log could not be exported");
                Err(std::io::Error::other(error))
            }
        };
        let over = piece.is_err();
        if sender.send(piece).await.is_err() || over {
            return;
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct VerifyQuery {
    /// What the log must hold: `HASH` or `NUMBER:HASH`, as a device or a person remembers it.
    head: Option<String>,
}

/// Looks for a changed, missing or cut-off entry. A hub that was taken over can answer anything: who doubts it runs
/// `cloud-hub audit verify` over a copy of the catalog or an export, elsewhere.
#[utoipa::path(get, path = "/audit/verify", tag = "audit", security(("token" = ["operator"])), params(VerifyQuery),
    responses((status = 200, body = Verdict), (status = "default", body = Problem)))]
async fn verified(hub: State, Query(query): Query<VerifyQuery>) -> Result<Json<Verdict>, Problem> {
    let claim: Result<Option<Claim>, String> = query.head.map(|text| text.parse()).transpose();
    let wrong = |problem: String| Problem::malformed("a parameter of the query is wrong").with("head", problem);
    let claim = claim.map_err(wrong)?;
    Ok(Json(verify::stored(&mut *hub.catalog.reader().acquire().await?, claim).await?))
}
