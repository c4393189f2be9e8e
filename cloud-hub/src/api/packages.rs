//! Package files by hash: streamed, in ranges, so that a device that lost the link goes on where it was.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tributary_wire::Sha256;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Path, Problem, State};
use crate::access::{Caller, Who, own};
use crate::hub::Hub;
use crate::registry::{RegistryError, versions};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(get))
}

const PIECE_BYTES: u64 = 64 << 10;

/// The package file of that hash, whole or one range of it.
#[utoipa::path(get, path = "/packages/{sha256}", tag = "models",
    security(("device" = []), ("token" = ["viewer"])),
    params(("sha256" = String, Path), ("Range" = Option<String>, Header)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304), (status = "default", body = Problem)))]
async fn get(hub: State, caller: Caller, Path(sha256): Path<Sha256>, headers: HeaderMap) -> Result<Response, Problem> {
    // Another device's package does not exist, as far as this one is concerned.
    if let Who::Device(device) = &caller.who
        && !own::has_package(hub.catalog.reader(), device, &sha256).await?
    {
        return Err(RegistryError::NoPackage(sha256).into());
    }
    // Only what a version names is served: a file that a crash left behind is nobody's.
    if !versions::has_package(&mut *hub.catalog.reader().acquire().await?, &sha256).await? {
        return Err(RegistryError::NoPackage(sha256).into());
    }
    let path = hub.packages.path(&sha256);
    let mut file =
        tokio::fs::File::open(&path).await.map_err(|error| anyhow::Error::new(error).context("open a package"))?;
    let length = file.metadata().await.map_err(anyhow::Error::new)?.len();
    let etag = format!("\"{sha256}\"");
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|tags| tags == "*" || tags.split(',').any(|tag| tag.trim() == etag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    // A range of another file than the one asked for would be garbage: then the whole file is sent.
    let same = text(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let range = match text(header::RANGE).filter(|_| same).map(|range| parse_range(range, length)) {
        None | Some(Asked::Whole) => None,
        Some(Asked::Part(first, last)) => Some((first, last)),
        Some(Asked::Outside) => {
            let detail = format!("the package has {length} bytes");
            let mut response = Problem::range_not_satisfiable(detail).into_response();
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{length}"));
            return Ok(response);
        }
    };
    let (first, last) = range.unwrap_or((0, length.saturating_sub(1)));
    let count = if length == 0 { 0 } else { last - first + 1 };
    file.seek(std::io::SeekFrom::Start(first)).await.map_err(anyhow::Error::new)?;
    let mut response = Response::new(Body::from_stream(pieces(file, count)));
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(&mut response, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{length}"));
    }
    set(&mut response, header::CONTENT_TYPE, "application/octet-stream");
    set(&mut response, header::CONTENT_LENGTH, &count.to_string());
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::ETAG, &etag);
    // A hash never names other content.
    set(&mut response, header::CACHE_CONTROL, "private, max-age=31536000, immutable");
    Ok(response)
}

fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn pieces(file: tokio::fs::File, count: u64) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> {
    futures_util::stream::try_unfold((file, count), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; left.min(PIECE_BYTES) as usize];
        let read = file.read(&mut piece).await?;
        if read == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        }
        piece.truncate(read);
        Ok(Some((Bytes::from(piece), (file, left - read as u64))))
    })
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Everything: no range, several, or a form we do not know; a server may always send everything.
    Whole,
    /// These bytes, both included.
    Part(u64, u64),
    /// Nothing that is there.
    Outside,
}

fn parse_range(header: &str, length: u64) -> Asked {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Asked::Whole;
    };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (first, last) {
        ("", last) => match number(last) {
            Some(0) => Asked::Outside,
            Some(_) if length == 0 => Asked::Outside,
            Some(count) => Asked::Part(length.saturating_sub(count), length - 1),
            None => Asked::Whole,
        },
        (first, last) => match (number(first), last.is_empty(), number(last)) {
            (Some(first), _, _) if first >= length => Asked::Outside,
            (Some(first), true, _) => Asked::Part(first, length - 1),
            (Some(first), false, Some(last)) if last >= first => Asked::Part(first, last.min(length - 1)),
            _ => Asked::Whole,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (header, expected) in [
            ("bytes=0-3", Asked::Part(0, 3)),
            ("bytes=4-", Asked::Part(4, 9)),
            ("bytes=4-99", Asked::Part(4, 9)),
            ("bytes=-3", Asked::Part(7, 9)),
            ("bytes=-99", Asked::Part(0, 9)),
            ("bytes=10-", Asked::Outside),
            ("bytes=-0", Asked::Outside),
            ("bytes=5-4", Asked::Whole),
            ("bytes=0-1,4-5", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("lines=0-1", Asked::Whole),
        ] {
            assert_eq!(parse_range(header, 10), expected, "{header}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Asked::Outside);
    }
}
