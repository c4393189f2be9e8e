//! Images that wait until their node runs them: checked, and kept as files, so that they are brought after a restart of
//! the agent too.

use std::io;
use std::path::Path;

use edge_agent_core::node::{Delivered, Parcel};
use tributary_process::durable;
use tributary_release::{KeyError, NodeImageError, VerifyingKeys, verify_node_image};
use tributary_wire::link::BlobKind;

use super::SerialConfig;

/// Why an image is not brought to a node.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nobody is trusted to make any.
    #[error("`image_keys` of this node is not set: nothing says whose images it may take")]
    NoKeys,
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

fn name(kind: BlobKind) -> &'static str {
    match kind {
        BlobKind::Model => "model.img",
        BlobKind::Firmware => "firmware.img",
    }
}

/// Checks an image for a node of a type; a type that is not known yet the node itself will check.
pub(super) fn checked(config: &SerialConfig, kind: Option<&str>, bytes: Vec<u8>) -> Result<Parcel, ImageError> {
    let keys = VerifyingKeys::load(config.image_keys.as_deref().ok_or(ImageError::NoKeys)?)?;
    let head = verify_node_image(&bytes, &keys)?;
    if let Some(expected) = kind.filter(|kind| *kind != head.node.as_str()) {
        let (expected, found) = (expected.to_owned(), head.node.to_string());
        return Err(NodeImageError::Node { expected, found }.into());
    }
    Ok(Parcel { kind: head.kind, version: head.version, bytes: bytes.into() })
}

/// Keeps one until it is done with.
pub(super) fn keep(folder: &Path, parcel: &Parcel) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    durable::write(&folder.join(name(parcel.kind)), &parcel.bytes)
}

/// What was kept before a restart, checked again.
pub(super) fn kept(config: &SerialConfig, folder: &Path) -> Vec<Parcel> {
    let read = |kind| std::fs::read(folder.join(name(kind))).ok();
    let check = |bytes| match checked(config, None, bytes) {
        Ok(parcel) => Some(parcel),
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
