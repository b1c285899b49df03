//! Clients that keep every worker's CPU busy: each asks, on one connection that it keeps, for half a second of work, again
//! and again.

use super::contender::Contender;
use super::running::Running;
use crate::http1::Connection;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const REQUEST: &str = "GET /spin?ms=500 HTTP/1.1\r\nhost: bench.example\r\n\r\n";

const PATIENCE: Duration = Duration::from_secs(20);

/// How long to look on before it is said which workers are busy.
const LOOK: Duration = Duration::from_millis(200);

/// How many connections to try until every worker has one.
const TRIES: usize = 40;

/// Busy clients, until they are dropped.
#[derive(Debug, Default)]
pub struct Hogs {
    hogs: Vec<Hog>,
}

#[derive(Debug)]
struct Hog {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hogs {
    /// Gives each of the workers one. Nobody can choose the worker that takes a connection, so those that come to a worker
    /// that is busy already are given up.
    ///
    /// # Errors
    ///
    /// If a worker stays idle.
    pub fn start(running: &Running, contender: Contender, workers: usize) -> Result<Self, String> {
        let mut hogs = Self::default();
        let mut busy = 0;
        for _ in 0..TRIES {
            hogs.hogs.push(Hog::start(running.addr()));
            busy = match contender {
                // Threads of one process, which share all work.
                Contender::Wasmtime => hogs.hogs.len(),
                Contender::Hyper | Contender::Node | Contender::Wrun => running.busy(LOOK).len(),
            };
            if busy >= workers {
                return Ok(hogs);
            }
            hogs.hogs.truncate(busy);
        }
        Err(format!(
            "only {busy} of {workers} workers could be kept busy"
        ))
    }
}

impl Hog {
    fn start(addr: SocketAddr) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ending);
        let thread = thread::spawn(move || {
            let Ok(mut connection) = Connection::try_open(addr, PATIENCE) else {
                return;
            };
            while !seen.load(Ordering::Relaxed) {
                let sent = connection.try_send(REQUEST);
                if sent.and_then(|()| connection.try_response()).is_err() {
                    return;
                }
            }
        });
        Self {
            ending,
            thread: Some(thread),
        }
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
