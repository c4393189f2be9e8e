//! `keys init`: a repository from nothing, with safe defaults for a small fleet.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::{Value, json};
use tributary_process::config::HumanDuration;
use tributary_process::{durable, outln};
use tributary_release::{SigningKey, VerifyingKey, line_role};
use tributary_wire::{LineName, Micros};

use super::super::{Failure, Remote};
use super::files::{Carried, read_public, save_key};
use super::{apply, sign};
use crate::publish::ceremony::{self, ASSIGNMENTS, HUB, Online, random_seed};
use crate::publish::roles::{self, Delegation, PublicKey, RoleName, Signers};

/// Make all keys of a new repository, and give the hub its first root and targets
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloud-hub keys init --out my-keys --line card-fraud
  cloud-hub keys init --out my-keys --line card-fraud --attended credit

With keys that were made elsewhere (`keys new`) nothing secret is made here, and
the files wait in DIR to be signed:
  cloud-hub keys init --out carry --line card-fraud \\
    --root-key alice.key.pub --root-key bob.key.pub --root-key cleo.key.pub \\
    --targets-key office.key.pub")]
pub struct Init {
    /// New folder for keys and signed files
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A model line whose releases the hub signs by itself (unattended)
    #[arg(long = "line", value_name = "LINE")]
    lines: Vec<String>,
    /// A model line whose releases a person signs (attended), with a key made here
    #[arg(long, value_name = "LINE")]
    attended: Vec<String>,
    /// How many root keys are made
    #[arg(long, default_value_t = 3, value_name = "N", conflicts_with = "root_keys")]
    roots: usize,
    /// How many root keys have to sign
    #[arg(long, default_value_t = 2, value_name = "N")]
    threshold: u64,
    /// A root key that somebody else holds (FILE.pub); may be given several times
    #[arg(long = "root-key", value_name = "FILE")]
    root_keys: Vec<PathBuf>,
    /// The targets key that somebody else holds (FILE.pub)
    #[arg(long, value_name = "FILE")]
    targets_key: Option<PathBuf>,
    /// How long root and targets are good
    #[arg(long, default_value = "365d", value_name = "TIME")]
    life: HumanDuration,
}

/// A key that was made here: its file, and where it belongs.
struct Made {
    file: String,
    key: SigningKey,
    advice: &'static str,
}

const ROOT: &str = "its own person or place: on paper, or a stick in a safe";
const TARGETS: &str = "whoever adds lines; not on the hub";
const LINE: &str = "whoever approves releases of this line; not on the hub";

impl Init {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        let expires = until(self.life)?;
        if remote.get("/signing").await?["roles"].as_array().is_some_and(|roles| !roles.is_empty()) {
            let problem = "this hub has a signed repository already; see `cloud-hub keys status`, and change it with \
                           `cloud-hub keys draft`";
            return Err(Failure::Usage(problem.to_owned()));
        }
        let mut made = Vec::new();
        let root = match self.root_keys.as_slice() {
            [] => (1..=self.roots).map(|number| make(&mut made, &format!("root-{number}"), ROOT)).collect(),
            given => given.iter().map(|file| read_public(file)).collect::<Result<Vec<_>, _>>(),
        }?;
        let targets = match &self.targets_key {
            None => make(&mut made, "targets", TARGETS)?,
            Some(file) => read_public(file)?,
        };
        let mut lines = Vec::new();
        for line in &self.attended {
            let name = line_name(line)?;
            lines.push(ceremony::line(&name, [make(&mut made, &format!("line-{name}"), LINE)?]));
        }
        for line in &self.lines {
            let name = line_name(line)?;
            lines.push(ceremony::line(&name, [hub_key(remote, &line_role(&name), false).await?]));
        }
        let online = Online {
            snapshot: hub_key(remote, "snapshot", false).await?,
            timestamp: hub_key(remote, "timestamp", false).await?,
            assignment: hub_key(remote, ASSIGNMENTS, false).await?,
        };
        let root = Signers { keys: root, threshold: self.threshold };
        let (root, content) = ceremony::first(root, Signers::any_of([targets]), &online, lines, expires)
            .context("the first root and targets")?;
        // Nothing was written before everything was sure to fit.
        new_folder(&self.out)?;
        for Made { file, key, .. } in &made {
            save_key(&self.out.join(file), key, file.trim_end_matches(".key"))?;
        }
        let keys: Vec<SigningKey> = made.iter().map(|made| made.key.clone()).collect();
        let files = [
            put(&self.out, &root, &listed(&root, &keys, &RoleName::Root, &root)?)?,
            put(&self.out, &content, &listed(&root, &keys, &RoleName::Targets, &content)?)?,
        ];
        for file in &files {
            let counts = sign::counts(file)?;
            if !counts.iter().all(|count| count.progress.complete()) {
                return waits(remote, &self.out, &files, &made);
            }
        }
        apply::send(remote, &[&files[0].bytes, &files[1].bytes], false).await.inspect_err(|_| {
            let (root, targets) = (files[0].path.display(), files[1].path.display());
            eprintln!("The keys are kept. To give the files to the hub again: cloud-hub keys apply {root} {targets}");
        })?;
        read_back(remote, &files).await?;
        told(remote, &self, &files, &made)
    }
}

fn make(made: &mut Vec<Made>, name: &str, advice: &'static str) -> Result<PublicKey, Failure> {
    let key = SigningKey::generate(random_seed()?);
    let public = PublicKey::new(key.verifying_key(), name);
    made.push(Made { file: format!("{name}.key"), key, advice });
    Ok(public)
}

/// Until when a file is good that is signed now.
pub(super) fn until(life: HumanDuration) -> Result<Micros, Failure> {
    ceremony::expiry(crate::catalog::now(), life.0).map_err(|error| Failure::Usage(format!("--life: {error}")))
}

pub(super) fn line_name(line: &str) -> Result<LineName, Failure> {
    LineName::new(line).map_err(|error| Failure::Usage(error.to_string()))
}

/// A public key of the hub; it makes one if it has none, or a further one when asked.
pub(super) async fn hub_key(remote: &Remote, role: &str, further: bool) -> Result<PublicKey, Failure> {
    let answer = remote.post("/signing/keys", &json!({ "role": role, "further": further })).await?;
    let key = VerifyingKey::from_hex(answer["public"].as_str().unwrap_or_default());
    Ok(PublicKey::new(key.context("the hub's answer has no key")?, HUB))
}

fn new_folder(folder: &Path) -> Result<(), Failure> {
    let within = || format!("the folder {}", folder.display());
    std::fs::create_dir_all(folder).with_context(within)?;
    if std::fs::read_dir(folder).with_context(within)?.next().is_some() {
        let problem = format!("{} is not empty; name a new folder for the keys", within());
        return Err(Failure::Usage(problem));
    }
    Ok(())
}

/// A file with the signatures of those keys that may sign it.
fn listed(root: &[u8], keys: &[SigningKey], role: &RoleName, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let listed = roles::listed(root, role).context("who may sign")?;
    let keys: Vec<SigningKey> = keys.iter().filter(|key| listed.has(&key.verifying_key())).cloned().collect();
    Ok(roles::sign(bytes, &keys).context("sign")?)
}

fn put(folder: &Path, unsigned: &[u8], signed: &[u8]) -> Result<Carried, Failure> {
    let header = roles::header(unsigned).context("what was written")?;
    let path = folder.join(header.role.file_name(header.version));
    durable::write(&path, signed).with_context(|| format!("write {}", path.display()))?;
    Carried::read(&path)
}

/// Believes nothing: what the hub serves now is what was signed here, and what it signed is accepted by it.
async fn read_back(remote: &Remote, files: &[Carried; 2]) -> Result<(), Failure> {
    for file in files {
        let found = fetch(remote, &file.header.role, file.header.version).await?;
        if found != file.bytes {
            let problem = format!("the hub serves another {} {} than was sent", file.header.role, file.header.version);
            return Err(anyhow!(problem).into());
        }
    }
    let roles = remote.get("/signing").await?;
    for role in [RoleName::Snapshot, RoleName::Timestamp] {
        let row = roles["roles"].as_array().into_iter().flatten().find(|row| row["role"] == role.as_str());
        let version = row.and_then(|row| row["version"].as_u64()).unwrap_or_default();
        let bytes = fetch(remote, &role, version).await?;
        roles::verify(&files[0].bytes, &role, &bytes).with_context(|| format!("the hub's {role}"))?;
    }
    Ok(())
}

/// A file of the repository, exactly as devices get it.
pub(super) async fn fetch(remote: &Remote, role: &RoleName, version: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    remote.save(&format!("/repository/metadata/{}", role.file_name(version)), &mut bytes).await?;
    Ok(bytes)
}

fn told(remote: &Remote, init: &Init, files: &[Carried; 2], made: &[Made]) -> Result<(), Failure> {
    if remote.json() {
        remote.show(&as_json(&init.out, files, made, true)?);
        return Ok(());
    }
    let delegations = roles::read_targets(&files[1].bytes).context("the targets")?.delegations;
    outln!("The hub has its signed repository; what it serves was read back and verified.");
    outln!("Root 1: {} signatures, good until {}. Targets 1 delegates", needed(&files[0])?, files[0].header.expires);
    let width = delegations.iter().map(|delegation| delegation.role.len()).max().unwrap_or_default();
    for Delegation { role, signers } in &delegations {
        outln!("  {role:width$}  to {}", sign::names(&signers.keys));
    }
    keep(&init.out, made);
    for warning in warnings(&files[0])? {
        outln!("Warning: {warning}");
    }
    outln!("Devices that enrol from now on believe this root. What expires when: cloud-hub keys status");
    Ok(())
}

fn needed(root: &Carried) -> Result<String, Failure> {
    let root = roles::listed(&root.bytes, &RoleName::Root).context("the root")?;
    Ok(format!("{} of {}", root.threshold, root.keys.len()))
}

/// What is risky about the keys of a root.
fn warnings(root: &Carried) -> Result<Vec<String>, Failure> {
    let Signers { keys, threshold } = roles::listed(&root.bytes, &RoleName::Root).context("the root")?;
    let mut warnings = Vec::new();
    if threshold == 1 {
        warnings.push(
            "whoever steals a single root key can replace every other key of every device; 2 of 3 is safer: cloud-hub \
             keys draft root --add root=FILE --threshold root=2 --out DIR"
                .to_owned(),
        );
    }
    if threshold == keys.len() as u64 {
        warnings.push(
            "all root keys have to sign, so once one is lost nobody can change the root, and every device has to be \
             given a new one by hand; keep more keys than have to sign"
                .to_owned(),
        );
    }
    Ok(warnings)
}

/// Says where every key belongs.
fn keep(folder: &Path, made: &[Made]) {
    if made.is_empty() {
        return;
    }
    outln!("Secret keys lie in {}. Take them apart now, and keep a copy of each:", folder.display());
    let width = made.iter().map(|made| made.file.len()).max().unwrap_or_default();
    for Made { file, advice, .. } in made {
        outln!("  {file:width$}  for {advice}");
    }
}

/// Keys of other people have to sign: the files wait.
fn waits(remote: &Remote, folder: &Path, files: &[Carried; 2], made: &[Made]) -> Result<(), Failure> {
    if remote.json() {
        remote.show(&as_json(folder, files, made, false)?);
        return Ok(());
    }
    keep(folder, made);
    for warning in warnings(&files[0])? {
        outln!("Warning: {warning}");
    }
    outln!("The first root and targets wait in {} for signatures:", folder.display());
    for file in files {
        sign::tell(file, false)?;
    }
    let (root, targets) = (files[0].path.display(), files[1].path.display());
    outln!("When both are complete: cloud-hub keys apply {root} {targets}");
    Ok(())
}

fn as_json(folder: &Path, files: &[Carried; 2], made: &[Made], applied: bool) -> Result<Value, Failure> {
    let keys: Vec<Value> = made
        .iter()
        .map(|made| {
            let id = roles::key_id(&made.key.verifying_key());
            json!({ "file": folder.join(&made.file), "id": id, "for": made.advice })
        })
        .collect();
    let warnings = warnings(&files[0])?;
    let files = files.iter().map(|file| &file.path).collect::<Vec<_>>();
    Ok(json!({ "keys": keys, "files": files, "applied": applied, "warnings": warnings }))
}
