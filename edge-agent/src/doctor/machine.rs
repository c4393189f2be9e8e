//! The machine: room, memory, engines.

use tributary_process::checkup::{Finding, bytes, count, disk, host};

use super::Subject;
use crate::capabilities;

const SECTION: &str = "Machine";
/// Connections, files and a little to spare.
const OPEN_FILES: u64 = 256;

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let config = &subject.config;
    let packages = config.state.packages.map_or(0, |budget| budget.0);
    let mut findings = disk(SECTION, &config.state_dir, config.outbox.budget.0.saturating_add(packages));
    findings.extend(host::open_files().map(judge_open_files));
    let found = capabilities::gather(config.limits.package_memory);
    let engines: Vec<String> = found
        .engines
        .iter()
        .map(|engine| format!("{} with {}", engine.name, count(engine.operators.len() as u64, "operator", "operators")))
        .collect();
    findings.push(if engines.is_empty() {
        Finding::fail(SECTION, "engines", "none is built in: no package can serve")
            .advise("install a build with an engine")
    } else {
        Finding::ok(SECTION, "engines", engines.join("; "))
    });
    if let Some(memory) = found.memory_bytes {
        findings.push(judge_memory(memory, found.package_memory));
    }
    findings
}

fn judge_open_files(limit: u64) -> Finding {
    match limit {
        0..OPEN_FILES => {
            Finding::warn(SECTION, "open files", format!("at most {limit}, expected {OPEN_FILES} or more"))
                .advise("raise it: ulimit -n, or LimitNOFILE= of the service")
        }
        _ => Finding::ok(SECTION, "open files", format!("at most {limit}")),
    }
}

fn judge_memory(memory: u64, for_package: Option<u64>) -> Finding {
    let found = format!("{} in all", bytes(memory));
    match for_package {
        Some(wanted) if wanted > memory => {
            let found = format!("{found}; `limits.package_memory` allows {}", bytes(wanted));
            Finding::warn(SECTION, "memory", found).advise("set it to what the machine can give")
        }
        Some(wanted) => Finding::ok(SECTION, "memory", format!("{found}, {} for a package", bytes(wanted))),
        None => Finding::ok(SECTION, "memory", found),
    }
}

#[cfg(test)]
mod tests {
    use tributary_process::checkup::Mark;

    use super::*;

    #[test]
    fn limits_are_judged() {
        assert_eq!([64, 1024].map(|limit| judge_open_files(limit).mark()), [Mark::Warn, Mark::Ok]);
        assert_eq!(
            [None, Some(1), Some(100)].map(|wanted| judge_memory(10, wanted).mark()),
            [Mark::Ok, Mark::Ok, Mark::Warn]
        );
    }
}
