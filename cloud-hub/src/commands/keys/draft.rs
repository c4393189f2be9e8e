//! `keys draft` and `keys line`: the next version of what people sign.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::Value;
use tributary_process::config::HumanDuration;
use tributary_process::durable;
use tributary_release::{line_role, sha256_file};
use tributary_wire::Micros;

use super::super::{Failure, Remote};
use super::files::{Carried, read_public, read_secret};
use super::init::{fetch, hub_key, line_name, until};
use super::{apply, sign};
use crate::publish::ceremony::{ASSIGNMENTS, Change, next_role, next_root, next_targets, role_of};
use crate::publish::roles::{self, PublicKey, RoleName, RootContent, Target, TargetsContent};

/// Write the next version of a file that people sign, unsigned
#[derive(Debug, Args)]
#[command(after_help = "\
ROLE is root, targets, agent, nodes, features or the name of a line. Root lists
the keys of root, targets, snapshot and timestamp; targets lists those of
assignments, agent, nodes, features and the lines. KEY is the start of a key's
name or its holder, as `keys status` shows them.

Examples:
  cloud-hub keys draft root --out carry \\
    --add root=dora.key.pub --remove root=alice           another custodian
  cloud-hub keys draft root --out carry \\
    --replace office=office-2.key.pub                     the targets key leaked
  cloud-hub keys draft targets --out carry --renew assignments
  cloud-hub keys draft targets --out carry --line returns --drop old-line
  cloud-hub keys draft targets --out carry --attended credit=erik.key.pub
  cloud-hub keys draft credit --out carry     all releases of an attended line
  cloud-hub keys draft nodes --out carry --file nodes/press/v3.img=press.img")]
pub struct Draft {
    /// Which file
    role: String,
    /// Folder for the draft and what it is compared with; carry all of it
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long the next version is good
    #[arg(long, default_value = "365d", value_name = "TIME")]
    life: HumanDuration,
    /// root, targets: a key that may sign a role from now on
    #[arg(long, value_name = "ROLE=FILE")]
    add: Vec<String>,
    /// root, targets: a key that may no longer sign a role
    #[arg(long, value_name = "ROLE=KEY")]
    remove: Vec<String>,
    /// root, targets: a key in place of another one, in every role of the file
    #[arg(long, value_name = "KEY=FILE")]
    replace: Vec<String>,
    /// root, targets: how many signatures a role needs
    #[arg(long, value_name = "ROLE=N")]
    threshold: Vec<String>,
    /// root, targets: snapshot, timestamp, assignments or a line gets a new key of the hub instead of all that it has
    #[arg(long, value_name = "ROLE")]
    renew: Vec<String>,
    /// targets: a line whose releases the hub signs by itself
    #[arg(long, value_name = "LINE")]
    line: Vec<String>,
    /// targets: a line whose releases a person signs, with this key
    #[arg(long, value_name = "LINE=FILE")]
    attended: Vec<String>,
    /// targets: a role that is no longer delegated
    #[arg(long, value_name = "ROLE")]
    drop: Vec<String>,
    /// agent, nodes, features: a file and its path in the repository
    #[arg(long, value_name = "PATH=FILE")]
    file: Vec<String>,
    /// lines, agent, nodes, features: a file that devices shall no longer install
    #[arg(long, value_name = "PATH")]
    withdraw: Vec<String>,
}

/// What is in force at the hub.
struct Current {
    root: Vec<u8>,
    targets: Vec<u8>,
    roles: Value,
}

impl Current {
    async fn read(remote: &Remote) -> Result<Self, Failure> {
        let mut roles = remote.get("/signing").await?;
        let roles = roles["roles"].take();
        let (Some(root), Some(targets)) = (version(&roles, "root"), version(&roles, "targets")) else {
            let problem = "this hub has no signed repository yet; make one with `cloud-hub keys init --out DIR`";
            return Err(Failure::Usage(problem.to_owned()));
        };
        let root = fetch(remote, &RoleName::Root, root).await?;
        let targets = fetch(remote, &RoleName::Targets, targets).await?;
        Ok(Self { root, targets, roles })
    }

    fn root(&self) -> Result<RootContent, Failure> {
        Ok(roles::read_root(&self.root).context("the hub's root")?)
    }

    fn targets(&self) -> Result<TargetsContent, Failure> {
        Ok(roles::read_targets(&self.targets).context("the hub's targets")?)
    }
}

fn version(roles: &Value, role: &str) -> Option<u64> {
    roles.as_array().into_iter().flatten().find(|row| row["role"] == role)?["version"].as_u64()
}

fn pair(option: &str) -> Result<(String, &str), Failure> {
    let wrong = || Failure::Usage(format!("{option:?} is not of the form NAME=VALUE"));
    option.split_once('=').map(|(name, value)| (name.to_owned(), value)).ok_or_else(wrong)
}

impl Draft {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        let current = Current::read(remote).await?;
        let expires = until(self.life)?;
        let (bytes, above) = match self.role.as_str() {
            "root" | "targets" => {
                self.refuse(&[("--file", &self.file), ("--withdraw", &self.withdraw)])?;
                (self.offline(remote, &current, expires).await?, vec![&current.root, &current.targets])
            }
            _ => {
                let key_options = [("--add", &self.add), ("--remove", &self.remove), ("--threshold", &self.threshold)];
                let more = [("--replace", &self.replace), ("--renew", &self.renew), ("--line", &self.line)];
                let rest = [("--attended", &self.attended), ("--drop", &self.drop)];
                self.refuse(&[&key_options[..], &more, &rest].concat())?;
                (self.delegated(remote, &current, expires).await?, vec![&current.targets, &current.root])
            }
        };
        let header = roles::header(&bytes).context("the draft")?;
        std::fs::create_dir_all(&self.out).with_context(|| format!("make the folder {}", self.out.display()))?;
        for file in above {
            keep(&self.out, file)?;
        }
        if let (RoleName::Delegated(_), before @ 1..) = (&header.role, header.version - 1) {
            keep(&self.out, &fetch(remote, &header.role, before).await?)?;
        }
        let path = self.out.join(header.role.file_name(header.version));
        if path.exists() {
            let problem = "is there already, perhaps with signatures; remove it or name another folder";
            return Err(anyhow!("{} {problem}", path.display()).into());
        }
        durable::write(&path, &bytes).with_context(|| format!("write {}", path.display()))?;
        sign::tell(&Carried::read(&path)?, remote.json())
    }

    fn refuse(&self, options: &[(&str, &Vec<String>)]) -> Result<(), Failure> {
        match options.iter().find(|(_, given)| !given.is_empty()) {
            None => Ok(()),
            Some((option, _)) => Err(Failure::Usage(format!("{option} is nothing that {} says", self.role))),
        }
    }

    async fn offline(&self, remote: &Remote, current: &Current, expires: Micros) -> Result<Vec<u8>, Failure> {
        let mut change = Change { drop: self.drop.clone(), ..Change::default() };
        for option in &self.add {
            let (role, file) = pair(option)?;
            change.add.push((role, read_public(Path::new(file))?));
        }
        for option in &self.remove {
            let (role, key) = pair(option)?;
            change.remove.push((role, key.to_owned()));
        }
        for option in &self.replace {
            let (old, file) = pair(option)?;
            change.replace.push((old, read_public(Path::new(file))?));
        }
        for option in &self.threshold {
            let (role, number) = pair(option)?;
            let number = number.parse().map_err(|_| Failure::Usage(format!("{option:?}: {number:?} is no number")))?;
            change.threshold.push((role, number));
        }
        let (root, targets) = (current.root()?, current.targets()?);
        for name in &self.renew {
            let role = if self.role == "root" { Some(name.clone()) } else { role_of(name) };
            let role = role.ok_or_else(|| Failure::Usage(format!("{name:?} is no role")))?;
            replace(&mut change, &listed(&root, &targets, &role), &role, hub_key(remote, &role, true).await?);
        }
        for line in &self.line {
            let role = line_role(&line_name(line)?);
            replace(&mut change, &listed(&root, &targets, &role), &role, hub_key(remote, &role, false).await?);
        }
        for option in &self.attended {
            let (line, file) = pair(option)?;
            let role = line_role(&line_name(&line)?);
            replace(&mut change, &listed(&root, &targets, &role), &role, read_public(Path::new(file))?);
        }
        if self.role == "root" {
            let next = next_root(&root, &change, expires).map_err(|error| Failure::Usage(error.to_string()))?;
            return Ok(roles::build_root(&next).context("the next root")?);
        }
        let next = next_targets(&targets, &change, expires).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(roles::build_targets(&RoleName::Targets, &next).context("the next targets")?)
    }

    async fn delegated(&self, remote: &Remote, current: &Current, expires: Micros) -> Result<Vec<u8>, Failure> {
        let role = role_of(&self.role).filter(|role| role != ASSIGNMENTS);
        let role = role.ok_or_else(|| Failure::Usage(format!("{:?} is no role with a file", self.role)))?;
        let name: RoleName = role.parse().map_err(|error: roles::RoleError| Failure::Usage(error.to_string()))?;
        if !current.targets()?.delegations.iter().any(|delegation| delegation.role == role) {
            let problem = format!("the targets do not delegate to {role}; see `cloud-hub keys draft targets --help`");
            return Err(Failure::Usage(problem));
        }
        let mut add = Vec::new();
        for option in &self.file {
            let (path, file) = pair(option)?;
            let (length, sha256) = sha256_file(Path::new(file)).with_context(|| format!("could not read {file}"))?;
            add.push(Target { path, length, sha256, custom: None });
        }
        let usage = |error: crate::publish::ceremony::ChangeError| Failure::Usage(error.to_string());
        let next = match role.strip_prefix("models/") {
            Some(line) => {
                self.refuse(&[("--file", &self.file)])?;
                let mut draft = Vec::new();
                remote.save(&format!("/signing/lines/{line}/draft?life={}", self.life), &mut draft).await?;
                let mut draft = roles::read_targets(&draft).context("the hub's draft")?;
                // What the hub drafted is the next version already.
                draft.version -= 1;
                next_role(Some(&draft), add, &self.withdraw, expires).map_err(usage)?
            }
            None => {
                let old = match version(&current.roles, &role) {
                    Some(version) => Some(fetch(remote, &name, version).await?),
                    None => None,
                };
                let old = old.map(|old| roles::read_targets(&old)).transpose().context("the version in force")?;
                next_role(old.as_ref(), add, &self.withdraw, expires).map_err(usage)?
            }
        };
        Ok(roles::build_targets(&name, &next).with_context(|| format!("the next {role}"))?)
    }
}

/// The keys that a role has now.
fn listed(root: &RootContent, targets: &TargetsContent, role: &str) -> Vec<PublicKey> {
    let keys = match role {
        "snapshot" => Some(root.snapshot.keys.clone()),
        "timestamp" => Some(root.timestamp.keys.clone()),
        ASSIGNMENTS => targets.targets.iter().find_map(|target| target.listed_keys().ok()),
        role => targets.delegations.iter().find(|found| found.role == role).map(|found| found.signers.keys.clone()),
    };
    keys.unwrap_or_default()
}

/// One key instead of all that there are.
fn replace(change: &mut Change, old: &[PublicKey], role: &str, key: PublicKey) {
    change.remove.extend(old.iter().filter(|old| old.key != key.key).map(|old| (role.to_owned(), old.id())));
    if !old.is_empty() {
        change.threshold.push((role.to_owned(), 1));
    }
    change.add.push((role.to_owned(), key));
}

/// Puts a file that is in force beside a draft: who signs elsewhere compares with it.
fn keep(folder: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let header = roles::header(bytes).context("what the hub serves")?;
    let path = folder.join(header.role.file_name(header.version));
    durable::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

/// `keys line`.
pub(super) async fn line(
    remote: &Remote,
    name: &str,
    keys: &Path,
    attended: Option<&Path>,
    life: HumanDuration,
) -> Result<(), Failure> {
    let secret = read_secret(&keys.join("targets.key"))?;
    let current = Current::read(remote).await?;
    let (root, targets) = (current.root()?, current.targets()?);
    if !root.targets.has(&secret.verifying_key()) {
        let problem =
            format!("{} is not the targets key that root {} lists", keys.join("targets.key").display(), root.version);
        return Err(anyhow!(problem).into());
    }
    let role = line_role(&line_name(name)?);
    let key = match attended {
        Some(file) => read_public(file)?,
        None => hub_key(remote, &role, false).await?,
    };
    let mut change = Change::default();
    replace(&mut change, &listed(&root, &targets, &role), &role, key.clone());
    let expires = until(life)?;
    let next = next_targets(&targets, &change, expires).map_err(|error| Failure::Usage(error.to_string()))?;
    let bytes = roles::build_targets(&RoleName::Targets, &next).context("the next targets")?;
    let bytes = roles::sign(&bytes, &[secret]).context("sign the targets")?;
    let done = apply::send(remote, &[&bytes], false).await?;
    let who = if attended.is_some() { format!("key {key}") } else { "the hub".to_owned() };
    remote.done(&done, &format!("releases of {name} are signed by {who}; {}", apply::sentence(&done)));
    Ok(())
}
