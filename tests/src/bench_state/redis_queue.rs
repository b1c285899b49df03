//! Redis as a contender for queues: a server that syncs before it answers, and a client that appends to a stream.

use super::clients::{self, Share, Times};
use super::{Cell, Contender, MESSAGES, Sample, Work};
use crate::redis::Redis;
use std::time::{Duration, Instant};

/// What the native client has of a running server.
pub struct Native {
    client: redis::Client,
}

impl Native {
    /// Connects to a database of its own.
    ///
    /// # Panics
    ///
    /// If the server's URL is none.
    pub fn new(server: &Redis, database: usize) -> Self {
        let url = format!("{}?db={database}", server.local_url());
        let client = redis::Client::open(url).expect("it is a URL");
        Self { client }
    }

    /// Appends until `end`, as many messages at a time as wrun's guest sends.
    fn send(mut connection: redis::Connection, end: Instant) -> redis::RedisResult<Share> {
        let begin = Instant::now();
        let mut times = Vec::new();
        let body = "x".repeat(100);
        let mut calls = redis::pipe();
        calls.atomic();
        for _ in 0..MESSAGES {
            calls
                .cmd("XADD")
                .arg("jobs")
                .arg("*")
                .arg("body")
                .arg(&body)
                .ignore();
        }
        loop {
            let start = Instant::now();
            if start >= end {
                break;
            }
            calls.query::<()>(&mut connection)?;
            times.push(start.elapsed());
        }
        Ok(Share {
            operations: times.len() as u64,
            took: begin.elapsed(),
            times: Times::All(times),
        })
    }
}

impl Contender for Native {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn run(&mut self, cell: Cell, time: Duration) -> Option<Result<Sample, String>> {
        if cell.work != Work::Send {
            return None;
        }
        let open = |_| {
            self.client
                .get_connection()
                .map_err(|error| error.to_string())
        };
        let work = |connection, end| Self::send(connection, end).map_err(|error| error.to_string());
        let shares = clients::run(cell.clients, time, open, work);
        let removed = self
            .client
            .get_connection()
            .and_then(|mut connection| redis::cmd("DEL").arg("jobs").query::<()>(&mut connection));
        let removed = removed.map_err(|error| error.to_string());
        let sample = shares.and_then(|shares| clients::sum(&shares));
        Some(sample.and_then(|sample| removed.map(|()| sample.in_messages())))
    }
}
