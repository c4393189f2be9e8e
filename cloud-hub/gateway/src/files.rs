//! Files on further QUIC streams of a device's connection, beside the stream that carries MQTT.
//!
//! Each stream asks for one file and gets it at a lower priority than MQTT, so that whatever telemetry and its
//! acknowledgements have to say goes first. What a device may read, [`Files`] decides; nothing is read of a stream before
//! the device was let in, and all of them end with its session.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tributary_wire::file::{FileAnswer, FileRequest, MAX_FILE_MESSAGE_BYTES};
use tributary_wire::{DecodeError, DeviceId};

use crate::FileLimits;
use crate::pace::Pace;
use crate::session::Rim;
use crate::tally::Refusal;

/// Bytes that are read, counted and written at once.
const PIECE_BYTES: usize = 16 << 10;
/// MQTT's stream has 0.
const PRIORITY: i32 = -1;
/// What a stream is reset with: the device asked for nothing that can be understood; it took nothing for too long; the
/// hub could not read on.
const RESETS: [VarInt; 3] = [VarInt::from_u32(1), VarInt::from_u32(2), VarInt::from_u32(3)];

/// A file from one of its bytes on.
pub struct OpenFile {
    /// Length of the whole file.
    pub length: u64,
    /// The byte that the reader begins with: as asked, or 0.
    pub start: u64,
    /// The bytes from there to the end.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("length", &self.length).field("start", &self.start).finish_non_exhaustive()
    }
}

/// What becomes of a request for a file.
#[derive(Debug)]
pub enum Opened {
    /// Here it is.
    Found(OpenFile),
    /// There is no such file for this device.
    NotFound,
    /// It cannot be answered now; in words, why.
    Refused(String),
}

/// The files that devices may ask for.
pub trait Files: Send + Sync + 'static {
    /// A file by its path, from byte `start` on, as this device may have it. A file that is shorter is opened from 0.
    fn open<'a>(
        &'a self,
        device: &'a DeviceId,
        path: &'a str,
        start: u64,
    ) -> Pin<Box<dyn Future<Output = Opened> + Send + 'a>>;
}

/// Where there are none.
pub(crate) struct NoFiles;

impl Files for NoFiles {
    fn open<'a>(&'a self, _: &'a DeviceId, _: &'a str, _: u64) -> Pin<Box<dyn Future<Output = Opened> + Send + 'a>> {
        Box::pin(std::future::ready(Opened::NotFound))
    }
}

/// Serves the further streams of a connection once its device has its place; never returns before the connection ends.
pub(crate) async fn serve(connection: Connection, seated: oneshot::Receiver<DeviceId>, rim: &Arc<Rim>) {
    let Ok(device) = seated.await else { return std::future::pending().await };
    let device = Arc::new(device);
    let pace = Arc::new(Mutex::new(Pace::new(rim.limits.files.bytes_per_second, Instant::now())));
    // The transport lets no more of them be open at once than the limit says.
    let mut streams = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = streams.join_next(), if !streams.is_empty() => continue,
            accepted = connection.accept_bi() => accepted,
        };
        let Ok((send, receive)) = accepted else { return std::future::pending().await };
        let (device, pace, rim) = (device.clone(), pace.clone(), rim.clone());
        streams.spawn(async move { one(send, receive, &device, &pace, &rim).await });
    }
}

/// Why a stream came to no good end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("a file request of {found} bytes, at most {MAX_FILE_MESSAGE_BYTES} are taken")]
    Long { found: usize },
    #[error("no whole file request in time")]
    Late,
    #[error("file request: {0}")]
    Unreadable(#[from] DecodeError),
    #[error("it did not take {PIECE_BYTES} bytes of a file in {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("a file broke off after {found} of {expected} bytes: {why}")]
    Broken { expected: u64, found: u64, why: String },
    /// The device is not interested any more.
    #[error("the device closed the stream")]
    Closed,
}

async fn one(mut send: SendStream, receive: RecvStream, device: &DeviceId, pace: &Mutex<Pace>, rim: &Rim) {
    let _ = send.set_priority(PRIORITY);
    let Err(fault) = answer(&mut send, receive, device, pace, rim).await else { return };
    let code = match &fault {
        Fault::Long { .. } | Fault::Late | Fault::Unreadable(_) => {
            rim.connections.tally().refused(Refusal::Protocol, device, &fault);
            RESETS[0]
        }
        Fault::Stalled(_) => {
            rim.connections.tally().refused(Refusal::SlowReader, device, &fault);
            RESETS[1]
        }
        Fault::Broken { .. } => {
            tracing::error!(%device, %fault, "a file could not be sent");
            RESETS[2]
        }
        Fault::Closed => return,
    };
    // Without this the end of what was sent would look like the end of the file.
    let _ = send.reset(code);
}

async fn answer(
    send: &mut SendStream,
    receive: RecvStream,
    device: &DeviceId,
    pace: &Mutex<Pace>,
    rim: &Rim,
) -> Result<(), Fault> {
    let limits = &rim.limits.files;
    let FileRequest::V1 { path, start } =
        timeout(rim.limits.handshake, read_request(receive)).await.map_err(|_| Fault::Late)??;
    let file = match rim.files.open(device, &path, start).await {
        Opened::Found(file) => file,
        Opened::NotFound => return tell(send, &FileAnswer::NotFound, limits).await,
        Opened::Refused(why) => {
            let why = why.chars().take(MAX_FILE_MESSAGE_BYTES / 8).collect();
            return tell(send, &FileAnswer::Refused(why), limits).await;
        }
    };
    let OpenFile { length, start, mut reader } = file;
    tell(send, &FileAnswer::Found { length, start }, limits).await?;
    let (mut sent, mut piece) = (start, vec![0; PIECE_BYTES]);
    while sent < length {
        let most = piece.len().min((length - sent).try_into().unwrap_or(usize::MAX));
        let broken = |why: String| Fault::Broken { expected: length, found: sent, why };
        let read = reader.read(&mut piece[..most]).await.map_err(|error| broken(error.to_string()))?;
        if read == 0 {
            return Err(broken("it became shorter".to_owned()));
        }
        let wait = pace.lock().await.take(read, Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
        write(send, &piece[..read], limits).await?;
        rim.connections.tally().count_file_bytes(read as u64);
        sent += read as u64;
    }
    let _ = send.finish();
    Ok(())
}

async fn tell(send: &mut SendStream, answer: &FileAnswer, limits: &FileLimits) -> Result<(), Fault> {
    let bytes = answer.encode();
    let length = (bytes.len() as u16).to_le_bytes();
    write(send, &[&length[..], &bytes].concat(), limits).await
}

async fn write(send: &mut SendStream, bytes: &[u8], limits: &FileLimits) -> Result<(), Fault> {
    match timeout(limits.stall, send.write_all(bytes)).await {
        Ok(written) => written.map_err(|_| Fault::Closed),
        Err(_) => Err(Fault::Stalled(limits.stall)),
    }
}

/// One request behind its length; what follows it is not looked at.
pub(crate) async fn read_request(mut receive: impl AsyncRead + Unpin) -> Result<FileRequest, Fault> {
    let mut head = [0; 2];
    receive.read_exact(&mut head).await.map_err(|_| Fault::Closed)?;
    let found = usize::from(u16::from_le_bytes(head));
    if found > MAX_FILE_MESSAGE_BYTES {
        return Err(Fault::Long { found });
    }
    let mut bytes = vec![0; found];
    receive.read_exact(&mut bytes).await.map_err(|_| Fault::Closed)?;
    Ok(FileRequest::decode(&bytes)?)
}
