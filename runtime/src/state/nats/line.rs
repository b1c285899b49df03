//! The connection to a server: kept up, watched, made again with a growing pause; and what is asked on it.
//!
//! Each client of the crate is one connection: left alone it would connect again by itself, and send then what it was given
//! meanwhile. Nobody waits for a server that is away: whoever asks is told why.

use super::address::{Address, Login};
use super::api::{self, INFO};
use crate::state::presence::Presence;
use async_nats::{
    Auth, AuthError, Client, ConnectOptions, Event, HeaderMap, Message, Request, RequestErrorKind,
    Subscriber,
};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
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
    /// The binding, such as `queue.default`.
    name: String,
    address: Address,
    presence: Presence<Client>,
}

/// Why a question has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failed {
    /// The server could not be asked.
    #[error("{0}")]
    Away(String),
    /// It did nothing: JetStream's number for why, or 0.
    #[error("{1}")]
    Refused(u64, String),
    /// Nobody knows what became of it.
    #[error("{0}")]
    Unknown(String),
}

/// A connection, and what happens to it.
pub(super) struct Live {
    pub(super) client: Client,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Line {
    /// Returns a line on which nobody has connected yet.
    pub(super) fn new(name: String, address: Address) -> Self {
        Self(Rc::new(Inner {
            name,
            address,
            presence: Presence::new(),
        }))
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    pub(super) fn address(&self) -> &Address {
        &self.0.address
    }

    /// Whether there is a connection, and which.
    pub(super) fn presence(&self) -> &Presence<Client> {
        &self.0.presence
    }

    /// Connects.
    pub(super) async fn connect(&self) -> Result<Live, String> {
        open(&self.0.address).await
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

    /// Waits until the connection is of no more use, and returns why.
    async fn watch(&self, mut live: Live) -> String {
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = live.events.recv() => match event {
                    Some(Event::Disconnected | Event::Closed) | None => {
                        return "the connection broke".to_owned();
                    }
                    Some(_) => {}
                },
                _ = ping.tick() => {
                    if let Err(failed) = api::account(&live.client).await {
                        return failed.to_string();
                    }
                }
            }
        }
    }

    /// Asks something of JetStream.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        subject: &str,
        question: &impl Serialize,
    ) -> Result<T, Failed> {
        let question = serde_json::to_vec(question).unwrap_or_default();
        api::read(&self.request(subject, None, question.into()).await?)
    }

    /// Sends something, and waits for the answer.
    pub(super) async fn request(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, Failed> {
        let presence = &self.0.presence;
        let client = presence.connection().map_err(Failed::Away)?;
        let number = presence.number();
        tokio::select! {
            biased;
            answer = request(&client, subject, headers, payload) => answer,
            () = presence.is_other_than(number) => Err(Failed::Unknown("the connection broke".to_owned())),
        }
    }

    /// Sends something that nobody answers.
    pub(super) async fn tell(
        &self,
        subject: String,
        reply: String,
        text: Bytes,
    ) -> Result<(), Failed> {
        let client = self.0.presence.connection().map_err(Failed::Away)?;
        let told = client.publish_with_reply(subject, reply, text).await;
        told.map_err(|error| Failed::Unknown(whole(&error)))
    }

    /// Answers a question.
    pub(super) async fn answer(&self, to: String, text: Bytes) {
        if let Ok(client) = self.0.presence.connection() {
            // Who asked does not wait for ever.
            let _ = client.publish(to, text).await;
        }
    }

    /// Returns what is sent to a subject from now on.
    pub(super) async fn subscribe(&self, subject: String) -> Result<Subscriber, Failed> {
        let client = self.0.presence.connection().map_err(Failed::Away)?;
        let subscribed = client.subscribe(subject).await;
        subscribed.map_err(|error| Failed::Away(whole(&error)))
    }

    /// Returns a subject of which nobody else knows.
    pub(super) fn inbox(&self) -> Result<String, Failed> {
        let client = self.0.presence.connection().map_err(Failed::Away)?;
        Ok(client.new_inbox())
    }

    /// Takes a connection as the one that there is.
    pub(super) fn is_here(&self, live: &Live) {
        // The first one is no news, and the server's URL is the first line on stderr.
        if self.0.presence.is_here(live.client.clone()) {
            let node = self.0.address.place();
            tracing::info!(bound = self.0.name, node, "NATS is back");
        }
    }

    fn is_away(&self, why: String) {
        if self.0.presence.is_away(why.clone()) {
            let node = self.0.address.place();
            tracing::warn!(bound = self.0.name, node, why, "NATS is away");
        }
    }
}

/// Opens a connection to a server that has JetStream.
pub(super) async fn open(address: &Address) -> Result<Live, String> {
    let silent = |_| "it does not answer".to_owned();
    timeout(CONNECT_MAX, connect(address))
        .await
        .map_err(silent)?
}

async fn connect(address: &Address) -> Result<Live, String> {
    let (sender, events) = mpsc::unbounded_channel();
    let login = address.login.clone();
    let was_here = Arc::new(AtomicBool::new(false));
    let options = ConnectOptions::with_auth_callback(move |_| {
        // The second time is the crate's own, after the connection is gone.
        let is_first = !was_here.swap(true, Ordering::Relaxed);
        let login = is_first.then(|| auth(&login));
        async move { login.ok_or_else(|| AuthError::new("one client is one connection")) }
    });
    let options = options
        .name("wrun")
        .max_reconnects(1)
        .ignore_discovered_servers()
        .connection_timeout(CONNECT_MAX)
        .request_timeout(Some(ANSWER_MAX))
        .ping_interval(PING)
        .require_tls(address.is_encrypted())
        .tls_client_config(address.tls.clone())
        .event_callback(move |event| {
            // Nobody listens any more if this fails.
            let _ = sender.send(event);
            async {}
        });
    let url = format!("nats://{}", address.place());
    let client = options.connect(url).await.map_err(|error| whole(&error))?;
    api::account(&client).await.map_err(|it| it.to_string())?;
    Ok(Live { client, events })
}

fn auth(login: &Login) -> Auth {
    let mut auth = Auth::new();
    match login.clone() {
        Login::Nobody => {}
        Login::Token(token) => auth.token = Some(token),
        Login::User(user, password) => {
            auth.username = Some(user);
            auth.password = Some(password);
        }
    }
    auth
}

/// Asks on a connection.
pub(super) async fn request(
    client: &Client,
    subject: &str,
    headers: Option<HeaderMap>,
    payload: Bytes,
) -> Result<Message, Failed> {
    let mut request = Request::new().payload(payload);
    if let Some(headers) = headers {
        request = request.headers(headers);
    }
    let answer = client.send_request(subject.to_owned(), request).await;
    answer.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders if subject == INFO => {
            Failed::Refused(0, "JetStream is not enabled".to_owned())
        }
        RequestErrorKind::NoResponders => Failed::Refused(0, "nobody is there".to_owned()),
        RequestErrorKind::TimedOut => Failed::Unknown("it does not answer".to_owned()),
        RequestErrorKind::MaxPayloadExceeded => Failed::Refused(api::TOO_LARGE, whole(&error)),
        RequestErrorKind::InvalidSubject => Failed::Refused(0, whole(&error)),
        RequestErrorKind::Other => Failed::Unknown("the connection broke".to_owned()),
    })
}

/// Returns an error with what it comes from.
fn whole(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
