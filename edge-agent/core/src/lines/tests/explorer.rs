//! Two roles of a line, and everything that may happen to them in every order, as far as the search reaches: breadth
//! first, each state once, then long ways at random. Assignments of up to three generations come, newer and older ones,
//! the hub's word comes or does not, packages work or fail, and up to two times the power is cut, also between any two
//! writes of one step, or the stored assignment is lost. Checked after every single action: the generation never goes back
//! (what was lost may come again, nothing before it), what counts is on the disk, and every role that has committed to a
//! package answers with one.
//!
//! What an updater does with failed writes, damaged files, failed downloads and doubts is explored where it stands, in
//! `updater/tests/explorer`; here nothing of that happens.

mod world;
mod rules;

use world::World;

use crate::tests::explorer::{self, Explored};

/// How many states a run of the tests looks at; `EXPLORE_LINES` sets another number.
const STATES: usize = 1_500;
/// Generations, and power cuts, on one way.
const GENERATIONS: u64 = 3;
const CUTS: u8 = 2;
/// From every so-manieth state it is tried whether the device settles.
const SETTLE_EVERY: usize = 37;
/// Events on one long way.
const WALK: usize = 60;

/// What an assignment may want: a version for the primary role, and for a challenger beside it; or nothing.
const WISHES: [(Option<u32>, Option<u32>); 5] =
    [(Some(1), None), (Some(1), Some(3)), (Some(2), Some(3)), (Some(2), None), (None, None)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// A newer generation with one of the [`WISHES`].
    Assign(usize),
    /// The newest one once more: the hub's word.
    Again,
    /// One from before.
    Older,
    Online(bool),
    Wait,
    Fetch(usize),
    Evidence(usize, bool),
    /// The power goes now, or after so many writes from now on.
    Cut(u8),
    /// So it does, and the stored assignment is lost.
    Rot,
}

impl explorer::World for World {
    type Event = Event;

    fn events() -> impl Iterator<Item = Event> {
        use Event::*;
        let of_roles = (0..2).flat_map(|role| [Fetch(role), Evidence(role, true), Evidence(role, false)]);
        (0..WISHES.len())
            .map(Assign)
            .chain([Again, Older, Online(true), Online(false), Wait])
            .chain(of_roles)
            .chain((0..4).map(Cut))
            .chain([Rot])
    }

    fn can(&self, event: Event) -> bool {
        self.can(event)
    }

    fn step(&mut self, event: Event) {
        self.step(event);
    }

    fn settle(&mut self) {
        self.settle();
    }

    fn key(&self) -> u64 {
        self.key()
    }
}

#[test]
fn whatever_happens_to_two_roles_in_every_order_no_generation_goes_back_and_what_is_committed_answers() {
    let states = explorer::asked_for("EXPLORE_LINES", STATES);
    let start = World::new();
    let Explored { states, steps, settled, depth, whole } = explorer::explore(&start, states, SETTLE_EVERY);
    let reach = if whole { "all there are" } else { "the nearest" };
    println!("{states} states ({reach}) up to {depth} events deep, {steps} steps, {settled} settled");
    let walks = states / 30;
    println!("{} events on {walks} long ways", explorer::wander(&start, walks, WALK));
    assert!(settled > 0 && depth >= 3);
}
