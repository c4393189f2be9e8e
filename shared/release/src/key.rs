//! Ed25519 keys: the secret one in a file only its owner reads, the public ones in a set.
//!
//! A signing-key file holds a header line and the 32-byte seed as 64 hexadecimal digits. It is no PKCS#8: the two
//! lines can be read aloud, and nothing else needs to read them. A file of verifying keys is JSON:
//! `{"keys": [{"public": "<64 hexadecimal digits>", "note": "what it is for"}]}`.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer};
use serde::{Deserialize, Serialize};

use crate::digest;

const HEADER: &str = "tributary signing key v1 (ed25519 seed, hexadecimal; keep secret)";

/// Why a key cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("key file {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than the owner may read a secret key.
    #[error("key file {path} has mode {found:o}, expected 600")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        found: u32,
    },
    /// Not what this module writes.
    #[error("key file {path}: {problem}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Not the digits of a public key.
    #[error("{found:?} is not a public key: 64 hexadecimal digits of a point on the curve")]
    Public {
        /// The text that was given, cut to 80 characters.
        found: String,
    },
}

/// Names a public key: the first eight bytes of its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A secret key. Its seed is wiped from memory when it is dropped, and never printed.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id())
    }
}

impl SigningKey {
    /// The key of 32 random bytes.
    pub fn generate(seed: [u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// Reads a key file; refuses one that others than its owner may read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let file = |source| KeyError::File { path: path.to_owned(), source };
        check_mode(path)?;
        let text = fs::read_to_string(path).map_err(file)?;
        let malformed = |problem: &str| KeyError::Malformed { path: path.to_owned(), problem: problem.to_owned() };
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err(malformed("the first line is not that of a signing key"));
        }
        let seed = lines.next().and_then(unhex::<32>);
        let seed = seed.ok_or_else(|| malformed("the second line is not a seed of 64 hexadecimal digits"))?;
        match lines.next() {
            None => Ok(Self::generate(seed)),
            Some(_) => Err(malformed("more than two lines")),
        }
    }

    /// Writes a new key file that only its owner may read. An existing file is never overwritten, and a file that is
    /// there is whole, whenever the power dies.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let draft = path.with_extension("draft");
        let write = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&draft)?;
            writeln!(file, "{HEADER}\n{}", hex(self.0.as_bytes()))?;
            file.sync_all()?;
            // Unlike a rename, a link fails where a file is.
            let linked = fs::hard_link(&draft, path);
            fs::remove_file(&draft)?;
            linked?;
            match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            }
        };
        write().map_err(|source| KeyError::File { path: path.to_owned(), source })
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }

    /// The name of the public half.
    pub fn id(&self) -> KeyId {
        self.verifying_key().id()
    }

    /// Signs these bytes as they are. What is signed must itself say what it is (a domain, or the `_type` of metadata), so
    /// that no signature can be taken for one of something else.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let file = fs::metadata(path).map_err(|source| KeyError::File { path: path.to_owned(), source })?;
    let found = file.permissions().mode() & 0o777;
    if found & 0o077 != 0 { Err(KeyError::Mode { path: path.to_owned(), found }) } else { Ok(()) }
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), KeyError> {
    Ok(())
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let wrong = || KeyError::Public { found: text.chars().take(80).collect() };
        let bytes = unhex::<32>(text).ok_or_else(wrong)?;
        ed25519_dalek::VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| wrong())
    }

    /// As 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex(self.0.as_bytes())
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        let hash = digest(self.0.as_bytes()).0;
        KeyId(std::array::from_fn(|i| hash[i]))
    }

    /// Strict: no two different signatures of the same bytes by the same key are accepted.
    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.0.verify_strict(bytes, &signature).is_ok())
    }
}

/// The public keys that a device or hub trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyingKeys(Vec<VerifyingKey>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    keys: Vec<KeyEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    public: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
}

impl VerifyingKeys {
    /// A set of keys.
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        Self(keys.into_iter().collect())
    }

    /// The key of that name.
    pub fn get(&self, id: KeyId) -> Option<&VerifyingKey> {
        self.0.iter().find(|key| key.id() == id)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &VerifyingKey> {
        self.0.iter()
    }

    /// The names of all keys.
    pub fn ids(&self) -> Vec<KeyId> {
        self.0.iter().map(VerifyingKey::id).collect()
    }

    /// The JSON form.
    pub fn to_json(&self) -> String {
        let keys = self.0.iter().map(|key| KeyEntry { public: key.to_hex(), note: String::new() }).collect();
        serde_json::to_string_pretty(&KeysFile { keys }).expect("strings always serialise")
    }

    /// Reads the JSON form; `path` is only for the error.
    pub fn from_json(text: &str, path: &Path) -> Result<Self, KeyError> {
        let malformed = |problem| KeyError::Malformed { path: path.to_owned(), problem };
        let file: KeysFile = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        if file.keys.is_empty() {
            return Err(malformed("no keys: nothing could ever be verified".to_owned()));
        }
        file.keys.iter().map(|entry| VerifyingKey::from_hex(&entry.public)).collect::<Result<_, _>>().map(Self)
    }

    /// Reads a file of verifying keys.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path).map_err(|source| KeyError::File { path: path.to_owned(), source })?;
        Self::from_json(&text, path)
    }

    /// Writes a file of verifying keys, replacing the one that is there.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        fs::write(path, self.to_json()).map_err(|source| KeyError::File { path: path.to_owned(), source })
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_key_is_private_and_loads_as_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("line.key");
        let key = SigningKey::generate([7; 32]);
        key.save(&path).unwrap();
        assert_eq!(SigningKey::load(&path).unwrap().id(), key.id());
        let other = SigningKey::generate([8; 32]);
        assert!(matches!(other.save(&path), Err(KeyError::File { .. })), "an existing key is not overwritten");
        assert_eq!(SigningKey::load(&path).unwrap().id(), key.id());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(!format!("{key:?}").contains(&hex(&[7; 32])));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("line.key");
        SigningKey::generate([7; 32]).save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(SigningKey::load(&path), Err(KeyError::Mode { found: 0o644, .. })));
    }

    #[test]
    fn a_damaged_key_file_says_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let good = format!("{HEADER}\n{}\n", hex(&[7; 32]));
        for (name, text) in [
            ("empty", ""),
            ("header", "key\nabc"),
            ("short", &good[..good.len() - 3]),
            ("long", &format!("{good}more")),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            #[cfg(unix)]
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            assert!(matches!(SigningKey::load(&path), Err(KeyError::Malformed { .. })), "{name}");
        }
        assert!(matches!(SigningKey::load(&folder.path().join("none")), Err(KeyError::File { .. })));
    }

    #[test]
    fn a_set_of_keys_survives_its_file_and_refuses_what_is_not_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trust.json");
        let one = SigningKey::generate([1; 32]).verifying_key();
        let keys = VerifyingKeys::new([one.clone(), SigningKey::generate([2; 32]).verifying_key()]);
        keys.save(&path).unwrap();
        assert_eq!(VerifyingKeys::load(&path).unwrap(), keys);
        assert_eq!(keys.get(one.id()), Some(&one));
        assert_eq!(keys.get(KeyId([0; 8])), None);
        for wrong in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"public":"zz"}]}"#, r#"{"keys":[],"more":1}"#] {
            assert!(VerifyingKeys::from_json(wrong, &path).is_err(), "{wrong}");
        }
    }
}
