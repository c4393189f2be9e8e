//! A sender and a receiver on a bad line, under a virtual clock: what was recorded is stored once, whatever the line and
//! the resets do.

use proptest::prelude::*;
use std::collections::VecDeque;

use tributary_wire::link::*;

/// A line that changes, loses and adds bytes, each with a chance in a thousand.
struct Line {
    chance: u64,
    bad: u64,
    bytes: VecDeque<u8>,
}

impl Line {
    fn random(&mut self) -> u64 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.chance >> 33
    }

    fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.random() % 1000 >= self.bad {
                self.bytes.push_back(*byte);
                continue;
            }
            let other = self.random() as u8;
            match self.random() % 4 {
                0 => {}
                1 => self.bytes.extend([*byte, other]),
                _ => self.bytes.push_back(other),
            }
        }
    }
}

fn records(session: u32, number: u32, behind: u32) -> Up<'static> {
    let record = Record::Done { order: number, outcome: Outcome::Done };
    Up::V1(UpV1::Record { session, number, behind, uptime: u64::from(number), record })
}

/// Returns what was stored, in order, and the bytes that went up.
fn run(seed: u64, bad: u64, count: u32, agent_resets: &[u64]) -> (Vec<u32>, usize) {
    let line = |chance| Line { chance, bad, bytes: VecDeque::new() };
    let (mut upward, mut downward) = (line(seed), line(!seed));
    let (mut node, mut agent) = (Deframer::default(), Deframer::default());
    let mut sender = Sender::new(Timing::default());
    for _ in 0..count {
        sender.number();
    }
    let mut receiver: Option<Receiver> = Some(Receiver::default());
    let (mut stored, mut waiting, mut sent) = (Vec::new(), Vec::new(), 0);
    // 1 ms a step, at 115 200 baud 11 bytes.
    for step in 0..4_000_000_u64 {
        let now = step * 1000;
        if agent_resets.contains(&step) {
            (receiver, agent) = (None, Deframer::default());
            waiting.clear();
        }
        if upward.bytes.len() < 64
            && let Some(number) = sender.due(now)
        {
            let mut frame = [0; MAX_FRAME];
            let length = encode(&records(5, number, number - sender.oldest()), &mut frame).unwrap();
            sent += length;
            upward.put(&frame[..length]);
        }
        for byte in upward.bytes.drain(..upward.bytes.len().min(11)) {
            let Some(Ok(message)) = agent.push(byte) else { continue };
            let Ok(Up::V1(UpV1::Record { session: 5, number, behind, .. })) = Up::decode(message) else { continue };
            let receiver = receiver.get_or_insert_with(|| Receiver::resume(number, behind));
            if receiver.take(number, behind) == Reception::New {
                waiting.push((now + 20_000, number));
            }
        }
        // A disk takes a while; the store recognises what it has.
        waiting.retain(|(ready, number)| {
            let done = *ready <= now;
            if done {
                if !stored.contains(number) {
                    stored.push(*number);
                }
                receiver.as_mut().unwrap().store(*number);
            }
            !done
        });
        if step % 50 == 0
            && let Some(receiver) = &receiver
        {
            let (through, scattered) = receiver.acknowledged();
            let mut frame = [0; MAX_FRAME];
            let length = encode(&Down::V1(DownV1::Ack { session: 5, through, scattered }), &mut frame).unwrap();
            downward.put(&frame[..length]);
        }
        for byte in downward.bytes.drain(..downward.bytes.len().min(11)) {
            let Some(Ok(message)) = node.push(byte) else { continue };
            if let Ok(Down::V1(DownV1::Ack { session: 5, through, scattered })) = Down::decode(message) {
                sender.stored(now, through, scattered);
            }
        }
        if sender.oldest() == sender.next() {
            break;
        }
    }
    (stored, sent)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn on_a_bad_line_everything_is_stored_once(
        seed: u64, bad in 0_u64..80, resets in proptest::collection::vec(0_u64..3000, 0..3),
    ) {
        let (mut stored, _) = run(seed, bad, 60, &resets);
        stored.sort_unstable();
        prop_assert_eq!(stored, (1..=60).collect::<Vec<_>>());
    }
}

#[test]
fn on_a_clean_line_nothing_is_sent_twice() {
    let (stored, sent) = run(1, 0, 60, &[]);
    assert_eq!(stored, (1..=60).collect::<Vec<_>>());
    let mut frame = [0; MAX_FRAME];
    let once: usize = (1..=60).map(|number: u32| encode(&records(5, number, 0), &mut frame).unwrap()).sum();
    assert_eq!(sent, once);
}
