//! Certificates of devices: renewed by devices, looked at and revoked by operators.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tributary_process::config::HumanDuration;
use tributary_wire::{DeviceId, Micros};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::enrolments::{DAY, Enrolled, end};
use super::{Json, Path, Problem, State};
use crate::access::Caller;
use crate::hub::Hub;
use crate::identity::{CertificateRow, RevokeError, to_the_end};

/// Longest reason for a revocation.
const REASON_MAX: usize = 200;

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(renew)).routes(routes!(list)).routes(routes!(revoke)).routes(routes!(allow))
}

/// A device asks for its next certificate.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Renewal {
    /// A certificate signing request for its id, with a new key or with the old one: PKCS#10, PEM.
    request: String,
}

/// Gives a device its next certificate. It shows the present one in the TLS handshake, which may have expired within
/// the grace and must not be revoked. The present one stays good until the device has connected with the new one; the
/// same request again gets the same certificate.
#[utoipa::path(post, path = "/certificates/renew", tag = "enrolment", request_body = Renewal,
    security(("device" = ["renew"])), responses((status = 200, body = Enrolled), (status = "default", body = Problem)))]
async fn renew(hub: State, caller: Caller, Json(asked): Json<Renewal>) -> Result<Json<Enrolled>, Problem> {
    let Some(shown) = caller.certificate else {
        return Err(Problem::unacceptable("no certificate was shown in the TLS handshake; there is nothing to renew"));
    };
    let issued = hub.identity.renew(&shown, &asked.request, hub.now()).await?;
    Ok(Json(Enrolled::new(&hub, &issued).await?))
}

/// A certificate of a device.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Certificate {
    /// Its number, hexadecimal.
    serial: String,
    /// `enrolled` or `renewed`.
    how: String,
    /// The enrolment token that it was issued for.
    token: Option<String>,
    /// Valid from this instant, UTC microseconds.
    not_before: i64,
    /// Valid to this instant, UTC microseconds.
    not_after: i64,
    /// When it was issued, UTC microseconds.
    issued: i64,
    /// When its device first connected with it, UTC microseconds.
    used: Option<i64>,
    /// When it was revoked, UTC microseconds.
    revoked: Option<i64>,
    /// Why it was revoked.
    reason: Option<String>,
    /// `valid`, `renewable` (expired, within the grace), `expired` or `revoked`.
    state: &'static str,
}

impl Certificate {
    fn new(row: CertificateRow, grace: i64, now: Micros) -> Self {
        let state = match (row.revoked, now.0) {
            (Some(_), _) => "revoked",
            (None, now) if now <= row.not_after => "valid",
            (None, now) if now <= row.not_after.saturating_add(grace) => "renewable",
            _ => "expired",
        };
        Self {
            serial: row.serial,
            how: row.how,
            token: row.token,
            not_before: row.not_before,
            not_after: row.not_after,
            issued: row.issued,
            used: row.used,
            revoked: row.revoked,
            reason: row.reason,
            state,
        }
    }
}

/// All certificates that a device was issued.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Certificates {
    /// The newest first.
    items: Vec<Certificate>,
}

/// The certificates that a device was issued, newest first.
#[utoipa::path(get, path = "/devices/{device}/certificates", tag = "devices", params(("device" = String, Path)),
    security(("token" = ["viewer"])),
    responses((status = 200, body = Certificates), (status = "default", body = Problem)))]
async fn list(hub: State, Path(device): Path<DeviceId>) -> Result<Json<Certificates>, Problem> {
    let (now, grace) = (hub.now(), hub.identity.config().grace.0.as_micros() as i64);
    let rows = hub.identity.certificates(&device).await?;
    let rows = rows.ok_or_else(|| Problem::not_found(format!("there is no device {device}")))?;
    Ok(Json(Certificates { items: rows.into_iter().map(|row| Certificate::new(row, grace, now)).collect() }))
}

impl From<RevokeError> for Problem {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::NoDevice(_) => Self::not_found(error),
            RevokeError::NotEnrolled(_) => Self::unacceptable(error),
            RevokeError::Failed(error) => error.into(),
        }
    }
}

/// Why a device's certificates are taken back.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Revocation {
    /// For people who look later.
    reason: String,
}

/// What was done.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Revoked {
    /// Certificates that were revoked by this.
    revoked: u64,
    /// Whether a live connection was ended.
    disconnected: bool,
}

/// Revokes all certificates of a device at once: its connection ends, and no new one and no request is accepted. To
/// come back it needs a token and an operator's word (`allow-enrolment`).
#[utoipa::path(post, path = "/devices/{device}/revoke", tag = "devices", params(("device" = String, Path)),
    request_body = Revocation, security(("token" = ["operator"])),
    responses((status = 200, body = Revoked), (status = "default", body = Problem)))]
async fn revoke(
    hub: State,
    Path(device): Path<DeviceId>,
    Json(Revocation { reason }): Json<Revocation>,
) -> Result<Json<Revoked>, Problem> {
    let length = reason.chars().count();
    if reason.trim().is_empty() || length > REASON_MAX {
        let detail = format!("the reason has {length} characters, expected 1 to {REASON_MAX}");
        return Err(Problem::unacceptable(detail).with("reason", "tell in a few words why"));
    }
    let hub = hub.0.clone();
    let done = to_the_end(async move {
        let revoked = hub.identity.revoke(&device, reason.trim(), hub.now()).await?;
        let disconnected = hub.connections.close(&device, "the device's certificates were revoked");
        Ok::<_, RevokeError>(Revoked { revoked, disconnected })
    });
    Ok(Json(done.await?))
}

/// For how long a device may enrol once more.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct Permission {
    /// Such as `2h` or `1d`; one day when left out.
    #[schema(value_type = String)]
    lifetime: HumanDuration,
}

impl Default for Permission {
    fn default() -> Self {
        Self { lifetime: DAY }
    }
}

/// Until when a device may enrol once more.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Permitted {
    /// UTC microseconds.
    until: i64,
}

/// Lets a device that was wiped, replaced or revoked enrol once more under its id, with a token. What it was issued
/// before is revoked when it does.
#[utoipa::path(post, path = "/devices/{device}/allow-enrolment", tag = "devices", params(("device" = String, Path)),
    request_body = Permission, security(("token" = ["operator"])),
    responses((status = 200, body = Permitted), (status = "default", body = Problem)))]
async fn allow(
    hub: State,
    Path(device): Path<DeviceId>,
    Json(Permission { lifetime }): Json<Permission>,
) -> Result<Json<Permitted>, Problem> {
    let now = hub.now();
    let until = end(now, lifetime)?;
    hub.identity.allow_enrolment(&device, until, now).await?;
    Ok(Json(Permitted { until: until.0 }))
}
