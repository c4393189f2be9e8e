//! The state folder: whose it is, who may read what, and whether secrets are secret.

use std::path::{Path, PathBuf};

use tributary_process::checkup::host::{self, Standing};
use tributary_process::checkup::{Finding, Mend};

use super::Subject;

const SECTION: &str = "Folder";
/// Files that are looked at, at most; there are a few dozen.
const MOST: usize = 10_000;

/// A path with what is known of it.
type Seen = (PathBuf, Standing);

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let folder = &subject.config.state_dir;
    let there = match host::standing(folder) {
        Ok(standing) if standing.is_folder => standing,
        Ok(_) => {
            let found = format!("{} is a file", folder.display());
            return vec![Finding::fail(SECTION, "state folder", found).advise("name a folder in `state_dir`")];
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let found = format!("{} is not there; the agent makes it at its first start", folder.display());
            let above = host::nearest_folder(folder);
            return vec![if host::may_write(&above) {
                Finding::ok(SECTION, "state folder", found)
            } else {
                let advice = format!("make it, and give it to the agent's user: {} cannot be written", above.display());
                Finding::fail(SECTION, "state folder", found).advise(advice)
            }];
        }
        Err(error) => {
            let advice = "run the doctor as the user that the agent runs as";
            return vec![
                Finding::fail(SECTION, "state folder", format!("{}: {error}", folder.display())).advise(advice),
            ];
        }
    };
    let mut files = Vec::new();
    walk(folder, &mut files);
    let mut findings = vec![judge_folder(folder, &there, host::user(), host::may_write(folder))];
    findings.extend(judge_owners(&there, &files));
    findings.extend(judge_secrets(folder, &files));
    findings
}

fn walk(folder: &Path, found: &mut Vec<Seen>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // Sockets and links are none of ours to judge.
        let Ok(kind) = entry.file_type() else { continue };
        let Ok(standing) = host::standing(&path) else { continue };
        if found.len() < MOST && (kind.is_file() || kind.is_dir()) {
            found.push((path.clone(), standing));
            if kind.is_dir() {
                walk(&path, found);
            }
        }
    }
}

fn judge_folder(path: &Path, standing: &Standing, user: Option<u32>, writable: bool) -> Finding {
    let found = format!("{}, mode {:04o}, of {}", path.display(), standing.mode, host::user_name(standing.owner));
    let foreign = user.is_some_and(|user| user != standing.owner);
    if standing.mode & 0o002 != 0 {
        let found = format!("{found}: everybody may write to it");
        return Finding::fail(SECTION, "state folder", found).mended_by(Mend::private(path, standing.mode & !0o022));
    }
    match (writable, foreign) {
        (false, true) => {
            let user = host::user_name(user.unwrap_or_default());
            Finding::warn(SECTION, "state folder", format!("{found}; this is {user}, who may not write there"))
                .advise("run the doctor, and the agent, as its owner")
        }
        (false, false) => Finding::fail(SECTION, "state folder", format!("{found}: it cannot be written"))
            .advise(format!("chmod u+rwx {}", path.display())),
        _ => Finding::ok(SECTION, "state folder", found),
    }
}

/// An agent that was once started as another user leaves files that it cannot open later.
fn judge_owners(folder: &Standing, files: &[Seen]) -> Option<Finding> {
    let foreign: Vec<&Seen> = files.iter().filter(|(_, standing)| standing.owner != folder.owner).collect();
    let (first, standing) = foreign.first()?;
    let _ = first;
    let (owner, other) = (host::user_name(folder.owner), host::user_name(standing.owner));
    let what = tributary_process::checkup::count(foreign.len() as u64, "file belongs", "files belong");
    let found = format!("{what} to {other}, the folder to {owner}: was the agent once started as another user?");
    let advice = format!("chown -R {} on the state folder, as root", folder.owner);
    let names = foreign.iter().map(|(path, _)| path.display().to_string());
    Some(Finding::fail(SECTION, "owners", found).advise(advice).with_details(names))
}

fn is_secret(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name == "key.pem" || name == "pending.pem"
}

fn judge_secrets(folder: &Path, files: &[Seen]) -> Vec<Finding> {
    let secrets: Vec<&Seen> = files.iter().filter(|(path, _)| is_secret(path)).collect();
    let identity = folder.join("identity");
    let mut findings = Vec::new();
    for (path, standing) in &secrets {
        if standing.mode & 0o077 != 0 {
            let found = format!(
                "{} has mode {:04o}: others may read it, and the agent refuses it",
                path.display(),
                standing.mode
            );
            let advice = "whoever has read the key can speak for this device: if others use this machine, enrol again";
            findings
                .push(Finding::fail(SECTION, "secrets", found).mended_by(Mend::private(path, 0o600)).advise(advice));
        }
    }
    if let Some((path, standing)) =
        files.iter().find(|(path, standing)| *path == identity && standing.mode & 0o077 != 0)
    {
        let found = format!("{} has mode {:04o}, expected 0700", path.display(), standing.mode);
        findings.push(Finding::warn(SECTION, "identity folder", found).mended_by(Mend::private(path, 0o700)));
    }
    if findings.is_empty() && !secrets.is_empty() {
        let number = tributary_process::checkup::count(secrets.len() as u64, "key", "keys");
        findings.push(Finding::ok(SECTION, "secrets", format!("{number}, for the owner alone (0600)")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use tributary_process::checkup::Mark;

    use super::*;

    const FOLDER: Standing = Standing { mode: 0o750, owner: 7, bytes: 0, is_folder: true };

    fn file(name: &str, mode: u32, owner: u32) -> Seen {
        (Path::new("/s").join(name), Standing { mode, owner, bytes: 1, is_folder: false })
    }

    #[test]
    fn modes_and_owners_are_judged() {
        let folder = |mode, user, writable| {
            let finding = judge_folder(Path::new("/s"), &Standing { mode, ..FOLDER }, Some(user), writable);
            (finding.mark(), finding.mend().map(str::to_owned))
        };
        assert_eq!(folder(0o750, 7, true), (Mark::Ok, None));
        assert_eq!(folder(0o750, 0, true), (Mark::Ok, None), "root may look");
        assert_eq!(folder(0o750, 8, false), (Mark::Warn, None));
        assert_eq!(folder(0o550, 7, false), (Mark::Fail, None));
        assert_eq!(folder(0o777, 7, true), (Mark::Fail, Some("set the mode of /s to 0755".to_owned())));

        assert!(judge_owners(&FOLDER, &[file("state.redb", 0o644, 7)]).is_none());
        let foreign = judge_owners(&FOLDER, &[file("state.redb", 0o644, 7), file("windows", 0o644, 0)]).unwrap();
        assert!(foreign.mark() == Mark::Fail && foreign.found().contains("root"), "{foreign:?}");

        let secrets = |files: &[Seen]| {
            let findings = judge_secrets(Path::new("/s"), files);
            findings.iter().map(|finding| (finding.mark(), finding.mend().is_some())).collect::<Vec<_>>()
        };
        assert_eq!(secrets(&[]), []);
        assert_eq!(secrets(&[file("identity/1/key.pem", 0o600, 7)]), [(Mark::Ok, false)]);
        assert_eq!(secrets(&[file("identity/1/key.pem", 0o640, 7)]), [(Mark::Fail, true)]);
        assert_eq!(
            secrets(&[file("identity", 0o755, 7), file("identity/pending.pem", 0o600, 7)]),
            [(Mark::Warn, true)]
        );
    }
}
