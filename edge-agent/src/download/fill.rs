//! Packages and patches: large, streamed to disk, continued where they end.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use edge_agent_core::download::Speed;
use tributary_wire::Sha256;

use super::error::{DownloadError, OriginError};
use super::status::Entry;
use super::{Givers, Origins};

/// A file as somebody trusted describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its path in the repository.
    pub path: String,
    /// Its length.
    pub length: u64,
    /// Its hash: it makes sure that pieces of one file are put together. The whole is checked by whoever asked for it.
    pub sha256: Sha256,
}

/// Where a file grows. Whatever touches the disk runs beside the runtime: a slow card holds nobody else up.
pub trait Sink: Send + 'static {
    /// How many bytes are there.
    fn written(&self) -> u64;
    /// Appends a piece.
    fn write(&mut self, piece: &[u8]) -> io::Result<()>;
    /// Begins again from nothing.
    fn restart(&mut self) -> io::Result<()>;
}

/// An origin that gave at least so much before it broke off is asked again at once: on a link that breaks every minute a
/// large file would otherwise wait longer and longer for each of its pieces.
const WORTH_ASKING_AGAIN: u64 = 64 << 10;

/// A sink whose work is done beside the runtime.
struct Beside<S> {
    /// None only while it works.
    sink: Option<S>,
    written: u64,
}

impl<S: Sink> Beside<S> {
    fn new(sink: S) -> Self {
        Self { written: sink.written(), sink: Some(sink) }
    }

    fn written(&self) -> u64 {
        self.written
    }

    async fn write(&mut self, piece: Bytes) -> io::Result<()> {
        self.work(move |sink| sink.write(&piece)).await
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.work(S::restart).await
    }

    async fn work(&mut self, work: impl FnOnce(&mut S) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let mut sink = self.sink.take().ok_or_else(|| io::Error::other("the file's last write did not end"))?;
        let worked = tokio::task::spawn_blocking(move || {
            let outcome = work(&mut sink);
            (sink, outcome)
        });
        let (sink, outcome) = worked.await.map_err(io::Error::other)?;
        self.written = sink.written();
        self.sink = Some(sink);
        outcome
    }

    /// Lets go of it, which makes durable what came.
    async fn close(self) {
        let closed = tokio::task::spawn_blocking(move || drop(self.sink)).await;
        if let Err(error) = closed {
            tracing::debug!(%error, "what came of a download is not durable");
        }
    }
}

/// How a visit to an origin ended.
enum Ended {
    Whole,
    /// The hours of the budget are over; it goes on from here when they begin again.
    Closed,
}

/// Why it ended otherwise.
enum Broken {
    Origin(OriginError),
    Disk(io::Error),
}

impl From<OriginError> for Broken {
    fn from(error: OriginError) -> Self {
        Self::Origin(error)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl Origins {
    /// Brings what is missing of a file, and gives the sink back once it is whole. What came stays also when nobody had
    /// all of it. Asks everybody once, and those again that gave a good part before they broke off.
    pub async fn fill<S: Sink>(&self, wanted: &Wanted, sink: S) -> Result<(S, Givers), DownloadError> {
        let (mut sink, mut givers) = (Beside::new(sink), Givers::default());
        let filled = self.fill_beside(wanted, &mut sink, &mut givers).await;
        match (filled, sink.sink.take()) {
            (Ok(()), Some(whole)) => Ok((whole, givers)),
            (Ok(()), None) => Err(io::Error::other("the file's last write did not end").into()),
            (Err(error), rest) => {
                Beside { sink: rest, ..sink }.close().await;
                Err(error)
            }
        }
    }

    async fn fill_beside<S: Sink>(
        &self,
        wanted: &Wanted,
        sink: &mut Beside<S>,
        givers: &mut Givers,
    ) -> Result<(), DownloadError> {
        if sink.written() > wanted.length {
            sink.restart().await?;
        }
        let entry = self.0.status.begin(&wanted.path, sink.written(), wanted.length);
        entry.waits("other downloads".to_owned());
        let _permit = self.0.at_once.acquire().await.map_err(io::Error::other)?;
        entry.goes_on();
        let (mut last, mut order) = (None, VecDeque::from(self.order()));
        while let Some(origin) = order.pop_front() {
            if sink.written() == wanted.length {
                break;
            }
            let (name, before) = (self.0.origins[origin].name(), sink.written());
            let ended = loop {
                self.0.purse.opened(&entry).await;
                entry.from(&name);
                match self.visit(origin, wanted, sink, &entry, givers).await {
                    Ok(Ended::Closed) => {}
                    ended => break ended,
                }
            };
            match ended {
                Ok(_) => self.worked(origin),
                Err(Broken::Disk(error)) => return Err(error.into()),
                Err(Broken::Origin(error)) => {
                    self.failed(origin, &wanted.path, &error);
                    if error.broke_off() && sink.written() >= before + WORTH_ASKING_AGAIN {
                        order.push_back(origin);
                    }
                    last = Some((name, error));
                }
            }
        }
        match last {
            _ if sink.written() == wanted.length => Ok(()),
            None => Err(DownloadError::NoHub),
            Some((origin, error)) => {
                Err(DownloadError::Failed { path: wanted.path.clone(), origin, source: Box::new(error) })
            }
        }
    }

    async fn visit<S: Sink>(
        &self,
        origin: usize,
        wanted: &Wanted,
        sink: &mut Beside<S>,
        entry: &Entry,
        givers: &mut Givers,
    ) -> Result<Ended, Broken> {
        let (place, config) = (&self.0.origins[origin], &self.0.config);
        let mut speed = Speed::new(config.slowest.0, config.slowest_over.0);
        let asked = sink.written();
        let mut body = place.open(&wanted.path, asked, Some(&wanted.sha256), config.patience.0).await?;
        if let Some(found) = body.length().filter(|length| *length != wanted.length) {
            return Err(OriginError::Length { expected: wanted.length, found }.into());
        }
        if let Some(found) = body.other_content(&wanted.sha256) {
            return Err(OriginError::Another { found }.into());
        }
        // One that cannot continue begins anew; what is here already is let pass.
        let mut place_in_file = body.start();
        if place_in_file != 0 && place_in_file != asked {
            return Err(OriginError::Place { expected: asked, found: place_in_file }.into());
        }
        while let Some(piece) = self.piece(&mut body, &mut speed).await? {
            let (first, bytes) = (place_in_file, piece.len() as u64);
            place_in_file += bytes;
            if place_in_file > wanted.length {
                // Nothing of what such a one gave is worth keeping.
                if givers.0.contains(&origin) {
                    sink.restart().await?;
                }
                return Err(OriginError::Length { expected: wanted.length, found: place_in_file }.into());
            }
            let known = sink.written().saturating_sub(first).min(bytes);
            if known < bytes {
                sink.write(piece.slice(known as usize..)).await?;
                givers.0.insert(origin);
            }
            entry.has(sink.written());
            self.0.metrics.received(place.kind(), bytes);
            self.0.purse.spend(bytes, entry).await;
            if sink.written() == wanted.length {
                return Ok(Ended::Whole);
            }
            if !self.0.purse.is_open() {
                return Ok(Ended::Closed);
            }
        }
        match sink.written() == wanted.length {
            true => Ok(Ended::Whole),
            false => Err(OriginError::Cut { expected: wanted.length, found: sink.written() }.into()),
        }
    }

    /// The next piece, from one that is fast enough.
    async fn piece(&self, body: &mut super::origin::Body, speed: &mut Speed) -> Result<Option<Bytes>, OriginError> {
        let began = self.now();
        let piece = body.chunk().await?;
        let waited = self.now().saturating_sub(began);
        let bytes = piece.as_ref().map_or(0, Bytes::len) as u64;
        speed
            .received(waited.max(Duration::from_micros(1)), bytes)
            .map_err(|found| OriginError::Slow { expected: self.0.config.slowest.0, found })?;
        Ok(piece)
    }
}
