//! A network that stops to carry UDP: a real agent goes on over TLS, nothing is lost, and it finds its way back to
//! QUIC. It all happens in a network namespace of its own, which needs no root: this test starts itself in there.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tributary_process::http::{Client, Endpoint};

use crate::process::{Hub, PATIENCE, Process, run};
use crate::tools;

/// Set for the run inside.
const INSIDE: &str = "TRIBUTARY_INSIDE_NAMESPACE";
const STREAMS: [&str; 2] = ["events", "observations"];
/// Events that must be acknowledged over each transport before the story goes on.
const EVENTS: usize = 60;

#[test]
fn without_udp_telemetry_goes_on_over_tls_and_returns_to_quic_afterwards() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(story());
    }
    let test = "the cut of UDP";
    if ["unshare", "ip", "nft"].into_iter().any(|name| tools::program(test, name).is_none()) {
        return;
    }
    // A user of its own, so that it is root there, and a network of its own.
    let inside = |program: &str, arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-Urnm", program]).args(arguments).env(INSIDE, "1");
        command.output().unwrap()
    };
    let tried = inside("nft", &["list", "ruleset"]);
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr);
        return crate::tools::skipped(test, &format!("this kernel gives no network namespace: {why}"));
    }
    let own = std::env::current_exe().unwrap();
    let name = std::thread::current().name().unwrap().to_owned();
    let done = inside(own.to_str().unwrap(), &[&name, "--exact", "--nocapture"]);
    let (told, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && told.contains("1 passed"), "{told}{errors}");
}

/// Runs a program of the system that must succeed.
fn must(program: &str, arguments: &[&str]) {
    let path = tools::program("the cut of UDP", program).unwrap();
    let done = Command::new(path).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn cut_udp() {
    must("nft", &["add table inet cut; add chain inet cut out { type filter hook output priority 0; }"]);
    must("nft", &["add rule inet cut out meta l4proto udp drop"]);
}

fn mend_udp() {
    must("nft", &["delete table inet cut"]);
}

/// A payment.
fn event(number: usize) -> Value {
    json!({"id": format!("e-{number}"), "time": 1_767_571_200_000_000_i64 + number as i64 * 1_000_000,
           "entities": {"customer_id": number % 7, "terminal_id": number % 3}, "values": {"amount": 12.5}})
}

/// A source that never stops to tell the agent what happens, and remembers what it was promised.
struct Source {
    accepted: JoinHandle<HashSet<String>>,
    sent: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Source {
    fn start(agent: Client) -> Self {
        let (sent, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (sent.clone(), stop.clone());
        let accepted = tokio::spawn(async move {
            let mut accepted = HashSet::new();
            while !end.load(Ordering::Relaxed) {
                let first = count.load(Ordering::Relaxed);
                let events: Vec<Value> = (first..first + 5).map(event).collect();
                let answer: Value = agent.call(Method::POST, "/v1/events?durable=true", &events).await.unwrap();
                for result in answer["results"].as_array().unwrap() {
                    assert_eq!((&result["status"], &result["durable"]), (&"accepted".into(), &true.into()), "{result}");
                    accepted.insert(result["id"].as_str().unwrap().to_owned());
                }
                count.fetch_add(5, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            accepted
        });
        Self { accepted, sent, stop }
    }
}

/// What the agent says of its link.
async fn link(local: &Client) -> Result<Value, String> {
    let status: Value = local.get("/v1/status").await.map_err(|error| error.to_string())?;
    Ok(status["hub"].clone())
}

/// Waits until the agent is connected this way.
async fn connected(agent: &mut Process, local: &Client, transport: &str) {
    agent
        .until(&format!("the agent is connected over {transport}"), async || {
            let link = link(local).await?;
            let is = link["connected"] == true && link["transport"] == transport;
            if is { Ok(()) } else { Err(link.to_string()) }
        })
        .await;
}

/// Waits until some more of what the source says from now on is in the lake.
async fn telemetry_goes_on(hub: &mut Hub, source: &Source) {
    let (lake, due) = (hub.lake(), source.sent.load(Ordering::Relaxed) + EVENTS);
    hub.process
        .until("telemetry comes", async || {
            assert!(!source.accepted.is_finished(), "the agent refused events");
            let found = tributary_demo::recount::event_ids(&lake, STREAMS[0]).map_or(0, |counts| counts.len());
            if found >= due { Ok(()) } else { Err(format!("{found} of {due}")) }
        })
        .await;
}

async fn story() {
    must("ip", &["link", "set", "lo", "up"]);
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(folder.path()).await;
    let url = format!("https://{}", hub.address("https"));
    let (state, view) = (hub.beside("agent"), folder.path().join("view.toml"));
    std::fs::write(&view, tributary_fraud::VIEW_TOML).unwrap();
    let config = folder.path().join("agent.toml");
    // Impatient: what takes minutes in the field takes seconds here.
    let text = format!(
        "device = \"edge-1\"\nstate_dir = {state:?}\nlines = [\"card-fraud\"]\nview = {view:?}\n\
         [hub]\nurl = \"{url}\"\n[sources.api]\ntime = \"replay\"\n\
         [link]\nquic_timeout = \"2s\"\nquic_idle = \"4s\"\nprobe = \"2s\"\nprobe_cap = \"4s\"\nreconnect_cap = \"2s\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    run("agent", &["enroll", "--config", &config, "--hub", &url, "--token", &hub.token(1)]);
    let mut agent = Process::start("agent", folder.path(), &["run", "--config", &config]);
    let local = Client::new(Endpoint::Unix(state.join("agent.sock"))).with_timeout(PATIENCE);
    connected(&mut agent, &local, "quic").await;
    let source = Source::start(local.clone());
    telemetry_goes_on(&mut hub, &source).await;

    cut_udp();
    connected(&mut agent, &local, "tls").await;
    telemetry_goes_on(&mut hub, &source).await;
    let failures = link(&local).await.unwrap()["failures"].clone();
    assert!(failures["quic"].is_string(), "the agent says what is wrong with QUIC: {failures}");

    mend_udp();
    connected(&mut agent, &local, "quic").await;
    telemetry_goes_on(&mut hub, &source).await;

    source.stop.store(true, Ordering::Relaxed);
    let accepted = source.accepted.await.unwrap();
    let lake = hub.lake();
    for stream in STREAMS {
        hub.process
            .until(&format!("all {stream} are in the lake"), async || {
                let counts = tributary_demo::recount::event_ids(&lake, stream).map_err(|error| error.to_string())?;
                let missing = accepted.iter().filter(|id| !counts.contains_key(*id)).count();
                if missing == 0 { Ok(()) } else { Err(format!("{missing} of {} are missing", accepted.len())) }
            })
            .await;
        let counts = tributary_demo::recount::event_ids(&lake, stream).unwrap();
        assert!(counts.values().all(|count| *count == 1), "{stream}: nothing comes twice");
        assert_eq!(counts.len(), accepted.len(), "{stream}: nothing comes that was not accepted");
    }
}
