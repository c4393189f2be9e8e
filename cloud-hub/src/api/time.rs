//! Instants in requests: UTC microseconds, or RFC 3339 for people.

use serde::{Deserialize, Deserializer};
use tributary_wire::Micros;

/// An instant given as a number of UTC microseconds or as a text such as `2026-01-31T12:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub Micros);

impl std::str::FromStr for Instant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(micros) = text.parse() {
            return Ok(Self(Micros(micros)));
        }
        let instant: jiff::Timestamp = text
            .parse()
            .map_err(|_| format!("{text:?} is neither UTC microseconds nor a time such as 2026-01-31T12:00:00Z"))?;
        Ok(Self(Micros(instant.as_microsecond())))
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected UTC microseconds or a time such as 2026-01-31T12:00:00Z")]
        enum Form {
            Micros(i64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Micros(micros) => Ok(Self(Micros(micros))),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_rfc3339_are_the_same_instant() {
        let micros = Instant(Micros(1_769_860_800_000_000));
        assert_eq!("2026-01-31T12:00:00Z".parse(), Ok(micros));
        assert_eq!("1769860800000000".parse(), Ok(micros));
        assert_eq!(serde_json::from_str::<Instant>("\"2026-01-31T13:00:00+01:00\"").unwrap(), micros);
        assert_eq!(serde_json::from_str::<Instant>("1769860800000000").unwrap(), micros);
        assert!("tomorrow".parse::<Instant>().unwrap_err().contains("tomorrow"));
        assert!(serde_json::from_str::<Instant>("true").unwrap_err().to_string().contains("UTC microseconds"));
    }
}
