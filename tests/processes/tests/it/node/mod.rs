//! The node's firmware on an emulated Cortex-M4 beside a real agent process: its UART on a socket, between them a tap
//! that reads everything, and spoils some of it.

mod debugger;
mod images;
mod learning;
mod remains;
mod tap;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tributary_demo::wait;
use tributary_features::vibration;
use tributary_process::http::{Client, Endpoint};
use tributary_wire::link::Features;

use crate::process::{Hub, run};
use tap::Tap;

/// An emulated machine beside a debug build, both on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
const NODE: &str = "mps2-1";
const BANDS: usize = 8;
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
name = "axis"
kind = "int"
unit = ""
required = true

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

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn firmware(script: &str) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../firmware").canonicalize().unwrap();
    Command::new(folder.join(script))
}

/// Tests that want the program find what the first of them built.
static BUILDING: Mutex<()> = Mutex::new(());

fn missing(what: &str) {
    crate::tools::lacks("the emulated node", what);
}

fn can_emulate() -> bool {
    let can = Command::new("qemu-system-arm").arg("--version").output().is_ok();
    if !can {
        missing("qemu-system-arm is not installed; .ci/install installs it");
    }
    can
}

/// The node's program, whose bearing wears from the twentieth second on. `None` where it cannot be built or run: that is
/// skipped, loudly, and in CI a failure.
fn build() -> Option<PathBuf> {
    let _one_at_a_time = BUILDING.lock();
    if !can_emulate() {
        return None;
    }
    // Beside the other build outputs; the firmware's cargo has its own folder and so its own lock.
    let target = Path::new(env!("CARGO_BIN_EXE_programs")).ancestors().nth(2).unwrap().join("firmware");
    let built = firmware("build").env("FIRMWARE_TARGET_DIR", target).env("NODE_WEARS_AFTER", "20000").output().unwrap();
    let (out, log) = (String::from_utf8_lossy(&built.stdout), String::from_utf8_lossy(&built.stderr));
    match built.status.code() {
        Some(0) => Some(PathBuf::from(out.trim())),
        Some(3) => {
            missing(&format!("no toolchain for its processor: {log}"));
            None
        }
        _ => panic!("firmware/build failed: {log}"),
    }
}

struct Agent {
    folder: PathBuf,
    local: Client,
    process: Option<Running>,
}

impl Agent {
    fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("agent.log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_programs"))
            .args(["agent", "run", "--config"])
            .arg(self.folder.join("agent.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.process = Some(Running(process.unwrap()));
    }

    fn kill(&mut self) {
        self.process = None;
    }

    async fn node(&self) -> Option<Value> {
        let status: Value = self.local.get("/v1/status").await.ok()?;
        Some(status["nodes"][0].clone())
    }

    async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, PATIENCE, async || {
            let node = self.node().await;
            Ok(node.clone().filter(|node| holds(node)).ok_or_else(|| format!("{node:?}")))
        })
        .await
        .unwrap()
    }

    async fn order(&self, order: Value) {
        // The agent answers a late outcome with an error; the order is then given again.
        wait::until("an order is carried out", PATIENCE, async || {
            let path = format!("/v1/nodes/{NODE}/orders");
            let answer: Result<Value, _> = self.local.call(Method::POST, &path, &order).await;
            Ok(answer.map(drop).map_err(|error| error.to_string()))
        })
        .await
        .unwrap();
    }

    /// Ids of all accepted events.
    async fn accepted(&self) -> Vec<String> {
        let (mut ids, mut after) = (Vec::new(), 0);
        loop {
            let page: Value = self.local.get(&format!("/v1/accepted?after={after}&limit=1000")).await.unwrap();
            let events = page["events"].as_array().unwrap();
            ids.extend(events.iter().map(|event| event["id"].as_str().unwrap().to_owned()));
            match page["next"].as_u64() {
                Some(next) => after = next,
                None => return ids,
            }
        }
    }
}

/// Session, window and axis of a raw file, and its samples.
fn raw_windows(folder: &Path) -> BTreeMap<(u32, u32, u8), Vec<i16>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "i16"));
    files
        .map(|path| {
            let name: Vec<&str> = path.file_stem().unwrap().to_str().unwrap().split('-').collect();
            let key = (u32::from_str_radix(name[0], 16).unwrap(), name[1].parse().unwrap(), name[2].parse().unwrap());
            let bytes = std::fs::read(path.as_path()).unwrap();
            (key, bytes.as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect())
        })
        .collect()
}

/// What the node said of a window is what the same code says here of the window's samples.
fn check_parity(raw: &BTreeMap<(u32, u32, u8), Vec<i16>>, told: &BTreeMap<(u32, u32, u8), Features>) {
    for (key, samples) in raw {
        let features = vibration::of_samples::<BANDS>(samples).unwrap();
        let told = &told[key];
        let moments = features.moments;
        let node = (told.mean, told.rms, told.peak, told.crest, told.kurtosis, told.crossings);
        let host = (moments.mean, moments.rms, moments.peak, moments.crest, moments.kurtosis, moments.crossings);
        assert_eq!(node, host, "window {key:?}");
        assert_eq!(*told.bands, features.bands, "window {key:?}");
    }
}

/// A node on the emulated machine, a tap on its line, and an agent behind it.
struct Bench {
    agent: Agent,
    tap: Tap,
    /// The node's program, its image beside it.
    program: PathBuf,
    _emulator: Running,
    folder: tempfile::TempDir,
}

impl Bench {
    /// Starts all of them, the agent enrolled with a hub if there is one.
    async fn start(view: &str, hub: Option<&Hub>) -> Option<Self> {
        let program = build()?;
        let folder = tempfile::tempdir().unwrap();
        let uart = folder.path().join("uart.sock");
        let debug = format!("unix:{},server=on,wait=off", folder.path().join("debug.sock").display());
        let emulator = firmware("run")
            .arg(&program)
            .arg(format!("unix:{}", uart.display()))
            .args(["-gdb", &debug])
            .stdin(Stdio::null())
            .spawn();
        let _emulator = Running(emulator.unwrap());
        let line = folder.path().join("line.sock");
        let tap = Tap::start(&uart, &line).await;
        std::fs::write(folder.path().join("view.toml"), view).unwrap();
        let url = hub.map(|hub| format!("https://{}", hub.address("https")));
        let hub_url = url.as_ref().map_or(String::new(), |url| format!("[hub]\nurl = \"{url}\"\n"));
        let settings = format!(
            "device = \"edge-1\"\nstate_dir = {:?}\nview = {:?}\n{hub_url}[[sources.serial]]\nport = \"unix:{}\"\nnode = \"{NODE}\"\nimage_keys = {:?}\n",
            folder.path().join("state"),
            folder.path().join("view.toml"),
            line.display(),
            images::keys_file(folder.path())
        );
        let config = folder.path().join("agent.toml");
        std::fs::write(&config, settings).unwrap();
        if let (Some(hub), Some(url)) = (hub, &url) {
            let config = config.display().to_string();
            run("agent", &["enroll", "--config", &config, "--hub", url, "--token", &hub.token(1)]);
        }
        let local =
            Client::new(Endpoint::Unix(folder.path().join("state/agent.sock"))).with_timeout(Duration::from_secs(60));
        let mut agent = Agent { folder: folder.path().to_owned(), local, process: None };
        agent.start();
        Some(Self { agent, tap, program, _emulator, folder })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emulated_node_reaches_a_real_agent_over_a_bad_line_through_kills_and_restarts() {
    let Some(Bench { folder, tap, mut agent, _emulator, .. }) = Bench::start(VIEW, None).await else { return };
    let node = agent.until("windows come in", |node| node["accepted"].as_u64() >= Some(6)).await;
    assert_eq!((&node["kind"], &node["starts"], &node["rate"]), (&json!("mps2"), &json!(1), &json!(1000)), "{node}");
    agent.order(json!({"send_raw": 2})).await;
    agent.order(json!("report")).await;
    let node = agent.until("raw windows come in", |node| node["raw_windows"].as_u64() >= Some(6)).await;
    // How many samples were missed says how busy this machine is, not how good the node.
    assert_eq!((&node["sensor"], &node["health"]["sensor_errors"]), (&json!("well"), &json!(0)), "{node}");
    let raw = folder.path().join("state/nodes").join(NODE).join("raw");
    assert_eq!(raw_windows(&raw).values().map(Vec::len).collect::<BTreeSet<_>>(), BTreeSet::from([512]));
    check_parity(&raw_windows(&raw), &tap.features());

    // One byte in two hundred is changed, both ways; then the agent is killed in the midst of it.
    tap.spoil(200);
    let before = node["accepted"].as_u64().unwrap();
    agent.until("windows come in over a bad line", |node| node["accepted"].as_u64() > Some(before + 12)).await;
    agent.kill();
    agent.start();
    let node = agent.until("damage is counted", |node| node["damaged"].as_u64() > Some(2)).await;
    assert_eq!(node["session"].as_u64(), Some(u64::from(tap.session())), "the node goes on in its session");
    tap.spoil(0);

    // By now the bearing wears, and the node finds it without being asked.
    let node = agent.until("an anomaly is found", |node| node["anomalies"].as_u64() > Some(0)).await;
    assert!(node["scores"].as_array().is_some_and(|scores| scores.len() == 3), "{node}");
    agent.until("its raw window comes by itself", |node| node["raw_windows"].as_u64() >= Some(3)).await;
    check_parity(&raw_windows(&raw), &tap.features());

    // A restart of the node: another life, another session, counted from 1; its crash memory counts the start.
    let session = tap.session();
    agent.order(json!("restart")).await;
    let node = agent.until("the node is back", |node| node["starts"] == 2 && node["session"] != session).await;
    assert_eq!((&node["crash"], &node["problem"]), (&Value::Null, &Value::Null), "{node}");
    let accepted = node["accepted"].as_u64().unwrap();
    agent.until("it measures", |node| node["accepted"].as_u64() > Some(accepted + 3)).await;

    // Everything that was acknowledged to the node is here, once.
    let acknowledged = tap.acknowledged();
    let ids = agent.accepted().await;
    let unique: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "an event is here twice");
    let lost: Vec<_> = acknowledged.iter().filter(|id| !unique.contains(id)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged windows are lost: {lost:?}", lost.len(), acknowledged.len());
    assert!(acknowledged.len() > 40, "only {} windows were acknowledged", acknowledged.len());
}
