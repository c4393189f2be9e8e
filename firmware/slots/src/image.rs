//! Which blobs a node trusts. The only module that names the signature's library.

use ed25519_dalek::{Signature, VerifyingKey};
use tributary_wire::link::{BlobKind, BlobProblem, IMAGE_HEAD, IMAGE_SIGNED, ImageHead, NodeName};

pub use sha::Sha512;

/// Bytes of a public key.
pub const KEY_BYTES: usize = 32;

/// Whose blobs a node takes.
#[derive(Debug, Clone, Copy)]
pub struct Trusted<'a> {
    /// Public keys; a signature of any of them is enough. A second one is there for the time in which the first is
    /// replaced.
    pub keys: &'a [[u8; KEY_BYTES]],
    /// The type of this node.
    pub node: NodeName<'a>,
}

impl Trusted<'_> {
    /// Reads a head and checks who signed it, and that it is for this type of node.
    pub(crate) fn head<'h>(&self, bytes: &'h [u8; IMAGE_HEAD]) -> Result<ImageHead<'h>, BlobProblem> {
        let head = ImageHead::read(bytes).map_err(|_| BlobProblem::Malformed)?;
        let (signed, signature) = bytes.split_at(IMAGE_SIGNED);
        let signature = Signature::from_slice(signature).map_err(|_| BlobProblem::Signature)?;
        // Strict: no key and no signature of small order, which would hold for more than one message.
        let holds = |key: &[u8; KEY_BYTES]| {
            VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(signed, &signature).is_ok())
        };
        if !self.keys.iter().any(holds) {
            return Err(BlobProblem::Signature);
        }
        if head.node != self.node { Err(BlobProblem::Node) } else { Ok(head) }
    }

    /// The same for a blob that is to be of a kind.
    pub(crate) fn head_of<'h>(
        &self,
        kind: BlobKind,
        bytes: &'h [u8; IMAGE_HEAD],
    ) -> Result<ImageHead<'h>, BlobProblem> {
        self.head(bytes).and_then(|head| if head.kind == kind { Ok(head) } else { Err(BlobProblem::Kind) })
    }
}

mod sha {
    use ed25519_dalek::{Digest, Sha512 as Inner};

    /// SHA-512 of bytes that come in parts.
    #[derive(Clone)]
    pub struct Sha512(Inner);

    impl Sha512 {
        pub fn new() -> Self {
            Self(Inner::new())
        }

        pub fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        pub fn is(&self, hash: &[u8; 64]) -> bool {
            self.0.clone().finalize()[..] == hash[..]
        }
    }
}
