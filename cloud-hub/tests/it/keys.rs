//! The keys of the repository, as people handle them: files, folders and the command line.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cloud_hub::publish::ceremony;
use cloud_hub::publish::roles::{self, RoleName};
use cloud_hub::publish::warnings;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_wire::{LineName, Micros};

use crate::support::{TestHub, package};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cloud-hub");

/// A machine is a folder: what runs in it sees its files alone.
struct Machine<'a> {
    folder: &'a Path,
    hub: Option<(String, String)>,
}

impl<'a> Machine<'a> {
    /// One that reaches the hub.
    fn online(folder: &'a Path, hub: &TestHub) -> Self {
        Self { folder, hub: Some((hub.url(), hub.token_file().display().to_string())) }
    }

    /// One that reaches nothing.
    fn offline(folder: &'a Path) -> Self {
        Self { folder, hub: None }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder).env_remove("CLOUD_HUB_CA").env_remove("CLOUD_HUB_TOKEN");
        let nowhere = ("http://127.0.0.1:1".to_owned(), "/none".to_owned());
        let (url, token) = self.hub.as_ref().unwrap_or(&nowhere);
        command.env("CLOUD_HUB_URL", url).env("CLOUD_HUB_TOKEN_FILE", token);
        command
    }

    async fn output(&self, mut command: Command) -> Output {
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// The exit code, and everything that was said.
    async fn tries(&self, line: &str) -> (i32, String) {
        let mut command = self.command(PROGRAM);
        command.args(line.split_whitespace());
        let output = self.output(command).await;
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    async fn does(&self, line: &str) -> String {
        let (code, said) = self.tries(line).await;
        assert_eq!(code, 0, "{line}: {said}");
        said
    }

    async fn refuses(&self, line: &str, expected: i32, words: &str) {
        let (code, said) = self.tries(line).await;
        assert!(code == expected && said.contains(words), "{line}: {code}, expected {expected} and {words:?}: {said}");
    }
}

/// Line, view and one uploaded version that nobody has published.
async fn with_a_version(hub: &TestHub) {
    hub.line(json!({})).await;
    let sent =
        hub.send(Method::POST, "/lines/card-fraud/versions", "application/octet-stream", package("card-fraud", 1));
    assert!(sent.await.status.is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_guide_works() {
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/hub/keys.md")).unwrap();
    let mut scenarios = guide.split("<!-- scenario: ").skip(1).peekable();
    assert!(scenarios.peek().is_some());
    let mut commands = 0;
    for scenario in scenarios {
        let hub = TestHub::without_repository().await;
        with_a_version(&hub).await;
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::online(folder.path(), &hub);
        for block in scenario.split("```sh\n").skip(1) {
            let script = block.split("```").next().unwrap();
            let mut shell = machine.command("sh");
            let programs = Path::new(PROGRAM).parent().unwrap().display().to_string();
            let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
            shell.env("PATH", path).args(["-e", "-c", script]);
            let output = machine.output(shell).await;
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(output.status.success(), "{script}\n{said}");
            commands += script.matches("cloud-hub ").count();
        }
        // Whatever was done to it, the repository holds together, and nothing waits.
        let (_, standing) = hub.get("/signing").await;
        for role in standing["roles"].as_array().unwrap() {
            assert_eq!((&role["standing"], &role["next"]), (&json!("fine"), &json!("")), "{role:#}");
        }
        hub.stop().await;
    }
    assert!(commands >= 40, "{commands}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_make_rotate_and_revoke_and_what_is_not_signed_enough_is_refused() {
    let hub = TestHub::without_repository().await;
    let (near, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (online, custodian) = (Machine::online(near.path(), &hub), Machine::offline(far.path()));
    for name in ["one", "two", "three"] {
        custodian.does(&format!("keys new {name}.key --holder {name}")).await;
        fs::rename(far.path().join(format!("{name}.key.pub")), near.path().join(format!("{name}.key.pub"))).unwrap();
    }
    custodian.refuses("keys new one.key", 1, "never overwritten").await;
    let roots = "--root-key one.key.pub --root-key two.key.pub --root-key three.key.pub";
    online.refuses(&format!("keys init --out a {roots} --threshold 4"), 1, "4 signatures of 3 keys").await;
    let said = online.does(&format!("keys init --out carry {roots} --line card-fraud")).await;
    assert!(said.contains("targets.key") && said.contains("2 more, from"), "{said}");
    let carried = |name: &str| (near.path().join("carry").join(name), far.path().join(name));
    let carry = |name: &str| {
        let (near, far) = carried(name);
        fs::copy(near, far).unwrap();
    };
    carry("1.root.json");
    online.refuses("keys apply carry/1.root.json carry/1.targets.json", 5, "needs 2 of the signatures").await;
    let said = custodian.does("keys sign 1.root.json --key one.key").await;
    assert!(said.contains("root is signed by 2 of") || said.contains("root: is signed by 2 of"), "{said}");
    assert!(said.contains("1 more, from") && said.contains("(two)") && said.contains("(three)"), "{said}");
    custodian.does("keys new stranger.key").await;
    custodian.refuses("keys sign 1.root.json --key stranger.key", 1, "may not sign root").await;
    // Two copies, signed at the same time.
    carry("1.root.json");
    custodian.does("keys sign 1.root.json --key one.key").await;
    fs::rename(far.path().join("1.root.json"), far.path().join("first.json")).unwrap();
    carry("1.root.json");
    custodian.does("keys sign 1.root.json --key three.key").await;
    let said = custodian.does("keys sign 1.root.json --with first.json").await;
    assert!(said.contains("It is complete"), "{said}");
    let signed = fs::read_to_string(far.path().join("1.root.json")).unwrap();
    fs::write(near.path().join("carry/1.root.json"), &signed).unwrap();
    online.does("keys apply carry/1.root.json carry/1.targets.json").await;
    online.refuses("keys apply carry/1.root.json", 5, "version 1, expected 2").await;
    online.refuses("keys init --out again", 2, "repository already").await;

    // Damaged and foreign files.
    let later = signed.replacen("2027-", "2037-", 1).replacen("\"version\":1", "\"version\":2", 1);
    fs::write(far.path().join("forged.json"), later).unwrap();
    let said = custodian.does("keys show forged.json").await;
    assert!(said.contains("signature of key") && said.contains("is wrong"), "{said}");
    fs::write(far.path().join("half.json"), &signed[..signed.len() / 2]).unwrap();
    custodian.refuses("keys show half.json", 1, "half.json: not signed metadata").await;
    custodian.refuses("keys sign 1.root.json --key 1.root.json", 1, "key file 1.root.json").await;
    custodian.refuses("keys sign none.json --key one.key", 1, "could not read none.json").await;
    online.refuses("keys draft root --add root=carry/1.root.json --out b", 1, "expected a file that").await;
    online.refuses("keys draft root --add root --out b", 2, "NAME=VALUE").await;
    online.refuses("keys draft root --file a=b --out b", 2, "--file").await;
    online.refuses("keys draft nodes --line x --out b", 2, "--line").await;
    online.refuses("keys draft unknown --out b", 2, "do not delegate to models/unknown").await;

    online.does("keys draft targets --life 0s --out old").await;
    online.does("keys sign old/2.targets.json --key carry/targets.key").await;
    let said = custodian.tries(&format!("keys show {}/old/2.targets.json", near.path().display())).await.1;
    assert!(said.contains("It has expired") && said.contains("complete"), "{said}");
    online.refuses("keys apply old/2.targets.json", 5, "targets 2 expired at").await;
    online.refuses("keys draft targets --out old", 1, "is there already").await;

    // Another custodian: the old list and the new one have to agree.
    online.does("keys new four.key --holder four").await;
    online.does("keys draft root --add root=four.key.pub --remove root=one --out next").await;
    for name in ["1.root.json", "2.root.json"] {
        fs::copy(near.path().join("next").join(name), far.path().join(name)).unwrap();
    }
    online.does("keys sign next/2.root.json --key four.key").await;
    online.refuses("keys apply next/2.root.json", 5, "root 1 lists and has 0").await;
    let said = custodian.does("keys sign 2.root.json --key two.key").await;
    assert!(said.contains("(four) may sign from now on") && said.contains("(one) may no longer sign"), "{said}");
    custodian.does("keys sign 2.root.json --key three.key").await;
    fs::copy(far.path().join("2.root.json"), near.path().join("two.json")).unwrap();
    online.does("keys apply two.json").await;

    // The targets key leaked: without new targets the root is refused.
    online.does("keys new new.key").await;
    online.does("keys draft root --replace targets=new.key.pub --out leak").await;
    online.does("keys draft targets --replace targets=new.key.pub --out leak").await;
    fs::copy(near.path().join("leak/3.root.json"), far.path().join("3.root.json")).unwrap();
    custodian.does("keys sign 3.root.json --key two.key --key three.key").await;
    fs::copy(far.path().join("3.root.json"), near.path().join("leak/3.root.json")).unwrap();
    online.refuses("keys apply leak/3.root.json", 5, "sign targets anew").await;
    online.refuses("keys sign leak/2.targets.json --key carry/targets.key", 1, "may not sign targets").await;
    online.does("keys sign leak/2.targets.json --key new.key").await;
    online.does("keys apply leak/3.root.json leak/2.targets.json").await;
    online.refuses("keys line returns --keys carry", 1, "is not the targets key that root 3 lists").await;
    let said = online.does("keys status").await;
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    assert!(said.contains("2 of 3") && said.contains("models/card-fraud") && said.contains("four"), "{said}");
    let (_, entries) = hub.get("/audit?action=metadata.apply").await;
    assert_eq!(entries["items"].as_array().unwrap().len(), 5);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_for_sensor_nodes_is_drafted_signed_sent_with_its_content_and_withdrawn() {
    let hub = TestHub::without_repository().await;
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::online(folder.path(), &hub);
    machine.does("keys init --out keys").await;
    fs::write(folder.path().join("press.img"), "image").unwrap();
    machine.does("keys draft nodes --file nodes/press/v3.img=press.img --out one").await;
    machine.refuses("keys draft nodes --file agent/x=press.img --out two", 1, "does not belong").await;
    machine.refuses("keys draft nodes --file nodes/press/v4.img=none --out two", 1, "could not read none").await;
    machine.does("keys sign one/1.nodes.json --key keys/targets.key").await;
    machine.refuses("keys apply one/1.nodes.json", 5, "send that first").await;
    machine.does("keys apply one/1.nodes.json --content press.img").await;
    let hash = tributary_release::digest(b"image");
    let served = hub.send(Method::GET, &format!("/repository/targets/nodes/press/{hash}.v3.img"), "", "").await;
    assert_eq!((served.status, &served.body[..]), (StatusCode::OK, &b"image"[..]));
    let said = machine.does("keys draft nodes --withdraw nodes/press/v3.img --out two").await;
    assert!(said.contains("v3.img: gone"), "{said}");
    machine.does("keys sign two/2.nodes.json --key keys/targets.key").await;
    machine.refuses("keys apply two/2.nodes.json", 5, "no longer names nodes/press/v3.img").await;
    machine.does("keys apply two/2.nodes.json --withdraw").await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tough_reads_and_accepts_what_the_hub_serves() {
    use tough::schema::{Root, Signed, Snapshot, Targets, Timestamp};
    let hub = TestHub::without_repository().await;
    let line = LineName::new("card-fraud").unwrap();
    ceremony::simple(&hub.hub, [7; 32], std::slice::from_ref(&line)).await.unwrap();
    with_a_version(&hub).await;
    hub.ok(Method::POST, "/lines/card-fraud/versions/1/publish", json!({})).await;
    let (_, standing) = hub.get("/signing").await;
    let mut files = Vec::new();
    for role in [
        RoleName::Root,
        RoleName::Targets,
        RoleName::Snapshot,
        RoleName::Timestamp,
        "models/card-fraud".parse().unwrap(),
    ] {
        let rows = standing["roles"].as_array().unwrap();
        let row = rows.iter().find(|row| row["role"] == role.as_str()).unwrap();
        let path = format!("/repository/metadata/{}", role.file_name(row["version"].as_u64().unwrap()));
        let answer = hub.send(Method::GET, &path, "", "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        files.push(answer.body.to_vec());
    }
    let root: Signed<Root> = serde_json::from_slice(&files[0]).unwrap();
    root.signed.verify_role(&root).unwrap();
    let targets: Signed<Targets> = serde_json::from_slice(&files[1]).unwrap();
    root.signed.verify_role(&targets).unwrap();
    root.signed.verify_role(&serde_json::from_slice::<Signed<Snapshot>>(&files[2]).unwrap()).unwrap();
    root.signed.verify_role(&serde_json::from_slice::<Signed<Timestamp>>(&files[3]).unwrap()).unwrap();
    let of_line: Signed<Targets> = serde_json::from_slice(&files[4]).unwrap();
    targets.signed.delegations.unwrap().verify_role(&of_line, "models/card-fraud").unwrap();
    assert_eq!(of_line.signed.targets.len(), 1);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_hear_before_anything_expires_and_no_more_once_it_is_signed_again() {
    let hub = TestHub::without_repository().await;
    let custody = ceremony::simple(&hub.hub, [7; 32], &[]).await.unwrap();
    let alerts = async || {
        let (_, page) = hub.get("/alerts?state=open").await;
        let alert = |alert: &Value| format!("{} {} {}", alert["kind"], alert["subject"], alert["severity"]);
        let mut open: Vec<String> = page["items"].as_array().unwrap().iter().map(alert).collect();
        open.sort();
        open.retain(|alert| alert.contains("metadata-expires"));
        open.iter().map(|alert| alert.replace('"', "")).collect::<Vec<_>>()
    };
    let now = hub.hub.now();
    let in_days = |days: i64| Micros(now.0 + days * Micros::DAY);
    warnings::look(&hub.hub, now).await.unwrap();
    assert!(alerts().await.is_empty());
    // The hub itself signs on; but if it could not, that shows too.
    warnings::look(&hub.hub, in_days(300)).await.unwrap();
    let of_people = async || {
        let mut open = alerts().await;
        open.retain(|alert| alert.contains("root") || alert.contains("targets"));
        open
    };
    assert_eq!(of_people().await, ["metadata-expires root warning", "metadata-expires targets warning"]);
    assert!(alerts().await.contains(&"metadata-expires timestamp critical".to_owned()));
    warnings::look(&hub.hub, in_days(340)).await.unwrap();
    assert_eq!(of_people().await, ["metadata-expires root critical", "metadata-expires targets critical"]);

    let targets = cloud_hub::publish::store::newest(hub.hub.catalog.reader(), "targets").await.unwrap().unwrap();
    let mut next = roles::read_targets(&targets.bytes).unwrap();
    (next.version, next.expires) = (2, in_days(800));
    let next = roles::build_targets(&RoleName::Targets, &next).unwrap();
    let next = roles::sign(&next, std::slice::from_ref(&custody.targets.1)).unwrap();
    let body = json!({"files": [String::from_utf8(next).unwrap()]});
    hub.ok(Method::POST, "/signing/files", body).await;
    warnings::look(&hub.hub, in_days(340)).await.unwrap();
    assert_eq!(of_people().await, ["metadata-expires root critical"]);
    warnings::look(&hub.hub, now).await.unwrap();
    assert!(alerts().await.is_empty());
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_says_what_is_wrong_and_keeps_secrets() {
    let hub = TestHub::without_repository().await;
    assert_eq!(hub.get("/signing").await.1, json!({"roles": []}));
    let refused = async |path: &str, body: Value, words: &str| {
        let (status, problem) = hub.json(Method::POST, path, body).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(status.is_client_error() && detail.contains(words), "{path}: {status} {problem:#}");
    };
    refused("/signing/keys", json!({"role": "root"}), "no keys for \"root\"").await;
    refused("/signing/keys", json!({"role": "models/Bad Name"}), "Bad Name").await;
    refused("/signing/files", json!({"files": []}), "no file").await;
    refused("/signing/files", json!({"files": ["{}"]}), "expected").await;
    let made = hub.ok(Method::POST, "/signing/keys", json!({"role": "models/card-fraud"})).await;
    let again = hub.ok(Method::POST, "/signing/keys", json!({"role": "models/card-fraud"})).await;
    let further = hub.ok(Method::POST, "/signing/keys", json!({"role": "models/card-fraud", "further": true})).await;
    assert_eq!(made, again);
    assert_ne!(made["id"], further["id"]);
    hub.line(json!({})).await;
    let (_, keys) = hub.get("/signing/keys").await;
    let of_line = keys["items"].as_array().unwrap().iter().filter(|key| key["role"] == "models/card-fraud");
    assert_eq!(of_line.count(), 2);
    let secret = fs::read_to_string(hub.hub.data().join("keys/lines/card-fraud.key")).unwrap();
    assert!(!keys.to_string().contains(secret.lines().nth(1).unwrap()));
    let stored = hub.send(Method::POST, "/signing/contents", "application/octet-stream", "image").await;
    let stored: Value = stored.json().unwrap();
    assert_eq!((&stored["length"], &stored["sha256"]), (&json!(5), &json!(tributary_release::digest(b"image"))));
    let empty = hub.send(Method::POST, "/signing/contents", "application/octet-stream", "").await;
    assert_eq!(empty.status, StatusCode::BAD_REQUEST);
    let (_, entries) = hub.get("/audit?action=key.make").await;
    assert_eq!(entries["items"].as_array().unwrap().len(), 2);
    hub.stop().await;
}
