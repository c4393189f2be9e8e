use super::*;

fn public(seed: u8, holder: &str) -> PublicKey {
    PublicKey::new(SigningKey::generate([seed; 32]).verifying_key(), holder)
}

const NOW: Micros = Micros(1_800_000_000 * Micros::SECOND);

fn online() -> Online {
    Online { snapshot: public(20, HUB), timestamp: public(21, HUB), assignment: public(22, HUB) }
}

fn begin() -> (RootContent, TargetsContent) {
    let root = Signers { keys: vec![public(1, "Alice"), public(2, "Bob"), public(3, "Cleo")], threshold: 2 };
    let fraud = line(&LineName::new("card-fraud").unwrap(), [public(23, HUB)]);
    let (root, targets) = first(root, Signers::any_of([public(4, "office")]), &online(), vec![fraud], NOW).unwrap();
    (roles::read_root(&root).unwrap(), roles::read_targets(&targets).unwrap())
}

fn holders(signers: &Signers) -> Vec<&str> {
    let mut holders: Vec<&str> = signers.keys.iter().map(|key| key.holder.as_str()).collect();
    holders.sort_unstable();
    holders
}

fn delegated<'a>(targets: &'a TargetsContent, role: &str) -> Option<&'a Signers> {
    targets.delegations.iter().find(|found| found.role == role).map(|found| &found.signers)
}

#[test]
fn the_first_files_delegate_lines_and_reserved_roles_and_one_seed_gives_one_repository() {
    let (root, targets) = begin();
    assert_eq!((root.version, root.root.threshold, holders(&root.root)), (1, 2, vec!["Alice", "Bob", "Cleo"]));
    let roles: Vec<&str> = targets.delegations.iter().map(|found| found.role.as_str()).collect();
    assert_eq!(roles, ["agent", "features", "models/card-fraud", "nodes"]);
    assert_eq!(holders(delegated(&targets, "agent").unwrap()), ["office"]);
    assert_eq!(targets.targets[0].listed_keys().unwrap(), [public(22, HUB)]);
    let ids = |custody: &Custody| custody.root_keys().iter().map(SigningKey::id).collect::<Vec<_>>();
    assert_eq!(ids(&Custody::of_seed([7; 32])), ids(&Custody::of_seed([7; 32])));
    assert_ne!(ids(&Custody::of_seed([7; 32])), ids(&Custody::of_seed([8; 32])));
}

#[test]
fn keys_come_go_and_take_the_place_of_others() {
    let (root, targets) = begin();
    let change = Change {
        add: vec![("root".to_owned(), public(5, "Dora"))],
        remove: vec![("root".to_owned(), "Alice".to_owned())],
        replace: vec![("office".to_owned(), public(6, "office-2"))],
        threshold: vec![("root".to_owned(), 3)],
        ..Change::default()
    };
    let later = Micros(NOW.0 + Micros::DAY);
    let next = next_root(&root, &change, later).unwrap();
    assert_eq!((next.version, next.expires, next.root.threshold), (2, later, 3));
    assert_eq!((holders(&next.root), holders(&next.targets)), (vec!["Bob", "Cleo", "Dora"], vec!["office-2"]));
    assert_eq!(next.snapshot, root.snapshot);

    let office = Change { replace: change.replace.clone(), ..Change::default() };
    let next = next_targets(&targets, &office, later).unwrap();
    for role in ["agent", "nodes", "features"] {
        assert_eq!(holders(delegated(&next, role).unwrap()), ["office-2"], "{role}");
    }
    assert_eq!(delegated(&next, "models/card-fraud"), delegated(&targets, "models/card-fraud"));

    let id = public(22, HUB).id();
    let change = Change {
        add: vec![("returns".to_owned(), public(7, "Erik")), (ASSIGNMENTS.to_owned(), public(30, "new hub"))],
        remove: vec![(ASSIGNMENTS.to_owned(), id[..8].to_owned())],
        drop: vec!["card-fraud".to_owned()],
        ..Change::default()
    };
    let next = next_targets(&targets, &change, later).unwrap();
    assert_eq!(delegated(&next, "models/card-fraud"), None);
    assert_eq!(delegated(&next, "models/returns").unwrap().threshold, 1);
    assert_eq!(next.targets[0].listed_keys().unwrap(), [public(30, "new hub")]);
    build_targets(&RoleName::Targets, &next).unwrap();
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_could() {
    let (root, targets) = begin();
    let on_root = |change: Change| next_root(&root, &change, NOW).unwrap_err().to_string();
    let on_targets = |change: Change| next_targets(&targets, &change, NOW).unwrap_err().to_string();
    let remove =
        |role: &str, key: &str| Change { remove: vec![(role.to_owned(), key.to_owned())], ..Change::default() };
    let error = on_root(remove("root", "Zoe"));
    assert!(error.contains("0 of the keys of root") && error.contains("(Alice)"), "{error}");
    assert!(on_root(remove("root", "")).contains("0 of the keys"), "the start of every name is none");
    assert!(on_root(remove("agent", "office")).contains("root, targets, snapshot, timestamp"));
    assert!(on_targets(remove("root", "Alice")).contains("\"root\" is no role whose keys stand in targets"));
    assert!(on_targets(remove("Bad Name", "x")).contains("no role"));
    let drop = |role: &str| Change { drop: vec![role.to_owned()], ..Change::default() };
    assert!(on_targets(drop("returns")).contains("models/returns\" is not there"));
    assert!(on_root(drop("root")).contains("no role"));
    let replace = Change { replace: vec![("Zoe".to_owned(), public(9, ""))], ..Change::default() };
    assert!(on_root(replace.clone()).contains("(office)") && on_targets(replace).contains("(hub)"));
    let two = Change { add: vec![("snapshot".to_owned(), public(24, HUB))], ..Change::default() };
    let two = next_root(&root, &two, NOW).unwrap();
    let error = next_root(&two, &remove("snapshot", HUB), NOW).unwrap_err().to_string();
    assert!(error.contains("means 2 of the keys"), "{error}");
}

#[test]
fn files_of_a_role_come_and_go() {
    let image = |name: &str| Target {
        path: format!("nodes/press/{name}"),
        length: 1,
        sha256: digest(name.as_bytes()),
        custom: None,
    };
    let first = next_role(None, vec![image("v1.img")], &[], NOW).unwrap();
    assert_eq!((first.version, first.targets.len()), (1, 1));
    let next = next_role(Some(&first), vec![image("v2.img")], &["nodes/press/v1.img".to_owned()], NOW).unwrap();
    assert_eq!((next.version, next.targets), (2, vec![image("v2.img")]));
    assert!(next_role(Some(&first), Vec::new(), &["nodes/press/v9.img".to_owned()], NOW).is_err());
}
