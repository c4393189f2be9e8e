//! The byte form: parsing, the canonical form that signatures cover, writing. Parsed with the verifier of the devices,
//! so that hub and devices see the same signed bytes.

use serde_json::{Value, json};
use sigstore_tuf::{Metadata, Role, Root, Snapshot, Targets, Timestamp};
use tributary_release::chain::ChainLimits;
use tributary_wire::Micros;

use super::{RoleError, RoleName, SPECIFICATION};

/// Nothing larger is looked at; what devices take of a role is less.
pub const MAX_BYTES: usize = 8 << 20;
/// Where a delegated role names itself.
pub(super) const ROLE: &str = "x-tributary-role";
/// Where the holders of keys stand, by key id.
pub(super) const HOLDERS: &str = "x-tributary-holders";

/// What every file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Which role.
    pub role: RoleName,
    /// Which version of it.
    pub version: u64,
    /// Until when it is good.
    pub expires: Micros,
    /// The names of the keys whose signatures stand below it; nothing is said about whether they are right.
    pub signed_by: Vec<String>,
}

impl Header {
    /// Devices take no larger file of this role: they would refuse all that it says.
    fn fits(&self, found: usize) -> Result<(), RoleError> {
        let most = ChainLimits::DEVICES.of_role(self.role.as_str());
        let (role, version, found) = (self.role.clone(), self.version, found as u64);
        if found <= most { Ok(()) } else { Err(RoleError::Large { role, version, found, most }) }
    }
}

/// What a file says about itself. No signature is checked.
pub fn header(bytes: &[u8]) -> Result<Header, RoleError> {
    Document::read(bytes).map(|document| document.header)
}

/// A file whose bytes could be read.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub header: Header,
    pub signed: Signed,
    /// The signed part as JSON.
    pub value: Value,
    /// The bytes that signatures cover.
    pub message: Vec<u8>,
    /// Name of the key and signature, both in hexadecimal.
    pub signatures: Vec<(String, String)>,
}

/// A file as the verifier sees it.
#[derive(Debug, Clone)]
pub(super) enum Signed {
    Root(Metadata<Root>),
    Targets(Metadata<Targets>),
    Snapshot(Metadata<Snapshot>),
    Timestamp(Metadata<Timestamp>),
}

impl Document {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, RoleError> {
        if bytes.len() > MAX_BYTES {
            return Err(RoleError::Size { found: bytes.len() });
        }
        let mut file: Value = serde_json::from_slice(bytes)?;
        // Not by index: that panics on what is no object.
        let value = file.get_mut("signed").map(Value::take).unwrap_or_default();
        let own_name = value[ROLE].as_str().map(RoleName::from_own_name).transpose()?;
        let kind = value["_type"].as_str().unwrap_or_default();
        let (role, signed) = match (kind, own_name) {
            ("root", None) => (RoleName::Root, Signed::Root(Metadata::from_slice(bytes)?)),
            ("targets", None) => (RoleName::Targets, Signed::Targets(Metadata::from_slice(bytes)?)),
            ("targets", Some(role)) => (role, Signed::Targets(Metadata::from_slice(bytes)?)),
            ("snapshot", None) => (RoleName::Snapshot, Signed::Snapshot(Metadata::from_slice(bytes)?)),
            ("timestamp", None) => (RoleName::Timestamp, Signed::Timestamp(Metadata::from_slice(bytes)?)),
            (other, _) => {
                let found = format!("{:?}", other.chars().take(40).collect::<String>());
                return Err(RoleError::Kind { expected: "a root, targets, snapshot or timestamp".to_owned(), found });
            }
        };
        if value["spec_version"] != SPECIFICATION {
            let problem = format!("{role} follows another version of the specification than {SPECIFICATION}");
            return Err(RoleError::Malformed(problem));
        }
        let (version, expires, message, mut signatures) = match &signed {
            Signed::Root(metadata) => parts(metadata),
            Signed::Targets(metadata) => parts(metadata),
            Signed::Snapshot(metadata) => parts(metadata),
            Signed::Timestamp(metadata) => parts(metadata),
        };
        signatures.sort_unstable();
        if signatures.windows(2).any(|two| two[0].0 == two[1].0) {
            return Err(RoleError::Malformed(format!("{role} has two signatures of one key")));
        }
        if version == 0 {
            return Err(RoleError::Malformed(format!("{role} has version 0; the first one is 1")));
        }
        let signed_by = signatures.iter().map(|(key, _)| key.clone()).collect();
        let header = Header { role, version, expires, signed_by };
        header.fits(bytes.len())?;
        Ok(Self { header, signed, value, message, signatures })
    }

    /// Always the same bytes for the same content and the same signatures, whoever signed first.
    pub(super) fn write(&self) -> Result<Vec<u8>, RoleError> {
        let mut sorted: Vec<_> = self.signatures.iter().collect();
        sorted.sort_unstable();
        let signatures: Vec<Value> = sorted.iter().map(|(key, sig)| json!({"keyid": key, "sig": sig})).collect();
        let mut file = json!({ "signatures": signatures, "signed": self.value });
        file.sort_all_objects();
        let mut bytes = serde_json::to_vec(&file)?;
        bytes.push(b'\n');
        self.header.fits(bytes.len())?;
        Ok(bytes)
    }
}

/// A file without signatures. What cannot be read back is never written.
pub(super) fn unsigned(signed: &Value) -> Result<Vec<u8>, RoleError> {
    let bytes = serde_json::to_vec(&json!({ "signatures": [], "signed": signed }))?;
    Document::read(&bytes)?.write()
}

type Parts = (u64, Micros, Vec<u8>, Vec<(String, String)>);

fn parts<T: Role>(metadata: &Metadata<T>) -> Parts {
    let signatures = metadata.signatures().iter();
    (
        metadata.signed().version(),
        Micros(metadata.signed().expires().as_microsecond()),
        metadata.signed_canonical().to_vec(),
        signatures.map(|signature| (signature.keyid.clone(), signature.sig.clone())).collect(),
    )
}

impl RoleName {
    /// Only delegated roles name themselves.
    fn from_own_name(name: &str) -> Result<Self, RoleError> {
        match name.parse()? {
            role @ Self::Delegated(_) => Ok(role),
            other => Err(RoleError::Malformed(format!("{other} is not a delegated role"))),
        }
    }
}
