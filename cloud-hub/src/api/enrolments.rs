//! How devices come in: enrolment tokens for operators, the first certificate for a device that shows one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use tributary_identity::EnrolRequest;
use tributary_process::config::HumanDuration;
use tributary_wire::{DeviceId, GroupName, Micros};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Json, Page, PageQuery, Path, Problem, Query, State};
use crate::access::Caller;
use crate::hub::Hub;
use crate::identity::{EnrolError, Issued, Refusal, Token, Wanted, to_the_end};
use crate::publish;

/// Devices that one token may be for.
const USES_MAX: u32 = 100_000;
/// Longest life of a token and of a permit.
const LIFETIME_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Labels of one token.
const LABELS_MAX: usize = 64;

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(enrol)).routes(routes!(list, create)).routes(routes!(revoke))
}

/// A device asks for its first certificate.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Enrolment {
    /// The whole enrolment token.
    token: String,
    /// The id that the device asks for.
    #[schema(value_type = String)]
    device: DeviceId,
    /// Its certificate signing request for that id: PKCS#10, PEM; a key of P-256 or Ed25519.
    request: String,
}

/// A certificate and all that a device needs beside it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Enrolled {
    /// For whom.
    device: String,
    /// Its certificate, PEM.
    certificate: String,
    /// The authorities to believe from now on, PEM.
    authorities: String,
    /// From when on to renew it, UTC microseconds.
    renew_after: i64,
    /// The hub's time, UTC microseconds.
    now: i64,
    /// Where the hub listens.
    ports: Ports,
    /// The root of trust of the signed repository: the text of its newest `root.json`. None while the hub has none.
    root: Option<String>,
}

/// Where a hub listens.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Ports {
    /// Name or address for devices; none: that under which the device reached the hub.
    host: Option<String>,
    /// HTTPS, TCP.
    https: u16,
    /// MQTT over TLS, TCP.
    tls: Option<u16>,
    /// MQTT over QUIC, UDP.
    quic: Option<u16>,
}

impl Enrolled {
    /// What a device is told with a certificate.
    pub(super) async fn new(hub: &Hub, issued: &Issued) -> Result<Self, sqlx::Error> {
        let listens = hub.mqtt_addresses();
        let root = publish::store::newest(hub.catalog.reader(), "root").await?;
        Ok(Self {
            device: issued.device.to_string(),
            certificate: issued.certificate.to_pem(),
            authorities: hub.identity.authorities_pem(),
            renew_after: issued.renew_after.0,
            now: hub.now().0,
            ports: Ports {
                host: hub.identity.config().host.clone(),
                https: hub.https_address().port(),
                tls: listens.tls.map(|address| address.port()),
                quic: listens.quic.map(|address| address.port()),
            },
            root: root.and_then(|root| String::from_utf8(root.bytes).ok()),
        })
    }
}

impl From<EnrolError> for Problem {
    fn from(error: EnrolError) -> Self {
        let refusal = match error {
            EnrolError::Refused(refusal) => refusal,
            EnrolError::Certificate(refused) => {
                let kind = format!("certificate-{}", refused.name());
                return Self::new(StatusCode::FORBIDDEN, &kind, "Certificate not accepted", refused);
            }
            EnrolError::Failed(error) => return error.into(),
        };
        let (status, title) = match &refusal {
            Refusal::Malformed(_) => (StatusCode::BAD_REQUEST, "Not an enrolment token"),
            Refusal::OtherHub { .. }
            | Refusal::Unknown { .. }
            | Refusal::WrongSecret { .. }
            | Refusal::Revoked { .. }
            | Refusal::Expired { .. }
            | Refusal::UsedUp { .. } => (StatusCode::FORBIDDEN, "Enrolment token not accepted"),
            Refusal::Reserved => (StatusCode::UNPROCESSABLE_ENTITY, "Device id not available"),
            Refusal::Enrolled { .. } => (StatusCode::CONFLICT, "Device is enrolled already"),
            Refusal::Request(_) => (StatusCode::UNPROCESSABLE_ENTITY, "Signing request not accepted"),
            Refusal::TooMany => (StatusCode::TOO_MANY_REQUESTS, "Too many attempts"),
        };
        Self::new(status, &format!("enrolment-{}", refusal.name()), title, refusal)
    }
}

/// Gives a device its first certificate for an enrolment token. The same request again (same token, device and key)
/// gets the same certificate and costs no second use of the token.
#[utoipa::path(post, path = "/enrolments", tag = "enrolment", request_body = Enrolment, security(()),
    responses((status = 200, body = Enrolled), (status = "default", body = Problem)))]
async fn enrol(hub: State, caller: Caller, Json(asked): Json<Enrolment>) -> Result<Json<Enrolled>, Problem> {
    let request = EnrolRequest { token: asked.token, device: asked.device, request: asked.request };
    let (hub, from) = (hub.0.clone(), caller.from.map(|from| from.ip()));
    let done = to_the_end(async move {
        let issued = hub.identity.enrol(&request, from, hub.now()).await?;
        if issued.replaced {
            hub.connections.close(&issued.device, "the device was enrolled anew");
        }
        Enrolled::new(&hub, &issued).await.map_err(|error| EnrolError::Failed(error.into()))
    });
    Ok(Json(done.await?))
}

/// An enrolment token, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct EnrolmentToken {
    /// Its id.
    id: String,
    /// The group that its devices begin in.
    group: Option<String>,
    /// The labels that its devices begin with.
    labels: BTreeMap<String, String>,
    /// How many devices it is for.
    uses_allowed: i64,
    /// How many have used it.
    uses_made: i64,
    /// Until when it may be used, UTC microseconds.
    expires: i64,
    /// When it was made, UTC microseconds.
    created: i64,
    /// By whom.
    created_by: String,
    /// When it was revoked, UTC microseconds.
    revoked: Option<i64>,
    /// `usable`, `used-up`, `expired` or `revoked`.
    state: &'static str,
}

impl EnrolmentToken {
    fn new(token: Token, now: Micros) -> Self {
        let state = match &token {
            Token { revoked: Some(_), .. } => "revoked",
            Token { expires, .. } if now > *expires => "expired",
            Token { uses_allowed, uses_made, .. } if uses_made >= uses_allowed => "used-up",
            _ => "usable",
        };
        Self {
            id: token.id,
            group: token.group,
            labels: token.labels,
            uses_allowed: token.uses_allowed,
            uses_made: token.uses_made,
            expires: token.expires.0,
            created: token.created.0,
            created_by: token.created_by,
            revoked: token.revoked.map(|at| at.0),
            state,
        }
    }
}

/// What a token is to be good for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct NewEnrolmentToken {
    /// The group that its devices begin in; none when left out.
    #[schema(value_type = Option<String>)]
    group: Option<GroupName>,
    /// The labels that its devices begin with.
    labels: BTreeMap<String, String>,
    /// How many devices it is for; one when left out.
    uses: u32,
    /// How long it may be used, such as `2h` or `7d`; one day when left out.
    #[schema(value_type = String)]
    lifetime: HumanDuration,
}

impl Default for NewEnrolmentToken {
    fn default() -> Self {
        Self { group: None, labels: BTreeMap::new(), uses: 1, lifetime: DAY }
    }
}

/// What is granted for a day unless somebody says otherwise.
pub(super) const DAY: HumanDuration = HumanDuration(Duration::from_secs(86_400));

/// The end of something that begins now and lives for so long.
pub(super) fn end(now: Micros, lifetime: HumanDuration) -> Result<Micros, Problem> {
    if lifetime.0.is_zero() || lifetime.0 > LIFETIME_MAX {
        let problem = Problem::unacceptable(format!("the lifetime {lifetime} is not between 1ms and 366d"));
        return Err(problem.with("lifetime", lifetime));
    }
    Ok(Micros(now.0.saturating_add(lifetime.0.as_micros() as i64)))
}

/// A token that was made just now.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct MadeEnrolmentToken {
    /// The whole token, which holds a secret. It is shown here and never again.
    token: String,
    /// What is kept of it.
    #[serde(flatten)]
    kept: EnrolmentToken,
}

/// Makes an enrolment token. Its text is in this answer and nowhere else: the hub keeps only a digest of its secret.
#[utoipa::path(post, path = "/enrolment-tokens", tag = "enrolment", request_body = NewEnrolmentToken,
    security(("token" = ["admin"])),
    responses((status = 201, body = MadeEnrolmentToken), (status = "default", body = Problem)))]
async fn create(hub: State, Json(asked): Json<NewEnrolmentToken>) -> Result<impl IntoResponse + use<>, Problem> {
    if !(1..=USES_MAX).contains(&asked.uses) {
        return Err(Problem::unacceptable(format!("uses is {}, expected 1 to {USES_MAX}", asked.uses)));
    }
    if asked.labels.len() > LABELS_MAX {
        return Err(Problem::unacceptable(format!("{} labels, at most {LABELS_MAX}", asked.labels.len())));
    }
    let now = hub.now();
    let expires = end(now, asked.lifetime)?;
    let wanted = Wanted { group: asked.group, labels: asked.labels, uses: asked.uses, expires };
    let (kept, token) = hub.identity.create_token(wanted, now).await?;
    let made = MadeEnrolmentToken { token: token.to_string(), kept: EnrolmentToken::new(kept, now) };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(made)))
}

/// All enrolment tokens, by id.
#[utoipa::path(get, path = "/enrolment-tokens", tag = "enrolment", params(PageQuery), security(("token" = ["admin"])),
    responses((status = 200, body = Page<EnrolmentToken>), (status = "default", body = Problem)))]
async fn list(hub: State, Query(page): Query<PageQuery>) -> Result<Json<Page<EnrolmentToken>>, Problem> {
    let (limit, now) = (page.limit()?, hub.now());
    let tokens = hub.identity.tokens(&page.after_text()?, limit + 1).await?;
    let tokens = tokens.into_iter().map(|token| EnrolmentToken::new(token, now)).collect();
    Ok(Json(Page::cut(tokens, limit, |token: &EnrolmentToken| token.id.clone())))
}

/// Takes an enrolment token back. Devices that have used it keep their certificates.
#[utoipa::path(delete, path = "/enrolment-tokens/{id}", tag = "enrolment", params(("id" = String, Path)),
    security(("token" = ["admin"])),
    responses((status = 200, body = EnrolmentToken), (status = "default", body = Problem)))]
async fn revoke(hub: State, Path(id): Path<String>) -> Result<Json<EnrolmentToken>, Problem> {
    let now = hub.now();
    let token = hub.identity.revoke_token(&id, now).await?;
    let beginning: String = id.chars().take(32).collect();
    let token = token.ok_or_else(|| Problem::not_found(format!("there is no enrolment token {beginning:?}")))?;
    Ok(Json(EnrolmentToken::new(token, now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_read_what_the_hub_writes() {
        let ours = Enrolled {
            device: "edge-1".into(),
            certificate: "c".into(),
            authorities: "a".into(),
            renew_after: 7,
            now: 5,
            ports: Ports { host: None, https: 8443, tls: Some(8883), quic: None },
            root: Some("{}".into()),
        };
        let ours = serde_json::to_value(ours).unwrap();
        let theirs: tributary_identity::Enrolled = serde_json::from_value(ours.clone()).unwrap();
        assert_eq!(serde_json::to_value(theirs).unwrap(), ours);
        let request = EnrolRequest { token: "t".into(), device: DeviceId::new("edge-1").unwrap(), request: "r".into() };
        let read: Enrolment = serde_json::from_value(serde_json::to_value(request).unwrap()).unwrap();
        assert_eq!((read.token.as_str(), read.device.as_str(), read.request.as_str()), ("t", "edge-1", "r"));
    }
}
