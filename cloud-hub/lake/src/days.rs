//! Days: the parts that the lake is divided into, by event time.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use tributary_wire::{Micros, StreamName};

use crate::LakeError;
use crate::columns::event_times;
use crate::file::{Footer, FooterBatch, Rowless};
use crate::lake::Portion;
use crate::schema::SchemaConflict;

/// One batch may touch this many days; a year of nightly rows still passes, a file per row does not.
pub const MAX_DAYS_PER_BATCH: usize = 400;

/// Event time may be this far ahead of the hub's clock: simulated data goes on into the future, a broken clock further.
pub(crate) const MAX_DAYS_AHEAD: i64 = 1000;

/// 2026-01-01: the hub's own clock was never before this.
const CLOCK_FLOOR: Micros = Micros(1_767_225_600_000_000);

/// The part of a group that lies on one day.
pub(crate) struct DaySlice {
    pub(crate) footer: Footer,
    pub(crate) records: Vec<RecordBatch>,
}

/// Checks that a batch touches neither more days than allowed nor a day that is too far ahead: windows, snapshots and
/// datasets all follow the newest event time, so one wrong one would stand in the way of every right one.
pub fn check_days(records: &RecordBatch, ingest_time: Micros) -> Result<(), SchemaConflict> {
    let days: HashSet<i64> = event_times(records, ingest_time).into_iter().map(|t| Micros(t).day()).collect();
    let limit = ingest_time.max(CLOCK_FLOOR).day() + MAX_DAYS_AHEAD;
    if let Some(day) = days.iter().copied().filter(|day| *day > limit).max() {
        return Err(SchemaConflict::Future { found: day_name(day) });
    }
    match days.len() {
        found if found > MAX_DAYS_PER_BATCH => Err(SchemaConflict::Days { found, limit: MAX_DAYS_PER_BATCH }),
        _ => Ok(()),
    }
}

/// Takes batches apart by the day of their rows.
pub(crate) fn split_by_day(stream: &StreamName, portions: &[Portion]) -> Result<BTreeMap<i64, DaySlice>, LakeError> {
    let mut days: BTreeMap<i64, DaySlice> = BTreeMap::new();
    for portion in portions {
        let times = event_times(&portion.records, portion.ingest_time);
        let of = times.len() as u64;
        let mut by_day: BTreeMap<i64, (i64, i64, u64)> = BTreeMap::new();
        for time in &times {
            let (min, max, rows) = by_day.entry(Micros(*time).day()).or_insert((*time, *time, 0));
            (*min, *max, *rows) = ((*min).min(*time), (*max).max(*time), *rows + 1);
        }
        let single = by_day.len() == 1;
        for (day, (min_time, max_time, rows)) in by_day {
            let records = if single {
                portion.records.clone()
            } else {
                let mask: BooleanArray = times.iter().map(|time| Some(Micros(*time).day() == day)).collect();
                filter_record_batch(&portion.records, &mask)?
            };
            let slice = days.entry(day).or_insert_with(|| DaySlice {
                footer: Footer {
                    stream: stream.clone(),
                    day,
                    min_time,
                    max_time,
                    batches: Vec::new(),
                    rowless: Vec::new(),
                },
                records: Vec::new(),
            });
            slice.footer.min_time = slice.footer.min_time.min(min_time);
            slice.footer.max_time = slice.footer.max_time.max(max_time);
            slice.footer.batches.push(FooterBatch {
                device: portion.key.device.clone(),
                incarnation: portion.key.incarnation,
                sequence: portion.key.sequence,
                hash: portion.hash,
                rows,
                of,
            });
            slice.records.push(records);
        }
    }
    Ok(days)
}

/// Writes numbers without rows into the footer of the first file; where there is none, into one without rows.
pub(crate) fn add_rowless(days: &mut BTreeMap<i64, DaySlice>, stream: &StreamName, rowless: Vec<Rowless>) {
    let Some(received) = rowless.iter().map(|it| it.received).min() else { return };
    if days.is_empty() {
        let (day, min_time, max_time) = (received.day(), received.0, received.0);
        let (batches, rowless) = (Vec::new(), Vec::new());
        let footer = Footer { stream: stream.clone(), day, min_time, max_time, batches, rowless };
        days.insert(day, DaySlice { footer, records: Vec::new() });
    }
    if let Some(mut first) = days.first_entry() {
        first.get_mut().footer.rowless = rowless;
    }
}

/// `YYYY-MM-DD` of a UTC day (days since 1970-01-01, proleptic Gregorian calendar).
pub fn day_name(day: i64) -> String {
    // Howard Hinnant's civil_from_days, http://howardhinnant.github.io/date_algorithms.html
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_named_by_the_calendar() {
        for (day, name) in [(0, "1970-01-01"), (-1, "1969-12-31"), (17_622, "2018-04-01"), (19_782, "2024-02-29")] {
            assert_eq!(day_name(day), name);
        }
    }
}
