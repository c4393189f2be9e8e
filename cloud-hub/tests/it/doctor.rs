//! A whole hub on a real disk, broken in every way that the doctor knows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cloud_hub::doctor::{Options, examine};
use hyper::Method;
use serde_json::json;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use tempfile::TempDir;
use tributary_fraud::GeneratorConfig;
use tributary_process::checkup::{Finding, Mark, Report, Style, host};
use tributary_process::config::Sources;

use crate::support::{TestHub, package};

/// A hub that has a lake, a release and a repository.
async fn hub() -> TestHub {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    let payments = GeneratorConfig { customers: 20, terminals: 40, days: 3, ..GeneratorConfig::default() };
    hub.payments(payments).await;
    let uploaded =
        hub.send(Method::POST, "/lines/card-fraud/versions", "application/octet-stream", package("card-fraud", 1));
    assert!(uploaded.await.status.is_success());
    hub.ok(Method::POST, "/lines/card-fraud/versions/1/publish", serde_json::Value::Null).await;
    hub
}

fn flags(data: &Path, more: &[&str]) -> Sources {
    let mut flags = vec![
        format!("data_dir={:?}", data.display().to_string()),
        "api.listen=127.0.0.1:0".to_owned(),
        "gateway.tls=127.0.0.1:0".to_owned(),
        "gateway.quic=127.0.0.1:0".to_owned(),
        format!("training.program={:?}", env!("CARGO_BIN_EXE_cloud-hub")),
    ];
    flags.extend(more.iter().map(ToString::to_string));
    Sources { flags, ..Sources::default() }
}

async fn look(data: &Path) -> Report {
    let options = Options { deep: true, patience: crate::support::DEADLINE };
    examine(&flags(data, &[]), options).await
}

fn find<'a>(report: &'a Report, section: &str, check: &str) -> &'a Finding {
    let named = report.findings.iter().filter(|finding| finding.key() == (section, check));
    named.max_by_key(|finding| finding.mark()).unwrap_or_else(|| panic!("{section} {check}: {report:?}"))
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    found
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for (path, bytes) in files(from) {
        let target = to.path().join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(&target, bytes).unwrap();
        fs::set_permissions(&target, fs::metadata(&path).unwrap().permissions()).unwrap();
    }
    to
}

/// The largest file below a folder with this ending: a model is larger than what else is signed.
fn one(folder: PathBuf, ending: &str) -> PathBuf {
    let named = files(&folder).into_iter().filter(|(path, _)| path.to_string_lossy().ends_with(ending));
    named.max_by_key(|(_, bytes)| bytes.len()).unwrap().0
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

/// Overwrites the pages of things of this kind in the catalog.
async fn spoil(data: &Path, query: &'static str) {
    let path = data.join("catalog.db");
    let mut catalog = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let page: i64 = sqlx::query_scalar("pragma page_size").fetch_one(&mut catalog).await.unwrap();
    let root: i64 = sqlx::query_scalar(query).fetch_one(&mut catalog).await.unwrap();
    catalog.close().await.unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = ((root - 1) * page) as usize;
    bytes[at..at + page as usize].fill(0x5a);
    fs::write(&path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_hub_is_well_and_so_is_a_stopped_one_and_a_look_changes_nothing() {
    let hub = hub().await;
    let data = hub.hub.data().to_owned();
    // What `serve` writes down.
    let write = |addresses: serde_json::Value| fs::write(data.join("addresses.json"), addresses.to_string()).unwrap();
    let mqtt = hub.hub.mqtt_addresses();
    let (https, quic, tls) = (hub.hub.https_address(), mqtt.quic.unwrap(), mqtt.tls.unwrap());
    write(json!({"https": https, "mqtt_quic": quic, "mqtt_tls": tls}));
    let report = look(&data).await;
    for door in ["web API", "MQTT over TLS", "MQTT over QUIC"] {
        assert_eq!(find(&report, "Service", door).mark(), Mark::Ok, "{report:?}");
    }
    assert!(find(&report, "Service", "hub").found().starts_with("runs: "));
    assert!(report.is_well() && report.offers().next().is_none(), "{report:?}");
    // Doors at which nobody answers, or somebody who speaks otherwise.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = nobody.local_addr().unwrap();
    write(json!({"https": https, "mqtt_quic": silent, "mqtt_tls": https}));
    let options = Options { deep: false, patience: std::time::Duration::from_secs(1) };
    let report = examine(&flags(&data, &[]), options).await;
    for (door, address) in [("MQTT over TLS", https), ("MQTT over QUIC", silent)] {
        let finding = find(&report, "Service", door);
        assert!(finding.mark() == Mark::Fail && finding.found().contains(&address.to_string()), "{finding:?}");
    }
    write(json!({"https": https}));
    let report = look(&data).await;
    assert!(report.is_well() && !report.findings.iter().any(|it| it.key().1.starts_with("MQTT")), "{report:?}");
    let folder = hub.stop().await;

    let before = files(&data);
    let report = look(&data).await;
    assert!(report.is_well(), "{report:?}");
    assert!(files(&data) == before, "a look must not change a byte");
    for (section, check, words) in [
        ("Catalog", "catalog.db", "whole"),
        ("Catalog", "form", "as this program writes it"),
        ("Catalog", "audit log", "whole"),
        ("Lake", "files", "every record was read"),
        ("Packages", "files", "every one has its hash"),
        ("Repository", "signatures", "1 release named as published"),
        ("Repository", "card-fraud", "this hub signs it"),
        ("Identity", "certificate", "localhost"),
        ("Service", "trainer", "can be started"),
        ("Service", "ports", "free"),
        ("Machine", "clock", "not before"),
    ] {
        let finding = find(&report, section, check);
        assert!(finding.mark() == Mark::Ok && finding.found().contains(words), "{finding:?}");
    }
    let text = report.text(Style::Plain);
    let long = |line: &&str| line.chars().count() > 80 && line.split_whitespace().all(|word| word.len() < 40);
    assert_eq!(text.lines().find(long), None, "{text}");
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_breakage_is_found_by_its_own_check_and_mending_keeps_every_byte() {
    let hub = hub().await;
    let whole = hub.hub.data().to_owned();
    let _folder = hub.stop().await;
    type Break = fn(&Path);
    let breakages: [(&str, Break, &str, &str, Mark, bool); 15] = [
        (
            "catalog gone",
            |d| fs::remove_file(d.join("catalog.db")).unwrap(),
            "Catalog",
            "catalog.db",
            Mark::Fail,
            false,
        ),
        (
            "catalog of nonsense",
            |d| fs::write(d.join("catalog.db"), vec![7; 9000]).unwrap(),
            "Catalog",
            "catalog.db",
            Mark::Fail,
            true,
        ),
        (
            "catalog open",
            |d| host::set_mode(&d.join("catalog.db"), 0o644).unwrap(),
            "Folder",
            "secrets",
            Mark::Fail,
            true,
        ),
        (
            "key open",
            |d| host::set_mode(&d.join("keys/snapshot.key"), 0o640).unwrap(),
            "Folder",
            "secrets",
            Mark::Fail,
            true,
        ),
        (
            "lake file gone",
            |d| fs::remove_file(one(d.join("lake"), ".parquet")).unwrap(),
            "Lake",
            "files",
            Mark::Fail,
            false,
        ),
        (
            "lake file cut",
            |d| fs::write(one(d.join("lake"), ".parquet"), "PAR1").unwrap(),
            "Lake",
            "files",
            Mark::Fail,
            false,
        ),
        ("lake record rotten", |d| flip(&one(d.join("lake"), ".parquet"), 60), "Lake", "files", Mark::Fail, false),
        (
            "lake file too many",
            |d| fs::write(d.join("lake/stray.parquet"), "x").unwrap(),
            "Lake",
            "left over",
            Mark::Warn,
            false,
        ),
        ("package rotten", |d| flip(&one(d.join("packages"), ".tpk"), 2000), "Packages", "files", Mark::Fail, true),
        (
            "package gone",
            |d| fs::remove_file(one(d.join("packages"), ".tpk")).unwrap(),
            "Packages",
            "versions",
            Mark::Fail,
            false,
        ),
        (
            "line key gone",
            |d| fs::remove_file(d.join("keys/lines/card-fraud.key")).unwrap(),
            "Repository",
            "card-fraud",
            Mark::Ok,
            false,
        ),
        (
            "snapshot key gone",
            |d| fs::remove_file(d.join("keys/snapshot.key")).unwrap(),
            "Repository",
            "snapshot",
            Mark::Fail,
            false,
        ),
        (
            "assignment key gone",
            |d| fs::remove_file(d.join("keys/assignment.key")).unwrap(),
            "Repository",
            "keys",
            Mark::Fail,
            false,
        ),
        (
            "authority gone",
            |d| fs::remove_file(d.join("identity/authority.pem")).unwrap(),
            "Identity",
            "authority",
            Mark::Fail,
            false,
        ),
        (
            "certificate of nonsense",
            |d| fs::write(d.join("identity/hub.pem"), "x").unwrap(),
            "Identity",
            "certificate",
            Mark::Warn,
            false,
        ),
    ];
    for (name, breaking, section, check, mark, mends) in breakages {
        let copied = copy(&whole);
        let data = copied.path();
        breaking(data);
        let before = files(data);
        let mut report = look(data).await;
        let finding = find(&report, section, check);
        assert_eq!((finding.mark(), finding.mend().is_some()), (mark, mends), "{name}: {finding:?}");
        assert!(mark < Mark::Fail || !report.is_well(), "{name}");
        assert!(mark == Mark::Ok || mends || finding.advice().is_some(), "{name}: {finding:?}");
        assert!(files(data) == before, "{name}: a look must not change a byte");
        report.mend();
        let after: Vec<Vec<u8>> = files(data).into_values().collect();
        assert!(before.values().all(|bytes| after.contains(bytes)), "{name}: something was lost");
        let report = report.again(look(data).await);
        // Nothing can be read of nonsense, so it stays where it is; a package that was rotten is missing now.
        let mended = mends && name != "catalog of nonsense" && name != "package rotten";
        assert_eq!(report.is_well(), mended || mark < Mark::Fail, "{name}: {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_with_a_broken_index_is_written_anew_and_the_hub_goes_on_with_every_row() {
    let hub = hub().await;
    let data = hub.hub.data().to_owned();
    let count = hub.get("/lake/streams").await.1;
    let audit = hub.get("/audit/head").await.1;
    let folder = hub.stop().await;
    spoil(&data, "select rootpage from sqlite_master where type = 'index' and tbl_name = 'batches' limit 1").await;
    let broken = fs::read(data.join("catalog.db")).unwrap();
    let mut report = look(&data).await;
    assert_eq!(find(&report, "Catalog", "catalog.db").mark(), Mark::Fail, "{report:?}");
    assert!(report.mend() && report.is_well(), "{report:?}");
    let aside = one(data.clone(), "Z");
    assert!(aside.file_name().unwrap().to_string_lossy().starts_with("catalog.db.broken-"), "{}", aside.display());
    assert!(fs::read(&aside).unwrap() == broken);
    assert_eq!(host::standing(&data.join("catalog.db")).unwrap().mode, 0o600);
    assert!(look(&data).await.is_well());

    let hub = TestHub::start_in(folder, |_| {}).await;
    assert_eq!(hub.get("/lake/streams").await.1, count);
    assert!(hub.get("/audit/verify").await.1["whole"].as_bool().unwrap());
    assert!(hub.get("/audit/head").await.1["number"].as_u64() >= audit["number"].as_u64());
    let folder = hub.stop().await;

    // Where a table itself is broken, rows would be missing: then nothing is changed.
    spoil(&data, "select rootpage from sqlite_master where type = 'table' and name = 'lake_files'").await;
    let broken = fs::read(data.join("catalog.db")).unwrap();
    let mut report = look(&data).await;
    assert!(report.mend() && !report.is_well(), "{report:?}");
    assert!(fs::read(data.join("catalog.db")).unwrap() == broken);
    assert!(report.text(Style::Plain).contains("not repaired"), "{report:?}");
    drop(folder);
}

/// Checks whose name stands in the source, and those that a whole hub has.
#[tokio::test(flavor = "multi_thread")]
async fn the_guide_names_every_check() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_to_string(here.join("../deploy/hub/doctor.md")).unwrap();
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(here.join("src/doctor")).unwrap() {
        let source = fs::read_to_string(entry.unwrap().path()).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap();
        let places = code.split("SECTION,").skip(1).chain(code.split("\"Machine\",").skip(1));
        let literals = places.filter_map(|rest| rest.trim_start().strip_prefix('"'));
        names.extend(literals.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    assert!(names.len() > 30, "{names:?}");
    let hub = hub().await;
    let data = hub.hub.data().to_owned();
    let _folder = hub.stop().await;
    let report = look(&data).await;
    // Roles have names of their own.
    let fixed = report.findings.iter().map(Finding::key).filter(|(section, _)| *section != "Repository");
    names.extend(fixed.map(|(_, check)| check.to_owned()));
    let missing: Vec<_> = names.iter().filter(|name| *name != "all" && !guide.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "deploy/hub/doctor.md does not speak of {missing:?}");
}
