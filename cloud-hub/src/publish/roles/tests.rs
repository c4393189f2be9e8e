use serde_json::json;
use sigstore_tuf::TrustedMetadataSet;
use tributary_release::SigningKey;
use tributary_wire::Micros;

use super::*;

const NOW: Micros = Micros(1_800_000_000 * Micros::SECOND);

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::generate([seed; 32])
}

fn public(seed: u8, holder: &str) -> PublicKey {
    PublicKey::new(key(seed).verifying_key(), holder)
}

fn in_days(days: i64) -> Micros {
    Micros(NOW.0 + days * Micros::DAY)
}

pub(super) fn root(version: u64, keys: &[u8]) -> RootContent {
    let names = ["Alice", "Bob", "Cléo", "Dora"];
    RootContent {
        version,
        expires: in_days(365),
        root: Signers {
            keys: keys.iter().map(|seed| public(*seed, names[usize::from(*seed - 1)])).collect(),
            threshold: 2,
        },
        targets: Signers::any_of([public(5, "office")]),
        snapshot: Signers::any_of([public(6, "hub")]),
        timestamp: Signers::any_of([public(7, "hub")]),
    }
}

pub(super) fn targets(version: u64) -> TargetsContent {
    let delegation =
        |role: &str, seed| Delegation { role: role.to_owned(), signers: Signers::any_of([public(seed, "")]) };
    TargetsContent {
        version,
        expires: in_days(90),
        targets: vec![Target::assignment_keys(&[public(8, "hub")]).0],
        delegations: vec![delegation("models/card-fraud", 9), delegation("agent", 5)],
    }
}

pub(super) fn line() -> RoleName {
    RoleName::Delegated("models/card-fraud".to_owned())
}

fn package(version: u32) -> Target {
    Target {
        path: format!("models/card-fraud/v{version}.tpk"),
        length: 12,
        sha256: digest(b"package"),
        custom: Some(json!({ "tributary": { "version": version, "text": "é \"\\ \n" } })),
    }
}

pub(super) fn line_content(version: u64) -> TargetsContent {
    TargetsContent { version, expires: in_days(30), targets: vec![package(1), package(2)], delegations: Vec::new() }
}

#[test]
fn what_is_written_is_read_back_and_devices_accept_the_whole_chain() {
    let first = build_root(&root(1, &[1, 2, 3])).unwrap();
    assert_eq!(read_root(&first).unwrap().root.keys.len(), 3);
    let alice = sign(&first, &[key(1)]).unwrap();
    let cleo = sign(&first, &[key(3)]).unwrap();
    let first = merge(&alice, &cleo).unwrap();
    assert_eq!(first, merge(&cleo, &alice).unwrap(), "whoever signs first");
    verify(&first, &RoleName::Root, &first).unwrap();

    let top = sign(&build_targets(&RoleName::Targets, &targets(1)).unwrap(), &[key(5)]).unwrap();
    verify(&first, &RoleName::Targets, &top).unwrap();
    let lines = sign_delegated(&line(), &line_content(4), &[key(9)]).unwrap();
    verify(&top, &line(), &lines).unwrap();
    let read = read_targets(&lines).unwrap();
    assert_eq!(read, line_content(4));
    assert_eq!(header(&lines).unwrap().role, line());

    let files = Files::from([
        ("targets.json".to_owned(), FileMeta::of(1, &top)),
        ("models/card-fraud.json".to_owned(), FileMeta::of(4, &lines)),
    ]);
    let snapshot = sign_snapshot(1, in_days(7), &files, &[key(6)]).unwrap();
    verify(&first, &RoleName::Snapshot, &snapshot).unwrap();
    let timestamp = sign_timestamp(1, in_days(1), FileMeta::of(1, &snapshot), &[key(7)]).unwrap();
    verify(&first, &RoleName::Timestamp, &timestamp).unwrap();

    let now = jiff::Timestamp::from_microsecond(NOW.0).unwrap();
    let mut device = TrustedMetadataSet::from_root(&first).unwrap();
    device.update_timestamp(&timestamp, now).unwrap();
    device.update_snapshot(&snapshot, now).unwrap();
    device.update_targets(&top, now).unwrap();
    let found = device.update_delegated_targets(&lines, "models/card-fraud", "targets", now).unwrap();
    assert_eq!(found.target("models/card-fraud/v2.tpk").unwrap().custom, package(2).custom);
    let role = &device.targets_role("targets").unwrap().delegations.as_ref().unwrap().roles[1];
    assert!(role.matches_path("models/card-fraud/v2.tpk").unwrap());
    assert!(!role.matches_path("models/card-fraud/deep/v2.tpk").unwrap());
}

#[test]
fn a_root_needs_the_old_and_the_new_quorum() {
    let first = sign(&build_root(&root(1, &[1, 2, 3])).unwrap(), &[key(1), key(2)]).unwrap();
    let next = build_root(&RootContent { root: Signers { threshold: 2, ..root(2, &[3, 4]).root }, ..root(2, &[3, 4]) });
    let next = next.unwrap();
    let new_only = sign(&next, &[key(3), key(4)]).unwrap();
    let error = verify(&first, &RoleName::Root, &new_only).unwrap_err();
    let RoleError::Threshold { needed: 2, found: 1, by, missing, .. } = &error else { panic!("{error}") };
    assert_eq!(by, "root 1");
    assert!(missing.contains("Alice") && missing.contains("Bob") && !missing.contains("Dora"), "{missing}");
    let old_only = sign(&next, &[key(1), key(2)]).unwrap();
    assert!(verify(&first, &RoleName::Root, &old_only).unwrap_err().to_string().contains("root 2"));
    let both = sign(&new_only, &[key(1)]).unwrap();
    verify(&first, &RoleName::Root, &both).unwrap();
    let mut device = TrustedMetadataSet::from_root(&first).unwrap();
    assert!(device.update_root(&new_only).is_err());
    device.update_root(&both).unwrap();
}

#[test]
fn too_few_strangers_forgers_and_other_roles_are_refused() {
    let root_bytes = build_root(&root(1, &[1, 2, 3])).unwrap();
    let one = sign(&root_bytes, &[key(1)]).unwrap();
    assert!(matches!(verify(&one, &RoleName::Root, &one), Err(RoleError::Threshold { found: 1, .. })));
    let stranger = sign(&one, &[key(44)]).unwrap();
    assert!(matches!(verify(&one, &RoleName::Root, &stranger), Err(RoleError::Threshold { found: 1, .. })));
    let two = sign(&one, &[key(2)]).unwrap();
    let text = String::from_utf8(two.clone()).unwrap();
    let later = text.replace("2028", "2038");
    assert_ne!(later, text);
    let progress = progress(&two, &RoleName::Root, later.as_bytes()).unwrap();
    assert_eq!((progress.signed.len(), progress.wrong.len(), progress.complete()), (0, 2, false));
    assert!(verify(&two, &RoleName::Targets, &two).is_err());
    let top = sign(&build_targets(&RoleName::Targets, &targets(1)).unwrap(), &[key(5)]).unwrap();
    let agent = RoleName::Delegated("agent".to_owned());
    let nodes = RoleName::Delegated("nodes".to_owned());
    let empty = TargetsContent { targets: Vec::new(), ..line_content(1) };
    let file = sign_delegated(&agent, &empty, &[key(5)]).unwrap();
    verify(&top, &agent, &file).unwrap();
    assert!(matches!(verify(&top, &nodes, &file), Err(RoleError::Kind { .. })), "a file for one role is not another's");
    let file = sign_delegated(&nodes, &empty, &[key(5)]).unwrap();
    assert!(matches!(verify(&top, &nodes, &file), Err(RoleError::Unlisted { .. })));
    let other = sign_delegated(&line(), &line_content(1), &[key(5)]).unwrap();
    assert!(matches!(verify(&top, &line(), &other), Err(RoleError::Threshold { .. })), "of another line");
    let differs = build_root(&root(2, &[1, 2, 3])).unwrap();
    assert!(merge(&one, &differs).is_err());
}

#[test]
fn what_devices_could_not_follow_is_neither_written_nor_read() {
    let changed = |change: &dyn Fn(&mut RootContent)| {
        let mut content = root(1, &[1, 2, 3]);
        change(&mut content);
        build_root(&content).unwrap_err().to_string()
    };
    assert!(changed(&|root| root.root.threshold = 4).contains("4 signatures of 3 keys"));
    assert!(changed(&|root| root.targets.threshold = 0).contains("targets: 0 signatures"));
    assert!(changed(&|root| root.snapshot.keys.clear()).contains("snapshot"));
    assert!(changed(&|root| root.root.keys.push(public(1, "again"))).contains("twice"));
    assert!(changed(&|root| root.root.keys[0].holder = "\u{1b}[2J".to_owned()).contains("printable"));
    assert!(changed(&|root| root.expires = Micros(0)).contains("expires"));
    assert!(changed(&|root| root.version = 0).contains("version 0"));
    let line_with = |target: Target| {
        let content = TargetsContent { targets: vec![target], ..line_content(1) };
        build_targets(&line(), &content).unwrap_err().to_string()
    };
    let at = |path: &str| Target { path: path.to_owned(), ..package(1) };
    for path in
        ["models/other/v1.tpk", "models/card-fraud/a/b", "models/card-fraud/..", "models/card-fraud/", "agent/x"]
    {
        assert!(line_with(at(path)).contains("does not belong"), "{path}");
    }
    let float = Target { custom: Some(json!({"accuracy": 0.5})), ..package(1) };
    assert!(line_with(float).contains("integer"), "the canonical form has integers alone");
    for role in ["models/Bad Name", "models/", "images", "root/x"] {
        assert!(role.parse::<RoleName>().is_err(), "{role}");
    }
    let whole = String::from_utf8(build_root(&root(1, &[1, 2, 3])).unwrap()).unwrap();
    for (find, replace, words) in [
        ("\"consistent_snapshot\":true", "\"consistent_snapshot\":false", "consistent_snapshot"),
        ("\"version\":1", "\"version\":1,\"x-more\":true", "x-more"),
        ("\"1.0.34\"", "\"2.0.0\"", "spec"),
        ("ed25519", "ed448", "ed25519"),
        ("\"_type\":\"root\"", "\"_type\":\"mirrors\"", "mirrors"),
        ("\"signatures\":[]", "\"signatures\":7", "JSON"),
    ] {
        let changed = whole.replacen(find, replace, 1);
        assert_ne!(changed, whole, "{find}");
        let error = read_root(changed.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(words), "{find}: {error}");
    }
    assert!(read_root(&whole.as_bytes()[..whole.len() / 2]).is_err());
    assert!(matches!(header(&vec![b' '; MAX_BYTES + 1]), Err(RoleError::Size { .. })));
    let wide = build_targets(&RoleName::Targets, &targets(1)).unwrap();
    let wide = String::from_utf8(wide).unwrap().replace("models/card-fraud/*", "*/*/*");
    assert!(read_targets(wide.as_bytes()).is_err(), "a line that could sign everything");
}

#[test]
fn changes_are_told_in_words() {
    let first = build_root(&root(1, &[1, 2, 3])).unwrap();
    let all = describe(None, &first).unwrap().join("\n");
    assert!(all.contains("root: is signed by 2 of ") && all.contains("(Alice)") && all.contains("(office)"), "{all}");
    let mut next = root(2, &[2, 3, 4]);
    next.expires = in_days(700);
    next.root.threshold = 3;
    next.targets.keys[0].holder = "Erik".to_owned();
    let told = describe(Some(&first), &build_root(&next).unwrap()).unwrap().join("\n");
    for words in [
        "expires 2028-12-15T08:00:00Z (was 2028-01-15T08:00:00Z)",
        "(Dora) may sign from now on",
        "(Alice) may no longer sign",
        "needs 3 signatures (was 2)",
        "is held by \"Erik\" now",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let top = build_targets(&RoleName::Targets, &targets(1)).unwrap();
    let mut next = targets(3);
    next.delegations.remove(1);
    next.targets = vec![Target::assignment_keys(&[public(8, "hub"), public(18, "new hub")]).0];
    let told = describe(Some(&top), &build_targets(&RoleName::Targets, &next).unwrap()).unwrap().join("\n");
    for words in ["not the next one", "agent: nobody may sign", "assignments: key", "(new hub) may sign from now on"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    next.targets[0].sha256 = digest(b"something else");
    let told = describe(None, &build_targets(&RoleName::Targets, &next).unwrap()).unwrap().join("\n");
    assert!(told.contains("see what it holds") && !told.contains("new hub"), "a list that is not the file's: {told}");
    assert!(describe(Some(&first), &top).is_err());
    let lines = build_targets(&line(), &line_content(4)).unwrap();
    let fewer = TargetsContent { targets: vec![package(2)], ..line_content(5) };
    let told = describe(Some(&lines), &build_targets(&line(), &fewer).unwrap()).unwrap();
    assert_eq!(told, ["models/card-fraud/v1.tpk: gone; devices no longer install it"]);
}

#[test]
fn what_devices_would_refuse_for_its_size_is_neither_signed_nor_read_and_role_and_sizes_are_named() {
    // Long names, so that a few of them fill a snapshot.
    let file = FileMeta::of(1, b"");
    let files = |count: usize| -> Files { (0..count).map(|n| (format!("{n:0>10000}.json"), file)).collect() };
    let signed = sign_snapshot(7, in_days(7), &files(190), &[key(6)]).unwrap();
    assert!((1_900_000..2_000_000).contains(&signed.len()), "{}", signed.len());
    let refused = |signed: Result<Vec<u8>, RoleError>| signed.map(|signed| signed.len()).unwrap_err().to_string();
    let snapshot = refused(sign_snapshot(7, in_days(7), &files(200), &[key(6)]));
    assert!(snapshot.starts_with("snapshot 7 has 20") && snapshot.ends_with("at most 2000000 of it"), "{snapshot}");
    let wordy = |n: u32| Target {
        path: format!("models/card-fraud/v{n}.tpk"),
        custom: Some(json!({ "tributary": "x".repeat(50_000) })),
        ..package(1)
    };
    // Within a little of the limit it is read no less than it is signed.
    let many = |count| TargetsContent { targets: (1..=count).map(wordy).collect(), ..line_content(3) };
    let large = sign_delegated(&line(), &many(99), &[key(9)]).unwrap();
    assert!(large.len() > 4_900_000 && read_targets(&large).unwrap().targets.len() == 99);
    let line = refused(sign_delegated(&line(), &many(100), &[key(9)]));
    assert!(line.starts_with("models/card-fraud 3 has 50") && line.ends_with("at most 5000000 of it"), "{line}");
}
