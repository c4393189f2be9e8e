//! Images for sensor nodes: models and firmware, signed for one type of node. The form is `tributary_wire::link`'s; the
//! node itself checks it with other code of the same form.

use sha2::{Digest as _, Sha512};
use tributary_wire::link::{BlobKind, IMAGE_HEAD, IMAGE_SIGNED, ImageHead, NodeName, WrongImage};

use crate::{SigningKey, VerifyingKeys};

/// The largest image that is looked at: the slots of nodes are smaller.
pub const MAX_NODE_IMAGE_BYTES: usize = 4 << 20;

/// Why bytes are no image to bring to a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeImageError {
    /// Its head cannot be read.
    #[error(transparent)]
    Head(#[from] WrongImage),
    /// No known key signed it.
    #[error("no known key signed it")]
    Signature,
    /// What follows the head is not what was signed.
    #[error("a payload of {found} bytes that is not the one of {expected} bytes that was signed")]
    Payload {
        /// Its length as signed.
        expected: usize,
        /// Its length.
        found: usize,
    },
    /// It is for other nodes.
    #[error("it is for nodes of type {found:?}, this is one of type {expected:?}")]
    Node {
        /// The node's type.
        expected: String,
        /// The image's.
        found: String,
    },
}

/// Makes a signed image.
pub fn sign_node_image(
    kind: BlobKind,
    node: NodeName<'_>,
    version: u32,
    rollback: u32,
    payload: &[u8],
    key: &SigningKey,
) -> Vec<u8> {
    let hash = Sha512::digest(payload).into();
    let head = ImageHead { kind, node, version, rollback, length: payload.len() as u32, hash };
    let mut bytes = head.signed().to_vec();
    bytes.extend(key.sign(&bytes));
    bytes.extend(payload);
    bytes
}

/// Checks an image against the keys of those who may make images, and that it is whole.
pub fn verify_node_image<'a>(bytes: &'a [u8], keys: &VerifyingKeys) -> Result<ImageHead<'a>, NodeImageError> {
    ImageHead::read(bytes)?;
    let (signed, signature) = bytes[..IMAGE_HEAD].split_at(IMAGE_SIGNED);
    if !keys.iter().any(|key| key.verify(signed, signature)) {
        return Err(NodeImageError::Signature);
    }
    read_node_image(bytes)
}

/// Reads an image that something else vouches for, such as the chain of metadata, and checks that it is whole. The node
/// checks its signature in any case.
pub fn read_node_image(bytes: &[u8]) -> Result<ImageHead<'_>, NodeImageError> {
    let head = ImageHead::read(bytes)?;
    let payload = &bytes[IMAGE_HEAD..];
    let (expected, found) = (head.length as usize, payload.len());
    let whole = expected == found && Sha512::digest(payload)[..] == head.hash;
    if whole { Ok(head) } else { Err(NodeImageError::Payload { expected, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_holds_under_its_key_and_no_bit_of_it_can_change() {
        let key = SigningKey::generate([4; 32]);
        let keys = VerifyingKeys::new([SigningKey::generate([5; 32]).verifying_key(), key.verifying_key()]);
        let node = NodeName::new("mps2").unwrap();
        let image = sign_node_image(BlobKind::Model, node, 3, 2, b"payload", &key);
        let head = verify_node_image(&image, &keys).unwrap();
        assert_eq!((head.node, head.version, head.rollback, head.kind), (node, 3, 2, BlobKind::Model));
        for bit in 0..8 * image.len() {
            let mut changed = image.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(verify_node_image(&changed, &keys).is_err(), "bit {bit}");
        }
        for length in 0..image.len() {
            assert!(verify_node_image(&image[..length], &keys).is_err(), "{length} bytes");
        }
        let others = VerifyingKeys::new([SigningKey::generate([5; 32]).verifying_key()]);
        assert_eq!(verify_node_image(&image, &others), Err(NodeImageError::Signature));
    }
}
