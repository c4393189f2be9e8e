//! One MQTT connection. The only module that names the MQTT client.
//!
//! The client's own event loop would reconnect by itself and carry unfinished messages over; we want neither, so each
//! connection gets a new one, which ends with the first error.

use std::io;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use edge_agent_core::transport::End;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::ConnectReturnCode;
use rumqttc::{
    AsyncClient, Broker, ClientError, ConnectionError, Event, Incoming, MqttOptions, PublishOptions, StateError,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tributary_wire::topic::{Channel, Topic};
use tributary_wire::{DeviceId, MAX_MESSAGE_BYTES};

use super::LinkConfig;
use super::dial::{Bytes, DialError};

/// Room of the client's queue. More than batches may be in flight, so that it is never full.
const QUEUE: usize = 512;
/// Requests per turn of the client's loop; its default of one costs two thirds of the throughput.
const REQUEST_BATCH: usize = 128;
/// Time to take leave.
const FAREWELL: Duration = Duration::from_millis(500);
/// Bytes around a payload: topic, packet id, properties.
const PACKET_OVERHEAD: usize = 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No hub is known.
    #[error("no hub is known")]
    NoHub,
    /// The hub offers no MQTT that this agent speaks.
    #[error("the hub has no address for MQTT over QUIC or TLS")]
    NoAddress,
    /// No stream of bytes.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A stream, but no MQTT on it.
    #[error("the hub did not take the connection within {} ms", .0.as_millis())]
    Silent(Duration),
    /// There is a better transport.
    #[error("QUIC gets through again")]
    Moving,
    /// There is a new certificate to show.
    #[error("there is a new certificate")]
    NewCertificate,
    /// The network, or the hub's refusal.
    #[error("mqtt")]
    Connection(#[from] ConnectionError),
    /// The client's queue is full or gone.
    #[error("mqtt client")]
    Client(#[from] ClientError),
    /// The hub did not let the device subscribe to its own topics.
    #[error("the hub refused the subscription")]
    Subscription,
    /// The client ended without a word.
    #[error("the connection ended")]
    Ended,
    /// The device's own state.
    #[error("state")]
    State(#[from] crate::state::StoreError),
    /// The runtime is going down.
    #[error("runtime")]
    Runtime(#[from] io::Error),
}

impl LinkError {
    /// Whether the hub itself said no, as it would over any transport.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Subscription | Self::Connection(ConnectionError::ConnectionRefused(_)))
    }

    /// What a person has to know: the hub answered, and does not let this device in. One that is busy, or whose catalog
    /// does not answer, says so with other codes.
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            Self::Connection(ConnectionError::ConnectionRefused(
                code @ (ConnectReturnCode::NotAuthorized
                | ConnectReturnCode::BadUserNamePassword
                | ConnectReturnCode::ClientIdentifierNotValid),
            )) => Some(format!(
                "the hub does not let this device in ({code:?}): its certificate may be revoked; the hub's log says \
                 more, and an operator can let the device enrol again"
            )),
            _ => None,
        }
    }

    /// Whether a connection that ended so fell silent or was closed: a stream that was stopped or reset was so by
    /// somebody.
    pub(super) fn end(&self) -> End {
        use ConnectionError::{Io, MqttState, Timeout};
        let silent = match self {
            Self::Connection(MqttState(StateError::AwaitPingResp | StateError::CollisionTimeout) | Timeout(_)) => true,
            Self::Connection(Io(error) | MqttState(StateError::Io(error))) => error.kind() == io::ErrorKind::TimedOut,
            _ => false,
        };
        if silent { End::Lost } else { End::Closed }
    }
}

/// What the hub said on a topic of this device.
pub(super) struct Heard {
    /// The topic as it stood in the packet.
    pub(super) topic: Vec<u8>,
    /// The body.
    pub(super) payload: bytes::Bytes,
}

/// A connection that stands.
pub(super) struct Connection {
    device: DeviceId,
    client: AsyncClient,
    incoming: mpsc::Receiver<Result<Heard, LinkError>>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Says who this device is and subscribes to exactly its own topics.
    pub(super) async fn open(
        device: &DeviceId,
        stream: Box<dyn Bytes>,
        config: &LinkConfig,
    ) -> Result<Self, LinkError> {
        let patience = config.connect_timeout.0;
        let opened = tokio::time::timeout(patience, Self::begin(device, stream, config)).await;
        opened.map_err(|_| LinkError::Silent(patience))?
    }

    async fn begin(device: &DeviceId, stream: Box<dyn Bytes>, config: &LinkConfig) -> Result<Self, LinkError> {
        // The address is for the client's own dialler, which is not used.
        let mut options = MqttOptions::new(device.as_str(), Broker::tcp("hub", 0));
        options.set_clean_start(true);
        options.set_keep_alive(config.keep_alive.0.as_secs().clamp(5, u64::from(u16::MAX)) as u16);
        options.set_connect_timeout(config.connect_timeout.0);
        options.set_max_request_batch(REQUEST_BATCH);
        options.set_request_channel_capacity(QUEUE);
        // Without it the client makes room for 65 535 messages in flight: 14 MB.
        options.set_outgoing_inflight_upper_limit(QUEUE as u16);
        options.set_max_packet_size(Some((MAX_MESSAGE_BYTES + PACKET_OVERHEAD) as u32));
        // One stream, one connection: when the client asks for another stream, this connection is over.
        let stream = Mutex::new(Some(stream));
        options.set_socket_connector(move |_, _| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        let (client, mut events) = AsyncClient::builder(options).capacity(QUEUE).build();
        // The connection is made by the first poll; no request is queued before it stands.
        loop {
            if let Event::Incoming(Incoming::ConnAck(_)) = events.poll().await? {
                break;
            }
        }
        client.subscribe(Topic::down_filter(device), QoS::AtLeastOnce).await?;
        // Requests may overtake each other inside the client; the hub answers a report at once, so the report waits
        // until somebody listens.
        loop {
            match events.poll().await? {
                Event::Incoming(Incoming::SubAck(ack)) if ack.return_codes.iter().any(refused) => {
                    return Err(LinkError::Subscription);
                }
                Event::Incoming(Incoming::SubAck(_)) => break,
                _ => {}
            }
        }
        let (sender, incoming) = mpsc::channel(64);
        let task = tokio::spawn(async move {
            loop {
                let heard = match events.poll().await {
                    Ok(Event::Incoming(Incoming::Publish(publish))) => {
                        Ok(Heard { topic: publish.topic.to_vec(), payload: publish.payload })
                    }
                    Ok(_) => continue,
                    Err(error) => Err(error.into()),
                };
                let over = heard.is_err();
                if sender.send(heard).await.is_err() || over {
                    break;
                }
            }
        });
        Ok(Self { device: device.clone(), client, incoming, task })
    }

    /// Queues a message; it never waits, so that reading never stands still behind writing.
    pub(super) fn publish(&self, channel: Channel, payload: Vec<u8>) -> Result<(), LinkError> {
        let topic = Topic::new(self.device.clone(), channel).to_string();
        Ok(self.client.try_publish(topic, payload, PublishOptions::at_least_once())?)
    }

    /// Takes leave, so that the hub knows that the next connection is the same device's and no copy of it.
    pub(super) async fn close(mut self) {
        self.incoming.close();
        if self.client.disconnect_now().await.is_ok() {
            let _ = tokio::time::timeout(FAREWELL, &mut self.task).await;
        }
    }

    /// The next message of the hub.
    pub(super) async fn next(&mut self) -> Result<Heard, LinkError> {
        self.incoming.recv().await.unwrap_or(Err(LinkError::Ended))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn refused(code: &rumqttc::mqttbytes::v5::SubscribeReasonCode) -> bool {
    !matches!(code, rumqttc::mqttbytes::v5::SubscribeReasonCode::Success(_))
}
