//! The web API under `/api/v1`: strict in what it reads, precise in what it refuses, described by `openapi.json`.
//!
//! [`router`] puts the routes together; [`server`] adds what holds for all of them (request ids, limits, time-outs,
//! idempotency). Handlers are thin: they read, call the part of the hub that does it, and shape the answer.
#![allow(
    clippy::result_large_err,
    reason = "a problem is made once per refused request and sent; its size costs nothing"
)]

mod problem;
mod extract;
mod page;
mod time;
mod idempotency;
pub mod gate;
mod stall;
mod listen;
pub mod security;
mod server;
mod health;
mod devices;
mod nodes;
mod enrolments;
mod certificates;
mod lake;
mod views;
mod labels;
mod lines;
mod datasets;
mod runs;
mod sampling;
mod versions;
mod aliases;
mod patches;
mod range;
mod repository;
mod signing;
mod releases;
mod session;
mod tokens;
mod compare;
pub mod alerts;
pub mod rollouts;
mod flags;
mod gaps;
mod orders;
mod audit;
mod backups;

pub(crate) use extract::forget;
pub use extract::{Json, Path, Query, if_match};
pub use idempotency::InFlight;
pub use listen::{Listeners, Peer};
pub use page::{Page, PageQuery};
pub use problem::{FieldError, Problem};
pub use server::serve;
pub use time::Instant;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tributary_process::config::{ByteSize, HumanDuration};
use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::Operation;
use utoipa_axum::router::OpenApiRouter;

use crate::hub::Hub;
use crate::publish::roles::RoleError;
use crate::publish::{ApplyError, PublishError};
use crate::registry::RegistryError;

/// What handlers share.
pub type State = axum::extract::State<Arc<Hub>>;

/// Where the web API listens, and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Address of HTTPS; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Address of a second listener without encryption, for development on this machine: refused on any other than a
    /// loopback address. Devices, which cannot show a certificate there, may fetch packages without one.
    pub insecure_plain_on_loopback: Option<SocketAddr>,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address (from one /64 of IPv6).
    pub connections_per_address: usize,
    /// Connections whose handshake is not done. When there are more, the oldest makes way of the address that has most.
    pub half_open: usize,
    /// Time for a TLS handshake.
    pub handshake: HumanDuration,
    /// Time for the head of a request, and for which an idle connection is kept.
    pub head_timeout: HumanDuration,
    /// Longest wait for the next piece of a body.
    pub body_timeout: HumanDuration,
    /// Longest wait for a client to take anything of an answer.
    pub write_timeout: HumanDuration,
    /// Most requests are cut off after this.
    pub request_timeout: HumanDuration,
    /// Those that read the lake (datasets, comparisons) are cut off after this.
    pub work_timeout: HumanDuration,
    /// Largest body of most requests.
    pub body_limit: ByteSize,
    /// Largest body of labels.
    pub labels_limit: ByteSize,
    /// Largest package file that can be uploaded.
    pub package_limit: ByteSize,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8443)),
            insecure_plain_on_loopback: None,
            connections: 2_048,
            connections_per_address: 512,
            half_open: 512,
            handshake: HumanDuration(Duration::from_secs(10)),
            head_timeout: HumanDuration(Duration::from_secs(15)),
            body_timeout: HumanDuration(Duration::from_secs(15)),
            write_timeout: HumanDuration(Duration::from_secs(30)),
            request_timeout: HumanDuration(Duration::from_secs(30)),
            work_timeout: HumanDuration(Duration::from_secs(900)),
            body_limit: ByteSize(1 << 20),
            labels_limit: ByteSize(16 << 20),
            package_limit: ByteSize(64 << 20),
        }
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tributary hub",
        description = "Devices, models, training and rollouts of one fleet. Instants are UTC microseconds; errors are problem documents.",
    ),
    components(schemas(alerts::AlertStateName))
)] // parameters do not bring their types along
struct Description;

/// The routes of each group: groups differ in how large a body and how long an answer may be.
struct Groups {
    quick: OpenApiRouter<Arc<Hub>>,
    labels: OpenApiRouter<Arc<Hub>>,
    uploads: OpenApiRouter<Arc<Hub>>,
    work: OpenApiRouter<Arc<Hub>>,
}

fn groups() -> Groups {
    let quick = OpenApiRouter::new()
        .merge(health::routes())
        .merge(devices::routes())
        .merge(enrolments::routes())
        .merge(certificates::routes())
        .merge(lake::routes())
        .merge(views::routes())
        .merge(lines::routes())
        .merge(datasets::routes())
        .merge(runs::routes())
        .merge(versions::routes())
        .merge(aliases::routes())
        .merge(patches::routes())
        .merge(repository::routes())
        .merge(signing::routes())
        .merge(releases::routes())
        .merge(session::routes())
        .merge(tokens::routes())
        .merge(alerts::routes())
        .merge(rollouts::routes())
        .merge(flags::routes())
        .merge(sampling::routes())
        .merge(gaps::routes())
        .merge(orders::routes())
        .merge(audit::routes())
        .merge(backups::routes());
    let work = OpenApiRouter::new()
        .merge(datasets::work_routes())
        .merge(compare::routes())
        .merge(audit::work_routes())
        .merge(backups::work_routes());
    Groups { quick, labels: labels::routes(), uploads: versions::upload_routes().merge(signing::upload_routes()), work }
}

/// The description of the whole API, as it is committed in `openapi.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let Groups { quick, labels, uploads, work } = groups();
    let all = quick.merge(labels).merge(uploads).merge(work);
    let described = OpenApiRouter::with_openapi(Description::openapi()).nest("/api/v1", all);
    let mut api = described.split_for_parts().1;
    for (path, item) in &mut api.paths.paths {
        let of_methods =
            [("get", &mut item.get), ("put", &mut item.put), ("post", &mut item.post), ("delete", &mut item.delete)];
        for (method, operation) in of_methods {
            operation.iter_mut().for_each(|operation| complete(method, path, operation));
        }
    }
    security::describe(&mut api);
    api
}

/// What all operations have in common and no handler repeats: OpenAPI wants each named once and each answer described,
/// and every error is a problem document.
fn complete(method: &str, path: &str, operation: &mut Operation) {
    let words = path.trim_start_matches("/api/v1").split(['/', '{', '}', '.', '*']).filter(|word| !word.is_empty());
    operation.operation_id = Some(words.fold(method.to_owned(), |id, word| format!("{id}-{word}")));
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if response.description.is_empty() {
            response.description = match status.as_str() {
                "default" => "What was wrong",
                "201" => "It was made",
                "202" => "It was begun",
                "204" => "It was done",
                _ => "The answer",
            }
            .to_owned();
        }
        if status == "default"
            && let Some(problem) = response.content.shift_remove("application/json")
        {
            response.content.insert("application/problem+json".to_owned(), problem);
        }
    }
}

/// The description as text; exactly the content of the committed file.
pub fn openapi_text() -> String {
    // The router's word for the rest of a path is not one of OpenAPI.
    let mut text = openapi().to_pretty_json().unwrap_or_default().replace("{*path}", "{path}");
    text.push('\n');
    text
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NoView(_)
            | RegistryError::NoLine(_)
            | RegistryError::NoVersion(..)
            | RegistryError::NoAlias(..)
            | RegistryError::NoPackage(_) => Self::not_found(error),
            RegistryError::ViewExists { .. }
            | RegistryError::VersionExists(..)
            | RegistryError::VersionReserved { .. } => Self::conflict(error),
            RegistryError::AliasMoved { .. } => Self::precondition_failed(error),
            RegistryError::BadAlias(_) => Self::malformed(error),
            RegistryError::BadView(_)
            | RegistryError::OtherLine { .. }
            | RegistryError::Graph { .. }
            | RegistryError::Undeclared { .. } => Self::unacceptable(error),
            RegistryError::Package(source) => Self::unacceptable(format!("the package is refused: {}", chain(&source))),
            RegistryError::File(_) | RegistryError::Catalog(_) | RegistryError::Unreadable { .. } => {
                anyhow::Error::new(error).into()
            }
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Registry(error) => error.into(),
            PublishError::NoRelease { .. } => Self::not_found(error),
            PublishError::Role(RoleError::Large { .. }) => Self::conflict(error),
            PublishError::Attended { .. }
            | PublishError::Wanted { .. }
            | PublishError::NoRepository
            | PublishError::NoRole { .. }
            | PublishError::NoKey { .. }
            | PublishError::Withdrawn { .. }
            | PublishError::Version { .. } => Self::conflict(error),
            PublishError::Catalog(_) | PublishError::Role(_) | PublishError::File(_) => {
                anyhow::Error::new(error).into()
            }
        }
    }
}

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Publish(error) => error.into(),
            ApplyError::Nothing => Self::malformed(error),
            ApplyError::Drops { .. } => Self::conflict(error),
            error => Self::unacceptable(chain(&error)),
        }
    }
}

/// An error with its causes, for people.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
