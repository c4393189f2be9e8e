//! A file as an answer: whole or one range of it, so that whoever lost the link goes on where it was.

use std::path::Path;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::Problem;
use crate::publish::files::{Content, Found};

const PIECE_BYTES: u64 = 64 << 10;

/// What of a file is sent.
enum Sent {
    NotModified,
    Whole,
    Part(u64, u64),
    Outside,
}

fn decide(asked: &HeaderMap, etag: &str, length: u64) -> Sent {
    let text = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|tags| tags == "*" || tags.split(',').any(|tag| tag.trim() == etag)) {
        return Sent::NotModified;
    }
    // A range of another file than the one asked for would be garbage: then the whole file is sent.
    let same = text(header::IF_RANGE).is_none_or(|tag| tag == etag);
    match text(header::RANGE).filter(|_| same).map(|range| parse_range(range, length)) {
        None | Some(Asked::Whole) => Sent::Whole,
        Some(Asked::Part(first, last)) => Sent::Part(first, last),
        Some(Asked::Outside) => Sent::Outside,
    }
}

/// The answer to a request for a file that was found.
pub(super) async fn answer(found: Found, asked: &HeaderMap) -> Result<Response, Problem> {
    let Found { length, etag, immutable, media, content } = found;
    let etag = format!("\"{etag}\"");
    // What carries its hash or version in its name never changes; the newest timestamp may change at any time.
    let cache = if immutable { "private, max-age=31536000, immutable" } else { "private, no-cache" };
    let (status, first, count) = match decide(asked, &etag, length) {
        Sent::NotModified => {
            let headers = [(header::ETAG, etag), (header::CACHE_CONTROL, cache.to_owned())];
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        Sent::Outside => {
            let mut response = Problem::range_not_satisfiable(format!("the file has {length} bytes")).into_response();
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{length}"));
            return Ok(response);
        }
        Sent::Whole => (StatusCode::OK, 0, length),
        Sent::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
    };
    let body = match content {
        Content::Bytes(bytes) => Body::from(bytes.slice(first as usize..(first + count) as usize)),
        Content::File(path) => Body::from_stream(open(&path, first, count).await?),
    };
    let mut response = (status, body).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        set(&mut response, header::CONTENT_RANGE, &format!("bytes {first}-{}/{length}", first + count - 1));
    }
    set(&mut response, header::CONTENT_TYPE, media);
    set(&mut response, header::CONTENT_LENGTH, &count.to_string());
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::ETAG, &etag);
    set(&mut response, header::CACHE_CONTROL, cache);
    Ok(response)
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

async fn open(
    path: &Path,
    first: u64,
    count: u64,
) -> Result<impl futures_util::Stream<Item = std::io::Result<Bytes>> + use<>, Problem> {
    let context = |error| anyhow::Error::new(error).context(format!("read {}", path.display()));
    let mut file = tokio::fs::File::open(path).await.map_err(context)?;
    file.seek(std::io::SeekFrom::Start(first)).await.map_err(context)?;
    Ok(pieces(file, count))
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
