//! One connection to an agent's local API that stays open, as an application beside the agent would hold it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

/// A connection.
#[derive(Debug)]
pub struct Local {
    stream: UnixStream,
    buffer: Vec<u8>,
}

/// A whole answer and how long it took, from the first byte sent to the last byte read.
#[derive(Debug)]
pub struct Answer {
    /// Time from question to answer.
    pub took: Duration,
    /// The body.
    pub body: Value,
}

impl Local {
    /// Connects.
    pub fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, buffer: vec![0; 1 << 16] })
    }

    /// Sends JSON and reads the answer; anything but success is an error.
    pub fn post(&mut self, path: &str, body: &str) -> anyhow::Result<Answer> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let begin = Instant::now();
        self.stream.write_all(request.as_bytes()).context("send to the agent")?;
        let mut filled = 0;
        let (head, end) = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).context("read from the agent")?;
            if read == 0 {
                bail!("the agent's answer ends after {filled} bytes");
            }
            filled += read;
            if let Some((head, length)) = parts(&self.buffer[..filled])
                && filled >= head + length
            {
                break (head, head + length);
            }
        };
        let took = begin.elapsed();
        let text = String::from_utf8_lossy(&self.buffer[..head]);
        let body = String::from_utf8_lossy(&self.buffer[head..end]);
        if !text.starts_with("HTTP/1.1 200") {
            bail!("the agent refused: {} {body}", text.lines().next().unwrap_or_default());
        }
        Ok(Answer { took, body: serde_json::from_str(&body).context("the agent's answer is not JSON")? })
    }
}

/// Length of the head and of the body, once the head is whole.
fn parts(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some((head, length?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parts(answer), Some((answer.len() - 2, 2)));
        assert_eq!(parts(&answer[..answer.len() - 3]), None);
        assert_eq!(parts(b"HTTP/1.1 200 OK\r\n\r\n"), None);
    }
}
