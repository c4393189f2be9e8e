//! The authority and the hub's own certificate.

use tributary_identity::{Authority, Certificate};
use tributary_process::checkup::{Finding, days, span};
use tributary_wire::Micros;

use super::{Subject, words};

const SECTION: &str = "Identity";
/// So long before its end an operator must know that the authority ends: every device has to learn of the next one.
const AUTHORITY: i64 = 365 * Micros::DAY;

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let config = &subject.config.identity;
    let folder = subject.path("identity");
    let given = config.authority.clone().zip(config.authority_key.clone());
    let (certificate, key) = given.unwrap_or_else(|| (folder.join("authority.pem"), folder.join("authority.key")));
    if !certificate.exists() && !folder.exists() {
        return vec![Finding::ok(SECTION, "authority", "none yet: the hub makes it at its first start")];
    }
    let authority = match Authority::open(&certificate, &key) {
        Ok(authority) => authority,
        Err(error) => {
            let advice =
                "restore authority.pem and authority.key from a backup: without them every device has to enrol again";
            return vec![Finding::fail(SECTION, "authority", words(&error)).advise(advice)];
        }
    };
    let mut findings = vec![judge_authority(authority.certificate(), subject.now)];
    let own = folder.join("hub.pem");
    let read = std::fs::read_to_string(&own).map_err(|error| error.to_string());
    let read = read.and_then(|text| Certificate::all_from_pem(&text).map_err(|error| words(&error)));
    findings.push(match read.as_deref() {
        Ok([first, issuer, ..]) if issuer == authority.certificate() => judge_own(first, subject.now),
        Ok(_) => Finding::warn(SECTION, "certificate", "the hub's certificate is not of this authority")
            .advise("nothing to do: the hub makes another one at its next start"),
        Err(problem) => Finding::warn(SECTION, "certificate", format!("{}: {problem}", own.display()))
            .advise("nothing to do: the hub makes another one at its next start"),
    });
    findings
}

fn judge_authority(certificate: &Certificate, now: Micros) -> Finding {
    let left = certificate.not_after().since(now);
    let name = certificate.common_name();
    match left {
        ..=0 => Finding::fail(
            SECTION,
            "authority",
            format!("{name:?} expired {} ago: no device believes this hub", span(left)),
        )
        .advise("set identity.authority to a new one and enrol the devices again"),
        _ if left < AUTHORITY => {
            Finding::warn(SECTION, "authority", format!("{name:?} is good for {} more", days(left)))
                .advise("plan the next one: identity.authority takes several certificates, the signing one first")
        }
        _ => Finding::ok(SECTION, "authority", format!("{name:?}, good for {}", days(left))),
    }
}

fn judge_own(certificate: &Certificate, now: Micros) -> Finding {
    let left = certificate.not_after().since(now);
    let names = certificate.names().join(", ");
    if now < certificate.not_before() {
        return Finding::fail(SECTION, "certificate", "not valid yet: the clock was set back").advise("set the clock");
    }
    match left {
        ..=0 => Finding::fail(SECTION, "certificate", format!("expired {} ago; for {names}", span(left)))
            .advise("the hub renews it by itself: start it, and look at its log if it runs"),
        _ => Finding::ok(SECTION, "certificate", format!("good for {}; for {names}", days(left))),
    }
}
