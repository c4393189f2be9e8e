//! What a path below the repository's base asks for. Pure.

use tributary_wire::{LineName, Sha256, VersionNumber};

/// Longest path that is read at all.
const MAX_PATH: usize = 512;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `metadata/timestamp.json`: the newest one.
    Timestamp,
    /// `metadata/N.ROLE.json`.
    Metadata {
        /// Whose.
        role: String,
        /// Which version.
        version: i64,
    },
    /// `targets/models/LINE/SHA256.vN.tpk`.
    Package {
        /// Of which line.
        line: LineName,
        /// Which version.
        version: VersionNumber,
        /// With which content.
        sha256: Sha256,
    },
    /// `targets/FOLDER/SHA256.NAME`: any other target.
    Target {
        /// `FOLDER/NAME`, as the metadata says.
        path: String,
        /// With which content.
        sha256: Sha256,
    },
    /// `patches/SHA256/NAME`: a way to that package.
    Patch {
        /// Which package.
        to: Sha256,
        /// Which file of it.
        name: String,
    },
}

/// Reads a path. The name of a delegated role may come with its slash as `%2F`, as the file is called, or decoded, as a web
/// server hands it on.
pub fn read(path: &str) -> Option<Wanted> {
    if path.len() > MAX_PATH || path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return None;
    }
    let (kind, rest) = path.split_once('/')?;
    match kind {
        "metadata" => metadata(rest),
        "targets" => target(rest),
        "patches" => {
            let (to, name) = rest.split_once('/')?;
            (!name.contains('/')).then_some(())?;
            Some(Wanted::Patch { to: hash(to)?, name: name.to_owned() })
        }
        _ => None,
    }
}

fn metadata(name: &str) -> Option<Wanted> {
    let stem = name.strip_suffix(".json")?;
    if stem == "timestamp" {
        return Some(Wanted::Timestamp);
    }
    let (version, role) = stem.split_once('.')?;
    let role = role.replace("%2F", "/").replace("%2f", "/");
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'/';
    // With consistent snapshots every role but the timestamp has its version in the name.
    (role != "timestamp" && !role.is_empty() && role.bytes().all(plain)).then_some(())?;
    Some(Wanted::Metadata { role, version: i64::try_from(number(version)?).ok()? })
}

fn target(rest: &str) -> Option<Wanted> {
    let (folder, file) = rest.rsplit_once('/').map_or(("", rest), |(folder, file)| (folder, file));
    let (sha256, name) = file.split_once('.')?;
    let sha256 = hash(sha256)?;
    let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    let Some(line) = folder.strip_prefix("models/") else {
        return Some(Wanted::Target { path, sha256 });
    };
    let version = number(name.strip_prefix('v')?.strip_suffix(".tpk")?)?;
    let version = VersionNumber(u32::try_from(version).ok()?);
    Some(Wanted::Package { line: LineName::new(line).ok()?, version, sha256 })
}

/// One form per hash: lower case, as it is written everywhere.
fn hash(text: &str) -> Option<Sha256> {
    text.parse::<Sha256>().ok().filter(|hash| hash.to_string() == text)
}

/// One form per number.
fn number(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| *number > 0 && number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_release::{hashed_path, package_path};

    #[test]
    fn each_place_of_the_layout_is_read_and_nothing_else() {
        let line = LineName::new("card-fraud").unwrap();
        let sha256 = Sha256([0xab; 32]);
        let role = |role: &str, version| Wanted::Metadata { role: role.to_owned(), version };
        assert_eq!(read("metadata/timestamp.json"), Some(Wanted::Timestamp));
        assert_eq!(read("metadata/3.root.json"), Some(role("root", 3)));
        for name in ["models%2Fcard-fraud", "models%2fcard-fraud", "models/card-fraud"] {
            assert_eq!(read(&format!("metadata/12.{name}.json")), Some(role("models/card-fraud", 12)), "{name}");
        }
        let path = hashed_path(&package_path(&line, VersionNumber(7)), &sha256);
        let package = Wanted::Package { line, version: VersionNumber(7), sha256 };
        assert_eq!(read(&format!("targets/{path}")), Some(package));
        let keys = Wanted::Target { path: "assignments/keys.json".to_owned(), sha256 };
        assert_eq!(read(&format!("targets/assignments/{sha256}.keys.json")), Some(keys));
        let index = Wanted::Patch { to: sha256, name: "index.json".to_owned() };
        assert_eq!(read(&format!("patches/{sha256}/index.json")), Some(index));
        let upper = sha256.to_string().to_uppercase();
        for wrong in [
            "",
            "metadata",
            "metadata/",
            "metadata/root.json",
            "metadata/0.root.json",
            "metadata/01.root.json",
            "metadata/99999999999999999999.root.json",
            "metadata/1.timestamp.json",
            "metadata/1..json",
            "metadata/1.a/../root.json",
            "metadata/../keys/snapshot.key",
            "targets/models/card-fraud/v7.tpk",
            &format!("targets/models/card-fraud/{upper}.v7.tpk"),
            &format!("targets/models/card-fraud/{sha256}.v07.tpk"),
            &format!("targets/models/card-fraud/deep/{sha256}.v7.tpk"),
            &format!("patches/{sha256}/a/b"),
            &format!("patches/{sha256}"),
            &"metadata/".repeat(99),
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn any_path_is_read_or_refused_and_never_leads_elsewhere() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let found = read(&String::from_utf8_lossy(bytes));
            if let Some(Wanted::Metadata { role, .. }) = &found {
                assert!(!role.contains('.'), "{role}");
            }
            if let Some(Wanted::Target { path, .. } | Wanted::Patch { name: path, .. }) = &found {
                assert!(path.split('/').all(|part| !["", ".", ".."].contains(&part)), "{path}");
            }
        });
    }
}
