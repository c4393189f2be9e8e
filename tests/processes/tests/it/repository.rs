//! Rules of the house, kept by a machine: what each crate may depend on, and that the architecture page is true.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names in the `[dependencies]` table of every member, by member path.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let names = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned();
    let of = |member: &str| {
        let manifest = read(&format!("{member}/Cargo.toml"));
        let table = manifest.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
        let table = table.take_while(|line| !line.starts_with('['));
        table.filter(|line| !line.trim().is_empty() && !line.starts_with('#')).map(names).collect()
    };
    let manifest = read("Cargo.toml");
    let members = manifest.lines().skip_while(|line| !line.starts_with("members")).skip(1);
    let members = members.take_while(|line| !line.starts_with(']'));
    members
        .map(|line| line.trim().trim_matches(['"', ','].as_slice()).to_owned())
        .map(|m| (m.clone(), of(&m)))
        .collect()
}

#[test]
fn a_core_decides_and_does_no_io() {
    let forbidden = [
        "tokio",
        "tokio-util",
        "axum",
        "hyper",
        "hyper-util",
        "redb",
        "sled",
        "rumqttc",
        "rumqttd",
        "sqlx",
        "tributary-process",
    ];
    let pure = [
        "shared/wire",
        "shared/signal",
        "shared/features",
        "shared/stats",
        "shared/release",
        "edge-agent/core",
        "cloud-hub/core",
    ];
    let dependencies = dependencies();
    for member in pure {
        let found: Vec<_> = dependencies[member].iter().filter(|name| forbidden.contains(&name.as_str())).collect();
        assert!(found.is_empty(), "{member} must do no I/O but depends on {found:?}");
    }
}

#[test]
fn a_core_reads_no_clock_and_opens_no_file() {
    let calls = ["SystemTime::now", "Instant::now", "std::fs", "std::net", "std::thread", "std::env"];
    for member in
        ["shared/wire", "shared/signal", "shared/features", "shared/stats", "edge-agent/core", "cloud-hub/core"]
    {
        for path in sources(&root().join(member).join("src")) {
            if path.components().any(|part| part.as_os_str() == "tests") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for call in calls {
                assert!(!code.contains(call), "{} names {call}", path.display());
            }
        }
    }
}

#[test]
fn edge_and_hub_meet_only_in_shared_the_demo_and_tests() {
    for (member, names) in dependencies() {
        let (edge, hub) = (member.starts_with("edge-agent"), member.starts_with("cloud-hub"));
        let shared = member.starts_with("shared");
        for name in names {
            assert!(!((edge || shared) && name.starts_with("cloud-hub")), "{member} depends on {name}");
            assert!(!((hub || shared) && name.starts_with("edge-agent")), "{member} depends on {name}");
            assert!(!(shared && name.starts_with("tributary-fraud")), "{member} depends on {name}");
        }
    }
}

#[test]
fn every_path_on_the_architecture_page_exists() {
    let page = read("ARCHITECTURE.md");
    let quoted = page.split('`').skip(1).step_by(2);
    let starts = ["shared/", "edge-agent/", "cloud-hub/", "deploy/", "tests/", ".ci/"];
    let paths: Vec<_> = quoted.filter(|text| starts.iter().any(|start| text.starts_with(start))).collect();
    assert!(paths.len() > 20, "the page names only {} paths", paths.len());
    let missing: Vec<_> = paths.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names paths that are not there: {missing:?}");
}

#[test]
fn every_member_takes_its_versions_from_the_workspace() {
    for member in dependencies().keys() {
        let manifest = read(&format!("{member}/Cargo.toml"));
        let own = manifest.lines().find(|line| line.contains("version = \"") && !line.contains("workspace"));
        assert_eq!(own, None, "{member} pins a version of its own");
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
