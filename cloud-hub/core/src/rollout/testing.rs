//! What tests of rollouts have devices say.

use tributary_wire::{
    ClockState, Generation, Health, Incarnation, LineReport, Micros, Report, ReportV1, ReportV2, Resources, Stamp,
    Unfit, Withheld,
};

/// A device's report of its lines, under a generation, and of what it cannot run.
pub(super) fn report(generation: u64, lines: Vec<LineReport>, unfit: Vec<Unfit>) -> Report {
    let base = ReportV1 {
        number: 1,
        incarnation: Incarnation(1),
        stamp: Stamp { boot: 1, monotonic: 0, wall: Micros(1_000), clock: ClockState::Synchronised },
        reads: 3,
        agent: "test".to_owned(),
        labels: Vec::new(),
        generation: Generation(generation),
        asks: false,
        lines,
        snapshot: None,
        health: Health::default(),
        resources: Resources::default(),
    };
    let (withheld, held, audit, nodes) = (Withheld::default(), Vec::new(), None, Vec::new());
    Report::V2(ReportV2 { base, metadata: None, unfit, withheld, held, audit, nodes })
}
