//! One connection to the state process: sends calls, wakes those who wait for answers, knows which guards still hold.
//!
//! A call is written at once by whoever makes it; what the socket does not take, the task that reads writes later. A
//! link never comes back: with its connection, everything that was made on it is over.

use super::guard::Held;
use super::locked;
use crate::state::protocol::{
    Call, HEARTBEAT_MS, Outgoing, Reply, Request, Stream, TRANSACTIONS_MAX,
};
use crate::state::spin::Spin;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// Bytes that may wait because the state process does not read.
const BACKLOG_MAX: usize = 64 << 20;

/// How often a sign of life is sent if no guard needs it more often.
pub(super) const USUAL_BEAT: Duration = Duration::from_millis(HEARTBEAT_MS);

/// The fastest signs of life, for locks with the shortest leases.
const BEAT_MIN: Duration = Duration::from_millis(30);

/// Why a call was not sent.
#[derive(Debug)]
pub(super) enum Unsent {
    /// The connection is over: here is the call, for another one.
    Closed(Box<Call>),
    /// Too much waits to be sent already.
    Behind,
    /// It does not fit into a frame.
    TooLarge,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unanswered {
    NotSent,
    /// It was not sent: it does not fit into a frame.
    TooLarge,
    /// It may have been carried out.
    Broken,
}

impl From<Unsent> for Unanswered {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Closed(_) | Unsent::Behind => Self::NotSent,
            Unsent::TooLarge => Self::TooLarge,
        }
    }
}

/// The answer to a call, once it comes. Dropping it does not take the call back.
#[derive(Debug)]
pub(super) struct Pending {
    /// The id of the call.
    pub(super) id: u64,
    answer: oneshot::Receiver<Reply>,
}

impl Pending {
    pub(super) async fn reply(self) -> Result<Reply, Unanswered> {
        self.answer.await.map_err(|_| Unanswered::Broken)
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: Stream,
    out: Mutex<Outgoing>,
    /// Something waits in `out`.
    behind: Notify,
    open: AtomicBool,
    /// Who waits for which answer; `None` once nobody can get one.
    calls: Mutex<Option<HashMap<u64, oneshot::Sender<Reply>>>>,
    guards: Mutex<HashMap<u64, Arc<Held>>>,
    /// Transactions that were begun and have not ended.
    transactions: AtomicUsize,
    /// A transaction goes on.
    served: AtomicBool,
    /// A guard needs signs of life more often than there were any until now.
    hurry: Notify,
    /// When the last sign of life that was answered was sent.
    renewed: Mutex<Instant>,
    /// The last id of a call.
    id: AtomicU64,
}

impl Link {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            out: Mutex::default(),
            behind: Notify::new(),
            open: AtomicBool::new(true),
            calls: Mutex::new(Some(HashMap::new())),
            guards: Mutex::default(),
            transactions: AtomicUsize::new(0),
            served: AtomicBool::new(false),
            hurry: Notify::new(),
            renewed: Mutex::new(Instant::now()),
            id: AtomicU64::new(0),
        }
    }

    /// Sends a call. It is sent when this returns, whether or not the answer is waited for.
    pub(super) fn ask(&self, call: Call) -> Result<Pending, Unsent> {
        let id = self.next_id();
        let (sender, answer) = oneshot::channel();
        match &mut *locked(&self.calls) {
            Some(calls) => calls.insert(id, sender),
            None => return Err(Unsent::Closed(Box::new(call))),
        };
        match self.send(Request { id, call }) {
            Ok(()) => Ok(Pending { id, answer }),
            Err(unsent) => {
                self.take_call(id);
                Err(unsent)
            }
        }
    }

    /// Sends the request for a guard, and counts it as one of this connection's.
    pub(super) fn ask_for(&self, guard: &Arc<Held>, call: Call) -> Result<Pending, Unsent> {
        // Before it is sent: the answer may be here before this function returns.
        locked(&self.guards).insert(guard.number, guard.clone());
        self.ask(call).inspect_err(|_| self.forget(guard.number))
    }

    /// Sends the call that begins a transaction, which nobody answers. False says that there are too many.
    pub(super) fn begin(&self, call: Call) -> Result<bool, Unsent> {
        if self.transactions.load(Ordering::Relaxed) >= TRANSACTIONS_MAX {
            return Ok(false);
        }
        self.send(Request { id: 0, call })?;
        self.transactions.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// A call is sent of a transaction that goes on.
    pub(super) fn set_served(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// Tells whether a transaction goes on, where this is the connection of one at a time.
    pub(super) fn is_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// A transaction has ended. What ends it was sent before.
    pub(super) fn end_transaction(&self) {
        self.transactions.fetch_sub(1, Ordering::Relaxed);
        self.served.store(false, Ordering::Relaxed);
    }

    /// Sends a call that needs no answer; false says that it could not. Then the end of the connection does more than it
    /// would.
    pub(super) fn tell(&self, call: Call) -> bool {
        self.send(Request { id: 0, call }).is_ok()
    }

    fn send(&self, request: Request) -> Result<(), Unsent> {
        let mut out = locked(&self.out);
        if !self.is_open() {
            return Err(Unsent::Closed(Box::new(request.call)));
        }
        let before = out.len();
        if before > BACKLOG_MAX {
            return Err(Unsent::Behind);
        }
        out.push(&request).map_err(|_| Unsent::TooLarge)?;
        if before > 0 {
            return Ok(());
        }
        let len = out.len();
        if out.write(|bytes| self.stream.write(bytes)).is_err() {
            // Whoever reads finds out, too, and ends the link; until then nothing more is sent.
            self.open.store(false, Ordering::Release);
            if out.len() == len {
                return Err(Unsent::Closed(Box::new(request.call)));
            }
        } else if !out.is_empty() {
            self.behind.notify_one();
        }
        Ok(())
    }

    /// Writes what the socket did not take at once. Ends only with an error.
    pub(super) async fn catch_up(&self) -> io::Error {
        loop {
            self.behind.notified().await;
            while !locked(&self.out).is_empty() {
                let written = match self.stream.writable().await {
                    Ok(()) => locked(&self.out).write(|bytes| self.stream.write(bytes)),
                    Err(error) => Err(error),
                };
                if let Err(error) = written {
                    return error;
                }
            }
        }
    }

    /// Reads what has arrived.
    pub(super) async fn read(&self, buffer: &mut Vec<u8>, spin: &mut Spin) -> io::Result<usize> {
        self.stream.read(buffer, spin).await
    }

    /// Gives an answer to whoever waits for it.
    pub(super) fn answer(&self, id: u64, reply: Reply) {
        if let Some(call) = self.take_call(id) {
            // Whoever asked may have stopped waiting.
            let _ = call.send(reply);
        }
    }

    fn take_call(&self, id: u64) -> Option<oneshot::Sender<Reply>> {
        locked(&self.calls)
            .as_mut()
            .and_then(|calls| calls.remove(&id))
    }

    /// Tells whether the connection lasts, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Says that nothing more is coming, which ends what was made on the connection.
    pub(super) fn hang_up(&self) {
        self.open.store(false, Ordering::Release);
        self.stream.hang_up();
    }

    /// Ends the connection, and with it everything that was made on it.
    pub(super) fn close(&self) {
        self.open.store(false, Ordering::Release);
        // A guest may hold a guard of this link for long; the state process must not wait for that.
        self.stream.shut_down();
        locked(&self.out).clear();
        drop(locked(&self.calls).take());
        for (_, guard) in locked(&self.guards).drain() {
            guard.lose();
        }
    }

    /// A guard is no longer one of this connection's.
    pub(super) fn forget(&self, number: u64) {
        locked(&self.guards).remove(&number);
    }

    /// The state process says that a guard was lost.
    pub(super) fn lose(&self, number: u64) {
        if let Some(guard) = locked(&self.guards).get(&number) {
            guard.lose();
        }
    }

    /// Looks at once whether signs of life are due more often: there is a new guard with a short lease.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    pub(super) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Returns how long to wait between signs of life: a third of the shortest lease, so that one may be late.
    pub(super) fn beat_interval(&self) -> Duration {
        let guards = locked(&self.guards);
        let shortest = guards
            .values()
            .filter_map(|guard| guard.renewing_ttl())
            .min();
        shortest.map_or(USUAL_BEAT, |ttl| (ttl / 3).clamp(BEAT_MIN, USUAL_BEAT))
    }

    /// Gives a sign of life; returns the id of its answer.
    pub(super) fn heartbeat(&self) -> Result<u64, Unsent> {
        let id = self.next_id();
        let call = Call::Heartbeat;
        self.send(Request { id, call }).map(|()| id)
    }

    fn next_id(&self) -> u64 {
        self.id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A sign of life that was sent at `sent` was answered.
    pub(super) fn renew(&self, sent: Instant) {
        *locked(&self.renewed) = sent;
    }

    pub(super) fn renewed(&self) -> Instant {
        *locked(&self.renewed)
    }
}
