//! Devices by their labels, such as `site=lyon,gpu=true`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most labels of a selector.
pub const MAX_LABELS: usize = 8;
/// Longest name or value of a label, in bytes.
pub const MAX_LABEL_BYTES: usize = 63;

/// Devices that have every one of these labels; without any label: all devices.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector(BTreeMap<String, String>);

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A part that is no label.
    #[error(
        "{found:?} is no label: expected key=value, each of 1 to {MAX_LABEL_BYTES} bytes without commas and control characters"
    )]
    Label {
        /// The part.
        found: String,
    },
    /// A label twice.
    #[error("label {key:?} is given twice")]
    Twice {
        /// Its name.
        key: String,
    },
    /// Too many.
    #[error("{found} labels, at most {MAX_LABELS} are taken")]
    TooMany {
        /// How many.
        found: usize,
    },
}

impl Selector {
    /// Whether a device with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Whether a device may be meant by both: unless they want different values of a label, of which a device has one.
    pub fn may_overlap(&self, other: &Self) -> bool {
        self.0.iter().all(|(key, value)| other.0.get(key).is_none_or(|wanted| wanted == value))
    }

    /// Whether every device is meant.
    pub fn is_everyone(&self) -> bool {
        self.0.is_empty()
    }

    /// How many labels it asks for: the more, the narrower.
    pub fn labels(&self) -> usize {
        self.0.len()
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut labels = BTreeMap::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let sound = |text: &str| (1..=MAX_LABEL_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
            let label = part.split_once('=').filter(|(key, value)| sound(key) && sound(value));
            let Some((key, value)) = label else {
                return Err(SelectorError::Label { found: part.chars().take(MAX_LABEL_BYTES).collect() });
            };
            if labels.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(SelectorError::Twice { key: key.to_owned() });
            }
        }
        match labels.len() {
            ..=MAX_LABELS => Ok(Self(labels)),
            found => Err(SelectorError::TooMany { found }),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (key, value)) in self.0.iter().enumerate() {
            write!(f, "{}{key}={value}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_device_must_have_every_label() {
        let lyon: Selector = "site=lyon,gpu=true".parse().unwrap();
        assert!(lyon.matches(&labels(&[("site", "lyon"), ("gpu", "true"), ("line", "4")])));
        assert!(!lyon.matches(&labels(&[("site", "lyon")])));
        assert!(!lyon.matches(&labels(&[("site", "paris"), ("gpu", "true")])));
        let all: Selector = "".parse().unwrap();
        assert!(all.matches(&labels(&[])) && all.is_everyone() && !lyon.is_everyone());
        assert_eq!((lyon.to_string().as_str(), lyon.labels()), ("gpu=true,site=lyon", 2));
    }

    #[test]
    fn selectors_overlap_unless_they_want_different_values_of_a_label() {
        let selector = |text: &str| text.parse::<Selector>().unwrap();
        assert!(selector("site=lyon").may_overlap(&selector("gpu=true")));
        assert!(selector("").may_overlap(&selector("gpu=true")));
        assert!(!selector("site=lyon,gpu=true").may_overlap(&selector("site=paris")));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for bad in ["site", "=lyon", "site=", "a=b,,c=d", "a=b\u{7}", &format!("a={}", "x".repeat(64))] {
            assert!(matches!(bad.parse::<Selector>(), Err(SelectorError::Label { .. })), "{bad}");
        }
        assert_eq!("a=b,a=c".parse::<Selector>(), Err(SelectorError::Twice { key: "a".into() }));
        let many: Vec<String> = (0..9).map(|n| format!("l{n}=x")).collect();
        assert_eq!(many.join(",").parse::<Selector>(), Err(SelectorError::TooMany { found: 9 }));
    }
}
