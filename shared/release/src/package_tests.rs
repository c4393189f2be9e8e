use super::*;
use crate::archive;
use crate::{
    DecisionRule, GraphEntry, Lineage, MANIFEST_FORMAT, OutputBounds, Precision, Probation, Requirements, ViewRef,
};
use tributary_wire::{LineName, Micros, VersionNumber};

const VIEW_TOML: &str = r#"
name = "card"
version = 2
[[value]]
name = "amount"
kind = "double"
[[feature]]
name = "amount"
kind = "value"
value = "amount"
[[feature]]
name = "weekend"
kind = "weekend"
"#;

fn package() -> Package {
    let values: Vec<f32> = (0..40).map(|i| i as f32).collect();
    let reference = ["amount", "weekend", OUTPUT_REFERENCE].map(|name| Reference::build(name, &values, &[], 4));
    Package {
        manifest: Manifest {
            format: MANIFEST_FORMAT,
            line: LineName::new("card-fraud").unwrap(),
            version: VersionNumber(3),
            created: Micros(1_700_000_000_000_000),
            serve: "int8".to_owned(),
            graphs: vec![entry("int8", Precision::Int8), entry("f32", Precision::F32)],
            features: vec!["amount".to_owned(), "weekend".to_owned()],
            view: ViewRef { name: "card".to_owned(), version: 2 },
            decision: DecisionRule { threshold: 0.5, margin: 0.01 },
            tolerance: 0.01,
            output: OutputBounds { low: 0.0, high: 1.0 },
            probation: Probation {
                min_predictions: 100,
                max_error_share: 0.01,
                max_latency_p99_us: 50_000,
                output_mean_low: 0.0,
                output_mean_high: 0.5,
                timeout_s: 600,
            },
            requires: Requirements {
                agent: "0.1.0".to_owned(),
                operators: vec!["Gemm".to_owned()],
                memory_bytes: 1 << 20,
                ..Requirements::default()
            },
            lineage: Lineage { dataset: "d".to_owned(), run: "r".to_owned(), seed: 7 },
            quantization: None,
            members: BTreeMap::new(),
        },
        graphs: vec![
            Graph { name: "int8".to_owned(), onnx: b"eight bits".to_vec() },
            Graph { name: "f32".to_owned(), onnx: (0..700u32).map(|i| i as u8).collect() },
        ],
        view_toml: VIEW_TOML.to_owned(),
        reference: reference.to_vec(),
        golden: vec![
            GoldenCase { features: vec![1.0, 0.0], output: 0.25, decision: false },
            GoldenCase { features: vec![90.0, 1.0], output: 0.75, decision: true },
        ],
    }
}

fn entry(name: &str, precision: Precision) -> GraphEntry {
    GraphEntry { name: name.to_owned(), precision, metrics: BTreeMap::from([("auc".to_owned(), 0.875)]) }
}

/// The file with its members changed, laid out properly and with matching hashes.
fn rewritten(change: impl Fn(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let file = package().write().unwrap();
    let members = archive::read(&file, LIMITS).unwrap();
    let mut members: Vec<_> = members.into_iter().map(|(name, content)| (name, content.to_vec())).collect();
    change(&mut members);
    let borrowed: Vec<_> = members.iter().map(|(name, content)| (name.clone(), &content[..])).collect();
    let mut file = Vec::new();
    archive::write(&borrowed, &mut file).unwrap();
    file
}

/// Replaces the manifest in the file, with its digest.
fn with_manifest(change: impl Fn(&str) -> String) -> Vec<u8> {
    rewritten(|members| {
        let manifest = change(std::str::from_utf8(&members[0].1).unwrap()).into_bytes();
        members[1].1 = digest_line(&manifest).into_bytes();
        members[0].1 = manifest;
    })
}

#[test]
fn a_package_comes_back_whole_and_is_written_to_the_same_bytes() {
    let file = package().write().unwrap();
    let read = Package::read(&file).unwrap();
    assert_eq!(read.manifest.members.len(), 5);
    assert_eq!(read.served().onnx, b"eight bits");
    assert_eq!(read.view().unwrap().feature_names(), read.manifest.features);
    assert_eq!(read.write().unwrap(), file);
    let without_members = Manifest { members: BTreeMap::new(), ..read.manifest.clone() };
    assert_eq!(Package { manifest: without_members, ..read }, package());
}

#[test]
fn every_changed_byte_of_a_package_is_noticed() {
    let file = package().write().unwrap();
    assert!(file.len() > 8_000, "{}", file.len());
    let mut changed = file.clone();
    for place in 0..file.len() {
        // Two different changes per byte, one of them a single bit that moves along.
        for flip in [1 << (place % 8), 0xff] {
            changed[place] ^= flip;
            assert!(Package::read(&changed).is_err(), "byte {place} changed by {flip:02x} went unnoticed");
            changed[place] = file[place];
        }
    }
}

#[test]
fn a_cut_package_is_refused_wherever_it_was_cut() {
    let file = package().write().unwrap();
    for end in (0..file.len()).step_by(97).chain([file.len() - 1]) {
        assert!(Package::read(&file[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_changed_member_is_named() {
    let changed =
        rewritten(|members| members.iter_mut().find(|(name, _)| name == "graphs/f32.onnx").unwrap().1[9] ^= 1);
    let error = Package::read(&changed).unwrap_err();
    assert!(matches!(&error, PackageError::Hash { member, .. } if member == "graphs/f32.onnx"), "{error}");
    let changed = rewritten(|members| members[0].1[30] ^= 1);
    let error = Package::read(&changed).unwrap_err();
    assert!(matches!(&error, PackageError::Hash { member, .. } if member == "manifest.json"), "{error}");
}

#[test]
fn missing_additional_and_repeated_members_are_named() {
    let without = rewritten(|members| drop(members.pop()));
    let error = Package::read(&without).unwrap_err();
    assert!(matches!(&error, PackageError::Missing { member } if member == "graphs/f32.onnx"), "{error}");
    let additional = rewritten(|members| members.push(("../../etc/passwd".replace("../", "x"), b"x".to_vec())));
    let error = Package::read(&additional).unwrap_err();
    assert!(matches!(&error, PackageError::Unexpected { found, .. } if found == "xxetc/passwd"), "{error}");
    let repeated = rewritten(|members| members.insert(2, members[2].clone()));
    assert!(matches!(Package::read(&repeated), Err(PackageError::Unexpected { .. })));
    let empty = rewritten(|members| members.clear());
    assert!(matches!(Package::read(&empty), Err(PackageError::Missing { member }) if member == "manifest.json"));
}

#[test]
fn too_many_members_and_too_many_bytes_are_refused() {
    let many = rewritten(|members| members.extend((0..40).map(|i| (format!("more/{i}"), Vec::new()))));
    assert!(matches!(Package::read(&many), Err(PackageError::TooManyMembers { limit: 32 })));
    let limits = archive::Limits { bytes: 1000, members: 32 };
    let file = package().write().unwrap();
    assert!(matches!(archive::read(&file, limits).map_err(PackageError::from), Err(PackageError::TooLong { .. })));
}

#[test]
fn an_unknown_key_or_another_format_in_the_manifest_is_refused() {
    let more = with_manifest(|text| text.replacen('{', "{\"surprise\": 1,", 1));
    let error = Package::read(&more).unwrap_err();
    assert!(matches!(&error, PackageError::Malformed { problem, .. } if problem.contains("surprise")), "{error}");
    let other = with_manifest(|text| text.replace("\"format\": 1", "\"format\": 2"));
    let error = Package::read(&other).unwrap_err();
    assert!(matches!(error, PackageError::Manifest(ManifestError::Format { expected: 1, found: 2 })), "{error}");
}

#[test]
fn bytes_that_are_no_archive_are_refused() {
    for bytes in [&b""[..], b"PK\x03\x04", &[0; 1024], &[0xff; 4096]] {
        assert!(Package::read(bytes).is_err());
    }
    // What is said of them can be printed, whatever they are.
    let error = Package::read(&[0x9b; 4096]).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{cause:?}");
}

#[test]
fn a_package_that_contradicts_itself_is_not_written() {
    let broken = |change: &dyn Fn(&mut Package)| {
        let mut package = package();
        change(&mut package);
        package.write().unwrap_err()
    };
    let error = broken(&|package| package.manifest.serve = "int4".to_owned());
    assert!(matches!(error, PackageError::Manifest(ManifestError::Serve { .. })), "{error}");
    let error = broken(&|package| package.manifest.graphs[0].name = "../int8".to_owned());
    assert!(matches!(error, PackageError::Manifest(ManifestError::Name { .. })), "{error}");
    let error = broken(&|package| package.manifest.requires.agent = "v0.1.0".to_owned());
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("v0.1.0"), "{error}: {cause}");
    let error = broken(&|package| package.manifest.decision.margin = f32::NAN);
    assert!(matches!(error, PackageError::Manifest(ManifestError::Number { .. })), "{error}");
    let error = broken(&|package| package.manifest.graphs[0].metrics = BTreeMap::from([("auc".to_owned(), f64::NAN)]));
    assert!(matches!(error, PackageError::Manifest(ManifestError::Number { .. })), "{error}");
    let error = broken(&|package| drop(package.graphs.pop()));
    assert!(matches!(error, PackageError::Malformed { .. }), "{error}");
    let error = broken(&|package| package.reference.swap(0, 1));
    assert!(matches!(error, PackageError::Malformed { .. }), "{error}");
    let error = broken(&|package| package.manifest.features.swap(0, 1));
    assert!(matches!(error, PackageError::OtherView { part: "features", .. }), "{error}");
    let error = broken(&|package| package.manifest.view.version = 9);
    assert!(matches!(error, PackageError::OtherView { part: "version", .. }), "{error}");
    let error = broken(&|package| package.view_toml.push_str("surprise = 1"));
    assert!(matches!(error, PackageError::View(_)), "{error}");
    let error = broken(&|package| package.golden.clear());
    assert!(matches!(error, PackageError::Malformed { .. }), "{error}");
    let error = broken(&|package| package.golden[1].features[0] = f32::INFINITY);
    assert!(matches!(error, PackageError::Golden { case: 1, .. }), "{error}");
    let error = broken(&|package| package.golden[0].features.truncate(1));
    assert!(matches!(error, PackageError::Golden { case: 0, .. }), "{error}");
    let error = broken(&|package| package.golden[1].decision = false);
    assert!(matches!(error, PackageError::Golden { case: 1, .. }), "{error}");
    let error = broken(&|package| package.golden[0].output = 1.5);
    assert!(matches!(error, PackageError::Golden { case: 0, .. }), "{error}");
}

/// The members of a package file, one of them with other content, and every hash right again.
fn with_member(file: &[u8], place: usize, content: &[u8]) -> Vec<u8> {
    let mut members = archive::read(file, LIMITS).unwrap();
    let place = if place == 1 { 0 } else { place };
    members[place].1 = content;
    let mut manifest: Manifest = serde_json::from_slice(members[0].1).unwrap_or_else(|_| package().manifest);
    let hashes: BTreeMap<_, _> = members[2..].iter().map(|(name, bytes)| (name.clone(), digest(bytes))).collect();
    let manifest = match place {
        0 => content.to_vec(),
        _ => {
            manifest.members = hashes;
            serde_json::to_vec_pretty(&manifest).unwrap()
        }
    };
    let line = digest_line(&manifest);
    (members[0].1, members[1].1) = (&manifest, line.as_bytes());
    let mut changed = Vec::new();
    archive::write(&members, &mut changed).unwrap();
    changed
}

#[test]
fn any_bytes_are_a_package_that_comes_back_or_refused() {
    let good = package().write().unwrap();
    let members: Vec<Vec<u8>> =
        archive::read(&good, LIMITS).unwrap().into_iter().map(|(_, bytes)| bytes.to_vec()).collect();
    let looked = |file: &[u8]| {
        if let Ok(read) = Package::read(file) {
            let written = read.write().unwrap();
            assert_eq!(Package::read(&written).unwrap().write().unwrap(), written);
        }
    };
    bolero::check!().with_type::<(u8, Vec<(u16, u8)>, Vec<u8>)>().for_each(|(place, changes, own)| {
        // Whatever is changed in a file is noticed.
        let mut changed = good.clone();
        for (at, byte) in changes {
            let at = usize::from(*at) % changed.len();
            changed[at] = *byte;
        }
        assert_eq!(Package::read(&changed).is_ok(), changed == good);
        looked(own);
        // Whoever makes a package makes its hashes right: what the members say is read.
        let place = usize::from(*place) % members.len();
        looked(&with_member(&good, place, own));
        let mut content = members[place].clone();
        for (at, byte) in changes.iter().filter(|_| !members[place].is_empty()) {
            let at = usize::from(*at) % content.len();
            content[at] = *byte;
        }
        looked(&with_member(&good, place, &content));
    });
}
