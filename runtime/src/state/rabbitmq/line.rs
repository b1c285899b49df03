//! The connections to a server, kept up: one that publishes and one that takes, because a server that is short of memory or
//! disk stops reading from those that publish.

use super::address::Address;
use super::queue::names::Names;
use super::socket::{self, Guard};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::state::presence::Presence;
use futures_util::StreamExt as _;
use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPError, AMQPErrorKind};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How long it may take to connect, to make what a queue consists of, and to answer.
const CONNECT_MAX: Duration = Duration::from_secs(10);
const DECLARE_MAX: Duration = Duration::from_secs(30);
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How often it is asked for a sign of life, and how long it may take to give one.
const PING: Duration = Duration::from_secs(1);
const PONG_MAX: Duration = Duration::from_secs(5);

/// The first and the longest pause before it is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// There is no connection.
    #[error("{0}")]
    Away(String),
    /// The server said no.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows whether it was done.
    #[error("{0}")]
    Unknown(String),
}

impl From<lapin::Error> for Failed {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(error) if matches!(error.kind(), AMQPErrorKind::Soft(_)) => {
                Self::Refused(text_of(error))
            }
            _ => Self::Unknown(text(&error)),
        }
    }
}

/// Connections that there are.
pub(super) struct Live {
    publisher: Connection,
    taker: Connection,
    /// Messages are published here, and confirmed.
    pub(super) out: Channel,
    _guard: Guard,
}

impl Live {
    /// Returns a channel of the connection that takes.
    pub(super) async fn channel(&self) -> Result<Channel, Failed> {
        Ok(self.taker.create_channel().await?)
    }

    /// Says that the server takes no messages, if it does not.
    pub(super) fn is_blocked(&self) -> bool {
        self.publisher.status().blocked()
    }

    /// Ends the connections.
    pub(super) async fn close(&self) {
        for connection in [&self.taker, &self.publisher] {
            // If it does not work out, they break.
            let _ = timeout(PONG_MAX, connection.close(200, "done".into())).await;
        }
    }

    fn is_up(&self) -> bool {
        let connections = [&self.publisher, &self.taker];
        connections.iter().all(|it| it.status().connected()) && self.out.status().connected()
    }
}

/// The way to one server. Clones are the same.
#[derive(Clone)]
pub(super) struct Line(Rc<Inner>);

struct Inner {
    /// The name of the binding.
    name: String,
    address: Address,
    names: Rc<Names>,
    presence: Presence<Rc<Live>>,
}

impl Line {
    pub(super) fn new(name: String, address: Address, names: Rc<Names>) -> Self {
        Self(Rc::new(Inner {
            name,
            address,
            names,
            presence: Presence::new(),
        }))
    }

    /// Whether there are connections, and which.
    pub(super) fn presence(&self) -> &Presence<Rc<Live>> {
        &self.0.presence
    }

    pub(super) fn live(&self) -> Result<Rc<Live>, Failed> {
        self.0.presence.connection().map_err(Failed::Away)
    }

    /// Connects for the first time, for `what`. If it `is_again`, because the state process was replaced, the server may be
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
                let what = format!("{what}: RabbitMQ: {why}");
                Err(Failure::new(ExitCode::Unavailable, what).hint(format!(
                    "check the binding {name}, and that RabbitMQ runs there"
                )))
            }
        }
    }

    /// There are no connections any more, for a test.
    #[cfg(test)]
    pub(super) fn end(&self) {
        self.is_away("it was ended".to_owned());
    }

    /// Connects, and sees to it that the server has what the queue consists of.
    async fn connect(&self) -> Result<Rc<Live>, String> {
        let silent = |_| "it does not answer".to_owned();
        let (guard, _) = watch::channel(());
        let opened = timeout(CONNECT_MAX, self.open(guard)).await;
        let live = opened.map_err(silent)?.map_err(|error| text(&error))?;
        let made = timeout(DECLARE_MAX, async {
            let channel = live.channel().await?;
            self.0.names.declare(&channel).await?;
            Ok::<_, Failed>(())
        });
        made.await.map_err(silent)?.map_err(|it| it.to_string())?;
        Ok(Rc::new(live))
    }

    async fn open(&self, guard: Guard) -> lapin::Result<Live> {
        let Inner { address, name, .. } = &*self.0;
        let publisher = socket::connect(address, &format!("wrun {name} sends"), &guard).await?;
        let taker = socket::connect(address, &format!("wrun {name} takes"), &guard).await?;
        let out = publisher.create_channel().await?;
        out.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Live {
            publisher,
            taker,
            out,
            _guard: guard,
        })
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

    /// Waits until the connections are of no more use, and returns why.
    async fn watch(&self, live: &Live) -> String {
        let mut events = futures_util::stream::select(
            Box::pin(live.publisher.events_listener()),
            Box::pin(live.taker.events_listener()),
        );
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut channel = None;
        loop {
            if !live.is_up() {
                return "the connection ended".to_owned();
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(lapin::Event::Error(error)) if !live.is_up() => return text(&error),
                    Some(_) => {}
                    None => return "the connection ended".to_owned(),
                },
                _ = ping.tick() => match timeout(PONG_MAX, self.ask_for_life(live, &mut channel)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(failed)) => return failed.to_string(),
                    Err(_) => return "it does not answer".to_owned(),
                },
            }
        }
    }

    /// Asks whether the queue is still there.
    async fn ask_for_life(&self, live: &Live, channel: &mut Option<Channel>) -> Result<(), Failed> {
        let channel = match channel {
            Some(channel) => channel,
            None => channel.insert(live.channel().await?),
        };
        count(channel, self.0.names.main()).await?;
        Ok(())
    }

    fn is_here(&self, live: &Rc<Live>) {
        // The first one is no news, and the server's URL is the first line on stderr.
        if self.0.presence.is_here(live.clone()) {
            let node = self.0.address.place();
            tracing::info!(bound = self.0.name, node, "RabbitMQ is back");
        }
    }

    fn is_away(&self, why: String) {
        if self.0.presence.is_away(why.clone()) {
            let node = self.0.address.place();
            tracing::warn!(bound = self.0.name, node, why, "RabbitMQ is away");
        }
    }
}

/// Returns how many messages of a queue wait; an error if it is not there.
pub(super) async fn count(channel: &Channel, queue: &ShortString) -> lapin::Result<u64> {
    let look = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let found = channel.queue_declare(queue.clone(), look, FieldTable::default());
    Ok(u64::from(found.await?.message_count()))
}

/// Returns an error in a line.
pub(super) fn text(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => text_of(error),
        ErrorKind::IOError(error) => error.to_string(),
        ErrorKind::MissingHeartbeatError => "it gives no sign of life".to_owned(),
        _ => error.to_string(),
    }
}

fn text_of(error: &AMQPError) -> String {
    error.get_message().to_string()
}
