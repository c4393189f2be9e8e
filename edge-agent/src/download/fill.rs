//! Packages and patches: large, streamed to disk, continued where they end.

use std::io;
use std::time::Duration;

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

/// Where a file grows.
pub trait Sink: Send {
    /// How many bytes are there.
    fn written(&self) -> u64;
    /// Appends a piece.
    fn write(&mut self, piece: &[u8]) -> io::Result<()>;
    /// Begins again from nothing.
    fn restart(&mut self) -> io::Result<()>;
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
    /// Brings what is missing of a file. Asks everybody at most once; what came stays also when nobody had all of it.
    pub async fn fill(&self, wanted: &Wanted, sink: &mut dyn Sink) -> Result<Givers, DownloadError> {
        let mut givers = Givers::default();
        if sink.written() > wanted.length {
            sink.restart()?;
        }
        let entry = self.0.status.begin(&wanted.path, sink.written(), wanted.length);
        entry.waits("other downloads".to_owned());
        let _permit = self.0.at_once.acquire().await.map_err(io::Error::other)?;
        entry.goes_on();
        let mut last = None;
        for origin in self.order() {
            if sink.written() == wanted.length {
                break;
            }
            let name = self.0.origins[origin].name();
            let ended = loop {
                self.0.purse.opened(&entry).await;
                entry.from(&name);
                match self.visit(origin, wanted, sink, &entry, &mut givers).await {
                    Ok(Ended::Closed) => {}
                    ended => break ended,
                }
            };
            match ended {
                Ok(_) => self.worked(origin),
                Err(Broken::Disk(error)) => return Err(error.into()),
                Err(Broken::Origin(error)) => {
                    self.failed(origin, &wanted.path, &error);
                    last = Some((name, error));
                }
            }
        }
        match last {
            _ if sink.written() == wanted.length => Ok(givers),
            None => Err(DownloadError::NoHub),
            Some((origin, error)) => {
                Err(DownloadError::Failed { path: wanted.path.clone(), origin, source: Box::new(error) })
            }
        }
    }

    async fn visit(
        &self,
        origin: usize,
        wanted: &Wanted,
        sink: &mut dyn Sink,
        entry: &Entry,
        givers: &mut Givers,
    ) -> Result<Ended, Broken> {
        let (place, config) = (&self.0.origins[origin], &self.0.config);
        let mut speed = Speed::new(config.slowest.0, config.slowest_over.0);
        let mut body = place.open(&wanted.path, sink.written(), Some(&wanted.sha256), config.patience.0).await?;
        if let Some(found) = body.length().filter(|length| *length != wanted.length) {
            return Err(OriginError::Length { expected: wanted.length, found }.into());
        }
        if let Some(found) = body.other_content(&wanted.sha256) {
            return Err(OriginError::Another { found }.into());
        }
        // One that cannot continue begins anew; what is here already is let pass.
        let mut place_in_file = body.start();
        while let Some(piece) = self.piece(&mut body, &mut speed).await? {
            let (first, bytes) = (place_in_file, piece.len() as u64);
            place_in_file += bytes;
            if place_in_file > wanted.length {
                // Nothing of what such a one gave is worth keeping.
                if givers.0.contains(&origin) {
                    sink.restart()?;
                }
                return Err(OriginError::Length { expected: wanted.length, found: place_in_file }.into());
            }
            let known = sink.written().saturating_sub(first).min(bytes);
            if known < bytes {
                sink.write(&piece[known as usize..])?;
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
    async fn piece(
        &self,
        body: &mut super::origin::Body,
        speed: &mut Speed,
    ) -> Result<Option<bytes::Bytes>, OriginError> {
        let began = self.now();
        let piece = body.chunk().await?;
        let waited = self.now().saturating_sub(began);
        let bytes = piece.as_ref().map_or(0, bytes::Bytes::len) as u64;
        speed
            .received(waited.max(Duration::from_micros(1)), bytes)
            .map_err(|found| OriginError::Slow { expected: self.0.config.slowest.0, found })?;
        Ok(piece)
    }
}
