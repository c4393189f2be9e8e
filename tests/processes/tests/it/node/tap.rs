//! Between an emulated node's UART and the agent: reads what the node says and what the agent acknowledges, and spoils
//! bytes when it is told to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tributary_demo::wait;
use tributary_wire::link::{Deframer, Down, DownV1, Features, Record, Up, UpV1};

#[derive(Default)]
struct Heard {
    session: u32,
    /// By session, window and axis.
    features: BTreeMap<(u32, u32, u8), Features>,
    /// Records that are windows, by session and number.
    windows: BTreeMap<(u32, u32), String>,
    /// How far the agent has acknowledged each session.
    acknowledged: BTreeMap<u32, u32>,
}

/// A tap on a line.
pub struct Tap {
    heard: Arc<Mutex<Heard>>,
    /// One byte in so many is changed; 0: none.
    spoiled: Arc<AtomicU64>,
}

impl Tap {
    /// Connects to the UART and waits for agents at `line`. One after the other: the line itself is never cut.
    pub async fn start(uart: &Path, line: &Path) -> Self {
        let listener = UnixListener::bind(line).unwrap();
        let emulator = wait::until("the emulator listens", Duration::from_secs(60), async || {
            Ok(UnixStream::connect(uart).await.map_err(|error| error.to_string()))
        });
        let emulator = emulator.await.unwrap();
        let tap = Self { heard: Arc::default(), spoiled: Arc::default() };
        let (heard, spoiled) = (tap.heard.clone(), tap.spoiled.clone());
        tokio::spawn(async move {
            let (mut from_node, mut to_node) = emulator.into_split();
            let (mut up, mut down) = (Deframer::default(), Deframer::default());
            let mut chance = SmallRng::seed_from_u64(3);
            let mut spoil = move |bytes: &mut [u8]| {
                let one_in = spoiled.load(Ordering::Relaxed);
                for byte in bytes.iter_mut().filter(|_| one_in > 0) {
                    if chance.random_range(0..one_in) == 0 {
                        *byte = chance.random();
                    }
                }
            };
            loop {
                let Ok((agent, _)) = listener.accept().await else { return };
                let (mut from_agent, mut to_agent) = agent.into_split();
                let (mut upward, mut downward) = ([0; 512], [0; 512]);
                loop {
                    tokio::select! {
                        read = from_node.read(&mut upward) => {
                            let Ok(count @ 1..) = read else { return };
                            let bytes = &mut upward[..count];
                            bytes.iter().for_each(|byte| hear_up(&heard, &mut up, *byte));
                            spoil(bytes);
                            if to_agent.write_all(bytes).await.is_err() { break }
                        }
                        read = from_agent.read(&mut downward) => {
                            let Ok(count @ 1..) = read else { break };
                            let bytes = &mut downward[..count];
                            bytes.iter().for_each(|byte| hear_down(&heard, &mut down, *byte));
                            spoil(bytes);
                            if to_node.write_all(bytes).await.is_err() { return }
                        }
                    }
                }
            }
        });
        tap
    }

    /// Changes one byte in so many from now on; 0: none.
    pub fn spoil(&self, one_in: u64) {
        self.spoiled.store(one_in, Ordering::Relaxed);
    }

    /// The node's present session.
    pub fn session(&self) -> u32 {
        self.heard.lock().unwrap().session
    }

    /// What the node said of each window, by session, window and axis.
    pub fn features(&self) -> BTreeMap<(u32, u32, u8), Features> {
        self.heard.lock().unwrap().features.clone()
    }

    /// Event ids of all windows that the agent has acknowledged.
    pub fn acknowledged(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let through = |session: &u32| heard.acknowledged.get(session).copied().unwrap_or(0);
        let windows = heard.windows.iter().filter(|((session, number), _)| *number <= through(session));
        windows.map(|(_, id)| id.clone()).collect()
    }
}

fn hear_up(heard: &Mutex<Heard>, line: &mut Deframer, byte: u8) {
    let Some(Ok(message)) = line.push(byte) else { return };
    let Ok(Up::V1(UpV1::Record { session, number, record, .. })) = Up::decode(message) else { return };
    let mut heard = heard.lock().unwrap();
    heard.session = session;
    if let Record::Features(features) = record {
        let before = heard.features.insert((session, features.window, features.axis), features);
        assert!(before.is_none_or(|before| before == features), "a record that came again says something else");
        heard.windows.insert((session, number), format!("{}-{session:08x}-{number}", super::NODE));
    }
}

fn hear_down(heard: &Mutex<Heard>, line: &mut Deframer, byte: u8) {
    let Some(Ok(message)) = line.push(byte) else { return };
    if let Ok(Down::V1(DownV1::Ack { session, through, .. })) = Down::decode(message) {
        let mut heard = heard.lock().unwrap();
        let known = heard.acknowledged.entry(session).or_default();
        *known = through.max(*known);
    }
}
