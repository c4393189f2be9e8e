//! The one file of a version, and what makes a device trust it.
//!
//! Start at [`Package`]: manifest, graphs, feature view, reference bins and golden cases in one file whose every byte
//! is covered by a hash. [`chain`] says which packages are releases of their line, and
//! [`verify_assignment`] whether a device may be told to run one of them.
//!
//! [`delta`] makes and reads cheaper ways to a package: compressed, or as differences from an older one.
//!
//! This crate opens no connection and reads no clock: `now` is an argument. It touches files only for keys
//! ([`SigningKey`], [`VerifyingKeys`]) and to hash what lies on disk ([`sha256_file`]).

mod digest;
mod manifest;
mod package;
mod agent_version;
mod archive;
mod key;
mod signature;
mod assignment;
mod repository;
mod node_image;
pub mod chain;
pub mod delta;

pub use agent_version::{LOWEST_AGENT, is_enough, required_version};
pub use assignment::{
    AssignmentError, Installed, MAX_GENERATION_STEP, Standing, open_assignment, sign_assignment, verify_assignment,
};
pub use digest::{Hasher, digest, sha256_file};
pub use key::{KeyError, KeyId, SigningKey, VerifyingKey, VerifyingKeys};
pub use manifest::{
    DecisionRule, GraphEntry, Lineage, MANIFEST_FORMAT, Manifest, ManifestError, OutputBounds, Precision, Probation,
    Quantization, Requirements, ViewRef,
};
pub use node_image::{MAX_NODE_IMAGE_BYTES, NodeImageError, read_node_image, sign_node_image, verify_node_image};
pub use package::{GoldenCase, Graph, MAX_PACKAGE_BYTES, OUTPUT_REFERENCE, Package, PackageError};
pub use repository::{
    ASSIGNMENT_KEYS, CUSTOM, PackageCustom, RESERVED_ROLES, hashed_path, line_paths, line_role, node_path, package_path,
};
pub use signature::SignatureError;
