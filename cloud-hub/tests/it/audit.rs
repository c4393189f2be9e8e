//! The audit log over the API, at the terminal, and in assignments; every route that changes something is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

use cloud_hub::publish::{ceremony, roles, store};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_fraud::GeneratorConfig;
use tributary_identity::{Key as _, KeyFile};
use tributary_wire::DeviceId;

use crate::devices::batch;
use crate::support::{TestHub, package};

/// A request that should succeed.
struct Example {
    path: String,
    kind: &'static str,
    body: Vec<u8>,
}

fn json_example(path: impl Into<String>, body: Value) -> Option<Example> {
    Some(Example { path: path.into(), kind: "application/json", body: body.to_string().into_bytes() })
}

/// Valid requests for every operation that changes something, in an order in which each can succeed. `known` holds the
/// answers to those before. `None`: not reachable with a token, or no change of what the hub keeps; why stands beside.
fn example(operation: &str, known: &BTreeMap<&str, Value>) -> Option<Example> {
    let id = |operation: &str, field: &str| {
        let value = &known[operation][field];
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    match operation {
        "POST /views" => Some(Example {
            path: "/views".to_owned(),
            kind: "application/toml",
            body: tributary_fraud::VIEW_TOML.replace("version = 1", "version = 2").into_bytes(),
        }),
        "PUT /lines/{line}" => json_example("/lines/other", json!({"view": "card-risk"})),
        "POST /lines/{line}/versions" => Some(Example {
            path: "/lines/card-fraud/versions".to_owned(),
            kind: "application/octet-stream",
            body: package("card-fraud", 1),
        }),
        "POST /lines/{line}/versions/{version}/publish" => {
            json_example("/lines/card-fraud/versions/1/publish", Value::Null)
        }
        "POST /signing/keys" => json_example("/signing/keys", json!({"role": "snapshot", "further": true})),
        "POST /signing/contents" => Some(Example {
            path: "/signing/contents".to_owned(),
            kind: "application/octet-stream",
            body: b"an image".to_vec(),
        }),
        "POST /signing/files" => json_example("/signing/files", json!({"files": [known["targets"]]})),
        "PUT /lines/{line}/aliases/{alias}" => {
            json_example("/lines/card-fraud/aliases/champion", json!({"version": 1, "reason": "tried"}))
        }
        "PUT /devices/{device}" => json_example("/devices/edge-1", json!({"group": "lab"})),
        "POST /devices/{device}/commands" => json_example("/devices/edge-1/commands", json!({"order": "logs"})),
        "DELETE /devices/{device}/commands/{command}" => {
            let command = id("POST /devices/{device}/commands", "id");
            json_example(format!("/devices/edge-1/commands/{command}"), Value::Null)
        }
        "POST /labels" => json_example("/labels", json!([{"event_id": "e1", "label": true}])),
        "POST /datasets" => json_example("/datasets", json!({"line": "card-fraud"})),
        "POST /runs" => json_example("/runs", json!({"line": "card-fraud"})),
        "POST /runs/{run}/cancel" => json_example(format!("/runs/{}/cancel", id("POST /runs", "id")), Value::Null),
        "POST /rollouts" => json_example(
            "/rollouts",
            json!({"line": "card-fraud", "version": 1, "role": "challenger-b", "share": 100, "selector": "site=lyon"}),
        ),
        "POST /rollouts/{rollout}/share" => {
            let path = format!("/rollouts/{}/share", id("POST /rollouts", "id"));
            json_example(path, json!({"share": 200, "reason": "tried"}))
        }
        "PUT /sampling/{name}" => json_example("/sampling/lyon", json!({"selector": "site=lyon"})),
        "DELETE /sampling/{name}" => json_example("/sampling/lyon", Value::Null),
        "PUT /flags/{key}" => json_example("/flags/new-form", json!({"value": "on", "selector": "site=lyon"})),
        "POST /rollouts/{rollout}/pause"
        | "POST /rollouts/{rollout}/resume"
        | "POST /rollouts/{rollout}/abort"
        | "POST /rollouts/{rollout}/end" => {
            let verb = operation.rsplit('/').next().unwrap();
            json_example(format!("/rollouts/{}/{verb}", id("POST /rollouts", "id")), json!({"reason": "tried"}))
        }
        "POST /lines/{line}/versions/{version}/withdraw" => {
            json_example("/lines/card-fraud/versions/1/withdraw", json!({"reason": "tried", "even_if_wanted": true}))
        }
        "POST /alerts/{alert}/silence" => {
            json_example(format!("/alerts/{}/silence", id("alert", "id")), json!({"seconds": 60}))
        }
        "POST /quarantine/{id}/replay" => json_example("/quarantine/kept-1/replay", Value::Null),
        "POST /tokens" => json_example("/tokens", json!({"name": "ci", "role": "viewer"})),
        "DELETE /tokens/{token}" => json_example(format!("/tokens/{}", id("POST /tokens", "id")), Value::Null),
        "POST /enrolment-tokens" => json_example("/enrolment-tokens", json!({"uses": 1})),
        "DELETE /enrolment-tokens/{id}" => {
            json_example(format!("/enrolment-tokens/{}", id("POST /enrolment-tokens", "id")), Value::Null)
        }
        "POST /devices/{device}/allow-enrolment" => json_example("/devices/edge-1/allow-enrolment", json!({})),
        "POST /devices/{device}/revoke" => json_example("/devices/edge-1/revoke", json!({"reason": "tried"})),
        // Their callers are no tokens: a device with an enrolment token or a certificate, a browser with its cookie.
        // Their own tests look at the log.
        "POST /enrolments" | "POST /certificates/renew" | "POST /session" | "DELETE /session" => None,
        // They need a folder for backups, and a hub that was restored: their own tests look at the log.
        "POST /backups"
        | "POST /restore/continue"
        | "POST /restore/packages/{line}/{version}/overrule"
        | "POST /restore/devices/{device}/accept" => None,
        other => panic!("{other} changes something and has no example here: add one, and see that it is written down"),
    }
}

/// Operations that need what others have made, in this order; all others in between.
const LAST: [&str; 13] = [
    "DELETE /sampling/{name}",
    "POST /lines/{line}/versions/{version}/publish",
    "PUT /lines/{line}/aliases/{alias}",
    "POST /rollouts",
    "POST /rollouts/{rollout}/pause",
    "POST /rollouts/{rollout}/resume",
    "POST /rollouts/{rollout}/share",
    "POST /rollouts/{rollout}/abort",
    "POST /rollouts/{rollout}/end",
    "POST /lines/{line}/versions/{version}/withdraw",
    "DELETE /devices/{device}/commands/{command}",
    "POST /devices/{device}/revoke",
    "POST /devices/{device}/allow-enrolment",
];

/// `METHOD /path` of every operation of the description that is no GET, those first that need nothing.
fn operations() -> Vec<String> {
    let api: Value = serde_json::from_str(&cloud_hub::api::openapi_text()).unwrap();
    let mut all = BTreeSet::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/api/v1").unwrap();
        let methods = item.as_object().unwrap().keys().filter(|method| !["get", "head"].contains(&method.as_str()));
        all.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let mut all: Vec<String> = all.into_iter().collect();
    // Making before what works on the made: by length of the path, then in the order above.
    all.sort_by_key(|operation| {
        let last = LAST.iter().position(|last| last == operation).map_or(0, |at| at + 1);
        let path = operation.split(' ').nth(1).unwrap();
        (last, path.matches('/').count(), path.len())
    });
    all
}

async fn prepare(hub: &TestHub) -> Value {
    hub.line(json!({"retrain": "manual", "auto_rollout": false})).await;
    hub.payments(GeneratorConfig { days: 40, customers: 30, terminals: 20, ..GeneratorConfig::default() }).await;
    hub.ok(Method::PUT, "/devices/edge-1", json!({"labels": {"site": "lyon"}})).await;
    let made = hub.ok(Method::POST, "/enrolment-tokens", json!({})).await;
    let (device, key) = (DeviceId::new("edge-1").unwrap(), KeyFile::generate().unwrap());
    let request = key.request(&device).unwrap();
    let enrolment = json!({"token": made["token"], "device": device, "request": request});
    let before = hub.get("/audit/head").await.1["number"].as_u64().unwrap();
    hub.ok(Method::POST, "/enrolments", enrolment).await;
    assert!(hub.get("/audit/head").await.1["number"].as_u64().unwrap() > before, "an enrolment is written down");
    let folder = hub.hub.data().join("quarantine");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("kept-1"), batch(1, &[7])).unwrap();
    let mut catalog = hub.hub.catalog.write().await.unwrap();
    let raise = cloud_hub::catalog::alerts::Raise {
        kind: "drift",
        subject: "card-fraud/1",
        severity: "warning",
        detail: json!({}),
    };
    let (alert, _) = cloud_hub::catalog::alerts::raise(&mut catalog, raise, hub.hub.now()).await.unwrap();
    sqlx::query(
        "insert into quarantine (id, device, reason, detail, hash, bytes, path, received)
         values ('kept-1', 'edge-1', 'test', '', x'00', 1, 'kept-1', 1)",
    )
    .execute(&mut *catalog)
    .await
    .unwrap();
    catalog.commit().await.unwrap();
    json!({"id": alert})
}

/// The next version of the top-level targets, signed as a person would.
async fn next_targets(hub: &TestHub) -> Value {
    let stored = store::newest(hub.hub.catalog.reader(), "targets").await.unwrap().unwrap();
    let mut content = roles::read_targets(&stored.bytes).unwrap();
    content.version += 1;
    let key = ceremony::Custody::of_seed(crate::support::CUSTODY).targets.1;
    let built = roles::build_targets(&roles::RoleName::Targets, &content).unwrap();
    String::from_utf8(roles::sign(&built, &[key]).unwrap()).unwrap().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_that_changes_something_is_written_down_with_who_and_from_where() {
    // A run that can still be cancelled.
    let hub = TestHub::start_in(tempfile::tempdir().unwrap(), crate::training::endless).await;
    let mut known = BTreeMap::from([("alert", prepare(&hub).await), ("targets", next_targets(&hub).await)]);
    let operations = operations();
    assert!(operations.len() > 20, "{operations:?}");
    for operation in &operations {
        let Some(Example { path, kind, body }) = example(operation, &known) else { continue };
        let before = hub.get("/audit/head").await.1["number"].as_u64().unwrap();
        let method: Method = operation.split(' ').next().unwrap().parse().unwrap();
        let body = if body == b"null" { Vec::new() } else { body };
        let kind = if body.is_empty() { "" } else { kind };
        let answer = hub.send(method, &path, kind, body).await;
        assert!(answer.status.is_success(), "{operation} {path}: {} {:?}", answer.status, answer.body);
        let entries = hub.get("/audit?limit=100").await.1;
        let own = entries["items"].as_array().unwrap().iter().filter(|entry| {
            let by_token = entry["who"].as_str().unwrap().starts_with("token:") && entry["role"] == "admin";
            let from_here = entry["origin"].as_str().unwrap().starts_with("127.0.0.1:");
            entry["number"].as_u64().unwrap() > before && by_token && from_here && entry["from"] != entry["to"]
        });
        assert!(own.count() > 0, "{operation} left nothing in the log after entry {before}: {entries:#}");
        known.insert(operation, answer.json().unwrap_or_default());
    }
    let verdict = hub.get("/audit/verify").await.1;
    assert_eq!(verdict["whole"], true, "{verdict:#}");
    let nobody = hub.get("/audit?who=nobody").await.1;
    let actions = nobody["items"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap());
    assert_eq!(
        actions.collect::<Vec<_>>(),
        ["device.enrol"],
        "who enrols shows a token, and nobody else does anything"
    );
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_an_idempotency_key_is_written_down_in_its_callers_name() {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    let key = [("idempotency-key", "k-1")];
    for _ in 0..2 {
        hub.with_headers((Method::POST, "/runs"), &key, json!({"line": "card-fraud"})).await;
    }
    let runs = hub.get("/audit?action=run.queue").await.1;
    assert_eq!(runs["items"].as_array().unwrap().len(), 1);
    assert!(runs["items"][0]["who"].as_str().unwrap().starts_with("token:"), "{runs:#}");
    hub.stop().await;
}

fn run(arguments: &[&str], hub: Option<&TestHub>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloud-hub"));
    if let Some(hub) = hub {
        command.env("CLOUD_HUB_URL", hub.url()).env("CLOUD_HUB_TOKEN_FILE", hub.token_file());
    }
    command.arg("audit").args(arguments).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_is_listed_exported_and_verified_at_the_terminal_and_a_cut_end_shows() {
    let hub = TestHub::start().await;
    for n in 0..30 {
        hub.ok(Method::PUT, &format!("/devices/edge-{n}"), json!({"group": format!("g{n}")})).await;
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let head = text(&tokio::task::block_in_place(|| run(&["head"], Some(&hub))).stdout).trim().to_owned();
    let (number, _) = head.split_once(':').unwrap();
    let list = ["list", "--action", "device", "--subject", "edge-7"];
    let listed = text(&tokio::task::block_in_place(|| run(&list, Some(&hub))).stdout);
    assert!(listed.contains("device.set") && listed.lines().count() == 2, "{listed}");
    let file = hub.folder.path().join("audit.jsonl");
    let file = file.to_str().unwrap();
    for arguments in [vec!["export", "--output", file], vec!["verify"], vec!["verify", "--head", &head]] {
        let output = tokio::task::block_in_place(|| run(&arguments, Some(&hub)));
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    }
    let wrong = hub.get("/audit/verify?head=x").await;
    assert_eq!(wrong.0, StatusCode::BAD_REQUEST, "{:#}", wrong.1);
    let claim = format!("{number}:{}", "0".repeat(64));
    let rewritten = hub.get(&format!("/audit/verify?head={claim}")).await.1;
    assert_eq!(rewritten["finding"]["kind"], "rewritten", "{rewritten:#}");
    // The catalog itself, while the hub works on it.
    let data = hub.hub.data().to_owned();
    let offline = |extra: &[&str]| {
        let mut arguments = vec!["verify", "--data-dir", data.to_str().unwrap()];
        arguments.extend(extra);
        run(&arguments, None)
    };
    assert!(offline(&["--head", &head]).status.success());
    let _folder = hub.stop().await;
    let exported = run(&["verify", "--file", file, "--head", &head], None);
    assert!(exported.status.success(), "{}", text(&exported.stderr));
    let whole = std::fs::read_to_string(file).unwrap();
    let kept: Vec<&str> = whole.lines().collect();
    for (cut, after, words) in [
        (kept[..kept.len() - 2].join("\n"), "0", "the log ends at entry"),
        (kept[3..].join("\n"), "0", "3 entries are missing, 1 to 3"),
        (kept[3..].join("\n"), "3", ""),
        (whole.replacen("\"g7\"", "\"g8\"", 1), "0", "was changed"),
        (whole.replacen("{\"number\":5", "{\"number\":5,\"x\":1", 1), "0", "entry 5 cannot be read"),
    ] {
        std::fs::write(file, cut).unwrap();
        let output = run(&["verify", "--file", file, "--after", after, "--head", &head], None);
        assert_eq!(output.status.success(), words.is_empty(), "{words}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{words}: {}", text(&output.stderr));
    }
    let missing = run(&["verify", "--data-dir", "/nowhere"], None);
    assert!(!missing.status.success() && text(&missing.stderr).contains("/nowhere/catalog.db"));
    // Somebody cuts the end of the catalog's log: only who remembers can tell.
    let catalog = cloud_hub::catalog::Catalog::open(&data.join("catalog.db")).await.unwrap();
    let mut transaction = catalog.write().await.unwrap();
    sqlx::raw_sql("drop trigger audit_never_removed; delete from audit where number > 20")
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    catalog.close().await;
    assert!(offline(&[]).status.success());
    let output = offline(&["--head", &head]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the log ends at entry 20"), "{}", text(&output.stderr));
}
