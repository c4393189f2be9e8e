//! Sampling and giving up, from the operator's web API to the agent's process and back into the lake, with the real
//! programs: everything accepted is in the lake, was sampled out, or was reported as given up.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use cloud_hub_lake::{FileEntry, Lake};
use edge_agent_core::sampling::{coin, seed_of};
use hyper::Method;
use serde_json::{Value, json};
use tributary_demo::fleet::{Fleet, Wish, device};
use tributary_demo::{recount, wait};
use tributary_process::disk::RealDisk;
use tributary_wire::{DeviceId, Micros, StreamName};

/// A debug build on a busy machine needs seconds for what takes milliseconds otherwise.
const PATIENCE: Duration = Duration::from_secs(180);
const START: Micros = Micros(1_522_540_800_000_000);

/// Events of the agent that the policy does not mean.
const OTHERS: i64 = 100;

/// Sends events `from..to` to an agent, a minute of event time apart; they were accepted durably.
async fn send(fleet: &Fleet, agent: usize, from: i64, to: i64) {
    for begin in (from..to).step_by(100) {
        let events: Vec<Value> = (begin..to.min(begin + 100))
            .map(|number| {
                json!({
                    "id": format!("e{agent}-{number}"),
                    "time": START.0 + number * 60_000_000,
                    "entities": {"customer_id": number % 50, "terminal_id": number % 7},
                    "values": {"amount": number as f64 / 10.0},
                })
            })
            .collect();
        let answer: Value = fleet.locals[agent].call(Method::POST, "/v1/events?durable=true", &events).await.unwrap();
        let results = answer["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["status"] == "accepted"), "{answer:#}");
    }
}

async fn until(fleet: &mut Fleet, what: &str, path: &str, done: impl Fn(&Value) -> bool) -> Value {
    let found = wait::until(what, PATIENCE, async || {
        fleet.check()?;
        let found: Value = fleet.api.get(path).await?;
        Ok(if done(&found) { Ok(found) } else { Err(found.to_string()) })
    });
    found.await.unwrap()
}

/// Rows and records given up, by stream.
fn streams(found: &Value) -> BTreeMap<String, (u64, u64)> {
    let number = |stream: &Value, name: &str| stream[name].as_u64().unwrap();
    let all = found.as_array().unwrap().iter();
    all.map(|it| (it["stream"].as_str().unwrap().to_owned(), (number(it, "rows"), number(it, "dropped")))).collect()
}

/// The probabilities that the lake has with the records of a stream, by whose agent's they are: lowest and highest.
fn inclusions(fleet: &Fleet, stream: &str) -> Vec<(f64, f64)> {
    let lake = Lake::open(Arc::new(RealDisk), fleet.lake()).unwrap();
    let name = StreamName::new(stream).unwrap();
    for (place, path) in recount::files(&fleet.lake().join(stream)).unwrap().into_iter().enumerate() {
        let path = path.strip_prefix(fleet.lake()).unwrap().to_str().unwrap().to_owned();
        let (entry, _, schema) = lake.describe(&path).unwrap();
        lake.set_schema(&name, schema);
        lake.register([FileEntry { number: place as i64 + 1, ..entry }]);
    }
    let mut found = vec![(f64::MAX, f64::MIN); fleet.locals.len()];
    for records in lake.scan(&name, i64::MIN..=i64::MAX, Some(&["event_id", "inclusion"])).unwrap() {
        let records = records.unwrap();
        let (ids, probabilities) =
            (records.column(0).as_string::<i32>(), records.column(1).as_primitive::<Float64Type>());
        for (id, probability) in ids.iter().zip(probabilities) {
            let agent = id.unwrap().split_once('-').unwrap().0.trim_start_matches('e').parse::<usize>().unwrap();
            let (low, high) = &mut found[agent];
            (*low, *high) = (low.min(probability.unwrap()), high.max(probability.unwrap()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_of_the_hub_is_kept_to_and_everything_accepted_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let executable = PathBuf::from(env!("CARGO_BIN_EXE_programs"));
    let wish = Wish { executable, agents: 2, view: tributary_fraud::VIEW_TOML, misled: None };
    let mut fleet = Fleet::start(folder.path(), &wish).await.unwrap();
    let devices = format!("/api/v1/devices/{}", device(0));

    // For one of two devices.
    let lyon = json!({"labels": {"site": "lyon"}});
    fleet.api.call::<Value>(Method::PUT, &devices, &lyon).await.unwrap();
    let policy = json!({"selector": "site=lyon", "policy": {"random": 0.1, "outbox_bytes": 1 << 30}});
    let stored: Value = fleet.api.call(Method::PUT, "/api/v1/sampling/lyon", &policy).await.unwrap();
    let number = stored["number"].clone();
    let found = until(&mut fleet, "the policy is in force", &devices, |it| it["withheld"]["number"] == number).await;
    assert_eq!((&found["sampling_policy"], &found["withheld"]["limited"]), (&json!("lyon"), &json!(true)), "{found:#}");
    send(&fleet, 0, 0, 400).await;
    send(&fleet, 1, 0, OTHERS).await;
    let seed = seed_of(&DeviceId::new(&device(0)).unwrap());
    let chosen = |from: i64, to: i64| (from..to).filter(|it| coin(seed, &format!("e0-{it}")) < 0.1).count() as u64;
    let (others, path) = (OTHERS as u64, "/api/v1/lake/streams");
    let all = until(&mut fleet, "all that was chosen is in the lake", path, |found| {
        let found = streams(found);
        let of = |name: &str| found.get(name).map_or(0, |(rows, _)| *rows);
        of("events") >= 400 + others && of("observations") >= chosen(0, 400) + others
    });
    let all = streams(&all.await);
    let expected = [(400 + others, 0), (chosen(0, 400) + others, 0)];
    assert_eq!(
        [all["events"], all["observations"]],
        expected,
        "by the coins alone; the view's windows need every event"
    );
    assert_eq!(inclusions(&fleet, "events"), [(1.0, 1.0); 2]);
    assert_eq!(inclusions(&fleet, "observations"), [(0.1, 0.1), (1.0, 1.0)]);

    // Away from the hub, with room for little: observations go first, then events, and the gaps say so.
    fleet.hub.kill();
    fleet.agents[0].kill();
    let path = folder.path().join(format!("{}.toml", device(0)));
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    writeln!(file, "\n[outbox]\nbudget = \"24KiB\"\nbatch_rows = 20").unwrap();
    fleet.agents[0].start().unwrap();
    fleet.agents_answer(PATIENCE).await.unwrap();
    send(&fleet, 0, 400, 2_000).await;
    let status: Value = fleet.locals[0].get("/v1/status").await.unwrap();
    assert_eq!(status["sampling"]["policy"]["number"], number, "it was not forgotten: {status:#}");
    let dropped = status["outbox"]["dropped_records"].as_u64().unwrap();
    assert!(dropped > 100, "{status:#}");
    fleet.hub.start().unwrap();
    fleet.hub_answers(PATIENCE).await.unwrap();
    let all = until(&mut fleet, "every event is in the lake or in a gap", "/api/v1/lake/streams", |found| {
        let found = streams(found);
        let of = |name: &str| found.get(name).map_or(0, |(rows, dropped)| rows + dropped);
        of("events") == 2_000 + others && of("observations") == chosen(0, 2_000) + others
    });
    let all = streams(&all.await);
    assert_eq!(all["events"].1 + all["observations"].1, dropped, "{all:?}");
    let gaps: Value = fleet.api.get("/api/v1/lake/gaps?stream=events&reason=disk-budget&limit=1").await.unwrap();
    let gap = &gaps["items"][0];
    assert!(gap["from_time"].as_i64().unwrap() >= START.0 + 400 * 60_000_000, "{gaps:#}");
    assert!(gap["to_time"].as_i64().unwrap() < START.0 + 2_000 * 60_000_000, "{gaps:#}");
    let none: Value = fleet.api.get("/api/v1/lake/gaps?device=other").await.unwrap();
    assert_eq!(none["items"], json!([]));

    // Taken back, the device's own configuration counts again.
    let clear = fleet.api.send(Method::DELETE, "/api/v1/sampling/lyon", "", bytes::Bytes::new()).await.unwrap();
    clear.accepted().unwrap();
    let found = until(&mut fleet, "the device's own policy counts", &devices, |it| it["withheld"]["number"] == 0).await;
    let withheld = &found["withheld"];
    assert_eq!(withheld["kept"].as_u64().unwrap() + withheld["left_out"].as_u64().unwrap(), 2_000, "{found:#}");
    let lost: u64 = withheld["dropped"].as_array().unwrap().iter().map(|it| it["records"].as_u64().unwrap()).sum();
    assert_eq!(lost, dropped, "{found:#}");
    let other: Value = fleet.api.get(&format!("/api/v1/devices/{}", device(1))).await.unwrap();
    let withheld = ["number", "kept", "left_out"].map(|name| other["withheld"][name].as_u64());
    assert_eq!(withheld, [Some(0), Some(others), Some(0)], "{other:#}");
}
