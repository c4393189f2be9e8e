//! The last message of each topic that asked for it.

use std::collections::BTreeMap;
use std::time::Duration;

use rumqttd::protocol::matches;
use tokio::time::Instant;

use super::Message;

/// How many there may be, and how large together.
const MESSAGES: usize = 1000;
const BYTES: usize = 8 << 20;

/// Retained messages, in memory.
#[derive(Debug, Default)]
pub(super) struct Retained {
    messages: BTreeMap<String, (Message, Instant)>,
    bytes: usize,
}

impl Retained {
    /// Keeps a message, or forgets what is kept where it is empty; whether there was room.
    pub fn keep(&mut self, message: &Message, now: Instant) -> bool {
        let Ok(topic) = std::str::from_utf8(&message.topic) else { return false };
        if let Some((before, _)) = self.messages.remove(topic) {
            self.bytes -= before.payload.len() + topic.len();
        }
        if message.payload.is_empty() {
            return true;
        }
        let bytes = message.payload.len() + topic.len();
        if self.messages.len() == MESSAGES || self.bytes + bytes > BYTES {
            return false;
        }
        self.bytes += bytes;
        self.messages.insert(topic.to_owned(), (message.clone(), now));
        true
    }

    /// All that a filter finds, with the time they still have.
    pub fn matching(&mut self, filter: &str, now: Instant) -> Vec<Message> {
        let bytes = &mut self.bytes;
        self.messages.retain(|topic, (message, since)| {
            let keeps = left(message, *since, now).is_none_or(|left| left > 0);
            if !keeps {
                *bytes -= message.payload.len() + topic.len();
            }
            keeps
        });
        let found = self.messages.iter().filter(|(topic, _)| finds(filter, topic));
        let aged = found.map(|(_, (message, since))| {
            let mut message = message.clone();
            message.properties.message_expiry_interval = left(&message, *since, now);
            message
        });
        aged.collect()
    }
}

fn left(message: &Message, since: Instant, now: Instant) -> Option<u32> {
    let given = message.properties.message_expiry_interval?;
    let age = now.saturating_duration_since(since).min(Duration::from_secs(u32::MAX.into())).as_secs();
    Some(given.saturating_sub(age as u32))
}

/// Whether a filter finds a topic. A wildcard at the beginning finds nothing that begins with `$`.
fn finds(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && !filter.starts_with('$') {
        return false;
    }
    // The codec's own comparison cuts the first byte off, wherever characters begin.
    matches(&["t/", topic].concat(), &["t/", filter].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &str, seconds: Option<u32>) -> Message {
        let properties =
            rumqttd::protocol::PublishProperties { message_expiry_interval: seconds, ..Default::default() };
        let (topic, payload) = (topic.to_owned().into(), payload.to_owned().into());
        Message { topic, payload, quality: 1, retain: true, properties, origin: 1 }
    }

    #[test]
    fn the_last_message_is_kept_until_it_is_emptied_or_expires() {
        let (mut retained, start) = (Retained::default(), Instant::now());
        assert!(retained.keep(&message("é/x", "old", None), start));
        assert!(retained.keep(&message("é/x", "new", None), start));
        assert!(retained.keep(&message("a/y", "soon gone", Some(5)), start));
        assert!(retained.keep(&message("$SYS/z", "hidden", None), start));
        let found = |retained: &mut Retained, filter: &str, at| -> Vec<String> {
            let found = retained.matching(filter, at);
            found.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
        };
        assert_eq!(found(&mut retained, "#", start), ["soon gone", "new"]);
        assert_eq!(found(&mut retained, "$SYS/#", start), ["hidden"]);
        let later = start + Duration::from_secs(4);
        assert_eq!(retained.matching("a/+", later)[0].properties.message_expiry_interval, Some(1));
        assert_eq!(found(&mut retained, "#", start + Duration::from_secs(5)), ["new"]);
        assert!(retained.keep(&message("é/x", "", None), start));
        assert!(found(&mut retained, "é/#", start).is_empty());
        retained.keep(&message("$SYS/z", "", None), start);
        assert_eq!(retained.bytes, 0);
    }

    #[test]
    fn there_is_a_most() {
        let (mut retained, now) = (Retained::default(), Instant::now());
        assert!((0..MESSAGES).all(|number| retained.keep(&message(&number.to_string(), "x", None), now)));
        assert!(!retained.keep(&message("one more", "x", None), now));
        assert!(retained.keep(&message("7", "another", None), now));
        assert!(!retained.keep(&message("7", &"x".repeat(BYTES), None), now));
    }
}
