//! The repository on QUIC streams: what devices read beside their telemetry.

use std::io::SeekFrom;
use std::pin::Pin;
use std::sync::Arc;

use cloud_hub_gateway::{Files, OpenFile, Opened};
use tokio::io::{AsyncRead, AsyncSeekExt};
use tributary_wire::DeviceId;

use super::PublishError;
use super::files::{self, Content, Reader};
use crate::hub::Hub;

/// The files of the repository, as the gateway gives them to devices.
pub struct Streams(pub Arc<Hub>);

impl Files for Streams {
    fn open<'a>(
        &'a self,
        device: &'a DeviceId,
        path: &'a str,
        start: u64,
    ) -> Pin<Box<dyn Future<Output = Opened> + Send + 'a>> {
        Box::pin(async move {
            match open(&self.0, device, path, start).await {
                Ok(Some(file)) => Opened::Found(file),
                Ok(None) => Opened::NotFound,
                Err(error) => {
                    // What is wrong inside the hub is the hub's own matter.
                    tracing::error!(%device, path, %error, "a file of the repository could not be opened");
                    Opened::Refused("the hub cannot read its repository now".to_owned())
                }
            }
        })
    }
}

async fn open(hub: &Hub, device: &DeviceId, path: &str, start: u64) -> Result<Option<OpenFile>, PublishError> {
    let Some(found) = files::open(hub, &Reader::Device(device.clone()), path).await? else { return Ok(None) };
    let length = found.length;
    let start = if start > length { 0 } else { start };
    let reader: Box<dyn AsyncRead + Send + Unpin> = match found.content {
        Content::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes.slice(start as usize..))),
        Content::File(path) => {
            let mut file = tokio::fs::File::open(path).await.map_err(crate::registry::RegistryError::File)?;
            file.seek(SeekFrom::Start(start)).await.map_err(crate::registry::RegistryError::File)?;
            Box::new(file)
        }
    };
    Ok(Some(OpenFile { length, start, reader }))
}
