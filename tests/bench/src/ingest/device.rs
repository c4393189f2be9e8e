//! Devices that send as fast as the hub lets them: the real protocol, without an agent's own work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rumqttc::mqttbytes::QoS;
use rumqttc::{AsyncClient, Broker, Event, EventLoop, Incoming, MqttOptions, PublishOptions};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tributary_wire::topic::{Channel, Topic};
use tributary_wire::{Ack, MAX_MESSAGE_BYTES};

use super::batches::{DeviceBatches, stream};

/// What an agent has in flight before the hub has said anything.
const FIRST_WINDOW: u16 = 8;
/// Messages between a device and its connection; more than the hub's window.
const QUEUE: usize = 512;
/// Without any receipt for so long, something is wrong.
const SILENCE: Duration = Duration::from_secs(30);

/// Sends everything; seconds from the first message to the last receipt.
pub async fn send(address: &str, devices: &[DeviceBatches]) -> anyhow::Result<f64> {
    let ready = Arc::new(Barrier::new(devices.len()));
    let mut sending = JoinSet::new();
    for device in devices {
        sending.spawn(one(address.to_owned(), device.clone(), ready.clone()));
    }
    let (mut first, mut last) = (None::<Instant>, None::<Instant>);
    while let Some(done) = sending.join_next().await {
        let (begin, end) = done??;
        first = Some(first.map_or(begin, |first| first.min(begin)));
        last = last.max(Some(end));
    }
    let took = first.zip(last).map(|(first, last)| last - first);
    took.map(|took| took.as_secs_f64()).context("there are no devices")
}

async fn one(address: String, from: DeviceBatches, ready: Arc<Barrier>) -> anyhow::Result<(Instant, Instant)> {
    let DeviceBatches { device, batches } = from;
    let (host, port) = address.rsplit_once(':').context("the hub's address")?;
    let mut options = MqttOptions::new(device.as_str(), Broker::tcp(host, port.parse()?));
    options.set_clean_start(true);
    options.set_keep_alive(60);
    options.set_max_request_batch(128);
    options.set_request_channel_capacity(QUEUE);
    options.set_max_packet_size(Some(MAX_MESSAGE_BYTES as u32 + 1024));
    let (client, mut events) = AsyncClient::builder(options).capacity(QUEUE).build();
    client.subscribe(Topic::down_filter(&device), QoS::AtLeastOnce).await?;
    while !matches!(next(&mut events).await?, Event::Incoming(Incoming::SubAck(_))) {}
    ready.wait().await;

    let begin = Instant::now();
    let topic = Topic::new(device, Channel::Batch).to_string();
    let (mut sent, mut stored, mut window) = (0, 0, FIRST_WINDOW);
    while stored < batches.len() {
        while sent < batches.len() && sent - stored < usize::from(window) {
            client.try_publish(topic.clone(), batches[sent].clone(), PublishOptions::at_least_once())?;
            sent += 1;
        }
        if let Some((through, room)) = receipt(&next(&mut events).await?)? {
            (stored, window) = (stored.max(through), room);
        }
    }
    Ok((begin, Instant::now()))
}

async fn next(events: &mut EventLoop) -> anyhow::Result<Event> {
    Ok(tokio::time::timeout(SILENCE, events.poll()).await.context("the hub is silent")??)
}

/// How far the hub has everything, and the window; an error if it could not use something.
fn receipt(event: &Event) -> anyhow::Result<Option<(usize, u16)>> {
    let Event::Incoming(Incoming::Publish(publish)) = event else { return Ok(None) };
    let topic = std::str::from_utf8(&publish.topic).ok().and_then(Topic::parse);
    if topic.is_none_or(|topic| topic.channel != Channel::Ack) {
        return Ok(None);
    }
    let Ack::V1(ack) = Ack::decode(&publish.payload)?;
    let stream = stream()?;
    let Some(of) = ack.streams.into_iter().find(|of| of.stream == stream) else { return Ok(None) };
    ensure!(of.quarantined.is_empty(), "the hub could not use batches {:?}", of.quarantined);
    if of.window == 0 {
        bail!("the hub holds: its disk refuses");
    }
    Ok(Some((of.through.0 as usize, of.window)))
}
