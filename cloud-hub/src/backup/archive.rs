//! The file: a tar in one zstd frame, so that `tar --zstd -tf` shows it. The manifest comes first and names length and
//! hash of everything after it; the frame ends with a checksum over all.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256 as Hasher};
use tributary_wire::Sha256;

use super::BackupError;
use super::manifest::{FORMAT, MANIFEST, Manifest, Member, VERSION, is_plain};

/// Level of compression: the catalog shrinks well at any, packages at none.
const LEVEL: i32 = 3;
/// Longest manifest that is read: some hundred thousand members.
const MANIFEST_BYTES: u64 = 64 << 20;

/// Where a member's content is.
#[derive(Debug)]
pub(super) enum Source {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// Reads on, and hashes and counts what it reads.
struct Hashing<R> {
    from: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> Hashing<R> {
    fn new(from: R) -> Self {
        Self { from, hasher: Hasher::new(), bytes: 0 }
    }

    fn end(self) -> (u64, Sha256) {
        (self.bytes, Sha256(self.hasher.finalize().into()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Length and hash of all that can be read.
pub(super) fn digest(from: impl Read) -> io::Result<(u64, Sha256)> {
    let mut hashing = Hashing::new(from);
    io::copy(&mut hashing, &mut io::sink())?;
    Ok(hashing.end())
}

fn header(path: &str, length: u64, seconds: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path)?;
    header.set_size(length);
    // There are keys inside: whoever unpacks it with tar gets files that nobody else reads.
    header.set_mode(0o600);
    header.set_mtime(seconds);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

/// Writes a whole backup into an open file and syncs it. `sources` go with the members of the manifest, one for one;
/// what is not (or no longer) what the manifest says of it is an error.
pub(super) fn write(
    manifest: &Manifest,
    sources: &[Source],
    path: &Path,
    mut out: File,
    mut each: impl FnMut(&Member) -> Result<(), BackupError>,
) -> Result<u64, BackupError> {
    let failed = || BackupError::file("write", path);
    let seconds = (manifest.made.0 / 1_000_000).max(0) as u64;
    let mut encoder = zstd::Encoder::new(BufWriter::new(&mut out), LEVEL).map_err(failed())?;
    encoder.include_checksum(true).map_err(failed())?;
    let mut tar = tar::Builder::new(encoder);
    let first = serde_json::to_vec_pretty(manifest).map_err(io::Error::from).map_err(failed())?;
    let head = header(MANIFEST, first.len() as u64, seconds).map_err(failed())?;
    tar.append(&head, &*first).map_err(failed())?;
    for (member, source) in manifest.members.iter().zip(sources) {
        each(member)?;
        let head = header(&member.path, member.length, seconds).map_err(failed())?;
        let (from, name): (Box<dyn Read>, PathBuf) = match source {
            Source::Bytes(bytes) => (Box::new(&**bytes), member.path.clone().into()),
            Source::File(file) => (Box::new(File::open(file).map_err(BackupError::file("read", file))?), file.clone()),
        };
        let mut hashing = Hashing::new(from.take(member.length));
        tar.append(&head, &mut hashing).map_err(failed())?;
        let (_, found) = hashing.end();
        if found != member.sha256 {
            return Err(BackupError::Damaged { path: name, found, expected: member.sha256 });
        }
    }
    let mut buffered = tar.into_inner().and_then(zstd::Encoder::finish).map_err(failed())?;
    buffered.flush().map_err(failed())?;
    drop(buffered);
    out.sync_all().map_err(failed())?;
    Ok(out.metadata().map_err(failed())?.len())
}

/// What is done with a member while it is read; what it leaves unread is read (and hashed) after it.
pub(super) type Take<'a> = dyn FnMut(&Member, &mut dyn Read) -> Result<(), BackupError> + 'a;

/// Reads the manifest of a backup and nothing else.
pub(super) fn manifest(path: &Path) -> Result<Manifest, BackupError> {
    let mut tar = tar::Archive::new(open(path)?);
    let mut entries = tar.entries().map_err(|error| wrong(path, MANIFEST, error))?;
    first(path, &mut entries)
}

/// Reads a whole backup. Every member is as long as the manifest says and has the hash that it says, they come in its
/// order, and there is nothing else; the first that is not so is named. What `take` was given is known to be right only
/// when this returns.
pub(super) fn read(path: &Path, take: &mut Take<'_>) -> Result<Manifest, BackupError> {
    let mut tar = tar::Archive::new(open(path)?);
    let mut entries = tar.entries().map_err(|error| wrong(path, MANIFEST, error))?;
    let manifest = first(path, &mut entries)?;
    for member in &manifest.members {
        let wrong = |problem: String| wrong(path, &member.path, problem);
        let ends = |error: io::Error| wrong(format!("the file is cut off or damaged there ({error})"));
        let Some(entry) = entries.next() else { return Err(wrong("it is missing: the file ends before it".into())) };
        let entry = entry.map_err(ends)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if name != member.path {
            return Err(wrong(format!("expected here, found {:?}", name.chars().take(100).collect::<String>())));
        }
        if entry.size() != member.length {
            return Err(wrong(format!("it has {} bytes, the manifest says {}", entry.size(), member.length)));
        }
        let mut hashing = Hashing::new(entry);
        take(member, &mut hashing)?;
        io::copy(&mut hashing, &mut io::sink()).map_err(ends)?;
        let (bytes, found) = hashing.end();
        if bytes != member.length {
            return Err(wrong(format!("it ends after {bytes} of {} bytes", member.length)));
        }
        if found != member.sha256 {
            return Err(wrong(format!("its hash is {found}, the manifest says {}", member.sha256)));
        }
    }
    match entries.next() {
        None => {}
        Some(Ok(more)) => {
            let name = String::from_utf8_lossy(&more.path_bytes()).chars().take(100).collect::<String>();
            return Err(wrong(path, &name, "the manifest does not name it".to_owned()));
        }
        Some(Err(error)) => return Err(wrong(path, "its end", error)),
    }
    // The checksum of the frame stands at its end.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(|error| wrong(path, "its end", error))?;
    Ok(manifest)
}

type Decoder = zstd::Decoder<'static, BufReader<File>>;

fn open(path: &Path) -> Result<Decoder, BackupError> {
    let file = File::open(path).map_err(BackupError::file("open", path))?;
    zstd::Decoder::new(file).map_err(BackupError::file("read", path))
}

fn wrong(path: &Path, member: &str, problem: impl ToString) -> BackupError {
    BackupError::Member { path: path.to_owned(), member: member.to_owned(), problem: problem.to_string() }
}

fn first(path: &Path, entries: &mut tar::Entries<'_, Decoder>) -> Result<Manifest, BackupError> {
    let wrong = |problem: String| wrong(path, MANIFEST, problem);
    let entry = entries.next().ok_or_else(|| wrong("the file is empty".into()))?;
    let entry = entry.map_err(|error| wrong(format!("expected a tar in a zstd frame ({error})")))?;
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    if name != MANIFEST {
        return Err(wrong("expected as the first member; this is another kind of archive".into()));
    }
    if entry.size() > MANIFEST_BYTES {
        return Err(wrong(format!("it has {} bytes, expected at most {MANIFEST_BYTES}", entry.size())));
    }
    let mut text = Vec::new();
    let mut entry = entry;
    entry.read_to_end(&mut text).map_err(|error| wrong(format!("the file is cut off or damaged there ({error})")))?;
    // The form first: what a newer program wrote may not read as ours.
    let form: serde_json::Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if form["format"] != FORMAT {
        return Err(wrong(format!("its format is {}, expected {FORMAT:?}", form["format"])));
    }
    let found = form["version"].as_i64().unwrap_or(i64::MAX);
    if found > i64::from(VERSION) {
        return Err(BackupError::Newer { path: path.to_owned(), what: "form", found, known: VERSION.into() });
    }
    let manifest: Manifest = serde_json::from_value(form).map_err(|error| wrong(error.to_string()))?;
    match manifest.members.iter().find(|member| !is_plain(&member.path)) {
        Some(member) => Err(wrong(format!("it names {:?}, which leads out of the folder", member.path))),
        None => Ok(manifest),
    }
}
