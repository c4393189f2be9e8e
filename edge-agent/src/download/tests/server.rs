//! Origins with accidents on demand: over HTTP, HTTPS and QUIC, each with real sockets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use tokio::task::JoinHandle;
use tributary_identity::Authority;
use tributary_identity::tls::{ALPN_HTTP, ALPN_MQTT, Clients, hub_server};
use tributary_wire::file::{FileAnswer, FileRequest};

use crate::identity::tests::hub::{Tls, shown};

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Accident {
    /// The connection breaks after so many bytes.
    Cut(usize),
    /// One byte is another.
    Spoiled,
    /// A byte now and then.
    Trickle,
    /// Everything from the beginning, whatever was asked for.
    IgnoresRanges,
    /// Over QUIC: it says that it begins there, wherever that is.
    Begins(u64),
    /// It never ends, and does not say how long it is.
    Endless,
    /// It is longer, and says so.
    Longer,
    /// It has another file, and its tag.
    Another,
    Missing,
}

#[derive(Default)]
struct Shelf {
    file: Vec<u8>,
    tag: String,
    accidents: Vec<Accident>,
    /// From which byte on the file was asked for, and which path.
    asked: Vec<(u64, String)>,
}

/// One origin; it serves one file under every path.
pub(super) struct Server {
    shelf: Arc<Mutex<Shelf>>,
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn shelf(file: &[u8], accidents: &[Accident]) -> Arc<Mutex<Shelf>> {
    let tag = format!("\"{}\"", tributary_release::digest(file));
    Arc::new(Mutex::new(Shelf { file: file.to_vec(), tag, accidents: accidents.to_vec(), asked: Vec::new() }))
}

impl Server {
    /// A mirror without encryption. The accidents happen one answer after the other; the last one stays.
    pub(super) async fn plain(file: &[u8], accidents: &[Accident]) -> Self {
        let shelf = shelf(file, accidents);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shelf.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { shelf, address, task }
    }

    /// With a certificate of this authority, for its devices alone or for everybody.
    pub(super) async fn secure(file: &[u8], accidents: &[Accident], authority: &Authority, clients: Clients) -> Self {
        let shelf = shelf(file, accidents);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shelf.clone());
        let believed = [authority.certificate().clone()];
        let settings = hub_server(shown(authority, &["127.0.0.1"]), &believed, clients, ALPN_HTTP).unwrap();
        let task = tokio::spawn(async move { axum::serve(Tls::new(listener, settings), router).await.unwrap() });
        Self { shelf, address, task }
    }

    /// Streams of a QUIC connection.
    pub(super) async fn quic(file: &[u8], accidents: &[Accident], authority: &Authority) -> Self {
        let shelf = shelf(file, accidents);
        let believed = [authority.certificate().clone()];
        let settings = hub_server(shown(authority, &["127.0.0.1"]), &believed, Clients::Required, ALPN_MQTT).unwrap();
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(settings).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = endpoint.local_addr().unwrap();
        let of_task = shelf.clone();
        let task = tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(connection) = incoming.await else { continue };
                let shelf = of_task.clone();
                tokio::spawn(async move {
                    while let Ok((send, receive)) = connection.accept_bi().await {
                        tokio::spawn(stream_answer(shelf.clone(), send, receive));
                    }
                });
            }
        });
        Self { shelf, address, task }
    }

    /// Gives tags of another kind from now on, as plain web servers do.
    pub(super) fn forget_tag(&self) {
        self.shelf.lock().unwrap().tag = "\"5f3-61\"".into();
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/copy/", self.address)
    }

    /// From where the file was asked for, in order.
    pub(super) fn starts(&self) -> Vec<u64> {
        self.shelf.lock().unwrap().asked.iter().map(|(start, _)| *start).collect()
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.shelf.lock().unwrap().asked.iter().map(|(_, path)| path.clone()).collect()
    }
}

/// The next accident, and the file and tag as they are given with it.
fn next(shelf: &Mutex<Shelf>, start: u64, path: String) -> (Option<Accident>, Vec<u8>, String) {
    let mut shelf = shelf.lock().unwrap();
    shelf.asked.push((start, path));
    let accident = match shelf.accidents.len() {
        0 | 1 => shelf.accidents.first().copied(),
        _ => Some(shelf.accidents.remove(0)),
    };
    let (mut file, mut tag) = (shelf.file.clone(), shelf.tag.clone());
    match accident {
        Some(Accident::Spoiled) => *file.last_mut().unwrap() ^= 1,
        Some(Accident::Longer) => file.push(0),
        Some(Accident::Another) => {
            file.fill(9);
            tag = format!("\"{}\"", tributary_release::digest(&file));
        }
        _ => {}
    }
    (accident, file, tag)
}

async fn answer(State(shelf): State<Arc<Mutex<Shelf>>>, request: Request) -> Response {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let range = text(header::RANGE);
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    let (accident, file, tag) = next(&shelf, start, request.uri().path().to_owned());
    let same = text(header::IF_RANGE).is_none_or(|asked| asked == tag);
    let start = if accident == Some(Accident::IgnoresRanges) || !same { 0 } else { start as usize };
    let rest = Bytes::from(file[start..].to_vec());
    let broken = || {
        stream::once(async {
            // What was sent leaves while the body has nothing more to give.
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(std::io::Error::other("cut"))
        })
    };
    let length = (header::CONTENT_LENGTH, rest.len().to_string());
    let body = match accident {
        Some(Accident::Missing) => return StatusCode::NOT_FOUND.into_response(),
        Some(Accident::Cut(after)) => {
            let sent = rest.slice(..after.min(rest.len()));
            return part(start, &file, tag, Some(length), Body::from_stream(stream::iter([Ok(sent)]).chain(broken())));
        }
        Some(Accident::Trickle) => Body::from_stream(stream::iter(rest).then(|byte| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![byte]))
        })),
        Some(Accident::Endless) => {
            let noise = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![7; 4096])));
            return Body::from_stream(stream::iter([Ok(rest.slice(..rest.len() / 2))]).chain(noise)).into_response();
        }
        _ => Body::from(rest),
    };
    part(start, &file, tag, Some(length), body)
}

fn part(start: usize, file: &[u8], tag: String, length: Option<(header::HeaderName, String)>, body: Body) -> Response {
    let mut response = match start {
        0 => body.into_response(),
        _ => {
            let range = format!("bytes {start}-{}/{}", file.len() - 1, file.len());
            (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], body).into_response()
        }
    };
    response.headers_mut().insert(header::ETAG, tag.parse().unwrap());
    if let Some((name, length)) = length {
        response.headers_mut().insert(name, length.parse().unwrap());
    }
    response
}

async fn stream_answer(shelf: Arc<Mutex<Shelf>>, mut send: quinn::SendStream, mut receive: quinn::RecvStream) {
    let request = receive.read_to_end(2048).await.unwrap();
    let FileRequest::V1 { path, start } = FileRequest::decode(&request[2..]).unwrap();
    let (accident, file, _) = next(&shelf, start, path);
    let start = if accident == Some(Accident::IgnoresRanges) { 0 } else { start };
    let answer = match accident {
        Some(Accident::Missing) => FileAnswer::NotFound,
        Some(Accident::Begins(start)) => FileAnswer::Found { length: file.len() as u64, start },
        _ => FileAnswer::Found { length: file.len() as u64, start },
    };
    let answer = answer.encode();
    let _ = send.write_all(&[&(answer.len() as u16).to_le_bytes()[..], &answer].concat()).await;
    let rest = &file[start as usize..];
    match accident {
        Some(Accident::Missing) => {}
        Some(Accident::Cut(after)) => drop(send.write_all(&rest[..after.min(rest.len())]).await),
        Some(Accident::Trickle) => {
            for byte in rest {
                if send.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Some(Accident::Endless) => {
            let _ = send.write_all(&rest[..rest.len() / 2]).await;
            while send.write_all(&[7; 4096]).await.is_ok() {}
        }
        _ => drop(send.write_all(rest).await),
    }
    let _ = send.finish();
}
