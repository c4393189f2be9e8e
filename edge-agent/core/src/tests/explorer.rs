//! What the explorers share: a search through all that can happen to a small world, breadth first, each state once, and
//! long ways at random. What must hold is asserted by the world at every step; a way on which it does not is printed.

use std::collections::{HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Something to which things happen.
pub(crate) trait World: Clone {
    type Event: Copy + Debug;

    /// All that may ever happen.
    fn events() -> impl Iterator<Item = Self::Event>;
    /// Whether this can happen now and may make a difference.
    fn can(&self, event: Self::Event) -> bool;
    fn step(&mut self, event: Self::Event);
    /// Everything works from now on: it must find its way.
    fn settle(&mut self);
    /// What makes two states the same.
    fn key(&self) -> u64;
}

/// What a search has looked at.
#[derive(Debug)]
pub(crate) struct Explored {
    pub states: usize,
    pub steps: usize,
    pub settled: usize,
    /// Events between the start and the last of these states.
    pub depth: usize,
    /// There are no others.
    pub whole: bool,
}

/// The events that led to where something is wrong.
struct Way<E: Debug>(Vec<E>);

impl<E: Debug> Drop for Way<E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after {:?}", self.0);
        }
    }
}

/// How many states to look at: as a variable of the environment says, or so many.
pub(crate) fn asked_for(variable: &str, states: usize) -> usize {
    std::env::var(variable).ok().and_then(|given| given.parse().ok()).unwrap_or(states)
}

/// Goes breadth first through all that can happen after `start`; from every so-manieth state it is tried whether it
/// settles.
pub(crate) fn explore<W: World>(start: &W, states: usize, settle_every: usize) -> Explored {
    let mut known = HashSet::from([start.key()]);
    let mut queue = VecDeque::from([(start.clone(), Vec::new())]);
    let mut explored = Explored { states: 0, steps: 0, settled: 0, depth: 0, whole: true };
    while let Some((world, events)) = queue.pop_front() {
        if explored.states == states {
            explored.whole = false;
            break;
        }
        explored.states += 1;
        explored.depth = events.len();
        let mut way = Way(events);
        if explored.states.is_multiple_of(settle_every) {
            world.clone().settle();
            explored.settled += 1;
        }
        for event in W::events().filter(|event| world.can(*event)) {
            let mut next = world.clone();
            way.0.push(event);
            next.step(event);
            explored.steps += 1;
            if known.insert(next.key()) {
                queue.push_back((next, way.0.clone()));
            }
            way.0.pop();
        }
    }
    explored
}

/// Goes far into it, any way: `walks` ways of so many events, at whose end it must settle. How many there were in all.
pub(crate) fn wander<W: World>(start: &W, walks: usize, length: usize) -> usize {
    for walk in 0..walks {
        let (mut world, mut way) = (start.clone(), Way(Vec::new()));
        for step in 0..length {
            let possible: Vec<_> = W::events().filter(|event| world.can(*event)).collect();
            let mut hasher = DefaultHasher::new();
            (walk, step).hash(&mut hasher);
            let event = possible[hasher.finish() as usize % possible.len()];
            way.0.push(event);
            world.step(event);
        }
        world.settle();
    }
    walks * length
}
