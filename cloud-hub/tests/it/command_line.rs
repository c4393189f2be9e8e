//! The program as an operator types it.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{TestHub, package};

fn run(hub: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloud-hub"));
    for variable in ["CLOUD_HUB_CA", "CLOUD_HUB_TOKEN", "CLOUD_HUB_TOKEN_FILE"] {
        command.env_remove(variable);
    }
    command.env("CLOUD_HUB_URL", hub).args(arguments);
    command.output().unwrap()
}

/// Runs an operator's command; exit code, standard output and standard error.
pub async fn operator(hub: &TestHub, arguments: &[&str]) -> (i32, String, String) {
    let (url, token) = (hub.url(), hub.token_file().display().to_string());
    let arguments = ["--token-file", &token].iter().chain(arguments).map(ToString::to_string).collect::<Vec<_>>();
    let output = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&url, &arguments)
    });
    let output = output.await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_work_through_the_web_api_and_exit_codes_tell_what_happened() {
    let hub = TestHub::start().await;
    let view = hub.folder.path().join("view.toml");
    std::fs::write(&view, tributary_fraud::VIEW_TOML).unwrap();
    let file = hub.folder.path().join("package.tpk");
    std::fs::write(&file, package("card-fraud", 1)).unwrap();
    let (view, file) = (view.to_str().unwrap(), file.to_str().unwrap());

    let (code, out, error) = operator(&hub, &["view", "add", view]).await;
    assert_eq!((code, out.as_str()), (0, "feature view card-risk version 1\n"), "{error}");
    assert_eq!(operator(&hub, &["line", "set", "card-fraud", "--view", "card-risk"]).await.0, 0);
    assert_eq!(operator(&hub, &["model", "upload", "card-fraud", file]).await.0, 0);
    assert_eq!(operator(&hub, &["model", "alias", "card-fraud", "champion", "1"]).await.0, 0);
    assert_eq!(operator(&hub, &["model", "publish", "card-fraud", "1"]).await.0, 0);
    assert_eq!(operator(&hub, &["device", "set", "edge-1", "--label", "site=lyon"]).await.0, 0);
    let (code, out, _) = operator(&hub, &["--json", "model", "list", "card-fraud"]).await;
    let versions: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &versions[0]["aliases"]), (0, &json!(["candidate", "champion"])));
    for arguments in [
        vec!["model", "list", "card-fraud"],
        vec!["device", "list"],
        vec!["line", "list"],
        vec!["model", "history", "card-fraud"],
        vec!["lake", "streams"],
        vec!["train", "list"],
        vec!["rollout", "list"],
        vec!["alert", "list"],
        vec!["quarantine", "list"],
        vec!["dataset", "list"],
    ] {
        let (code, out, error) = operator(&hub, &arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {error}");
        assert!(out.lines().all(|line| line.chars().count() <= 80), "{arguments:?}:\n{out}");
    }
    let (_, story, _) = operator(&hub, &["line", "story", "card-fraud"]).await;
    assert!(story.contains("alias champion points to version 1"), "{story}");

    let (code, _, error) = operator(&hub, &["device", "show", "edge-9"]).await;
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("there is no device edge-9"), "{error}");
    let (code, _, error) = operator(&hub, &["model", "upload", "card-fraud", view]).await;
    assert_eq!(code, 5, "{error}");
    assert!(error.contains("the package is refused"), "{error}");
    assert_eq!(operator(&hub, &["device", "show"]).await.0, 2);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_let_devices_in_and_put_them_out() {
    let hub = TestHub::start().await;
    let create = ["token", "create", "--group", "canary", "--label", "site=lyon", "--uses", "2", "--expires", "7d"];
    let (code, out, error) = operator(&hub, &create).await;
    // A script takes what stands alone on standard output.
    let token: tributary_identity::EnrolmentToken = out.trim().parse().unwrap();
    assert_eq!((code, out.lines().count()), (0, 1), "{error}");
    assert!(error.contains("2 devices and 7d") && !error.contains("tributary-enrol"), "{error}");
    let (code, list, _) = operator(&hub, &["token", "list"]).await;
    assert_eq!(code, 0);
    assert!(list.contains(token.id()) && list.contains("usable") && list.contains("canary"), "{list}");
    assert_eq!(operator(&hub, &["token", "revoke", token.id()]).await.0, 0);
    assert!(operator(&hub, &["token", "list"]).await.1.contains("revoked"));
    assert_eq!(operator(&hub, &["token", "revoke", "none"]).await.0, 4);
    assert_eq!(operator(&hub, &["token", "create", "--uses", "0"]).await.0, 5);
    assert_eq!(operator(&hub, &["token", "create", "--expires", "soon"]).await.0, 2);
    assert_eq!(operator(&hub, &["token", "create", "--label", "lyon"]).await.0, 2);

    assert_eq!(operator(&hub, &["device", "set", "edge-1"]).await.0, 0);
    let (code, _, error) = operator(&hub, &["device", "revoke", "edge-1", "--reason", "stolen"]).await;
    assert_eq!(code, 5, "{error}");
    assert!(error.contains("has no certificate"), "{error}");
    hub.enrol("edge-1").await;
    let (_, list, _) = operator(&hub, &["device", "certificates", "edge-1"]).await;
    assert!(list.contains("valid") && list.contains("enrolled"), "{list}");
    assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
    let (code, out, error) = operator(&hub, &["device", "revoke", "edge-1", "--reason", "stolen"]).await;
    assert_eq!((code, out.as_str()), (0, "revoked 1 certificate of device edge-1\n"), "{error}");
    assert!(operator(&hub, &["device", "certificates", "edge-1"]).await.1.contains("revoked"));
    let (code, out, error) = operator(&hub, &["device", "allow-enrolment", "edge-1", "--expires", "2h"]).await;
    assert_eq!((code, out.as_str()), (0, "device edge-1 may enrol once more within 2h, with a token\n"), "{error}");
    assert_eq!(operator(&hub, &["device", "allow-enrolment", "edge-9"]).await.0, 4);
    hub.stop().await;
}

#[test]
fn a_hub_that_is_not_there_is_another_exit_code() {
    let output = run("http://127.0.0.1:1", &["device", "list"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("could not reach http://127.0.0.1:1"));
    assert_eq!(run("not an address", &["device", "list"]).status.code(), Some(2));
}

#[test]
fn settings_are_shown_and_unknown_ones_refused() {
    let output = run("", &["config", "show", "--set", "training.attempts=7"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("attempts = 7"), "{output:?}");
    let output = run("", &["config", "show", "--set", "training.atempts=7"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("atempts"));
}

#[test]
fn settings_are_printed_as_toml_or_json_and_a_reader_that_leaves_causes_no_panic() {
    let out = run("", &["config", "--set", "ingest.window=7"]);
    assert!(String::from_utf8(out.stdout).unwrap().contains("window = 7\n"));
    let out = run("", &["--json", "config", "show"]);
    let settings: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(settings["identity"]["device_lifetime"], "90d");
    let out = run("", &["config", "--set", "mqtt.listen=127.0.0.1:0"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8(out.stderr).unwrap().contains("unknown field `mqtt`"));

    let mut program = Command::new(env!("CARGO_BIN_EXE_cloud-hub"));
    let program = program.args(["config", "openapi"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = program.spawn().unwrap();
    // The description is longer than a pipe holds.
    drop(program.stdout.take());
    let out = program.wait_with_output().unwrap();
    assert_eq!((out.status.code(), String::from_utf8(out.stderr).unwrap().as_str()), (Some(141), ""));
}

/// A hub as a process of its own, killed at the end.
struct Served {
    process: std::process::Child,
    data: std::path::PathBuf,
    log: std::path::PathBuf,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Served {
    fn start(folder: &std::path::Path) -> Self {
        let (data, log) = (folder.join("hub"), folder.join("log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloud-hub"));
        command.args(["serve", "--set", "log.filter=trace", "--set", &format!("data_dir={}", data.display())]);
        for listener in ["api.listen", "gateway.tls", "gateway.quic"] {
            command.args(["--set", &format!("{listener}=127.0.0.1:0")]);
        }
        let output = std::fs::File::create(&log).unwrap();
        let process = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        Self { process, data, log }
    }

    fn url(&self) -> String {
        let start = std::time::Instant::now();
        loop {
            let addresses = std::fs::read(self.data.join("addresses.json")).unwrap_or_default();
            if let Ok(addresses) = serde_json::from_slice::<Value>(&addresses) {
                assert_eq!(addresses["http"], Value::Null, "nothing is served without encryption unless asked for");
                return format!("https://{}", addresses["https"].as_str().unwrap());
            }
            assert!(start.elapsed() < crate::support::DEADLINE, "{:?}", std::fs::read_to_string(&self.log));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn over_https_the_program_needs_to_know_whom_to_trust_and_shows_a_token_that_stays_out_of_logs() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let url = served.url();
    let say = |arguments: &[&str]| {
        let output = run(&url, arguments);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, _, error) = say(&["device", "list"]);
    assert!(code == 2 && error.contains("--ca FILE") && error.contains("identity/authority.pem"), "{code} {error}");
    let ca = served.data.join("identity/authority.pem").display().to_string();
    let (code, _, error) = say(&["--ca", &ca, "device", "list"]);
    assert!(code == 5 && error.contains("--token-file") && error.contains("keys/admin.token"), "{code} {error}");
    let file = served.data.join("keys/admin.token");
    let admin = |rest: &[&str]| say(&[&["--ca", &ca, "--token-file", file.to_str().unwrap()], rest].concat());
    assert_eq!(admin(&["device", "list"]).0, 0);
    let (code, made, error) = admin(&["access", "create", "grafana", "--expires", "30d"]);
    assert!(code == 0 && made.starts_with("tributary-api.") && made.lines().count() == 1, "{code} {made} {error}");
    let viewer = folder.path().join("viewer.token");
    std::fs::write(&viewer, &made).unwrap();
    let looks = |rest: &[&str]| say(&[&["--ca", &ca, "--token-file", viewer.to_str().unwrap()], rest].concat());
    let (code, who, _) = looks(&["access", "whoami"]);
    assert!(code == 0 && who.contains("grafana") && who.contains("viewer"), "{who}");
    let (code, _, error) = looks(&["device", "set", "edge-1"]);
    assert!(code == 5 && error.contains("needs the role operator"), "{code} {error}");
    let id = made.split('.').nth(1).unwrap();
    let (code, list, _) = admin(&["access", "list"]);
    assert!(code == 0 && list.contains(id) && list.contains("grafana"), "{list}");
    assert_eq!(admin(&["access", "revoke", id]).0, 0);
    let (code, _, error) = looks(&["device", "list"]);
    assert!(code == 5 && error.contains("was revoked"), "{code} {error}");
    let (code, _, error) = admin(&["access", "create", "x", "--expires", "soon"]);
    assert!(code == 5 && error.contains("soon"), "{code} {error}");
    let wrong = folder.path().join("wrong.pem");
    std::fs::write(&wrong, "no certificate").unwrap();
    let (code, _, error) = say(&["--ca", wrong.to_str().unwrap(), "device", "list"]);
    assert!(code == 2 && error.contains("wrong.pem"), "{code} {error}");
    // Whom the hub's certificate does not satisfy, it does not reach.
    let other = tempfile::tempdir().unwrap();
    let stranger = Served::start(other.path());
    stranger.url();
    let ca = stranger.data.join("identity/authority.pem").display().to_string();
    let (code, _, error) = say(&["--ca", &ca, "device", "list"]);
    assert_eq!(code, 3, "{error}");

    let log = std::fs::read_to_string(&served.log).unwrap();
    assert!(log.contains("access.create") || log.contains("answered"), "{log}");
    for token in [made.trim(), std::fs::read_to_string(&file).unwrap().trim()] {
        assert!(!log.contains(token.rsplit('.').next().unwrap()), "a secret is in the log");
    }
    assert_eq!(
        run("http://192.0.2.1:80", &["--token-file", file.to_str().unwrap(), "device", "list"]).status.code(),
        Some(2)
    );
}
