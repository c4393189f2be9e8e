//! Stored forms. Each begins with its version, so that a later build reads what this one wrote.

use edge_agent_core::sampling::Sampled;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tributary_features::Event;
use tributary_wire::{LossReason, Lost, Micros};

use super::StoreError;

/// An event that was accepted, with everything that was made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// Place in this device's accept order; the first is 1.
    pub number: u64,
    /// Wall time at which it was accepted.
    pub wall: Micros,
    /// Name of its source.
    pub source: String,
    /// The event.
    pub event: Event,
    /// One per package that scored it; the first is the one that was answered, the primary's or a challenger's.
    pub observations: Vec<Observation>,
    /// Whether they are sent, and with which probability that was.
    #[serde(skip)]
    pub sampled: Sampled,
}

/// One served prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Model line.
    pub line: String,
    /// Version; 0 is the declared fallback.
    pub version: u32,
    /// Role of the package.
    pub role: String,
    /// Snapshot of fleet-scope features that was served.
    pub snapshot: Option<u64>,
    /// Features as served.
    pub features: Vec<f32>,
    /// The output.
    pub output: f32,
    /// The decision.
    pub decision: bool,
    /// Threshold of the decision.
    pub threshold: f32,
    /// From the writer's taking of the event to the decision.
    pub latency_us: u64,
    /// Bits of the marks.
    pub marks: u32,
    /// Why the answer is not the package's.
    pub degraded: Option<String>,
}

/// What was answered, kept for callers that ask again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The event's place in accept order.
    pub number: u64,
    /// Wall time at which it was accepted.
    pub wall: Micros,
    /// Version that decided.
    pub version: u32,
    /// The output.
    pub output: f32,
    /// The decision.
    pub decision: bool,
    /// Why the answer is not the package's.
    pub degraded: Option<String>,
    /// Bits of the marks.
    pub marks: u32,
    /// Microseconds to the decision.
    pub latency_us: u64,
    /// The challenger whose answer it is; `None`: the primary's, or the fallback's.
    #[serde(skip)]
    pub challenger: Option<String>,
}

/// Where a source stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SourceState {
    /// Newest event time it has brought.
    pub newest: Option<Micros>,
    /// How far it has been read, in the source's own count.
    pub offset: u64,
    /// What the offset belongs to, such as a file's name and length.
    pub of: String,
    /// Events accepted from it.
    pub accepted: u64,
    /// Events that were there before.
    pub duplicates: u64,
    /// Events refused.
    pub refused: u64,
    /// It has come to its end.
    pub finished: bool,
}

/// A finished sketch on its way to the hub.
#[derive(Debug, Clone, PartialEq)]
pub struct SketchRecord {
    /// Model line.
    pub line: String,
    /// Version.
    pub version: u32,
    /// First instant of its window.
    pub window_start: Micros,
    /// First instant after.
    pub window_end: Micros,
    /// Its byte form.
    pub sketch: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
enum Versions<T> {
    V1(T),
}

/// An accepted event as it is stored. One that is sent in any case has the form of before there was sampling.
#[derive(Serialize, Deserialize)]
enum StoredAccepted<T> {
    V1(T),
    V2(T, Sampled),
}

pub(super) fn encode_accepted(accepted: &Accepted) -> Vec<u8> {
    let stored = match accepted.sampled {
        sampled if sampled == Sampled::default() => StoredAccepted::V1(accepted),
        sampled => StoredAccepted::V2(accepted, sampled),
    };
    // Plain data written to a growing vector has no way to fail.
    postcard::to_allocvec(&stored).expect("plain data always serialises")
}

pub(super) fn decode_accepted(key: &str, bytes: &[u8]) -> Result<Accepted, StoreError> {
    match postcard::from_bytes(bytes) {
        Ok(StoredAccepted::V1(accepted)) => Ok(accepted),
        Ok(StoredAccepted::V2(accepted, sampled)) => Ok(Accepted { sampled, ..accepted }),
        Err(error) => {
            Err(StoreError::Damaged { what: "accepted event", key: key.to_owned(), problem: error.to_string() })
        }
    }
}

/// What is known of a batch without reading it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Wall time at which it was closed: its age.
    pub(super) closed: i64,
    /// Whether it holds close and rare observations.
    pub(super) remarkable: bool,
    /// Event times of its earliest and latest record.
    pub(super) span: Option<(Micros, Micros)>,
    /// Set when this is a gap.
    pub(super) gap: Option<Box<Gap>>,
}

/// Numbers that stand for what was given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Gap {
    /// The last of them.
    pub(super) to: u64,
    /// What was in them.
    pub(super) lost: Vec<Lost>,
}

/// An entry as it is stored.
#[derive(Serialize, Deserialize)]
enum StoredEntry<T> {
    /// From before there were times and reasons: records, bytes, closed, last number of a gap.
    V1(u64, u64, i64, Option<u64>),
    V2(T),
}

pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    // Plain data written to a growing vector has no way to fail.
    postcard::to_allocvec(&StoredEntry::V2(entry)).expect("plain data always serialises")
}

pub(super) fn decode_entry(key: &str, bytes: &[u8]) -> Result<Entry, StoreError> {
    match postcard::from_bytes(bytes) {
        Ok(StoredEntry::V1(records, bytes, closed, gap_to)) => {
            let lost = vec![Lost { reason: LossReason::DiskBudget, records, span: None }];
            let gap = gap_to.map(|to| Box::new(Gap { to, lost }));
            Ok(Entry { records, bytes, closed, remarkable: false, span: None, gap })
        }
        Ok(StoredEntry::V2(entry)) => Ok(entry),
        Err(error) => {
            Err(StoreError::Damaged { what: "outbox entry", key: key.to_owned(), problem: error.to_string() })
        }
    }
}

/// An answer as it is stored. The primary's have the form of before there were challengers.
#[derive(Serialize, Deserialize)]
enum StoredAnswer<T> {
    V1(T),
    V2(T, String),
}

pub(super) fn encode_answer(answer: &Answer) -> Vec<u8> {
    let stored = match &answer.challenger {
        None => StoredAnswer::V1(answer),
        Some(role) => StoredAnswer::V2(answer, role.clone()),
    };
    // Plain data written to a growing vector has no way to fail.
    postcard::to_allocvec(&stored).expect("plain data always serialises")
}

pub(super) fn decode_answer(key: &str, bytes: &[u8]) -> Result<Answer, StoreError> {
    match postcard::from_bytes(bytes) {
        Ok(StoredAnswer::V1(answer)) => Ok(answer),
        Ok(StoredAnswer::V2(answer, role)) => Ok(Answer { challenger: Some(role), ..answer }),
        Err(error) => Err(StoreError::Damaged { what: "answer", key: key.to_owned(), problem: error.to_string() }),
    }
}

pub(super) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    // Plain data written to a growing vector has no way to fail.
    postcard::to_allocvec(&Versions::V1(record)).expect("plain data always serialises")
}

pub(super) fn decode<T: DeserializeOwned>(what: &'static str, key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    match postcard::from_bytes(bytes) {
        Ok(Versions::V1(record)) => Ok(record),
        Err(error) => Err(StoreError::Damaged { what, key: key.to_owned(), problem: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_primary_is_stored_as_before_and_a_challengers_with_its_role() {
        let answer = Answer {
            number: 1,
            wall: Micros(2),
            version: 3,
            output: 0.5,
            decision: true,
            degraded: None,
            marks: 0,
            latency_us: 9,
            challenger: None,
        };
        assert_eq!(encode_answer(&answer), [0, 1, 4, 3, 0, 0, 0, 0x3f, 1, 0, 0, 9]);
        assert_eq!(decode_answer("e", &encode_answer(&answer)).unwrap(), answer);
        let other = Answer { challenger: Some("challenger-b".into()), ..answer };
        assert_eq!(decode_answer("e", &encode_answer(&other)).unwrap(), other);
        assert!(decode_answer("e", &[9]).unwrap_err().to_string().contains("answer"));
    }
    #[test]
    fn an_event_that_is_sent_in_any_case_is_stored_as_before_and_a_sampled_one_with_its_probability() {
        let event = crate::testing::event(1);
        let (source, observations) = ("api".to_owned(), Vec::new());
        let accepted =
            Accepted { number: 1, wall: Micros(2), source, event, observations, sampled: Sampled::default() };
        assert_eq!(encode_accepted(&accepted), encode(&accepted));
        assert_eq!(decode_accepted("1", &encode_accepted(&accepted)).unwrap(), accepted);
        let sampled = Sampled { probability: 0.25, kept: false, remarkable: true, with_event: true };
        let accepted = Accepted { sampled, ..accepted };
        assert_eq!(decode_accepted("1", &encode_accepted(&accepted)).unwrap(), accepted);
        assert!(decode_accepted("1", &[9]).unwrap_err().to_string().contains("accepted event"));
    }
    #[test]
    fn what_an_earlier_build_kept_of_the_outbox_is_read() {
        // records 7, bytes 300, closed 5; a gap up to 9.
        let batch = decode_entry("k", &[0, 7, 0xac, 2, 10, 0]).unwrap();
        assert_eq!((batch.records, batch.bytes, batch.closed, &batch.gap), (7, 300, 5, &None));
        let gap = decode_entry("k", &[0, 7, 0xac, 2, 10, 1, 9]).unwrap().gap.unwrap();
        assert_eq!((gap.to, gap.lost[0].reason, gap.lost[0].records), (9, LossReason::DiskBudget, 7));
        let entry = Entry { span: Some((Micros(1), Micros(2))), remarkable: true, gap: Some(gap), ..batch };
        assert_eq!(decode_entry("k", &encode_entry(&entry)).unwrap(), entry);
    }
}
