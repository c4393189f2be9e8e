//! Bytes that are not what they should be.

use std::time::Duration;

use cloud_hub_gateway::{Limits, Refusal, Transport};

use crate::support::{connect, hub};

#[tokio::test]
async fn peers_that_break_the_protocol_are_cut_off_and_counted() {
    let hub = hub(Limits { handshake: Duration::from_millis(200), packet_bytes: 1000, ..Limits::default() }).await;
    hub.raw(Transport::Plain, b"GET / HTTP/1.1\r\n\r\n").await;
    hub.raw(Transport::Plain, &[0x20, 3, 0, 0, 0]).await;
    hub.raw(Transport::Plain, &[connect("edge-1"), vec![0x20, 3, 0, 0, 0]].concat()).await;
    assert_eq!(hub.counted(Refusal::Protocol), 3);
    hub.raw(Transport::Plain, &[connect("edge-1"), vec![0x30, 0xff, 0xff, 0x7f]].concat()).await;
    assert_eq!(hub.counted(Refusal::TooLarge), 1);
    hub.raw(Transport::Plain, b"").await;
    hub.raw(Transport::Plain, &connect("edge-1")[..5]).await;
    assert_eq!(hub.counted(Refusal::HandshakeTimeout), 2);
}
