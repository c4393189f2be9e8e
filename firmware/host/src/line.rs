//! Goodput over a simulated line: 115 200 baud both ways, some bytes changed, under a virtual clock.

use tributary_wire::link::{
    Deframer, Down, DownV1, Features, MAX_FRAME, Numbers, Receiver, Reception, Record, Sender, Timing, Up, UpV1,
    encode, pack,
};

/// Ten bits a byte.
const BYTES_A_SECOND: u64 = 11_520;
const SECONDS: u64 = 120;
/// Until a record is durable at the agent.
const DISK: u64 = 5000;

/// What came through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Goodput {
    /// Windows of one axis a second.
    pub windows: f64,
    /// Bytes of their records a second.
    pub bytes: f64,
    /// Frames sent for each one that was needed.
    pub tries: f64,
}

/// A window as the node of the board sends it.
fn message(number: u32, behind: u32) -> Up<'static> {
    let features = Features {
        window: 1000 + number / 3,
        axis: (number % 3) as u8,
        mean: 60_000,
        rms: 12_000,
        peak: 30_000,
        crest: 160_000,
        kurtosis: 190_000,
        crossings: 80,
        bands: Numbers::new([11_000, 1000, 1000, 1100, 1200, 1100, 1000, 1500]),
        score: Some(900),
        temperature: Some(2150),
    };
    let record = Record::Features(features);
    Up::V1(UpV1::Record { session: 0x1234_5678, number, behind, uptime: 3_600_000_000, record })
}

/// Bytes of a packed record and of its frame.
pub fn sizes() -> (usize, usize) {
    let Up::V1(UpV1::Record { uptime, record, .. }) = message(5000, 3) else { return (0, 0) };
    let (mut packed, mut frame) = ([0; 256], [0; MAX_FRAME]);
    (pack(uptime, &record, &mut packed).unwrap_or(0), encode(&message(5000, 3), &mut frame).unwrap_or(0))
}

/// A node that always has something to say, at so many changed bytes in ten thousand.
pub fn goodput(changed: u64) -> Goodput {
    let mut chance = 11_u64;
    let mut spoiled = |byte: u8| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let spoil = (chance >> 33) % 10_000 < changed;
        if spoil { byte ^ ((chance >> 20) as u8 | 1) } else { byte }
    };
    let (mut up, mut down) = (std::collections::VecDeque::new(), std::collections::VecDeque::new());
    let (mut node, mut agent) = (Deframer::default(), Deframer::default());
    let (mut sender, mut receiver) = (Sender::new(Timing::default()), Receiver::default());
    let (mut frames, mut stored, mut waiting) = (0_u64, 0_u64, std::collections::VecDeque::new());
    let (mut frame, mut answer) = ([0; MAX_FRAME], false);
    for byte in 0..SECONDS * BYTES_A_SECOND {
        let now = byte * 1_000_000 / BYTES_A_SECOND;
        while sender.next() - sender.oldest() < 32 {
            sender.number();
        }
        if up.is_empty()
            && let Some(number) = sender.due(now)
        {
            let length = encode(&message(number, number - sender.oldest()), &mut frame).unwrap_or(0);
            up.extend(&frame[..length]);
            frames += 1;
        }
        match up.pop_front().and_then(|byte| agent.push(spoiled(byte))) {
            Some(Ok(message)) => {
                if let Ok(Up::V1(UpV1::Record { number, behind, .. })) = Up::decode(message) {
                    match receiver.take(number, behind) {
                        // The disk of an agent takes some milliseconds.
                        Reception::New => waiting.push_back((now + DISK, number)),
                        Reception::Again => answer = true,
                        Reception::Beyond => {}
                    }
                }
            }
            // As the agent does: whoever sent that learns what is missing.
            Some(Err(_)) => answer = true,
            None => {}
        }
        while let Some((_, number)) = waiting.pop_front_if(|(ready, _)| *ready <= now) {
            receiver.store(number);
            answer = true;
        }
        if answer && down.is_empty() {
            answer = false;
            let (through, scattered) = receiver.acknowledged();
            let ack = Down::V1(DownV1::Ack { session: 0x1234_5678, through, scattered });
            let length = encode(&ack, &mut frame).unwrap_or(0);
            down.extend(&frame[..length]);
        }
        if let Some(Ok(message)) = down.pop_front().and_then(|byte| node.push(spoiled(byte)))
            && let Ok(Down::V1(DownV1::Ack { through, scattered, .. })) = Down::decode(message)
        {
            sender.stored(now, through, scattered);
        }
        stored = u64::from(receiver.acknowledged().0);
    }
    let windows = stored as f64 / SECONDS as f64;
    let bytes = windows * sizes().0 as f64;
    Goodput { windows, bytes, tries: if stored == 0 { f64::NAN } else { frames as f64 / stored as f64 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One frame of 25 comes whole at 5 %, so 7.1 of the 183 a second that the line carries: less than five would mean that
    /// the line idles while something waits.
    #[test]
    fn a_bad_line_is_used_wholly_and_a_good_one_carries_nothing_twice() {
        let [clean, some, much] = [0, 100, 500].map(goodput);
        assert!(clean.windows > 180.0 && clean.tries < 1.01, "{clean:?}");
        assert!(some.windows > 85.0, "{some:?}");
        assert!(much.windows > 5.0, "{much:?}");
    }
}
