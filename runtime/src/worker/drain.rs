//! How a worker ends without losing a request: in two stages.
//!
//! First it takes no new connections, and each answer says `Connection: close`, so that keep-alive clients go elsewhere of
//! their own accord. Only then are connections told to shut down. hyper's graceful shutdown alone closes a connection on
//! which the next request may already be under way, and loses it.

use std::sync::atomic::{AtomicU8, Ordering};
use tokio::sync::watch;

const SERVING: u8 = 0;
const RETIRING: u8 = 1;
const CLOSING: u8 = 2;

/// The stage that a worker is in.
pub(super) struct Drain {
    stage: watch::Sender<u8>,
    /// The same, for a look per request.
    now: AtomicU8,
}

/// Waits for a stage.
pub(super) struct Stage {
    stage: watch::Receiver<u8>,
    at_least: u8,
}

impl Drain {
    pub(super) fn new() -> Self {
        Self {
            stage: watch::Sender::new(SERVING),
            now: AtomicU8::new(SERVING),
        }
    }

    /// Enters the first stage.
    pub(super) fn retire(&self) {
        self.enter(RETIRING);
    }

    /// Enters the second stage.
    pub(super) fn close(&self) {
        self.enter(CLOSING);
    }

    fn enter(&self, stage: u8) {
        self.now.store(stage, Ordering::Relaxed);
        self.stage.send_replace(stage);
    }

    pub(super) fn is_retiring(&self) -> bool {
        self.now.load(Ordering::Relaxed) >= RETIRING
    }

    /// Returns what waits for the first stage.
    pub(super) fn retiring(&self) -> Stage {
        Stage {
            stage: self.stage.subscribe(),
            at_least: RETIRING,
        }
    }

    /// Returns what waits for the second stage.
    pub(super) fn closing(&self) -> Stage {
        Stage {
            stage: self.stage.subscribe(),
            at_least: CLOSING,
        }
    }
}

impl Stage {
    /// Waits until the worker is in this stage.
    pub(super) async fn wait(&mut self) {
        let at_least = self.at_least;
        // The sender lives as long as the worker.
        let _ = self.stage.wait_for(|stage| *stage >= at_least).await;
    }
}
