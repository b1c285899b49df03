//! A Kafka for tests: a cluster that is there, or the mock cluster that comes with librdkafka, in a thread of the test. Clients
//! of other processes connect to it over TCP.
//!
//! The mock cluster is no Kafka: it keeps messages in memory, takes the word of every client, elects no leaders and makes no topics
//! on request. It ends with its handle. `WRUN_TEST_KAFKA=HOST:PORT` has a cluster of one's own take its place in the tests that
//! only use it.

use crate::wait::SOON;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::bindings::{
    rd_kafka_handle_mock_cluster, rd_kafka_mock_group_initial_rebalance_delay_ms,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer as _};
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

/// Names a broker of the cluster to be used.
const GIVEN: &str = "WRUN_TEST_KAFKA";

/// Brokers; their ids begin with 1.
const BROKERS: i32 = 2;

/// How long a group waits for more members before it begins.
const REBALANCE_MS: i32 = 100;

type Mock<'a> = MockCluster<'a, DefaultProducerContext>;
type Order = Box<dyn FnOnce(&Mock<'_>) + Send>;

/// A running cluster.
#[derive(Debug)]
pub struct Kafka {
    brokers: String,
    /// The certificate, if it takes encrypted connections.
    certificate: Option<PathBuf>,
    /// Nothing of a cluster that was there.
    mock: Option<Running>,
}

/// A mock cluster.
#[derive(Debug)]
struct Running {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    /// Keep the ports of brokers that are gone from everybody else: one that cannot have its port again ends the process.
    held: Mutex<Vec<Socket>>,
}

impl Kafka {
    /// Returns a cluster to be used: the one that was given, or else a mock cluster.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn for_test() -> Self {
        std::env::var(GIVEN).map_or_else(|_| Self::start(), Self::at)
    }

    /// Returns the cluster of this broker.
    pub fn at(broker: String) -> Self {
        Self {
            brokers: broker,
            certificate: None,
            mock: None,
        }
    }

    /// Returns the same, whose broker takes encrypted connections with this certificate.
    #[must_use]
    pub fn encrypted(mut self, certificate: PathBuf) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Starts a mock cluster.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start() -> Self {
        let (orders, ordered) = mpsc::channel::<Order>();
        let (told, tell) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut config = ClientConfig::new();
            config.set("test.mock.num.brokers", BROKERS.to_string());
            let producer: BaseProducer = config.create().expect("the mock cluster starts");
            // SAFETY: the pointer is that of the client, which is alive.
            let mock = unsafe { rd_kafka_handle_mock_cluster(producer.client().native_ptr()) };
            // SAFETY: the cluster lives as long as its client.
            unsafe { rd_kafka_mock_group_initial_rebalance_delay_ms(mock, REBALANCE_MS) };
            let mock = producer
                .client()
                .mock_cluster()
                .expect("it is a mock cluster");
            let _ = told.send(mock.bootstrap_servers());
            for order in ordered {
                order(&mock);
            }
        });
        Self {
            brokers: tell.recv().expect("the mock cluster starts"),
            certificate: None,
            mock: Some(Running {
                orders: Some(orders),
                thread: Some(thread),
                held: Mutex::default(),
            }),
        }
    }

    /// # Panics
    ///
    /// If it is none.
    fn mock(&self) -> &Running {
        self.mock.as_ref().expect("only a mock cluster does that")
    }

    /// Has it do something, and waits until that is done.
    fn order<T: Send + 'static>(&self, what: impl FnOnce(&Mock<'_>) -> T + Send + 'static) -> T {
        let (done, is_done) = mpsc::channel();
        let order: Order = Box::new(move |mock| drop(done.send(what(mock))));
        let orders = self.mock().orders.as_ref().expect("it runs");
        orders.send(order).expect("it runs");
        is_done.recv().expect("it runs")
    }

    /// Makes the topics of a queue, and returns the URL by which it is bound.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn with_queue(&self, prefix: &str, label: &str, partitions: i32) -> String {
        for topic in [format!("{prefix}{label}"), format!("{prefix}{label}.dead")] {
            if self.mock.is_none() {
                self.create(&topic, partitions);
                continue;
            }
            let made = self.order(move |mock| mock.create_topic(&topic, partitions, BROKERS));
            made.expect("the topic is made");
        }
        match &self.certificate {
            None => format!("kafka://{}/{prefix}", self.brokers),
            Some(file) => {
                let file = file.display();
                format!("kafkas://{}/{prefix}?sslrootcert={file}", self.brokers)
            }
        }
    }

    fn create(&self, topic: &str, partitions: i32) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        if let Some(certificate) = &self.certificate {
            config.set("security.protocol", "ssl");
            config.set("ssl.ca.location", certificate.to_string_lossy());
        }
        let admin: AdminClient<DefaultClientContext> = config.create().expect("it is a client");
        let topics = [NewTopic::new(topic, partitions, TopicReplication::Fixed(1))];
        let options = AdminOptions::new().operation_timeout(Some(SOON));
        let asked = admin.create_topics(&topics, &options);
        // On a thread of its own: whoever calls may be in an event loop already.
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("there are event loops").block_on(asked)
        };
        let made = thread::scope(|scope| scope.spawn(ask).join());
        let made = made.expect("the client does not panic");
        made.expect("the cluster answers")
            .remove(0)
            .expect("the topic is made");
    }

    /// Makes topics of a test's own for the queue `jobs`.
    pub fn with_jobs(&self, partitions: i32) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // One that was given keeps what others left there.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_millis());
        let prefix = format!("test-{now}-{}-{number}.", process::id());
        self.with_queue(&prefix, "jobs", partitions)
    }

    /// Returns its brokers, as `HOST:PORT,HOST:PORT`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Has all brokers be gone. What they keep they keep.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn down(&self) {
        for broker in 1..=BROKERS {
            let done = self.order(move |mock| mock.broker_down(broker));
            done.expect("the broker goes");
        }
        let ports = self.brokers.split(',').map(hold);
        *self
            .mock()
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = ports.collect();
    }

    /// Has all brokers be there again.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn up(&self) {
        for broker in 1..=BROKERS {
            let done = self.order(move |mock| mock.broker_up(broker));
            done.expect("the broker comes");
        }
        let held = self.mock().held.lock();
        held.unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Has all brokers take so long for every answer.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn slow(&self, time: Duration) {
        for broker in 1..=BROKERS {
            let done = self.order(move |mock| mock.broker_round_trip_time(broker, time));
            done.expect("the broker is slow");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.orders = None;
        // What went wrong there the test has heard of.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Takes a port without listening there. Only who says that it may be used again, as the mock cluster does, can have it, too.
fn hold(broker: &str) -> Socket {
    let address: SocketAddr = broker.parse().expect("the mock cluster tells addresses");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there are sockets");
    socket.set_reuse_address(true).expect("it is a socket");
    socket
        .bind(&address.into())
        .expect("the port is still free");
    socket
}
