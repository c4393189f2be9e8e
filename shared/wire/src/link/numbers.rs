//! Short lists and names without a heap.

use core::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most bands of a spectrum.
pub const MAX_BANDS: usize = 16;

/// Up to [`MAX_BANDS`] numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    count: u8,
    numbers: [u32; MAX_BANDS],
}

impl Numbers {
    /// The first [`MAX_BANDS`] of `numbers`.
    pub fn new(numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut list = Self::default();
        for (place, number) in list.numbers.iter_mut().zip(numbers) {
            *place = number;
            list.count += 1;
        }
        list
    }
}

impl core::ops::Deref for Numbers {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        &self.numbers[..usize::from(self.count)]
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.len()))?;
        self.iter().try_for_each(|number| list.serialize_element(number))?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Numbers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_BANDS} numbers")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Numbers, A::Error> {
                let mut numbers = Numbers::default();
                while let Some(number) = list.next_element()? {
                    let place = numbers.numbers.get_mut(usize::from(numbers.count));
                    *place.ok_or_else(|| A::Error::custom("too many numbers"))? = number;
                    numbers.count += 1;
                }
                Ok(numbers)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// A text that does not match `[a-z0-9-]{1,63}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node's name matches [a-z0-9-]{{1,63}}")]
pub struct WrongName;

/// The name of a node, or of a type of nodes: `[a-z0-9-]{1,63}`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NodeName<'a>(&'a str);

impl<'a> NodeName<'a> {
    /// Checks a name.
    pub const fn new(text: &'a str) -> Result<Self, WrongName> {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            if !matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'-') {
                return Err(WrongName);
            }
            at += 1;
        }
        if at == 0 || at > 63 { Err(WrongName) } else { Ok(Self(text)) }
    }

    /// As text.
    pub const fn as_str(&self) -> &'a str {
        self.0
    }
}

impl fmt::Debug for NodeName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for NodeName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Serialize for NodeName<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for NodeName<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(<&str>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
