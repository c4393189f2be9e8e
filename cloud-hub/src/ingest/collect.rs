//! Gathers messages into groups and decodes them while the group before is being committed.

use bytes::Bytes;
use cloud_hub_gateway::{Room, Upward};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tributary_process::shutdown::Shutdown;
use tributary_wire::topic::Channel;
use tributary_wire::{Column, DeviceId, Field, Micros, StreamName};

use super::decode::{Content, decode};
use super::gathering::{Gathering, at};
use super::{Order, Parts, Replayed, Reply};
use crate::audit::Noted;
use crate::catalog::batches::Numbering;

/// One message of a group, decoded.
pub(super) struct Item {
    pub(super) origin: Origin,
    pub(super) received: Micros,
    /// What the message was, whole, for the quarantine; empty for records made here.
    pub(super) message: Bytes,
    pub(super) work: Work,
    /// Held until the group is done: the gateway lets no more in than ingest has room for.
    #[expect(dead_code, reason = "held, not read")]
    room: Option<Room>,
}

impl Item {
    /// A message of a device.
    pub(super) fn of(device: DeviceId, message: Bytes, received: Micros) -> Self {
        let work = Work::Message(decode(&device, &message, received));
        Self { origin: Origin::Device(device), received, message, work, room: None }
    }

    /// The numbering that a message belongs to, if it can be read.
    pub(super) fn numbering(&self) -> Option<&Numbering> {
        match &self.work {
            Work::Message(Content::Records { of, .. } | Content::Gap { of, .. } | Content::Broken { of, .. }) => {
                Some(of)
            }
            Work::Message(Content::Unreadable { .. }) | Work::Own { .. } => None,
        }
    }
}

pub(super) enum Origin {
    Device(DeviceId),
    Hub(Option<Reply>),
    Replay { kept: Replayed, reply: Option<Reply> },
}

pub(super) enum Work {
    Message(Content),
    /// Records made at the hub; they get their number when they are committed.
    Own {
        stream: StreamName,
        fields: Vec<Field>,
        columns: Vec<Column>,
        noted: Option<Noted>,
    },
}

enum Input {
    Up(Upward),
    Order(Order),
}

impl Input {
    fn bytes(&self) -> usize {
        match self {
            Self::Up(message) => message.payload.len(),
            Self::Order(Order::Replay { message, .. } | Order::Message { message, .. }) => message.len(),
            // Records of the hub are small and few; one of their columns says enough.
            Self::Order(Order::Submit { columns, .. }) => columns.first().map_or(0, |c| c.len() * 64),
        }
    }
}

/// Where messages go that are no records.
pub(super) struct Others {
    pub(super) reports: mpsc::Sender<Upward>,
    pub(super) results: mpsc::Sender<Upward>,
}

pub(super) async fn run(
    parts: Parts,
    mut queue: mpsc::Receiver<Upward>,
    mut orders: mpsc::Receiver<Order>,
    others: Others,
    groups: mpsc::Sender<Vec<Item>>,
    shutdown: Shutdown,
) {
    let mut ended = false;
    while !ended {
        let mut group: Vec<Input> = Vec::new();
        let mut gathering = Gathering::new(&parts.config);
        // Looked at after every message too: as long as something is in the queues, the timer does not get a turn.
        while !gathering.is_closed(parts.clock.monotonic()) {
            let input = tokio::select! {
                biased;
                Some(message) = queue.recv() => Input::Up(message),
                Some(order) = orders.recv() => Input::Order(order),
                // Everything that was in the queues when the signal came is taken first.
                () = shutdown.given() => {
                    ended = true;
                    break;
                }
                () = at(gathering.closes(), &*parts.clock) => continue,
            };
            match input {
                Input::Up(message) if message.channel == Channel::Report => {
                    let _ = others.reports.send(message).await;
                }
                Input::Up(message) if message.channel == Channel::Result => {
                    if let Err(TrySendError::Full(message)) = others.results.try_send(message) {
                        tracing::info!(device = %message.device, "a command's result found no room; it is asked for again");
                    }
                }
                input => {
                    gathering.add(parts.clock.monotonic(), input.bytes() as u64);
                    group.push(input);
                }
            }
        }
        if group.is_empty() {
            continue;
        }
        let received = parts.now();
        let decoded = tokio::task::spawn_blocking(move || group.into_iter().map(|i| to_item(i, received)).collect());
        let Ok(items) = decoded.await else {
            tracing::error!("decoding a group failed; its messages will come again");
            continue;
        };
        if groups.send(items).await.is_err() {
            return;
        }
    }
}

fn to_item(input: Input, received: Micros) -> Item {
    match input {
        Input::Up(Upward { device, payload, room, .. }) => {
            Item { room: Some(room), ..Item::of(device, payload, received) }
        }
        Input::Order(Order::Replay { kept, message, reply }) => {
            let work = Work::Message(decode(&kept.device, &message, received));
            let origin = Origin::Replay { kept, reply: Some(reply) };
            Item { origin, received, message, work, room: None }
        }
        Input::Order(Order::Message { device, message }) => {
            let work = Work::Message(decode(&device, &message, received));
            Item { origin: Origin::Device(device), received, message, work, room: None }
        }
        Input::Order(Order::Submit { stream, fields, columns, noted, reply }) => {
            let work = Work::Own { stream, fields, columns, noted };
            Item { origin: Origin::Hub(Some(reply)), received, message: Bytes::new(), work, room: None }
        }
    }
}
