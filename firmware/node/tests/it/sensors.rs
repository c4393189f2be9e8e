//! Sampling, windows, and sensors that fail.

use tributary_node::{Action, Identity, Node, Reading};
use tributary_node_simulation::Fault;
use tributary_signal::Analysis;
use tributary_wire::link::{
    Deframer, Down, DownV1, MAX_FRAME, NodeName, Order, Outcome, Record, Sensor, Up, UpV1, encode,
};

use crate::bench::{Agent, Bench, LENGTH};

fn run(bench: &mut Bench, agent: &mut Agent, ticks: u32) {
    for _ in 0..ticks {
        bench.tick();
        agent.turn(bench);
    }
}

#[test]
fn windows_overlap_and_their_features_are_those_of_their_raw_samples() {
    let (mut bench, mut agent) = (Bench::new(None, 64 << 10, None), Agent::default());
    run(&mut bench, &mut agent, 10);
    let (session, number) = (agent.session, 1);
    bench.hear(Down::V1(DownV1::Order { session, number, order: Order::SendRaw { windows: 2 } }));
    run(&mut bench, &mut agent, 1100);
    // 512 samples, then every 256; three axes.
    assert_eq!(agent.features.len(), 3 * 3);
    assert_eq!(agent.raw.len(), 2 * 3 * 8);
    for (window, axis) in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)] {
        let parts = agent.raw.iter().filter(|(of, on, _, _)| (*of, *on) == (window, axis));
        let mut samples: Vec<i32> =
            parts.flat_map(|(_, _, _, samples)| samples).map(|sample| i32::from(*sample)).collect();
        assert_eq!(samples.len(), LENGTH);
        let features = Analysis::<8>::even(LENGTH).unwrap().features(&mut samples);
        let told = agent.features.iter().find(|told| (told.window, told.axis) == (window, axis)).unwrap();
        assert_eq!(
            (told.rms, told.kurtosis, told.crossings),
            (features.moments.rms, features.moments.kurtosis, features.moments.crossings)
        );
        assert_eq!(*told.bands, features.bands);
        assert_eq!(told.temperature, Some(2150));
    }
    assert_eq!(agent.heard("order: 1, outcome: Done"), 1);
}

#[test]
fn a_missing_sensor_is_said_and_windows_begin_anew_when_it_is_back() {
    let (mut bench, mut agent) = (Bench::new(None, 64 << 10, None), Agent::default());
    bench.set_fault(Some(Fault::Missing));
    run(&mut bench, &mut agent, 3000);
    assert_eq!((agent.features.len(), agent.heard("sensor: Missing")), (0, 1));
    assert_eq!(bench.node.health().sensor, Sensor::Missing);
    bench.set_fault(None);
    run(&mut bench, &mut agent, 2000);
    // It is tried again at the next whole second; the 1000 samples from then on hold two windows.
    assert_eq!(agent.features.len(), 2 * 3);
    assert_eq!(bench.node.health().sensor, Sensor::Well);
    // Gone for a single tick: the half-filled window is thrown away.
    let before = agent.features.len();
    bench.set_fault(Some(Fault::Missing));
    run(&mut bench, &mut agent, 1);
    bench.set_fault(None);
    run(&mut bench, &mut agent, 500);
    assert_eq!(agent.features.len(), before);
}

#[test]
fn a_stuck_sensor_is_found_and_gives_no_features() {
    let (mut bench, mut agent) = (Bench::new(None, 64 << 10, None), Agent::default());
    run(&mut bench, &mut agent, 1000);
    bench.set_fault(Some(Fault::Stuck));
    run(&mut bench, &mut agent, 300);
    assert_eq!((bench.node.health().sensor, agent.heard("sensor: Stuck")), (Sensor::Stuck, 1));
    let before = agent.features.len();
    run(&mut bench, &mut agent, 2000);
    assert_eq!(agent.features.len(), before);
    bench.set_fault(None);
    run(&mut bench, &mut agent, 600);
    assert!(agent.features.len() > before);
}

#[test]
fn samples_that_nobody_had_time_for_are_counted_and_no_window_spans_them() {
    let (mut bench, mut agent) = (Bench::new(None, 64 << 10, None), Agent::default());
    run(&mut bench, &mut agent, 500);
    for _ in 0..100 {
        bench.tick_without_main_loop();
    }
    bench.main_loop();
    run(&mut bench, &mut agent, 1);
    // The queue holds 63 of 100 readings.
    assert_eq!(bench.node.health().overrun, 37);
    run(&mut bench, &mut agent, 510);
    assert_eq!(agent.features.len(), 3);
    run(&mut bench, &mut agent, 1);
    assert_eq!(agent.features.len(), 6);
}

#[test]
fn a_worn_bearing_raises_the_score_and_sends_its_raw_window_once_a_minute() {
    let (mut bench, mut agent) = (Bench::new(Some(5000), 256 << 10, None), Agent::default());
    run(&mut bench, &mut agent, 5000);
    let threshold = 8248;
    assert!(agent.features.iter().all(|features| features.score.unwrap() <= threshold));
    assert!(agent.raw.is_empty());
    run(&mut bench, &mut agent, 20_000);
    let anomalies = agent.features.iter().filter(|features| features.score.unwrap() > threshold).count();
    assert!(anomalies > 100, "{anomalies}");
    assert_eq!(agent.raw.len(), 3 * 8, "one raw window of three axes");
}

#[test]
fn another_rate_is_taken_at_once_and_no_sensor_is_missing_for_it() {
    let (mut bench, mut agent) = (Bench::new(None, 64 << 10, None), Agent::default());
    run(&mut bench, &mut agent, 300);
    for (number, rate) in [(1, 2000), (2, 500), (3, 1000)] {
        let session = agent.session;
        bench.hear(Down::V1(DownV1::Order { session, number, order: Order::Rate(rate) }));
        assert_eq!(bench.node.action(bench.now), Some(Action::SetRate(rate)));
        bench.set_rate(rate);
        let before = agent.features.len();
        run(&mut bench, &mut agent, LENGTH as u32);
        assert_eq!(agent.features.len(), before + 3, "a window of {rate} samples a second");
        let health = bench.node.health();
        assert_eq!((health.sensor, health.sensor_errors, health.overrun), (Sensor::Well, 0, 0), "{rate}");
        assert!(agent.heard(&format!("rate: {rate}")) > 0, "{rate}");
    }
    assert_eq!(agent.heard("sensor: Missing"), 0);
}

#[test]
fn ticks_that_never_came_are_counted_and_windows_go_on_over_them() {
    let (mut bench, mut agent) = (Bench::new(None, 64 << 10, None), Agent::default());
    run(&mut bench, &mut agent, 500);
    bench.now += 7000;
    run(&mut bench, &mut agent, LENGTH as u32 - 500);
    let health = bench.node.health();
    assert_eq!((health.overrun, health.samples, health.windows), (7, LENGTH as u32, 1));
}

/// Its parts would never all be on the line, and none of them is acknowledged before all are there.
#[test]
fn a_window_longer_than_the_line_carries_at_once_is_never_sent_raw_and_all_else_goes_on() {
    const LONG: usize = 2048;
    let name = |text| NodeName::new(text).unwrap();
    let (kind, firmware, count, ticks, starts) = (name("bench"), (1, 2, 3), 1, 1, 1);
    let identity = Identity { name: name("bench-1"), kind, firmware, count, ticks, starts };
    let mut memory = vec![0; 4096];
    let analysis = Analysis::even(LONG).unwrap();
    let mut node = Node::<1, LONG, 8>::new(identity, 1000, LONG, analysis, None, &mut memory, None);
    let hear = |node: &mut Node<'_, 1, LONG, 8>, message: Down<'_>| {
        let mut frame = [0; MAX_FRAME];
        let length = encode(&message, &mut frame).unwrap();
        frame[..length].iter().for_each(|byte| node.receive(0, *byte));
    };
    hear(&mut node, Down::Welcome { version: 1, session: 1 });
    let (session, number, order) = (1, 1, Order::SendRaw { windows: 1 });
    hear(&mut node, Down::V1(DownV1::Order { session, number, order }));
    for number in 1..=LONG as u32 {
        let (uptime, values) = (u64::from(number), Some([number as i16 % 100]));
        let reading = Reading { number, missed: 0, uptime, values, sensor: Sensor::Well, temperature: None };
        node.take(reading, || 0);
    }
    let (mut line, mut raw, mut windows, mut outcomes) = (Deframer::default(), 0, 0, Vec::new());
    loop {
        let waiting = node.outgoing(1).to_vec();
        if waiting.is_empty() {
            break;
        }
        node.sent(waiting.len());
        for byte in waiting {
            let Some(Ok(message)) = line.push(byte) else { continue };
            match Up::decode(message).unwrap() {
                Up::V1(UpV1::Record { record: Record::Raw(_), .. }) => raw += 1,
                Up::V1(UpV1::Record { record: Record::Features(_), .. }) => windows += 1,
                Up::V1(UpV1::Record { record: Record::Done { outcome, .. }, .. }) => outcomes.push(outcome),
                _ => {}
            }
        }
    }
    assert_eq!((raw, windows, outcomes), (0, 1, vec![Outcome::Unsupported]));
}
