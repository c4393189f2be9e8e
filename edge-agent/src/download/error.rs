//! Why a file did not come.

use std::io;

use edge_agent_core::download::Fault;
use tributary_process::http::ClientError;

use crate::link::StreamError;
use crate::packages::FileError;

/// What one origin did.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// It is not there now: nobody to blame.
    #[error("it is not there now")]
    Absent,
    /// Its certificates cannot be used.
    #[error("tls settings")]
    Settings(#[from] tributary_identity::tls::TlsError),
    /// Over HTTP.
    #[error("http")]
    Http(#[from] ClientError),
    /// Over QUIC.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// It stopped; what came is kept.
    #[error("it stopped after {found} of {expected} bytes")]
    Cut {
        /// As asked for.
        expected: u64,
        /// What is here.
        found: u64,
    },
    /// It trickles.
    #[error("it sends {found} bytes a second, at least {expected} are wanted")]
    Slow {
        /// As set.
        expected: u64,
        /// As measured.
        found: u64,
    },
    /// A small file took too long as a whole.
    #[error("it took longer than {seconds} s for a small file")]
    Late {
        /// As set.
        seconds: u64,
    },
    /// The file has another length there, or never ends.
    #[error("it has a file of {found} bytes, expected {expected}")]
    Length {
        /// As asked for.
        expected: u64,
        /// As found, at least.
        found: u64,
    },
    /// It begins where nobody asked it to.
    #[error("it begins at byte {found}, expected {expected}")]
    Place {
        /// As asked for; from its beginning would do too.
        expected: u64,
        /// As it says.
        found: u64,
    },
    /// It has another file under this name.
    #[error("it has another file under this name, with tag {found}")]
    Another {
        /// The tag that it gave.
        found: String,
    },
}

impl OriginError {
    /// How bad that is.
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Length { .. } | Self::Place { .. } | Self::Another { .. } => Fault::Lied,
            _ => Fault::Failed,
        }
    }

    /// Whether it stopped in the middle of what it had to give, which is mostly the link's doing.
    pub(super) fn broke_off(&self) -> bool {
        match self {
            Self::Http(error) => error.status().is_none(),
            Self::Stream(_) | Self::Cut { .. } => !self.is_missing(),
            _ => false,
        }
    }

    /// Whether it says that there is no such file.
    pub(super) fn is_missing(&self) -> bool {
        match self {
            Self::Http(error) => error.status().is_some_and(|status| status.as_u16() == 404),
            Self::Stream(error) => matches!(error, StreamError::NotFound { .. }),
            _ => false,
        }
    }
}

/// Why a file came from nowhere.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Nobody to ask.
    #[error("no hub is known")]
    NoHub,
    /// All failed; what the last one said.
    #[error("{path} could not be fetched: {origin}")]
    Failed {
        /// Which file.
        path: String,
        /// The last one that was asked.
        origin: String,
        /// Why it did not work there.
        source: Box<OriginError>,
    },
    /// This device's disk.
    #[error("disk")]
    Disk(#[from] io::Error),
    /// What came is not what was released, wherever it came from; or it cannot be put in its place.
    #[error(transparent)]
    File(#[from] FileError),
}
