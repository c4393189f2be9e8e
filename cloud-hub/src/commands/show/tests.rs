use super::*;
use serde_json::json;

#[test]
fn a_table_fits_into_eighty_columns_and_says_when_it_is_empty() {
    let items = [json!({"id": 1, "reason": "x".repeat(200), "created": 1_769_860_800_000_000_i64, "at": {"auc": 0.5}})];
    let table = table(&items, &[("id", "id"), ("reason", "reason"), ("created", "created"), ("auc", "at.auc")]);
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(
        table.contains("CREATED 2026")
            && table.contains("01-31 12:00")
            && table.contains("0.5000")
            && table.contains('…')
    );
    assert_eq!(super::table(&[], &[("id", "id")]), "nothing\n");
    let entry = json!({"number": 18, "time": 1_769_860_800_000_000_i64, "who": "token:rk4d43fa5c4f",
        "action": "enrolment-token.create", "subject": "01m7y803h94yg4fq8fmzmkk8d1"});
    let columns =
        [("number", "number"), ("time", "time"), ("who", "who"), ("action", "action"), ("subject", "subject")];
    let shown = super::table(std::slice::from_ref(&entry), &columns);
    assert!(shown.contains("TIME 2026") && shown.contains("01-31 12:00  token:rk4d43fa5c4f  enrol"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    let mut long = entry;
    long["who"] = json!(format!("device:{}", "x".repeat(63)));
    let shown = super::table(&[long], &columns);
    assert!(shown.contains("01-31 12:00  device:xx") && shown.lines().all(|line| line.chars().count() <= 80));
    assert!(!super::table(&[json!({"id": "a\u{1b}[2J"})], &[("id", "id")]).contains('\u{1b}'));
    let id = "01M7XW8A8HGCG1B0".repeat(2);
    let alert = json!({"id": id, "kind": "drift", "subject": "card-fraud/3", "reason": "x y ".repeat(30)});
    let columns = [("id", "id"), ("kind", "kind"), ("about", "subject"), ("why", "reason")];
    assert!(super::table(&[alert], &columns).contains(&id), "an id is never cut");
}

#[test]
fn long_values_and_lists_of_things_fit_too_and_nothing_is_left_out() {
    let item = json!({
        "sha256": "7b897e9e949a7b82219ab5013d95b3b416f5b7f0a94790f4be5ee390068cfb85",
        "steps": [{"time": 1_769_860_800_000_000_i64, "message": "a version is rolled out because ".repeat(9)}],
        "members": {"reference.postcard": "621ab13bd187400ddea4f03b00f3112d621e64f1b7f654435a7a104db918a0d4"},
        "days": [{"day": 1_769_860_800_000_000_i64, "auc": 0.5}, {"day": null, "rows": 3}],
        "waiting": ["1 device has not committed yet", "no prediction"],
        "empty": [],
        "seed": 1_769_860_800_000_000_i64,
    });
    let shown = lines(&item);
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert_eq!(shown.matches("because").count(), 9, "{shown}");
    assert!(shown.contains("  DAY                   AUC     ROWS\n  2026-01-31T12:00:00Z  0.5000  -\n"), "{shown}");
    assert!(shown.contains("  - 1 device has not committed yet\n"), "{shown}");
    assert!(shown.contains("seed     1769860800000000\n"), "{shown}");
}

#[test]
fn fields_are_listed_with_those_within() {
    let shown = lines(&json!({"name": "edge-1", "report": {"generation": 3}, "lines": [{"line": "a"}], "group": null}));
    assert_eq!(shown, "name    edge-1\nreport\n  generation  3\nlines\n  LINE\n  a\ngroup   -\n");
}
