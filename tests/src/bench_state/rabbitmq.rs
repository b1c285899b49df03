//! RabbitMQ as a contender for queues: a quorum queue, and a client that publishes to it and waits until it is confirmed.

use super::clients::{self, Share};
use super::{Cell, Contender, MESSAGES, Sample, Work};
use crate::rabbitmq::Rabbit;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const QUEUE: &str = "native";

/// The delivery mode of messages that are kept on the disk.
const PERSISTENT: u8 = 2;

/// What the native client has of a running server.
pub struct Native {
    url: String,
}

/// A connection, and a channel of it.
struct Open {
    runtime: Runtime,
    channel: Channel,
    _connection: Connection,
}

impl Native {
    /// Takes a virtual host of its own.
    pub fn new(server: &Rabbit) -> Self {
        Self {
            url: server.virtual_host(),
        }
    }

    fn open(&self) -> Result<Open, String> {
        let runtime = clients::event_loop()?;
        let opened = runtime.block_on(async {
            let connection =
                Connection::connect(&self.url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            let options = QueueDeclareOptions {
                durable: true,
                ..Default::default()
            };
            let mut arguments = FieldTable::default();
            let quorum = AMQPValue::LongString("quorum".into());
            arguments.insert("x-queue-type".into(), quorum);
            channel
                .queue_declare(QUEUE.into(), options, arguments)
                .await?;
            Ok::<_, lapin::Error>((connection, channel))
        });
        let (connection, channel) = opened.map_err(|error| error.to_string())?;
        Ok(Open {
            runtime,
            channel,
            _connection: connection,
        })
    }

    /// Publishes until `end`, as many messages at a time as wrun's guest sends.
    fn send(open: &Open, end: Instant) -> lapin::Result<Share> {
        let body = [b'x'; 100];
        let sent = clients::repeat(end, async || {
            let mut confirms = Vec::with_capacity(MESSAGES);
            for _ in 0..MESSAGES {
                let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
                let options = BasicPublishOptions::default();
                let published =
                    open.channel
                        .basic_publish("".into(), QUEUE.into(), options, &body, properties);
                confirms.push(published.await?);
            }
            for confirm in confirms {
                confirm.await?;
            }
            Ok(())
        });
        open.runtime.block_on(sent)
    }

    fn purge(&self) -> Result<(), String> {
        let open = self.open()?;
        let purge = open
            .channel
            .queue_purge(QUEUE.into(), QueuePurgeOptions::default());
        let purged = open.runtime.block_on(purge);
        purged.map(drop).map_err(|error| error.to_string())
    }
}

impl Contender for Native {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn run(&mut self, cell: Cell, time: Duration) -> Option<Result<Sample, String>> {
        if cell.work != Work::Send {
            return None;
        }
        let work = |open: Open, end| Self::send(&open, end).map_err(|error| error.to_string());
        let shares = clients::run(cell.clients, time, |_| self.open(), work);
        let purged = self.purge();
        let sample = shares.and_then(|shares| clients::sum(&shares));
        Some(sample.and_then(|sample| purged.map(|()| sample.in_messages())))
    }
}
