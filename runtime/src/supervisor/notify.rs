//! What the service manager is told, by systemd's protocol: ready, reloading, stopping, alive.
//!
//! Without NOTIFY_SOCKET in the environment all of it does nothing. Nothing here can fail the server.

use sd_notify::NotifyState;
use std::time::{Duration, Instant};

/// The supervisor's line to the service manager.
#[derive(Debug)]
pub(super) struct Notify {
    /// How often to say that the loop runs: half of what the service manager waits for.
    watchdog: Option<Duration>,
    next: Instant,
}

impl Notify {
    /// Reads from the environment what the service manager expects.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled().map(|period| period / 2),
            next: now,
        }
    }

    /// It serves; also the end of a reload, failed or not.
    pub(super) fn ready(&self, status: &str) {
        send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload begins. systemd needs the time to tell this reload from an earlier one.
    pub(super) fn reloading(&self) {
        if let Ok(time) = NotifyState::monotonic_usec_now() {
            send(&[
                NotifyState::Reloading,
                time,
                NotifyState::Status("reloading"),
            ]);
        }
    }

    /// It drains.
    pub(super) fn stopping(&self) {
        send(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    }

    /// Sets the line that `systemctl status` shows.
    pub(super) fn status(&self, status: &str) {
        send(&[NotifyState::Status(status)]);
    }

    /// Says that the loop runs, if it is time, and returns when it will be the next time.
    pub(super) fn keep_alive(&mut self, now: Instant) -> Option<Instant> {
        let period = self.watchdog?;
        if now >= self.next {
            send(&[NotifyState::Watchdog]);
            self.next = now + period;
        }
        Some(self.next)
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(error = %error, "service manager could not be told");
    }
}
