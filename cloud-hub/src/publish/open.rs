//! Assignments that their devices have still to take, and how long they are good.

use sqlx::SqliteConnection;
use tributary_wire::{Micros, Report};

use super::lifetimes::{Standing, standing};
use super::status::RoleStatus;

/// A device that is heard and has not taken its newest assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub device: String,
    pub issued: i64,
    pub expires: i64,
}

/// Who was not heard for so long gets a fresh assignment when it wakes.
const HEARD: i64 = Micros::DAY;

/// The assignments that are still to be taken by devices that are there, the first to end first.
pub(super) async fn open_assignments(catalog: &mut SqliteConnection, now: Micros) -> Result<Vec<Open>, sqlx::Error> {
    let query = "select a.device, a.generation, a.issued, a.expires, d.report from assignments a
                 join devices d on d.id = a.device where coalesce(d.report_at, d.last_seen) >= $1
                 order by a.expires, a.device";
    type Row = (String, i64, i64, i64, Option<Vec<u8>>);
    let rows: Vec<Row> = sqlx::query_as(query).bind(now.0.saturating_sub(HEARD)).fetch_all(catalog).await?;
    let open = rows.into_iter().filter_map(|(device, generation, issued, expires, report)| {
        let report = report.and_then(|bytes| Report::decode(&bytes).ok());
        let has = report.is_some_and(|report| report.base().generation.0 >= generation as u64);
        (!has).then_some(Open { device, issued, expires })
    });
    Ok(open.collect())
}

/// Says how long the assignments of devices that have not taken theirs are still good. The hub signs one anew when its
/// device reports; it does not where a rollout is paused.
pub(super) fn ending(row: &mut RoleStatus, open: &[Open], now: Micros) {
    let Some(first) = open.first() else { return };
    row.expires = Some(first.expires);
    let of = standing(Micros(first.issued), Micros(first.expires), now);
    row.standing = row.standing.max(of);
    if of != Standing::Fine && row.next.is_empty() {
        let (device, count) = (&first.device, open.len());
        row.next = format!(
            "{count} device(s) have not taken their assignment, {device} among them: cloud-hub device show {device}, and \
             resume or abort the rollout that is paused"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::row;
    use super::*;

    #[test]
    fn assignments_that_nobody_takes_are_told_of_before_they_end() {
        let day = |number: i64| Micros(number * Micros::DAY);
        let open = [Open { device: "edge-7".to_owned(), issued: 0, expires: day(30).0 }];
        let looked = |open: &[Open], now| {
            let mut found = RoleStatus { expires: None, ..row("assignments", true, Standing::Fine, 0) };
            ending(&mut found, open, now);
            (found.expires, found.standing, found.next)
        };
        assert_eq!(looked(&[], day(99)), (None, Standing::Fine, String::new()));
        assert_eq!(looked(&open, day(19)), (Some(day(30).0), Standing::Fine, String::new()));
        let (_, soon, next) = looked(&open, day(20));
        assert!(soon == Standing::Soon && next.contains("device show edge-7"), "{next}");
        assert_eq!((looked(&open, day(28)).1, looked(&open, day(31)).1), (Standing::Urgent, Standing::Expired));
    }
}
