//! The connection to a server: kept up, watched, made again with a growing pause; and the news that come on it.
//!
//! Nobody waits for a server that is away: whoever asks meanwhile is told why.

use super::address::Address;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::state::presence::Presence;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, FromRedisValue, PushInfo, PushKind, RedisError, Script,
    ScriptInvocation, Value,
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
    /// The binding, such as `lock.default`.
    name: String,
    address: Address,
    channel: String,
    /// Is told what comes on the channel.
    on_news: Box<dyn Fn(&str)>,
    scripts: Vec<Script>,
    presence: Presence<MultiplexedConnection>,
}

/// Why a script has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// The server could not be asked.
    #[error("{0}")]
    Away(String),
    /// It did nothing.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows what became of it.
    #[error("{0}")]
    Unknown(String),
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
    /// Returns a line on which nobody has connected yet; what is told on `channel` is news, and the scripts are known when
    /// there is a connection.
    pub(super) fn new(
        name: String,
        address: Address,
        channel: String,
        scripts: Vec<Script>,
        on_news: Box<dyn Fn(&str)>,
    ) -> Self {
        Self(Rc::new(Inner {
            name,
            address,
            channel,
            on_news,
            scripts,
            presence: Presence::new(),
        }))
    }

    /// Returns where it leads to.
    pub(super) fn place(&self) -> String {
        self.0.address.place()
    }

    pub(super) fn channel(&self) -> &str {
        &self.0.channel
    }

    /// Whether there is a connection, and which.
    pub(super) fn presence(&self) -> &Presence<MultiplexedConnection> {
        &self.0.presence
    }

    /// Connects for the first time, for `what`. If it `is_again`, because the state process was replaced, the server may be
    /// away.
    pub(super) async fn first(&self, what: &str, is_again: bool) -> Result<Option<Live>, Failure> {
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
                let what = format!("{what}: Redis: {why}");
                Err(Failure::new(ExitCode::Unavailable, what).hint(format!(
                    "check the binding {name}, and that Redis or Valkey runs there"
                )))
            }
        }
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
            for script in &self.0.scripts {
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
                    Some(push) if push.kind == PushKind::Message => self.hear(&push.data),
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
        self.ask(script).await.map_err(|failed| failed.to_string())
    }

    /// Does so, and tells apart whether nothing was done or nobody knows.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Failed> {
        let mut connection = self.0.presence.connection().map_err(Failed::Away)?;
        let ran = script.invoke_async(&mut connection).await;
        ran.map_err(|error| match is_refusal(&error) {
            true => Failed::Refused(whole(&error)),
            false => Failed::Unknown(whole(&error)),
        })
    }

    fn hear(&self, message: &[Value]) {
        // The channel, and what it is about.
        let news = message
            .get(1)
            .and_then(|news| String::from_redis_value_ref(news).ok());
        if let Some(news) = news {
            (self.0.on_news)(&news);
        }
    }

    /// Takes a connection as the one that there is.
    pub(super) fn is_here(&self, live: &Live) {
        // The first one is no news, and the server's URL is the first line on stderr.
        if self.0.presence.is_here(live.connection.clone()) {
            let node = self.place();
            tracing::info!(bound = self.0.name, node, "Redis is back");
        }
    }

    fn is_away(&self, why: String) {
        if self.0.presence.is_away(why.clone()) {
            let node = self.place();
            tracing::warn!(bound = self.0.name, node, why, "Redis is away");
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

/// Tells whether the server has done nothing of what it was asked for, and not something of it.
fn is_refusal(error: &RedisError) -> bool {
    match error.code() {
        // Before Redis 7 what is refused in a script is told as an error of the script.
        Some("ERR") => {
            let text = error.to_string();
            let codes = ["-OOM ", "-READONLY ", "-MISCONF ", "-NOREPLICAS "];
            codes.iter().any(|code| text.contains(code))
        }
        None | Some("WRONGTYPE") => false,
        Some(_) => true,
    }
}

/// Returns an error with its detail.
pub(super) fn whole(error: &RedisError) -> String {
    match error.is_timeout() {
        true => "it does not answer".to_owned(),
        false => error.to_string(),
    }
}
