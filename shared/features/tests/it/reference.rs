//! A view for tests, events for it, and features computed the plain way: by looking at every event again.

use proptest::prelude::*;
use tributary_features::{Aggregate, EntityKey, Feature, FeatureKind, Micros, Row, Scope, View, fixed};

/// Two entities, windows with and without delay, all aggregates, both scopes.
pub const VIEW: &str = r#"
name = "test-view"
version = 3
lateness = "8s"
label_delay = "5s"

[fleet]
cadence = "10s"
lifetime = "60s"

[[entity]]
name = "customer"
kind = "int"

[[entity]]
name = "place"
kind = "text"

[[value]]
name = "amount"
kind = "double"
unit = "EUR"
required = true

[[value]]
name = "weight"
kind = "double"
required = true

[[value]]
name = "hint"
kind = "int"

[[feature]]
name = "amount"
kind = "value"
value = "amount"

[[feature]]
name = "hint"
kind = "value"
value = "hint"
default = -1.0

[[feature]]
name = "weekend"
kind = "weekend"

[[feature]]
name = "night"
kind = "night"
hours = [22, 6]

[[feature]]
name = "customer_count_10s"
kind = "count"
scope = "device"
entity = "customer"
window = "10s"

[[feature]]
name = "customer_mean_30s"
kind = "mean"
scope = "device"
entity = "customer"
value = "amount"
window = "30s"
default = 7.0

[[feature]]
name = "customer_weight_30s"
kind = "sum"
scope = "device"
entity = "customer"
value = "weight"
window = "30s"
delay = "10s"

[[feature]]
name = "place_sum_20s"
kind = "sum"
scope = "device"
entity = "place"
value = "amount"
window = "20s"

[[feature]]
name = "place_count_15s"
kind = "count"
scope = "fleet"
entity = "place"
window = "15s"
delay = "5s"
default = 2.0

[[feature]]
name = "place_share_15s"
kind = "label_share"
scope = "fleet"
entity = "place"
window = "15s"
delay = "5s"

[[feature]]
name = "place_share_40s"
kind = "label_share"
scope = "fleet"
entity = "place"
window = "40s"
delay = "7s"

[[feature]]
name = "customer_mean_20s_fleet"
kind = "mean"
scope = "fleet"
entity = "customer"
value = "amount"
window = "20s"
"#;

pub const SECOND: i64 = 1_000_000;

pub fn view() -> View {
    View::from_toml(VIEW).unwrap()
}

/// Events whose times repeat, run backwards within the lateness and beyond it, and jump; amounts whose
/// floating-point sums depend on their order.
pub fn rows(count: usize) -> impl Strategy<Value = Vec<(Row, bool)>> {
    let step = prop_oneof![4 => 0..3_i64, 2 => -9..0_i64, 1 => 5..25_i64, 1 => Just(0)];
    let amount = prop_oneof![Just(0.1), Just(1e12), Just(-1e12), -50.0..50.0_f64];
    let row =
        (step, 0..3_i64, 0..2_usize, amount, 0.0..9.0_f64, proptest::option::of(0..5_i32), any::<bool>(), 0..3_i64);
    proptest::collection::vec(row, 1..count).prop_map(|rows| {
        let mut time = 1_000_000 * SECOND;
        let rows = rows.into_iter().map(|(step, customer, place, amount, weight, hint, label, odd)| {
            time += step * SECOND + odd;
            let place = EntityKey::Text(["left", "right"][place].to_owned());
            let values = vec![Some(amount), Some(weight), hint.map(f64::from)];
            (Row { time: Micros(time), entities: vec![EntityKey::Int(customer), place], values }, label)
        });
        rows.collect()
    })
}

/// A window feature over `events` (time, row, label) for `row` at time `t`.
pub fn window(feature: &Feature, events: &[(&Row, bool)], row: &Row, t: i64) -> f32 {
    let FeatureKind::Window(window) = feature.kind else { panic!("{} is no window", feature.name) };
    let (from, to) = (t - window.delay - window.length, t - window.delay);
    let key = &row.entities[window.entity];
    let inside: Vec<_> = events
        .iter()
        .filter(|(event, _)| event.entities[window.entity] == *key && event.time.0 > from && event.time.0 <= to)
        .collect();
    let sum = |value: usize| {
        let terms = inside.iter().map(|(event, _)| i128::from(fixed::from_f64(event.values[value].unwrap())));
        terms.sum::<i128>() as f64 / fixed::ONE
    };
    let count = inside.len() as f64;
    let result = match window.aggregate {
        Aggregate::Count => count,
        Aggregate::Sum(value) => sum(value),
        Aggregate::Mean(_) | Aggregate::LabelShare if inside.is_empty() => 0.0,
        Aggregate::Mean(value) => sum(value) / count,
        Aggregate::LabelShare => inside.iter().filter(|(_, label)| *label).count() as f64 / count,
    };
    result as f32
}

/// Window features of a scope for the last of `events` (all in accept order), as a device computes them.
pub fn device_features(view: &View, events: &[(Row, bool)], scope: Scope) -> Vec<(usize, f32)> {
    let mut newest = i64::MIN;
    let mut taken = Vec::new();
    let mut was_taken = false;
    for (row, label) in events {
        was_taken = row.time.0 >= newest.saturating_sub(view.lateness());
        if was_taken {
            newest = newest.max(row.time.0);
            taken.push((row, *label));
        }
    }
    let (row, _) = events.last().unwrap();
    let features = view.features().iter().enumerate().filter(|(_, feature)| feature.scope == scope);
    let value = |feature| if was_taken { window(feature, &taken, row, row.time.0) } else { feature.default };
    features.map(|(at, feature)| (at, value(feature))).collect()
}

/// Bits of chosen places, so that a comparison cannot forgive anything.
pub fn bits(values: &[(usize, f32)]) -> Vec<(usize, u32)> {
    values.iter().map(|(at, value)| (*at, value.to_bits())).collect()
}

/// Bits of the places of a scope.
pub fn bits_of(view: &View, out: &[f32], scope: Scope) -> Vec<(usize, u32)> {
    let features = view.features().iter().enumerate().filter(|(_, feature)| feature.scope == scope);
    features.map(|(at, _)| (at, out[at].to_bits())).collect()
}
