//! The node's end of the link.

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use tributary_node::{Action, serve};
use tributary_wire::link::{BlobKind, BlobProblem, BlobStep, Crash, CrashKind, Down, DownV1, Order, Refusal};

use crate::bench::{Agent, Bench};

#[test]
fn the_first_records_say_what_the_node_is_and_why_it_started_again() {
    let crash = Crash { kind: CrashKind::Panic, uptime: 9, file: "x.rs", place: 3 };
    let (mut bench, mut agent) = (Bench::new(None, 4096, Some(crash)), Agent::default());
    bench.tick();
    agent.turn(&mut bench);
    agent.turn(&mut bench);
    assert!(
        agent.stored[0].2.contains("About") && agent.stored[0].2.contains("firmware: (1, 2, 3)"),
        "{:?}",
        agent.stored
    );
    assert!(agent.stored[1].2.contains("kind: Panic") && agent.stored[1].2.contains("x.rs"), "{:?}", agent.stored);
}

#[test]
fn without_an_agent_it_calls_every_second_and_keeps_the_newest_records() {
    let mut bench = Bench::new(None, 4096, None);
    let mut bytes = 0;
    for _ in 0..60_000 {
        bench.tick();
        bytes += bench.say().len();
    }
    // 60 times Hello, and nothing else, of 17 bytes each.
    assert!((900..1200).contains(&bytes), "{bytes}");
    let health = bench.node.health();
    assert!(health.overwritten > 500, "{health:?}");
    let mut agent = Agent::default();
    for _ in 0..1000 {
        bench.tick();
        agent.turn(&mut bench);
    }
    let first = agent.stored[0].0;
    assert_eq!(agent.receiver.lost(), first - 1);
    assert!(agent.stored.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "no hole after the first");
    assert_eq!(bench.node.health().overwritten, first - 1);
}

#[test]
fn an_agent_that_falls_silent_is_called_again_in_the_same_session() {
    let (mut bench, mut agent) = (Bench::new(None, 64 << 10, None), Agent::default());
    for _ in 0..2000 {
        bench.tick();
        agent.turn(&mut bench);
    }
    assert!(bench.node.is_open());
    let before = agent.stored.len();
    for _ in 0..8000 {
        bench.tick();
        bench.say();
    }
    assert!(!bench.node.is_open());
    agent.session = 0;
    for _ in 0..2000 {
        bench.tick();
        agent.turn(&mut bench);
    }
    assert_eq!(agent.session, 41, "the node told its session");
    assert!(agent.stored.len() > before + 30, "what was lost on the line came again");
    let numbers: Vec<u32> = agent.stored.iter().map(|(number, _, _)| *number).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=numbers.len() as u32).collect::<Vec<_>>());
}

#[test]
fn orders_are_carried_out_once_and_wrong_ones_refused() {
    let (mut bench, mut agent) = (Bench::new(None, 64 << 10, None), Agent::default());
    bench.tick();
    agent.turn(&mut bench);
    let session = agent.session;
    let order = |number, order| Down::V1(DownV1::Order { session, number, order });
    bench.hear(order(1, Order::Rate(2000)));
    assert_eq!(bench.node.action(bench.now), Some(Action::SetRate(2000)));
    bench.hear(order(1, Order::Rate(2000)));
    assert_eq!(bench.node.action(bench.now), None);
    bench.hear(order(2, Order::Rate(9)));
    bench.hear(order(3, Order::SendRaw { windows: 0 }));
    bench.hear(order(4, Order::Threshold(7)));
    bench.hear(order(5, Order::Report));
    bench.hear(order(6, Order::Restart));
    assert_eq!(bench.node.action(bench.now), None, "not before its receipt is out");
    bench.hear(Down::V1(DownV1::Order { session: session + 1, number: 7, order: Order::Restart }));
    assert_eq!(bench.node.health().refused, 1);
    agent.turn(&mut bench);
    assert_eq!(agent.heard("OutOfRange"), 2);
    assert_eq!(agent.heard("outcome: Done"), 4);
    assert_eq!(agent.heard("threshold: Some(7)"), 2, "told with the order and in the report");
    assert_eq!(bench.node.action(bench.now), Some(Action::Restart));
}

#[test]
fn an_acknowledgement_of_another_session_releases_nothing() {
    let (mut bench, mut agent) = (Bench::new(None, 64 << 10, None), Agent::default());
    bench.tick();
    agent.turn(&mut bench);
    for _ in 0..600 {
        bench.tick();
    }
    let waiting = bench.node.dropped();
    assert!(waiting >= 3, "{waiting} records");
    let (session, (stored, _)) = (agent.session, agent.receiver.acknowledged());
    let ack = |session| Down::V1(DownV1::Ack { session, through: stored + 2, scattered: 0 });
    bench.hear(ack(session + 1));
    assert_eq!((bench.node.dropped(), bench.node.health().refused), (waiting, 1));
    bench.hear(ack(session));
    assert_eq!((bench.node.dropped(), bench.node.health().refused), (waiting - 2, 1));
}

#[test]
fn what_a_restart_forgets_the_next_life_tells_as_lost() {
    let (mut bench, mut agent) = (Bench::new(None, 4096, None), Agent::default());
    for _ in 0..20_000 {
        bench.tick();
        bench.say();
    }
    let (overwritten, dropped) = (bench.node.health().overwritten, bench.node.dropped());
    assert!(overwritten > 100 && dropped > overwritten + 50, "{overwritten} of {dropped}");
    let mut bench = bench.restarted();
    assert_eq!(bench.node.health().overwritten, dropped);
    for _ in 0..10_500 {
        bench.tick();
        agent.turn(&mut bench);
    }
    assert_eq!(agent.heard(&format!("overwritten: {dropped},")), 1, "its health says so");
    assert_eq!(bench.node.dropped(), dropped, "and nothing is counted twice");
}

#[test]
fn time_is_answered_and_a_node_without_flash_takes_no_blobs() {
    let (mut bench, mut agent) = (Bench::new(None, 4096, None), Agent::default());
    bench.hear(Down::V1(DownV1::Time { asked: 4 }));
    bench.tick();
    agent.turn(&mut bench);
    assert!(agent.times.is_empty(), "nothing before a handshake");
    bench.hear(Down::V1(DownV1::Time { asked: 5 }));
    bench.hear(Down::V1(DownV1::Offer { blob: 1, kind: BlobKind::Firmware, length: 9, checksum: 9 }));
    agent.turn(&mut bench);
    assert_eq!(agent.times, [(5, bench.now)]);
    assert_eq!(agent.steps, [BlobStep::Refused(BlobProblem::Kind)]);
    assert!(agent.holds.is_empty());
}

#[test]
fn a_refused_node_waits_before_it_asks_again_and_noise_is_counted() {
    let mut bench = Bench::new(None, 4096, None);
    bench.say();
    bench.hear(Down::Refused(Refusal::Name));
    let mut bytes = 0;
    for _ in 0..30_000 {
        bench.tick();
        bytes += bench.say().len();
    }
    // Ten seconds of silence, then a Hello of 18 bytes every second.
    assert!((18 * 19..=18 * 22).contains(&bytes), "{bytes}");
    let mut state = 1_u32;
    for _ in 0..100_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bench.node.receive(bench.now, (state >> 24) as u8);
    }
    assert!(bench.node.health().refused > 100);
}

/// A port that takes three bytes at a time and gives two.
#[derive(Default)]
struct Narrow {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    room: usize,
}

impl ErrorType for Narrow {
    type Error = core::convert::Infallible;
}

impl ReadReady for Narrow {
    fn read_ready(&mut self) -> Result<bool, Self::Error> {
        Ok(!self.incoming.is_empty())
    }
}

impl Read for Narrow {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        let count = self.incoming.len().min(bytes.len()).min(2);
        bytes[..count].copy_from_slice(&self.incoming[..count]);
        self.incoming.drain(..count);
        Ok(count)
    }
}

impl WriteReady for Narrow {
    fn write_ready(&mut self) -> Result<bool, Self::Error> {
        Ok(self.room > 0)
    }
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        let count = bytes.len().min(3).min(self.room);
        self.outgoing.extend(&bytes[..count]);
        self.room -= count;
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[test]
fn a_narrow_port_gets_every_byte_in_order() {
    let (mut bench, mut other) = (Bench::new(None, 4096, None), Bench::new(None, 4096, None));
    let mut port = Narrow::default();
    let expected = other.say();
    for _ in 0..expected.len() {
        port.room = 1;
        serve(&mut port, &mut bench.node, 0).unwrap();
    }
    assert_eq!(port.outgoing, expected);
    assert!(!serve(&mut port, &mut bench.node, 0).unwrap(), "nothing to do");
}
