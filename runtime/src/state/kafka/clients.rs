//! The clients of one cluster, by what they are for, and how they are set up. Each has threads and connections of its own.

use super::address::Address;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the cluster may take to answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long a message may be on its way until nobody knows what became of it, in milliseconds.
const SEND_MAX_MS: &str = "10000";

/// The largest message in bytes, with its headers: the largest that a guest may send, and what wrun adds.
const MESSAGE_MAX: &str = "1200000";

/// After how much silence of a server its partitions are others', and how often it says that it is there, in milliseconds.
const SESSION_MS: &str = "6000";
const HEARTBEAT_MS: &str = "1500";

/// What a client has to say of itself, at a time, and how long to wait for it.
const EVENTS_MAX: usize = 100;
const MOMENT: Duration = Duration::from_millis(5);

/// What a producer is told when the cluster has confirmed a message, or has not.
pub(super) type Confirmation = Box<oneshot::Sender<Result<(), RDKafkaErrorCode>>>;

pub(super) type Producer = ThreadedProducer<Quiet>;
pub(super) type Clerk = BaseConsumer<Quiet>;

/// What clients say by themselves is known here from their answers, but for why nobody listens to them.
#[derive(Clone, Debug, Default)]
pub(super) struct Quiet(Arc<Mutex<Option<String>>>);

impl Quiet {
    /// Returns why no broker listens, if one has said so. It says so once.
    pub(super) fn refused(&self) -> Option<String> {
        self.why().clone()
    }

    /// They listen.
    pub(super) fn is_heard(&self) {
        *self.why() = None;
    }

    fn why(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        let code = code(&error);
        if matches!(
            code,
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL
        ) {
            *self.why() = reason.lines().next().map(str::to_owned);
        }
    }
}

impl ConsumerContext for Quiet {}

impl ProducerContext for Quiet {
    type DeliveryOpaque = Confirmation;

    fn delivery(&self, result: &DeliveryResult<'_>, confirmation: Confirmation) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(code(error)),
        };
        // Who has gone does not want to know.
        let _ = confirmation.send(result);
    }
}

/// Returns one that sends: each message once, and in order, however often a connection breaks on the way.
pub(super) fn producer(address: &Address) -> KafkaResult<Producer> {
    let mut config = of_all(address);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", SEND_MAX_MS)
        .set("message.max.bytes", MESSAGE_MAX)
        .set("linger.ms", "1");
    Producer::from_config_and_context(&config, Quiet::default())
}

/// Returns one that looks, and is no member of its group.
pub(super) fn clerk(address: &Address, group: &str) -> KafkaResult<Clerk> {
    let mut config = of_consumers(address, group);
    // If the brokers make topics, they make those that are asked for.
    config.set("allow.auto.create.topics", "true");
    Clerk::from_config_and_context(&config, Quiet::default())
}

/// Returns one that reads, is no member of its group, and is told where partitions end.
pub(super) fn reader(address: &Address, group: &str) -> KafkaResult<Clerk> {
    let mut config = of_consumers(address, group);
    config.set("enable.partition.eof", "true");
    Clerk::from_config_and_context(&config, Quiet::default())
}

/// Returns one that takes messages, as a member of its group.
pub(super) fn member<C: ConsumerContext>(
    address: &Address,
    group: &str,
    context: C,
) -> KafkaResult<BaseConsumer<C>> {
    let mut config = of_consumers(address, group);
    config
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", SESSION_MS)
        .set("heartbeat.interval.ms", HEARTBEAT_MS);
    BaseConsumer::from_config_and_context(&config, context)
}

pub(super) fn of_all(address: &Address) -> ClientConfig {
    let mut config = ClientConfig::new();
    address.tell(&mut config);
    config
        .set("client.id", "wrun")
        .set("socket.timeout.ms", "6000")
        .set("socket.connection.setup.timeout.ms", "5000")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000");
    config
}

fn of_consumers(address: &Address, group: &str) -> ClientConfig {
    let mut config = of_all(address);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.queue.backoff.ms", "50")
        .set("queued.max.messages.kbytes", "16384");
    config
}

/// Takes what a client that reads nothing has to say of itself.
pub(super) fn listen(clerk: &Clerk) {
    for _ in 0..EVENTS_MAX {
        // Without a moment to wait, what it says for a log would end this, though more comes after it.
        if clerk.poll(MOMENT).is_none() {
            break;
        }
    }
}

/// Returns what kind of error it is.
pub(super) fn code(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}

/// How a partition stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Standing {
    pub(super) partition: i32,
    /// The first offset that is not handled and still kept, and the one that the next message gets.
    pub(super) begin: i64,
    pub(super) end: i64,
    /// What the group has noted beside its offset.
    pub(super) note: String,
}

/// Returns the partitions of a topic.
pub(super) fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
) -> KafkaResult<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_MAX)?;
    let found = metadata.topics().iter().find(|it| it.name() == topic);
    let missing = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
    let found = found.ok_or(missing)?;
    if let Some(error) = found.error() {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    Ok(found.partitions().iter().map(|it| it.id()).collect())
}

/// Returns how a topic stands for the group of a consumer. Blocks.
pub(super) fn standings(clerk: &Clerk, topic: &str) -> KafkaResult<Vec<Standing>> {
    let all = partitions(clerk, topic)?;
    let list = |offset: Offset| {
        let mut list = TopicPartitionList::new();
        for partition in &all {
            list.add_partition_offset(topic, *partition, offset)?;
        }
        Ok::<_, KafkaError>(list)
    };
    let begins = clerk.offsets_for_times(list(Offset::Beginning)?, ANSWER_MAX)?;
    let ends = clerk.offsets_for_times(list(Offset::End)?, ANSWER_MAX)?;
    let committed = clerk.committed_offsets(list(Offset::Invalid)?, ANSWER_MAX)?;
    let offset = |list: &TopicPartitionList, partition| {
        let found = list.find_partition(topic, partition);
        let found = found.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))?;
        found.error()?;
        Ok::<_, KafkaError>(match found.offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        })
    };
    let standing = |partition: i32| {
        let note = committed.find_partition(topic, partition);
        let (begin, kept) = (offset(&begins, partition)?, offset(&committed, partition)?);
        // What it has noted is of the offset that it has committed, which may be older than what is kept.
        let note = note.filter(|_| kept >= begin);
        Ok(Standing {
            partition,
            begin: begin.max(kept),
            end: offset(&ends, partition)?,
            note: note.map_or_else(String::new, |it| it.metadata().to_owned()),
        })
    };
    all.iter().map(|partition| standing(*partition)).collect()
}
