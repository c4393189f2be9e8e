//! Files from the hub on streams beside MQTT, for whoever fetches them while a connection over QUIC stands.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tributary_wire::DecodeError;
use tributary_wire::file::{FileAnswer, FileRequest, MAX_FILE_MESSAGE_BYTES};

use super::quic::{Incoming, Lifeline};

/// Bytes that are taken from the network at once.
const PIECE_BYTES: usize = 64 << 10;

/// The connection that stands, if one does; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct FileStreams(Arc<Mutex<Option<Lifeline>>>);

/// Why a file does not come this way.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No connection over QUIC stands.
    #[error("no connection over QUIC stands")]
    NotConnected,
    /// There is no such file for this device.
    #[error("the hub has no file {path:?} for this device")]
    NotFound {
        /// Which.
        path: String,
    },
    /// The hub does not give it now.
    #[error("the hub says: {0}")]
    Refused(String),
    /// Nothing came.
    #[error("nothing came over QUIC within {} ms", .0.as_millis())]
    Silent(Duration),
    /// The stream or the connection broke.
    #[error("stream")]
    Broken(#[source] io::Error),
    /// The answer is too long.
    #[error("an answer of {found} bytes, at most {MAX_FILE_MESSAGE_BYTES} are expected")]
    LongAnswer {
        /// Its length.
        found: usize,
    },
    /// The answer cannot be read.
    #[error("answer")]
    Unreadable(#[from] DecodeError),
}

impl FileStreams {
    /// What files come over from now on; none: nothing.
    pub(super) fn over(&self, connection: Option<Lifeline>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    fn current(&self) -> Option<Lifeline> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a connection over QUIC stands.
    pub fn are_open(&self) -> bool {
        self.current().is_some_and(|connection| connection.is_open())
    }

    /// Asks for a file from byte `start` on. Neither this nor the wait for each piece takes longer than `patience`.
    pub async fn open(&self, path: &str, start: u64, patience: Duration) -> Result<FileStream, StreamError> {
        let connection = self.current().filter(Lifeline::is_open).ok_or(StreamError::NotConnected)?;
        let asked = async {
            let request = FileRequest::V1 { path: path.to_owned(), start }.encode();
            let length = (request.len() as u16).to_le_bytes();
            let mut incoming = connection.ask(&[&length[..], &request].concat()).await.map_err(StreamError::Broken)?;
            let mut length = [0; 2];
            incoming.read_exact(&mut length).await.map_err(StreamError::Broken)?;
            let found = usize::from(u16::from_le_bytes(length));
            if found > MAX_FILE_MESSAGE_BYTES {
                return Err(StreamError::LongAnswer { found });
            }
            let mut answer = vec![0; found];
            incoming.read_exact(&mut answer).await.map_err(StreamError::Broken)?;
            Ok((FileAnswer::decode(&answer)?, incoming))
        };
        match timeout(patience, asked).await.map_err(|_| StreamError::Silent(patience))?? {
            (FileAnswer::Found { length, start }, incoming) => Ok(FileStream { length, start, patience, incoming }),
            (FileAnswer::NotFound, _) => Err(StreamError::NotFound { path: path.to_owned() }),
            (FileAnswer::Refused(why), _) => Err(StreamError::Refused(why)),
        }
    }
}

/// A file that comes.
#[derive(Debug)]
pub struct FileStream {
    /// Length of the whole file, as the hub says.
    pub length: u64,
    /// The byte that it begins with.
    pub start: u64,
    patience: Duration,
    incoming: Incoming,
}

impl FileStream {
    /// The next piece; `None` at the end, which may come too early.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, StreamError> {
        let piece = timeout(self.patience, self.incoming.piece(PIECE_BYTES)).await;
        piece.map_err(|_| StreamError::Silent(self.patience))?.map_err(StreamError::Broken)
    }
}

#[cfg(test)]
impl FileStreams {
    /// Over a connection of its own, which stands as long as the second value lives.
    pub(crate) async fn dialled(
        settings: Arc<crate::identity::TlsSettings>,
        address: std::net::SocketAddr,
    ) -> (Self, Box<dyn Send>) {
        let quic = super::quic::Quic::new(Duration::from_secs(60));
        let stream = quic.connect(settings, address, "127.0.0.1").await.unwrap();
        let streams = Self::default();
        streams.over(Some(stream.lifeline()));
        (streams, Box::new((quic, stream)))
    }
}
