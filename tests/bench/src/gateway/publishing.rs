//! How many acknowledged messages per second a server takes: the same client for all, one or ten of them.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::{AsyncClient, Broker, Event, EventLoop, Incoming, MqttOptions, PublishOptions};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::SILENCE;
use super::fleet::Fleet;
use super::link::{Dialer, Sessions, Transport, quic_endpoint};
use super::servers::Server;

/// Bytes of a message.
pub const PAYLOAD: usize = 200;
/// Messages of a client that are not acknowledged yet.
pub const IN_FLIGHT: u16 = 100;
/// Messages that a client hands over at once; with fewer the client is what is measured.
const BATCH: usize = 128;

/// Sends `messages`, shared among `clients`; messages per second from the first to the last acknowledgement.
pub async fn rate(
    server: &Server,
    fleet: &Fleet,
    transport: Transport,
    clients: usize,
    messages: usize,
) -> anyhow::Result<f64> {
    let ready = Arc::new(Barrier::new(clients));
    let mut sending = JoinSet::new();
    let each = messages / clients;
    for index in 0..clients {
        // Each device is a machine of its own, with its own socket.
        let endpoint = quic_endpoint()?;
        let dialer = fleet.dialer(index, transport, server.places.of(transport), Sessions::Forgotten, &endpoint)?;
        sending.spawn(one(dialer, fleet.id(index), fleet.topic(index), each, ready.clone()));
    }
    let (mut first, mut last) = (None::<Instant>, None::<Instant>);
    while let Some(done) = sending.join_next().await {
        let (begin, end) = done??;
        first = Some(first.map_or(begin, |first| first.min(begin)));
        last = last.max(Some(end));
    }
    let took = first.zip(last).map(|(first, last)| last - first).context("there are no clients")?;
    Ok((each * clients) as f64 / took.as_secs_f64())
}

async fn one(
    dialer: Dialer,
    id: String,
    topic: String,
    messages: usize,
    ready: Arc<Barrier>,
) -> anyhow::Result<(Instant, Instant)> {
    let server = dialer.server();
    let mut options = MqttOptions::new(id, Broker::tcp(server.ip().to_string(), server.port()));
    options.set_clean_start(true);
    options.set_keep_alive(60);
    options.set_max_request_batch(BATCH);
    options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
    options.set_socket_connector(move |_, _| {
        let dialer = dialer.clone();
        async move { dialer.dial().await }
    });
    let (client, mut events) = AsyncClient::builder(options).capacity(2 * BATCH).build();
    while !matches!(next(&mut events).await?, Event::Incoming(Incoming::ConnAck(_))) {}
    ready.wait().await;

    let begin = Instant::now();
    let publishing = tokio::spawn(async move {
        let payload = Bytes::from(vec![7; PAYLOAD]);
        for _ in 0..messages {
            client.publish(topic.clone(), payload.clone(), PublishOptions::new(QoS::AtLeastOnce)).await?;
        }
        // Dropped by the caller, after the last acknowledgement.
        anyhow::Ok(client)
    });
    let mut acknowledged = 0;
    while acknowledged < messages {
        if let Event::Incoming(Incoming::PubAck(ack)) = next(&mut events).await? {
            let code = ack.reason as u8;
            ensure!(code < 0x80, "the server refused a message with reason 0x{code:02x}");
            acknowledged += 1;
        }
    }
    let end = Instant::now();
    drop(publishing.await??);
    Ok((begin, end))
}

async fn next(events: &mut EventLoop) -> anyhow::Result<Event> {
    Ok(tokio::time::timeout(SILENCE, events.poll()).await.context("the server is silent")??)
}
