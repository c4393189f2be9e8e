//! Whatever a node, or somebody on its line, says: the station goes on, and never acknowledges what it was not told is
//! stored.

use tributary_wire::link::{BlobKind, MAX_FRAME, NodeName, Order, RawPart, encode};

use super::*;

fn at(us: u64) -> Now {
    Now { wall: Micros(1_800_000_000_000_000 + us as i64), monotonic: Duration::from_micros(us) }
}

/// Bytes as a script: what to do, with how many of the bytes that follow.
fn play(script: &[u8]) {
    let mut station = Station::new(Some("a".into()), 1);
    let mut raw = RawAssembly::default();
    let (mut now, mut stored) = (1_000_u64, std::collections::BTreeSet::new());
    let hello = Up::Hello { lowest: 1, highest: 1, session: 0, node: NodeName::new("a").unwrap() };
    station.heard(at(now), hello, 1);
    station.heard(at(now), Up::V1(UpV1::Time { asked: at(0).wall.0, uptime: 0 }), 1);
    station.bring(Parcel { kind: BlobKind::Model, version: 2, bytes: vec![7; 300].into() });
    let mut rest = script;
    while let Some((what, after)) = rest.split_first() {
        let (bytes, after) = after.split_at(after.len().min(usize::from(what >> 3) * 8));
        rest = after;
        now += 1 << (bytes.first().unwrap_or(&0) & 31);
        match what & 7 {
            0 => station.damaged(at(now)),
            1 => station.cut(),
            2 => drop(station.order(Order::Report)),
            _ => {
                let Ok(message) = Up::decode(bytes) else { continue };
                // These need no keeping.
                if let Up::V1(UpV1::Record { session, number, record, .. }) = &message
                    && matches!(record, Record::About(_) | Record::Done { .. })
                {
                    stored.insert((*session, *number));
                }
                for action in station.heard(at(now), message, 2) {
                    let Action::Take { session, number, record, .. } = action else { continue };
                    if let Record::Raw(part) = record {
                        assembled(&mut raw, number, &part);
                    }
                    if what & 1 == 1 {
                        stored.insert((session, number));
                        station.stored(session, number);
                    } else {
                        station.give_back(session, number);
                    }
                }
            }
        }
        let due: Vec<Down<'_>> = station.due(at(now));
        for message in due {
            let mut frame = [0; MAX_FRAME];
            encode(&message, &mut frame).expect("every message fits its frame");
            if let Down::V1(DownV1::Ack { session, through, scattered }) = message {
                for bit in (0..32).filter(|bit| scattered >> bit & 1 == 1) {
                    let number = through + 2 + bit;
                    assert!(stored.contains(&(session, number)), "{number} of {session} is acknowledged, not stored");
                }
            }
        }
        let _ = (station.next_wake(), station.counts(), station.is_there(at(now)), station.clock_error());
    }
}

fn assembled(raw: &mut RawAssembly, number: u32, part: &RawPart<'_>) {
    let Assembled { whole, given_up } = raw.part(number, part);
    if let Some(whole) = whole {
        assert!(!whole.records.is_empty() && whole.samples.len() <= 255 * 64);
    }
    assert!(given_up.len() <= usize::from(u8::MAX) + 1, "{} records of one window", given_up.len());
}

#[test]
fn no_messages_make_a_station_panic() {
    bolero::check!().with_max_len(1024).for_each(|script: &[u8]| play(script));
}
