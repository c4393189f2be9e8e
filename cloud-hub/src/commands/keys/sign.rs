//! `keys sign` and `keys show`: on a machine with nothing but files and a key.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use tributary_process::{durable, outln};
use tributary_wire::Micros;

use super::super::Failure;
use super::super::show;
use super::files::{Carried, read, read_secret};
use crate::publish::roles::{self, Progress, PublicKey, RoleName};

/// Says what the file changes, adds signatures, says what is missing.
pub(super) fn sign(file: &Path, keys: &[PathBuf], with: &[PathBuf], json: bool) -> Result<(), Failure> {
    let mut carried = Carried::read(file)?;
    let above = carried.delegators()?;
    let mut secrets = Vec::new();
    for path in keys {
        let secret = read_secret(path)?;
        let public = secret.verifying_key();
        let mut listed = above.iter().map(|above| roles::listed(&above.bytes, &carried.header.role));
        // Without the file above nobody here knows who may sign; the hub will.
        let may = above.is_empty() || listed.any(|listed| listed.is_ok_and(|listed| listed.has(&public)));
        if !may {
            let problem = format!(
                "key {:.8} in {} may not sign {}: {}",
                roles::key_id(&public),
                path.display(),
                carried.header.role,
                who_may(&carried, &above)?
            );
            return Err(anyhow!(problem).into());
        }
        secrets.push(secret);
    }
    let mut bytes = carried.bytes.clone();
    for other in with {
        bytes = roles::merge(&bytes, &read(other)?)
            .with_context(|| format!("{} and {}", file.display(), other.display()))?;
    }
    bytes = roles::sign(&bytes, &secrets).with_context(|| file.display().to_string())?;
    durable::write(file, &bytes).with_context(|| format!("write {}", file.display()))?;
    carried = Carried::read(file)?;
    tell(&carried, json)
}

/// Says what the file changes and who has signed it.
pub(super) fn show(file: &Path, json: bool) -> Result<(), Failure> {
    tell(&Carried::read(file)?, json)
}

fn who_may(carried: &Carried, above: &[Carried]) -> Result<String, Failure> {
    let mut sentences = Vec::new();
    for above in above {
        let listed = roles::listed(&above.bytes, &carried.header.role).context("who may sign it")?;
        sentences.push(format!("{} {} lists {}", above.header.role, above.header.version, names(&listed.keys)));
    }
    Ok(sentences.join("; "))
}

pub(super) fn names(keys: &[PublicKey]) -> String {
    if keys.is_empty() {
        return "nobody".to_owned();
    }
    keys.iter().map(PublicKey::to_string).collect::<Vec<_>>().join(", ")
}

/// How far the signing is, by one file above.
pub(super) struct Count {
    by: String,
    pub progress: Progress,
}

/// How far the signing is, by each of the files that say who may.
pub(super) fn counts(carried: &Carried) -> Result<Vec<Count>, Failure> {
    let mut counts: Vec<Count> = Vec::new();
    for above in carried.delegators()? {
        let progress = roles::progress(&above.bytes, &carried.header.role, &carried.bytes);
        let progress = progress.with_context(|| above.path.display().to_string())?;
        // A root that lists the same keys as the one before it asks for nothing else.
        if counts.iter().all(|count| count.progress != progress) {
            counts.push(Count { by: format!("{} {}", above.header.role, above.header.version), progress });
        }
    }
    Ok(counts)
}

/// What a person needs to know before and after signing.
pub(super) fn tell(carried: &Carried, json: bool) -> Result<(), Failure> {
    let header = &carried.header;
    let previous = carried.previous()?;
    let changes = roles::describe(previous.as_ref().map(|previous| previous.bytes.as_slice()), &carried.bytes);
    let changes = changes.with_context(|| carried.path.display().to_string())?;
    let counts = counts(carried)?;
    let complete = !counts.is_empty() && counts.iter().all(|count| count.progress.complete());
    if json {
        outln!("{:#}", as_json(carried, &changes, &counts, complete));
        return Ok(());
    }
    let against = match &previous {
        Some(previous) => format!("compared with version {}", previous.header.version),
        None if header.version == 1 => "the first version".to_owned(),
        None => format!("all that it says; version {} is not beside it", header.version - 1),
    };
    outln!("{} version {}, {against}:", header.role, header.version);
    for change in &changes {
        outln!("  - {}", show::plain(change, |_| ' '));
    }
    if header.expires <= crate::catalog::now() {
        let but =
            if header.role == RoleName::Root { ", unless it is sent together with the root after it" } else { "" };
        outln!("It has expired, by this machine's clock; the hub would refuse it{but}.");
    }
    if counts.is_empty() {
        outln!("{} signatures. Who may sign stands in a file that is not beside it.", header.signed_by.len());
        return Ok(());
    }
    for Count { by, progress } in &counts {
        let (signed, needed) = (progress.signed.len() as u64, progress.threshold);
        let signatures = if needed == 1 { "1 signature".to_owned() } else { format!("{needed} signatures") };
        outln!("By {by} it needs {signatures}; it has {signed}: {}.", names(&progress.signed));
        for key in &progress.wrong {
            outln!("  The signature of key {key:.8} is wrong: the file was changed after it was signed.");
        }
        if !progress.complete() {
            outln!("  {} more, from {}.", needed - signed, names(&progress.missing));
        }
    }
    let file = carried.path.display();
    match complete {
        true => outln!("It is complete: cloud-hub keys apply {file}"),
        false => outln!("It is not complete: carry {file} and what lies beside it to the next holder of a key."),
    }
    Ok(())
}

fn as_json(carried: &Carried, changes: &[String], counts: &[Count], complete: bool) -> Value {
    let key = |key: &PublicKey| json!({"id": key.id(), "holder": key.holder});
    let count = |count: &Count| {
        let Progress { threshold, signed, missing, wrong } = &count.progress;
        json!({
            "by": count.by, "threshold": threshold, "wrong": wrong,
            "signed": signed.iter().map(key).collect::<Vec<_>>(),
            "missing": missing.iter().map(key).collect::<Vec<_>>(),
        })
    };
    let expires: Micros = carried.header.expires;
    json!({
        "file": carried.path, "role": carried.header.role.as_str(), "version": carried.header.version,
        "expires": expires, "changes": changes, "complete": complete,
        "signatures": counts.iter().map(count).collect::<Vec<_>>(),
    })
}
