//! The last message of each topic that asked for it.

use std::collections::BTreeMap;

use rumqttd::protocol::matches;
use tokio::time::Instant;

use super::Message;

/// How many there may be, and how large together.
const MESSAGES: usize = 1000;
const BYTES: usize = 8 << 20;

/// Retained messages, in memory.
#[derive(Debug, Default)]
pub(super) struct Retained {
    messages: BTreeMap<String, Message>,
    bytes: usize,
}

impl Retained {
    /// Keeps a message, or forgets what is kept where it is empty; whether there was room.
    pub fn keep(&mut self, message: &Message) -> bool {
        let Ok(topic) = std::str::from_utf8(&message.topic) else { return false };
        if let Some(before) = self.messages.remove(topic) {
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
        self.messages.insert(topic.to_owned(), message.clone());
        true
    }

    /// All that a filter finds.
    pub fn matching(&mut self, filter: &str, now: Instant) -> Vec<Message> {
        let bytes = &mut self.bytes;
        self.messages.retain(|topic, message| {
            let keeps = message.expires.is_none_or(|expires| expires > now);
            if !keeps {
                *bytes -= message.payload.len() + topic.len();
            }
            keeps
        });
        let found = self.messages.iter().filter(|(topic, _)| finds(filter, topic));
        found.map(|(_, message)| message.clone()).collect()
    }
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
    use std::time::Duration;

    use super::*;

    fn message(topic: &str, payload: &str, expires: Option<Instant>) -> Message {
        let properties = rumqttd::protocol::PublishProperties::default();
        let (topic, payload) = (topic.to_owned().into(), payload.to_owned().into());
        Message { topic, payload, quality: 1, retain: true, properties, expires, origin: 1 }
    }

    #[test]
    fn the_last_message_is_kept_until_it_is_emptied_or_expires() {
        let (mut retained, start) = (Retained::default(), Instant::now());
        let later = start + Duration::from_secs(5);
        assert!(retained.keep(&message("é/x", "old", None)));
        assert!(retained.keep(&message("é/x", "new", None)));
        assert!(retained.keep(&message("a/y", "soon gone", Some(later))));
        assert!(retained.keep(&message("$SYS/z", "hidden", None)));
        let found = |retained: &mut Retained, filter: &str, at| -> Vec<String> {
            let found = retained.matching(filter, at);
            found.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
        };
        assert_eq!(found(&mut retained, "#", start), ["soon gone", "new"]);
        assert_eq!(found(&mut retained, "$SYS/#", start), ["hidden"]);
        assert_eq!(found(&mut retained, "#", later), ["new"]);
        assert!(retained.keep(&message("é/x", "", None)));
        assert!(found(&mut retained, "é/#", start).is_empty());
        retained.keep(&message("$SYS/z", "", None));
        assert_eq!(retained.bytes, 0);
    }

    #[test]
    fn there_is_a_most() {
        let mut retained = Retained::default();
        assert!((0..MESSAGES).all(|number| retained.keep(&message(&number.to_string(), "x", None))));
        assert!(!retained.keep(&message("one more", "x", None)));
        assert!(retained.keep(&message("7", "another", None)));
        assert!(!retained.keep(&message("7", &"x".repeat(BYTES), None)));
    }
}
