//! Datasets of a fleet that sends a sample.

use super::*;

/// Which events are sent, by a fixed scatter: about a share of all.
fn is_sent(served: &Served, share: f64) -> bool {
    let place = (served.event as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
    (place as f64 / (1u64 << 53) as f64) < share
}

fn build(fleet: &Fleet, lake: &Lake) -> Dataset {
    Dataset::build(lake, fleet.spec(), &|number| Ok(fleet.snapshots.get(&number).cloned())).unwrap()
}

/// The same fleet with a view that has no features of fleet scope.
fn without_fleet_features(served_only: bool) -> Fleet {
    let mut fleet = Fleet::run();
    let (head, rest) = VIEW.split_once("[fleet]").unwrap();
    let (_, rest) = rest.split_once("lifetime = \"2d\"").unwrap();
    let features = rest.split_once("[[feature]]\nname = \"place_count_1d\"").unwrap().0;
    fleet.view = View::from_toml(&format!("served_only = {served_only}\n{head}{features}")).unwrap();
    for served in &mut fleet.served {
        served.features.truncate(3);
        served.snapshot = None;
    }
    let mut counts: HashMap<(&str, u32), i64> = HashMap::new();
    for served in &mut fleet.served {
        let count = counts.entry((served.device, served.incarnation)).or_default();
        *count += 1;
        served.accepted = *count;
    }
    fleet
}

#[test]
fn rows_whose_observation_was_sampled_out_have_the_features_that_were_served() {
    let fleet = Fleet::run();
    let lake = fleet.lake_of(|served| (Some(1.0), is_sent(served, 0.2).then_some(0.2)));
    let dataset = build(&fleet, &lake);
    let summary = dataset.summary();
    assert_eq!((summary.rows, summary.sampled), (fleet.build().summary().rows, 0), "no event was sampled out");
    assert_eq!(summary.mismatches, 0, "{:?}", summary.examples);
    assert!(summary.unobserved > summary.rows * 3 / 5);
    // Between two observations of one snapshot every row was served from it.
    assert!(summary.from_snapshots > 2 * summary.compared, "{summary:?}");
    let same = (0..dataset.rows().len()).filter(|row| dataset.features(*row) == fleet.row(&dataset, *row).features);
    assert!(same.count() as u64 >= summary.from_snapshots);
}

#[test]
fn where_only_what_was_served_is_trained_on_a_sample_of_events_gives_its_rows_with_their_probabilities() {
    let fleet = without_fleet_features(true);
    let share = |served: &Served| if served.event.is_multiple_of(3) { 0.8 } else { 0.25 };
    let sent = |served: &Served| is_sent(served, share(served)).then_some(share(served));
    // Of some the observation is not here yet.
    let lake = fleet.lake_of(|served| (sent(served), sent(served).filter(|_| !served.event.is_multiple_of(50))));
    let dataset = build(&fleet, &lake);
    let summary = dataset.summary();
    let spec = fleet.spec();
    let of_range = || fleet.served.iter().filter(|it| it.row.time >= spec.from && it.row.time < spec.to);
    let is_row = |it: &&Served| sent(it).is_some() && !it.event.is_multiple_of(50);
    assert_eq!(summary.rows as usize, of_range().filter(is_row).count());
    assert_eq!((summary.as_served, summary.sampled, summary.compared), (summary.rows, summary.rows, 0));
    assert_eq!(
        summary.unserved as usize,
        of_range().filter(|it| sent(it).is_some() && it.event.is_multiple_of(50)).count()
    );
    for row in 0..dataset.rows().len() {
        let served = fleet.row(&dataset, row);
        assert_eq!(dataset.features(row), served.features);
        assert_eq!(dataset.rows()[row].inclusion, share(served));
    }
    // The straightforward sum, and not far from how many there are.
    let expected: f64 = of_range().filter(is_row).map(|it| 1.0 / share(it)).sum();
    assert!((summary.estimated - expected).abs() < 1e-9);
    assert!((summary.estimated / of_range().count() as f64 - 1.0).abs() < 0.15, "{summary:?}");
    let records = dataset.to_records().unwrap();
    let column = records.column_by_name("inclusion").unwrap().as_primitive::<arrow::datatypes::Float64Type>();
    assert!(column.values().iter().zip(dataset.rows()).all(|(value, row)| *value == row.inclusion));
}

#[test]
fn what_is_missing_and_what_was_thinned_out_is_counted() {
    let fleet = without_fleet_features(false);
    let whole = build(&fleet, &fleet.lake());
    assert_eq!((whole.summary().missing, whole.summary().thinned, whole.summary().mismatches), (0, 0, 0));
    assert_eq!(whole.summary().estimated, whole.summary().rows as f64);
    // A device gave up forty events in a row; the other sent a sample of its own although the view needs them all.
    let lake = fleet.lake_of(|served| match served.device {
        "edge-1" => (Some(1.0).filter(|_| !(200..280).contains(&served.event)), Some(1.0)),
        _ => (is_sent(served, 0.5).then_some(0.5), None),
    });
    let dataset = build(&fleet, &lake);
    let summary = dataset.summary();
    let given_up = fleet.served.iter().filter(|it| it.device == "edge-1" && (200..280).contains(&it.event)).count();
    let mut expected = given_up as u64;
    for incarnation in 1..=2 {
        let own = || fleet.served.iter().filter(|it| it.device == "edge-2" && it.incarnation == incarnation);
        let sent: Vec<i64> = own().filter(|it| is_sent(it, 0.5)).map(|it| it.accepted).collect();
        expected += (sent.last().unwrap() - sent[0] + 1) as u64 - sent.len() as u64;
    }
    assert_eq!(summary.missing, expected);
    assert!(summary.thinned > 50 && summary.thinned < summary.rows, "{summary:?}");
    assert_ne!(whole.content_hash(), dataset.content_hash());
}
