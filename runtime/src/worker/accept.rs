//! Taking connections from the listener that all workers share.
//!
//! One at a time, and only with a place for it: what a worker has accepted is lost if it crashes, and what it leaves in
//! the queue another worker takes. After a few of them it rests: of many that come at once others get their part.

use super::Worker;
use super::connection;
use nix::errno::Errno;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How long the worker leaves the queue alone when it has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// By how much a worker's connections may grow before it rests: by a few, and by an eighth, so that thousands do not wait.
fn may_grow(connections: usize) -> usize {
    4.max(connections / 8)
}

/// How long it rests: enough for another worker to be woken and take some. It is the shortest that tokio's timer knows.
const REST: Duration = Duration::from_millis(1);

/// Accepts connections until the worker retires, then those that wait already, since nobody else may come for them.
pub(super) async fn accept(
    listener: std::net::TcpListener,
    worker: Arc<Worker>,
    places: Arc<Semaphore>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot watch the listener");
            return;
        }
    };
    let mut spare = Spare::open();
    let mut retiring = worker.drain.retiring();
    let mut rested_at = 0;
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            biased;
            () = retiring.wait() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => begin(socket, &worker, place),
            Err(error) if is_exhausted(&error) => {
                tracing::warn!(%error, "out of descriptors; a connection is turned away");
                spare.turn_away(&listener);
                tokio::time::sleep(PAUSE).await;
            }
            // The client was gone before it was accepted.
            Err(error) => tracing::debug!(%error, "accept failed"),
        }
        // Clients that connect anew for each request are no growth, and nobody rests for them.
        let connections = worker.connections.load(Ordering::Relaxed);
        rested_at = connections.min(rested_at);
        if connections >= rested_at + may_grow(rested_at) {
            tokio::time::sleep(REST).await;
            rested_at = connections;
        } else {
            // Others of this worker, and other workers, get their turn before the next.
            tokio::task::yield_now().await;
        }
    }
    while let Ok(place) = places.clone().try_acquire_owned()
        && let Some(Ok((socket, _))) = now_or_never(listener.accept()).await
    {
        begin(socket, &worker, place);
    }
}

fn begin(socket: TcpStream, worker: &Arc<Worker>, place: impl Send + 'static) {
    let worker = worker.clone();
    worker.connections.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        let counted = Counted(worker.clone());
        connection::serve(socket, worker).await;
        drop((counted, place));
    });
}

/// Counts a connection until it is over, however that happens.
struct Counted(Arc<Worker>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.connection_ended.notify_one();
    }
}

fn is_exhausted(error: &std::io::Error) -> bool {
    let exhausted = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    error
        .raw_os_error()
        .is_some_and(|code| exhausted.contains(&Errno::from_raw(code)))
}

/// A descriptor kept back, so that a connection can be accepted and closed when there is no other left: its client is told,
/// and the listener does not stay readable for ever.
struct Spare(Option<OwnedFd>);

impl Spare {
    fn open() -> Self {
        // Of the descriptors, the kind that takes neither a file nor a peer.
        Self(eventfd(0, EventfdFlags::CLOEXEC).ok())
    }

    fn turn_away(&mut self, listener: &TcpListener) {
        self.0 = None;
        let mut waker = std::task::Context::from_waker(std::task::Waker::noop());
        drop(listener.poll_accept(&mut waker));
        *self = Self::open();
    }
}

/// Polls a future once.
async fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = std::future::ready(()) => None,
    }
}
