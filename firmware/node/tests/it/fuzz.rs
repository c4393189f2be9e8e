//! Whatever an agent, or somebody on the line, says: the node goes on, and what it says itself can be read.

use tributary_node::{Identity, Node, Reading};
use tributary_node_simulation::RamFlash;
use tributary_signal::{Analysis, Model};
use tributary_slots::{Layout, Slots, Trusted};
use tributary_wire::link::{Deframer, Down, MAX_FRAME, NodeName, Sensor, Up, encode};

const LENGTH: usize = 64;
const PAGE: u32 = 4096;
const LAYOUT: Layout = Layout {
    journal: [0, PAGE],
    model: [2 * PAGE, 3 * PAGE],
    model_size: PAGE,
    firmware: [4 * PAGE, 5 * PAGE],
    firmware_size: PAGE,
};

type Small<'a> = Node<'a, 1, LENGTH, 8>;

fn hear(node: &mut Small<'_>, now: u64, message: &Down<'_>) {
    let mut frame = [0; MAX_FRAME];
    // A decoded message fits a frame, but for lists longer than ours.
    let Ok(length) = encode(message, &mut frame) else { return };
    frame[..length].iter().for_each(|byte| node.receive(now, *byte));
}

fn say(node: &mut Small<'_>, now: u64, line: &mut Deframer) {
    // A node that always has something to say would say it for ever: the line lets it through for a while.
    for _ in 0..64 {
        let waiting = node.outgoing(now).to_vec();
        if waiting.is_empty() {
            return;
        }
        node.sent(waiting.len());
        for byte in waiting {
            if let Some(message) = line.push(byte) {
                Up::decode(message.expect("a whole frame")).expect("a message of this version");
            }
        }
    }
    panic!("more than 64 frames at one moment");
}

/// Bytes as a script: what to do, with how many of the bytes that follow.
fn play(script: &[u8]) {
    let name = |text| NodeName::new(text).unwrap();
    let (mut memory, mut flash) = ([0; 1024], vec![0xff; 6 * PAGE as usize]);
    let trusted = Trusted { keys: &[[3; 32]], node: name("bench") };
    let mut slots = Slots::open(RamFlash(&mut flash), LAYOUT, trusted, |_| false).unwrap();
    let (kind, firmware, count, ticks, starts) = (name("bench"), (1, 2, 3), 1, 1, 1);
    let identity = Identity { name: name("bench-1"), kind, firmware, count, ticks, starts };
    let model = Model::read(include_bytes!("../../../boards/mps2/model.bin"), 12).unwrap();
    let analysis = Analysis::even(LENGTH).unwrap();
    let mut node = Small::new(identity, 1000, 32, analysis, Some(model), &mut memory, None).with_updates(&mut slots);
    let (mut now, mut number, mut line) = (1000_u64, 0_u32, Deframer::default());
    hear(&mut node, now, &Down::Welcome { version: 1, session: 1 });
    let mut rest = script;
    while let Some((what, after)) = rest.split_first() {
        let (bytes, after) = after.split_at(after.len().min(usize::from(what >> 2) * 3));
        rest = after;
        match what & 3 {
            0 => bytes.iter().for_each(|byte| node.receive(now, *byte)),
            1 => {
                for value in bytes {
                    (number, now) = (number.wrapping_add(1), now + 1000);
                    let values = (*value != 0).then_some([i16::from(*value) * 90 - 11_000]);
                    let sensor = if values.is_some() { Sensor::Well } else { Sensor::Missing };
                    node.take(
                        Reading {
                            number,
                            missed: u32::from(*value) & 1,
                            uptime: now,
                            values,
                            sensor,
                            temperature: None,
                        },
                        || number,
                    );
                }
                now += 1 << (bytes.len() % 28);
            }
            _ => {
                if let Ok(message) = Down::decode(bytes) {
                    hear(&mut node, now, &message);
                }
            }
        }
        say(&mut node, now, &mut line);
        node.action(now);
    }
}

#[test]
fn no_line_makes_a_node_panic() {
    bolero::check!().with_max_len(1024).for_each(|script: &[u8]| play(script));
}
