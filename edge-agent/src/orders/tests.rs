use std::io::{Read, Write};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tributary_process::shutdown::Shutdown;
use tributary_wire::{CommandResult, CommandResultV1, MAX_RESULT_BYTES, Micros, Outcome};

use super::*;

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(60);

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn wall(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> u64 {
        0
    }
}

/// One life of the agent's process, as far as commands see it.
struct Life {
    handle: Handle,
    shutdown: Shutdown,
    running: JoinHandle<()>,
    restarts: Arc<AtomicUsize>,
    rotations: Arc<AtomicUsize>,
    clock: Arc<TestClock>,
}

impl Life {
    fn begin(folder: &std::path::Path, allow: Vec<Allowed>, log: Tail) -> Self {
        let (restarts, rotations) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let clock = Arc::new(TestClock(AtomicI64::new(1_000)));
        let shutdown = Shutdown::new();
        let parts = Parts {
            config: OrdersConfig { allow },
            folder: folder.join("commands"),
            state_dir: folder.to_owned(),
            log,
            settings: "device = \"edge-1\"\ntoken = \"tributary-secret\"\n".to_owned(),
            status: Box::new(|| serde_json::json!({"device": "edge-1"})),
            metrics: Box::new(|| "events_accepted 3\n# EOF\n".to_owned()),
            restart: Box::new({
                let (restarts, shutdown) = (restarts.clone(), shutdown.clone());
                move || {
                    restarts.fetch_add(1, Ordering::Relaxed);
                    shutdown.give();
                }
            }),
            rotate_key: Box::new({
                let rotations = rotations.clone();
                move || {
                    let nth = rotations.fetch_add(1, Ordering::Relaxed);
                    Box::pin(async move {
                        match nth {
                            0 => Ok("serial 02".to_owned()),
                            1 => Err("the hub does not answer".to_owned()),
                            _ => std::future::pending().await,
                        }
                    })
                }
            }),
            clock: clock.clone(),
        };
        let (handle, worker) = new(parts).unwrap();
        handle.connected();
        let running = tokio::spawn(run(worker, shutdown.clone()));
        Self { handle, shutdown, running, restarts, rotations, clock }
    }

    fn all(folder: &std::path::Path) -> Self {
        let allow = vec![Allowed::Logs, Allowed::Diagnostics, Allowed::Restart, Allowed::RotateKey];
        Self::begin(folder, allow, Tail::default())
    }

    fn send(&self, id: &str, order: Order) {
        self.send_until(id, order, 1_000_000_000);
    }

    fn send_until(&self, id: &str, order: Order, deadline: i64) {
        let command = CommandV1 { id: CommandId::new(id).unwrap(), deadline: Micros(deadline), order };
        self.handle.heard(&Command::V1(command).encode()).unwrap();
    }

    async fn answer(&self) -> CommandResultV1 {
        let bytes = tokio::time::timeout(DEADLINE, self.handle.answer()).await.expect("an answer");
        let CommandResult::V1(result) = CommandResult::decode(&bytes).unwrap();
        result
    }

    async fn end(self) {
        self.shutdown.give();
        tokio::time::timeout(DEADLINE, self.running).await.expect("the worker ends").unwrap();
    }
}

fn text(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Done { body, .. } => std::str::from_utf8(body).unwrap(),
        Outcome::Failed(why) | Outcome::Refused(why) => why,
        Outcome::Expired => "expired",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_the_last_lines() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Tail::default());
    for n in 0..100 {
        writeln!(&log, "line {n}").unwrap();
    }
    let life = Life::begin(folder.path(), OrdersConfig::default().allow, log);
    life.send("a", Order::Logs { lines: 2 });
    let answer = life.answer().await;
    assert_eq!((answer.id.as_str(), answer.finished), ("a", Micros(1_000)));
    assert_eq!(text(&answer.outcome), "line 98\nline 99\n");
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_refuses_what_its_settings_do_not_name_and_what_comes_too_late() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::begin(folder.path(), OrdersConfig::default().allow, Tail::default());
    life.send("a", Order::Restart);
    let refused = life.answer().await.outcome;
    assert!(
        matches!(&refused, Outcome::Refused(why) if why.contains("commands.allow does not name restart")),
        "{refused:?}"
    );
    life.send_until("b", Order::Logs { lines: 1 }, 999);
    assert_eq!(life.answer().await.outcome, Outcome::Expired);
    life.send_until("c", Order::Logs { lines: 1 }, i64::MAX);
    assert!(text(&life.answer().await.outcome).contains("31 days"));
    assert_eq!(life.restarts.load(Ordering::Relaxed), 0);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_comes_twice_is_done_once_and_answered_twice() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::all(folder.path());
    life.send("a", Order::RotateKey);
    let first = life.answer().await;
    life.send("a", Order::RotateKey);
    assert_eq!(life.answer().await, first);
    assert_eq!(text(&first.outcome), "serial 02\n");
    life.send("b", Order::RotateKey);
    assert_eq!(life.answer().await.outcome, Outcome::Failed("the hub does not answer".to_owned()));
    assert_eq!(life.rotations.load(Ordering::Relaxed), 2);
    life.end().await;
    // The next life remembers, and sends what may not have arrived.
    let life = Life::all(folder.path());
    assert_eq!(life.answer().await, first);
    assert_eq!(life.answer().await.id.as_str(), "b");
    life.send("a", Order::RotateKey);
    assert_eq!(life.answer().await, first);
    assert_eq!(life.rotations.load(Ordering::Relaxed), 0);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_answered_by_the_next_life_and_never_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::all(folder.path());
    life.send("a", Order::Restart);
    tokio::time::timeout(DEADLINE, life.shutdown.given()).await.expect("the agent is told to end");
    assert_eq!(life.restarts.load(Ordering::Relaxed), 1);
    life.end().await;
    let life = Life::all(folder.path());
    life.send("a", Order::Restart);
    let answer = life.answer().await;
    assert!(text(&answer.outcome).contains("started again"), "{answer:?}");
    assert_eq!(life.restarts.load(Ordering::Relaxed), 0);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_the_process_did_not_survive_is_answered_and_not_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::all(folder.path());
    for id in ["a", "b"] {
        life.send(id, Order::RotateKey);
        life.answer().await;
    }
    // The third one hangs; the process ends in the middle of it.
    life.send("c", Order::RotateKey);
    let begun = Arc::clone(&life.rotations);
    tokio::time::timeout(DEADLINE, async {
        while begun.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is begun");
    life.end().await;
    let life = Life::all(folder.path());
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(life.answer().await);
    }
    let third = answers.iter().find(|answer| answer.id.as_str() == "c").unwrap();
    assert!(text(&third.outcome).contains("ended while it was doing it"), "{third:?}");
    life.send("c", Order::RotateKey);
    assert_eq!(&life.answer().await, third);
    assert_eq!(life.rotations.load(Ordering::Relaxed), 0);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_holds_everything_but_secrets_and_fits() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Tail::default());
    // Text that does not shrink: more than an answer may hold.
    let mut random = 1u64;
    for _ in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        writeln!(&log, "{random:016x}{:016x}", random.rotate_left(29) ^ (random >> 7)).unwrap();
    }
    let life = Life::begin(folder.path(), OrdersConfig::default().allow, log);
    life.send("a", Order::Diagnostics);
    let Outcome::Done { media, body } = life.answer().await.outcome else { panic!("it is not done") };
    assert_eq!(media, bundle::MEDIA);
    assert!(body.len() <= MAX_RESULT_BYTES);
    let mut archive = Vec::new();
    zstd::Decoder::new(&*body).unwrap().read_to_end(&mut archive).unwrap();
    let whole = String::from_utf8_lossy(&archive);
    for part in ["status.json", "settings.toml", "events_accepted 3", "log.txt", "disk.txt", "commands", "\"wire\": 3"]
    {
        assert!(whole.contains(part), "{part}");
    }
    assert!(whole.contains("device = \"edge-1\"") && !whole.contains("tributary-secret"));
    // Other programs read it.
    let file = folder.path().join("bundle.tar");
    std::fs::write(&file, &archive).unwrap();
    if let Ok(tar) = std::process::Command::new("tar").arg("-tf").arg(&file).output() {
        let names = String::from_utf8(tar.stdout).unwrap();
        let expected = ["versions.json", "status.json", "settings.toml", "metrics.txt", "disk.txt", "log.txt"];
        assert_eq!(names.lines().collect::<Vec<_>>(), expected, "{}", String::from_utf8_lossy(&tar.stderr));
    }
    life.end().await;
}

#[test]
fn an_answer_that_is_too_large_never_leaves() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (folder, log) = (tempfile::tempdir().unwrap(), Tail::default());
        for _ in 0..3_000 {
            writeln!(&log, "{}", "x".repeat(500)).unwrap();
        }
        let life = Life::begin(folder.path(), OrdersConfig::default().allow, log);
        life.send("a", Order::Logs { lines: u32::MAX });
        let Outcome::Done { body, .. } = life.answer().await.outcome else { panic!("it is not done") };
        assert!(body.len() <= MAX_RESULT_BYTES && body.len() > MAX_RESULT_BYTES / 2, "{}", body.len());
        life.end().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_turned_away_and_old_commands_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::all(folder.path());
    for n in 0..256 {
        life.send(&format!("c{n:03}"), Order::Logs { lines: 1 });
        life.answer().await;
    }
    // The memory is full of commands whose deadline has not passed: nothing is done, nothing answered.
    life.send("one-more", Order::RotateKey);
    life.send("c000", Order::Logs { lines: 1 });
    assert_eq!(life.answer().await.id.as_str(), "c000");
    assert_eq!(life.rotations.load(Ordering::Relaxed), 0);
    life.clock.0.store(1_000_000_000 + 2 * Micros::DAY, Ordering::Relaxed);
    life.send_until("later", Order::Logs { lines: 1 }, 2_000_000_000 + 2 * Micros::DAY);
    loop {
        if life.answer().await.id.as_str() == "later" {
            break;
        }
    }
    assert_eq!(std::fs::read_dir(folder.path().join("commands")).unwrap().count(), 1);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_not_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::all(folder.path());
    life.send("a", Order::RotateKey);
    life.answer().await;
    life.end().await;
    std::fs::write(folder.path().join("commands/a"), b"\xff").unwrap();
    let life = Life::all(folder.path());
    let answer = life.answer().await;
    assert!(text(&answer.outcome).contains("damaged"), "{answer:?}");
    life.send("a", Order::RotateKey);
    assert_eq!(life.answer().await, answer);
    assert_eq!(life.rotations.load(Ordering::Relaxed), 0);
    life.end().await;
}

#[test]
fn messages_that_are_no_commands_are_refused_in_words() {
    let handle = Handle::nobody();
    assert!(handle.heard(b"").is_err());
    assert!(handle.heard(&[9; 40]).is_err());
}
