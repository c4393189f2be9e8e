//! What there is to see at a glance: devices, how they are connected and until when their certificates last; tokens, for
//! admins; the head of the audit log.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use tributary_wire::{DeviceId, Micros};

use super::html::Html;
use super::{SIGN_IN, page, rollouts};
use crate::access::Role;
use crate::access::guard::Shown;
use crate::access::sessions::csrf;
use crate::access::tokens::{self, Listed, Verified};
use crate::api::Problem;
use crate::audit;
use crate::hub::Hub;
use crate::ingest::HUB_DEVICE;
use crate::rollout::{Stored, read};

/// Rows of a table; whoever has more devices uses the web API.
const ROWS: u32 = 200;
/// Rollouts, the newest.
const ROLLOUTS: u32 = 8;
/// Entries of the audit log.
const ENTRIES: u32 = 12;
/// A certificate that ends this soon should have been renewed.
const SOON: i64 = 14 * Micros::DAY;

#[derive(sqlx::FromRow)]
struct Device {
    id: String,
    group_name: Option<String>,
    labels: String,
    last_seen: i64,
    certificate: Option<i64>,
    report: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct Entry {
    number: i64,
    time: i64,
    who: String,
    action: String,
    subject: String,
    origin: String,
}

struct Seen {
    now: Micros,
    count: i64,
    devices: Vec<Device>,
    alerts: i64,
    rollouts: Vec<Stored>,
    head: tributary_wire::AuditHead,
    /// For admins alone.
    tokens: Vec<Listed>,
    /// For operators and admins.
    entries: Vec<Entry>,
}

/// `GET /`: the overview, or the way to the sign-in page.
pub(super) async fn get(hub: State<Arc<Hub>>, Extension(shown): Extension<Shown>) -> Result<Response, Problem> {
    let Shown::Session(session, secret) = shown else { return Ok(Redirect::to(SIGN_IN).into_response()) };
    let seen = look(&hub, session.token.role).await?;
    Ok(page("Overview", Some(&csrf(&secret).reveal()), |html| overview(html, &hub, &session.token, &seen)))
}

async fn look(hub: &Hub, role: Role) -> Result<Seen, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    let count = sqlx::query_scalar("select count(*) from devices where id <> $1");
    let devices = sqlx::query_as(
        "select d.id, d.group_name, d.labels, d.last_seen, d.report,
                (select max(c.not_after) from certificates c where c.device = d.id and c.revoked is null) as certificate
         from devices d where d.id <> $1 order by d.id limit $2",
    );
    let alerts = sqlx::query_scalar("select count(*) from alerts where state = 'open'");
    let mut seen = Seen {
        now: hub.now(),
        count: count.bind(HUB_DEVICE).fetch_one(&mut *catalog).await?,
        devices: devices.bind(HUB_DEVICE).bind(i64::from(ROWS)).fetch_all(&mut *catalog).await?,
        alerts: alerts.fetch_one(&mut *catalog).await?,
        rollouts: read::list(&mut catalog, i64::MAX, ROLLOUTS).await?,
        head: audit::head(&mut catalog).await?,
        tokens: Vec::new(),
        entries: Vec::new(),
    };
    if role == Role::Admin {
        seen.tokens = tokens::list(&mut *catalog, "", ROWS).await?;
        seen.tokens.sort_by_key(|token| (token.revoked.is_some(), std::cmp::Reverse(token.created)));
    }
    // As the web API has it.
    if role >= Role::Operator {
        let query = "select number, time, who, action, subject, origin from audit order by number desc limit $1";
        seen.entries = sqlx::query_as(query).bind(i64::from(ENTRIES)).fetch_all(&mut *catalog).await?;
    }
    Ok(seen)
}

fn overview(html: &mut Html, hub: &Hub, token: &Verified, seen: &Seen) {
    html.raw(
        "<header><div><img src=\"/assets/icon.svg\" alt=\"\" width=\"26\" height=\"26\"><strong>Tributary</strong>",
    );
    html.raw("<span class=\"who\">").text(&token.name).raw(" · ").text(token.role);
    html.raw("</span><button id=\"sign-out\" class=\"quiet\">Sign out</button></div></header>\n<main>\n");
    html.raw("<p id=\"problem\" class=\"problem\" role=\"alert\" hidden></p>\n<div class=\"figures\">");
    let connected = hub.connections.connected().len();
    figure(html, seen.count, "devices");
    figure(html, connected, "connected now");
    figure(html, seen.alerts, "open alerts");
    figure(html, seen.head.number, "audit entries");
    html.raw("</div>\n");
    devices(html, hub, seen);
    rollouts::table(html, &seen.rollouts);
    if token.role == Role::Admin {
        access(html, seen);
    }
    chain(html, token.role, seen);
    html.raw("</main>\n");
}

fn figure(html: &mut Html, value: impl std::fmt::Display, name: &'static str) {
    html.raw("<div class=\"card\"><b>").text(value).raw("</b><span>").raw(name).raw("</span></div>");
}

fn devices(html: &mut Html, hub: &Hub, seen: &Seen) {
    html.raw("<h2>Devices");
    if seen.count > i64::from(ROWS) {
        html.raw(" <small>the first ").text(ROWS).raw("</small>");
    }
    html.raw(
        "</h2>\n<div class=\"card table\"><table><thead><tr><th>Device</th><th>Link</th><th>Certificate until</th>",
    );
    html.raw("<th>Metadata</th><th>Runs</th><th>Group</th><th>Labels</th><th>Last seen</th></tr></thead>\n<tbody>\n");
    for device in &seen.devices {
        html.raw("<tr><td>").text(&device.id).raw("</td><td>");
        match DeviceId::new(&device.id).ok().and_then(|id| hub.connections.transport(&id)) {
            Some(transport) => html.raw("<span class=\"on\">● ").text(transport.name()).raw("</span>"),
            None => html.raw("<span class=\"off\">○ away</span>"),
        };
        html.raw("</td><td>");
        end(html, device.certificate, seen.now, "none");
        html.raw("</td><td>");
        rollouts::runs(html, device.report.as_deref());
        html.raw("</td><td>").text(device.group_name.as_deref().unwrap_or("–")).raw("</td><td class=\"free\">");
        html.text(labels(&device.labels)).raw("</td><td>").text(minute(device.last_seen)).raw("</td></tr>\n");
    }
    if seen.devices.is_empty() {
        html.raw("<tr><td class=\"none\" colspan=\"8\">No device has enrolled yet.</td></tr>\n");
    }
    html.raw("</tbody></table></div>\n");
}

fn access(html: &mut Html, seen: &Seen) {
    html.raw(
        "<h2>API tokens</h2>\n<div class=\"card table\"><table><thead><tr><th>Token</th><th>Name</th><th>Role</th>",
    );
    html.raw("<th>Made</th><th>Until</th><th>Last used</th><th></th></tr></thead>\n<tbody>\n");
    for token in &seen.tokens {
        html.raw("<tr><td><code>").text(&token.id).raw("</code></td><td class=\"free\">").text(&token.name);
        html.raw("</td><td>").text(&token.role).raw("</td><td>").text(minute(token.created)).raw("</td><td>");
        end(html, token.expires, seen.now, "for ever");
        html.raw("</td><td>").text(token.last_used.map_or("–".to_owned(), minute)).raw("</td><td>");
        match token.revoked {
            Some(_) => html.raw("<span class=\"past\">revoked</span>"),
            None => html
                .raw("<button class=\"quiet\" data-revoke=\"")
                .text(&token.id)
                .raw("\" data-name=\"")
                .text(&token.name)
                .raw("\">Revoke</button>"),
        };
        html.raw("</td></tr>\n");
    }
    html.raw("</tbody></table></div>\n").raw(include_str!("assets/create_token.html"));
}

fn chain(html: &mut Html, role: Role, seen: &Seen) {
    html.raw("<h2>Audit log</h2>\n");
    if role >= Role::Operator {
        html.raw("<div class=\"card table\"><table><thead><tr><th>No.</th><th>When</th><th>Who</th><th>What</th>");
        html.raw("<th>To what</th><th>From</th></tr></thead>\n<tbody>\n");
        for entry in &seen.entries {
            html.raw("<tr><td>").text(entry.number).raw("</td><td>").text(minute(entry.time)).raw("</td><td>");
            html.text(&entry.who).raw("</td><td>").text(&entry.action).raw("</td><td class=\"free\">");
            html.text(&entry.subject).raw("</td><td>").text(&entry.origin).raw("</td></tr>\n");
        }
        html.raw("</tbody></table></div>\n");
    }
    html.raw("<p class=\"hint\">Head: entry ").text(seen.head.number).raw(", <code>").text(seen.head.hash);
    html.raw("</code>. Keep it elsewhere; <code>cloud-hub audit verify --head</code> compares.</p>\n");
}

/// When something ends.
fn end(html: &mut Html, end: Option<i64>, now: Micros, none: &'static str) {
    match end {
        None => html.raw("<span class=\"off\">").raw(none).raw("</span>"),
        Some(end) if end <= now.0 => html.raw("<span class=\"past\">").text(minute(end)).raw(" (over)</span>"),
        Some(end) if end - now.0 < SOON => html.raw("<span class=\"soon\">").text(minute(end)).raw("</span>"),
        Some(end) => html.text(minute(end)),
    };
}

/// UTC, to the minute.
fn minute(micros: i64) -> String {
    Micros(micros).to_string().chars().take(16).map(|letter| if letter == 'T' { ' ' } else { letter }).collect()
}

fn labels(json: &str) -> String {
    let labels: std::collections::BTreeMap<String, String> = serde_json::from_str(json).unwrap_or_default();
    let pairs: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "–".to_owned() } else { pairs.join(", ") }
}
