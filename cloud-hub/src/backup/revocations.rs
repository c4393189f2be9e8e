//! What was taken back after the backup, made again: from an export of the audit log, or from a list of names.

use std::path::Path;

use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_wire::{DeviceId, Micros};

use super::BackupError;
use super::manifest::Head;
use crate::audit::{self, Change, Claim, Verifier, export};

/// Who loses a right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Revocation {
    /// All certificates of a device.
    Device(DeviceId),
    /// An API token, by its id.
    Token(String),
    /// A token to enrol with, by its id.
    Enrolment(String),
}

/// Why certificates and tokens are revoked here.
const REASON: &str = "revoked after the backup that this hub was restored from";

/// Reads a file whose lines are either entries of an export, or ids: `edge-7`, `token:k7m2pq9x`,
/// `enrolment-token:k7m2pq9x`. An export has to be whole, and to go on where the backup's log ends.
pub(super) fn read(path: &Path, head: Head) -> Result<Vec<Revocation>, BackupError> {
    let text = std::fs::read_to_string(path).map_err(BackupError::file("read", path))?;
    let wrong = |line, problem: String| BackupError::Revocations { path: path.to_owned(), line, problem };
    let mut found = Vec::new();
    let mut verifier: Option<Verifier> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.starts_with('{') {
            found.push(named(line).map_err(|problem| wrong(number, problem))?);
            continue;
        }
        let entry = export::read(line).map_err(|error| wrong(number, format!("no entry of an export: {error}")))?;
        let verifier = verifier.get_or_insert_with(|| {
            // An export from the beginning must hold what the backup knows; a later part can only begin after it.
            let claim = Claim { number: Some(head.number), hash: head.hash };
            Verifier::new(entry.number - 1, (entry.number <= head.number).then_some(claim))
        });
        let first = entry.number == head.number + 1;
        if first && entry.previous != head.hash {
            return Err(wrong(number, format!("entry {} was not written after the backup's last", entry.number)));
        }
        if !verifier.take(&entry) {
            break;
        }
        if entry.number > head.number {
            found.extend(of_entry(&entry.draft.action, &entry.draft.subject));
        }
    }
    let finding = verifier.and_then(|verifier| verifier.finish().finding);
    match finding {
        Some(finding) => Err(wrong(0, format!("the export is not whole: {}", finding.problem))),
        None => Ok(found),
    }
}

fn named(line: &str) -> Result<Revocation, String> {
    match line.split_once(':') {
        Some(("token", id)) => Ok(Revocation::Token(id.to_owned())),
        Some(("enrolment-token", id)) => Ok(Revocation::Enrolment(id.to_owned())),
        Some((kind, _)) => Err(format!("{kind:?} is neither \"token\" nor \"enrolment-token\"")),
        None => DeviceId::new(line).map(Revocation::Device).map_err(|error| error.to_string()),
    }
}

fn of_entry(action: &str, subject: &str) -> Option<Revocation> {
    match action {
        "device.revoke" => DeviceId::new(subject).ok().map(Revocation::Device),
        "access.revoke" => Some(Revocation::Token(subject.to_owned())),
        "enrolment-token.revoke" => Some(Revocation::Enrolment(subject.to_owned())),
        _ => None,
    }
}

/// Makes them again; how many had not been made yet. A device that the backup does not know has nothing that counts.
pub(super) async fn carry_out(
    write: &mut SqliteConnection,
    revocations: &[Revocation],
    now: Micros,
) -> Result<u64, sqlx::Error> {
    let mut done = 0;
    for revocation in revocations {
        let (query, action, subject) = match revocation {
            Revocation::Device(device) => (
                "update certificates set revoked = $2, reason = $3 where device = $1 and revoked is null",
                "device.revoke",
                device.as_str(),
            ),
            Revocation::Token(id) => (
                "update api_tokens set revoked = $2 where id = $1 and revoked is null and $3 <> ''",
                "access.revoke",
                id.as_str(),
            ),
            Revocation::Enrolment(id) => (
                "update enrolment_tokens set revoked = $2 where id = $1 and revoked is null and $3 <> ''",
                "enrolment-token.revoke",
                id.as_str(),
            ),
        };
        let changed = sqlx::query(query).bind(subject).bind(now.0).bind(REASON).execute(&mut *write).await?;
        if changed.rows_affected() > 0 {
            done += 1;
            let change = Change { action, subject, from: Value::Null, to: json!({"reason": REASON}) };
            audit::record(write, change, now).await?;
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_wire::Sha256;

    #[test]
    fn a_list_of_names_is_read_and_what_is_none_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked");
        let head = Head { number: 3, hash: Sha256([1; 32]) };
        std::fs::write(&path, "# after the fire\nedge-7\n\ntoken:k7m2\nenrolment-token:x\n").unwrap();
        let expected = [
            Revocation::Device(DeviceId::new("edge-7").unwrap()),
            Revocation::Token("k7m2".into()),
            Revocation::Enrolment("x".into()),
        ];
        assert_eq!(read(&path, head).unwrap(), expected);
        for (text, words) in
            [("edge-7\nEdge 8\n", "line 2"), ("person:eve", "neither"), ("{\"number\": 4}", "no entry of an export")]
        {
            std::fs::write(&path, text).unwrap();
            assert!(read(&path, head).unwrap_err().to_string().contains(words), "{text}");
        }
    }
}
