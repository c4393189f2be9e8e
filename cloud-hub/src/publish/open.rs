//! Assignments that their devices have still to carry out, and how long they are good.

use cloud_hub_core::rollout::assignments::is_unfinished;
use sqlx::SqliteConnection;
use tributary_wire::{Assignment, Micros, Report, SignedAssignment};

use super::lifetimes::{Standing, standing};
use super::status::RoleStatus;

/// A device that is heard and has not carried out its newest assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub device: String,
    pub issued: i64,
    pub expires: i64,
}

/// Who was not heard for so long gets a fresh assignment when it wakes.
const HEARD: i64 = Micros::DAY;

/// The assignments that devices that are there have still to carry out, the first to end first.
pub(super) async fn open_assignments(catalog: &mut SqliteConnection, now: Micros) -> Result<Vec<Open>, sqlx::Error> {
    let query = "select a.device, a.signed, a.issued, a.expires, d.report from assignments a
                 join devices d on d.id = a.device where coalesce(d.report_at, d.last_seen) >= $1
                 order by a.expires, a.device";
    type Row = (String, Vec<u8>, i64, i64, Option<Vec<u8>>);
    let rows: Vec<Row> = sqlx::query_as(query).bind(now.0.saturating_sub(HEARD)).fetch_all(catalog).await?;
    let open = rows.into_iter().filter(|(_, signed, _, _, report)| !is_done(signed, report.as_deref()));
    Ok(open.map(|(device, _, issued, expires, _)| Open { device, issued, expires }).collect())
}

/// Whether a device has accepted an assignment and carried it out, by its report. What cannot be read says neither.
fn is_done(signed: &[u8], report: Option<&[u8]>) -> bool {
    let signed = SignedAssignment::decode(signed).and_then(|signed| Assignment::decode(&signed.payload));
    let report = report.map(Report::decode);
    let (Ok(assignment), Some(Ok(report))) = (signed, report) else { return false };
    report.base().generation >= assignment.desired().generation && !is_unfinished(&assignment, &report)
}

/// Says how long the assignments of devices that have not carried out theirs are still good. The hub signs one anew when
/// its device reports; it does not where a rollout is paused.
pub(super) fn ending(row: &mut RoleStatus, open: &[Open], now: Micros) {
    let Some(first) = open.first() else { return };
    row.expires = Some(first.expires);
    let of = standing(Micros(first.issued), Micros(first.expires), now);
    row.standing = row.standing.max(of);
    if of != Standing::Fine && row.next.is_empty() {
        let (device, count) = (&first.device, open.len());
        row.next = format!(
            "{count} device(s) have not carried out their assignment, {device} among them: cloud-hub device show \
             {device}, and resume or abort the rollout that is paused"
        );
    }
}

#[cfg(test)]
mod tests {
    use tributary_release::{SigningKey, sign_assignment};
    use tributary_wire::{
        AssignmentV1, ClockState, DeviceId, Generation, Health, Incarnation, LineAssignment, LineName, LineReport,
        PackageRef, ReleaseRef, ReportV1, Resources, Role, Sha256, Stamp, TrialReport, UpdaterState, VersionNumber,
    };

    use super::super::status::tests::row;
    use super::*;

    #[test]
    fn an_assignment_is_done_when_it_was_carried_out_not_when_it_was_accepted() {
        let package =
            |version: u32| PackageRef { version: VersionNumber(version), sha256: Sha256([version as u8; 32]) };
        let (line, role) = (LineName::new("card-fraud").unwrap(), Role::primary());
        let release = ReleaseRef { version: VersionNumber(2), length: 1, sha256: package(2).sha256 };
        let wish = LineAssignment { line: line.clone(), role: role.clone(), release, allow_lower: false };
        let assignment = Assignment::V1(AssignmentV1 {
            device: DeviceId::new("edge-7").unwrap(),
            generation: Generation(4),
            issued: Micros(0),
            expires: Micros(1),
            lines: vec![wish],
            flags: Vec::new(),
        });
        let signed = sign_assignment(&SigningKey::generate([7; 32]), &assignment).encode();
        let report = |generation, committed| {
            let of = LineReport {
                line: line.clone(),
                role: role.clone(),
                state: UpdaterState::Staged,
                committed: Some(package(committed)),
                previous: None,
                candidate: None,
                undone: None,
                error: None,
                engine: String::new(),
                trial: TrialReport::default(),
            };
            let base = ReportV1 {
                number: 1,
                incarnation: Incarnation(1),
                stamp: Stamp { boot: 1, monotonic: 0, wall: Micros(0), clock: ClockState::Synchronised },
                reads: 1,
                agent: "test".to_owned(),
                labels: Vec::new(),
                generation: Generation(generation),
                asks: false,
                lines: vec![of],
                snapshot: None,
                health: Health::default(),
                resources: Resources::default(),
            };
            Report::V1(base).encode()
        };
        let done = |generation, committed| is_done(&signed, Some(&report(generation, committed)));
        assert_eq!((done(3, 1), done(3, 2), done(4, 1), done(4, 2), done(5, 2)), (false, false, false, true, true));
        assert!(!is_done(&signed, None) && !is_done(b"?", Some(&report(4, 2))) && !is_done(&signed, Some(b"?")));
    }

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
