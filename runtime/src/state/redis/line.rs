//! The connection to a server: kept up, watched, made again with a growing pause; and the news of released locks.
//!
//! Nobody waits for a server that is away: whoever asks meanwhile is told why.

use super::address::Address;
use super::scripts::Scripts;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, FromRedisValue, PushInfo, PushKind, RedisError, ScriptInvocation, Value,
};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How long it may take to connect, and to answer.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(2);

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
    scripts: Scripts,
    /// `Err` says why there is none.
    connection: RefCell<Result<MultiplexedConnection, String>>,
    /// There is one again.
    back: Notify,
    /// How many there were. A server that forgot something has ended the one before.
    count: Cell<u64>,
    /// Those who wait for keys.
    waiting: RefCell<HashMap<String, Vec<Rc<Notify>>>>,
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
    /// Returns a line on which nobody has connected yet; released locks are told on `channel`.
    pub(super) fn new(label: String, address: Address, channel: String) -> Self {
        Self(Rc::new(Inner {
            label,
            address,
            channel,
            scripts: Scripts::default(),
            connection: RefCell::new(Err("nobody has connected yet".to_owned())),
            back: Notify::new(),
            count: Cell::new(0),
            waiting: RefCell::default(),
        }))
    }

    pub(super) fn label(&self) -> &str {
        &self.0.label
    }

    pub(super) fn channel(&self) -> &str {
        &self.0.channel
    }

    pub(super) fn scripts(&self) -> &Scripts {
        &self.0.scripts
    }

    /// Says why the server cannot be reached, if it cannot.
    pub(super) fn why_away(&self) -> Option<String> {
        self.0.connection.borrow().as_ref().err().cloned()
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
        let connection = self.0.connection.borrow().clone();
        let mut connection = connection?;
        let ran = script.invoke_async(&mut connection).await;
        ran.map_err(|error| whole(&error))
    }

    /// Returns the number of the connection that there is.
    pub(super) fn number(&self) -> Option<u64> {
        let is_here = self.0.connection.borrow().is_ok();
        is_here.then(|| self.0.count.get())
    }

    /// Waits until there is another connection than this.
    pub(super) async fn is_other_than(&self, number: Option<u64>) {
        loop {
            let back = self.0.back.notified();
            if self.number().is_some_and(|now| Some(now) != number) {
                return;
            }
            back.await;
        }
    }

    /// Waits until the server can be reached.
    pub(super) async fn back(&self) {
        loop {
            let back = self.0.back.notified();
            if self.why_away().is_none() {
                return;
            }
            back.await;
        }
    }

    /// Returns what is told when one of these keys is released.
    pub(super) fn news(&self, keys: &[String]) -> News {
        let news = Rc::new(Notify::new());
        let mut waiting = self.0.waiting.borrow_mut();
        for key in keys {
            waiting.entry(key.clone()).or_default().push(news.clone());
        }
        News {
            line: self.clone(),
            keys: keys.to_vec(),
            news,
        }
    }

    fn wake(&self, message: &[Value]) {
        // The channel, and the key.
        let key = message
            .get(1)
            .and_then(|key| String::from_redis_value_ref(key).ok());
        let waiting = self.0.waiting.borrow();
        let waiting = key.and_then(|key| waiting.get(&key)).into_iter().flatten();
        waiting.for_each(|news| news.notify_one());
    }

    /// Takes a connection as the one that there is.
    pub(super) fn is_here(&self, live: &Live) {
        let before = self.0.connection.replace(Ok(live.connection.clone()));
        if before.is_err() {
            let count = self.0.count.get();
            self.0.count.set(count + 1);
            // The first one is no news, and the server's URL is the first line on stderr.
            if count > 0 {
                tracing::info!(lock = self.0.label, "Redis is back");
            }
        }
        self.0.back.notify_waiters();
    }

    fn is_away(&self, why: String) {
        let before = self.0.connection.replace(Err(why.clone()));
        if before.is_ok() {
            tracing::warn!(lock = self.0.label, why, "Redis is away");
        }
    }
}

/// What is told of the release of some keys, until it is dropped.
pub(super) struct News {
    line: Line,
    keys: Vec<String>,
    news: Rc<Notify>,
}

impl News {
    /// Waits for news that nobody has heard yet.
    pub(super) async fn come(&self) {
        self.news.notified().await;
    }
}

impl Drop for News {
    fn drop(&mut self) {
        let mut waiting = self.line.0.waiting.borrow_mut();
        for key in &self.keys {
            if let Some(all) = waiting.get_mut(key) {
                all.retain(|news| !Rc::ptr_eq(news, &self.news));
                if all.is_empty() {
                    waiting.remove(key);
                }
            }
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
