use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tributary_features::{DeviceWindows, Row, Value, View};
use tributary_stats::Sketch;
use tributary_wire::{BatchBody, Column, Role, Sha256};

use super::*;
use crate::sources::TimeError;
use crate::state::tests::all;
use crate::state::{Accepted, Store};
use crate::testing::{Rig, Running, START, VIEW, event, line, package, replay_rules, submission, view};

fn kept(store: &Store) -> Vec<Accepted> {
    let mut kept = Vec::new();
    store.replay(0, |accepted| kept.push(accepted)).unwrap();
    kept
}

/// Features as an uninterrupted run over the same events would have served them.
fn check_features(accepted: &[Accepted]) {
    let view = view();
    let mut windows = DeviceWindows::new(&view);
    for (index, accepted) in accepted.iter().enumerate() {
        assert_eq!(accepted.number, index as u64 + 1, "accept numbers have no hole");
        let row: Row = view.row(&accepted.event).unwrap();
        let mut features = vec![0.0; 3];
        let marks = windows.observe(&row, &mut features);
        let served = &accepted.observations[0];
        let bits = |features: &[f32]| features.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&features), bits(&served.features), "event {}", accepted.number);
        assert_eq!(marks.bits(), served.marks, "event {}", accepted.number);
    }
}

fn numbers(store: &Store, stream: &str, column: &str) -> Vec<i64> {
    let mut numbers = Vec::new();
    for (index, (header, body)) in all(store, stream).into_iter().enumerate() {
        assert_eq!(header.sequence.0, index as u64 + 1);
        let BatchBody::Records { schema, columns } = body else { panic!("nothing was dropped") };
        let at = schema.iter().position(|field| field.name == column).unwrap();
        let Column::Int(values) = &columns[at] else { panic!("{column} is a number") };
        numbers.extend(values.iter().map(|value| value.unwrap()));
    }
    numbers
}

fn serve_one(running: &Running) {
    running.serving.swap(&line(), &Role::primary(), Some(package(1, view(), |row| Ok(row[0] / 1000.0)))).unwrap();
}

#[test]
fn killed_at_any_write_nothing_acknowledged_is_lost_nothing_is_doubled_and_windows_come_back_bit_for_bit() {
    for seed in 0..12 {
        let rig = Rig::new();
        let mut chance = StdRng::seed_from_u64(seed);
        let mut running = rig.start();
        serve_one(&running);
        let mut next = 0;
        let mut told = BTreeSet::new();
        let mut crashes = 0;
        while next < 300 {
            if chance.random_bool(0.15) {
                rig.disk.fail_after(chance.random_range(0..40));
            }
            let end = (next + chance.random_range(1..20)).min(300);
            match running.submit((next..end).map(event).collect()) {
                Ok(outcomes) => {
                    for (number, outcome) in (next..end).zip(outcomes) {
                        assert!(
                            matches!(
                                outcome,
                                Outcome::Accepted { durable: true, .. } | Outcome::Duplicate { durable: true, .. }
                            ),
                            "event {number}: {outcome:?}"
                        );
                        told.insert(format!("e-{number}"));
                    }
                    next = end;
                }
                Err(SubmitError::Storage(_)) => {
                    // The power goes; the caller asks again, as callers do that got no answer.
                    crashes += 1;
                    rig.disk.crash(chance.random_bool(0.7).then_some(seed * 1000 + crashes));
                    running.stop();
                    if chance.random_bool(0.2) {
                        std::fs::remove_dir_all(rig.folder.path().join("windows")).unwrap();
                    }
                    running = rig.start();
                    serve_one(&running);
                    for id in &told {
                        assert!(running.store.answer(id).unwrap().is_some(), "seed {seed}: {id} was acknowledged");
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
        rig.disk.crash(Some(seed));
        running.stop();
        let running = rig.start();
        serve_one(&running);
        running.submit(vec![event(300)]).unwrap();
        let store = running.store.clone();
        running.stop();
        let accepted = kept(&store);
        assert_eq!(accepted.len(), 301, "seed {seed}");
        check_features(&accepted);
        let expected: Vec<i64> = (1..=301).collect();
        assert_eq!(numbers(&store, "events", "accepted"), expected, "seed {seed}");
        assert_eq!(numbers(&store, "observations", "accepted"), expected, "seed {seed}");
        assert!(crashes > 0, "seed {seed} never crashed");
        assert_eq!(sketched(&store), 301, "seed {seed}: predictions in sketches");
    }
}

/// Predictions in all sketches, finished and open.
fn sketched(store: &Store) -> u64 {
    let open = store.load().unwrap().open_sketches.into_iter().map(|(_, bytes)| bytes);
    let finished = all(store, "sketches").into_iter().flat_map(|(_, body)| match body {
        BatchBody::Records { columns, .. } => match columns.into_iter().next_back().unwrap() {
            Column::Bytes(values) => values.into_iter().flatten().collect::<Vec<_>>(),
            _ => panic!("sketches are bytes"),
        },
        BatchBody::Gap { .. } | BatchBody::GapV2 { .. } => panic!("nothing was dropped"),
    });
    open.chain(finished).map(|bytes| Sketch::decode(&bytes).unwrap().predictions).sum()
}

#[test]
fn when_the_disk_is_full_the_caller_hears_it_and_the_windows_forget_the_event() {
    let rig = Rig::new();
    let running = rig.start();
    // All within a day, so that none is ever too old to be kept.
    let event = |n: u64| {
        let mut event = event(n % 100);
        event.time = START;
        event.id = tributary_wire::EventId::new(&format!("e-{n}")).unwrap();
        event
    };
    running.submit((0..50).map(event).collect()).unwrap();
    rig.disk.set_capacity(Some(rig.disk.used()));
    let mut refused = None;
    // The file has some room left inside.
    for first in (50..500_000).step_by(1000) {
        match running.submit((first..first + 1000).map(event).collect()) {
            Ok(_) => {}
            Err(error) => {
                refused = Some((first, error));
                break;
            }
        }
    }
    let (first, error) = refused.expect("the disk is full at last");
    assert!(error.to_string().contains("no space left"), "{error}");
    rig.disk.set_capacity(None);
    let deadline = Instant::now() + Duration::from_secs(10);
    while running.submit(vec![event(first + 2000)]).is_err() {
        assert!(Instant::now() < deadline, "the state opens again");
        std::thread::yield_now();
    }
    assert_eq!(running.serving.shown().storage_error, None);
    let accepted = kept(&running.store);
    check_features(&accepted);
    assert!(running.store.answer(&format!("e-{first}")).unwrap().is_none());
    running.stop();
}

#[test]
fn a_repeated_id_gets_the_first_answer_also_after_a_restart_and_behind_the_watermark() {
    let rig = Rig::new();
    let running = rig.start();
    let first = running.submit(vec![event(1), event(1)]).unwrap();
    let Outcome::Accepted { answer, durable: true } = &first[0] else { panic!("{first:?}") };
    assert_eq!(first[1], Outcome::Duplicate { answer: answer.clone(), durable: true });
    running.submit(vec![event(1000)]).unwrap();
    running.stop();
    let running = rig.start();
    let mut changed = event(1);
    changed.values[0].1 = Value::Double(5.0);
    assert_eq!(running.submit(vec![changed]).unwrap(), [first[1].clone()]);
    let sources = running.serving.shown().sources;
    assert_eq!((sources[0].1.accepted, sources[0].1.duplicates), (2, 2));
    running.stop();
}

#[test]
fn an_id_is_remembered_for_the_declared_number_of_events() {
    let mut rig = Rig::new();
    rig.remember_events = 20;
    let running = rig.start();
    running.submit((0..64).map(event).collect()).unwrap();
    assert!(running.store.answer("e-5").unwrap().is_none());
    assert!(running.store.answer("e-50").unwrap().is_some());
    running.stop();
}

#[test]
fn events_that_do_not_fit_are_refused_each_with_its_reason_and_the_rest_goes_on() {
    let rig = Rig::new();
    let running = rig.start();
    let with = |change: fn(&mut Event)| {
        let mut event = event(20);
        change(&mut event);
        event
    };
    running.submit(vec![event(15)]).unwrap();
    let outcomes = running
        .submit(vec![
            with(|event| event.values.clear()),
            with(|event| event.values[0].1 = Value::Text("x".into())),
            with(|event| event.values[0].1 = Value::Double(f64::NAN)),
            with(|event| event.values[0].1 = Value::Double(f64::INFINITY)),
            with(|event| event.values.push(("extra".into(), Value::Int(1)))),
            with(|event| event.entities.clear()),
            event(1),
            with(|_| {}),
        ])
        .unwrap();
    let reasons: Vec<&str> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Refused(refusal) => refusal.reason(),
            _ => "accepted",
        })
        .collect();
    assert_eq!(
        reasons,
        [
            "missing-field",
            "wrong-type",
            "not-finite",
            "not-finite",
            "unknown-field",
            "missing-field",
            "behind-watermark",
            "accepted"
        ]
    );
    assert!(matches!(&outcomes[6], Outcome::Refused(Refusal::Time(TimeError::BehindWatermark { .. }))));
    running.stop();
}

#[test]
fn a_broken_snapshot_is_thrown_away_and_the_windows_are_replayed() {
    let rig = Rig::new();
    let running = rig.start();
    (0..100).step_by(10).for_each(|n| drop(running.submit((n..n + 10).map(event).collect()).unwrap()));
    running.stop();
    let running = rig.start();
    let recovery = running.serving.shown().recovery.unwrap();
    assert_eq!((recovery.snapshot, recovery.replayed, recovery.problem), (Some(100), 0, None));
    running.stop();
    for entry in std::fs::read_dir(rig.folder.path().join("windows")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(path, vec![0xa5; 5000]).unwrap();
        }
    }
    let running = rig.start();
    let recovery = running.serving.shown().recovery.unwrap();
    assert!(recovery.problem.is_some());
    assert_eq!((recovery.snapshot, recovery.replayed), (None, 100));
    running.submit((100..140).map(event).collect()).unwrap();
    let accepted = kept(&running.store);
    running.stop();
    check_features(&accepted);
}

#[test]
fn windows_whose_events_are_gone_are_marked_cold() {
    let mut rig = Rig::new();
    rig.retain_events = 20;
    let running = rig.start();
    running.submit((0..64).map(event).collect()).unwrap();
    running.submit((64..96).map(event).collect()).unwrap();
    running.stop();
    std::fs::remove_dir_all(rig.folder.path().join("windows")).unwrap();
    let running = rig.start();
    assert!(running.serving.shown().recovery.unwrap().replayed < 96);
    let outcomes = running.submit(vec![event(96)]).unwrap();
    let Outcome::Accepted { answer, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(tributary_features::Marks::from_bits(answer.marks).contains(tributary_features::Marks::COLD));
    running.stop();
}

#[test]
fn packages_are_switched_under_load_without_a_lost_or_degraded_answer() {
    let rig = Rig::new();
    let running = rig.start();
    serve_one(&running);
    let packages = [
        package(1, view(), |row| Ok(row[0] / 1000.0)),
        package(2, view(), |row| Ok(row[0] / 2000.0)),
        // Another view with the same features: the windows are rebuilt on the way.
        package(3, View::from_toml(&VIEW.replace("version = 1", "version = 2")).unwrap(), |row| Ok(row[0] / 3000.0)),
    ];
    let versions: BTreeMap<u32, u64> = running.runtime.block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for caller in 0..4u64 {
            let serving = running.serving.clone();
            calls.spawn(async move {
                let mut versions = Vec::new();
                for n in 0..100 {
                    // All at one time, so that no caller is behind another's watermark.
                    let mut event = event(0);
                    event.id = tributary_wire::EventId::new(&format!("c{caller}-{n}")).unwrap();
                    let outcomes = serving.submit(submission(vec![event])).await.unwrap();
                    let Outcome::Accepted { answer, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
                    assert_eq!(answer.degraded, None);
                    versions.push(answer.version);
                }
                versions
            });
        }
        for n in 0..60 {
            running.serving.swap(&line(), &Role::primary(), Some(packages[n % 3].clone())).unwrap();
            tokio::task::yield_now().await;
        }
        let mut counts = BTreeMap::new();
        while let Some(versions) = calls.join_next().await {
            versions.unwrap().into_iter().for_each(|version| *counts.entry(version).or_default() += 1);
        }
        counts
    });
    assert_eq!(versions.values().sum::<u64>(), 400);
    assert_eq!(running.serving.current().unwrap().reference.version.0, 3);
    running.stop();
}

#[test]
fn a_failing_or_mad_package_is_answered_by_the_fallback_and_counted() {
    let rig = Rig::new();
    let running = rig.start();
    let outcome = |running: &Running, n: u64| match running.submit(vec![event(n)]).unwrap().remove(0) {
        Outcome::Accepted { answer, .. } => answer,
        other => panic!("{other:?}"),
    };
    let none = outcome(&running, 0);
    assert_eq!((none.version, none.degraded.as_deref()), (0, Some("fallback: no package is in place")));
    let bad = package(4, view(), |row| if row[0] < 1.0 { Err("broken".into()) } else { Ok(f32::NAN) });
    running.serving.swap(&line(), &Role::primary(), Some(bad)).unwrap();
    assert!(outcome(&running, 1).degraded.unwrap().contains("broken"));
    let mad = outcome(&running, 5);
    assert!(mad.degraded.unwrap().contains("outside 0 to 1"));
    assert_eq!((mad.output, mad.decision), (0.0, false));
    let report = running.serving.statistics(&line(), &Role::primary());
    assert_eq!((report.predictions, report.errors, report.output_mean), (2, 2, 0.0));
    running.serving.swap(&line(), &Role::primary(), Some(package(5, view(), |_| Ok(0.75)))).unwrap();
    assert!(outcome(&running, 6).decision);
    let report = running.serving.statistics(&line(), &Role::primary());
    assert_eq!((report.predictions, report.errors, report.output_mean), (1, 0, 0.75));
    let other = tributary_wire::LineName::new("other").unwrap();
    assert!(running.serving.swap(&other, &Role::primary(), None).is_err());
    running.stop();
}

#[test]
fn a_shadow_is_scored_beside_the_primary_and_never_answers() {
    let rig = Rig::new();
    let running = rig.start();
    let shadow = Role::new("shadow").unwrap();
    running.serving.swap(&line(), &Role::primary(), Some(package(1, view(), |_| Ok(0.25)))).unwrap();
    running.serving.swap(&line(), &shadow, Some(package(2, view(), |_| Ok(0.75)))).unwrap();
    running.submit(vec![event(0)]).unwrap();
    let observations = &kept(&running.store)[0].observations;
    let seen: Vec<_> = observations.iter().map(|seen| (seen.role.as_str(), seen.version, seen.output)).collect();
    assert_eq!(seen, [("primary", 1, 0.25), ("shadow", 2, 0.75)]);
    assert_eq!(running.serving.statistics(&line(), &shadow).predictions, 1);
    running.stop();
}

#[test]
fn a_challenger_answers_its_share_of_entities_with_its_committed_package_and_nobody_elses() {
    let rig = Rig::new();
    let running = rig.start();
    let challenger = Role::new("challenger-b").unwrap();
    let second = package(2, view(), |row| if row[0] > 900.0 { Err("broken".into()) } else { Ok(0.75) });
    let committed = second.reference.sha256;
    running.serving.swap(&line(), &Role::primary(), Some(package(1, view(), |_| Ok(0.25)))).unwrap();
    running.serving.swap(&line(), &challenger, Some(second)).unwrap();
    let answer = |n: u64| {
        let predicted = running.runtime.block_on(running.serving.predict(event(n))).unwrap().unwrap();
        let Outcome::Accepted { answer, .. } = running.submit(vec![event(n)]).unwrap().remove(0) else { panic!() };
        assert_eq!((predicted.version, &predicted.challenger), (answer.version, &answer.challenger));
        answer
    };
    let share = |per_10_000, package| [super::Share { role: challenger.clone(), per_10_000, package }];
    assert_eq!(answer(0).version, 1, "nobody gave it a share: it is scored");
    running.serving.share_out(&line(), &share(10_000, None));
    assert_eq!(answer(1).version, 1, "it is on trial, or gave up");
    running.serving.share_out(&line(), &share(10_000, Some(Sha256([9; 32]))));
    assert_eq!(answer(2).version, 1, "another package than the committed one is in place");
    running.serving.share_out(&line(), &share(10_000, Some(committed)));
    let own = answer(3);
    assert_eq!((own.version, own.output, own.challenger.as_deref()), (2, 0.75, Some("challenger-b")));
    let mut again = event(3);
    again.values[0].1 = Value::Double(5.0);
    assert!(matches!(&running.submit(vec![again]).unwrap()[0], Outcome::Duplicate { answer, .. } if *answer == own));
    let mut broken = event(4);
    broken.values[0].1 = Value::Double(950.0);
    let Outcome::Accepted { answer: fell, .. } = running.submit(vec![broken]).unwrap().remove(0) else { panic!() };
    assert_eq!((fell.version, fell.challenger, fell.degraded), (1, None, None), "the primary answers for it");
    let seen = kept(&running.store);
    let roles = |n: usize| seen[n].observations.iter().map(|seen| seen.role.as_str()).collect::<Vec<_>>();
    assert_eq!((roles(2), roles(3)), (vec!["primary", "challenger-b"], vec!["challenger-b", "primary"]));
    running.serving.share_out(&line(), &[]);
    assert_eq!(answer(5).version, 1);
    running.stop();
}

#[test]
fn entities_stay_with_the_role_that_their_place_gives_them() {
    let rig = Rig::new();
    let running = rig.start();
    let challenger = Role::new("challenger-b").unwrap();
    let second = package(2, view(), |_| Ok(0.75));
    let share = super::Share { role: challenger.clone(), per_10_000: 4_000, package: Some(second.reference.sha256) };
    running.serving.swap(&line(), &Role::primary(), Some(package(1, view(), |_| Ok(0.25)))).unwrap();
    running.serving.swap(&line(), &challenger, Some(second)).unwrap();
    running.serving.share_out(&line(), std::slice::from_ref(&share));
    let places = edge_agent_core::challengers::Challengers::new(&line(), &[(challenger.clone(), 4_000)]);
    let mut versions = BTreeMap::<_, BTreeSet<u32>>::new();
    for n in 0..200 {
        let Outcome::Accepted { answer, .. } = running.submit(vec![event(n)]).unwrap().remove(0) else { panic!() };
        let entity = event(n).entities[0].1.clone();
        let own = places.at(edge_agent_core::challengers::place_of(&line(), &entity)).is_some();
        assert_eq!(answer.version, if own { 2 } else { 1 });
        versions.entry(entity).or_default().insert(answer.version);
    }
    assert!(versions.values().all(|versions| versions.len() == 1), "{versions:?}");
    running.stop();
}

#[test]
fn a_prediction_shows_what_an_event_would_get_and_leaves_no_trace() {
    let rig = Rig::new();
    let running = rig.start();
    running.serving.swap(&line(), &Role::primary(), Some(package(1, view(), |row| Ok(row[1] / 10.0)))).unwrap();
    let predicted = running.runtime.block_on(running.serving.predict(event(0))).unwrap().unwrap();
    let again = running.runtime.block_on(running.serving.predict(event(0))).unwrap().unwrap();
    let outcomes = running.submit(vec![event(0)]).unwrap();
    let Outcome::Accepted { answer, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!((predicted.output, again.output, answer.output), (0.1, 0.1, 0.1));
    assert_eq!(running.serving.shown().accepted, 1);
    running.stop();
}

#[test]
fn an_answer_that_does_not_wait_for_the_disk_says_so_and_the_event_is_stored_all_the_same() {
    let rig = Rig::new();
    let running = rig.start();
    let quick = Submission { durable: false, ..submission(vec![event(0)]) };
    let outcomes = running.runtime.block_on(running.serving.try_submit(quick)).unwrap();
    assert!(matches!(outcomes[0], Outcome::Accepted { durable: false, .. }));
    running.submit(vec![event(1)]).unwrap();
    assert_eq!(kept(&running.store).len(), 2);
    running.stop();
}

#[test]
fn many_callers_share_a_sync() {
    let rig = Rig::new();
    let running = rig.start();
    running.submit(vec![event(0)]).unwrap();
    let before = rig.disk.syncs();
    running.runtime.block_on(async {
        let calls = (1..=200).map(|n| {
            let mut event = event(0);
            event.id = tributary_wire::EventId::new(&format!("many-{n}")).unwrap();
            running.serving.submit(submission(vec![event]))
        });
        // All are polled before the first answer can be read.
        let mut calls: Vec<_> = calls.map(Box::pin).collect();
        std::future::poll_fn(|context| {
            calls.retain_mut(|call| call.as_mut().poll(context).is_pending());
            if calls.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    });
    let syncs = rig.disk.syncs() - before;
    assert_eq!(running.serving.shown().accepted, 201);
    assert!(syncs < 150, "{syncs} syncs for 200 callers");
    running.stop();
}

#[test]
fn a_full_queue_refuses_and_too_many_at_once_can_never_fit() {
    let mut rig = Rig::new();
    rig.queue = 8;
    let running = rig.start();
    let many = submission((0..9).map(event).collect());
    let error = running.runtime.block_on(running.serving.try_submit(many)).unwrap_err();
    assert_eq!(error, SubmitError::TooMany { found: 9, limit: 8 });
    let held = running.serving.room.clone().try_acquire_many_owned(8).unwrap();
    assert_eq!(running.submit(vec![event(0)]).unwrap_err(), SubmitError::QueueFull { limit: 8 });
    drop(held);
    assert!(running.submit(vec![event(0)]).is_ok());
    running.serving.stop();
    assert_eq!(running.submit(vec![event(1)]).unwrap_err(), SubmitError::Stopped);
    running.stop();
}

#[test]
fn a_source_that_only_refuses_still_moves_its_place() {
    let rig = Rig::new();
    let running = rig.start();
    let progress = Progress { of: "file".into(), offset: 7, malformed: 7, finished: true };
    let empty = Submission {
        source: "replay".into(),
        rules: replay_rules(),
        events: Vec::new(),
        progress: Some(progress),
        durable: true,
    };
    running.runtime.block_on(running.serving.submit(empty)).unwrap();
    rig.disk.crash(None);
    running.stop();
    let sources = rig.store().unwrap().load().unwrap().sources;
    assert_eq!((sources[0].1.offset, sources[0].1.refused, sources[0].1.finished), (7, 7, true));
}

#[test]
fn a_failed_write_of_another_part_is_healed_without_an_event() {
    let rig = Rig::new();
    let running = rig.start();
    running.submit(vec![event(0)]).unwrap();
    rig.disk.set_capacity(Some(rig.disk.used()));
    let error = (0..1000).find_map(|n| running.store.blob_put(&format!("big/{n}"), &[7; 100_000]).err());
    assert!(error.unwrap().is_disk_full());
    rig.disk.set_capacity(None);
    let deadline = Instant::now() + Duration::from_secs(20);
    while running.store.blob_put("small", b"1").is_err() {
        assert!(Instant::now() < deadline, "the state opens again by itself");
        std::thread::yield_now();
    }
    running.submit(vec![event(1)]).unwrap();
    check_features(&kept(&running.store));
    running.stop();
}
