//! The way to one cluster: a client that sends and one that looks, and whether somebody answers them.
//!
//! The library connects again by itself, and would send then what it was given meanwhile. So whoever is away has its clients
//! ended, and what was on its way with them.

use super::address::Address;
use super::clients::{self, Clerk, Producer, partitions};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::state::presence::Presence;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// How long brokers that make topics have for it, and until somebody answers.
const CONNECT_MAX: Duration = Duration::from_secs(8);

/// How often it is asked for a sign of life.
const PING: Duration = Duration::from_secs(1);

/// The first and the longest pause before it is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failed {
    /// Nobody answers.
    #[error("{0}")]
    Away(String),
    /// The cluster said no.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows whether it was done.
    #[error("{0}")]
    Unknown(String),
}

/// Clients that there are.
pub(super) struct Live(Option<Arc<Clients>>);

pub(super) struct Clients {
    pub(super) producer: Producer,
    pub(super) clerk: Clerk,
    /// For the dead letters.
    pub(super) gravedigger: Clerk,
}

impl Live {
    /// Returns the clients.
    pub(super) fn clients(&self) -> Result<Arc<Clients>, Failed> {
        let ended = || Failed::Away("the clients ended".to_owned());
        self.0.clone().ok_or_else(ended)
    }

    /// Does what takes its time on a thread where it holds up nobody.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Clients) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T, Failed> {
        let clients = self.clients()?;
        let asked = spawn_blocking(move || what(&clients)).await;
        let ended = |_| Failed::Unknown("it was given up".to_owned());
        asked
            .map_err(ended)?
            .map_err(|error| Failed::Unknown(text(&error)))
    }
}

impl Drop for Live {
    /// Ends the clients where that holds up nobody.
    fn drop(&mut self) {
        let clients = self.0.take();
        // If there is no thread for it, it is done here.
        let _ = thread::Builder::new()
            .name("kafka ends".to_owned())
            .spawn(move || drop(clients));
    }
}

/// A line. Clones are the same.
#[derive(Clone)]
pub(super) struct Line(Rc<Inner>);

struct Inner {
    /// The name of the binding.
    name: String,
    address: Address,
    names: Names,
    presence: Presence<Rc<Live>>,
}

/// What a queue is called in a cluster.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) topic: String,
    pub(super) dead: String,
    /// The groups of consumers.
    pub(super) group: String,
    pub(super) dead_group: String,
}

impl Names {
    pub(super) fn new(address: &Address, label: &str) -> Self {
        let topic = address.topic(label);
        let dead = format!("{topic}{}", crate::state::queue::DEAD_SUFFIX);
        Self {
            group: format!("wrun.{topic}"),
            dead_group: format!("wrun.{dead}"),
            topic,
            dead,
        }
    }
}

impl Line {
    pub(super) fn new(name: String, address: Address, names: Names) -> Self {
        Self(Rc::new(Inner {
            name,
            address,
            names,
            presence: Presence::new(),
        }))
    }

    pub(super) fn address(&self) -> &Address {
        &self.0.address
    }

    pub(super) fn names(&self) -> &Names {
        &self.0.names
    }

    /// Whether somebody answers, and whom to ask.
    pub(super) fn presence(&self) -> &Presence<Rc<Live>> {
        &self.0.presence
    }

    pub(super) fn live(&self) -> Result<Rc<Live>, Failed> {
        self.0.presence.connection().map_err(Failed::Away)
    }

    /// Connects for the first time, for `what`. If it `is_again`, because the state process was replaced, the cluster may be
    /// away.
    pub(super) async fn first(
        &self,
        what: &str,
        is_again: bool,
    ) -> Result<Option<Rc<Live>>, Failure> {
        let name = &self.0.name;
        match self.connect().await {
            Ok(live) => {
                self.is_here(&live);
                Ok(Some(live))
            }
            Err(why) if is_again => {
                tracing::warn!(bound = name, why, "goes on without its server");
                Ok(None)
            }
            Err(why) => {
                let what = format!("{what}: Kafka: {why}");
                Err(Failure::new(ExitCode::Unavailable, what).hint(format!(
                    "check the binding {name}, that Kafka runs there, and that its topics are there"
                )))
            }
        }
    }

    /// Makes clients, and sees to it that the topics are there. Brokers that make topics by themselves make them now.
    async fn connect(&self) -> Result<Rc<Live>, String> {
        let Inner { address, names, .. } = &*self.0;
        let made = || {
            Ok::<_, KafkaError>(Clients {
                producer: clients::producer(address)?,
                clerk: clients::clerk(address, &names.group)?,
                gravedigger: clients::clerk(address, &names.dead_group)?,
            })
        };
        let clients = made().map_err(|error| error.to_string())?;
        let live = Rc::new(Live(Some(Arc::new(clients))));
        let begin = Instant::now();
        loop {
            let why = match self.look(&live).await {
                Ok(()) => return Ok(live),
                Err(why) => why,
            };
            if begin.elapsed() >= CONNECT_MAX {
                return Err(why);
            }
            sleep(PAUSE_MIN).await;
        }
    }

    /// Asks for a sign of life: whether the topics are there.
    async fn look(&self, live: &Live) -> Result<(), String> {
        let Names { topic, dead, .. } = self.0.names.clone();
        let shown = self.0.address.bootstrap();
        let asked = live.ask(move |clients| {
            if let Some((code, why)) = clients.producer.client().fatal_error() {
                return Ok(Err(format!("{why} ({code:?})")));
            }
            clients::listen(&clients.clerk);
            clients::listen(&clients.gravedigger);
            for topic in [topic, dead] {
                match partitions(&clients.clerk, &topic) {
                    Ok(_) => {}
                    Err(error) if is_missing(&error) => {
                        return Ok(Err(format!("the topic {topic} is not there")));
                    }
                    Err(error) if is_silent(&error) => {
                        return Ok(Err(silence(&clients.clerk, &shown)));
                    }
                    Err(error) => return Err(error),
                }
            }
            clients.clerk.context().is_heard();
            Ok(Ok(()))
        });
        asked.await.map_err(|failed| failed.to_string())?
    }

    /// Keeps the line up for as long as it is polled; `live` is what there is.
    pub(super) async fn keep(self, mut live: Option<Rc<Live>>) {
        let mut pause = PAUSE_MIN;
        loop {
            let connected = match live.take() {
                Some(live) => Ok(live),
                None => self.connect().await,
            };
            let why = match connected {
                Ok(live) => {
                    pause = PAUSE_MIN;
                    self.is_here(&live);
                    self.watch(&live).await
                }
                Err(why) => why,
            };
            self.is_away(why);
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Waits until the clients are of no more use, and returns why.
    async fn watch(&self, live: &Live) -> String {
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ping.tick().await;
            if let Err(why) = self.look(live).await {
                return why;
            }
        }
    }

    fn is_here(&self, live: &Rc<Live>) {
        // The first one is no news, and the server's URL is the first line on stderr.
        if self.0.presence.is_here(live.clone()) {
            let brokers = self.0.address.bootstrap();
            tracing::info!(bound = self.0.name, brokers, "Kafka is back");
        }
    }

    fn is_away(&self, why: String) {
        if self.0.presence.is_away(why.clone()) {
            let brokers = self.0.address.bootstrap();
            tracing::warn!(bound = self.0.name, brokers, why, "Kafka is away");
        }
    }
}

fn is_missing(error: &KafkaError) -> bool {
    let code = clients::code(error);
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition
    )
}

fn is_silent(error: &KafkaError) -> bool {
    let code = clients::code(error);
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
    )
}

/// Returns why nobody answers at a place.
pub(super) fn silence(clerk: &Clerk, shown: &str) -> String {
    clients::listen(clerk);
    match clerk.context().refused() {
        Some(why) => format!("no broker at {shown} takes the connection: {why}"),
        None => format!("no broker answers at {shown}"),
    }
}

/// Returns an error in a line.
pub(super) fn text(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) if is_silent(error) => format!("it does not answer ({code:?})"),
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}
