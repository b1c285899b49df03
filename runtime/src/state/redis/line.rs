//! The connection to a server: kept up, watched, made again with a growing pause; and the news of released locks on it.
//!
//! Nobody waits for a server that is away: whoever asks meanwhile is told why.

use super::address::Address;
use super::scripts::Scripts;
use crate::state::lock::leased::presence::Presence;
use crate::state::lock::leased::waiting::Waiting;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, FromRedisValue, PushInfo, PushKind, RedisError, ScriptInvocation, Value,
};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How long it may take to connect, and to answer.
const CONNECT_MAX: Duration = Duration::from_secs(5);
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How often it is asked for a sign of life.
const PING: Duration = Duration::from_secs(1);

/// The first and the longest pause before it is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A line. Clones are the same.
#[derive(Clone)]
pub(super) struct Line(Rc<Inner>);

struct Inner {
    label: String,
    address: Address,
    channel: String,
    /// What the names of locks begin with.
    prefix: String,
    scripts: Scripts,
    presence: Presence<MultiplexedConnection>,
    waiting: Waiting,
}

/// A connection, and what comes of itself on it. Dropped, it ends.
pub(super) struct Live {
    connection: MultiplexedConnection,
    pushes: mpsc::UnboundedReceiver<PushInfo>,
    driver: JoinHandle<()>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Line {
    /// Returns a line on which nobody has connected yet. Released locks, whose names begin with `prefix`, are told on
    /// `channel`.
    pub(super) fn new(
        label: String,
        address: Address,
        channel: String,
        prefix: String,
        waiting: Waiting,
    ) -> Self {
        Self(Rc::new(Inner {
            label,
            address,
            channel,
            prefix,
            scripts: Scripts::default(),
            presence: Presence::new(),
            waiting,
        }))
    }

    /// Returns where it leads to.
    pub(super) fn place(&self) -> String {
        self.0.address.place()
    }

    pub(super) fn channel(&self) -> &str {
        &self.0.channel
    }

    pub(super) fn scripts(&self) -> &Scripts {
        &self.0.scripts
    }

    /// Whether there is a connection, and which.
    pub(super) fn presence(&self) -> &Presence<MultiplexedConnection> {
        &self.0.presence
    }

    /// Connects, and makes the connection ready.
    pub(super) async fn connect(&self) -> Result<Live, String> {
        let silent = |_| "it does not answer".to_owned();
        timeout(CONNECT_MAX, self.try_to_connect())
            .await
            .map_err(silent)?
    }

    async fn try_to_connect(&self) -> Result<Live, String> {
        let Inner { address, .. } = &*self.0;
        let (connection, pushes, driver) = open(address).await?;
        let mut live = Live {
            connection,
            pushes,
            driver,
        };
        let ready = async {
            for script in self.scripts().all() {
                script.load_async(&mut live.connection).await?;
            }
            live.connection.subscribe(self.channel()).await
        };
        ready.await.map_err(|error| whole(&error))?;
        Ok(live)
    }

    /// Keeps the line up for as long as it is polled; `live` is the connection that there is.
    pub(super) async fn keep(self, mut live: Option<Live>) {
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
                    self.watch(live).await
                }
                Err(why) => why,
            };
            self.is_away(why);
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Takes in what comes until the connection is of no more use, and returns why.
    async fn watch(&self, mut live: Live) -> String {
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                push = live.pushes.recv() => match push {
                    Some(push) if push.kind == PushKind::Message => self.wake(&push.data),
                    Some(push) if push.kind == PushKind::Disconnection => {
                        return "the connection broke".to_owned();
                    }
                    Some(_) => {}
                    None => return "the connection ended".to_owned(),
                },
                _ = ping.tick() => {
                    let asked = redis::cmd("PING").query_async::<Value>(&mut live.connection).await;
                    if let Err(error) = asked {
                        return whole(&error);
                    }
                }
            }
        }
    }

    /// Has a script run, which is on its way when this is polled first. The error is why nobody knows what became of it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, String> {
        let mut connection = self.0.presence.connection()?;
        let ran = script.invoke_async(&mut connection).await;
        ran.map_err(|error| whole(&error))
    }

    fn wake(&self, message: &[Value]) {
        // The channel, and the name of the lock.
        let lock = message
            .get(1)
            .and_then(|lock| String::from_redis_value_ref(lock).ok());
        let key = lock.as_deref();
        if let Some(key) = key.and_then(|lock| lock.strip_prefix(&self.0.prefix)) {
            self.0.waiting.wake(key);
        }
    }

    /// Takes a connection as the one that there is.
    pub(super) fn is_here(&self, live: &Live) {
        // The first one is no news, and the server's URL is the first line on stderr.
        if self.0.presence.is_here(live.connection.clone()) {
            let node = self.place();
            tracing::info!(lock = self.0.label, node, "Redis is back");
        }
    }

    fn is_away(&self, why: String) {
        if self.0.presence.is_away(why.clone()) {
            let node = self.place();
            tracing::warn!(lock = self.0.label, node, why, "Redis is away");
        }
    }
}

/// Opens a connection, on which pushes come, too.
pub(super) async fn open(
    address: &Address,
) -> Result<
    (
        MultiplexedConnection,
        mpsc::UnboundedReceiver<PushInfo>,
        JoinHandle<()>,
    ),
    String,
> {
    let socket = address.connect().await.map_err(|error| error.to_string())?;
    let (sender, pushes) = mpsc::unbounded_channel();
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(ANSWER_MAX))
        .set_push_sender(sender);
    let opened = MultiplexedConnection::new_with_config(&address.login, socket, config).await;
    let (connection, driver) = opened.map_err(|error| whole(&error))?;
    Ok((connection, pushes, tokio::task::spawn_local(driver)))
}

/// Returns an error with its detail.
pub(super) fn whole(error: &RedisError) -> String {
    match error.is_timeout() {
        true => "it does not answer".to_owned(),
        false => error.to_string(),
    }
}
