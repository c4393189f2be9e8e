//! Views that are wrong, and what is said about them.

use tributary_features::{Scope, View, ViewError};

use crate::reference::{SECOND, VIEW, view};

fn refusal(from: &str, to: &str) -> String {
    assert!(VIEW.contains(from), "the test changes something that is there");
    View::from_toml(&VIEW.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn a_view_is_read_with_everything_it_says() {
    let view = view();
    assert_eq!((view.name(), view.version(), view.source()), ("test-view", 3, VIEW));
    assert_eq!((view.lateness(), view.label_delay()), (8 * SECOND, 5 * SECOND));
    assert_eq!(view.longest_device_window(), 40 * SECOND);
    assert_eq!(view.reach(Scope::Fleet), 47 * SECOND);
    assert_eq!(view.fleet().unwrap().cadence, 10 * SECOND);
    assert_eq!(view.feature_names().len(), 12);
    assert_eq!(view.features()[1].default, -1.0);
}

#[test]
fn what_is_not_toml_or_has_another_type_is_refused_with_its_line() {
    for (from, to, part) in [
        ("version = 3", "version = \"three\"", "line 3"),
        ("version = 3", "version = 3\ncolour = 1", "unknown field `colour`"),
        ("name = \"test-view\"", "", "missing field `name`"),
        ("kind = \"weekend\"", "kind = \"weekday\"", "unknown variant `weekday`"),
        ("required = true", "required = 1", "expected a boolean"),
        ("[fleet]", "[fleet", "line 7"),
        ("unit = \"EUR\"", "units = \"EUR\"", "unknown field `units`"),
    ] {
        let error = refusal(from, to);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_does_not_fit_the_rest_of_the_view_is_refused_by_name() {
    for (from, to, expected) in [
        ("test-view", "Test", r#"view: name "Test" does not match [a-z0-9-]{1,63}"#),
        ("version = 3", "version = 0", "view: version is 0; the first is 1"),
        ("version = 3", "version = 3\ntime_zone = \"Mars/North\"", "view: time_zone \"Mars/North\" is not known"),
        ("\"8s\"", "\"8 s\"", r#"view: lateness is "8 s"; expected a whole number with ms, s, m, h or d"#),
        ("\"8s\"", "\"9999999d\"", r#"view: lateness is "9999999d""#),
        ("\"8s\"", "\"s\"", r#"view: lateness is "s""#),
        ("cadence = \"10s\"", "cadence = \"0s\"", r#"fleet: cadence is "0s"; more than 0 is expected"#),
        ("name = \"weight\"", "name = \"amount\"", r#"value "amount": the name is used twice"#),
        ("name = \"weight\"", "name = \"event_id\"", "is a column that the lake has in any case"),
        ("name = \"weight\"", "name = \"Weight\"", r#"value "Weight": the name does not match [a-z0-9_]{1,63}"#),
        ("name = \"weekend\"", "name = \"amount\"", r#"feature "amount": the name is used twice"#),
        (
            "value = \"hint\"",
            "value = \"mood\"",
            r#"feature "hint": value "mood" does not exist; the view has amount, weight, hint"#,
        ),
        (
            "value = \"weight\"",
            "value = \"hint\"",
            r#"feature "customer_weight_30s": value "hint" must be required to enter a window"#,
        ),
        (
            "kind = \"int\"\n\n[[feature]]",
            "kind = \"text\"\n\n[[feature]]",
            r#"feature "hint": value "hint" is a text; a number is expected"#,
        ),
        (
            "hours = [22, 6]",
            "hours = [22, 24]",
            r#"feature "night": hours are Some([22, 24]); two from 0 to 23 are expected"#,
        ),
        ("hours = [22, 6]", "", r#"feature "night": key "hours" is missing for this kind"#),
        (
            "kind = \"weekend\"",
            "kind = \"weekend\"\nwindow = \"3s\"",
            r#"feature "weekend": key "window" does not belong to this kind"#,
        ),
        (
            "kind = \"weekend\"",
            "kind = \"weekend\"\ndelay = \"3s\"",
            r#"feature "weekend": key "delay" does not belong to this kind"#,
        ),
        (
            "kind = \"weekend\"",
            "kind = \"weekend\"\nscope = \"device\"",
            r#"feature "weekend": only windows have a scope other than "event""#,
        ),
        (
            "scope = \"device\"\nentity = \"place\"",
            "scope = \"event\"\nentity = \"place\"",
            r#"feature "place_sum_20s": a window needs scope "device" or "fleet""#,
        ),
        (
            "entity = \"customer\"\nwindow",
            "entity = \"client\"\nwindow",
            r#"feature "customer_count_10s": entity "client" does not exist; the view has customer, place"#,
        ),
        ("window = \"20s\"", "window = \"0s\"", r#"feature "place_sum_20s": window is "0s"; more than 0 is expected"#),
        (
            "kind = \"count\"\nscope = \"device\"",
            "kind = \"label_share\"\nscope = \"device\"",
            "labels are known at the hub only",
        ),
        (
            "delay = \"7s\"",
            "delay = \"4s\"",
            r#"feature "place_share_40s": delay must be more than 0 and at least the view's label_delay"#,
        ),
        ("default = 7.0", "default = nan", r#"feature "customer_mean_30s": default is NaN; it must be finite"#),
        ("[fleet]\ncadence = \"10s\"\nlifetime = \"60s\"", "", "fleet: missing, though a feature has fleet scope"),
        ("lateness", "served_only = true\nlateness", "view: served_only is true, though a feature has fleet scope"),
        ("lateness", "max_events_per_entity = 3\nlateness", "view: max_events_per_entity is 3; at least 16 are kept"),
    ] {
        let error = refusal(from, to);
        assert!(error.contains(expected), "{error}\nexpected: {expected}");
    }
    assert!(matches!(View::from_toml("name = \"x\"\nversion = 1"), Err(ViewError::Wrong { .. })), "no features");
    let long = format!("{VIEW}\n# {}", "x".repeat(300_000));
    assert!(View::from_toml(&long).unwrap_err().to_string().contains("at most 262144"));
}

#[test]
fn events_are_needed_for_windows_unless_only_what_was_served_is_trained_on() {
    let values = "name = \"v\"\nversion = 1\n[[entity]]\nname = \"place\"\nkind = \"int\"\n[[feature]]\nname = \"weekend\"\nkind = \"weekend\"\n";
    let count =
        "[[feature]]\nname = \"count\"\nkind = \"count\"\nscope = \"device\"\nentity = \"place\"\nwindow = \"1h\"\n";
    let needs = |text: &str| View::from_toml(text).unwrap().needs_every_event();
    assert!(!needs(values), "no window");
    assert!(needs(&format!("{values}{count}")) && view().needs_every_event());
    let served = format!("served_only = true\n{values}{count}");
    assert!(!needs(&served) && View::from_toml(&served).unwrap().served_only());
}
