//! Which topics and filters are well formed, and how many a packet may name.

use rumqttd::protocol::{DisconnectReasonCode, Packet};

use crate::packets::Ending;
use crate::tally::Refusal;

/// Filters in one packet; a device needs one.
const FILTERS_MAX: usize = 256;

/// How many messages a packet counts for: each of its filters is looked at, refused and logged for itself.
pub(crate) fn weight(packet: &Packet) -> Result<usize, Ending> {
    let filters = match packet {
        Packet::Subscribe(subscribe, _) => subscribe.filters.len(),
        Packet::Unsubscribe(unsubscribe, _) => unsubscribe.filters.len(),
        _ => 1,
    };
    match filters {
        0..=FILTERS_MAX => Ok(filters.max(1)),
        _ => Err(Ending::Refused(Refusal::TooLarge, DisconnectReasonCode::QuotaExceeded)),
    }
}

/// A topic that something can be published to: not empty, no wildcard, no NUL.
pub(crate) fn topic(bytes: &[u8]) -> Option<&str> {
    let topic = std::str::from_utf8(bytes).ok()?;
    let valid = !topic.is_empty() && !topic.contains(['+', '#', '\0']);
    valid.then_some(topic)
}

/// What a filter finds: itself, or of a shared subscription the part behind the group's name. `None` when it is not
/// well formed.
pub(crate) fn filter(filter: &str) -> Option<&str> {
    let finds = match filter.strip_prefix("$share/") {
        Some(rest) => {
            let (group, finds) = rest.split_once('/')?;
            if group.is_empty() || group.contains(['+', '#', '\0']) {
                return None;
            }
            finds
        }
        None if filter == "$share" => return None,
        None => filter,
    };
    if finds.is_empty() || finds.contains('\0') {
        return None;
    }
    let mut levels = finds.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        let valid = match level {
            "+" => true,
            "#" => last,
            level => !level.contains(['+', '#']),
        };
        if !valid {
            return None;
        }
    }
    Some(finds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_ones_pass() {
        for good in ["a", "/", "é/ü", "$SYS/x", "a//b"] {
            assert_eq!(topic(good.as_bytes()), Some(good));
        }
        for bad in [&b""[..], b"a/+", b"#", b"a\0b", b"\xff\xfe", b"a/\xed\xa0\x80"] {
            assert_eq!(topic(bad), None, "{bad:?}");
        }
        for good in ["#", "+", "a/#", "+/b/+", "/", "$SYS/#", "a//b"] {
            assert_eq!(filter(good), Some(good));
        }
        assert_eq!(filter("$share/g/a/#"), Some("a/#"));
        for bad in ["", "a#", "#/a", "a/+b", "\0", "$share", "$share/g", "$share//a", "$share/g/", "$share/+/a"] {
            assert_eq!(filter(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn any_bytes_are_judged_and_what_passes_is_well_formed() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Some(topic) = topic(bytes) {
                assert!(!topic.contains(['+', '#', '\0']));
                assert_eq!(filter(topic).is_none(), topic.starts_with("$share") && filter(topic).is_none());
            }
            if let Ok(text) = std::str::from_utf8(bytes)
                && let Some(finds) = filter(text)
            {
                assert!(text.ends_with(finds) && !finds.is_empty());
            }
        });
    }
}
