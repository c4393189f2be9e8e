//! What the hub says: read first, then carried out. What cannot be read is counted and changes nothing.

use edge_agent_core::outbox::Freed;
use tributary_wire::topic::{Channel, Topic};
use tributary_wire::{Ack, AckV1, DeviceId, FeatureSnapshot, FeatureSnapshotV1};

use super::Link;
use super::connection::{Heard, LinkError};
use super::session::{SharedOutbox, blocking, free, lock, monotonic};
use super::snapshots::{Snapshots, Stored};

/// A message of the hub that could be read. Signed assignments are opened by whoever knows the keys.
#[derive(Debug)]
enum Said {
    Ack(AckV1),
    Assignment(Vec<u8>),
    Features(FeatureSnapshotV1),
    Command(Vec<u8>),
}

/// Why a message changes nothing.
#[derive(Debug)]
struct Ignored {
    what: &'static str,
    problem: String,
}

fn read(device: &DeviceId, topic: &[u8], payload: &[u8]) -> Result<Said, Ignored> {
    let topic = std::str::from_utf8(topic).ok().and_then(Topic::parse);
    let channel = topic.filter(|topic| topic.device == *device).map(|topic| topic.channel);
    let ignored = |what| move |error: tributary_wire::DecodeError| Ignored { what, problem: error.to_string() };
    match channel {
        Some(Channel::Ack) => {
            let Ack::V1(ack) = Ack::decode(payload).map_err(ignored("acknowledgement"))?;
            Ok(Said::Ack(ack))
        }
        Some(Channel::Features) => {
            let FeatureSnapshot::V1(part) = FeatureSnapshot::decode(payload).map_err(ignored("feature snapshot"))?;
            Ok(Said::Features(part))
        }
        Some(Channel::Assignment) => Ok(Said::Assignment(payload.to_vec())),
        Some(Channel::Command) => Ok(Said::Command(payload.to_vec())),
        _ => Err(Ignored { what: "message", problem: "its topic is not one of this device's".into() }),
    }
}

/// Takes in a message of the hub.
pub(super) async fn hear(
    link: &Link,
    outbox: &SharedOutbox,
    snapshots: &mut Snapshots,
    heard: Heard,
) -> Result<(), LinkError> {
    match read(&link.device, &heard.topic, &heard.payload) {
        Ok(Said::Ack(ack)) => {
            // The lock is let go before the wait.
            let freed = lock(outbox).acknowledged(monotonic(link), &ack);
            forget(link, freed).await?;
        }
        Ok(Said::Assignment(signed)) => link.updates.assigned(signed),
        Ok(Said::Features(part)) => take_part(link, snapshots, part).await?,
        Ok(Said::Command(command)) => {
            if let Err(problem) = link.orders.heard(&command) {
                ignore(link, &Ignored { what: "command", problem });
            }
        }
        Err(ignored) => ignore(link, &ignored),
    }
    Ok(())
}

fn ignore(link: &Link, Ignored { what, problem }: &Ignored) {
    link.status.count_ignored();
    tracing::warn!(what, %problem, "ignored a message of the hub");
}

async fn forget(link: &Link, freed: Vec<Freed>) -> Result<(), LinkError> {
    for Freed { stream, quarantined, .. } in freed.iter().filter(|freed| !freed.quarantined.is_empty()) {
        tracing::warn!(%stream, batches = ?quarantined, "the hub put batches aside");
        link.status.count_quarantined(quarantined.len() as u64);
    }
    let (count, all) = blocking(link, move |store| Ok(free(store, &freed))).await?;
    link.status.count_acknowledged(count);
    Ok(all?)
}

async fn take_part(link: &Link, snapshots: &mut Snapshots, part: FeatureSnapshotV1) -> Result<(), LinkError> {
    match snapshots.offer(part) {
        Err(error) => ignore(link, &Ignored { what: "feature snapshot", problem: error.to_string() }),
        Ok(None) => {}
        Ok(Some(complete)) => {
            let (view, version) = (complete.view.clone(), complete.version);
            match blocking(link, move |store| complete.store(store)).await? {
                Stored::Newest => link.serving.fleet_changed(&view, version),
                Stored::Old => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use edge_agent_core::outbox::{Outbox, OutboxSettings};
    use tributary_release::{VerifyingKeys, open_assignment};
    use tributary_wire::{Assignment, Command, Incarnation, SequenceNumber, SignedAssignment, StreamName};

    use super::*;

    /// The first byte chooses the topic.
    #[test]
    fn whatever_arrives_on_any_topic_is_taken_or_ignored_without_a_panic() {
        let device = DeviceId::new("edge-1").unwrap();
        let stream = StreamName::new("events").unwrap();
        bolero::check!().for_each(|bytes: &[u8]| {
            let (first, rest) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest));
            let channels = [Channel::Ack, Channel::Assignment, Channel::Features, Channel::Command];
            let topic = Topic::new(device.clone(), channels[usize::from(first % 4)]).to_string();
            match read(&device, topic.as_bytes(), rest) {
                Ok(Said::Ack(ack)) => {
                    let mut outbox = Outbox::new(Incarnation(1), OutboxSettings::default(), 1);
                    outbox.add_stream(stream.clone());
                    outbox.connected();
                    let _ = outbox.next(Duration::ZERO, |_, after| Ok::<_, ()>(Some(SequenceNumber(after.0 + 1))));
                    outbox.acknowledged(Duration::ZERO, &ack);
                }
                Ok(Said::Features(part)) => {
                    let _ = Snapshots::default().offer(part);
                }
                Ok(Said::Assignment(bytes)) => {
                    let _ = Assignment::decode(&bytes);
                    if let Ok(signed) = SignedAssignment::decode(&bytes) {
                        open_assignment(&VerifyingKeys::new([]), &signed).unwrap_err();
                    }
                }
                Ok(Said::Command(bytes)) => {
                    let _ = Command::decode(&bytes);
                }
                Err(ignored) => assert!(!ignored.problem.is_empty()),
            }
            // Nor does any text pass for a topic of this device that is not one.
            if let Ok(Said::Ack(_) | Said::Features(_)) = read(&device, rest, rest) {
                assert!(rest.starts_with(b"v1/d/edge-1/down/"));
            }
        });
    }
}
