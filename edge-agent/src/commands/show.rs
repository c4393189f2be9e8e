//! What commands print: JSON for programs, at most 80 columns for people.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::Value;
use tributary_process::config;
use tributary_process::{out, outln};

use super::{Failure, Settings};

const WIDTH: usize = 80;

/// Prints a value as JSON, or as `human` shows it.
pub(super) fn print(json: bool, value: &Value, human: impl Fn(&Value) -> String) {
    if json { outln!("{value:#}") } else { out!("{}", human(value)) }
}

/// The effective settings, each explicit one with its source in front.
pub(super) fn config(settings: &Settings) -> Result<ExitCode, Failure> {
    let effective = settings.load()?;
    if settings.json {
        let value = serde_json::to_value(&effective).map_err(anyhow::Error::from)?;
        outln!("{value:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let sources = settings.sources();
    if let Some(path) = &sources.file {
        outln!("# from {}: whatever it sets", path.display());
    }
    for (name, _) in &sources.environment {
        outln!("# from the environment: {}", name.to_lowercase().replace("__", "."));
    }
    for flag in &sources.flags {
        outln!("# from a flag: {}", flag.split('=').next().unwrap_or(flag));
    }
    outln!("# everything else: defaults\n");
    out!("{}", config::print(&effective)?);
    Ok(ExitCode::SUCCESS)
}

/// A text of the JSON, without quotes; `-` when it is not there.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// One labelled line, broken at words and indented where it is too long.
fn row(out: &mut String, label: &str, text: &str) {
    let indent = 12;
    let mut line = format!("{label:<indent$}");
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// `edge-agent status`.
pub(super) fn status(status: &Value) -> String {
    let mut out = String::new();
    let device = format!("{} (agent {})", text(&status["device"]), text(&status["agent"]));
    row(&mut out, "device", &device);
    let problems = list(&status["health"]["problems"]);
    row(&mut out, "health", if status["health"]["ok"] == true { "ok" } else { "not ok" });
    for problem in problems {
        row(&mut out, "", &text(problem));
    }
    hub(&mut out, &status["hub"]);
    clock(&mut out, &status["clock"]);
    let serving = &status["serving"];
    row(
        &mut out,
        "serving",
        &match serving {
            Value::Null => "the declared fallback: no package is in place".into(),
            serving => format!(
                "{} version {} on {}",
                text(&serving["line"]),
                text(&serving["version"]),
                text(&serving["engine"])
            ),
        },
    );
    for line in list(&status["lines"]) {
        row(&mut out, "line", &describe_line(line));
        if !line["undone"].is_null() {
            let (version, why) = (text(&line["undone"]["version"]), text(&line["undone"]["why"]));
            row(&mut out, "", &format!("version {version} was undone: {why}"));
        }
        if !line["error"].is_null() {
            row(&mut out, "", &format!("error: {}", text(&line["error"])));
        }
    }
    downloads(&mut out, &status["download"]);
    for lack in list(&status["unfit"]) {
        let [line, role, version] = ["line", "role", "version"].map(|name| text(&lack[name]));
        let reasons = list(&lack["reasons"]).iter().map(text).collect::<Vec<_>>().join("; ");
        row(&mut out, "cannot run", &format!("{line} {role} version {version}: {reasons}"));
    }
    for (key, value) in status["flags"].as_object().into_iter().flatten() {
        row(&mut out, "flag", &format!("{key} = {}", text(value)));
    }
    for node in list(&status["nodes"]) {
        row(&mut out, "node", &describe_node(node));
    }
    let events = &status["events"];
    let watermark = text(&events["watermark"]);
    let accepted = format!("{} accepted, {} waiting, watermark {watermark}", events["accepted"], events["waiting"]);
    row(&mut out, "events", &accepted);
    for (reason, count) in events["refused"].as_object().into_iter().flatten() {
        if count != 0 {
            row(&mut out, "", &format!("{count} refused: {reason}"));
        }
    }
    let outbox = &status["outbox"];
    let waiting = format!(
        "{} batches ({} bytes) wait, {} records dropped",
        outbox["batches"], outbox["bytes"], outbox["dropped_records"]
    );
    row(&mut out, "outbox", &waiting);
    for lost in list(&outbox["dropped"]) {
        let why = match lost["reason"].as_str() {
            Some("DiskBudget") => "over the disk budget",
            Some("Age") => "too old",
            _ => "damaged",
        };
        row(&mut out, "", &format!("{} of {} dropped: {why}", lost["records"], text(&lost["stream"])));
    }
    sampling(&mut out, &status["sampling"]);
    let memory = status["memory_bytes"].as_f64().unwrap_or(0.0) / f64::from(1 << 20);
    row(&mut out, "memory", &format!("{memory:.1} MiB"));
    out
}

/// What is sent of raw observations, and by whose word.
fn sampling(out: &mut String, sampling: &Value) {
    let policy = &sampling["policy"];
    let share = |value: &Value| format!("{} %", value.as_f64().unwrap_or(0.0) / 10_000.0);
    let mut words = match policy["number"].as_u64() {
        None => return,
        Some(0) => "own policy: ".to_owned(),
        Some(number) => format!("policy {number} of the hub: "),
    };
    let _ = write!(words, "{} of all", share(&policy["random"]));
    for (kind, wanted) in [("uncertain", &policy["uncertain"]), ("rare", &policy["rare"])] {
        if !wanted.is_null() {
            let _ = write!(words, ", {} of {kind} ones", share(&wanted["share"]));
        }
    }
    if let Some(bytes) = policy["day_bytes"].as_u64() {
        let _ = write!(words, ", {} of {bytes} bytes today", sampling["day_bytes"]);
    }
    if sampling["limited"] == true {
        words.push_str(", within this device's own limits");
    }
    row(out, "sampling", &words);
    let counts = &sampling["observations"];
    let found = format!("{} observations kept, {} left out", counts["kept"], counts["left_out"]);
    row(out, "", &found);
    if counts["uncovered"] != 0 {
        row(out, "", &format!("{} without a chance: the day's bytes were used up", counts["uncovered"]));
    }
}

/// What time it is taken for, and what the hub makes of it.
fn clock(out: &mut String, clock: &Value) {
    // An agent from before does not say.
    let Some(now) = clock["now"].as_str() else { return };
    let words = match clock["ahead_of_hub_seconds"].as_i64() {
        None => "not compared with the hub's yet".into(),
        Some(_) if clock["synchronised"] == true => "as the hub's".into(),
        Some(ahead @ ..0) => format!("{} s behind the hub's", -ahead),
        Some(ahead) => format!("{ahead} s ahead of the hub's"),
    };
    row(out, "clock", &format!("{now}; {words}"));
    if clock["unset"] == true {
        row(out, "", "the system's clock is not set: this is the last signed time and the uptime since");
    }
}

/// The connection to the hub: over what, and why not over something better.
fn hub(out: &mut String, hub: &Value) {
    let state = match (hub["connected"].as_bool(), &hub["transport"]) {
        (Some(true), Value::String(transport)) => {
            format!("connected over {transport} since {}", text(&hub["since"]))
        }
        (Some(true), _) => "connected".into(),
        (Some(false), _) => "not connected".into(),
        (None, _) => "none configured".into(),
    };
    row(out, "hub", &format!("{state}, assignment {}", text(&hub["generation"])));
    if !hub["not_enrolled"].is_null() {
        row(out, "", &text(&hub["not_enrolled"]));
    }
    for (transport, why) in hub["failures"].as_object().into_iter().flatten() {
        row(out, "", &format!("{transport} failed: {}", text(why)));
    }
    if !hub["next_probe"].is_null() {
        row(out, "", &format!("quic is tried again at {}", text(&hub["next_probe"])));
    }
    let certificate = &hub["certificate"];
    if !certificate.is_null() {
        let (serial, ends) = (text(&certificate["serial"]), text(&certificate["not_after"]));
        row(out, "certificate", &format!("{serial}, ends {ends}, renewed {}", text(&certificate["next_attempt"])));
        if !certificate["error"].is_null() {
            row(out, "", &format!("renewal failed: {}", text(&certificate["error"])));
        }
    }
    if !hub["audit"].is_null() {
        // In one piece, to be given to `cloud-hub audit verify --head`; too long to be indented further.
        row(out, "audit log", "the newest entry that this device knows of:");
        let _ = writeln!(out, "  {}:{}", text(&hub["audit"]["number"]), text(&hub["audit"]["hash"]));
    }
    if let Some(version) = hub["repository"]["timestamp"].as_u64() {
        let part = |name: &str| hub["repository"][name].as_u64().unwrap_or(0);
        let (root, snapshot) = (part("root"), part("snapshot"));
        row(out, "releases", &format!("signed metadata: root {root}, snapshot {snapshot}, timestamp {version}"));
    }
    if !hub["repository_problem"].is_null() {
        row(out, "", &text(&hub["repository_problem"]));
    }
    if !hub["audit_problem"].is_null() {
        row(out, "", &text(&hub["audit_problem"]));
    }
}

/// Files on their way: how far, from where, waiting for what; and whoever failed to give one.
fn downloads(out: &mut String, downloads: &Value) {
    for file in list(&downloads["under_way"]) {
        let (bytes, of) = (file["bytes"].as_u64().unwrap_or(0), file["of"].as_u64().unwrap_or(0));
        let share = (bytes * 100).checked_div(of).unwrap_or(0);
        row(out, "download", &format!("{bytes} of {of} bytes ({share} %) from {}", text(&file["from"])));
        row(out, "", &text(&file["path"]));
        if !file["waits_for"].is_null() {
            row(out, "", &format!("waits for {}", text(&file["waits_for"])));
        }
    }
    for package in list(&downloads["arrived"]) {
        let way = match package["way"].as_str() {
            Some("patch") => "as a patch",
            Some("compressed") => "compressed",
            _ => "whole",
        };
        let from = list(&package["from"]).iter().map(text).collect::<Vec<_>>().join(", ");
        let from = if from.is_empty() { "what was here".to_owned() } else { from };
        let (version, bytes, of) = (text(&package["version"]), &package["bytes"], &package["of"]);
        row(out, "came", &format!("version {version} {way}: {bytes} of {of} bytes, from {from}"));
    }
    for (origin, why) in downloads["failures"].as_object().into_iter().flatten() {
        row(out, "origin", &format!("{origin} failed: {}", text(why)));
    }
}

fn describe_node(node: &Value) -> String {
    let state = match (node["open"] == true, node["there"] == true) {
        (false, _) => "line not open",
        (true, false) => "silent",
        (true, true) => "here",
    };
    let windows = format!("{} windows, {} anomalies, {} lost", node["accepted"], node["anomalies"], node["lost"]);
    let sensor = text(&node["sensor"]);
    let mut words = format!("{} on {}: {state}, sensor {sensor}, {windows}", text(&node["node"]), text(&node["port"]));
    for (name, shown) in [("image", "firmware"), ("model", "model")] {
        if !node[name].is_null() {
            let _ = write!(words, ", {shown} {} ({})", node[name]["version"], text(&node[name]["state"]));
        }
    }
    let bringing = &node["bringing"];
    if !bringing.is_null() {
        let (kind, version) = (text(&bringing["kind"]), &bringing["version"]);
        let _ = write!(words, ", {} of {} bytes of {kind} {version} sent", bringing["sent"], bringing["length"]);
    }
    words
}

fn describe_line(line: &Value) -> String {
    let mut words = format!("{} {}: {}", text(&line["line"]), text(&line["role"]), text(&line["state"]));
    for name in ["committed", "previous", "candidate"] {
        if !line[name].is_null() {
            let _ = write!(words, ", {name} {}", text(&line[name]));
        }
    }
    words
}

/// `edge-agent predict`.
pub(super) fn results(answer: &Value) -> String {
    let mut out =
        format!("{:<32} {:>7} {:>8} {:<8} {:>8}  {}\n", "event", "version", "output", "decision", "us", "marks");
    for result in list(&answer["results"]) {
        let id: String = text(&result["id"]).chars().take(32).collect();
        if result["status"] == "refused" {
            row(&mut out, &format!("{id:<32}"), &format!("refused: {}", text(&result["error"])));
            continue;
        }
        let output = result["output"].as_f64().map_or("-".into(), |output| format!("{output:.5}"));
        let decision = if result["decision"] == true { "yes" } else { "no" };
        let mut marks: Vec<String> = list(&result["marks"]).iter().map(text).collect();
        if !result["degraded"].is_null() {
            // The kind is enough here; `--json` has the whole reason.
            marks.insert(0, text(&result["degraded"]).split(':').next().unwrap_or_default().to_owned());
        }
        let (version, latency) = (text(&result["version"]), text(&result["latency_us"]));
        let line = format!("{id:<32} {version:>7} {output:>8} {decision:<8} {latency:>8}  {}", marks.join(","));
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_with_long_errors_fits_80_columns_and_says_what_matters() {
        let long = "release: the package file has hash 0011, the release says 2233: ".repeat(4);
        let shown = status(&json!({
            "device": "edge-1", "agent": "0.1.0", "health": {"ok": false, "problems": [long]},
            "hub": {"connected": true, "transport": "tls", "since": "2026-11-21T03:00:00Z", "generation": 3,
                "failures": {"quic": long}, "next_probe": "2026-11-21T03:01:00Z", "audit_problem": null,
                "certificate": {"serial": "0a".repeat(16), "not_after": "2027-02-19T03:00:00Z",
                    "next_attempt": "2027-01-20T03:00:00Z", "error": null},
                "audit": {"number": 7, "hash": "0b".repeat(32)}}, "serving": null,
            "lines": [{"line": "card-fraud", "role": "primary", "state": "RolledBack", "committed": 1,
                "undone": {"version": 2, "why": long}, "error": long}],
            "unfit": [{"line": "card-fraud", "role": "shadow", "version": 3, "reasons": [long]}],
            "flags": {"new-form": "on"},
            "events": {"accepted": 12, "waiting": 0, "watermark": null, "refused": {"future": 2, "malformed": 0}},
            "download": {"under_way": [{"path": "targets/models/fraud/x.v2.tpk", "bytes": 250, "of": 1000, "from": "quic",
                "waits_for": "its hours, which begin at 22:00"}], "failures": {"https://m.example": long}},
            "outbox": {"batches": 1, "bytes": 2, "dropped_records": 0}, "memory_bytes": 1048576,
        }));
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
        for words in [
            "connected over tls",
            "quic failed",
            "tried again",
            "ends 2027",
            "  7:0b0b",
            "fallback",
            "RolledBack, committed 1",
            "250 of 1000 bytes (25 %) from quic",
            "waits for its hours",
            "https://m.example failed",
            "2 refused: future",
            "card-fraud shadow version 3: ",
            "new-form = on",
            "1.0 MiB",
        ] {
            assert!(shown.contains(words), "{words} in\n{shown}");
        }
        assert!(!shown.contains("malformed"));
    }

    #[test]
    fn results_show_decisions_and_refusals() {
        let shown = results(&json!({"results": [
            {"id": "t1", "status": "predicted", "version": 2, "output": 0.25, "decision": true, "degraded": null,
             "marks": ["cold"], "latency_us": 80},
            {"id": "t2", "status": "refused", "error": "value amount is missing"},
        ]}));
        assert!(shown.contains("yes") && shown.contains("cold") && shown.contains("amount is missing"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
    }
}
