//! What can be wrong with a patch.

use std::io;

use tributary_wire::Sha256;

/// Why a patch does not lead to the package.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The file is something else.
    #[error("not a patch: it begins with {found:02x?}")]
    NotPatch {
        /// Its first bytes.
        found: [u8; 4],
    },
    /// From a newer program.
    #[error("the patch has version {found}, this program reads version {expected}")]
    Version {
        /// What is read here.
        expected: u8,
        /// What the patch says.
        found: u8,
    },
    /// From a newer program.
    #[error("the patch has the unknown format {found}")]
    Format {
        /// What the patch says.
        found: u8,
    },
    /// It leads elsewhere.
    #[error("the patch leads to package {found} of {length} bytes, expected {expected}")]
    OtherPackage {
        /// What is wanted.
        expected: Sha256,
        /// What the patch says.
        found: Sha256,
        /// And its length.
        length: u64,
    },
    /// It starts from a package that is not given.
    #[error("the patch needs the old package {expected}, none was given")]
    NoBase {
        /// Which one.
        expected: Sha256,
    },
    /// It starts from another package, or that one is damaged here.
    #[error("the patch starts from package {expected}, the one given has hash {found}")]
    OtherBase {
        /// What the patch says.
        expected: Sha256,
        /// What was given.
        found: Sha256,
    },
    /// The patch ends early.
    #[error("the patch is cut off; {written} bytes of the package were made")]
    CutOff {
        /// How far it came.
        written: u64,
    },
    /// Its content is not what a maker writes.
    #[error("the patch is damaged behind byte {written} of the package: {problem}")]
    Damaged {
        /// How far it came.
        written: u64,
        /// What is wrong.
        problem: String,
    },
    /// Something follows behind the end.
    #[error("the patch goes on behind the end of the package")]
    LeftOver,
    /// More comes out than the package has.
    #[error("the patch gives more than the {expected} bytes of the package")]
    TooLong {
        /// The package's length.
        expected: u64,
    },
    /// Less comes out than the package has.
    #[error("the patch gives {found} of the {expected} bytes of the package")]
    TooShort {
        /// The package's length.
        expected: u64,
        /// What came out.
        found: u64,
    },
    /// Something else comes out.
    #[error("the patch gives bytes with hash {found}, expected {expected}")]
    Hash {
        /// The package's.
        expected: Sha256,
        /// Of what came out.
        found: Sha256,
    },
    /// The patch cannot be read.
    #[error("read the patch")]
    Read(#[source] io::Error),
    /// The package cannot be written.
    #[error("write the package")]
    Write(#[source] io::Error),
    /// Whoever asked for the patch does not want it any more.
    #[error("stopped")]
    Stopped,
    /// The patch cannot be made.
    #[error("make the patch")]
    Make(#[source] io::Error),
}

impl DeltaError {
    /// Whether the fault lies with this machine's disk and not with the patch.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Write(_) | Self::Make(_))
    }
}

/// An error of the decompressor, or of the reader below it.
pub(super) fn of_content(error: io::Error, written: u64) -> DeltaError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => DeltaError::CutOff { written },
        // What the decompressor says of the bytes.
        io::ErrorKind::Other | io::ErrorKind::InvalidData => {
            DeltaError::Damaged { written, problem: error.to_string() }
        }
        _ => DeltaError::Read(error),
    }
}
