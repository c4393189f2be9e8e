//! Every order in which things may happen, as far as the search reaches: breadth first, each state once, from a new
//! device and from one that has committed. A few accidents (crashes, failed writes, damaged files) may happen on each
//! way; what must hold is checked at every step, and from states all over the search the device must find its way when
//! everything works again.

mod event;
mod key;
mod rules;
mod settling;
mod world;

use event::Event;
use world::World;

use crate::tests::explorer::{self, Explored};

/// How many states a run of the tests looks at; `EXPLORE_STATES` sets another number.
const STATES: usize = 30_000;
/// From every so-manieth state it is tried whether the device settles.
const SETTLE_EVERY: usize = 97;

/// Events on one long way.
const WALK: usize = 100;

impl explorer::World for World {
    type Event = Event;

    fn events() -> impl Iterator<Item = Event> {
        Event::all()
    }

    fn can(&self, event: Event) -> bool {
        self.can(event)
    }

    fn step(&mut self, event: Event) {
        self.step(event);
    }

    fn settle(&mut self) {
        self.settle_for_good();
    }

    fn key(&self) -> u64 {
        self.key()
    }
}

#[test]
fn whatever_happens_in_every_order_the_promises_hold() {
    let states = explorer::asked_for("EXPLORE_STATES", STATES);
    let starts = [
        ("a new device", World::new()),
        ("version 1 committed", World::committed(&[1])),
        ("version 1, then 2 committed", World::committed(&[1, 2])),
    ];
    for (name, start) in starts {
        let walks = states / 60;
        let wandered = explorer::wander(&start, walks, WALK);
        println!("{name}: {wandered} events on {walks} long ways");
        let Explored { states, steps, settled, depth, whole } = explorer::explore(&start, states / 3, SETTLE_EVERY);
        let reach = if whole { "all there are" } else { "the nearest" };
        println!("{name}: {states} states ({reach}) up to {depth} events deep, {steps} steps, {settled} settled");
        assert!(settled > 0 && depth >= 4);
    }
}
