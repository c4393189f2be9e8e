//! Signing, putting signatures of several machines together, and whether they suffice.

use sigstore_tuf::RoleKeys;
use tributary_release::SigningKey;

use super::document::{Document, Signed};
use super::{PublicKey, RoleError, RoleName, Signers, header, key_id, read_root, read_targets};

/// Adds the signatures of these keys; a key's older signature is replaced. Whether anybody asks for them is
/// [`verify`]'s question.
pub fn sign(bytes: &[u8], keys: &[SigningKey]) -> Result<Vec<u8>, RoleError> {
    let mut document = Document::read(bytes)?;
    for key in keys {
        let name = key_id(&key.verifying_key());
        let signature = key.sign(&document.message).iter().map(|byte| format!("{byte:02x}")).collect();
        document.signatures.retain(|(known, _)| *known != name);
        document.signatures.push((name, signature));
    }
    document.write()
}

/// One file with the signatures of both, which must be the same but for them.
pub fn merge(one: &[u8], other: &[u8]) -> Result<Vec<u8>, RoleError> {
    let (mut document, more) = (Document::read(one)?, Document::read(other)?);
    if document.message != more.message {
        let header = document.header;
        let problem = format!("the two files of {} {} differ in more than signatures", header.role, header.version);
        return Err(RoleError::Malformed(problem));
    }
    for signature in more.signatures {
        if !document.signatures.iter().any(|(known, _)| *known == signature.0) {
            document.signatures.push(signature);
        }
    }
    document.write()
}

/// Who may sign a role, as the file above it says: root for the top-level roles, targets for delegated ones.
pub fn listed(delegator: &[u8], role: &RoleName) -> Result<Signers, RoleError> {
    if let RoleName::Delegated(name) = role {
        let targets = read_targets(delegator)?;
        let found = targets.delegations.into_iter().find(|delegation| delegation.role == *name);
        let unlisted = RoleError::Unlisted { role: role.clone(), by: format!("targets {}", targets.version) };
        return found.map(|delegation| delegation.signers).ok_or(unlisted);
    }
    let root = read_root(delegator)?;
    Ok(match role {
        RoleName::Root => root.root,
        RoleName::Targets => root.targets,
        RoleName::Snapshot => root.snapshot,
        RoleName::Timestamp | RoleName::Delegated(_) => root.timestamp,
    })
}

/// How far the signing of a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// How many signatures it needs.
    pub threshold: u64,
    /// Whose signatures are there and right.
    pub signed: Vec<PublicKey>,
    /// Who could sign yet.
    pub missing: Vec<PublicKey>,
    /// Names of listed keys whose signatures are wrong: a damaged file, or a forged one.
    pub wrong: Vec<String>,
}

impl Progress {
    /// Whether the signatures suffice.
    pub fn complete(&self) -> bool {
        self.signed.len() as u64 >= self.threshold
    }
}

/// How far the signing of a file is, by the keys that `delegator` lists. Signatures of other keys do not count.
pub fn progress(delegator: &[u8], role: &RoleName, bytes: &[u8]) -> Result<Progress, RoleError> {
    let Signers { keys, threshold } = listed(delegator, role)?;
    let document = Document::read(bytes)?;
    let mut progress = Progress { threshold, signed: Vec::new(), missing: Vec::new(), wrong: Vec::new() };
    for key in keys {
        let name = key.id();
        match document.signatures.iter().find(|(known, _)| *known == name) {
            Some((_, signature)) if key.key.verify(&document.message, &unhex(signature)) => progress.signed.push(key),
            Some(_) => {
                progress.wrong.push(name);
                progress.missing.push(key);
            }
            None => progress.missing.push(key),
        }
    }
    Ok(progress)
}

/// Accepts a file of `role` that enough of the keys have signed that `delegator` lists. A root has to satisfy the root
/// before it (the delegator) and itself; for the first one both are the same. Versions, expiry and what else is in the
/// repository are the caller's to compare.
pub fn verify(delegator: &[u8], role: &RoleName, bytes: &[u8]) -> Result<(), RoleError> {
    let header = header(bytes)?;
    if header.role != *role {
        return Err(RoleError::Kind { expected: role.to_string(), found: header.role.to_string() });
    }
    // Also sees that it says nothing that devices could not follow.
    match role {
        RoleName::Root => drop(read_root(bytes)?),
        RoleName::Targets | RoleName::Delegated(_) => drop(read_targets(bytes)?),
        RoleName::Snapshot | RoleName::Timestamp => {}
    }
    let own = (*role == RoleName::Root).then_some(bytes);
    for delegator in [Some(delegator), own].into_iter().flatten() {
        let progress = progress(delegator, role, bytes)?;
        if !progress.complete() {
            let by = super::header(delegator)?;
            return Err(RoleError::Threshold {
                role: role.clone(),
                version: header.version,
                by: format!("{} {}", by.role, by.version),
                needed: progress.threshold,
                found: progress.signed.len(),
                missing: progress.missing.iter().map(PublicKey::to_string).collect::<Vec<_>>().join(", "),
            });
        }
        as_devices_do(delegator, role, bytes)?;
    }
    Ok(())
}

/// The last word has the verifier of the devices.
fn as_devices_do(delegator: &[u8], role: &RoleName, bytes: &[u8]) -> Result<(), RoleError> {
    let (above, below) = (Document::read(delegator)?, Document::read(bytes)?);
    let (keys, listed): (_, Option<RoleKeys>) = match (&above.signed, role) {
        (Signed::Root(root), role) => (&root.signed().keys, root.signed().role(role.as_str()).cloned()),
        (Signed::Targets(targets), RoleName::Delegated(name)) => match &targets.signed().delegations {
            Some(found) => {
                let role = found.roles.iter().find(|role| role.name == *name);
                (&found.keys, role.map(|role| role.role_keys()))
            }
            None => return Err(unlisted(&above, role)),
        },
        _ => return Err(unlisted(&above, role)),
    };
    let Some(listed) = listed else { return Err(unlisted(&above, role)) };
    let verified = match &below.signed {
        Signed::Root(metadata) => metadata.verify_threshold(keys, &listed, role.as_str()),
        Signed::Targets(metadata) => metadata.verify_threshold(keys, &listed, role.as_str()),
        Signed::Snapshot(metadata) => metadata.verify_threshold(keys, &listed, role.as_str()),
        Signed::Timestamp(metadata) => metadata.verify_threshold(keys, &listed, role.as_str()),
    };
    Ok(verified?)
}

fn unlisted(delegator: &Document, role: &RoleName) -> RoleError {
    let by = format!("{} {}", delegator.header.role, delegator.header.version);
    RoleError::Unlisted { role: role.clone(), by }
}

/// Bytes of hexadecimal digits; nothing for what is none, which no signature is.
fn unhex(text: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let whole = text.len().is_multiple_of(2) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if whole { text.as_bytes().chunks_exact(2).filter_map(byte).collect() } else { Vec::new() }
}
