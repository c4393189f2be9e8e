//! A serial line, or what stands in for one.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;
use tokio::net::{TcpStream, UnixStream};

const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// Where a line is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PortName {
    /// A device of this machine, or a pseudo-terminal.
    Tty(PathBuf),
    /// Somebody who passes bytes on: a serial server, an emulated machine.
    Tcp(String),
    /// The same on this machine.
    Unix(PathBuf),
}

/// A text that names no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no port; write /dev/…, tcp:HOST:PORT or unix:PATH")]
pub struct WrongPort {
    /// The text.
    pub found: String,
}

impl Default for PortName {
    fn default() -> Self {
        Self::Tty("/dev/ttyUSB0".into())
    }
}

impl FromStr for PortName {
    type Err = WrongPort;
    fn from_str(text: &str) -> Result<Self, WrongPort> {
        match text.split_once(':') {
            Some(("tcp", address)) if address.contains(':') => Ok(Self::Tcp(address.to_owned())),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ if text.starts_with('/') => Ok(Self::Tty(text.into())),
            _ => Err(WrongPort { found: text.chars().take(80).collect() }),
        }
    }
}

impl TryFrom<String> for PortName {
    type Error = WrongPort;
    fn try_from(text: String) -> Result<Self, WrongPort> {
        text.parse()
    }
}

impl From<PortName> for String {
    fn from(port: PortName) -> Self {
        port.to_string()
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tty(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Bytes in and out.
pub(super) trait Line: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

/// Opens a port. A real line is set to raw bytes, eight bits, no flow control.
pub(super) async fn open(port: &PortName, baud: u32) -> io::Result<Box<dyn Line>> {
    let connect = async {
        match port {
            PortName::Tty(path) => {
                let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
                let mut settings = tcgetattr(&file)?;
                settings.make_raw();
                settings.set_speed(baud)?;
                tcsetattr(&file, OptionalActions::Flush, &settings)?;
                // Named after pipes, but for any file that can be waited for; a terminal can.
                let sender = pipe::Sender::from_file_unchecked(file.try_clone()?)?;
                let receiver = pipe::Receiver::from_file_unchecked(file)?;
                Ok(Box::new(tokio::io::join(receiver, sender)) as Box<dyn Line>)
            }
            PortName::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream) as Box<dyn Line>)
            }
            PortName::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?) as Box<dyn Line>),
        }
    };
    tokio::time::timeout(OPEN_WITHIN, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_read_and_written_the_same_way() {
        for text in ["/dev/ttyACM0", "tcp:127.0.0.1:4000", "tcp:[::1]:4000", "unix:/run/node.sock"] {
            assert_eq!(text.parse::<PortName>().unwrap().to_string(), text);
        }
        for wrong in ["", "ttyUSB0", "tcp:", "tcp:localhost", "unix:", "udp:1:2"] {
            assert_eq!(wrong.parse::<PortName>(), Err(WrongPort { found: wrong.into() }));
        }
    }
}
