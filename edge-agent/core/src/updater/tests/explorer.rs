//! Every order in which things may happen, as far as the search reaches: breadth first, each state once, from a new
//! device and from one that has committed. A few accidents (crashes, failed writes, damaged files) may happen on each
//! way; what must hold is checked at every step, and from states all over the search the device must find its way when
//! everything works again.

mod event;
mod key;
mod rules;
mod settling;
mod world;

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use event::Event;
use world::World;

/// How many states a run of the tests looks at; `EXPLORE_STATES` sets another number.
const STATES: usize = 30_000;
/// From every so-manieth state it is tried whether the device settles.
const SETTLE_EVERY: usize = 97;

/// Events on one long way.
const WALK: usize = 100;

struct Explored {
    states: usize,
    steps: usize,
    settled: usize,
    depth: usize,
    whole: bool,
}

/// Goes breadth first through all that can happen after `start`.
fn explore(start: World, states: usize) -> Explored {
    let mut known = HashSet::from([start.key()]);
    let mut queue = VecDeque::from([(start, 0)]);
    let mut explored = Explored { states: 0, steps: 0, settled: 0, depth: 0, whole: true };
    while let Some((world, depth)) = queue.pop_front() {
        if explored.states == states {
            explored.whole = false;
            break;
        }
        explored.states += 1;
        explored.depth = depth;
        if explored.states.is_multiple_of(SETTLE_EVERY) {
            world.clone().settle_for_good();
            explored.settled += 1;
        }
        for event in Event::all() {
            if !world.can(event) {
                continue;
            }
            let mut next = world.clone();
            next.step(event);
            explored.steps += 1;
            if known.insert(next.key()) {
                queue.push_back((next, depth + 1));
            }
        }
    }
    explored
}

/// Goes far into it, any way: `walks` ways of so many events. How many there were in all.
fn wander(start: &World, walks: u64) -> usize {
    let mut steps = 0;
    for walk in 0..walks {
        let mut world = start.clone();
        for step in 0..WALK {
            let possible: Vec<_> = Event::all().filter(|event| world.can(*event)).collect();
            let mut hasher = DefaultHasher::new();
            (walk, step).hash(&mut hasher);
            world.step(possible[hasher.finish() as usize % possible.len()]);
            steps += 1;
        }
        world.settle_for_good();
    }
    steps
}

#[test]
fn whatever_happens_in_every_order_the_promises_hold() {
    let given = std::env::var("EXPLORE_STATES").ok().and_then(|given| given.parse().ok());
    let states: usize = given.unwrap_or(STATES);
    let starts = [
        ("a new device", World::new()),
        ("version 1 committed", World::committed(&[1])),
        ("version 1, then 2 committed", World::committed(&[1, 2])),
    ];
    for (name, start) in starts {
        let walks = states as u64 / 60;
        let wandered = wander(&start, walks);
        println!("{name}: {wandered} events on {walks} long ways");
        let Explored { states, steps, settled, depth, whole } = explore(start, states / 3);
        let reach = if whole { "all there are" } else { "the nearest" };
        println!("{name}: {states} states ({reach}) up to {depth} events deep, {steps} steps, {settled} settled");
        assert!(settled > 0 && depth >= 4);
    }
}
