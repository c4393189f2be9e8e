//! Patches as files of the repository: `patches/TO/index.json` and `patches/TO/FROM.FORMAT`.

use std::path::PathBuf;

use sqlx::SqliteConnection;
use tributary_release::digest;
use tributary_wire::Sha256;

use super::store;
use crate::access::own;
use crate::hub::Hub;
use crate::publish::PublishError;
use crate::publish::files::{Content, Found, Reader};

/// Where the patches to a package lie.
pub(super) fn folder(hub: &Hub, to: &Sha256) -> PathBuf {
    hub.data().join("patches").join(to.to_string())
}

/// A file below `patches/TO/`. A device gets those that lead to a package that it is or was assigned.
pub async fn open(
    hub: &Hub,
    catalog: &mut SqliteConnection,
    reader: &Reader,
    (to, name): (&Sha256, &str),
) -> Result<Option<Found>, PublishError> {
    if let Reader::Device(device) = reader
        && !own::has_package(&mut *catalog, device, to).await?
    {
        return Ok(None);
    }
    let rows = store::of_target(&mut *catalog, to).await?;
    if name == "index.json" {
        let bytes = store::index(&rows).encode();
        return Ok((!rows.is_empty()).then(|| Found {
            length: bytes.len() as u64,
            etag: digest(&bytes).to_string(),
            immutable: false,
            media: "application/json",
            content: Content::Bytes(bytes.into()),
        }));
    }
    let entry = rows.iter().filter_map(store::Stored::entry).find(|entry| entry.file_name() == name);
    Ok(entry.map(|entry| Found {
        length: entry.length,
        etag: entry.sha256.to_string(),
        // The same patch may be made anew, and with another program come out otherwise.
        immutable: false,
        media: "application/octet-stream",
        content: Content::File(folder(hub, to).join(name)),
    }))
}
