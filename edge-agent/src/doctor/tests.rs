//! A whole device on a real disk, broken in every way that the doctor knows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use edge_agent_core::updater::Record;
use tempfile::TempDir;
use tributary_identity::Ports;
use tributary_process::checkup::{Mark, Report, host};
use tributary_wire::{Generation, ReleaseRef, Role};

use super::*;
use crate::identity::tests::hub::authority;
use crate::state::tests::{batch, rows, stamp};
use crate::state::{Commit, Store, StoreOptions};
use crate::testing;
use crate::update::stored::put_record;
use crate::update::tests::{PROBATION, device_id, package, release};

struct Device {
    folder: TempDir,
    committed: ReleaseRef,
    previous: ReleaseRef,
}

impl Device {
    /// Enrolled, with two packages, a snapshot of windows and records that wait.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        fs::create_dir_all(state.join("packages")).unwrap();
        host::set_mode(&state, 0o750).unwrap();
        crate::identity::tests::identity(
            &state,
            &authority(),
            &device_id(),
            Ports { host: None, https: 1, tls: Some(1), quic: Some(1) },
        );
        let [previous, committed] = [1, 2].map(|version| {
            let file = package(version, PROBATION);
            let release = release(version, &file);
            fs::write(state.join(format!("packages/{}.tpk", release.sha256)), file).unwrap();
            release
        });
        let options = StoreOptions { wall: Micros(wall_now()), ..StoreOptions::default() };
        let store = Store::open(&state.join("state.redb"), options).unwrap();
        let accepted = rows(1, 100);
        let commit = Commit {
            accepted: &accepted,
            batches: batch(&accepted[..90]),
            batched_through: Some(90),
            ..Commit::default()
        };
        let now = tributary_wire::Stamp { wall: Micros(wall_now()), ..stamp() };
        store.commit(&commit, now).unwrap();
        let record =
            Record { committed: Some(committed.clone()), previous: Some(previous.clone()), ..Record::default() };
        put_record(&store, &(testing::line(), Role::primary()), record).unwrap();
        fs::write(folder.path().join("view.toml"), testing::VIEW).unwrap();
        let device = Self { folder, committed, previous };
        device.settings("");
        device
    }

    fn settings(&self, more: &str) {
        let folder = self.folder.path().display();
        let text = format!(
            "device = 'edge-1'\nlines = ['fraud']\nstate_dir = '{folder}/state'\nview = '{folder}/view.toml'\n{more}"
        );
        fs::write(self.folder.path().join("agent.toml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("state").join(name)
    }

    fn package(&self, release: &ReleaseRef) -> PathBuf {
        self.path(&format!("packages/{}.tpk", release.sha256))
    }

    fn look(&self) -> Report {
        self.look_with(Options { offline: true, ..Options::default() })
    }

    fn look_with(&self, options: Options) -> Report {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let file = Some(self.folder.path().join("agent.toml"));
        runtime.block_on(examine(&Sources { file, ..Sources::default() }, options))
    }

    /// Every file below the folder.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(self.folder.path(), &mut found);
        found
    }
}

fn collect(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, found),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

fn find<'a>(report: &'a Report, section: &str, check: &str) -> Option<&'a Finding> {
    // The worst of those that have the name.
    let named = report.findings.iter().filter(|finding| finding.key() == (section, check));
    named.max_by_key(|finding| finding.mark())
}

#[test]
fn a_whole_device_is_well_and_a_look_changes_nothing() {
    let device = Device::new();
    let before = device.files();
    let report = device.look();
    let bad: Vec<_> = report.findings.iter().filter(|finding| finding.mark() >= Mark::Warn).collect();
    // A freshly issued test root is all that it believes; nothing was fetched yet.
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!(report.subject, "edge-1");
    for (section, check, words) in [
        ("State", "state.redb", "99 events accepted"),
        ("State", "outbox", "the oldest for"),
        ("Packages", "fraud primary", "golden cases hold"),
        ("Trust", "root", "version 1"),
        ("Hub", "certificate", "good for 89 days"),
        ("Folder", "secrets", "0600"),
    ] {
        let finding = find(&report, section, check).unwrap_or_else(|| panic!("{check} in {report:?}"));
        assert!(finding.found().contains(words), "{finding:?}");
    }
    assert!(report.offers().next().is_none());
    assert!(device.files() == before, "a look must not change a byte");
    let text = report.text(tributary_process::checkup::Style::Plain);
    assert!(
        text.lines()
            .filter(|line| line.split_whitespace().all(|word| word.len() < 50))
            .all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

#[test]
fn every_breakage_is_found_by_its_own_check_and_mending_keeps_every_byte() {
    type Break = fn(&Device);
    let breakages: [(&str, Break, &str, &str, Mark, bool); 22] = [
        (
            "state cut",
            |d| fs::File::options().write(true).open(d.path("state.redb")).unwrap().set_len(9000).unwrap(),
            "State",
            "state.redb",
            Mark::Fail,
            true,
        ),
        ("state emptied", |d| fs::write(d.path("state.redb"), "").unwrap(), "State", "state.redb", Mark::Fail, true),
        (
            "state overwritten",
            |d| fs::write(d.path("state.redb"), vec![7; 100_000]).unwrap(),
            "State",
            "state.redb",
            Mark::Fail,
            true,
        ),
        ("state gone", |d| fs::remove_file(d.path("state.redb")).unwrap(), "State", "state.redb", Mark::Warn, false),
        (
            "snapshot without a stamp",
            |d| crate::windows::broken(&d.path("windows")),
            "State",
            "window snapshot",
            Mark::Warn,
            true,
        ),
        ("package rotten", |d| flip(&d.package(&d.committed), 2000), "Packages", "fraud primary", Mark::Fail, true),
        (
            "previous package rotten",
            |d| flip(&d.package(&d.previous), 2000),
            "Packages",
            "fraud primary",
            Mark::Warn,
            true,
        ),
        (
            "package gone",
            |d| fs::remove_file(d.package(&d.committed)).unwrap(),
            "Packages",
            "fraud primary",
            Mark::Fail,
            false,
        ),
        (
            "stranger's package",
            |d| fs::write(d.path(&format!("packages/{}.tpk", "ab".repeat(32))), "x").unwrap(),
            "Packages",
            "files",
            Mark::Warn,
            true,
        ),
        (
            "key exposed",
            |d| host::set_mode(&d.path("identity/1/key.pem"), 0o644).unwrap(),
            "Folder",
            "secrets",
            Mark::Fail,
            true,
        ),
        (
            "identity folder open",
            |d| host::set_mode(&d.path("identity"), 0o755).unwrap(),
            "Folder",
            "identity folder",
            Mark::Warn,
            true,
        ),
        (
            "state folder open",
            |d| host::set_mode(&d.path(""), 0o777).unwrap(),
            "Folder",
            "state folder",
            Mark::Fail,
            true,
        ),
        (
            "certificate of nonsense",
            |d| fs::write(d.path("identity/1/certificate.pem"), "x").unwrap(),
            "Hub",
            "certificate",
            Mark::Fail,
            false,
        ),
        ("identity gone", |d| fs::remove_dir_all(d.path("identity")).unwrap(), "Hub", "certificate", Mark::Warn, false),
        (
            "clock behind",
            |d| fs::write(d.path("identity/floor"), (wall_now() + Micros::DAY).to_string()).unwrap(),
            "Machine",
            "clock",
            Mark::Fail,
            false,
        ),
        (
            "certificate expired",
            |d| fs::write(d.path("identity/floor"), (wall_now() + 100 * Micros::DAY).to_string()).unwrap(),
            "Hub",
            "certificate",
            Mark::Fail,
            false,
        ),
        (
            "root of nonsense",
            |d| fs::write(d.path("identity/1/root.json"), "{}").unwrap(),
            "Trust",
            "root",
            Mark::Fail,
            false,
        ),
        (
            "view of nonsense",
            |d| fs::write(d.folder.path().join("view.toml"), "x = 1").unwrap(),
            "Settings",
            "feature view",
            Mark::Fail,
            false,
        ),
        ("unknown key", |d| d.settings("devise = 'x'"), "Settings", "settings", Mark::Fail, false),
        (
            "line gone",
            |d| d.settings("[[sources.serial]]\nport = '/dev/no-such-line'\nnode = 'pump'"),
            "Sources",
            "node pump",
            Mark::Fail,
            false,
        ),
        ("outbox full", |d| d.settings("[outbox]\nbudget = '1 KiB'"), "State", "outbox", Mark::Fail, false),
        ("disk too small", |d| d.settings("[state]\npackages = '900000 GiB'"), "Machine", "disk", Mark::Warn, false),
    ];
    for (name, breaking, section, check, mark, mends) in breakages {
        let device = Device::new();
        breaking(&device);
        let before = device.files();
        let mut report = device.look();
        let finding = find(&report, section, check).unwrap_or_else(|| panic!("{name}: {report:?}"));
        assert_eq!((finding.mark(), finding.mend().is_some()), (mark, mends), "{name}: {finding:?}");
        assert!(mark < Mark::Fail || !report.is_well(), "{name}");
        assert!(mends || finding.advice().is_some(), "{name}: {finding:?}");
        assert!(device.files() == before, "{name}: a look must not change a byte");
        report.mend();
        let after: Vec<Vec<u8>> = device.files().into_values().collect();
        assert!(before.values().all(|bytes| after.contains(bytes)), "{name}: something was lost");
        if mends {
            let again = device.look();
            let left = find(&again, section, check).map_or(Mark::Ok, Finding::mark);
            let refetched = name.contains("package rotten");
            assert!(left < mark || refetched, "{name}: {again:?}");
            if name.starts_with("state ") && section == "State" {
                assert!(find(&again, "State", "set aside").is_some(), "{name}");
            }
        }
    }
}

#[test]
fn what_a_doctor_set_aside_a_start_begins_anew_in_another_life() {
    let device = Device::new();
    let options =
        |second: i64| StoreOptions { wall: Micros(wall_now() + second * 1_000_000), ..StoreOptions::default() };
    let first = Store::open(&device.path("state.redb"), options(0)).unwrap().incarnation();
    flip(&device.path("state.redb"), 1);
    let broken = fs::read(device.path("state.redb")).unwrap();
    // However often a supervisor starts it again, nothing is emptied.
    for _ in 0..3 {
        assert!(Store::open(&device.path("state.redb"), options(0)).is_err_and(|error| error.is_broken()));
        assert!(fs::read(device.path("state.redb")).unwrap() == broken);
    }
    assert!(device.look().mend());
    let second = Store::open(&device.path("state.redb"), options(60)).unwrap();
    assert!(second.incarnation() > first);
    assert_eq!(second.load().unwrap().next, 1);
}

#[test]
fn a_stored_assignment_that_cannot_be_read_is_told() {
    let device = Device::new();
    let store = Store::open(&device.path("state.redb"), StoreOptions::default()).unwrap();
    crate::update::stored::put_assignment(&store, b"rotten", Generation(7)).unwrap();
    drop(store);
    let told = |expected: &str| {
        let report = device.look();
        let finding = find(&report, "Trust", "assignment").unwrap();
        assert!(finding.mark() == Mark::Warn && finding.found().contains(expected), "{finding:?}");
    };
    told("cannot be read");
    let store = Store::open(&device.path("state.redb"), StoreOptions::default()).unwrap();
    store.blob_delete("update/assignment").unwrap();
    drop(store);
    told("it is gone");
}

#[test]
fn a_state_that_somebody_has_open_is_neither_read_nor_given_up() {
    let device = Device::new();
    let store = Store::open(&device.path("state.redb"), StoreOptions::default()).unwrap();
    let report = device.look();
    // Nobody answers at the local API: the state is held by something that says nothing.
    assert_eq!(find(&report, "State", "agent").unwrap().mark(), Mark::Fail);
    assert_eq!(find(&report, "State", "state.redb").unwrap().mark(), Mark::Skipped);
    drop(store);
    // Begun after the look, before the mend.
    flip(&device.path("state.redb"), 1);
    let mut report = device.look();
    let host::Locked::Free(_lock) = host::take_lock(&device.path("state.redb")).unwrap() else { panic!() };
    report.mend();
    assert!(!report.is_well() && device.path("state.redb").exists());
}

#[test]
fn a_hub_that_is_away_is_told_for_every_way_there() {
    let device = Device::new();
    let report = device.look_with(Options { patience: Duration::from_secs(2), offline: false });
    for check in ["https", "tls", "quic"] {
        let finding = find(&report, "Hub", check).unwrap();
        assert!(finding.mark() == Mark::Fail && finding.found().contains("127.0.0.1:1"), "{finding:?}");
        assert!(finding.advice().is_some_and(|advice| advice.contains("firewall")), "{finding:?}");
    }
}

/// Checks whose name stands in the source, and those that a whole device has.
#[test]
fn the_guide_names_every_check() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_to_string(here.join("../deploy/device/doctor.md")).unwrap();
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(here.join("src/doctor")).unwrap() {
        let source = fs::read_to_string(entry.unwrap().path()).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap();
        let literals = code.split("SECTION,").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
        names.extend(literals.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    assert!(names.len() > 40, "{names:?}");
    let report = Device::new().look();
    names.extend(report.findings.iter().map(|finding| finding.key().1.replace("fraud primary", "LINE ROLE")));
    let missing: Vec<_> = names.iter().filter(|name| !guide.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "deploy/device/doctor.md does not speak of {missing:?}");
}
