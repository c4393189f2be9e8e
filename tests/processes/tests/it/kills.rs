//! SIGKILL of hub and agents at random moments, over and over: what sources were told was accepted is in the lake,
//! once, counted by our own reader and by one that is not ours. `TRIBUTARY_KILLS=500` kills more often,
//! `TRIBUTARY_SEED=7` at other moments; the figures are written to the terminal.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Method;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tributary_demo::fleet::{Fleet, Wish, device};
use tributary_demo::{recount, wait};
use tributary_fraud::{Generator, GeneratorConfig, Transaction};
use tributary_process::http::Client;

use crate::{model, tools};

const AGENTS: usize = 2;
const STREAMS: [&str; 2] = ["events", "observations"];
/// A debug build on a busy machine needs seconds for what takes milliseconds otherwise.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often, unless `TRIBUTARY_KILLS` says otherwise.
const KILLS: u64 = 25;
/// Of the moments and the victims, unless `TRIBUTARY_SEED` says otherwise.
const SEED: u64 = 5;

fn payments() -> Vec<Transaction> {
    let config = GeneratorConfig { seed: 11, customers: 120, terminals: 40, days: 12, ..GeneratorConfig::default() };
    Generator::new(config).collect()
}

/// Posts everything, in order, again and again until it is answered: the source that promise 1 speaks of.
async fn feed(agent: Client, payments: Vec<Transaction>, sent: Arc<AtomicUsize>) -> HashSet<String> {
    let agent = agent.with_timeout(Duration::from_secs(20));
    let mut accepted = HashSet::new();
    for chunk in payments.chunks(10) {
        let events: Vec<Value> = chunk
            .iter()
            .map(|payment| {
                json!({"id": format!("tx-{}", payment.id), "time": payment.time.0,
                       "entities": {"customer_id": payment.customer_id, "terminal_id": payment.terminal_id},
                       "values": {"amount": payment.amount}})
            })
            .collect();
        let answer: Value = loop {
            match agent.call(Method::POST, "/v1/events?durable=true", &events).await {
                Ok(answer) => break answer,
                // Killed, or starting again: an unanswered event may or may not be accepted, so it is sent again.
                Err(error) if error.status().is_none() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("an agent refused payments: {error}"),
            }
        };
        for result in answer["results"].as_array().unwrap() {
            assert!(matches!(result["status"].as_str(), Some("accepted" | "duplicate")), "{result}");
            assert_eq!(result["durable"], true, "{result}");
            accepted.insert(result["id"].as_str().unwrap().to_owned());
        }
        sent.fetch_add(chunk.len(), Ordering::Relaxed);
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_hub_and_agents_over_and_over_loses_and_doubles_nothing() {
    let (kills, seed) = (tools::number("TRIBUTARY_KILLS"), tools::number("TRIBUTARY_SEED"));
    let (kills, seed) = (kills.unwrap_or(KILLS) as usize, seed.unwrap_or(SEED));
    assert!(kills > 0, "TRIBUTARY_KILLS is 0; expected a number from 1 on");
    let folder = tempfile::tempdir().unwrap();
    let wish = Wish {
        executable: PathBuf::from(env!("CARGO_BIN_EXE_programs")),
        agents: AGENTS,
        view: tributary_fraud::VIEW_TOML,
        misled: None,
    };
    let mut fleet = Fleet::start(folder.path(), &wish).await.unwrap();

    let payments = payments();
    let total = payments.len();
    let sent = Arc::new(AtomicUsize::new(0));
    let mut feeders = Vec::new();
    for index in 0..AGENTS {
        let mine = payments.iter().filter(|payment| payment.device(AGENTS) == index).cloned().collect();
        feeders.push(tokio::spawn(feed(fleet.locals[index].clone(), mine, sent.clone())));
    }

    // Releases go out meanwhile, so that some kills come upon a download or a trial.
    let release = |version: &str| {
        let path = folder.path().join(format!("{version}.tpk"));
        std::fs::write(&path, model::package(version.parse().unwrap())).unwrap();
        path.display().to_string()
    };
    let operator = |fleet: &Fleet, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_programs"));
        let done = command.arg("hub").args(arguments).envs(fleet.access()).output().unwrap();
        done.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let view = folder.path().join("view.toml").display().to_string();
    operator(&fleet, &["view", "add", &view]).unwrap();
    operator(&fleet, &["line", "set", "card-fraud", "--view", "card-risk"]).unwrap();
    for version in ["1", "2"] {
        operator(&fleet, &["model", "upload", "card-fraud", &release(version)]).unwrap();
        operator(&fleet, &["model", "publish", "card-fraud", version]).unwrap();
    }
    let mut started = 0;

    // Each kill waits for some more payments to be answered, so that the kills spread over the stream at any speed.
    let mut chance = SmallRng::seed_from_u64(seed);
    let mut of_hub = 0;
    for kill in 0..kills {
        let due = total * (kill + 1) / (kills + 2);
        wait::until("payments are answered", PATIENCE, async || {
            let sent = sent.load(Ordering::Relaxed);
            Ok(if sent >= due { Ok(()) } else { Err(format!("{sent} of {due}")) })
        })
        .await
        .unwrap();
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..300))).await;
        // The first at the beginning, the second when half is through.
        let due = [0, kills / 2];
        if due.get(started).is_some_and(|due| kill >= *due) {
            fleet.hub_answers(PATIENCE).await.unwrap();
            let version = (started + 1).to_string();
            let done = operator(&fleet, &["rollout", "start", "card-fraud", &version, "--strategy", "all"]);
            // One is under way at a time; the next kill tries again.
            match done {
                Ok(()) => started += 1,
                Err(error) => assert!(error.contains("rollout"), "{error}"),
            }
        }
        let victim = chance.random_range(0..=AGENTS);
        let program = if victim == AGENTS { &mut fleet.hub } else { &mut fleet.agents[victim] };
        program.kill();
        program.start().unwrap();
        of_hub += u32::from(victim == AGENTS);
    }
    fleet.hub_answers(PATIENCE).await.unwrap();
    fleet.agents_answer(PATIENCE).await.unwrap();
    assert!(started > 0, "a release goes out between kills");
    let mut accepted = HashSet::new();
    for feeder in feeders {
        accepted.extend(feeder.await.unwrap());
    }
    assert_eq!(accepted.len(), total, "every payment was accepted in the end");

    let lake = fleet.lake();
    for stream in STREAMS {
        wait::until(&format!("all {stream} are in the lake"), PATIENCE, async || {
            fleet.check()?;
            // A file that is being replaced just now is looked at again in the next round.
            let found = recount::event_ids(&lake, stream).map_or(0, |counts| counts.len());
            Ok(if found >= total { Ok(()) } else { Err(format!("{found} of {total}")) })
        })
        .await
        .unwrap();
    }
    let python = tools::python("the recount after kills by another reader");
    for stream in STREAMS {
        let own = recount::event_ids(&lake, stream).unwrap();
        let others = python.as_ref().map(|python| tools::recount(python, &lake, stream));
        for counts in [Some(&own), others.as_ref()].into_iter().flatten() {
            let lost: Vec<_> = accepted.iter().filter(|id| !counts.contains_key(*id)).take(5).collect();
            let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).take(5).collect();
            let foreign: Vec<_> = counts.keys().filter(|id| !accepted.contains(*id)).take(5).collect();
            assert!(lost.is_empty(), "{stream}: lost {lost:?}");
            assert!(doubled.is_empty(), "{stream}: more than once {doubled:?}");
            assert!(foreign.is_empty(), "{stream}: never accepted {foreign:?}");
        }
        // For the page of figures: what was asserted, in numbers.
        tools::say(&format!(
            "{stream}: {kills} kills survived ({of_hub} of the hub, seed {seed}), {} records accepted, {} in the lake, \
             lost 0, twice 0{}",
            accepted.len(),
            own.len(),
            if others.is_some() { ", counted by two readers" } else { "" }
        ));
    }
    for index in 0..AGENTS {
        // Whatever was killed on its way: a whole package is in place, or on trial until more is predicted, or undone,
        // because a restart during a trial undoes it.
        wait::until("nothing is left half-way", PATIENCE, async || {
            let status: Value = fleet.locals[index].get("/v1/status").await?;
            let line = &status["lines"][0];
            let undone = line["state"] == "Idle" && line["candidate"].is_null();
            Ok(if line["committed"].is_u64() || line["state"] == "Trial" || undone {
                Ok(())
            } else {
                Err(line.to_string())
            })
        })
        .await
        .unwrap();
        let status: Value = fleet.locals[index].get("/v1/status").await.unwrap();
        eprintln!("{}: {status}", device(index));
    }
}
