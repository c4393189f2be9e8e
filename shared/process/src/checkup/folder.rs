//! A program's folder: whose it is, who may read what, and whether secrets are secret.

use std::path::{Path, PathBuf};

use super::host::{self, Standing};
use super::words::count;
use super::{Finding, Mend};

/// What to look at, and how it is called.
#[derive(Debug, Clone, Copy)]
pub struct FolderRules {
    /// Section of the findings.
    pub section: &'static str,
    /// Name of the folder for people, such as `state folder`.
    pub name: &'static str,
    /// The setting that names it.
    pub setting: &'static str,
    /// Who works in it, such as `agent`.
    pub program: &'static str,
    /// Files that only their owner may read.
    pub is_secret: fn(&Path) -> bool,
    /// A folder right in it that only its owner may enter.
    pub private: &'static str,
}

/// Files that are looked at, at most; there are a few dozen.
const MOST: usize = 10_000;

/// A path with what is known of it.
type Seen = (PathBuf, Standing);

/// Looks at a folder and all in it.
pub fn folder(rules: &FolderRules, folder: &Path) -> Vec<Finding> {
    let FolderRules { section, name, setting, program, .. } = *rules;
    let there = match host::standing(folder) {
        Ok(standing) if standing.is_folder => standing,
        Ok(_) => {
            let found = format!("{} is a file", folder.display());
            return vec![Finding::fail(section, name, found).advise(format!("name a folder in `{setting}`"))];
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let found = format!("{} is not there; the {program} makes it at its first start", folder.display());
            let above = host::nearest_folder(folder);
            return vec![if host::may_write(&above) {
                Finding::ok(section, name, found)
            } else {
                let advice =
                    format!("make it, and give it to the {program}'s user: {} cannot be written", above.display());
                Finding::fail(section, name, found).advise(advice)
            }];
        }
        Err(error) => {
            let advice = format!("run the doctor as the user that the {program} runs as");
            return vec![Finding::fail(section, name, format!("{}: {error}", folder.display())).advise(advice)];
        }
    };
    let mut files = Vec::new();
    walk(folder, &mut files);
    let mut findings = vec![judge_folder(rules, folder, &there, host::user(), host::may_write(folder))];
    findings.extend(judge_owners(rules, &there, &files));
    findings.extend(judge_secrets(rules, folder, &files));
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

fn judge_folder(rules: &FolderRules, path: &Path, standing: &Standing, user: Option<u32>, writable: bool) -> Finding {
    let found = format!("{}, mode {:04o}, of {}", path.display(), standing.mode, host::user_name(standing.owner));
    let foreign = user.is_some_and(|user| user != standing.owner);
    if standing.mode & 0o002 != 0 {
        let found = format!("{found}: everybody may write to it");
        return Finding::fail(rules.section, rules.name, found).mended_by(Mend::private(path, standing.mode & !0o022));
    }
    match (writable, foreign) {
        (false, true) => {
            let user = host::user_name(user.unwrap_or_default());
            Finding::warn(rules.section, rules.name, format!("{found}; this is {user}, who may not write there"))
                .advise(format!("run the doctor, and the {}, as its owner", rules.program))
        }
        (false, false) => Finding::fail(rules.section, rules.name, format!("{found}: it cannot be written"))
            .advise(format!("chmod u+rwx {}", path.display())),
        _ => Finding::ok(rules.section, rules.name, found),
    }
}

/// A program that was once started as another user leaves files that it cannot open later.
fn judge_owners(rules: &FolderRules, folder: &Standing, files: &[Seen]) -> Option<Finding> {
    let foreign: Vec<&Seen> = files.iter().filter(|(_, standing)| standing.owner != folder.owner).collect();
    let (_, standing) = foreign.first()?;
    let (owner, other, program) = (host::user_name(folder.owner), host::user_name(standing.owner), rules.program);
    let what = count(foreign.len() as u64, "file belongs", "files belong");
    let found = format!("{what} to {other}, the folder to {owner}: was the {program} once started as another user?");
    let advice = format!("as root: chown -R {} on the {}", folder.owner, rules.name);
    let names = foreign.iter().map(|(path, _)| path.display().to_string());
    Some(Finding::fail(rules.section, "owners", found).advise(advice).with_details(names))
}

fn judge_secrets(rules: &FolderRules, folder: &Path, files: &[Seen]) -> Vec<Finding> {
    let secrets: Vec<&Seen> = files.iter().filter(|(path, _)| (rules.is_secret)(path)).collect();
    let private = folder.join(rules.private);
    let mut findings = Vec::new();
    for (path, standing) in &secrets {
        if standing.mode & 0o077 != 0 {
            let found = format!("{} has mode {:04o}: others may read it", path.display(), standing.mode);
            let advice = "whoever has read it can use it: if others use this machine, replace it as well";
            let finding = Finding::fail(rules.section, "secrets", found);
            findings.push(finding.mended_by(Mend::private(path, 0o600)).advise(advice));
        }
    }
    if let Some((path, standing)) = files.iter().find(|(path, standing)| *path == private && standing.mode & 0o077 != 0)
    {
        let found = format!("{} has mode {:04o}, expected 0700", path.display(), standing.mode);
        let finding = Finding::warn(rules.section, format!("{} folder", rules.private), found);
        findings.push(finding.mended_by(Mend::private(path, 0o700)));
    }
    if findings.is_empty() && !secrets.is_empty() {
        let number = count(secrets.len() as u64, "file", "files");
        findings.push(Finding::ok(rules.section, "secrets", format!("{number}, for the owner alone (0600)")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::Mark;

    const FOLDER: Standing = Standing { mode: 0o750, owner: 7, bytes: 0, is_folder: true };
    const RULES: FolderRules = FolderRules {
        section: "Folder",
        name: "state folder",
        setting: "state_dir",
        program: "agent",
        is_secret: |path| path.extension().is_some_and(|ending| ending == "pem"),
        private: "identity",
    };

    fn file(name: &str, mode: u32, owner: u32) -> Seen {
        (Path::new("/s").join(name), Standing { mode, owner, bytes: 1, is_folder: false })
    }

    #[test]
    fn modes_and_owners_are_judged() {
        let folder = |mode, user, writable| {
            let finding = judge_folder(&RULES, Path::new("/s"), &Standing { mode, ..FOLDER }, Some(user), writable);
            (finding.mark(), finding.mend().map(str::to_owned))
        };
        assert_eq!(folder(0o750, 7, true), (Mark::Ok, None));
        assert_eq!(folder(0o750, 0, true), (Mark::Ok, None), "root may look");
        assert_eq!(folder(0o750, 8, false), (Mark::Warn, None));
        assert_eq!(folder(0o550, 7, false), (Mark::Fail, None));
        assert_eq!(folder(0o777, 7, true), (Mark::Fail, Some("set the mode of /s to 0755".to_owned())));

        assert!(judge_owners(&RULES, &FOLDER, &[file("state.redb", 0o644, 7)]).is_none());
        let files = [file("state.redb", 0o644, 7), file("windows", 0o644, 0)];
        let foreign = judge_owners(&RULES, &FOLDER, &files).unwrap();
        assert!(foreign.mark() == Mark::Fail && foreign.found().contains("root"), "{foreign:?}");

        let secrets = |files: &[Seen]| {
            let findings = judge_secrets(&RULES, Path::new("/s"), files);
            findings.iter().map(|finding| (finding.mark(), finding.mend().is_some())).collect::<Vec<_>>()
        };
        assert_eq!(secrets(&[]), []);
        assert_eq!(secrets(&[file("identity/1/key.pem", 0o600, 7)]), [(Mark::Ok, false)]);
        assert_eq!(secrets(&[file("identity/1/key.pem", 0o640, 7)]), [(Mark::Fail, true)]);
        let open = [file("identity", 0o755, 7), file("identity/a.pem", 0o600, 7)];
        assert_eq!(secrets(&open), [(Mark::Warn, true)]);
    }
}
