//! The identity on disk.
//!
//! ```text
//! identity/
//!   current             the number of the folder that counts
//!   3/                  key.pem (0600), certificate.pem, authorities.pem, root.json (if the hub had one), hub.json
//!   pending.pem         a key (0600) that was made and waits for its certificate
//!   floor               no instant is earlier than this, in microseconds since 1970
//! ```
//!
//! A certificate and its key are written beside the old ones, whole, before `current` names them: one rename. Whenever
//! the power fails there is the old identity, or none, or the new one; and the key that a certificate was asked for is
//! on disk before it was asked for, so that asking again is asking for the same.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tributary_identity::{Certificate, CertificateError, KeyError, KeyFile, Ports};
use tributary_process::durable;
use tributary_wire::Micros;

const CURRENT: &str = "current";
const PENDING: &str = "pending.pem";
const FLOOR: &str = "floor";
const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const AUTHORITIES: &str = "authorities.pem";
const ROOT: &str = "root.json";
const HUB: &str = "hub.json";

/// Why an identity cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file or folder.
    #[error("{}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A certificate.
    #[error("{}", .path.display())]
    Certificate {
        /// In which file.
        path: PathBuf,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// A file that this program wrote holds something else.
    #[error("{}: {problem}", .path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process put another identity in place meanwhile.
    #[error("the identity in {} was changed by another process; restart this one", .path.display())]
    Changed {
        /// Which folder.
        path: PathBuf,
    },
}

/// Where the hub is, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HubFile {
    /// Name or address under which it was reached.
    pub(super) called: String,
    /// Where it listens.
    pub(super) ports: Ports,
    /// From when on to renew.
    pub(super) renew_after: Micros,
}

impl HubFile {
    /// Reads the stored form.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if read.called.is_empty() || read.ports.https == 0 {
            return Err("the hub has no name or no port".into());
        }
        Ok(read)
    }
}

/// All that belongs to one certificate.
pub(super) struct Stored {
    pub(super) key: Arc<KeyFile>,
    /// The device's own first.
    pub(super) chain: Vec<Certificate>,
    pub(super) authorities: Vec<Certificate>,
    /// The root of trust of the repository, as enrolment brought it.
    pub(super) root: Option<String>,
    pub(super) hub: HubFile,
}

/// What can go wrong with a disk, in one place, so that tests can make it go wrong.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder and all above it.
    fn folder(&self, path: &Path) -> io::Result<()>;
    /// Writes a file durably, whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8], private: bool) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Removes a file or a folder with all in it; what is not there counts as removed.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The machine's.
#[derive(Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn folder(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        // What is above it may be open to others: the state folder holds the local API's socket.
        let above = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(above)?;
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)?;
        durable::sync_folder(above)
    }

    fn write(&self, path: &Path, bytes: &[u8], private: bool) -> io::Result<()> {
        if private { durable::write_private(path, bytes) } else { durable::write(path, bytes) }
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        durable::sync_folder(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
    }
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Folder {
    /// Of an agent with this state folder.
    pub fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("identity"), disk: Arc::new(RealDisk) }
    }

    #[cfg(test)]
    pub(super) fn on(state_dir: &Path, disk: Arc<dyn Disk>) -> Self {
        Self { disk, ..Self::of(state_dir) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the certificate that counts; none before enrolment.
    pub(super) fn number(&self) -> Result<Option<u64>, FilesError> {
        let path = self.path.join(CURRENT);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FilesError::File { path, source }),
        };
        let number = text.trim().parse().map_err(|_| FilesError::Damaged { path, problem: "not a number".into() })?;
        Ok(Some(number))
    }

    /// The identity that counts, with its number.
    pub(super) fn load(&self) -> Result<Option<(u64, Stored)>, FilesError> {
        let Some(number) = self.number()? else { return Ok(None) };
        let folder = self.path.join(number.to_string());
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|source| FilesError::File { path, source })
        };
        let certificates = |name: &str| {
            let path = folder.join(name);
            Certificate::all_from_pem(&text(name)?).map_err(|source| FilesError::Certificate { path, source })
        };
        let hub = HubFile::read(text(HUB)?.as_bytes())
            .map_err(|problem| FilesError::Damaged { path: folder.join(HUB), problem })?;
        let key = KeyFile::open(&folder.join(KEY))?;
        let stored = Stored {
            key: Arc::new(key),
            chain: certificates(CERTIFICATE)?,
            authorities: certificates(AUTHORITIES)?,
            root: if folder.join(ROOT).exists() { Some(text(ROOT)?) } else { None },
            hub,
        };
        Ok(Some((number, stored)))
    }

    /// A key that waits for its certificate, unless it is that of `current`, whose certificate came.
    pub(super) fn pending(&self, current: Option<&KeyFile>) -> Result<Option<KeyFile>, FilesError> {
        let path = self.path.join(PENDING);
        if !path.exists() {
            return Ok(None);
        }
        let key = KeyFile::open(&path)?;
        Ok(Some(key).filter(|key| current.is_none_or(|current| current.to_pem() != key.to_pem())))
    }

    /// The key that waits, or a new one that is durable before anybody hears of it.
    pub(super) fn new_key(&self, current: Option<&KeyFile>) -> Result<KeyFile, FilesError> {
        if let Some(key) = self.pending(current)? {
            return Ok(key);
        }
        let key = KeyFile::generate()?;
        self.folder(&self.path)?;
        self.write(&self.path.join(PENDING), key.to_pem().as_bytes(), true)?;
        Ok(key)
    }

    /// Puts an identity in the place of the one with the number `instead_of`; its own number.
    pub(super) fn keep(&self, instead_of: Option<u64>, stored: &Stored) -> Result<u64, FilesError> {
        self.folder(&self.path)?;
        let _lock = self.lock()?;
        if self.number()? != instead_of {
            return Err(FilesError::Changed { path: self.path.clone() });
        }
        let number = instead_of.map_or(1, |number| number.saturating_add(1));
        let folder = self.path.join(number.to_string());
        // Left by a crash before the switch, if it is there.
        self.remove(&folder)?;
        self.folder(&folder)?;
        let pem = |all: &[Certificate]| all.iter().map(Certificate::to_pem).collect::<String>();
        let hub = serde_json::to_string_pretty(&stored.hub).expect("plain data always serialises");
        self.write(&folder.join(KEY), stored.key.to_pem().as_bytes(), true)?;
        self.write(&folder.join(CERTIFICATE), pem(&stored.chain).as_bytes(), false)?;
        self.write(&folder.join(AUTHORITIES), pem(&stored.authorities).as_bytes(), false)?;
        if let Some(root) = &stored.root {
            self.write(&folder.join(ROOT), root.as_bytes(), false)?;
        }
        self.write(&folder.join(HUB), hub.as_bytes(), false)?;
        // The folder's own name must be there before anything names it.
        self.disk.sync(&self.path).map_err(|source| FilesError::File { path: self.path.clone(), source })?;
        self.write(&self.path.join(CURRENT), number.to_string().as_bytes(), false)?;
        // From here on the new one counts; what is left over does no harm.
        let old = instead_of.map(|old| self.path.join(old.to_string()));
        for path in old.into_iter().chain([self.path.join(PENDING)]) {
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(%error, path = %path.display(), "a file of an old identity stays");
            }
        }
        Ok(number)
    }

    /// The stored floor of time; the beginning of time when there is none.
    pub(super) fn floor(&self) -> Micros {
        let text = fs::read_to_string(self.path.join(FLOOR)).unwrap_or_default();
        Micros(text.trim().parse().unwrap_or(0))
    }

    pub(super) fn keep_floor(&self, floor: Micros) -> Result<(), FilesError> {
        self.folder(&self.path)?;
        self.write(&self.path.join(FLOOR), floor.0.to_string().as_bytes(), false)
    }

    /// One process at a time changes it.
    fn lock(&self) -> Result<fs::File, FilesError> {
        let path = self.path.join("lock");
        let locked = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let locked = locked.and_then(|file| file.lock().map(|()| file));
        locked.map_err(|source| FilesError::File { path, source })
    }

    fn folder(&self, path: &Path) -> Result<(), FilesError> {
        self.disk.folder(path).map_err(|source| FilesError::File { path: path.to_owned(), source })
    }

    fn write(&self, path: &Path, bytes: &[u8], private: bool) -> Result<(), FilesError> {
        self.disk.write(path, bytes, private).map_err(|source| FilesError::File { path: path.to_owned(), source })
    }

    fn remove(&self, path: &Path) -> Result<(), FilesError> {
        self.disk.remove(path).map_err(|source| FilesError::File { path: path.to_owned(), source })
    }
}
