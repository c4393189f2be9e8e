//! Disks that are full, for the agent and for the hub, and folders that cannot be written to at a start: file systems in
//! memory with a size, in namespaces of their own.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::agent::Agent;
use crate::namespace::{is_inside, must, tell};
use crate::process::{Hub, finish};
use crate::source::{Source, reconcile};

const TEST: &str = "full disks";

#[test]
fn a_full_disk_stops_agent_or_hub_without_loss_until_there_is_room_and_both_say_so() {
    if is_inside(TEST, &["mount"]) {
        tell(story());
    }
}

/// A disk of its own.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn new(at: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        must(TEST, "mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "none", at.to_str().unwrap()]);
        Self { at }
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Something else takes all but this many bytes.
    fn fill_but(&self, left: usize) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        let chunk = vec![1; 64 << 10];
        while std::io::Write::write_all(&mut ballast, &chunk).is_ok() {}
        let length = ballast.metadata().unwrap().len();
        ballast.set_len(length.saturating_sub(left as u64)).unwrap();
    }

    /// It goes away again.
    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn remount(&self, how: &str) {
        must(TEST, "mount", &["-o", &format!("remount,{how}"), self.at.to_str().unwrap()]);
    }
}

/// Waits until the hub's log speaks of it, behind what it said before.
async fn says(hub: &mut Hub, folder: &Path, before: usize, words: &str) {
    hub.process
        .until(&format!("the hub says {words:?}"), async || {
            let log = std::fs::read_to_string(folder.join("hub.log")).map_err(|error| error.to_string())?;
            let news = log.get(before..).unwrap_or_default();
            if news.contains(words) { Ok(()) } else { Err("no word of it".to_owned()) }
        })
        .await;
}

async fn story() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (hubs, agents) = (Disk::new(path.join("hub-disk"), "96m"), Disk::new(path.join("agent-disk"), "48m"));
    let settings = "[ingest]\ndisk_reserve = \"8 MiB\"\nretry = \"200ms\"";
    let mut hub = Hub::start_with(path, hubs.at.join("data"), settings, &[]).await;
    let mut agent = Agent::enrol(&hub, "edge-1", agents.at.join("state"), "");
    agent.start();
    agent.connected().await;
    let source = Source::start("e", &agent.local);
    source.goes_on(&mut hub, 20).await;

    // The agent's disk. A source hears that nothing is stored, and tries again.
    agents.fill_but(0);
    let full = |status: &Value| status["health"]["problems"].to_string().contains("No space left on device");
    agent.until("the agent says what is wrong", full).await;
    let problem = source.problem();
    assert!(problem.as_ref().is_some_and(|problem| problem.contains("No space left")), "{problem:?}");
    agents.make_room();
    source.goes_on(&mut hub, 20).await;
    agent.until("the agent is well again", |status| !full(status)).await;

    // The hub's disk is nearly full: it stops in time to raise an alert, and agents keep what they have.
    let before = hub.whole_log().len();
    hubs.fill_but(6 << 20);
    says(&mut hub, path, before, "stay for the hub itself").await;
    source.more(40).await;
    let alerts = hub.operator(&["alert", "list"]);
    assert!(alerts.contains("open  disk  hub") && alerts.contains("stay for the hub itself"), "{alerts}");
    hubs.make_room();
    source.goes_on(&mut hub, 20).await;
    let alerts = hub.operator(&["alert", "list"]);
    assert!(!alerts.contains("open  disk"), "{alerts}");

    // It is wholly full: not even the catalog can be written.
    let before = hub.whole_log().len();
    hubs.fill_but(0);
    says(&mut hub, path, before, "nothing of a group was stored").await;
    source.more(40).await;
    says(&mut hub, path, before, "the disk still refuses").await;
    hubs.make_room();
    source.goes_on(&mut hub, 20).await;

    // Read-only at a start: each says which file it could not write, and goes on when it can.
    agent.kill();
    agents.remount("ro");
    let refused = finish("agent", &agent.same());
    let said = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    assert!(!refused.status.success() && said.contains("Read-only file system"), "{said}");
    assert!(said.contains(agent.state.to_str().unwrap()), "{said}");
    agents.remount("rw");
    agent.start();
    source.goes_on(&mut hub, 20).await;
    hub.process.kill();
    hubs.remount("ro");
    let said = hub.refused();
    assert!(said.contains("Read-only file system") && said.contains(hub.data.to_str().unwrap()), "{said}");
    hubs.remount("rw");
    hub = hub.again().await;
    source.goes_on(&mut hub, 20).await;
    reconcile(&mut hub, &source.stop().await).await;
}
