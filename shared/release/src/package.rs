//! The one file of a version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tributary_features::{View, ViewError};
use tributary_stats::Reference;
use tributary_wire::Sha256;

use crate::archive::{self, ArchiveError, Limits, Member};
use crate::{Manifest, ManifestError, digest};

/// The largest package file that is read.
pub const MAX_PACKAGE_BYTES: usize = 256 << 20;
/// Name of the reference of the output, which stands behind those of the features.
pub const OUTPUT_REFERENCE: &str = "output";

const LIMITS: Limits = Limits { bytes: MAX_PACKAGE_BYTES, members: 32 };
const MANIFEST: &str = "manifest.json";
const MANIFEST_DIGEST: &str = "manifest.sha256";
const VIEW: &str = "view.toml";
const REFERENCE: &str = "reference.postcard";
const GOLDEN: &str = "golden.postcard";

/// Everything a device needs to run one version of a model line.
///
/// In the file (a tar), `manifest.sha256` covers `manifest.json`, which covers every other member.
#[derive(Debug, Clone, PartialEq)]
pub struct Package {
    /// What it is. `members` is filled in when the package is written.
    pub manifest: Manifest,
    /// One per graph of the manifest.
    pub graphs: Vec<Graph>,
    /// The feature view in its source form.
    pub view_toml: String,
    /// Distribution at training of each feature, in order, and last of the output ([`OUTPUT_REFERENCE`]).
    pub reference: Vec<Reference>,
    /// Inputs with the output and decision that every engine has to give.
    pub golden: Vec<GoldenCase>,
}

/// A graph in ONNX form.
#[derive(Clone, PartialEq, Eq)]
pub struct Graph {
    /// Its name in the manifest.
    pub name: String,
    /// An ONNX file.
    pub onnx: Vec<u8>,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Graph({}, {} bytes)", self.name, self.onnx.len())
    }
}

/// An input with the output and decision of the served graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldenCase {
    /// One value per feature.
    pub features: Vec<f32>,
    /// What the served graph gives.
    pub output: f32,
    /// What follows by the manifest's rule.
    pub decision: bool,
}

/// Why a package is refused.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Over the size limit.
    #[error("the package has {found} bytes, the limit is {limit}")]
    TooLong {
        /// Its size.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Over the member limit.
    #[error("the package has more than {limit} members")]
    TooManyMembers {
        /// The limit.
        limit: usize,
    },
    /// The tar structure cannot be read.
    #[error("not a package file")]
    NotArchive {
        /// What the tar reader said.
        source: std::io::Error,
    },
    /// A member is cut off.
    #[error("member {member} reaches beyond the end of the file")]
    CutOff {
        /// Which member.
        member: String,
    },
    /// Something outside the members' content differs from what a writer puts there.
    #[error("the package differs at byte {offset} from the only layout its members can have")]
    Layout {
        /// Where.
        offset: usize,
    },
    /// A member is not there.
    #[error("member {member} is missing")]
    Missing {
        /// Which member.
        member: String,
    },
    /// A member is there that nothing speaks of, stands there twice or at the wrong place.
    #[error("member {found} found where {expected} is expected")]
    Unexpected {
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A member's content is not what was written.
    #[error("member {member} has hash {found}, expected {expected}")]
    Hash {
        /// Which member.
        member: String,
        /// As listed.
        expected: String,
        /// As found.
        found: Sha256,
    },
    /// A member's content cannot be read.
    #[error("member {member}: {problem}")]
    Malformed {
        /// Which member.
        member: String,
        /// What is wrong.
        problem: String,
    },
    /// The manifest contradicts itself.
    #[error("member manifest.json")]
    Manifest(#[from] ManifestError),
    /// The feature view is not one.
    #[error("member view.toml")]
    View(#[from] ViewError),
    /// The feature view is not the one that the manifest names.
    #[error("member view.toml has the {part} {found}, the manifest says {expected}")]
    OtherView {
        /// Name, version or features.
        part: &'static str,
        /// As the manifest says.
        expected: String,
        /// As the view says.
        found: String,
    },
    /// A golden case does not fit the manifest.
    #[error("golden case {case}: {problem}")]
    Golden {
        /// Its place.
        case: usize,
        /// What is wrong.
        problem: String,
    },
}

impl Package {
    /// The graph that devices run.
    pub fn served(&self) -> &Graph {
        let served = self.graphs.iter().find(|graph| graph.name == self.manifest.serve);
        served.expect("checked when the package was read or written")
    }

    /// The feature view, read.
    pub fn view(&self) -> Result<View, ViewError> {
        View::from_toml(&self.view_toml)
    }

    /// The file: the same package always gives the same bytes.
    pub fn write(&self) -> Result<Vec<u8>, PackageError> {
        self.check()?;
        let encoded = |member: &str, bytes: Result<Vec<u8>, postcard::Error>| {
            bytes.map_err(|error| PackageError::Malformed { member: member.to_owned(), problem: error.to_string() })
        };
        let reference = encoded(REFERENCE, postcard::to_allocvec(&self.reference))?;
        let golden = encoded(GOLDEN, postcard::to_allocvec(&self.golden))?;
        let mut content: Vec<Member<'_>> = vec![
            (VIEW.to_owned(), self.view_toml.as_bytes()),
            (REFERENCE.to_owned(), &reference),
            (GOLDEN.to_owned(), &golden),
        ];
        content.extend(self.graphs.iter().map(|graph| (graph_member(&graph.name), &graph.onnx[..])));

        let members = content.iter().map(|(name, bytes)| (name.clone(), digest(bytes))).collect();
        let manifest = Manifest { members, ..self.manifest.clone() };
        let manifest = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| PackageError::Malformed { member: MANIFEST.to_owned(), problem: error.to_string() })?;
        let manifest_digest = digest_line(&manifest);
        let mut all: Vec<Member<'_>> =
            vec![(MANIFEST.to_owned(), &manifest), (MANIFEST_DIGEST.to_owned(), manifest_digest.as_bytes())];
        all.append(&mut content);
        let mut file = Vec::new();
        archive::write(&all, &mut file).expect("writing short names into memory cannot fail");
        if file.len() > LIMITS.bytes {
            return Err(PackageError::TooLong { found: file.len(), limit: LIMITS.bytes });
        }
        Ok(file)
    }

    /// Reads a package file. Every byte of it is covered: a single changed one is refused.
    pub fn read(file: &[u8]) -> Result<Self, PackageError> {
        let mut members = archive::read(file, LIMITS)?.into_iter();
        let manifest_bytes = take(&mut members, MANIFEST)?;
        let manifest_digest = take(&mut members, MANIFEST_DIGEST)?;
        if manifest_digest != digest_line(manifest_bytes).as_bytes() {
            return Err(PackageError::Hash {
                member: MANIFEST.to_owned(),
                expected: String::from_utf8_lossy(manifest_digest).chars().take(64).collect(),
                found: digest(manifest_bytes),
            });
        }
        let malformed = |member: &str, problem: String| PackageError::Malformed { member: member.to_owned(), problem };
        let manifest: Manifest =
            serde_json::from_slice(manifest_bytes).map_err(|error| malformed(MANIFEST, error.to_string()))?;
        manifest.check()?;

        let mut unread = manifest.members.clone();
        let mut checked = |name: &str| {
            let content = take(&mut members, name)?;
            check_hash(&mut unread, name, content)?;
            Ok::<_, PackageError>(content)
        };
        let view_toml =
            String::from_utf8(checked(VIEW)?.to_vec()).map_err(|error| malformed(VIEW, error.to_string()))?;
        let reference = decode(REFERENCE, checked(REFERENCE)?)?;
        let golden = decode(GOLDEN, checked(GOLDEN)?)?;
        let mut graphs = Vec::new();
        for entry in &manifest.graphs {
            let onnx = checked(&graph_member(&entry.name))?.to_vec();
            graphs.push(Graph { name: entry.name.clone(), onnx });
        }
        if let Some((found, _)) = members.next() {
            return Err(PackageError::Unexpected { expected: "the end".to_owned(), found });
        }
        if let Some(member) = unread.into_keys().next() {
            return Err(PackageError::Missing { member });
        }
        let package = Self { manifest, graphs, view_toml, reference, golden };
        package.check()?;
        Ok(package)
    }

    /// Whether the parts fit together.
    fn check(&self) -> Result<(), PackageError> {
        self.manifest.check()?;
        let listed: Vec<_> = self.manifest.graphs.iter().map(|entry| &entry.name).collect();
        let given: Vec<_> = self.graphs.iter().map(|graph| &graph.name).collect();
        if listed != given {
            let problem = format!("lists the graphs {listed:?}, the package has {given:?}");
            return Err(PackageError::Malformed { member: MANIFEST.to_owned(), problem });
        }
        check_view(&self.manifest, &self.view()?)?;
        let expected = self.manifest.features.iter().map(String::as_str).chain([OUTPUT_REFERENCE]);
        if !self.reference.iter().map(|reference| reference.name.as_str()).eq(expected) {
            let found: Vec<_> = self.reference.iter().map(|reference| reference.name.as_str()).collect();
            let problem = format!("expected the features in order and {OUTPUT_REFERENCE:?}, found {found:?}");
            return Err(PackageError::Malformed { member: REFERENCE.to_owned(), problem });
        }
        if self.golden.is_empty() {
            let problem = "no golden case: no engine could ever be checked".to_owned();
            return Err(PackageError::Malformed { member: GOLDEN.to_owned(), problem });
        }
        self.golden.iter().enumerate().try_for_each(|(case, golden)| {
            check_golden_case(&self.manifest, golden).map_err(|problem| PackageError::Golden { case, problem })
        })
    }
}

fn check_view(manifest: &Manifest, view: &View) -> Result<(), PackageError> {
    let other = |part, expected: String, found: String| match expected == found {
        true => Ok(()),
        false => Err(PackageError::OtherView { part, expected, found }),
    };
    other("name", manifest.view.name.clone(), view.name().to_owned())?;
    other("version", manifest.view.version.to_string(), view.version().to_string())?;
    other("features", manifest.features.join(", "), view.feature_names().join(", "))
}

fn check_golden_case(manifest: &Manifest, golden: &GoldenCase) -> Result<(), String> {
    let (expected, found) = (manifest.features.len(), golden.features.len());
    if expected != found {
        return Err(format!("{found} features, expected {expected}"));
    }
    if let Some(place) = golden.features.iter().position(|value| !value.is_finite()) {
        return Err(format!("feature {} is {}", manifest.features[place], golden.features[place]));
    }
    if !manifest.output.contain(golden.output) {
        return Err(format!("output {} is outside the bounds {:?}", golden.output, manifest.output));
    }
    if manifest.decision.decide(golden.output) != golden.decision {
        return Err(format!("output {} does not give the decision {}", golden.output, golden.decision));
    }
    Ok(())
}

fn graph_member(name: &str) -> String {
    format!("graphs/{name}.onnx")
}

/// As `sha256sum` writes it, so that a person can check an unpacked package by hand.
fn digest_line(manifest: &[u8]) -> String {
    format!("{}  {MANIFEST}\n", digest(manifest))
}

fn take<'a>(members: &mut impl Iterator<Item = Member<'a>>, expected: &str) -> Result<&'a [u8], PackageError> {
    match members.next() {
        Some((found, content)) if found == expected => Ok(content),
        Some((found, _)) => Err(PackageError::Unexpected { expected: expected.to_owned(), found }),
        None => Err(PackageError::Missing { member: expected.to_owned() }),
    }
}

fn check_hash(listed: &mut BTreeMap<String, Sha256>, name: &str, content: &[u8]) -> Result<(), PackageError> {
    let found = digest(content);
    match listed.remove(name) {
        Some(expected) if expected == found => Ok(()),
        listed => {
            let expected = listed.map_or("one in the manifest".to_owned(), |hash| hash.to_string());
            Err(PackageError::Hash { member: name.to_owned(), expected, found })
        }
    }
}

fn decode<T: DeserializeOwned>(member: &str, bytes: &[u8]) -> Result<T, PackageError> {
    let malformed = |problem: String| PackageError::Malformed { member: member.to_owned(), problem };
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|error| malformed(error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(malformed(format!("{} bytes left over", rest.len()))) }
}

impl From<ArchiveError> for PackageError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::TooLong { found, limit } => Self::TooLong { found, limit },
            ArchiveError::TooMany { limit } => Self::TooManyMembers { limit },
            ArchiveError::NotTar { source } => Self::NotArchive { source },
            ArchiveError::BeyondEnd { member } => Self::CutOff { member },
            ArchiveError::NotCanonical { offset } => Self::Layout { offset },
        }
    }
}

#[cfg(test)]
#[path = "package_tests.rs"]
mod tests;
