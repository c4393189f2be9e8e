//! Newtypes for everything that has a name or a number, so that a swapped pair does not compile.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty, longer than the limit, or a character outside the allowed set.
    #[error("{kind} {found:?} does not match [a-z0-9-]{{1,63}}")]
    Name {
        /// Which kind of id was expected.
        kind: &'static str,
        /// The text that was given, cut to 80 characters.
        found: String,
    },
    /// An event id is 1 to 64 bytes without control characters.
    #[error("event id {found:?} is not 1 to 64 bytes of text without control characters")]
    Event {
        /// The text that was given, cut to 80 characters.
        found: String,
    },
    /// Not 64 hexadecimal digits.
    #[error("{found:?} is not a SHA-256 digest of 64 hexadecimal digits")]
    Digest {
        /// The text that was given, cut to 80 characters.
        found: String,
    },
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps `text`.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { let error: fn(&str) -> IdError = $error; Err(error(text)) }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        text_id!($(#[$doc])* $name, is_name, |text| IdError::Name { kind: $kind, found: cut(text) });
    };
}

name_id!(
    /// A machine running the agent; the common name of its certificate.
    DeviceId, "device id"
);
name_id!(
    /// A named series of models.
    LineName, "model line"
);
name_id!(
    /// A kind of records from a device: `events`, `observations`, `sketches`, …
    StreamName, "stream"
);
name_id!(
    /// Devices matched by a selector, under one name.
    GroupName, "group"
);
name_id!(
    /// What an assigned package does on a device: `primary`, `shadow`, `challenger-…`.
    Role, "role"
);
name_id!(
    /// One command to one device: a ULID in lower case.
    CommandId, "command id"
);
text_id!(
    /// The caller's name for an event and its idempotency key: 1 to 64 bytes.
    EventId,
    |text| (1..=64).contains(&text.len()) && !text.chars().any(char::is_control),
    |text| IdError::Event { found: cut(text) }
);

impl Role {
    /// The package whose decision is returned to the caller.
    pub fn primary() -> Self {
        Self("primary".to_owned())
    }

    /// A package that is scored beside the primary and never answers.
    pub fn shadow() -> Self {
        Self("shadow".to_owned())
    }

    /// Whether this is a `challenger-<name>`: a package that may answer a share of the predictions.
    pub fn is_challenger(&self) -> bool {
        self.0.strip_prefix("challenger-").is_some_and(|name| !name.is_empty())
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// Place of a batch in its stream; the first is 1.
    SequenceNumber(u64)
);
number_id!(
    /// Which life of a device's state: 1 at first, one more each time the state was wiped.
    Incarnation(u32)
);
number_id!(
    /// Number of an assignment; a device refuses one that is not higher than what it has.
    Generation(u64)
);
number_id!(
    /// Number of a version within its model line; the first is 1.
    VersionNumber(u32)
);
number_id!(
    /// Number of a snapshot of fleet-scope features within its feature view; the first is 1.
    SnapshotNumber(u64)
);

/// The key of an entity (a customer, a terminal): what a window is kept for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntityKey {
    /// A number.
    Int(i64),
    /// A text.
    Text(String),
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// A SHA-256 digest; printed and read as 64 hexadecimal digits, 32 bytes on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Digest { found: cut(text) };
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = core::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_the_error_says_what_was_wrong() {
        assert!(DeviceId::new("edge-1").is_ok());
        for wrong in ["", "Edge", "a b", "a/b", "a+", &"x".repeat(64)] {
            assert!(DeviceId::new(wrong).is_err(), "{wrong:?}");
        }
        let error = LineName::new("Card Fraud").unwrap_err();
        assert_eq!(alloc::format!("{error}"), r#"model line "Card Fraud" does not match [a-z0-9-]{1,63}"#);
    }

    #[test]
    fn a_digest_survives_its_text_form() {
        let digest = Sha256(core::array::from_fn(|i| i as u8 * 7));
        assert_eq!(alloc::format!("{digest}").parse(), Ok(digest));
        assert!("zz".parse::<Sha256>().is_err());
    }
}
