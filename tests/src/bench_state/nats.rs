//! NATS as a contender for queues: a stream in a file, and a client that publishes to it and waits until each message is
//! acknowledged.

use super::clients::{self, Share};
use super::{Cell, Contender, MESSAGES, Sample, Work};
use crate::nats::Nats;
use async_nats::Client;
use futures_util::future::try_join_all;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const STREAM: &str = "native";

/// What the native client has of a running server.
pub struct Native<'a> {
    server: &'a Nats,
}

impl<'a> Native<'a> {
    /// Makes a stream in the first account.
    ///
    /// # Panics
    ///
    /// If the server does not take it.
    pub fn new(server: &'a Nats) -> Self {
        let config = json!({ "name": STREAM, "subjects": [STREAM], "storage": "file" });
        let made = server.call(&format!("$JS.API.STREAM.CREATE.{STREAM}"), &config);
        assert!(made["error"].is_null(), "{made}");
        Self { server }
    }

    fn open(&self) -> Result<(Runtime, Client), String> {
        let runtime = clients::event_loop()?;
        let opened = runtime.block_on(async_nats::connect(self.server.url()));
        let client = opened.map_err(|error| error.to_string())?;
        Ok((runtime, client))
    }
}

impl Contender for Native<'_> {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn run(&mut self, cell: Cell, time: Duration) -> Option<Result<Sample, String>> {
        if cell.work != Work::Send {
            return None;
        }
        let work = |(runtime, client): (Runtime, Client), end| {
            runtime
                .block_on(send(&client, end))
                .map_err(|error| error.to_string())
        };
        let shares = clients::run(cell.clients, time, |_| self.open(), work);
        self.server
            .call(&format!("$JS.API.STREAM.PURGE.{STREAM}"), &json!({}));
        Some(
            shares
                .and_then(|shares| clients::sum(&shares))
                .map(Sample::in_messages),
        )
    }
}

/// Publishes until `end`, as many messages at a time as wrun's guest sends.
async fn send(client: &Client, end: Instant) -> Result<Share, async_nats::RequestError> {
    clients::repeat(end, async || {
        let published = (0..MESSAGES).map(|_| client.request(STREAM, vec![b'x'; 100].into()));
        try_join_all(published).await.map(drop)
    })
    .await
}
