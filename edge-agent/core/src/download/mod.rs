//! How files are fetched: from whom first, how fast, at which times of day, and when a source counts as too slow.

mod hours;
mod ranking;
mod bucket;
mod speed;

pub use bucket::Bucket;
pub use hours::{Hours, HoursError};
pub use ranking::{Fault, Ranking};
pub use speed::Speed;
