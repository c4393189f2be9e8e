//! What the device says about itself.

use edge_agent_core::lines;
use tributary_wire::{ClockState, Micros, Report, ReportV1, ReportV2, Stamp, WIRE_VERSION};

use super::{Condition, Link};

/// The report of this moment, under a number that was never used before.
pub(super) fn build(link: &Link, number: u64) -> Report {
    let Condition { mut health, resources, labels, nodes } = (link.condition)();
    for problem in link.updates.problem().into_iter().chain(link.updates.audit_problem()) {
        health.ok = false;
        health.problems.push(problem);
    }
    let base = ReportV1 {
        number,
        incarnation: link.store.incarnation(),
        stamp: Stamp {
            boot: link.store.boot(),
            monotonic: link.clock.monotonic(),
            wall: Micros(link.clock.wall()),
            clock: match link.clock.is_synchronised() {
                true => ClockState::Synchronised,
                false => ClockState::Unsynchronised,
            },
        },
        reads: WIRE_VERSION,
        agent: crate::VERSION.to_owned(),
        labels,
        generation: link.updates.generation(),
        asks: link.updates.asks(),
        lines: link.updates.lines(),
        snapshot: link.serving.fleet(),
        health,
        resources,
    };
    let (metadata, unfit) = (link.updates.metadata(), link.updates.unfit());
    let (withheld, held, audit) = (link.serving.withheld(), link.store.outbox_held(), link.updates.audit());
    lines::report(link.updates.hub_reads(), ReportV2 { base, metadata, unfit, withheld, held, audit, nodes })
}
