//! Device windows and replay.

use proptest::prelude::*;
use tributary_features::{DeviceWindows, EntityKey, FleetWindows, Marks, Micros, Replay, Row, Scope, StateError, View};

use crate::reference::{SECOND, VIEW, bits, bits_of, device_features, rows, view};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn device_windows_agree_with_looking_at_every_event_again(rows in rows(60)) {
        let view = view();
        let mut windows = DeviceWindows::new(&view);
        for count in 1..=rows.len() {
            let (row, _) = &rows[count - 1];
            let mut peeked = vec![f32::NAN; view.features().len()];
            let mut out = peeked.clone();
            let marks = windows.peek(row, &mut peeked);
            prop_assert_eq!(marks, windows.observe(row, &mut out));
            let expected = bits(&device_features(&view, &rows[..count], Scope::Device));
            prop_assert_eq!(&bits_of(&view, &out, Scope::Device), &expected);
            prop_assert_eq!(&bits_of(&view, &peeked, Scope::Device), &expected, "peek");
            prop_assert!(bits_of(&view, &out, Scope::Fleet).iter().all(|(_, bits)| f32::from_bits(*bits).is_nan()));
        }
    }

    #[test]
    fn a_store_in_between_and_forgetting_change_no_bit(rows in rows(60), cuts in proptest::collection::vec(any::<u8>(), 60)) {
        let view = view();
        let mut store = std::collections::BTreeMap::new();
        let (mut straight, mut cut) = (DeviceWindows::new(&view), DeviceWindows::new(&view));
        for ((row, _), action) in rows.iter().zip(cuts) {
            let mut out = vec![0.0; view.features().len()];
            let mut again = out.clone();
            straight.observe(row, &mut out);
            cut.observe(row, &mut again);
            prop_assert_eq!(bits_of(&view, &out, Scope::Device), bits_of(&view, &again, Scope::Device));
            if action % 5 == 0 {
                // A watermark from a wrong clock must not matter either.
                cut.evict(if action % 2 == 0 { row.time } else { Micros(i64::MAX) });
            }
            if action % 3 == 0 {
                for (key, state) in cut.take_dirty() {
                    if state.is_empty() { store.remove(&key); } else { store.insert(key, state); }
                }
                let newest = cut.newest();
                cut = DeviceWindows::new(&view);
                for (key, state) in &store {
                    cut.restore(key, state).unwrap();
                }
                prop_assert_eq!(cut.newest(), newest);
            }
        }
    }

    #[test]
    fn replay_gives_what_devices_and_hub_give(mut rows in rows(60)) {
        let view = view();
        rows.sort_by_key(|(row, _)| row.time);
        let mut replay = Replay::new(&view);
        let (mut device, mut fleet) = (DeviceWindows::new(&view), FleetWindows::new(&view));
        for (number, (row, label)) in rows.iter().enumerate() {
            let mut out = vec![f32::NAN; view.features().len()];
            let mut served = out.clone();
            replay.observe(row, *label, &mut out);
            device.observe(row, &mut served);
            let id = tributary_features::EventId::new(&format!("e{number}")).unwrap();
            fleet.observe(&id, row);
            fleet.label(&id, Micros(row.time.0 + view.label_delay()), *label);
            fleet.fill_at(row, &mut served);
            prop_assert_eq!(out.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
                served.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), "{:?} {:?}", out, served);
            prop_assert_eq!(bits_of(&view, &out, Scope::Fleet), bits(&device_features(&view, &rows[..=number], Scope::Fleet)));
        }
    }
}

fn row(seconds: i64, customer: i64) -> Row {
    let entities = vec![EntityKey::Int(customer), EntityKey::Text("left".into())];
    Row { time: Micros(seconds * SECOND), entities, values: vec![Some(1.0), Some(1.0), None] }
}

fn at(view: &View, name: &str) -> usize {
    view.features().iter().position(|feature| feature.name == name).unwrap()
}

#[test]
fn a_window_excludes_its_start_and_includes_its_end() {
    let view = view();
    let (mut windows, mut out) = (DeviceWindows::new(&view), vec![0.0; view.features().len()]);
    windows.observe(&row(100, 1), &mut out);
    windows.observe(&row(109, 1), &mut out);
    assert_eq!(out[at(&view, "customer_count_10s")], 2.0);
    windows.observe(&row(110, 1), &mut out);
    assert_eq!(out[at(&view, "customer_count_10s")], 2.0, "the event at t - 10 s is outside");
    assert_eq!(out[at(&view, "customer_weight_30s")], 1.0, "the event at t - delay is inside");
}

#[test]
fn events_that_come_late_are_marked_and_those_beyond_the_bound_enter_no_window() {
    let view = view();
    let (mut windows, mut out) = (DeviceWindows::new(&view), vec![0.0; view.features().len()]);
    assert_eq!(windows.observe(&row(100, 1), &mut out), Marks::VALUE_MISSING);
    assert!(windows.observe(&row(92, 1), &mut out).contains(Marks::LATE));
    assert_eq!(out[at(&view, "customer_count_10s")], 1.0);
    let marks = windows.observe(&row(91, 1), &mut out);
    assert_eq!(marks.names().collect::<Vec<_>>(), ["late", "too-late", "value-missing"]);
    assert_eq!(out[at(&view, "customer_mean_30s")], 7.0, "the declared default");
    windows.observe(&row(101, 1), &mut out);
    assert_eq!(out[at(&view, "customer_count_10s")], 3.0, "100, 92 and 101");
}

#[test]
fn windows_that_reach_into_lost_time_are_cold_until_they_have_passed_it() {
    let view = view();
    let (mut windows, mut out) = (DeviceWindows::new(&view), vec![0.0; view.features().len()]);
    windows.set_cold_through(Some(Micros(100 * SECOND)));
    assert!(windows.observe(&row(139, 1), &mut out).contains(Marks::COLD));
    assert!(!windows.observe(&row(140, 1), &mut out).contains(Marks::COLD), "40 s is the longest reach");
}

#[test]
fn memory_is_bounded_by_live_entities_and_by_events_of_one() {
    let view = View::from_toml(&VIEW.replacen("label_delay", "max_events_per_entity = 20\nlabel_delay", 1)).unwrap();
    let (mut windows, mut out) = (DeviceWindows::new(&view), vec![0.0; view.features().len()]);
    for second in 0..10_000 {
        windows.observe(&row(second, second), &mut out);
        if second % 100 == 0 {
            windows.evict(Micros(second * SECOND));
            let (entities, events) = windows.held();
            assert!(entities <= 150 && events <= 300, "{entities} entities and {events} events at {second} s");
        }
    }
    let mut truncated = Marks::NONE;
    for _ in 0..50 {
        truncated = windows.observe(&row(20_000, 5), &mut out);
    }
    assert!(truncated.contains(Marks::TRUNCATED));
    assert_eq!(out[at(&view, "customer_count_10s")], 20.0);
    windows.evict(Micros(i64::MAX));
    assert!(windows.held().1 <= 40);
}

#[test]
fn a_state_that_is_broken_or_of_another_view_is_refused() {
    let view = view();
    let (mut windows, mut out) = (DeviceWindows::new(&view), vec![0.0; view.features().len()]);
    windows.observe(&row(100, 1), &mut out);
    let dirty = windows.take_dirty();
    assert_eq!(dirty.len(), 2);
    assert!(windows.take_dirty().is_empty(), "nothing changed since");
    let (key, state) = &dirty[0];
    assert!(matches!(windows.restore(key, &state[..state.len() - 1]), Err(StateError::Malformed(_))));
    assert!(matches!(windows.restore(b"", state), Err(StateError::Malformed(_))));
    let farther = View::from_toml(&VIEW.replace("window = \"30s\"", "window = \"300s\"")).unwrap();
    let error = DeviceWindows::new(&farther).restore(key, state).unwrap_err();
    assert_eq!(
        error.to_string(),
        "window state of customer 1 does not fit the view: it does not reach back far enough"
    );
    let other = View::from_toml(&VIEW.replace("customer", "client")).unwrap();
    assert!(matches!(DeviceWindows::new(&other).restore(key, state), Err(StateError::Foreign { .. })));
}
