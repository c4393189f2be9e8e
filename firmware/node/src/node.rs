//! The node itself: what it makes of readings, what it says, what it does when asked.

use tributary_signal::{Analysis, Model};
use tributary_wire::link::{Crash, Deframer, Down, Health, MAX_FRAME, NodeName, Record};

use crate::measure::Measure;
use crate::sampler::Reading;
use crate::station::Station;
use crate::updates::Updates;

/// What a node is.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Its name.
    pub name: NodeName<'a>,
    /// What kind of node.
    pub kind: NodeName<'a>,
    /// Version of its firmware.
    pub firmware: (u16, u16, u16),
    /// One count of its accelerometer in nanometres per second squared.
    pub count: u32,
    /// Ticks per second of the clock that times the analysis.
    pub ticks: u32,
    /// Starts since power came.
    pub starts: u32,
}

/// What a board must do for its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Tick so many times a second.
    SetRate(u32),
    /// Start the program again.
    Restart,
}

/// A node with `AXES` axes, windows of `N` samples with `B` bands.
#[derive(Debug)]
pub struct Node<'a, const AXES: usize, const N: usize, const B: usize> {
    station: Station<'a, AXES, N, B>,
    line: Deframer,
    frame: [u8; MAX_FRAME],
    /// What of the frame is still to be written.
    waiting: core::ops::Range<usize>,
}

impl<'a, const AXES: usize, const N: usize, const B: usize> Node<'a, AXES, N, B> {
    /// A node that has just started; `memory` is for records that wait. Its first record says what it is, the second, after a crash, what happened.
    ///
    /// # Panics
    /// When `hop` is not from 1 to `N`, or the analysis is of other windows: both are constants of a board.
    pub fn new(
        identity: Identity<'a>,
        rate: u32,
        hop: usize,
        analysis: Analysis<B>,
        model: Option<Model<'a>>,
        memory: &'a mut [u8],
        crash: Option<Crash<'_>>,
    ) -> Self {
        let mut measure = Measure::new(identity, rate, hop, analysis, model, memory);
        measure.tell_about(0);
        if let Some(crash) = crash {
            measure.records.keep(0, &Record::Crash(crash));
        }
        // A zero first ends whatever a restart of ours left half-written at the other side.
        let (frame, waiting) = ([0; MAX_FRAME], 0..1);
        Self { station: Station::new(measure), line: Deframer::default(), frame, waiting }
    }

    /// Takes models and firmware from now on, into these. Without, offers are refused.
    pub fn with_updates(mut self, updates: &'a mut dyn Updates) -> Self {
        self.station.set_updates(updates);
        self
    }

    /// So many records of earlier lives were lost with them: the last thing that [`Self::dropped`] said there.
    pub fn with_dropped(mut self, records: u32) -> Self {
        self.station.measure.dropped = records;
        self
    }

    /// Records that are lost since power came, if the program ends now: those that were overwritten, those that earlier
    /// lives still had, and those that wait. A board keeps this where a restart does not clear it.
    pub fn dropped(&self) -> u32 {
        self.station.measure.dropped()
    }

    /// Takes a reading. `ticks` reads the clock that [`Identity::ticks`] is of; it may wrap.
    pub fn take(&mut self, reading: Reading<AXES>, ticks: impl Fn() -> u32) {
        self.station.measure.take(reading, ticks);
    }

    /// How it is.
    pub fn health(&self) -> Health {
        self.station.measure.health()
    }

    /// Whether the agent was heard lately.
    pub fn is_open(&self) -> bool {
        self.station.is_open()
    }

    /// The board has measured its stack: its size, and what of it was never used.
    pub fn note_stack(&mut self, size: u32, untouched: u32) {
        let health = &mut self.station.measure.health;
        (health.stack, health.stack_untouched) = (size, untouched);
    }

    /// Takes a byte from the line.
    pub fn receive(&mut self, now: u64, byte: u8) {
        match self.line.push(byte).map(|message| message.and_then(Down::decode)) {
            Some(Ok(message)) => self.station.hear(now, message),
            Some(Err(_)) => self.station.measure.refuse(),
            None => {}
        }
    }

    /// Bytes to write to the line; say with [`Self::sent`] how many were. Empty: nothing to say.
    pub fn outgoing(&mut self, now: u64) -> &[u8] {
        if self.waiting.is_empty() {
            self.waiting = 0..self.station.next_frame(now, &mut self.frame);
        }
        &self.frame[self.waiting.clone()]
    }

    /// So many bytes of [`Self::outgoing`] are written.
    pub fn sent(&mut self, count: usize) {
        self.waiting.start = (self.waiting.start + count).min(self.waiting.end);
    }

    /// What the board must do now. Ask in every turn of the main loop.
    pub fn action(&mut self, now: u64) -> Option<Action> {
        self.station.action(now)
    }
}
