//! A small HTTP/1.1 client over TCP, TLS or a Unix socket, with time-outs, size limits and errors that name the peer.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
pub use hyper::header::AUTHORIZATION;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://host:port`
    Tcp(String),
    /// `https://host:port`
    Tls(String),
    /// `unix:/path/to/socket`
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let (rest, port, endpoint): (_, _, fn(String) -> Self) = match text.split_once("://") {
            Some(("http", rest)) => (rest, 80, Self::Tcp),
            Some(("https", rest)) => (rest, 443, Self::Tls),
            _ => ("", 0, Self::Tcp),
        };
        let authority = rest.trim_end_matches('/');
        if authority.is_empty() || authority.contains('/') {
            return Err(format!(
                "{text:?} is not an address such as https://hub.example:8443, http://127.0.0.1:8080 or \
                 unix:/run/edge-agent.sock"
            ));
        }
        let given = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(endpoint(if given { authority.into() } else { format!("{authority}:{port}") }))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Tls(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a call gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or the connection broke.
    #[error("could not reach {endpoint}")]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{endpoint} gave no answer within {} ms", after.as_millis())]
    TimedOut {
        /// Where.
        endpoint: Endpoint,
        /// How long was waited.
        after: Duration,
    },
    /// The answer is not what it should be: too large, not JSON, another shape.
    #[error("{endpoint} gave an answer that could not be read: {problem}")]
    Malformed {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong with it.
        problem: String,
    },
    /// The server refused, in its own words.
    #[error("{status}: {detail}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// The `detail` of its problem document, else its body.
        detail: String,
        /// The whole body.
        body: Bytes,
    },
}

impl ClientError {
    /// The status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    endpoint: Endpoint,
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Response {
    /// Reads the body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| ClientError::Malformed { endpoint: self.endpoint.clone(), problem: error.to_string() })
    }

    /// The answer itself, or its refusal as an error.
    pub fn accepted(self) -> Result<Self, ClientError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let problem: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let words = problem.as_ref().and_then(|p| {
            p.get("detail").or_else(|| p.get("error")).or_else(|| p.get("title")).and_then(|v| v.as_str())
        });
        let detail = match words {
            Some(words) => words.to_owned(),
            None => String::from_utf8_lossy(&self.body).chars().take(500).collect(),
        };
        Err(ClientError::Refused { status: self.status, detail, body: self.body })
    }
}

/// Calls one server. Each call opens its own connection: operators' commands and downloads are rare.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    body_limit: usize,
    headers: HeaderMap,
    tls: Option<Arc<ClientConfig>>,
}

impl Client {
    /// A client with a 30 s time-out and a 64 MiB limit on answers.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, timeout: Duration::from_secs(30), body_limit: 64 << 20, headers: HeaderMap::new(), tls: None }
    }

    /// With another time-out for a whole call.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// With another limit on the size of an answer.
    pub fn with_body_limit(self, bytes: usize) -> Self {
        Self { body_limit: bytes, ..self }
    }

    /// With a header on every request.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With these TLS settings, without which an `https` endpoint cannot be reached.
    pub fn with_tls(self, config: Arc<ClientConfig>) -> Self {
        Self { tls: Some(config), ..self }
    }

    /// Where it calls.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// GET, with the answer's JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, "", Bytes::new()).await?.accepted()?.json()
    }

    /// Sends JSON and reads JSON.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Malformed {
            endpoint: self.endpoint.clone(),
            problem: format!("the request is not JSON: {error}"),
        })?;
        self.send(method, path, "application/json", body.into()).await?.accepted()?.json()
    }

    /// Sends any body and returns the whole answer, refusals included.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Response, ClientError> {
        let exchange = async {
            let (status, headers, body) = self.exchange(method, path, content_type, body, &[]).await?;
            let body = Limited::new(body, self.body_limit).collect().await.map_err(|error| ClientError::Malformed {
                endpoint: self.endpoint.clone(),
                problem: error.to_string(),
            })?;
            Ok(Response { endpoint: self.endpoint.clone(), status, headers, body: body.to_bytes() })
        };
        self.within_timeout(exchange).await
    }

    /// Starts a download from byte `start` on. The time-out covers the wait for the head, and then for each chunk.
    pub async fn download(&self, path: &str, start: u64) -> Result<Download, ClientError> {
        self.resume(path, start, None).await
    }

    /// Likewise, but with an entity tag only a file of this tag is continued; of another one everything comes.
    pub async fn resume(&self, path: &str, start: u64, if_tag: Option<&str>) -> Result<Download, ClientError> {
        let range = format!("bytes={start}-");
        let mut extra: Vec<(&str, &str)> = if start > 0 { vec![("range", &range)] } else { Vec::new() };
        extra.extend(if_tag.filter(|_| start > 0).map(|tag| ("if-range", tag)));
        let exchange = self.exchange(Method::GET, path, "", Bytes::new(), &extra);
        let (status, headers, body) = self.within_timeout(exchange).await?;
        if !status.is_success() {
            let body = self.within_timeout(async { Ok(Limited::new(body, 1 << 16).collect().await) }).await?;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let response = Response { endpoint: self.endpoint.clone(), status, headers, body };
            return Err(response.accepted().err().unwrap_or_else(|| self.malformed("neither success nor refusal")));
        }
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        // A server may ignore the range and send everything.
        let (start, length) = if status == StatusCode::PARTIAL_CONTENT {
            let sent = text(CONTENT_RANGE).and_then(sent_range);
            match sent.filter(|(first, _)| *first == start) {
                Some(sent) => sent,
                None => {
                    let found = text(CONTENT_RANGE).unwrap_or("none");
                    let problem = format!("the range is {found:?}, asked for was {range:?}");
                    return Err(self.malformed(&problem));
                }
            }
        } else {
            (0, text(CONTENT_LENGTH).and_then(|length| length.parse().ok()))
        };
        Ok(Download { client: self.clone(), start, length, headers, body })
    }

    fn malformed(&self, problem: &str) -> ClientError {
        ClientError::Malformed { endpoint: self.endpoint.clone(), problem: problem.into() }
    }

    fn unreachable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Unreachable { endpoint: self.endpoint.clone(), source: source.into() }
    }

    async fn within_timeout<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let after = self.timeout;
        let timed_out = || ClientError::TimedOut { endpoint: self.endpoint.clone(), after };
        tokio::time::timeout(after, work).await.map_err(|_| timed_out())?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
        extra: &[(&str, &str)],
    ) -> Result<(StatusCode, HeaderMap, Incoming), ClientError> {
        let host = match &self.endpoint {
            Endpoint::Tcp(authority) | Endpoint::Tls(authority) => authority.as_str(),
            Endpoint::Unix(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| self.malformed(&error.to_string()))?;
        match &self.endpoint {
            Endpoint::Tcp(authority) => self.over(self.connect(authority).await?, request).await,
            Endpoint::Tls(authority) => {
                let config = self.tls.clone().ok_or_else(|| self.unreachable("no certificates to trust are known"))?;
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(name).map_err(|error| self.unreachable(error))?;
                let stream = self.connect(authority).await?;
                let stream = TlsConnector::from(config).connect(name, stream).await;
                self.over(stream.map_err(|error| self.unreachable(error))?, request).await
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| self.unreachable(error))?;
                self.over(stream, request).await
            }
        }
    }

    async fn connect(&self, authority: &str) -> Result<TcpStream, ClientError> {
        let stream = TcpStream::connect(authority).await.map_err(|error| self.unreachable(error))?;
        stream.set_nodelay(true).map_err(|error| self.unreachable(error))?;
        Ok(stream)
    }

    async fn over<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap, Incoming), ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(error))?;
        // Drives the connection until the body is read or dropped; its errors surface in the body.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(|error| self.unreachable(error))?;
        let (head, body) = response.into_parts();
        Ok((head.status, head.headers, body))
    }
}

/// A download in progress.
#[derive(Debug)]
pub struct Download {
    client: Client,
    /// Offset of the first byte that comes.
    pub start: u64,
    /// Length of the whole file, if the server says so.
    pub length: Option<u64>,
    /// Headers of the answer.
    pub headers: HeaderMap,
    body: Incoming,
}

impl Download {
    /// The next piece; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let client = self.client.clone();
        let next = async {
            loop {
                match self.body.frame().await {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(client.unreachable(error)),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some(data));
                        }
                    }
                }
            }
        };
        client.within_timeout(next).await
    }
}

/// First byte and whole length of `bytes 5-9/10`.
fn sent_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, length) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, length.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn answering(answer: &'static str) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Client::new(format!("http://{address}").parse().unwrap())
    }

    #[tokio::test]
    async fn json_is_read_and_a_refusal_keeps_the_servers_words() {
        let client = answering("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}").await;
        assert_eq!(client.get::<serde_json::Value>("/").await.unwrap()["a"], 1);
        let problem = "HTTP/1.1 404 Not Found\r\ncontent-length: 30\r\n\r\n{\"detail\":\"no device edge-9\"}\r\n";
        let error = answering(problem).await.get::<serde_json::Value>("/").await.unwrap_err();
        assert_eq!(error.to_string(), "404 Not Found: no device edge-9");
    }

    #[tokio::test]
    async fn silence_and_absence_are_different_errors() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint: Endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let client = Client::new(endpoint).with_timeout(Duration::from_millis(50));
        assert!(matches!(client.get::<()>("/").await, Err(ClientError::TimedOut { .. })));
        drop(listener);
        assert!(matches!(client.get::<()>("/").await, Err(ClientError::Unreachable { .. })));
    }

    #[tokio::test]
    async fn a_range_that_was_not_asked_for_is_not_taken_for_the_rest() {
        let part = "HTTP/1.1 206 Partial Content\r\ncontent-length: 2\r\ncontent-range: bytes 3-4/5\r\n\r\nde";
        let mut download = answering(part).await.resume("/", 3, Some("\"tag\"")).await.unwrap();
        assert_eq!((download.start, download.length), (3, Some(5)));
        assert_eq!(download.chunk().await.unwrap().as_deref(), Some(&b"de"[..]));
        let error = answering(part).await.download("/", 2).await.unwrap_err();
        assert!(error.to_string().contains("bytes 3-4/5"), "{error}");
        let whole = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab").await.download("/", 1).await;
        let whole = whole.unwrap();
        assert_eq!((whole.start, whole.length), (0, Some(2)));
    }

    #[test]
    fn addresses_are_checked() {
        assert_eq!("http://hub:81/".parse(), Ok(Endpoint::Tcp("hub:81".into())));
        assert_eq!("http://hub".parse(), Ok(Endpoint::Tcp("hub:80".into())));
        assert_eq!("unix:/run/a.sock".parse(), Ok(Endpoint::Unix("/run/a.sock".into())));
        assert_eq!("https://hub".parse(), Ok(Endpoint::Tls("hub:443".into())));
        assert!("ftp://hub".parse::<Endpoint>().unwrap_err().contains("is not an address"));
    }
}
