//! `repository`: the signed repository as a tree of files that any web server can hand to devices.

mod listing;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use hyper::StatusCode;
use serde_json::json;
use tributary_process::durable;
use tributary_release::{Hasher, sha256_file};
use tributary_wire::Sha256;

use super::{Failure, Remote};
use listing::{Content, Index, Meta, Mismatch, Patch, inside, listed, parse, same, targets};

/// Largest metadata file that is read.
const MAX_METADATA: u64 = 16 << 20;

/// The signed repository
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cloud-hub repository export /srv/mirror     write or renew a mirror

Run it again, say every hour, before the timestamp expires: devices refuse to begin
installations from a mirror that stands still for longer.")]
pub enum Repository {
    /// Write the repository into a folder for a web server: a mirror
    Export {
        /// The folder; what it holds already is kept and not fetched again
        folder: PathBuf,
        /// Also hash the packages that are there already
        #[arg(long)]
        check: bool,
    },
}

impl Repository {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        let Self::Export { folder, check } = self;
        let mut export = Export { remote, folder: folder.clone(), check, files: 0, bytes: 0, kept: 0 };
        let version = export.run().await?;
        let Export { files, bytes, kept, .. } = export;
        let folder = folder.display();
        let answer = json!({"timestamp": version, "files": files, "bytes": bytes, "kept": kept});
        let sentence = format!("{folder} is at timestamp {version}: {files} files ({bytes} bytes) new, {kept} kept");
        remote.done(&answer, &sentence);
        Ok(())
    }
}

struct Export<'a> {
    remote: &'a Remote,
    folder: PathBuf,
    check: bool,
    files: u64,
    bytes: u64,
    kept: u64,
}

impl Export<'_> {
    /// Whatever a file names is there before the file itself, and the timestamp, which leads to everything, comes last: a
    /// device that fetches from the mirror meanwhile, or after a crash, sees the old state or the new one, whole.
    async fn run(&mut self) -> Result<u64, Failure> {
        let timestamp = self.small("metadata/timestamp.json").await?;
        let newest = parse("metadata/timestamp.json", &timestamp)?;
        let version = newest["signed"]["version"].as_u64().unwrap_or_default();
        self.refuse_going_back(version)?;
        let listed_by_it = listed("metadata/timestamp.json", &newest)?;
        let snapshot = listed_by_it.into_iter().find(|(name, _)| name == "snapshot.json");
        let (_, snapshot) = snapshot.context("the hub's timestamp names no snapshot")?;
        let path = format!("metadata/{}.snapshot.json", snapshot.version);
        let bytes = self.named(&path, &snapshot).await?;
        let roles = listed(&path, &parse(&path, &bytes)?)?;
        let mut metadata = vec![(path, bytes)];
        for (name, meta) in roles {
            let path = format!("metadata/{}.{}", meta.version, name.replace('/', "%2F"));
            let bytes = self.named(&path, &meta).await?;
            for content in targets(&path, &parse(&path, &bytes)?)? {
                self.fetch(&content).await?;
                if content.path.starts_with("targets/models/") {
                    self.patches(&content.sha256).await?;
                }
            }
            if name.contains('/') {
                // Some web servers look for the name as it stands in the address, others decode it first.
                metadata.push((format!("metadata/{}.{name}", meta.version), bytes.clone()));
            }
            metadata.push((path, bytes));
        }
        self.roots().await?;
        for (path, bytes) in metadata.into_iter().rev() {
            self.write(&path, &bytes)?;
        }
        self.write("metadata/timestamp.json", &timestamp)?;
        Ok(version)
    }

    /// A mirror never goes back: devices that know the newer state would refuse it.
    fn refuse_going_back(&self, version: u64) -> Result<(), Failure> {
        let path = self.folder.join("metadata/timestamp.json");
        let Ok(bytes) = std::fs::read(&path) else { return Ok(()) };
        let known = parse("timestamp", &bytes).ok().and_then(|known| known["signed"]["version"].as_u64());
        match known {
            Some(known) if known > version => Err(Failure::Other(anyhow::anyhow!(
                "{} has timestamp {known}, the hub has {version}: it was restored from a backup, or is another hub",
                self.folder.display()
            ))),
            _ => Ok(()),
        }
    }

    /// All roots: every device walks from the one that it pinned to the newest.
    async fn roots(&mut self) -> Result<(), Failure> {
        for version in 1.. {
            let path = format!("metadata/{version}.root.json");
            if self.folder.join(&path).exists() {
                self.kept += 1;
                continue;
            }
            let Some(bytes) = self.optional(&path).await? else { return Ok(()) };
            self.write(&path, &bytes)?;
        }
        Ok(())
    }

    /// Patches are not signed, the package that they lead to is: a missing or wrong one costs a device only time. The hub
    /// makes and removes them meanwhile, so one that is gone or new ends nothing.
    async fn patches(&mut self, to: &Sha256) -> Result<(), Failure> {
        let gone = |failure: &Failure| match failure {
            Failure::Call(error) => error.status() == Some(StatusCode::NOT_FOUND),
            Failure::Other(error) => error.is::<Mismatch>(),
            _ => false,
        };
        match self.patches_now(to).await {
            Err(failure) if gone(&failure) => match self.patches_now(to).await {
                Err(failure) if gone(&failure) => {
                    eprintln!("patches to {to} change just now; they are left for the next export");
                    Ok(())
                }
                other => other,
            },
            other => other,
        }
    }

    async fn patches_now(&mut self, to: &Sha256) -> Result<(), Failure> {
        let path = format!("patches/{to}/index.json");
        let Some(bytes) = self.optional(&path).await? else { return Ok(()) };
        let index: Index = serde_json::from_slice(&bytes).with_context(|| format!("the hub's {path}"))?;
        for Patch { from, format, length, sha256 } in index.patches {
            let from = from.map_or("full".to_owned(), |from| from.to_string());
            if !format.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return Err(anyhow::anyhow!("{path} names a format {format:?}").into());
            }
            self.fetch(&Content { path: format!("patches/{to}/{from}.{format}"), length: Some(length), sha256 })
                .await?;
        }
        self.write(&path, &bytes)
    }

    async fn small(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let mut download = self.remote.download(&format!("/repository/{path}")).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = download.chunk().await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > MAX_METADATA {
                return Err(anyhow::anyhow!("the hub's {path} is longer than {MAX_METADATA} bytes").into());
            }
        }
        Ok(bytes)
    }

    async fn optional(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        match self.small(path).await {
            Err(Failure::Call(error)) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            other => other.map(Some),
        }
    }

    async fn named(&self, path: &str, meta: &Meta) -> Result<Vec<u8>, Failure> {
        let bytes = self.small(path).await?;
        let (length, sha256) = (bytes.len() as u64, tributary_release::digest(&bytes));
        same(path, (meta.length, meta.hashes.sha256), (length, sha256))?;
        Ok(bytes)
    }

    /// Fetches a large file, unless it is there.
    async fn fetch(&mut self, content: &Content) -> Result<(), Failure> {
        let path = self.folder.join(inside(&content.path)?);
        if let Ok(file) = std::fs::metadata(&path) {
            let length = content.length.is_none_or(|length| length == file.len());
            if length && (!self.check || sha256_file(&path).is_ok_and(|(_, sha256)| sha256 == content.sha256)) {
                self.kept += 1;
                return Ok(());
            }
        }
        let folder = path.parent().context("a file lies in a folder")?;
        make_folder(folder)?;
        let part = folder.join(format!(".{}.part", content.sha256));
        let within = || format!("could not write {}", part.display());
        let mut file = File::create(&part).with_context(within)?;
        let (mut hasher, mut length) = (Hasher::default(), 0);
        let mut download = self.remote.download(&format!("/repository/{}", content.path)).await?;
        while let Some(piece) = download.chunk().await? {
            file.write_all(&piece).with_context(within)?;
            hasher.update(&piece);
            length += piece.len() as u64;
        }
        same(&content.path, (content.length.unwrap_or(length), content.sha256), (length, hasher.finish()))?;
        file.sync_all().with_context(within)?;
        std::fs::rename(&part, &path).with_context(within)?;
        durable::sync_folder(folder).with_context(within)?;
        self.files += 1;
        self.bytes += length;
        Ok(())
    }

    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
        let to = self.folder.join(inside(path)?);
        if std::fs::read(&to).is_ok_and(|known| known == bytes) {
            self.kept += 1;
            return Ok(());
        }
        make_folder(to.parent().context("a file lies in a folder")?)?;
        durable::write(&to, bytes).with_context(|| format!("could not write {}", to.display()))?;
        self.files += 1;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Makes a folder whose name, and those above it, survive a power cut.
fn make_folder(folder: &Path) -> Result<(), Failure> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.is_dir()).collect();
    for folder in missing.into_iter().rev() {
        let made =
            std::fs::create_dir_all(folder).and_then(|()| durable::sync_folder(folder.parent().unwrap_or(folder)));
        made.with_context(|| format!("could not create {}", folder.display()))?;
    }
    Ok(())
}
