//! What the source in front of a device brings.

use std::ops::Range;

use rand::Rng;
use rand::rngs::StdRng;
use tributary_features::{Event, EventId, View};
use tributary_fraud::{Generator, GeneratorConfig};

/// Payments of one device in the order of their times, but that some come late.
pub fn payments(seed: u64, device: usize, view: &View, wanted: Range<usize>, chance: &mut StdRng) -> Vec<Event> {
    let seed_here = seed.wrapping_mul(31).wrapping_add(device as u64);
    let config =
        GeneratorConfig { seed: seed_here, customers: 12, terminals: 8, days: 6, ..GeneratorConfig::default() };
    let wanted = chance.random_range(wanted);
    let mut events: Vec<Event> = Generator::new(config).take(wanted).map(|payment| payment.to_event()).collect();
    for at in 0..events.len() {
        let to = (at + chance.random_range(1..6)).min(events.len() - 1);
        let newest = events[..=to].iter().map(|event| event.time.0).max().unwrap_or_default();
        if chance.random_bool(0.1) && newest - events[at].time.0 < view.lateness() {
            events[at..=to].rotate_left(1);
        }
    }
    events
}

/// What every id begins with that a device accepts between two losses of its state.
pub fn prefix(device: &str, state: u32) -> String {
    format!("{device}.{state}-")
}

/// The event under a name that says which state accepted it, so that each is counted where it belongs.
pub fn named(event: &Event, prefix: &str) -> Event {
    let id = EventId::new(&format!("{prefix}{}", event.id)).expect("an id");
    Event { id, ..event.clone() }
}
