//! Fleet-scope features from the hub's windows to a device's table.

use proptest::prelude::*;
use tributary_features::{
    EntityKey, EventId, FleetTable, FleetWindows, Marks, Micros, Offer, Row, Scope, SnapshotError,
};
use tributary_wire::{FeatureSnapshot, SnapshotNumber};

use crate::reference::{SECOND, bits, bits_of, rows, view, window};

fn id(number: usize) -> EventId {
    EventId::new(&format!("event-{number}")).unwrap()
}

/// For every event: after how many seconds it reaches the hub, when its label does, and whether labels come first.
fn arrivals() -> impl Strategy<Value = Vec<(i64, i64, bool)>> {
    proptest::collection::vec((0..20_i64, 0..60_i64, any::<bool>()), 60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_snapshot_holds_what_was_known_then_whatever_the_order_of_arrival(rows in rows(50), arrivals in arrivals()) {
        let view = view();
        let mut fleet = FleetWindows::new(&view);
        let start = rows.iter().map(|(row, _)| row.time.0).min().unwrap();
        let end = rows.iter().map(|(row, _)| row.time.0).max().unwrap();
        let known_at = |number: usize| Micros(rows[number].0.time.0 + arrivals[number].1 * SECOND);
        let mut came = vec![false; rows.len()];
        let mut now = start;
        while now < end + 80 * SECOND {
            now += 10 * SECOND;
            for number in (0..rows.len()).rev() {
                let (row, label) = &rows[number];
                let (delay, _, label_first) = arrivals[number];
                if !came[number] && row.time.0 + delay * SECOND <= now {
                    came[number] = true;
                    if label_first { fleet.label(&id(number), known_at(number), *label); }
                    fleet.observe(&id(number), row);
                    fleet.observe(&id(number), row);
                    if !label_first { fleet.label(&id(number), known_at(number), *label); }
                }
            }
            let mut table = FleetTable::new(&view);
            let parts = fleet.values_at(Micros(now)).into_parts(&view, SnapshotNumber(1), 200);
            let count = parts.len();
            for (number, part) in parts.into_iter().rev().enumerate() {
                let message = FeatureSnapshot::V1(part.clone()).encode();
                prop_assert!(message.len() <= 280, "{} bytes", message.len());
                let expected = if number + 1 == count { Offer::Complete(SnapshotNumber(1)) } else { Offer::Partial };
                prop_assert_eq!(table.offer(part.clone()).unwrap(), expected);
                prop_assert_eq!(table.offer(part).unwrap(), Offer::Old);
            }
            let known: Vec<(&Row, bool)> = rows.iter().enumerate().filter(|(number, _)| came[*number])
                .map(|(number, (row, label))| (row, *label && known_at(number).0 <= now)).collect();
            for (row, _) in &rows {
                let row = Row { time: Micros(now), ..row.clone() };
                let mut out = vec![f32::NAN; view.features().len()];
                prop_assert_eq!(table.fill(&row, &mut out), Marks::NONE);
                let features = view.features().iter().enumerate().filter(|(_, feature)| feature.scope == Scope::Fleet);
                let expected: Vec<_> = features.map(|(at, feature)| (at, window(feature, &known, &row, now))).collect();
                prop_assert_eq!(bits_of(&view, &out, Scope::Fleet), bits(&expected));
            }
        }
    }
}

fn row(seconds: i64) -> Row {
    let entities = vec![EntityKey::Int(1), EntityKey::Text("left".into())];
    Row { time: Micros(seconds * SECOND), entities, values: vec![Some(8.0), Some(1.0), None] }
}

#[test]
fn a_device_without_a_fresh_snapshot_serves_the_defaults_and_says_so() {
    let view = view();
    let (mut table, mut out) = (FleetTable::new(&view), vec![0.0; view.features().len()]);
    let at = view.features().iter().position(|feature| feature.name == "place_count_15s").unwrap();
    assert_eq!(table.fill(&row(100), &mut out), Marks::FLEET_MISSING);
    assert_eq!(out[at], 2.0);
    let mut fleet = FleetWindows::new(&view);
    fleet.observe(&id(1), &row(100));
    let parts = fleet.values_at(Micros(110 * SECOND)).into_parts(&view, SnapshotNumber(4), 10_000);
    parts.iter().for_each(|part| assert!(table.offer(part.clone()).is_ok()));
    assert_eq!(table.serving(), Some((SnapshotNumber(4), Micros(110 * SECOND))));
    assert_eq!(table.fill(&row(170), &mut out), Marks::NONE);
    assert_eq!(out[at], 1.0);
    assert_eq!(table.fill(&row(171), &mut out), Marks::FLEET_STALE);
    assert_eq!(out[at], 2.0);
    let stranger = Row { entities: vec![EntityKey::Int(9), EntityKey::Text("new".into())], ..row(120) };
    assert_eq!(table.fill(&stranger, &mut out), Marks::NONE);
    assert_eq!(out[at], 0.0, "an entity without events has count 0");
}

#[test]
fn a_newer_snapshot_replaces_one_that_never_became_complete() {
    let view = view();
    let mut fleet = FleetWindows::new(&view);
    fleet.observe(&id(1), &row(100));
    let mut table = FleetTable::new(&view);
    let five = fleet.values_at(Micros(110 * SECOND)).into_parts(&view, SnapshotNumber(5), 10);
    let six = fleet.values_at(Micros(111 * SECOND)).into_parts(&view, SnapshotNumber(6), 10);
    assert_eq!((five.len(), six.len()), (2, 2));
    assert_eq!(table.offer(five[0].clone()), Ok(Offer::Partial));
    assert_eq!(table.offer(six[1].clone()), Ok(Offer::Partial));
    assert_eq!(table.offer(five[1].clone()), Ok(Offer::Old));
    assert_eq!(table.offer(six[0].clone()), Ok(Offer::Complete(SnapshotNumber(6))));
    assert_eq!(table.offer(five[0].clone()), Ok(Offer::Old));
}

#[test]
fn parts_that_do_not_fit_the_view_are_refused_by_name() {
    let view = view();
    let mut fleet = FleetWindows::new(&view);
    fleet.observe(&id(1), &row(100));
    let part = fleet.values_at(Micros(110 * SECOND)).into_parts(&view, SnapshotNumber(1), 10).remove(0);
    let mut table = FleetTable::new(&view);
    let mut refused = |change: &dyn Fn(&mut tributary_wire::FeatureSnapshotV1)| {
        let mut part = part.clone();
        change(&mut part);
        table.offer(part).unwrap_err()
    };
    assert!(matches!(refused(&|part| part.view_version = 4), SnapshotError::View { found_version: 4, .. }));
    assert!(refused(&|part| part.part = 2).to_string().contains("part 2 of 2"));
    assert!(refused(&|part| part.entity = "shop".into()).to_string().contains("\"shop\""));
    assert!(refused(&|part| part.features.clear()).to_string().contains("expected"));
    assert!(refused(&|part| part.rows[0].values[0] = f32::NAN).to_string().contains("NaN"));
    assert!(refused(&|part| part.rows[0].values.clear()).to_string().contains("customer 1"));
    assert!(refused(&|part| part.lifetime = 0).to_string().contains("lifetime"));
    assert_eq!(table.serving(), None);
}

#[test]
fn a_label_that_changes_its_mind_counts_once() {
    let view = view();
    let mut fleet = FleetWindows::new(&view);
    let share = view.features().iter().position(|feature| feature.name == "place_share_40s").unwrap();
    let mut out = vec![0.0; view.features().len()];
    fleet.label(&id(2), Micros(0), true);
    for number in 1..=2 {
        fleet.observe(&id(number), &row(100));
    }
    fleet.label(&id(1), Micros(115 * SECOND), true);
    fleet.label(&id(1), Micros(120 * SECOND), false);
    for (seconds, expected) in [(110, 0.5), (115, 1.0), (120, 0.5)] {
        fleet.fill_at(&row(seconds), &mut out);
        assert_eq!(out[share], expected, "at {seconds} s");
    }
    fleet.values_at(Micros(500 * SECOND));
    assert_eq!(fleet.events(), 0, "events out of reach are forgotten");
}
