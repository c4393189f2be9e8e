//! Pages for people with a browser: signing in, and what there is to see at a glance. Made on the server, without any
//! script but the few lines that carry forms to the web API, which decides alone who may do what.

mod html;
mod rollouts;
mod overview;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use self::html::Html;
use crate::access::Who;
use crate::access::guard::{Shown, peer, right_host, run, shown};
use crate::hub::Hub;

/// Nothing from elsewhere, nothing inline, in nobody's frame. Forms are sent by the script: without it a browser must
/// not send a token on its own, where it could end up in an address.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
const SIGN_IN: &str = "/sign-in";

/// The pages. They are outside the web API and its description: everybody may see the sign-in page, and the overview
/// leads there.
pub fn routes(hub: Arc<Hub>) -> Router<Arc<Hub>> {
    Router::new()
        .route("/", get(overview::get))
        .route(SIGN_IN, get(sign_in))
        .layer(from_fn_with_state(hub, protect))
        .route("/assets/style.css", get(|| asset("text/css; charset=utf-8", include_str!("assets/style.css"))))
        .route("/assets/page.js", get(|| asset("text/javascript; charset=utf-8", include_str!("assets/page.js"))))
        .route("/assets/icon.svg", get(|| asset("image/svg+xml", include_str!("assets/icon.svg"))))
}

async fn asset(kind: &'static str, content: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], content).into_response()
}

/// Finds out who looks, and forbids the browser what these pages do not need. Somebody without a session, or with one
/// that has ended, is nobody here; certificates and tokens are for the web API.
async fn protect(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let peer = peer(&request);
    let (mut parts, body) = request.into_parts();
    if let Err(refused) = right_host(&hub, &peer, &parts.headers) {
        return refused;
    }
    parts.headers.remove(header::AUTHORIZATION);
    let without_certificate = crate::api::Peer { certificate: None, ..peer.clone() };
    let found = match shown(&hub, &without_certificate, &parts.headers).await {
        Ok(found) => found,
        Err(refused) if refused.status() == StatusCode::UNAUTHORIZED => Shown::Nothing,
        Err(refused) => return refused,
    };
    let who = match &found {
        Shown::Session(session, _) => Who::Token { id: session.token.id.clone(), role: session.token.role },
        _ => Who::Nobody,
    };
    parts.extensions.insert(found);
    let mut response = run(who, peer, Request::from_parts(parts, body), next).await;
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

fn page(title: &'static str, csrf: Option<&str>, body: impl FnOnce(&mut Html)) -> Response {
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>").text(title);
    html.raw(" · Tributary</title>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\">\n");
    if let Some(csrf) = csrf {
        html.raw("<meta name=\"csrf-token\" content=\"").text(csrf).raw("\">\n");
    }
    html.raw("<link rel=\"icon\" href=\"/assets/icon.svg\">\n<link rel=\"stylesheet\" href=\"/assets/style.css\">\n");
    html.raw("<script src=\"/assets/page.js\" defer></script>\n</head>\n<body>\n");
    body(&mut html);
    html.raw("</body>\n</html>\n");
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html.finish()).into_response()
}

async fn sign_in(request: Request) -> Response {
    if let Some(Shown::Session(..)) = request.extensions().get::<Shown>() {
        return Redirect::to("/").into_response();
    }
    page("Sign in", None, |html| {
        html.raw(include_str!("assets/sign_in.html"));
    })
}
