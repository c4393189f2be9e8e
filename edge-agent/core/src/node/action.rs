//! What a station says, and what it counts.

use tributary_wire::Micros;
use tributary_wire::link::{About, Down, Holds, Outcome, Record};

use super::Delivered;

/// What the shell does for a station.
#[derive(Debug, Clone, PartialEq)]
pub enum Action<'a> {
    /// Send this to the node.
    Send(Down<'static>),
    /// A node has begun a session.
    Begun(Begun),
    /// This is what the node is. Told again and again; nothing is to be answered.
    About(About<'a>),
    /// Take this record; answer with [`Station::stored`] or [`Station::give_back`].
    Take {
        /// Its session.
        session: u32,
        /// Its number.
        number: u32,
        /// When it was true, by the agent's clock.
        wall: Micros,
        /// What it says.
        record: Record<'a>,
    },
    /// An order is done with.
    Ordered {
        /// Which one.
        order: u32,
        /// What became of it.
        outcome: Outcome,
    },
    /// This is what runs on the node, of one kind. Told again and again.
    Holds(Holds),
    /// A blob is done with.
    Delivered(Delivered),
}

/// How a session began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The node's name.
    pub node: String,
    /// The session.
    pub session: u32,
    /// Whether the node went on with one that it had.
    pub resumed: bool,
}

/// Counts since the agent's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records taken.
    pub taken: u64,
    /// Records that came again.
    pub repeated: u64,
    /// Records that the node overwrote before they could come.
    pub lost: u64,
    /// Messages outside any session, for another one, or from a node that does not belong here.
    pub strange: u64,
}
