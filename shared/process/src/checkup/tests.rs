use serde_json::{Value, json};

use super::*;

fn report(findings: Vec<Finding>) -> Report {
    let (subject, at) = ("edge-1".to_owned(), "2026-11-21T09:30:00.25Z".to_owned());
    Report { program: "edge-agent", version: "0.1.0", subject, at, findings }
}

fn long() -> Report {
    let words = "the file has 12 bytes where 4096 were expected, so nothing in it can be believed any more ".repeat(3);
    let items = (0..9).map(|number| format!("packages/{}.tpk: {words}{number}", "0a".repeat(20)));
    report(vec![
        Finding::ok("State", "file", "12.3 MiB, whole"),
        Finding::fail("State", "snapshot", &*words)
            .with_details(items)
            .advise(&*words)
            .mended_by(Mend::new(&*words, || Ok("it is".into()))),
        Finding::skipped("Hub", "a name that is longer than the others", "not enrolled"),
        Finding::warn("Hub", "clock", "4 s behind"),
    ])
}

#[test]
fn text_fits_80_columns_with_marks_in_a_column_and_colours_only_where_wanted() {
    let text = long().text(Style::Plain);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for words in [
        "State\n",
        "  ok    file      12.3 MiB, whole\n",
        "  FAIL  snapshot  the file",
        "  skip  a name that is longer",
    ] {
        assert!(text.contains(words), "{words:?} in\n{text}");
    }
    assert!(text.contains("and 4 more") && text.contains("-> --repair: the file"), "{text}");
    assert!(text.contains("Something is broken: 1 ok, 1 warning, 1 failed, 1 skipped."), "{text}");
    assert!(!text.contains('\u{1b}'));
    let coloured = long().text(Style::Colours);
    assert!(coloured.contains("\u{1b}[1;31mFAIL\u{1b}[0m"));
    let (mut bare, mut rest) = (String::new(), coloured.as_str());
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        bare.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    assert_eq!(bare + rest, text, "colours change nothing else");
}

#[test]
fn the_worst_decides_and_what_was_mended_counts_as_well() {
    assert_eq!(report(vec![]).worst(), Mark::Ok);
    assert_eq!(report(vec![Finding::skipped("A", "a", "off")]).worst(), Mark::Ok);
    assert!(report(vec![Finding::warn("A", "a", "soon")]).is_well());
    let mut broken = report(vec![
        Finding::fail("A", "a", "mode 644").mended_by(Mend::new("chmod", || Ok("mode 600".into()))),
        Finding::fail("A", "b", "gone").mended_by(Mend::new("fetch", || Err("no network".into()))),
    ]);
    assert_eq!(broken.offers().collect::<Vec<_>>(), ["chmod", "fetch"]);
    assert!(broken.announcement().contains("will chmod\nwill fetch\n"));
    assert!(broken.mend() && !broken.is_well());
    assert!(!broken.mend(), "nothing is tried twice");
    let text = broken.text(Style::Plain);
    assert!(text.contains("  fixed a  mode 644\n           -> repaired: mode 600\n"), "{text}");
    assert!(text.contains("  FAIL  b  gone\n           -> not repaired: no network\n"), "{text}");
    let json = broken.json();
    assert_eq!(
        (&json["result"], &json["counts"]["repaired"], &json["counts"]["fail"]),
        (&json!("fail"), &json!(1), &json!(1))
    );
    assert_eq!(json["findings"][0]["repair"], json!({"what": "chmod", "done": true, "outcome": "mode 600"}));
    assert_eq!(json["findings"][1]["repair"]["outcome"], "no network");
    broken.findings.pop();
    assert!(broken.is_well());
}

#[test]
fn json_has_one_form_whatever_was_found() {
    let json = long().json();
    assert_eq!(
        (&json["format"], &json["program"], &json["at"]),
        (&json!(1), &json!("edge-agent"), &json!("2026-11-21T09:30:00.25Z"))
    );
    for finding in json["findings"].as_array().unwrap() {
        let keys: Vec<&str> = finding.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["section", "check", "result", "found", "details", "advice", "repair"]);
    }
    assert_eq!(json["findings"][1]["repair"]["done"], Value::Null);
    assert_eq!(json["findings"][1]["details"].as_array().unwrap().len(), 9);
}

#[test]
fn what_is_set_aside_keeps_every_byte_and_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    std::fs::write(&path, b"broken").unwrap();
    let at = "2026-11-21T09:30:00.25Z";
    let set_aside = || {
        let finding = Finding::fail("A", "a", "broken").mended_by(Mend::set_aside(&path, at));
        let mut report = report(vec![finding]);
        report.mend();
        report.is_well()
    };
    assert!(set_aside());
    let aside = folder.path().join("state.redb.broken-20261121T093000Z");
    assert_eq!(std::fs::read(&aside).unwrap(), b"broken");
    assert!(!path.exists());
    std::fs::write(&path, b"second").unwrap();
    assert!(!set_aside(), "the first one is not replaced");
    assert_eq!(
        (std::fs::read(&aside).unwrap(), std::fs::read(&path).unwrap()),
        (b"broken".to_vec(), b"second".to_vec())
    );
}

#[cfg(unix)]
#[test]
fn secrets_are_made_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    std::fs::write(&path, "secret").unwrap();
    host::set_mode(&path, 0o644).unwrap();
    let mut report = report(vec![Finding::fail("A", "a", "mode 644").mended_by(Mend::private(&path, 0o600))]);
    assert!(report.mend());
    assert_eq!(host::standing(&path).unwrap().mode, 0o600);
}

#[test]
fn figures_are_short() {
    assert_eq!(
        ["0 bytes", "1.0 KiB", "1.0 MiB", "12.3 GiB"],
        [0, 1024, (1 << 20) - 1, 13_207_024_435].map(bytes).each_ref().map(|s| s.as_str())
    );
    assert_eq!(
        [span(-40_000_000), span(7_300_000_000), span(200_000_000_000)],
        ["40 s", "2 h", "2 days"].map(str::to_owned)
    );
    assert_eq!([count(1, "file", "files"), count(0, "file", "files")], ["1 file", "0 files"].map(str::to_owned));
    let time = std::time::Duration::from_micros;
    assert_eq!(
        [millis(time(3_210)), millis(time(45_000)), millis(time(1_500_000))],
        ["3.2 ms", "45 ms", "1.5 s"].map(str::to_owned)
    );
}

#[test]
fn a_later_look_keeps_what_was_mended_and_shows_what_hung_on_it() {
    let mut first = report(vec![
        Finding::fail("A", "key", "mode 644").mended_by(Mend::new("chmod", || Ok("mode 600".into()))),
        Finding::fail("B", "identity", "the key is refused"),
        Finding::fail("C", "file", "broken").mended_by(Mend::new("rename", || Err("no room".into()))),
    ]);
    first.mend();
    assert!(!first.is_well());
    let later =
        |file: Finding| report(vec![Finding::ok("A", "key", "private"), Finding::ok("B", "identity", "fine"), file]);
    let both = first.again(later(Finding::fail("C", "file", "broken")));
    let keys: Vec<_> = both.findings.iter().map(|finding| (finding.key().1, finding.mark())).collect();
    assert_eq!(keys, [("key", Mark::Fail), ("identity", Mark::Ok), ("file", Mark::Fail)]);
    assert!(!both.is_well() && both.text(Style::Plain).contains("fixed"));
}
