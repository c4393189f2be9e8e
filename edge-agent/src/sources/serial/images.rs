//! Images that wait until their node runs them: checked, and kept as files, so that they are brought after a restart of
//! the agent too.

use std::io;
use std::path::Path;
use std::pin::Pin;

use edge_agent_core::node::{Delivered, Parcel};
use tributary_process::durable;
use tributary_release::{KeyError, NodeImageError, VerifyingKeys, node_path, read_node_image, verify_node_image};
use tributary_wire::link::{BlobKind, ImageHead};

use super::SerialConfig;

/// The signed repository, as far as images for nodes go.
pub trait ImageSource: Send + Sync {
    /// The content of a target such as `nodes/mps2/v3.img`, once the whole chain of metadata that names it holds; else
    /// why not.
    fn fetch<'a>(&'a self, path: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>>;
}

/// Why an image is not brought to a node.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nobody is trusted to make any.
    #[error("`image_keys` of this node is not set: nothing says whose images it may take")]
    NoKeys,
    /// This agent knows no signed repository.
    #[error("this agent knows no signed repository: it is not enrolled with a hub that has one")]
    NoRepository,
    /// The node has not said yet what it is.
    #[error("the node has not said yet of which type it is")]
    Unknown,
    /// The repository does not give it.
    #[error("{path} of the signed repository: {problem}")]
    Repository {
        /// Which target.
        path: String,
        /// Why not.
        problem: String,
    },
    /// The target holds another version than its path says.
    #[error("the image says that it is version {found}, not {expected}")]
    Version {
        /// As in its path.
        expected: u32,
        /// As in its head.
        found: u32,
    },
    /// The keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// It is not what it must be.
    #[error(transparent)]
    Image(#[from] NodeImageError),
    /// It could not be kept.
    #[error("the image could not be kept")]
    Store(#[source] io::Error),
    /// Too much waits for the node's line.
    #[error("too much waits for this node already")]
    Full,
}

impl ImageError {
    /// The bytes are not what they have to be.
    pub(super) fn is_of_the_image(&self) -> bool {
        matches!(self, Self::Image(_) | Self::Version { .. })
    }

    /// It was looked at, and did not hold; other errors say that nobody could look.
    pub(super) fn is_refusal(&self) -> bool {
        self.is_of_the_image() || matches!(self, Self::Repository { .. })
    }
}

fn name(kind: BlobKind) -> &'static str {
    match kind {
        BlobKind::Model => "model.img",
        BlobKind::Firmware => "firmware.img",
    }
}

fn parcel(head: &ImageHead<'_>, bytes: &[u8]) -> Parcel {
    Parcel { kind: head.kind, version: head.version, bytes: bytes.into() }
}

fn of_type(head: &ImageHead<'_>, kind: &str) -> Result<(), NodeImageError> {
    if head.node.as_str() == kind {
        return Ok(());
    }
    Err(NodeImageError::Node { expected: kind.to_owned(), found: head.node.to_string() })
}

/// Checks an image that somebody brought by hand; a type that is not known yet the node itself will check.
pub(super) fn checked(config: &SerialConfig, kind: Option<&str>, bytes: &[u8]) -> Result<Parcel, ImageError> {
    let keys = VerifyingKeys::load(config.image_keys.as_deref().ok_or(ImageError::NoKeys)?)?;
    let head = verify_node_image(bytes, &keys)?;
    kind.map_or(Ok(()), |kind| of_type(&head, kind))?;
    Ok(parcel(&head, bytes))
}

/// Fetches a version for nodes of a type from the signed repository, which vouches for it.
pub(super) async fn fetched(source: &dyn ImageSource, kind: &str, version: u32) -> Result<Parcel, ImageError> {
    let path = node_path(kind, version);
    let bytes = source.fetch(&path).await.map_err(|problem| ImageError::Repository { path, problem })?;
    let head = read_node_image(&bytes)?;
    of_type(&head, kind)?;
    match head.version {
        found if found == version => Ok(parcel(&head, &bytes)),
        found => Err(ImageError::Version { expected: version, found }),
    }
}

/// Keeps one until it is done with.
pub(super) fn keep(folder: &Path, parcel: &Parcel) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    durable::write(&folder.join(name(parcel.kind)), &parcel.bytes)
}

/// What was kept before a restart: it was checked before it was kept, so only whether it is whole is looked at.
pub(super) fn kept(config: &SerialConfig, folder: &Path) -> Vec<Parcel> {
    let read = |kind| std::fs::read(folder.join(name(kind))).ok();
    let check = |bytes: Vec<u8>| match read_node_image(&bytes) {
        Ok(head) => Some(parcel(&head, &bytes)),
        Err(error) => {
            tracing::warn!(node = config.node, %error, "an image that was kept for a sensor node is not brought");
            None
        }
    };
    [BlobKind::Firmware, BlobKind::Model].into_iter().filter_map(read).filter_map(check).collect()
}

/// It is done with.
pub(super) fn forget(folder: &Path, delivered: &Delivered) {
    let path = folder.join(name(delivered.kind));
    if let Err(error) = std::fs::remove_file(&path) {
        // It is brought again after a restart, and the node says that it has it.
        tracing::warn!(path = %path.display(), %error, "an image that is done with cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use tributary_release::{SigningKey, sign_node_image};
    use tributary_wire::link::NodeName;

    use super::*;

    struct Repository(Vec<u8>);

    impl ImageSource for Repository {
        fn fetch<'a>(&'a self, path: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>> {
            let known = path.starts_with("nodes/pump/v");
            Box::pin(async move { if known { Ok(self.0.clone()) } else { Err("not listed".to_owned()) } })
        }
    }

    #[tokio::test]
    async fn what_the_repository_gives_is_for_this_type_of_node_of_that_version_and_whole() {
        let image = |node, version| {
            let key = SigningKey::generate([1; 32]);
            sign_node_image(BlobKind::Model, NodeName::new(node).unwrap(), version, 1, b"weights", &key)
        };
        let parcel = fetched(&Repository(image("pump", 3)), "pump", 3).await.unwrap();
        assert_eq!((parcel.kind, parcel.version, parcel.bytes.len()), (BlobKind::Model, 3, 219));
        let fails = async |bytes: Vec<u8>, kind: &str, expected: &str| {
            let error = fetched(&Repository(bytes), kind, 3).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        fails(image("fan", 3), "pump", "\"fan\"").await;
        fails(image("pump", 4), "pump", "version 4").await;
        fails(image("pump", 3)[..218].to_vec(), "pump", "6 bytes").await;
        fails(image("fan", 3), "fan", "nodes/fan/v3.img of the signed repository: not listed").await;

        let folder = tempfile::tempdir().unwrap();
        keep(folder.path(), &parcel).unwrap();
        let config = SerialConfig::default();
        assert_eq!(kept(&config, folder.path()), std::slice::from_ref(&parcel));
        std::fs::write(folder.path().join("model.img"), &parcel.bytes[1..]).unwrap();
        assert_eq!(kept(&config, folder.path()), [], "half written");
        assert!(matches!(checked(&config, None, &parcel.bytes), Err(ImageError::NoKeys)));
    }
}
