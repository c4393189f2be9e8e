//! Model lines: settings, and the story of what happened to them.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tributary_wire::LineName;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Json, Page, PageQuery, Path, Problem, Query, State, if_match};
use crate::hub::Hub;
use crate::lines::{self, Line, LineSettings, LineWish, story};
use crate::registry::aliases::{self, AliasChange};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, put)).routes(routes!(events))
}

/// A model line.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LineView {
    /// Its name.
    pub name: String,
    /// Name of its feature view.
    pub view: String,
    /// Version of its feature view.
    pub view_version: u32,
    /// Counts its changes; what `If-Match` is compared with.
    pub revision: i64,
    /// When it was made, UTC microseconds.
    pub created: i64,
    /// When it was changed last, UTC microseconds.
    pub changed: i64,
    /// Where its aliases point.
    pub aliases: Vec<AliasChange>,
    /// All of its settings.
    #[serde(flatten)]
    pub settings: LineSettings,
}

impl LineView {
    fn new(line: Line, aliases: Vec<AliasChange>) -> Self {
        Self {
            name: line.name.to_string(),
            view: line.view_name,
            view_version: line.view_version,
            revision: line.revision,
            created: line.created.0,
            changed: line.changed.0,
            aliases,
            settings: line.settings,
        }
    }
}

/// What a line should be. Fields beside `view` and `view_version` are those of the settings.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LineRequest {
    /// Name of its feature view.
    pub view: String,
    /// Version of its feature view; the newest when left out.
    pub view_version: Option<u32>,
    /// How it is trained, watched and rolled out; what is left out takes its default.
    #[serde(flatten)]
    pub settings: LineSettings,
}

// By hand: serde cannot refuse unknown fields of a struct that has a flattened part.
impl<'de> Deserialize<'de> for LineRequest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut fields = serde_json::Map::<String, Value>::deserialize(deserializer)?;
        let view = fields.remove("view").ok_or_else(|| D::Error::missing_field("view"))?;
        let version = fields.remove("view_version").unwrap_or(Value::Null);
        let within = |name: &str, error: serde_json::Error| D::Error::custom(format!("{name}: {error}"));
        Ok(Self {
            view: serde_json::from_value(view).map_err(|error| within("view", error))?,
            view_version: serde_json::from_value(version).map_err(|error| within("view_version", error))?,
            settings: serde_json::from_value(Value::Object(fields)).map_err(D::Error::custom)?,
        })
    }
}

/// All lines, by name.
#[utoipa::path(get, path = "/lines", tag = "lines",
    security(("token" = ["viewer"])), params(PageQuery),
    responses((status = 200, body = Page<LineView>), (status = "default", body = Problem)))]
async fn list(hub: State, Query(page): Query<PageQuery>) -> Result<Json<Page<LineView>>, Problem> {
    let limit = page.limit()?;
    let mut catalog = hub.catalog.reader().acquire().await?;
    let mut views = Vec::new();
    for line in lines::list(&mut catalog, &page.after_text()?, limit + 1).await? {
        let aliases = aliases::all(&mut catalog, &line.name).await?;
        views.push(LineView::new(line, aliases));
    }
    Ok(Json(Page::cut(views, limit, |line| line.name.clone())))
}

/// One line with its settings and aliases.
#[utoipa::path(get, path = "/lines/{line}", tag = "lines",
    security(("token" = ["viewer"])), params(("line" = String, Path)),
    responses((status = 200, body = LineView), (status = "default", body = Problem)))]
async fn get(hub: State, Path(name): Path<LineName>) -> Result<Response, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    let line = lines::get(&mut catalog, &name).await?;
    let aliases = aliases::all(&mut catalog, &name).await?;
    Ok(answer(StatusCode::OK, LineView::new(line, aliases)))
}

/// Makes or changes a line. `If-Match: "3"` changes it only at revision 3; `"0"` only makes it.
#[utoipa::path(put, path = "/lines/{line}", tag = "lines",
    security(("token" = ["operator"])),
    params(("line" = String, Path), ("If-Match" = Option<String>, Header)), request_body = LineRequest,
    responses((status = 200, body = LineView), (status = 201, body = LineView), (status = "default", body = Problem)))]
async fn put(
    hub: State,
    Path(name): Path<LineName>,
    headers: HeaderMap,
    Json(request): Json<LineRequest>,
) -> Result<Response, Problem> {
    request
        .settings
        .check()
        .map_err(|error| Problem::unacceptable("a setting is refused").with(error.setting, &error))?;
    let expected = if_match(&headers)?;
    let wish = LineWish {
        name: name.clone(),
        view_name: request.view,
        view_version: request.view_version,
        settings: request.settings,
    };
    let mut catalog = hub.catalog.write().await?;
    let line = lines::put(&mut catalog, wish, expected, hub.now()).await?.map_err(|found| {
        Problem::precondition_failed(format!(
            "line {name} is at revision {found}, If-Match expected {}",
            expected.unwrap_or(0)
        ))
    })?;
    let aliases = aliases::all(&mut catalog, &name).await?;
    catalog.commit().await?;
    let status = if line.revision == 1 { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer(status, LineView::new(line, aliases)))
}

fn answer(status: StatusCode, line: LineView) -> Response {
    let revision = HeaderValue::from_str(&format!("\"{}\"", line.revision));
    let mut response = (status, Json(line)).into_response();
    if let Ok(revision) = revision {
        response.headers_mut().insert(header::ETAG, revision);
    }
    response
}

/// One step of a line's story.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StoryStep {
    /// Counts up.
    pub number: i64,
    /// When, UTC microseconds.
    pub time: i64,
    /// What kind of step, such as `run-started`.
    pub kind: String,
    /// In words.
    pub message: String,
    /// In numbers.
    #[schema(value_type = Object)]
    pub detail: Value,
}

/// What happened to a line and why, newest first.
#[utoipa::path(get, path = "/lines/{line}/events", tag = "lines",
    security(("token" = ["viewer"])), params(("line" = String, Path), PageQuery),
    responses((status = 200, body = Page<StoryStep>), (status = "default", body = Problem)))]
async fn events(
    hub: State,
    Path(name): Path<LineName>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<StoryStep>>, Problem> {
    let limit = page.limit()?;
    let mut catalog = hub.catalog.reader().acquire().await?;
    lines::get(&mut catalog, &name).await?;
    let steps = story::read(&mut catalog, &name, page.before_number()?, limit + 1).await?;
    let steps = steps.into_iter().map(|step| StoryStep {
        number: step.number,
        time: step.time,
        kind: step.kind,
        message: step.message,
        detail: serde_json::from_str(&step.detail_json).unwrap_or_default(),
    });
    Ok(Json(Page::cut(steps.collect(), limit, |step| step.number.to_string())))
}
