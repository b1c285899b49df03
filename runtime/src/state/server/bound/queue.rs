//! A queue of a server that a label is bound to, whichever kind of server that is.

use crate::config::shared;
use crate::failure::Failure;
#[cfg(not(feature = "kafka"))]
use crate::state::WITHOUT_KAFKA;
#[cfg(feature = "kafka")]
use crate::state::kafka::{self, KafkaQueue};
use crate::state::nats::{self, NatsQueue};
use crate::state::postgres::{self, PostgresQueue};
use crate::state::queue::Queue;
use crate::state::queue::desk::Sink;
use crate::state::rabbitmq::{self, RabbitQueue};
use crate::state::redis::{self, RedisQueue};
use std::path::PathBuf;
use std::rc::Rc;

/// Where one is.
#[derive(Clone)]
pub(in crate::state::server) enum Place {
    Nats(Box<nats::Address>),
    Postgres(Box<postgres::Address>),
    Redis(Box<redis::Address>),
    Rabbit(Box<rabbitmq::Address>),
    #[cfg(feature = "kafka")]
    Kafka(Box<kafka::Address>),
}

impl Place {
    /// Reads a URL. What is said of a wrong one does not repeat it.
    pub(in crate::state::server) fn parse(url: &str) -> Result<Self, String> {
        match url.split_once("://") {
            Some(("postgres" | "postgresql", _)) => {
                postgres::Address::parse(url).map(|it| Self::Postgres(Box::new(it)))
            }
            Some(("amqp" | "amqps", _)) => {
                rabbitmq::Address::parse(url).map(|it| Self::Rabbit(Box::new(it)))
            }
            Some(("nats" | "tls" | "nats+tls", _)) => {
                nats::Address::parse(url).map(|it| Self::Nats(Box::new(it)))
            }
            #[cfg(feature = "kafka")]
            Some(("kafka" | "kafkas", _)) => {
                kafka::Address::parse(url).map(|it| Self::Kafka(Box::new(it)))
            }
            #[cfg(not(feature = "kafka"))]
            Some(("kafka" | "kafkas", _)) => Err(WITHOUT_KAFKA.to_owned()),
            _ => redis::Address::parse(url).map(|it| Self::Redis(Box::new(it))),
        }
    }

    /// Returns the TCP ports that it connects to.
    pub(in crate::state::server) fn ports(&self) -> Vec<u16> {
        match self {
            Self::Nats(address) => vec![address.port()],
            Self::Postgres(address) => address.ports(),
            Self::Redis(address) => address.port().into_iter().collect(),
            Self::Rabbit(address) => vec![address.port()],
            #[cfg(feature = "kafka")]
            Self::Kafka(address) => address.ports(),
        }
    }

    /// Returns the folders of the Unix sockets that it connects to.
    pub(in crate::state::server) fn sockets(&self) -> Vec<PathBuf> {
        match self {
            Self::Nats(_) => Vec::new(),
            Self::Postgres(address) => address.sockets(),
            Self::Redis(address) => address.socket().into_iter().collect(),
            Self::Rabbit(_) => Vec::new(),
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => Vec::new(),
        }
    }

    /// Tells whether a name has to be resolved.
    pub(in crate::state::server) fn resolves(&self) -> bool {
        match self {
            Self::Nats(address) => address.resolves(),
            Self::Postgres(address) => address.resolves(),
            Self::Redis(address) => address.resolves(),
            Self::Rabbit(address) => address.resolves(),
            #[cfg(feature = "kafka")]
            Self::Kafka(address) => address.resolves(),
        }
    }

    /// Tells whether its client sends and hears whole messages of several parts, and wakes its threads by pipes.
    pub(in crate::state::server) fn scatters(&self) -> bool {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => true,
            Self::Nats(_) | Self::Postgres(_) | Self::Redis(_) | Self::Rabbit(_) => false,
        }
    }
}

/// One that is open. Clones are the same.
#[derive(Clone)]
pub(in crate::state::server) enum BoundQueue {
    Nats(NatsQueue),
    Postgres(PostgresQueue),
    Redis(RedisQueue),
    Rabbit(RabbitQueue),
    #[cfg(feature = "kafka")]
    Kafka(KafkaQueue),
}

impl BoundQueue {
    /// Takes it; nobody is asked yet whether it is there. `server` is the same for all state processes that follow each other
    /// in one server, and only for them. To be called within a `LocalSet`.
    pub(in crate::state::server) fn new(
        label: &str,
        settings: &shared::Queue,
        place: Place,
        server: &str,
        sink: Sink,
    ) -> Self {
        match place {
            Place::Nats(address) => {
                Self::Nats(NatsQueue::new(label, settings, *address, server, sink))
            }
            Place::Postgres(address) => {
                Self::Postgres(PostgresQueue::new(label, settings, *address, server, sink))
            }
            Place::Redis(address) => {
                Self::Redis(RedisQueue::new(label, settings, *address, server, sink))
            }
            Place::Rabbit(address) => {
                Self::Rabbit(RabbitQueue::new(label, settings, *address, sink))
            }
            #[cfg(feature = "kafka")]
            Place::Kafka(address) => Self::Kafka(KafkaQueue::new(label, settings, *address, sink)),
        }
    }

    /// Finds out whether it is there. If it `is_again`, because the state process was replaced, it may be away.
    pub(in crate::state::server) async fn prepare(&self, is_again: bool) -> Result<(), Failure> {
        match self {
            Self::Nats(queue) => queue.prepare(is_again).await,
            Self::Postgres(queue) => queue.prepare().await,
            Self::Redis(queue) => queue.prepare(is_again).await,
            Self::Rabbit(queue) => queue.prepare(is_again).await,
            #[cfg(feature = "kafka")]
            Self::Kafka(queue) => queue.prepare(is_again).await,
        }
    }

    /// Works by other settings from now on.
    pub(in crate::state::server) fn configure(&self, settings: &shared::Queue) {
        match self {
            Self::Nats(queue) => queue.configure(settings),
            Self::Postgres(queue) => queue.configure(settings),
            Self::Redis(queue) => queue.configure(settings),
            Self::Rabbit(queue) => queue.configure(settings),
            #[cfg(feature = "kafka")]
            Self::Kafka(queue) => queue.configure(settings),
        }
    }

    pub(in crate::state::server) fn queue(&self) -> Rc<dyn Queue> {
        match self {
            Self::Nats(queue) => Rc::new(queue.clone()),
            Self::Postgres(queue) => Rc::new(queue.clone()),
            Self::Redis(queue) => Rc::new(queue.clone()),
            Self::Rabbit(queue) => Rc::new(queue.clone()),
            #[cfg(feature = "kafka")]
            Self::Kafka(queue) => Rc::new(queue.clone()),
        }
    }

    /// Says why the server cannot be reached, if it cannot.
    pub(in crate::state::server) fn why_away(&self) -> Option<String> {
        match self {
            Self::Nats(queue) => queue.why_away(),
            Self::Postgres(queue) => queue.why_away(),
            Self::Redis(queue) => queue.why_away(),
            Self::Rabbit(queue) => queue.why_away(),
            #[cfg(feature = "kafka")]
            Self::Kafka(queue) => queue.why_away(),
        }
    }

    /// Writes down what was settled, gives back what is held here, and ends its connections.
    pub(in crate::state::server) async fn close(&self) {
        match self {
            Self::Nats(queue) => queue.close().await,
            Self::Postgres(queue) => queue.close().await,
            Self::Redis(queue) => queue.close().await,
            Self::Rabbit(queue) => queue.close().await,
            #[cfg(feature = "kafka")]
            Self::Kafka(queue) => queue.close().await,
        }
    }
}
