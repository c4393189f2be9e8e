//! What a hub is, or needs to be, on its machine: its ports, its child processes, the clock and the machine below.

use std::net::{TcpListener, UdpSocket};
use std::process::Stdio;

use sqlx::SqlitePool;
use tributary_identity::BUILT;
use tributary_process::checkup::{Finding, disk, host, span};
use tributary_wire::Micros;

use super::{Subject, doors, whole, words};

pub(super) const SECTION: &str = "Service";
/// What a hub may come to write before somebody looks again.
const WANTED: u64 = 1 << 30;
/// Files beside one for each connection.
const OTHER_FILES: u64 = 256;
/// A clock so far behind what was stored was set back.
const SLACK: i64 = 60 * Micros::SECOND;

pub(super) async fn check(subject: &Subject, catalog: Option<&SqlitePool>) -> Vec<Finding> {
    let mut findings = match &subject.running {
        Some(holder) => {
            let found = format!("runs: {holder}");
            let mut findings = vec![Finding::ok(SECTION, "hub", found)];
            findings.extend(doors::check(subject).await);
            findings
        }
        None => {
            let mut findings = vec![Finding::ok(SECTION, "hub", "does not run in this folder")];
            findings.extend(ports(subject));
            findings
        }
    };
    findings.push(trainer(subject).await);
    findings.extend(disk("Machine", &subject.config.data_dir, WANTED));
    findings.extend(host::open_files().map(|limit| open_files(limit, subject.config.gateway.connections as u64)));
    if let Some(catalog) = catalog {
        findings.push(clock(subject, catalog).await);
    }
    findings
}

/// Whether the ports that the settings name are free: each is bound for a moment.
fn ports(subject: &Subject) -> Vec<Finding> {
    let (api, gateway) = (&subject.config.api, &subject.config.gateway);
    let tcp = [
        ("api.listen", Some(api.listen)),
        ("api.insecure_plain_on_loopback", api.insecure_plain_on_loopback),
        ("gateway.tls", gateway.tls),
        ("gateway.insecure_plain_on_loopback", gateway.insecure_plain_on_loopback),
    ];
    let udp = [("gateway.quic", gateway.quic)];
    let tcp = tcp.into_iter().filter_map(|(key, address)| Some((key, address?, TcpListener::bind(address?).map(drop))));
    let udp = udp.into_iter().filter_map(|(key, address)| Some((key, address?, UdpSocket::bind(address?).map(drop))));
    let mut taken = Vec::new();
    let mut free = Vec::new();
    for (key, address, bound) in tcp.chain(udp) {
        match bound {
            Ok(()) => free.push(address.to_string()),
            Err(error) => {
                taken
                    .push(Finding::fail(SECTION, "ports", format!("{key}: {address} cannot be taken: {error}")).advise(
                    "stop the program that has it (ss -lntup), or set another address; below 1024 a right is needed",
                ))
            }
        }
    }
    if taken.is_empty() {
        taken.push(Finding::ok(SECTION, "ports", format!("free: {}", free.join(", "))));
    }
    taken
}

/// Runs start another process of this program; whether that can be done.
async fn trainer(subject: &Subject) -> Finding {
    let config = &subject.config.training;
    let program = match config.program.as_os_str().is_empty() {
        true => std::env::current_exe().unwrap_or_default(),
        false => config.program.clone(),
    };
    let shown = program.display().to_string();
    let mut command = tokio::process::Command::new(&program);
    command
        .args(&config.arguments)
        .args(["train", "run", "--help"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let ended = tokio::time::timeout(subject.options.patience, command.kill_on_drop(true).status()).await;
    let advice = "training.program has to be a cloud-hub that may be executed; empty: this program";
    match ended {
        Ok(Ok(status)) if status.success() => Finding::ok(SECTION, "trainer", format!("{shown} can be started")),
        Ok(Ok(status)) => Finding::fail(SECTION, "trainer", format!("{shown}: {status}")).advise(advice),
        Ok(Err(error)) => Finding::fail(SECTION, "trainer", format!("{shown}: {error}")).advise(advice),
        Err(_) => Finding::warn(SECTION, "trainer", format!("{shown} did not start in time"))
            .advise("is the machine very busy? Try a longer --timeout"),
    }
}

fn open_files(limit: u64, connections: u64) -> Finding {
    let needed = connections + OTHER_FILES;
    let found = format!("at most {limit}; {connections} connections are allowed");
    match limit < needed {
        true => Finding::warn("Machine", "open files", found).advise(format!(
            "raise it to {needed} (ulimit -n, or LimitNOFILE= of the service), or lower gateway.connections"
        )),
        false => Finding::ok("Machine", "open files", found),
    }
}

/// The row of the catalog with the latest instant.
#[derive(Debug, sqlx::FromRow)]
struct Newest {
    what: String,
    at: i64,
}

/// Holds the clock against what it said before.
async fn clock(subject: &Subject, catalog: &SqlitePool) -> Finding {
    let query = "select 'file ' || path || ' of the lake' as what, committed as at from lake_files
                 union all select 'entry ' || number || ' of the audit log', time from audit
                 union all select 'version ' || version || ' of the role ' || role, stored from metadata
                 order by at desc limit 1";
    match sqlx::query_as::<_, Newest>(query).fetch_optional(catalog).await {
        Ok(newest) => judge_clock(subject.now, newest.as_ref()),
        Err(error) => Finding::skipped("Machine", "clock", words(&error)),
    }
}

/// A clock before the program's own time is certainly wrong. One behind what the catalog holds may be right: then it ran
/// ahead when that was written, and it would not help anybody to call the hub broken until that time has come.
fn judge_clock(now: Micros, newest: Option<&Newest>) -> Finding {
    let words = whole(now);
    let set = "set the clock, and have it kept by a time service (chrony, systemd-timesyncd)";
    if now < BUILT {
        let found = format!("it says {words}, but this program was made after {}", whole(BUILT));
        return Finding::fail("Machine", "clock", found).advise(set);
    }
    match newest.map(|newest| (newest, Micros(newest.at).since(now))) {
        Some((Newest { what, at }, later)) if later > SLACK => {
            let found = format!("{words}, but {what} is of {}, {} later", whole(Micros(*at)), span(later));
            Finding::warn("Machine", "clock", found).advise(format!(
                "look at another clock (chronyc tracking, timedatectl). If this one is wrong, it was set back: {set}. If it \
                 is right, it ran ahead when that was written: nothing is to be done but to find out why"
            ))
        }
        _ => Finding::ok("Machine", "clock", format!("{words}; not before anything in the catalog")),
    }
}

#[cfg(test)]
mod tests {
    use tributary_process::checkup::Mark;

    use super::*;

    #[test]
    fn limits_and_times_are_judged() {
        assert_eq!([100, 2_000].map(|limit| open_files(limit, 1_000).mark()), [Mark::Warn, Mark::Ok]);
        let now = Micros(1_900_000_000_000_000);
        let newest = |at| Newest { what: "entry 7 of the audit log".to_owned(), at };
        let judge = |at: Option<i64>| judge_clock(now, at.map(newest).as_ref());
        assert_eq!(
            [None, Some(0), Some(now.0 + 1), Some(now.0 + Micros::HOUR)].map(judge).map(|found| found.mark()),
            [Mark::Ok, Mark::Ok, Mark::Ok, Mark::Warn]
        );
        let ahead = judge(Some(now.0 + 500 * Micros::DAY));
        assert!(ahead.found().contains("entry 7 of the audit log is of 2031-"), "{ahead:?}");
        let advice = ahead.advice().unwrap();
        assert!(advice.contains("it was set back") && advice.contains("it ran ahead"), "{advice}");
        assert_eq!(judge_clock(Micros(BUILT.0 - 1), None).mark(), Mark::Fail);
    }
}
