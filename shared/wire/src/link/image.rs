//! The head of a signed blob: what it is, for which nodes, and the hash of what follows.
//!
//! Only the head is signed, and it holds the hash of the payload: a node checks the signature with the first two parts,
//! before it erases anything, and hashes the rest as it comes. The form is fixed, so there is one way to write it:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `TNI1` |
//! | 1 | kind: 1 model, 2 firmware |
//! | 1 | length of the node type's name |
//! | 63 | the name, the rest zero |
//! | 3 | zero |
//! | 4, 4, 4 | version, rollback index, length of the payload |
//! | 64 | SHA-512 of the payload |
//! | 64 | Ed25519 signature of all before |
//!
//! Numbers are little-endian. The payload follows.

use super::{BlobKind, NodeName};

const MAGIC: &[u8; 4] = b"TNI1";
const NAME: usize = 6;
const VERSION: usize = 72;
const HASH: usize = 84;
/// Bytes of the head that its signature covers.
pub const IMAGE_SIGNED: usize = 148;
/// Bytes of the head.
pub const IMAGE_HEAD: usize = IMAGE_SIGNED + 64;

/// What a signed blob says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHead<'a> {
    /// What it is.
    pub kind: BlobKind,
    /// The type of nodes that it is for.
    pub node: NodeName<'a>,
    /// Which one; each that is published is higher than the one before.
    pub version: u32,
    /// A node never takes one whose index is lower than that of what it has confirmed.
    pub rollback: u32,
    /// Bytes of the payload.
    pub length: u32,
    /// SHA-512 of the payload.
    pub hash: [u8; 64],
}

/// Why bytes are not the head of a signed blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongImage {
    /// Fewer than a head has.
    #[error("{found} bytes; the head of an image has {IMAGE_HEAD}")]
    Short {
        /// How many there are.
        found: usize,
    },
    /// They do not begin as one.
    #[error("an image begins with `TNI1`")]
    Magic,
    /// A kind that this build does not know.
    #[error("kind {found}; 1 is a model, 2 is firmware")]
    Kind {
        /// The number.
        found: u8,
    },
    /// The name is no node type, or what must be zero is not.
    #[error("the node type is not written as it must be")]
    Node,
}

impl<'a> ImageHead<'a> {
    /// Reads a head; says nothing about its signature.
    pub fn read(bytes: &'a [u8]) -> Result<Self, WrongImage> {
        let head = bytes.first_chunk::<IMAGE_HEAD>().ok_or(WrongImage::Short { found: bytes.len() })?;
        if !head.starts_with(MAGIC) {
            return Err(WrongImage::Magic);
        }
        let kind = match head[4] {
            1 => BlobKind::Model,
            2 => BlobKind::Firmware,
            found => return Err(WrongImage::Kind { found }),
        };
        let (name, rest) = head[NAME..VERSION].split_at_checked(usize::from(head[5])).ok_or(WrongImage::Node)?;
        let name = core::str::from_utf8(name).map_err(|_| WrongImage::Node)?;
        let node = NodeName::new(name).map_err(|_| WrongImage::Node)?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(WrongImage::Node);
        }
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let hash = core::array::from_fn(|at| head[HASH + at]);
        let (version, rollback, length) = (number(VERSION), number(VERSION + 4), number(VERSION + 8));
        Ok(Self { kind, node, version, rollback, length, hash })
    }

    /// The bytes to sign. The signature and the payload follow them.
    pub fn signed(&self) -> [u8; IMAGE_SIGNED] {
        let mut bytes = [0; IMAGE_SIGNED];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = match self.kind {
            BlobKind::Model => 1,
            BlobKind::Firmware => 2,
        };
        let name = self.node.as_str().as_bytes();
        bytes[5] = name.len() as u8;
        bytes[NAME..NAME + name.len()].copy_from_slice(name);
        for (at, number) in [self.version, self.rollback, self.length].into_iter().enumerate() {
            bytes[VERSION + 4 * at..VERSION + 4 * at + 4].copy_from_slice(&number.to_le_bytes());
        }
        bytes[HASH..].copy_from_slice(&self.hash);
        bytes
    }
}
