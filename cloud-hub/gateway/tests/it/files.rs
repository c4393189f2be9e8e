//! Files on streams beside MQTT.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cloud_hub_gateway::{FileLimits, Files, Limits, OpenFile, Opened, Refusal, Transport};
use quinn::{Connection, RecvStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use tributary_wire::DeviceId;
use tributary_wire::file::{FileAnswer, FileRequest};

use crate::support::{Hub, PATIENCE, Stream, connect, hub, packet, quic, text};

/// `N` is a file of N bytes, each the remainder of its place; `endless` never ends; other devices' files are not there.
///
/// Every open file holds a share.
pub struct Shelf(pub Arc<()>);

impl Files for Shelf {
    fn open<'a>(
        &'a self,
        device: &'a DeviceId,
        path: &'a str,
        start: u64,
    ) -> Pin<Box<dyn Future<Output = Opened> + Send + 'a>> {
        let share = self.0.clone();
        let found = |length, start, reader: Box<dyn AsyncRead + Send + Unpin>| {
            Opened::Found(OpenFile { length, start, reader: Box::new(Held(reader, share)) })
        };
        let opened = match (device.as_str(), path, path.parse::<u64>()) {
            ("edge-1", "endless", _) => found(u64::MAX, start, Box::new(tokio::io::repeat(7))),
            ("edge-1", "short", _) => found(10, 0, Box::new(&b"abc"[..])),
            ("edge-1", "busy", _) => Opened::Refused("not now ".repeat(1000)),
            ("edge-1", _, Ok(length)) => {
                let start = if start > length { 0 } else { start };
                let bytes: Vec<u8> = (start..length).map(|place| place as u8).collect();
                found(length, start, Box::new(std::io::Cursor::new(bytes)))
            }
            _ => Opened::NotFound,
        };
        Box::pin(std::future::ready(opened))
    }
}

struct Held(Box<dyn AsyncRead + Send + Unpin>, #[expect(dead_code, reason = "counted")] Arc<()>);

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: never"));
}

/// A device that was let in over QUIC; the endpoint must live as long as its connection.
async fn device(hub: &Hub, id: &str) -> (quinn::Endpoint, Connection, Stream) {
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = hub.tls_config(Some(hub.device(id)));
    let (connection, mut mqtt) = quic(&endpoint, hub.addresses, config).await.unwrap();
    mqtt.write_all(&connect(id)).await.unwrap();
    let mut head = [0; 2];
    mqtt.read_exact(&mut head).await.unwrap();
    assert_eq!(head[0], 0x20, "CONNACK");
    let mut rest = vec![0; head[1].into()];
    mqtt.read_exact(&mut rest).await.unwrap();
    (endpoint, connection, mqtt)
}

async fn raw(connection: &Connection, bytes: &[u8]) -> RecvStream {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send.finish().unwrap();
    receive
}

fn request(path: &str, start: u64) -> Vec<u8> {
    let request = FileRequest::V1 { path: path.into(), start }.encode();
    [&(request.len() as u16).to_le_bytes()[..], &request].concat()
}

async fn ask(connection: &Connection, path: &str, start: u64) -> (FileAnswer, RecvStream) {
    let mut receive = raw(connection, &request(path, start)).await;
    let answer = async {
        let length = receive.read_u16_le().await.unwrap();
        let mut bytes = vec![0; length.into()];
        receive.read_exact(&mut bytes).await.unwrap();
        FileAnswer::decode(&bytes).unwrap()
    };
    let answer = timeout(PATIENCE, answer).await.expect("an answer");
    (answer, receive)
}

#[tokio::test]
async fn a_file_comes_whole_from_a_byte_on_or_is_not_there() {
    let hub = hub(Limits::default()).await;
    let (_endpoint, connection, _mqtt) = device(&hub, "edge-1").await;
    let (answer, mut file) = ask(&connection, "300000", 0).await;
    assert_eq!(answer, FileAnswer::Found { length: 300_000, start: 0 });
    let bytes = file.read_to_end(1 << 20).await.unwrap();
    assert!(bytes.len() == 300_000 && bytes.iter().enumerate().all(|(place, byte)| *byte == place as u8));
    let (answer, mut file) = ask(&connection, "300", 290).await;
    assert_eq!(answer, FileAnswer::Found { length: 300, start: 290 });
    assert_eq!(file.read_to_end(100).await.unwrap(), (290..300).map(|place| place as u8).collect::<Vec<_>>());
    assert_eq!(ask(&connection, "300", 301).await.0, FileAnswer::Found { length: 300, start: 0 });
    assert_eq!(ask(&connection, "nothing", 0).await.0, FileAnswer::NotFound);
    assert!(matches!(ask(&connection, "busy", 0).await.0, FileAnswer::Refused(why) if why.starts_with("not now")));
    let mut cut = raw(&connection, &request("short", 0)).await;
    assert!(cut.read_to_end(100).await.is_err(), "a file that broke off does not look whole");
    assert!(hub.connections.tally().file_bytes() >= 300_310);
    let (_endpoint, other, _mqtt) = device(&hub, "edge-2").await;
    assert_eq!(ask(&other, "300", 0).await.0, FileAnswer::NotFound);
}

#[tokio::test]
async fn telemetry_is_acknowledged_while_a_file_that_never_ends_comes_at_full_speed() {
    let mut hub = hub(Limits::default()).await;
    let (_endpoint, connection, mut mqtt) = device(&hub, "edge-1").await;
    let (_, mut file) = ask(&connection, "endless", 0).await;
    let reading = tokio::spawn(async move {
        let mut piece = vec![0; 64 << 10];
        while let Ok(Some(_)) = file.read(&mut piece).await {}
    });
    let mut up = std::mem::replace(&mut hub.up, tokio::sync::mpsc::channel(1).1);
    tokio::spawn(async move { while up.recv().await.is_some() {} });
    for number in 1..=100_u8 {
        let publish = [&text("v1/d/edge-1/up/batch")[..], &[0, number, 0], &[9; 5000]].concat();
        mqtt.write_all(&packet(0x32, &publish)).await.unwrap();
        let mut ack = [0; 2];
        timeout(PATIENCE, mqtt.read_exact(&mut ack)).await.expect("an acknowledgement beside the file").unwrap();
        assert_eq!(ack[0], 0x40);
        let mut rest = vec![0; ack[1].into()];
        mqtt.read_exact(&mut rest).await.unwrap();
        assert_eq!(rest[1], number);
    }
    assert!(!reading.is_finished());
    // It ends with the session. The device may hear of that late: the last word of a connection is not repeated.
    assert!(hub.connections.close(&DeviceId::new("edge-1").unwrap(), "revoked"));
    until("the file is let go", || Arc::strong_count(&hub.open_files) == 2).await;
    assert!(!hub.connections.is_connected(&DeviceId::new("edge-1").unwrap()));
    reading.abort();
}

#[tokio::test]
async fn what_is_no_request_or_is_never_taken_loses_its_stream_and_no_more() {
    let files = FileLimits { stall: Duration::from_millis(100), ..FileLimits::default() };
    let hub = hub(Limits { files, handshake: Duration::from_millis(500), ..Limits::default() }).await;
    let (_endpoint, connection, _mqtt) = device(&hub, "edge-1").await;
    for (count, wrong) in [&[1, 0, 9][..], &[0xff, 0xff, 0]].into_iter().enumerate() {
        let mut stream = raw(&connection, wrong).await;
        hub.until_counted(Refusal::Protocol, count as u64 + 1).await;
        assert!(stream.read_to_end(100).await.is_err());
    }
    // One that says nothing.
    let (_silent, _) = {
        let (mut send, receive) = connection.open_bi().await.unwrap();
        send.write_all(&[9]).await.unwrap();
        (send, receive)
    };
    hub.until_counted(Refusal::Protocol, 3).await;
    // One that takes nothing.
    let (_, _unread) = ask(&connection, "endless", 0).await;
    hub.until_counted(Refusal::SlowReader, 1).await;
    assert_eq!(ask(&connection, "3", 0).await.0, FileAnswer::Found { length: 3, start: 0 });
    assert!(hub.connections.is_connected(&DeviceId::new("edge-1").unwrap()));
}

#[tokio::test]
async fn nobody_reads_files_before_being_let_in() {
    let hub = hub(Limits { handshake: Duration::from_secs(1), ..Limits::default() }).await;
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = hub.tls_config(Some(hub.device("edge-1")));
    let (connection, _mqtt) = quic(&endpoint, hub.addresses, config).await.unwrap();
    let mut stream = raw(&connection, &request("300", 0)).await;
    let read = timeout(PATIENCE, stream.read_to_end(1000)).await.expect("the connection ends");
    assert!(read.is_err(), "{read:?}");
    assert_eq!(hub.connections.transport(&DeviceId::new("edge-1").unwrap()), None::<Transport>);
}
