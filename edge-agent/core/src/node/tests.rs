use tributary_wire::link::{NodeName, Outcome, RawPart, Sensor};

use super::*;

fn at(ms: u64) -> Now {
    Now { wall: Micros(1_800_000_000_000_000 + ms as i64 * 1000), monotonic: Duration::from_millis(ms) }
}

fn hello(session: u32, node: &str) -> Up<'_> {
    Up::Hello { lowest: 1, highest: 1, session, node: NodeName::new(node).unwrap() }
}

fn record(session: u32, number: u32, behind: u32) -> Up<'static> {
    let record = Record::Health(tributary_wire::link::Health { sensor: Sensor::Well, ..Default::default() });
    Up::V1(UpV1::Record { session, number, behind, uptime: 1_000_000, record })
}

/// A station that a node with uptime 1 s less than our monotonic time speaks to.
fn linked() -> Station {
    let mut station = Station::new(Some("pump-1".into()), 100);
    let actions = station.heard(at(1000), hello(0, "pump-1"), 7);
    let begun = Begun { node: "pump-1".into(), session: 7, resumed: false };
    assert_eq!(actions, [Action::Send(Down::Welcome { version: 1, session: 7 }), Action::Begun(begun)]);
    let due = station.due(at(1000));
    let asked = at(1000).wall.0;
    assert_eq!(due, [Down::V1(DownV1::Time { asked })]);
    station.heard(at(1010), Up::V1(UpV1::Time { asked, uptime: 5_000 }), 0);
    assert_eq!(station.clock_error(), Some(5_000));
    station
}

#[test]
fn a_record_is_taken_at_its_time_and_acknowledged_only_when_stored() {
    let mut station = linked();
    let actions = station.heard(at(1020), record(7, 1, 0), 0);
    let [Action::Take { session: 7, number: 1, wall, .. }] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(wall, at(2000).wall);
    assert_eq!(station.due(at(1020)), []);
    station.stored(7, 1);
    assert_eq!(station.due(at(1021)), [Down::V1(DownV1::Ack { session: 7, through: 1, scattered: 0 })]);
    assert_eq!(station.heard(at(1022), record(7, 1, 0), 0), []);
    assert_eq!(station.due(at(1022)).len(), 1, "a repeated record is acknowledged again");
    station.heard(at(1023), record(7, 2, 0), 0);
    station.give_back(7, 2);
    assert_eq!(station.heard(at(1024), record(7, 2, 0), 0).len(), 1);
    assert_eq!(station.counts(), Counts { taken: 1, repeated: 1, ..Counts::default() });
}

#[test]
fn damage_is_answered_with_what_is_here_but_noise_does_not_fill_the_line() {
    let mut station = Station::new(Some("pump-1".into()), 100);
    station.damaged(at(990));
    assert_eq!(station.due(at(990)), [], "nobody is there");
    let mut station = linked();
    station.heard(at(1020), record(7, 2, 1), 0);
    station.stored(7, 2);
    station.due(at(1021));
    let told = [Down::V1(DownV1::Ack { session: 7, through: 0, scattered: 1 })];
    station.damaged(at(1030));
    assert_eq!(station.due(at(1030)), told);
    station.damaged(at(1031));
    assert_eq!(station.due(at(1031)), []);
    station.damaged(at(1035));
    assert_eq!(station.due(at(1035)), told);
}

#[test]
fn without_a_clock_nothing_is_taken() {
    let mut station = Station::new(None, 1);
    station.heard(at(0), hello(0, "any"), 7);
    assert_eq!(station.heard(at(1), record(7, 1, 0), 0), []);
    assert_eq!(station.counts().taken, 0);
}

#[test]
fn a_node_that_claims_another_s_name_and_one_of_another_version_are_refused() {
    let mut station = linked();
    let refused = station.heard(at(2000), hello(0, "pump-2"), 8);
    assert_eq!(refused, [Action::Send(Down::Refused(Refusal::Name))]);
    let old = Up::Hello { lowest: 2, highest: 9, session: 0, node: NodeName::new("pump-1").unwrap() };
    let Action::Send(Down::Refused(Refusal::Version { lowest: 1, highest: 1 })) = station.heard(at(2000), old, 8)[0]
    else {
        panic!("not refused")
    };
    assert_eq!((station.session(), station.counts().strange), (Some(7), 2));
}

#[test]
fn an_agent_that_was_restarted_asks_and_goes_on_in_the_node_s_session() {
    let mut station = Station::new(Some("pump-1".into()), 100);
    assert_eq!(station.heard(at(0), record(55, 20, 3), 9), [Action::Send(Down::Who)]);
    assert_eq!(station.heard(at(10), record(55, 21, 4), 9), [], "asked already");
    let actions = station.heard(at(20), hello(55, "pump-1"), 9);
    assert!(matches!(&actions[1], Action::Begun(Begun { session: 55, resumed: true, .. })), "{actions:?}");
    station.heard(at(30), Up::V1(UpV1::Time { asked: at(29).wall.0, uptime: 0 }), 0);
    assert_eq!(station.heard(at(40), record(55, 20, 3), 9).len(), 1);
    station.stored(55, 20);
    let acknowledged = station.due(at(40));
    assert!(
        acknowledged.contains(&Down::V1(DownV1::Ack { session: 55, through: 16, scattered: 0b100 })),
        "{acknowledged:?}"
    );
}

#[test]
fn a_node_that_was_restarted_gets_a_new_session_and_its_losses_stay_counted() {
    let mut station = linked();
    station.heard(at(1100), record(7, 10, 2), 0);
    assert_eq!(station.counts().lost, 7);
    station.stored(7, 10);
    let actions = station.heard(at(1200), hello(0, "pump-1"), 8);
    assert!(matches!(&actions[1], Action::Begun(Begun { session: 8, resumed: false, .. })), "{actions:?}");
    assert_eq!(station.counts().lost, 7);
    station.stored(7, 9);
    assert!(
        !station.due(at(1200)).iter().any(|down| matches!(down, Down::V1(DownV1::Ack { .. }))),
        "of a session gone"
    );
    assert_eq!(
        station.heard(at(1300), record(7, 11, 0), 0),
        [Action::Send(Down::Who)],
        "a late record of the old life"
    );
}

#[test]
fn an_order_is_sent_until_its_outcome_is_known_and_the_next_waits() {
    let mut station = linked();
    let (first, second) = (station.order(Order::Report), station.order(Order::Rate(500)));
    assert_eq!((first, second), (100, 101));
    let orders = |station: &mut Station, ms| -> Vec<u32> {
        let number = |down: &Down<'_>| match down {
            Down::V1(DownV1::Order { session: 7, number, .. }) => Some(*number),
            _ => None,
        };
        station.due(at(ms)).iter().filter_map(number).collect()
    };
    assert_eq!(orders(&mut station, 1100), [100]);
    assert_eq!(orders(&mut station, 1200), [0; 0]);
    assert_eq!(orders(&mut station, 2100), [100]);
    let done = Record::Done { order: 100, outcome: Outcome::Done };
    let message = Up::V1(UpV1::Record { session: 7, number: 1, behind: 0, uptime: 0, record: done });
    assert_eq!(station.heard(at(2200), message, 0), [Action::Ordered { order: 100, outcome: Outcome::Done }]);
    assert_eq!(orders(&mut station, 2200), [101]);
    assert!(station.next_wake() <= Some(Duration::from_millis(3200)), "{:?}", station.next_wake());
}

#[test]
fn a_silent_node_is_away() {
    let mut station = linked();
    assert!(station.is_there(at(20_000)) && !station.is_there(at(40_000)));
    station.heard(at(50_000), record(7, 1, 0), 0);
    assert!(station.is_there(at(50_001)));
    station.cut();
    assert!(!station.is_there(at(50_001)));
}

#[test]
fn raw_windows_are_put_together_and_broken_ones_given_up() {
    let mut raw = RawAssembly::default();
    let part = |window, part, of, samples| RawPart { window, axis: 1, part, of, samples };
    assert_eq!(raw.part(1, &part(4, 0, 2, &[1, 0])), Assembled::default());
    // Of window 4 the second part never came.
    assert_eq!(raw.part(3, &part(5, 1, 2, &[3, 0])).given_up, [1]);
    assert_eq!(raw.part(4, &part(5, 9, 2, &[])).given_up, [4]);
    let whole = raw.part(5, &part(5, 0, 2, &[2, 0, 0xff, 0xff])).whole.unwrap();
    assert_eq!(whole, RawWindow { window: 5, axis: 1, samples: vec![2, -1, 3], records: vec![3, 5] });
    assert_eq!(raw.part(6, &part(6, 0, 0, &[])).given_up, [6]);
}
