use std::time::Duration;

use tributary_wire::{CommandResult, CommandResultV1, MAX_RESULT_BYTES, Outcome};

use super::decide::State;
use super::*;
use crate::audit::store::{Filter, list};
use crate::catalog::{Catalog, devices};

const NOW: Micros = Micros(1_000_000);

async fn catalog() -> (tempfile::TempDir, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(&folder.path().join("catalog.db")).await.unwrap();
    let mut transaction = catalog.write().await.unwrap();
    for name in ["edge-1", "edge-2"] {
        devices::seen(&mut transaction, &device(name), NOW).await.unwrap();
    }
    transaction.commit().await.unwrap();
    (folder, catalog)
}

fn device(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

async fn asked(catalog: &mut SqliteConnection) -> Result<store::Command, OrderError> {
    let asked = Asked { device: device("edge-1"), order: Order::Logs { lines: 5 }, deadline: None };
    take(catalog, &Config::default(), asked, Duration::from_secs(60), NOW).await
}

fn message(id: &str, outcome: Outcome) -> Vec<u8> {
    let id = CommandId::new(id).unwrap();
    CommandResult::V1(CommandResultV1 { id, finished: Micros(5), outcome }).encode()
}

fn done(text: &str) -> Outcome {
    Outcome::Done { media: "text/plain".to_owned(), body: text.as_bytes().to_vec() }
}

#[tokio::test]
async fn a_result_counts_once_and_only_from_its_device() {
    let (_folder, catalog) = catalog().await;
    let mut tx = catalog.write().await.unwrap();
    let id = asked(&mut tx).await.unwrap().id;
    assert_eq!(id, id.to_lowercase());
    let (mine, other) = (device("edge-1"), device("edge-2"));
    for (from, message, expected) in [
        (&mine, vec![9; 30], Err(Ignored::Unreadable)),
        (&mine, message("nobody-asked", done("x")), Err(Ignored::Unknown)),
        (&other, message(&id, done("forged")), Err(Ignored::Foreign)),
        (&mine, message(&id, done("the log")), Ok(State::Done)),
        (&mine, message(&id, done("another log")), Err(Ignored::Again)),
        (&mine, message(&id, Outcome::Expired), Err(Ignored::Again)),
    ] {
        assert_eq!(results::take(&mut tx, from, &message, NOW).await.unwrap(), expected);
    }
    assert_eq!(store::body(&mut tx, &id).await.unwrap().unwrap(), b"the log");
    let entries = list(&mut tx, &Filter { subject: Some(id), ..Filter::default() }, i64::MAX, 10).await.unwrap();
    let said: Vec<_> = entries.iter().map(|entry| (&*entry.draft.action, &*entry.draft.who)).collect();
    assert_eq!(said, [("command.result", "device:edge-1"), ("command.create", "hub")]);
    assert!(!entries[0].draft.to.contains("the log"), "the log holds the hash of an answer, not the answer");
}

#[tokio::test]
async fn what_a_device_says_is_kept_within_bounds() {
    let (_folder, catalog) = catalog().await;
    let mut tx = catalog.write().await.unwrap();
    for (outcome, state, reason, media) in [
        (Outcome::Failed("\u{1b}[31mred\nalert".to_owned()), State::Failed, " [31mred alert", ""),
        (Outcome::Refused("not here".to_owned()), State::Refused, "not here", ""),
        (Outcome::Expired, State::Expired, "it came to the device after its deadline", ""),
        (
            Outcome::Done { media: "text/html\r\nset-cookie: a".to_owned(), body: vec![1] },
            State::Done,
            "",
            "application/octet-stream",
        ),
        (
            Outcome::Done { media: "text/plain".to_owned(), body: vec![0; MAX_RESULT_BYTES + 1] },
            State::Failed,
            "its answer has 1048577 bytes; at most 1048576 are taken",
            "",
        ),
    ] {
        let id = asked(&mut tx).await.unwrap().id;
        let taken = results::take(&mut tx, &device("edge-1"), &message(&id, outcome), NOW).await.unwrap();
        assert_eq!(taken, Ok(state));
        let kept = store::find(&mut tx, &device("edge-1"), &id).await.unwrap().unwrap();
        assert_eq!((&*kept.reason, &*kept.media, kept.bytes.is_some()), (reason, media, state == State::Done));
    }
    let id = asked(&mut tx).await.unwrap().id;
    let long = message(&id, Outcome::Failed("é".repeat(100_000)));
    results::take(&mut tx, &device("edge-1"), &long, NOW).await.unwrap().unwrap();
    let kept = store::find(&mut tx, &device("edge-1"), &id).await.unwrap().unwrap();
    assert_eq!(kept.reason.chars().count(), 2_000);
}

#[tokio::test]
async fn a_result_after_the_deadline_still_says_that_it_was_done() {
    let (_folder, catalog) = catalog().await;
    let mut tx = catalog.write().await.unwrap();
    let command = asked(&mut tx).await.unwrap();
    let late = Micros(command.deadline + 1);
    store::expire(&mut tx, &command, late).await.unwrap();
    store::expire(&mut tx, &command, late).await.unwrap();
    let taken = results::take(&mut tx, &device("edge-1"), &message(&command.id, Outcome::Expired), late).await.unwrap();
    assert_eq!(taken, Err(Ignored::Again));
    let taken = results::take(&mut tx, &device("edge-1"), &message(&command.id, done("x")), late).await.unwrap();
    assert_eq!(taken, Ok(State::Done));
    let filter = Filter { subject: Some(command.id), ..Filter::default() };
    let entries = list(&mut tx, &filter, i64::MAX, 10).await.unwrap();
    let actions: Vec<_> = entries.iter().map(|entry| &*entry.draft.action).collect();
    assert_eq!(actions, ["command.result", "command.expire", "command.create"]);
    assert!(entries[0].draft.to.contains("\"late\":true"), "{}", entries[0].draft.to);
}

#[tokio::test]
async fn a_device_has_only_so_many_open_commands_and_old_ones_go() {
    let (_folder, catalog) = catalog().await;
    let mut tx = catalog.write().await.unwrap();
    let mut last = None;
    for _ in 0..OPEN_MAX {
        last = Some(asked(&mut tx).await.unwrap());
    }
    assert!(matches!(asked(&mut tx).await, Err(OrderError::TooMany(_))));
    store::cancel(&mut tx, &last.unwrap(), NOW).await.unwrap();
    asked(&mut tx).await.unwrap();
    assert_eq!(store::open(&mut tx).await.unwrap().len() as i64, OPEN_MAX);
    assert_eq!(store::forget(&mut tx, NOW, NOW).await.unwrap(), 0);
    assert_eq!(store::forget(&mut tx, Micros(NOW.0 + 1), NOW).await.unwrap(), 1);
    let hub = Asked { device: device("hub"), order: Order::Restart, deadline: None };
    let refused = take(&mut tx, &Config::default(), hub, Duration::from_secs(60), NOW).await;
    assert!(matches!(refused, Err(OrderError::NoDevice(_))));
}

#[test]
fn bytes_from_devices_decode_or_are_refused() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        if let Ok(result) = CommandResult::decode(bytes) {
            assert_eq!(CommandResult::decode(&result.encode()).unwrap(), result);
        }
    });
}
