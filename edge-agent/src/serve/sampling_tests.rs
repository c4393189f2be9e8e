//! Sampling where it is done: what is sent, with which probability, over crashes and changes of policy.

use std::collections::{BTreeMap, BTreeSet};

use edge_agent_core::sampling::{coin, seed_of};
use tributary_features::View;
use tributary_wire::{BatchBody, Column, DeviceId, Rare, Role, SamplingPolicy, Uncertain};

use crate::state::Store;
use crate::state::tests::all;
use crate::testing::{Rig, Running, VIEW, event, line, package, view};

/// Ids and inclusion probabilities of a stream.
fn sent(store: &Store, stream: &str) -> BTreeMap<String, f64> {
    let mut sent = BTreeMap::new();
    for (_, body) in all(store, stream) {
        let BatchBody::Records { schema, columns } = body else { panic!("nothing was dropped") };
        let column = |name: &str| &columns[schema.iter().position(|field| field.name == name).unwrap()];
        let (Column::Text(ids), Column::Double(inclusion)) = (column("event_id"), column("inclusion")) else {
            panic!("ids are texts, probabilities doubles")
        };
        for (id, inclusion) in ids.iter().zip(inclusion) {
            assert_eq!(sent.insert(id.clone().unwrap(), inclusion.unwrap()), None, "sent twice");
        }
    }
    sent
}

fn serve_one(running: &Running, view: View) {
    let package = package(1, view, |row| Ok((row[0] / 100.0).min(1.0)));
    running.serving.swap(&line(), &Role::primary(), Some(package)).unwrap();
}

fn policy() -> SamplingPolicy {
    SamplingPolicy {
        random: 100_000,
        uncertain: Some(Uncertain { band: 20_000, share: 900_000 }),
        ..SamplingPolicy::EVERYTHING
    }
}

fn thrown(id: &str) -> f64 {
    coin(seed_of(&DeviceId::new("edge-1").unwrap()), id)
}

#[test]
fn kills_change_nothing_about_what_is_sampled_and_every_accepted_observation_is_counted_once() {
    for seed in 0..6 {
        let mut rig = Rig::new();
        rig.sampling = policy();
        let mut running = rig.start();
        serve_one(&running, view());
        let (mut next, mut crashes) = (0, 0);
        while next < 300 {
            rig.disk.fail_after(7 + (seed * 31 + next + crashes) % 60);
            let end = (next + 11).min(300);
            match running.submit((next..end).map(event).collect()) {
                Ok(_) => next = end,
                Err(_) => {
                    crashes += 1;
                    rig.disk.crash(Some(seed * 1000 + crashes));
                    running.stop();
                    running = rig.start();
                    serve_one(&running, view());
                }
            }
        }
        rig.disk.fail_after(1 << 40);
        let (store, serving) = (running.store.clone(), running.serving.clone());
        running.stop();
        assert!(crashes > 0, "seed {seed} never crashed");
        let observations = sent(&store, "observations");
        for number in 0..300 {
            let id = format!("e-{number}");
            // The amount is the output in percent; the threshold is a half.
            let close = ((number as f64 * 0.37 + 0.1) - 50.0).abs() <= 2.0;
            let probability = if close { 0.9 } else { 0.1 };
            let expected = (thrown(&id) < probability).then_some(probability);
            assert_eq!(observations.get(&id).copied(), expected, "seed {seed}, {id}");
        }
        // The windows of the view need every event.
        let events = sent(&store, "events");
        assert!(events.len() == 300 && events.values().all(|inclusion| *inclusion == 1.0));
        let report = serving.withheld().sampling;
        assert_eq!((report.kept, report.left_out, report.uncovered), (observations.len() as u64, 300 - report.kept, 0));
        assert_eq!(report.events_left_out, 0);
    }
}

#[test]
fn events_go_with_their_observations_where_only_what_was_served_is_trained_on() {
    let mut rig = Rig::new();
    rig.sampling = policy();
    let served = VIEW.replacen("version = 1", "version = 2\nserved_only = true", 1);
    let running = rig.start();
    serve_one(&running, View::from_toml(&served).unwrap());
    for begin in 0..20 {
        running.submit((begin * 20..begin * 20 + 20).map(event).collect()).unwrap();
    }
    let (store, serving) = (running.store.clone(), running.serving.clone());
    running.stop();
    let events = sent(&store, "events");
    assert_eq!(events, sent(&store, "observations"));
    assert!((20..200).contains(&events.len()) && events.values().any(|inclusion| *inclusion == 0.1));
    let report = serving.withheld().sampling;
    assert_eq!((report.kept + report.events_left_out, report.left_out), (400, report.events_left_out));
    // Windows are whole all the same: nothing that is accepted is forgotten on the device.
    let mut accepted = 0;
    store.replay(0, |_| accepted += 1).unwrap();
    assert_eq!(accepted, 400);
}

#[test]
fn the_hubs_policy_takes_the_place_of_the_devices_own_within_its_limits_and_goes_again() {
    let mut rig = Rig::new();
    rig.sampling.keep_seconds = Some(86_400);
    let running = rig.start();
    serve_one(&running, view());
    let submit = |from: u64| running.submit((from..from + 50).map(event).collect()).unwrap();
    submit(0);
    let hub = SamplingPolicy { number: 7, keep_seconds: Some(1 << 30), ..policy() };
    running.serving.sample(Some(&hub));
    submit(50);
    let withheld = running.serving.withheld();
    assert_eq!((withheld.sampling.number, withheld.sampling.limited, withheld.problem), (7, true, None));
    assert_eq!(running.serving.sampling().policy.keep_seconds, Some(86_400));
    assert!(withheld.sampling.left_out > 20 && withheld.sampling.kept >= 50);
    running.serving.sample(Some(&SamplingPolicy { random: 0, ..hub }));
    let withheld = running.serving.withheld();
    assert_eq!(withheld.sampling.number, 0);
    assert!(withheld.problem.unwrap().contains("`random`"));
    running.serving.sample(None);
    submit(100);
    let store = running.store.clone();
    running.stop();
    let observations = sent(&store, "observations");
    let of = |from: u64| (from..from + 50).filter(|n| observations.contains_key(&format!("e-{n}"))).count();
    assert_eq!((of(0), of(100)), (50, 50));
    assert!(of(50) < 30, "{}", of(50));
}

#[test]
fn what_is_close_or_rare_outlives_the_rest_when_room_is_short() {
    let mut rig = Rig::new();
    rig.sampling = SamplingPolicy {
        uncertain: Some(Uncertain { band: 20_000, share: 1_000_000 }),
        rare: Some(Rare { at_most: 1_000, share: 1_000_000 }),
        ..SamplingPolicy::EVERYTHING
    };
    rig.budget = 20_000;
    let running = rig.start();
    serve_one(&running, view());
    for begin in 0..30 {
        running.submit((begin * 10..begin * 10 + 10).map(event).collect()).unwrap();
    }
    let (store, serving) = (running.store.clone(), running.serving.clone());
    running.stop();
    assert!(store.outgoing().bytes <= 20_000);
    let dropped: BTreeSet<String> = serving.withheld().dropped.iter().map(|it| it.stream.to_string()).collect();
    assert_eq!(dropped, BTreeSet::from(["observations".to_owned()]));
    let mut found = 0;
    for (_, body) in all(&store, "observations") {
        let BatchBody::Records { schema, columns } = body else { continue };
        let at = schema.iter().position(|field| field.name == "event_id").unwrap();
        let Column::Text(ids) = &columns[at] else { panic!("ids are texts") };
        let close = |id: &Option<String>| {
            let number: f64 = id.as_ref().unwrap()[2..].parse().unwrap();
            (number * 0.37 + 0.1 - 50.0).abs() <= 2.0
        };
        found += ids.iter().filter(|id| close(id)).count();
    }
    assert_eq!(found, 11, "all the close ones are there");
}
