//! Releases on their way to real agents: a second version as a patch over the streams beside MQTT, a long download that a
//! kill interrupts, telemetry all the while, and a mirror in the place of hubs that do not answer.

use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::agent::Agent;
use crate::model;
use crate::process::Hub;
use crate::source::{Source, reconcile};

/// Width of a net whose package has a quarter of a megabyte.
const SMALL: usize = 4_096;
/// One whose package has some megabytes.
const LARGE: usize = 60_000;
/// So slow that the large package takes a minute.
const SLOW: &str = "[download.budget]\nbytes_per_second = \"64 KiB\"\n";
/// What is made durable of a download every so many bytes.
const PIECE: u64 = 1 << 20;

/// Weights that no compression gets much out of; those before `like` are of another package.
fn noise(seed: u32, like: usize) -> impl Fn(usize) -> f32 {
    move |at| {
        let seed = if at < like { seed + 1_000 } else { seed };
        let mixed = (at as u64 + 1).wrapping_mul(u64::from(seed) * 2 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as f32 * 1e-13
    }
}

fn release(hub: &Hub, folder: &Path, version: u32, package: &[u8]) {
    let path = folder.join(format!("{version}.tpk"));
    std::fs::write(&path, package).unwrap();
    hub.operator(&["model", "upload", "card-fraud", &path.display().to_string()]);
    let version = version.to_string();
    hub.operator(&["model", "publish", "card-fraud", &version]);
    hub.operator(&["rollout", "start", "card-fraud", &version, "--strategy", "all"]);
}

/// How a version came, once it serves for good.
async fn committed(agent: &mut Agent, version: u32) -> Value {
    let is = |status: &Value| status["lines"][0]["committed"] == version && status["lines"][0]["candidate"].is_null();
    let status = agent.until(&format!("version {version} is committed"), is).await;
    let arrived = status["download"]["arrived"].as_array().unwrap().clone();
    arrived.into_iter().find(|arrival| arrival["version"] == version).unwrap_or_else(|| panic!("{status:#}"))
}

/// A counter of the agent's process, over all series that begin so.
async fn counted(agent: &Agent, series: &str) -> u64 {
    let answer = agent.local.send(Method::GET, "/metrics", "", Default::default()).await.unwrap();
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let values = text.lines().filter(|line| line.starts_with(series)).map(|line| line.rsplit(' ').next().unwrap());
    values.map(|value| value.parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_and_packages_come_beside_telemetry_through_kills_and_from_mirrors() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // The large package is to come as it is.
    let patches = "[patches]\nlargest_package = \"1 MiB\"\n";
    let mut hub = Hub::start_with(folder.path(), folder.path().join("data"), patches, &[]).await;
    hub.operator(&["keys", "init", "--out", &path("keys"), "--line", "card-fraud"]);
    std::fs::write(path("view.toml"), tributary_fraud::VIEW_TOML).unwrap();
    hub.operator(&["view", "add", &path("view.toml")]);
    hub.operator(&["line", "set", "card-fraud", "--view", "card-risk"]);
    let mut agent = Agent::enrol(&hub, "edge-1", hub.beside("state"), SLOW);
    agent.start();
    agent.until("the agent is connected over QUIC", |status| status["hub"]["transport"] == "quic").await;
    let source = Source::start("e", &agent.local);

    // The second version differs a little from the first, and the rollout waits until the hub knows how.
    release(&hub, folder.path(), 1, &model::with(1, SMALL, &noise(1, 0)));
    committed(&mut agent, 1).await;
    let second = model::with(2, SMALL, &noise(1, 50));
    release(&hub, folder.path(), 2, &second);
    let arrival = committed(&mut agent, 2).await;
    assert_eq!((&arrival["way"], &arrival["from"]), (&json!("patch"), &json!(["quic"])), "{arrival:#}");
    let (bytes, of) = (arrival["bytes"].as_u64().unwrap(), arrival["of"].as_u64().unwrap());
    assert!(of == second.len() as u64 && bytes < of / 10, "{arrival:#}");
    assert_eq!(counted(&agent, "edge_agent_download_patched_total{way=\"patch\"}").await, 1);

    // One that nothing makes shorter, slowly. Telemetry reaches the lake while it is on its way.
    let third = model::with(3, LARGE, &noise(3, 0));
    let length = third.len() as u64;
    release(&hub, folder.path(), 3, &third);
    let under_way = |status: &Value| status["download"]["under_way"][0]["bytes"].as_u64();
    agent.until("the third version is on its way", |status| under_way(status).is_some_and(|at| at > 0)).await;
    source.goes_on(&mut hub, 20).await;
    let reached = |status: &Value| under_way(status).is_some_and(|bytes| bytes > PIECE + PIECE / 4);
    let status = agent.until("a good piece of it is here, and not all", reached).await;
    assert_eq!(status["download"]["under_way"][0]["from"], "quic", "{status:#}");
    agent.kill();
    let config = hub.beside("edge-1").join("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace(SLOW, "");
    std::fs::write(&config, text).unwrap();
    agent.start();
    let arrival = committed(&mut agent, 3).await;
    assert_eq!(arrival["way"], "plain", "{arrival:#}");
    // Whichever way to the hub stood first.
    let after = counted(&agent, "edge_agent_download_bytes_total").await;
    assert!(after > 0 && after <= length - PIECE / 2, "{after} of {length} bytes came after the kill");
    reconcile(&mut hub, &source.stop().await).await;

    // Two hubs that take connections and never say a word; what they have is on a mirror.
    hub.operator(&["repository", "export", &path("mirror")]);
    let silent = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let [first, other] = silent.each_ref().map(|listener| listener.local_addr().unwrap().to_string());
    let mirror = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let copy = format!("http://{}", mirror.local_addr().unwrap());
    tokio::spawn(serve(mirror, folder.path().join("mirror")));
    let more = format!(
        "[download]\nquic = false\nhubs = [{other:?}]\ninsecure_plain_mirrors = [\"{copy}/\"]\npatience = \"2s\"\n\
         metadata_patience = \"2s\"\n"
    );
    let mut second = Agent::enrol(&hub, "edge-2", hub.beside("state-2"), &more);
    let config = hub.beside("edge-2").join("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace("[hub]\n", &format!("[hub]\nhttps = {first:?}\n"));
    std::fs::write(&config, text).unwrap();
    second.start();
    let came = |status: &Value| status["download"]["arrived"][0]["version"] == 3;
    let status = second.until("the third version came from a mirror", came).await;
    let download = &status["download"];
    assert_eq!(download["arrived"][0]["from"], json!([copy]), "{download:#}");
    for address in [first, other] {
        assert!(download["failures"][format!("https://{address}")].is_string(), "{download:#}");
    }
}

/// Any web server: files as they lie there.
async fn serve(listener: TcpListener, folder: PathBuf) {
    while let Ok((stream, _)) = listener.accept().await {
        let folder = folder.clone();
        // Whoever goes away in the middle asks again.
        tokio::spawn(async move { drop(answer(stream, &folder).await) });
    }
}

async fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let (mut head, mut piece) = (Vec::new(), [0; 4096]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    let head = String::from_utf8_lossy(&head);
    // An address writes the percent sign of a file's name so.
    let path = head.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/').replace("%25", "%");
    let (status, body) = match std::fs::read(folder.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}
