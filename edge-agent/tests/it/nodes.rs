//! Sensor nodes on a pseudo-terminal, over TCP and over a Unix socket: what a node sends becomes events once, whatever
//! the line and the restarts on both sides do.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use edge_agent::config::Config;
use edge_agent::sources::SerialConfig;
use hyper::Method;
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use tributary_process::http::Response;
use tributary_wire::link::{
    About, Deframer, Down, DownV1, Features, Health, MAX_FRAME, NodeName, Numbers, Order, Outcome, RawPart, Record,
    Sender, Sensor, Timing, Up, UpV1, encode,
};

use crate::support::{self, Running};

const PATIENCE: Duration = Duration::from_secs(60);
const VIEW: &str = r#"
name = "vibration"
version = 1
time_zone = "UTC"
lateness = "1h"
label_delay = "7d"

[[entity]]
name = "node"
kind = "text"

[[value]]
name = "rms"
kind = "double"
unit = "m/s²"
required = true

[[feature]]
name = "rms"
kind = "value"
value = "rms"
"#;

fn config(folder: &tempfile::TempDir, port: &str) -> Config {
    let mut config = support::config(folder);
    let view = folder.path().join("view.toml");
    std::fs::write(&view, VIEW).unwrap();
    config.view = Some(view);
    config.sources.serial =
        vec![SerialConfig { port: port.parse().unwrap(), node: "pump-1".into(), ..SerialConfig::default() }];
    config
}

/// What a node is in this test: records that wait, and the link's own decisions.
struct Node {
    name: &'static str,
    sender: Sender,
    records: Vec<Kept>,
    session: u32,
    line: Deframer,
    begun: Instant,
    orders: Vec<(u32, Order)>,
    refused: bool,
}

#[derive(Clone, Copy)]
enum Kept {
    About,
    Window(u32),
    Health(Sensor),
    Raw(u8),
    Done(u32),
}

impl Node {
    fn new(name: &'static str) -> Self {
        let timing = Timing { resend: 100_000, ..Timing::default() };
        let (sender, line) = (Sender::new(timing), Deframer::default());
        let (records, orders) = (Vec::new(), Vec::new());
        let mut node = Self { name, sender, records, session: 0, line, begun: Instant::now(), orders, refused: false };
        node.keep(Kept::About);
        node
    }

    fn keep(&mut self, record: Kept) {
        self.sender.number();
        self.records.push(record);
    }

    fn uptime(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    fn record(&self, number: u32) -> Record<'static> {
        const RAW: &[u8] = &[1, 0, 0xfe, 0xff];
        match self.records[number as usize - 1] {
            Kept::About => Record::About(About {
                kind: NodeName::new("test").unwrap(),
                firmware: (1, 2, 3),
                rate: 1000,
                window: 512,
                hop: 256,
                axes: 1,
                band_ends: Numbers::new([]),
                count: 1_000_000,
                threshold: Some(50),
                ticks: 1,
                starts: 4,
            }),
            Kept::Window(window) => Record::Features(Features {
                window,
                axis: 0,
                mean: 0,
                rms: 256 * window,
                peak: 0,
                crest: 0,
                kurtosis: 0,
                crossings: 0,
                bands: Numbers::new([]),
                score: Some(window),
                temperature: None,
            }),
            Kept::Health(sensor) => Record::Health(Health { sensor, ..Health::default() }),
            Kept::Raw(part) => Record::Raw(RawPart { window: 9, axis: 0, part, of: 2, samples: RAW }),
            Kept::Done(order) => Record::Done { order, outcome: Outcome::Done },
        }
    }

    fn send(port: &mut impl Write, message: &Up<'_>) {
        let mut frame = [0; MAX_FRAME];
        let length = encode(message, &mut frame).unwrap();
        port.write_all(&frame[..length]).unwrap();
    }

    fn hello(&self, port: &mut impl Write) {
        let node = NodeName::new(self.name).unwrap();
        Self::send(port, &Up::Hello { lowest: 1, highest: 1, session: self.session, node });
    }

    /// Works until everything is acknowledged, or until `enough`.
    fn work<P: Read + Write>(&mut self, port: &mut P, mut enough: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut bytes = [0; 256];
        while !enough(self) {
            assert!(Instant::now() < deadline, "{} of {} records stored", self.sender.oldest() - 1, self.records.len());
            let now = self.uptime();
            if self.session != 0 {
                while let Some(number) = self.sender.due(now) {
                    let (session, behind) = (self.session, number - self.sender.oldest());
                    let record = self.record(number);
                    let uptime = u64::from(number);
                    Self::send(port, &Up::V1(UpV1::Record { session, number, behind, uptime, record }));
                }
            }
            let count = match port.read(&mut bytes) {
                Ok(count) => count,
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    0
                }
                Err(error) => panic!("{error}"),
            };
            for byte in &bytes[..count] {
                let Some(Ok(message)) = self.line.push(*byte) else { continue };
                match Down::decode(message).unwrap() {
                    Down::Who => self.hello(port),
                    Down::Welcome { session, .. } => {
                        self.session = session;
                        self.sender.begin_again();
                        let record = self.record(1);
                        Self::send(port, &Up::V1(UpV1::Record { session, number: 0, behind: 0, uptime: 0, record }));
                    }
                    Down::Refused(_) => self.refused = true,
                    Down::V1(DownV1::Ack { session, through, scattered }) if session == self.session => {
                        self.sender.stored(now, through, scattered);
                    }
                    Down::V1(DownV1::Time { asked }) => {
                        let uptime = self.begun.elapsed().as_micros() as u64;
                        Self::send(port, &Up::V1(UpV1::Time { asked, uptime }));
                    }
                    Down::V1(DownV1::Order { number, order, .. }) => self.orders.push((number, order)),
                    Down::V1(_) => {}
                }
            }
            if count == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn is_done(&self) -> bool {
        self.sender.oldest() == self.sender.next()
    }
}

async fn until(agent: &Running, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = agent.status().await;
        if holds(&status["nodes"][0]) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what}: {}", status["nodes"]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lets a node work in a thread of its own.
async fn working<P: Read + Write + Send + 'static>(
    mut node: Node,
    mut port: P,
    enough: impl FnMut(&Node) -> bool + Send + 'static,
) -> (Node, P) {
    let work = move || {
        node.work(&mut port, enough);
        (node, port)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_a_terminal_becomes_events_and_inventory() {
    let folder = tempfile::tempdir().unwrap();
    let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK).unwrap();
    // Held open, so that the master does not see a hang-up before the agent opens it.
    let _held = rustix::fs::open(name.as_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let agent = Running::start(config(&folder, &name)).await;
    let mut port = File::from(master);
    until(&agent, "the terminal is open", |node| node["open"] == true).await;

    let mut node = Node::new("pump-1");
    (1..=60).for_each(|window| node.keep(Kept::Window(window)));
    node.keep(Kept::Health(Sensor::Stuck));
    (0..2).for_each(|part| node.keep(Kept::Raw(part)));
    node.hello(&mut port);
    // All 256 byte values pass a terminal only when it is raw; garbage between frames changes nothing.
    port.write_all(&[9, 8, 7, 3, 17, 19, 0, 0, 0]).unwrap();
    let (node, port) = working(node, port, Node::is_done).await;
    let status = until(&agent, "everything is shown", |node| node["raw_windows"] == 1).await;
    let shown = &status["nodes"][0];
    assert_eq!(shown["accepted"], 60);
    assert_eq!((&shown["kind"], &shown["firmware"], &shown["starts"]), (&json!("test"), &json!("1.2.3"), &json!(4)));
    assert_eq!((&shown["sensor"], &shown["anomalies"], &shown["scores"]), (&json!("stuck"), &json!(10), &json!([60])));
    assert_eq!((&shown["lost"], &shown["there"]), (&json!(0), &json!(true)));
    assert!(shown["clock_error_us"].as_u64().unwrap() < 10_000_000, "{shown}");
    assert!(status["health"]["problems"].to_string().contains("the same value over and over"), "{}", status["health"]);
    let raw = folder.path().join("state/nodes/pump-1/raw");
    let raw: Vec<_> =
        std::fs::read_dir(raw).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    assert_eq!(raw, [[1, 0, 0xfe, 0xff, 1, 0, 0xfe, 0xff]]);

    let order = |order: Value| {
        let (client, body) = (agent.tcp.clone(), serde_json::to_vec(&order).unwrap());
        async move { client.send(Method::POST, "/v1/nodes/pump-1/orders", "application/json", body.into()).await.unwrap() }
    };
    let obeying = async {
        let (mut node, port) = working(node, port, |node| !node.orders.is_empty()).await;
        let (number, order) = node.orders[0];
        assert_eq!(order, Order::SendRaw { windows: 2 });
        node.keep(Kept::Done(number));
        working(node, port, Node::is_done).await
    };
    let (answer, _) = tokio::join!(order(json!({"send_raw": 2})), obeying);
    let answer: Value = answer.json().unwrap();
    assert_eq!(answer["outcome"], "done");
    let wrong: Response = order(json!({"explode": 1})).await;
    assert_eq!(wrong.status.as_u16(), 422);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_and_a_node_that_start_again_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = config(&folder, &format!("tcp:{}", listener.local_addr().unwrap()));
    let accept = || {
        let (port, _) = listener.accept().unwrap();
        port.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        port
    };
    let agent = Running::start(config.clone()).await;
    let mut port = accept();
    let mut node = Node::new("pump-1");
    (1..=40).for_each(|window| node.keep(Kept::Window(window)));
    node.hello(&mut port);
    let (mut node, port) = working(node, port, |node| node.sender.oldest() > 20).await;
    agent.stop().await;
    drop(port);

    // The agent is new: it knows no session, and the node goes on in the one it has.
    let agent = Running::start(config.clone()).await;
    let port = accept();
    let session = node.session;
    node.sender.begin_again();
    let (node, port) = working(node, port, Node::is_done).await;
    assert_eq!(node.session, session);
    let status = until(&agent, "the rest is there", |node| node["there"] == true).await;
    assert_eq!(status["events"]["accepted"], 40, "{status}");
    assert_eq!((&status["nodes"][0]["lost"], &status["nodes"][0]["session"]), (&json!(0), &json!(session)));

    // The node is new: it counts from 1 again, and nothing of that is taken for something old.
    let (mut node, mut port) = (Node::new("pump-1"), port);
    (1..=5).for_each(|window| node.keep(Kept::Window(window)));
    node.hello(&mut port);
    let (node, _port) = working(node, port, Node::is_done).await;
    assert_ne!(node.session, session);
    let status = until(&agent, "the new life is there", |shown| shown["session"] == node.session).await;
    assert_eq!(status["events"]["accepted"], 45);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_s_name_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("line.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let agent = Running::start(config(&folder, &format!("unix:{}", Path::display(&path)))).await;
    let (mut port, _) = listener.accept().unwrap();
    port.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut node = Node::new("pump-2");
    node.keep(Kept::Window(1));
    node.hello(&mut port);
    let (_, port) = working(node, port, |node| node.refused).await;
    let status = until(&agent, "the stranger is counted", |node| node["strange"] == 1).await;
    assert!(status["health"]["problems"].to_string().contains("was refused: Name"), "{}", status["health"]);
    assert_eq!((&status["events"]["accepted"], &status["nodes"][0]["session"]), (&json!(0), &Value::Null));
    // Nobody on the line at all is a problem too.
    drop((port, listener));
    let status = until(&agent, "the line is lost", |node| node["open"] == false).await;
    assert!(status["health"]["problems"].to_string().contains("is not open"), "{}", status["health"]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_forgotten_once_the_node_that_belongs_there_is_heard_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("line.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let agent = Running::start(config(&folder, &format!("unix:{}", Path::display(&path)))).await;
    let (mut port, _) = listener.accept().unwrap();
    port.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut node = Node::new("pump-1");
    node.keep(Kept::Window(1));
    node.hello(&mut port);
    let (mut node, mut port) = working(node, port, Node::is_done).await;
    Node::new("pump-2").hello(&mut port);
    let status = until(&agent, "the stranger is named", |node| node["problem"].is_string()).await;
    assert!(status["health"]["problems"].to_string().contains("was refused: Name"), "{}", status["health"]);
    // The node goes on in its session, without another greeting.
    node.keep(Kept::Window(2));
    let (node, _port) = working(node, port, Node::is_done).await;
    assert!(node.refused);
    let status = until(&agent, "the node is heard", |node| node["accepted"] == 2).await;
    assert_eq!((&status["nodes"][0]["problem"], &status["nodes"][0]["strange"]), (&Value::Null, &json!(1)));
    assert!(!status["health"]["problems"].to_string().contains("refused"), "{}", status["health"]);
    agent.stop().await;
}
