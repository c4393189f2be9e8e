//! The one place where the web API decides who gets through: every request passes here, and what it needs is read from
//! the description of the API ([`crate::api::security`]).
//!
//! Whoever shows nothing gets the same answer whatever the path, so that nobody learns from outside what is there.
#![allow(
    clippy::result_large_err,
    reason = "an answer is made once per refused request and sent; its size costs nothing"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::check::{Denied, Refusal};
use super::secret::{Secret, same};
use super::sessions::{COOKIE, PLAIN_COOKIE, Session, cookie, csrf};
use super::tokens::Verified;
use super::{Caller, Role, Who};
use crate::api::security::{Devices, Need, Rules};
use crate::api::{Peer, Problem, forget};
use crate::hub::Hub;
use crate::identity::Standing;

/// Header that proves that a change in a session was made by the hub's own page.
pub const CSRF: &str = "x-csrf-token";
const FETCH_SITE: &str = "sec-fetch-site";

/// By what somebody is known.
#[derive(Debug, Clone)]
pub(crate) enum Shown {
    /// Nothing.
    Nothing,
    /// A token.
    Token(Verified),
    /// A session, and its secret.
    Session(Session, Secret),
    /// A device's certificate; whether it counts fully or may only renew itself.
    Certificate(Standing),
}

/// What the layer needs: the hub, and who may do what.
#[derive(Debug, Clone)]
pub struct Guard(pub Arc<Hub>, pub Arc<Rules>);

/// The layer.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let peer = peer(&request);
    // The body cannot be shared between threads, which a borrowed request would have to be.
    let (mut parts, body) = request.into_parts();
    match admit(&guard, &peer, &parts).await {
        Ok((who, shown)) => {
            parts.extensions.insert(shown);
            run(who, peer, Request::from_parts(parts, body), next).await
        }
        Err(refused) => {
            // A caller that still sends its body would see a broken connection instead of the answer.
            forget(body.into_data_stream()).await;
            refused
        }
    }
}

async fn admit(Guard(hub, rules): &Guard, peer: &Peer, parts: &Parts) -> Result<(Who, Shown), Response> {
    right_host(hub, peer, &parts.headers)?;
    let path = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let need = rules.need(&parts.method, path);
    // What is for everybody looks itself at what it is given.
    if need == Some(Need::Nothing) {
        return Ok((Who::Nobody, Shown::Nothing));
    }
    let shown = shown(hub, peer, &parts.headers).await?;
    if let Shown::Session(_, secret) = &shown {
        not_forged(hub, peer, &parts.method, &parts.headers, secret)?;
    }
    allowed(hub, peer, need, &shown, parts).map(|who| (who, shown))
}

/// The other end of the request's connection.
pub(crate) fn peer(request: &Request) -> Peer {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let unknown = || Peer { address: nowhere, secure: false, certificate: None };
    request.extensions().get::<Peer>().cloned().unwrap_or_else(unknown)
}

/// Answers in somebody's name.
pub(crate) async fn run(who: Who, peer: Peer, mut request: Request, next: Next) -> Response {
    let caller = Caller { who, from: Some(peer.address), certificate: peer.certificate };
    request.extensions_mut().insert(caller.clone());
    caller.scope(next.run(request)).await
}

fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// On the plain listener only names of this machine are answered: a page from elsewhere whose name was made to lead
/// here (DNS rebinding), or a proxy that opens the listener to others, would carry another.
pub(crate) fn right_host(hub: &Hub, peer: &Peer, headers: &HeaderMap) -> Result<(), Response> {
    if peer.secure {
        return Ok(());
    }
    // Two of them would leave open which one counts.
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        _ => "",
    };
    let forwarded = headers.contains_key(header::FORWARDED) || headers.contains_key("x-forwarded-for");
    if is_loopback(host) && !forwarded {
        return Ok(());
    }
    hub.access.count(Refusal::Host);
    let detail = "this listener is not encrypted and answers only to localhost and loopback addresses, not through a \
                  proxy; use the HTTPS address";
    Err(Problem::misdirected(detail).into_response())
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What the request shows. Something that does not count is refused, never passed over for something else.
pub(crate) async fn shown(hub: &Hub, peer: &Peer, headers: &HeaderMap) -> Result<Shown, Response> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let value = value.to_str().unwrap_or_default();
        let (scheme, token) = value.trim().split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") {
            hub.access.count(Refusal::Token);
            return Err(unauthorized("the header Authorization is not of the form: Bearer TOKEN", true));
        }
        return hub
            .access
            .check(token, peer.address.ip())
            .await
            .map(Shown::Token)
            .map_err(|refused| denied(refused, true));
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    if let Some(secret) = cookie(cookies, if peer.secure { COOKIE } else { PLAIN_COOKIE }) {
        let session = hub.access.session(&secret, peer.address.ip()).await;
        let session = session.map_err(|refused| denied(refused, false))?;
        return Ok(Shown::Session(session, secret));
    }
    let Some(certificate) = &peer.certificate else { return Ok(Shown::Nothing) };
    match hub.identity.standing(certificate, hub.now()) {
        Standing::Refused(reason) => {
            if let Some(times) = hub.access.count(Refusal::Certificate) {
                tracing::warn!(
                    from = %peer.address, name = certificate.common_name(), serial = %certificate.serial(), %reason, times,
                    "a certificate was refused"
                );
            }
            Err(unauthorized("the client certificate is not valid here (unknown, revoked or expired)", false))
        }
        standing => Ok(Shown::Certificate(standing)),
    }
}

fn denied(denied: Denied, token: bool) -> Response {
    match denied {
        Denied::Wrong(problem) => unauthorized(&problem, token),
        Denied::Limited { after } => limited(after),
        Denied::Catalog(error) => Problem::from(error).into_response(),
    }
}

/// For an address that was wrong too often.
pub(crate) fn limited(after: Duration) -> Response {
    let seconds = after.as_secs() + 1;
    let detail = format!("too many wrong tokens came from this address; try again in {seconds} s");
    let mut response = Problem::too_many(detail).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// 401, the same for every path.
fn unauthorized(detail: &str, wrong_token: bool) -> Response {
    let mut response = Problem::unauthorized(detail).into_response();
    let challenge = match wrong_token {
        true => r#"Bearer realm="tributary", error="invalid_token""#,
        false => r#"Bearer realm="tributary""#,
    };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

/// Whether a browser says that another site's page asks.
pub(crate) fn from_elsewhere(peer: &Peer, headers: &HeaderMap) -> bool {
    let scheme = if peer.secure { "https" } else { "http" };
    let own = format!("{scheme}://{}", text(headers, header::HOST).unwrap_or_default());
    let other = |name: &str, own: &str| {
        headers.get(name).is_some_and(|value| !value.to_str().is_ok_and(|value| value.eq_ignore_ascii_case(own)))
    };
    other("origin", &own) || other(FETCH_SITE, "same-origin")
}

/// Changes in a session must come from the hub's own page: it knows a token that no other site's page can read.
fn not_forged(hub: &Hub, peer: &Peer, method: &Method, headers: &HeaderMap, secret: &Secret) -> Result<(), Response> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    // Every browser says at least one of these with a change.
    let said = headers.contains_key(header::ORIGIN) || headers.contains_key(FETCH_SITE);
    let from_own_page = said && !from_elsewhere(peer, headers);
    let proof = text(headers, CSRF).unwrap_or_default();
    if from_own_page && same(proof.as_bytes(), csrf(secret).reveal().as_bytes()) {
        return Ok(());
    }
    hub.access.count(Refusal::Forged);
    let detail = format!(
        "a change in a session needs the header {CSRF} (GET /api/v1/session tells it) and has to come from a page of \
         this hub; programs use an API token instead"
    );
    Err(Problem::forbidden(detail).into_response())
}

fn allowed(hub: &Hub, peer: &Peer, need: Option<Need>, shown: &Shown, parts: &Parts) -> Result<Who, Response> {
    let (role, devices) = match need {
        Some(Need::Caller { role, devices }) => (role, devices),
        // There is no such route: whoever may call at all is told so by the router.
        Some(Need::Nothing) | None => (Some(Role::Viewer), Devices::None),
    };
    // A device on this machine whose link is plain too has nothing to show; it may read. Nobody else gets to this listener.
    let plain_device = devices == Devices::Valid
        && !peer.secure
        && matches!(parts.method, Method::GET | Method::HEAD)
        && !parts.headers.contains_key(header::ORIGIN);
    match shown {
        Shown::Token(token) | Shown::Session(Session { token, .. }, _) => match role {
            Some(role) if token.role >= role => Ok(Who::Token { id: token.id.clone(), role: token.role }),
            Some(role) => {
                let detail = format!("this needs the role {role}; the token {} has {}", token.id, token.role);
                Err(lacking(hub, &detail, Some(role)))
            }
            None => Err(lacking(hub, "this is for devices: it needs a device's certificate", None)),
        },
        Shown::Certificate(Standing::Valid(device)) if devices != Devices::None => Ok(Who::Device(device.clone())),
        Shown::Certificate(Standing::Expired(device)) if devices == Devices::Expired => Ok(Who::Device(device.clone())),
        Shown::Certificate(Standing::Expired(_)) => {
            hub.access.count(Refusal::Certificate);
            Err(unauthorized("the client certificate has expired; it can still be renewed", false))
        }
        Shown::Certificate(_) => {
            let role = role.unwrap_or(Role::Viewer);
            let detail = format!("this is not for devices: it needs an API token with the role {role}");
            Err(lacking(hub, &detail, Some(role)))
        }
        Shown::Nothing if plain_device => Ok(Who::Nobody),
        Shown::Nothing => {
            hub.access.count(Refusal::Nobody);
            Err(unauthorized("who calls? Send an API token: Authorization: Bearer TOKEN", false))
        }
    }
}

/// 403, naming the role that would do.
fn lacking(hub: &Hub, detail: &str, role: Option<Role>) -> Response {
    hub.access.count(Refusal::Role);
    let mut response = Problem::forbidden(detail).into_response();
    let challenge = role.map(|role| format!(r#"Bearer realm="tributary", error="insufficient_scope", scope="{role}""#));
    if let Some(challenge) = challenge.and_then(|challenge| HeaderValue::from_str(&challenge).ok()) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_is_read_without_a_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = is_loopback(&String::from_utf8_lossy(bytes));
        });
    }

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "127.9.9.9", "[::1]:8080", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example", "10.0.0.1:80", "[2001:db8::1]:80", "127.0.0.1.evil"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
