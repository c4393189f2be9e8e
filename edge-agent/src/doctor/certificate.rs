//! Who this device is: key, certificate, and the authorities that it believes.

use tributary_process::checkup::{Finding, days, span};
use tributary_wire::Micros;

use super::Subject;
use crate::identity::{Current, Folder};
use crate::words::in_words;

const SECTION: &str = "Hub";
/// So long before its end somebody must know that an authority ends.
const AUTHORITY: i64 = 180 * Micros::DAY;

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let folder = Folder::of(&subject.config.state_dir);
    match &subject.identity {
        Ok(Some(identity)) => judge(&identity.current(), subject.time.now()),
        Ok(None) => {
            let plain = subject.config.hub.insecure_plain_mqtt.is_some();
            let found = format!("this device is not enrolled: {} holds no certificate", folder.path().display());
            vec![if plain {
                Finding::skipped(SECTION, "certificate", format!("{found}; the settings do without"))
            } else {
                Finding::warn(SECTION, "certificate", format!("{found}; records wait in the outbox"))
                    .advise("edge-agent enroll --hub https://HUB:8443 --token-file FILE")
            }]
        }
        Err(error) => {
            vec![Finding::fail(SECTION, "certificate", in_words(error)).advise(
                "if nothing above mends it: edge-agent enroll --again --hub https://HUB:8443 --token-file FILE",
            )]
        }
    }
}

fn judge(current: &Current, now: Micros) -> Vec<Finding> {
    let certificate = &current.certificate;
    let mut findings = vec![judge_term(
        &format!("{}, number {}", current.device, short(certificate.serial().as_str())),
        (certificate.not_before(), current.term.renew_after, certificate.not_after()),
        now,
    )];
    match current.is_of_its_key() {
        Ok(true) => {}
        Ok(false) => findings.push(
            Finding::fail(SECTION, "key", "the key is not the certificate's: files of two identities were mixed")
                .advise("restore the folder identity/ as it was, or: edge-agent enroll --again"),
        ),
        Err(error) => {
            findings.push(Finding::fail(SECTION, "key", in_words(&error)).advise("edge-agent enroll --again"))
        }
    }
    let first = current.authorities().iter().map(|authority| authority.not_after()).max();
    if let Some(end) = first {
        findings.push(judge_authority(end, now));
    }
    findings
}

fn short(serial: &str) -> String {
    serial.chars().take(8).collect::<String>() + "…"
}

fn judge_term(who: &str, (from, renew, end): (Micros, Micros, Micros), now: Micros) -> Finding {
    let day = |time: Micros| time.to_string().chars().take(10).collect::<String>();
    if now < from {
        return Finding::fail(SECTION, "certificate", format!("{who}: not valid before {}", day(from)))
            .advise("the clock of this device is behind: set it");
    }
    let left = end.since(now);
    if left <= 0 {
        return Finding::fail(SECTION, "certificate", format!("{who}: expired {} ago, on {}", span(left), day(end))).advise(
            "the hub still takes it for renewal for some time (30 days unless configured): start the agent where it reaches \
             the hub. Later: edge-agent enroll --again",
        );
    }
    let found = format!("{who}: good for {}, renewed from {} on", days(left), day(renew));
    // A device waits a part of its own of the first half of what remains; what is later than that has failed.
    let overdue = Micros(renew.0.saturating_add(end.since(renew) / 2));
    if now > overdue {
        return Finding::warn(SECTION, "certificate", format!("{found}: overdue"))
            .advise("the hub has to be reached over HTTPS: see below, and the agent's log");
    }
    Finding::ok(SECTION, "certificate", found)
}

fn judge_authority(end: Micros, now: Micros) -> Finding {
    let left = end.since(now);
    match left {
        ..=0 => Finding::fail(SECTION, "authority", "the hub's authority has expired: no hub is believed")
            .advise("enrol again"),
        _ if left < AUTHORITY => {
            Finding::warn(SECTION, "authority", format!("the hub's authority is good for {} more", days(left)))
                .advise("the hub's operator has to rotate it before")
        }
        _ => Finding::ok(SECTION, "authority", format!("good for {}", days(left))),
    }
}

#[cfg(test)]
mod tests {
    use tributary_process::checkup::Mark;

    use super::*;

    #[test]
    fn terms_are_judged_from_before_their_beginning_to_after_their_end() {
        const DAY: i64 = Micros::DAY;
        let term = (Micros(0), Micros(60 * DAY), Micros(90 * DAY));
        let at = |now| judge_term("edge-1", term, Micros(now)).mark();
        assert_eq!([-1, 1, 60 * DAY, 74 * DAY].map(at), [Mark::Fail, Mark::Ok, Mark::Ok, Mark::Ok]);
        assert_eq!([76 * DAY, 89 * DAY, 90 * DAY, 200 * DAY].map(at), [Mark::Warn, Mark::Warn, Mark::Fail, Mark::Fail]);
        let authority = |now| judge_authority(Micros(365 * DAY), Micros(now)).mark();
        assert_eq!([0, 300 * DAY, 366 * DAY].map(authority), [Mark::Ok, Mark::Warn, Mark::Fail]);
    }
}
