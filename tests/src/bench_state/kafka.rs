//! Kafka's protocol as a contender for queues: a topic of a broker that keeps all in memory, and librdkafka, which sends to it and
//! waits until each message is confirmed.

use super::clients::{self, Share};
use super::{Cell, Contender, MESSAGES, Sample, Work};
use crate::tansu::Tansu;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// What a topic has of them, here and for wrun.
pub const PARTITIONS: i32 = 4;

const TOPIC: &str = "native.jobs";

type Producer = ThreadedProducer<Confirmed>;

/// What the native client has of a running broker.
pub struct Native<'a> {
    broker: &'a Tansu,
}

impl<'a> Native<'a> {
    /// Makes a topic.
    ///
    /// # Panics
    ///
    /// If the broker does not take it.
    pub fn new(broker: &'a Tansu) -> Self {
        broker.cluster().with_queue("native.", "jobs", PARTITIONS);
        Self { broker }
    }

    fn open(&self) -> Result<Producer, String> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.broker.cluster().brokers())
            .set("enable.idempotence", "true")
            .set("linger.ms", "1");
        let producer = Producer::from_config_and_context(&config, Confirmed);
        producer.map_err(|error| error.to_string())
    }
}

impl Contender for Native<'_> {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn run(&mut self, cell: Cell, time: Duration) -> Option<Result<Sample, String>> {
        if cell.work != Work::Send {
            return None;
        }
        let work = |producer: Producer, end| {
            let runtime = clients::event_loop()?;
            runtime.block_on(send(&producer, end))
        };
        let shares = clients::run(cell.clients, time, |_| self.open(), work);
        Some(
            shares
                .and_then(|shares| clients::sum(&shares))
                .map(Sample::in_messages),
        )
    }
}

/// Tells who sent a message whether it was confirmed.
struct Confirmed;

impl ClientContext for Confirmed {}

impl ProducerContext for Confirmed {
    type DeliveryOpaque = Box<Sender<bool>>;

    fn delivery(&self, result: &DeliveryResult<'_>, sender: Box<Sender<bool>>) {
        // Who gave up does not want to know.
        let _ = sender.send(result.is_ok());
    }
}

/// Sends until `end`, as many messages at a time as wrun's guest sends.
async fn send(producer: &Producer, end: Instant) -> Result<Share, String> {
    clients::repeat(end, async || {
        let (sender, confirmed) = channel();
        for _ in 0..MESSAGES {
            let opaque = Box::new(sender.clone());
            let record =
                BaseRecord::<(), _, _>::with_opaque_to(TOPIC, opaque).payload(&[b'x'; 100]);
            let sent = producer.send(record);
            sent.map_err(|(error, _)| error.to_string())?;
        }
        drop(sender);
        match confirmed.iter().filter(|is_ok| *is_ok).count() == MESSAGES {
            true => Ok(()),
            false => Err("not all messages were confirmed".to_owned()),
        }
    })
    .await
}
