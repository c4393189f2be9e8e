//! The clock, held against the times that somebody trusted has signed, and against the hub's.

use tributary_process::checkup::{Finding, span};
use tributary_wire::Micros;

use super::Subject;
use crate::identity::{AGREES, WRONG};

const SECTION: &str = "Machine";

/// `heard`: the hub's time, and this device's when it was heard.
pub(super) fn check(subject: &Subject, heard: Option<(Micros, Micros)>) -> Vec<Finding> {
    judge(subject.now, subject.time.floor(), heard)
}

fn judge(now: Micros, floor: Micros, heard: Option<(Micros, Micros)>) -> Vec<Finding> {
    let [now, floor] = [now, floor].map(|time| Micros(time.0 - time.0.rem_euclid(Micros::SECOND)));
    let set = "set the clock, and have it kept by a time service (chrony, systemd-timesyncd)";
    if now < floor {
        let found = format!("it says {now}, but it cannot be before {floor}, a time that was signed");
        return vec![Finding::fail(SECTION, "clock", found).advise(set)];
    }
    let Some((theirs, ours)) = heard else {
        return vec![Finding::ok(
            SECTION,
            "clock",
            format!("{now}; not before any signed time; the hub's was not heard"),
        )];
    };
    let off = ours.since(theirs);
    let words = format!("{now}; {} {} the hub's", span(off), if off < 0 { "behind" } else { "ahead of" });
    vec![match off.abs() {
        ..=AGREES => Finding::ok(SECTION, "clock", format!("{now}; as the hub's")),
        off if off <= WRONG => Finding::warn(SECTION, "clock", words).advise(set),
        _ => Finding::fail(SECTION, "clock", words).advise(set),
    }]
}

#[cfg(test)]
mod tests {
    use tributary_process::checkup::Mark;

    use super::*;

    #[test]
    fn a_clock_behind_what_was_signed_or_beside_the_hubs_is_told() {
        let now = Micros(1_900_000_000_000_000);
        let mark = |floor: i64, off: Option<i64>| {
            let heard = off.map(|off| (Micros(now.0 - off), now));
            judge(now, Micros(floor), heard)[0].mark()
        };
        assert_eq!(mark(now.0 + Micros::SECOND, Some(0)), Mark::Fail);
        let second = Micros::SECOND;
        let of = |off| mark(0, off);
        assert_eq!([None, Some(second), Some(-second)].map(of), [Mark::Ok; 3]);
        assert_eq!(
            [Some(60 * second), Some(-3600 * second), Some(3600 * second)].map(of),
            [Mark::Warn, Mark::Fail, Mark::Fail]
        );
    }
}
