//! What happens while a connection stands.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_agent_core::outbox::{Freed, Outbox};
use tokio::time::Instant;
use tributary_wire::SequenceNumber;
use tributary_wire::topic::Channel;

use super::connection::{Connection, LinkError};
use super::hear::hear;
use super::snapshots::Snapshots;
use super::transports::Transports;
use super::{Link, Way, report};
use crate::state::{Store, StoreError};

/// Batches read from the store at once.
const BURST: usize = 16;
/// When nothing is due, the outbox is looked at anyway.
const IDLE: Duration = Duration::from_secs(60);

/// The outbox's numbers: used beside the runtime, where the store is.
pub(super) type SharedOutbox = Arc<Mutex<Outbox>>;

pub(super) fn lock(outbox: &SharedOutbox) -> MutexGuard<'_, Outbox> {
    outbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects and works until the connection ends; says why it ended.
pub(super) async fn run(
    link: &Link,
    outbox: &SharedOutbox,
    transports: &mut Transports,
    snapshots: &mut Snapshots,
) -> LinkError {
    match connect(link, outbox, transports, snapshots).await {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

async fn connect(
    link: &Link,
    outbox: &SharedOutbox,
    transports: &mut Transports,
    snapshots: &mut Snapshots,
) -> Result<std::convert::Infallible, LinkError> {
    let mut renewed = match &link.way {
        Way::Secure(identity) => Some(identity.changed()),
        _ => None,
    };
    let stream = transports.dial().await?;
    let mut connection = Connection::open(&link.device, stream, &link.config).await?;
    transports.connected();
    tracing::info!(hub = transports.address(), over = transports.name(), "connected");
    let worked = tokio::select! {
        worked = work(link, outbox, &mut connection, snapshots) => worked,
        () = transports.better() => Err(LinkError::Moving),
        () = changed(&mut renewed) => Err(LinkError::NewCertificate),
    };
    if matches!(worked, Err(LinkError::Moving | LinkError::NewCertificate)) {
        // What is in flight is sent again over the next connection.
        connection.close().await;
    }
    worked
}

async fn changed(renewed: &mut Option<tokio::sync::watch::Receiver<u64>>) {
    if let Some(renewed) = renewed
        && renewed.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn work(
    link: &Link,
    outbox: &SharedOutbox,
    connection: &mut Connection,
    snapshots: &mut Snapshots,
) -> Result<std::convert::Infallible, LinkError> {
    let mut stored = link.store.outbox_changed();
    let mut changed = link.updates.changed();
    send_report(link, connection).await?;
    link.updates.online(true);
    link.orders.connected();
    lock(outbox).connected();
    let mut report_due = Instant::now() + link.config.report_every.0;
    loop {
        stored.borrow_and_update();
        let wait = send_batches(link, outbox, connection).await?;
        tokio::select! {
            heard = connection.next() => hear(link, outbox, snapshots, heard?).await?,
            Ok(()) = stored.changed() => {}
            answer = link.orders.answer() => connection.publish(Channel::Result, answer)?,
            Ok(()) = changed.changed() => {
                send_report(link, connection).await?;
                report_due = Instant::now() + link.config.report_every.0;
            }
            () = tokio::time::sleep_until(report_due) => {
                send_report(link, connection).await?;
                report_due = Instant::now() + link.config.report_every.0;
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

pub(super) fn monotonic(link: &Link) -> Duration {
    Duration::from_micros(link.clock.monotonic())
}

pub(super) async fn blocking<T: Send + 'static>(
    link: &Link,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, LinkError> {
    let store = link.store.clone();
    Ok(tokio::task::spawn_blocking(move || work(&store)).await.map_err(std::io::Error::other)??)
}

async fn send_report(link: &Link, connection: &Connection) -> Result<(), LinkError> {
    let number = blocking(link, Store::next_report_number).await?;
    connection.publish(Channel::Report, report::build(link, number).encode())
}

/// Publishes what may leave now; when to look again.
async fn send_batches(link: &Link, outbox: &SharedOutbox, connection: &Connection) -> Result<Duration, LinkError> {
    let (outbox, now) = (outbox.clone(), monotonic(link));
    let (batches, wait) = blocking(link, move |store| choose(store, &mut lock(&outbox), now)).await?;
    for batch in batches {
        connection.publish(Channel::Batch, batch)?;
        link.status.count_sent();
    }
    Ok(wait)
}

/// Only here do batches leave the store; how many did. A disk that fails at one stream stops none of the others: the outbox
/// counts all of them as gone, so the store must have heard of each.
pub fn free(store: &Store, freed: &[Freed]) -> (u64, Result<(), StoreError>) {
    let (mut count, mut all) = (0, Ok(()));
    for Freed { stream, through, scattered, .. } in freed {
        match store.outbox_free(stream, *through, scattered) {
            Ok(gone) => count += gone,
            Err(error) => all = Err(error),
        }
    }
    (count, all)
}

/// The batches that may leave now, as they travel, at most a burst of them; when to ask again.
pub fn choose(store: &Store, outbox: &mut Outbox, now: Duration) -> Result<(Vec<Vec<u8>>, Duration), StoreError> {
    for stream in store.outbox_streams()? {
        outbox.add_stream(stream);
    }
    let mut batches = Vec::new();
    for _ in 0..BURST {
        let next = outbox.next(now, |stream, after| store.outbox_next_number(stream, after))?;
        let Some((stream, number)) = next else {
            let wait = outbox.next_wake().map_or(IDLE, |wake| wake.saturating_sub(now));
            return Ok((batches, wait));
        };
        // A batch that was dropped in between is simply not there; the gap that replaces it is found next time.
        let found = store.outbox_next(&stream, SequenceNumber(number.0.saturating_sub(1)))?;
        batches.extend(found.filter(|(found, _)| *found == number).map(|(_, bytes)| bytes));
    }
    Ok((batches, Duration::ZERO))
}
