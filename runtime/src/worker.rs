//! A worker process: one thread, one event loop, one engine; takes connections and messages, and runs a guest for each
//! request and each batch of messages.
//!
//! Everything here runs after the fork. The worker knows its listeners, its channel to the supervisor and its line to the
//! state process, and nothing of other workers.

mod accept;
mod admission;
mod answer;
mod attended;
mod connection;
mod consume;
mod drain;
mod error_page;
mod framing;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod gate;
mod occupation;
mod pace;
mod request_body;
mod request_id;
mod waits;
mod wire;

use crate::config::sandbox::Mode;
use crate::config::{Config, Grant, Limits};
use crate::engine::Handler;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::ipc::{Channel, HEARTBEAT_MS, ToSupervisor, ToWorker, Vitals};
use crate::sandbox::{Needs, Role};
use crate::state::client::Client;
use admission::Admission;
use consume::Consumers;
use drain::Drain;
use error_page::ErrorPage;
use occupation::Occupation;
use request_id::RequestIds;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

/// How many tasks run before the event loop looks for I/O again: few, because a task may be a guest's slice of CPU time.
const TASKS_PER_LOOK: u32 = 8;

/// What a worker is started with.
pub struct Boot {
    /// Its place.
    pub slot: usize,
    /// The generation that it belongs to.
    pub generation: u64,
    /// The core that it is pinned to.
    pub cpu: Option<usize>,
    /// Its settings.
    pub config: Config,
    /// The compiled code.
    pub code: PathBuf,
    /// The listeners, shared with every other worker; none if the component handles no requests.
    pub listeners: Vec<TcpListener>,
    /// The way to the supervisor.
    pub channel: Channel,
    /// The socket of the state process, if there is one.
    pub state: Option<PathBuf>,
    /// Whether the kernel is asked to confine it.
    pub sandbox: Mode,
}

/// What all tasks of a worker share.
struct Worker {
    handler: Handler,
    limits: Limits,
    access_log: bool,
    /// `None` unless `wrun dev` started the server.
    error_page: Option<ErrorPage>,
    admission: Admission,
    drain: Drain,
    ids: RequestIds,
    requests: AtomicU64,
    /// Connections that it is to part with until the next heartbeat.
    surplus: AtomicU64,
    /// Batches of messages that are being handled.
    batches: AtomicUsize,
    connections: AtomicUsize,
    connection_ended: Notify,
}

impl Worker {
    /// Counts a request that was answered, or a batch of messages that was handled.
    fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells whether it is to part with a connection, once for each.
    fn parts_with_one(&self) -> bool {
        let take = |surplus: u64| surplus.checked_sub(1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.surplus.fetch_update(set, fetch, take).is_ok()
    }

    fn vitals(&self) -> Vitals {
        let in_flight = self.admission.in_flight() + self.batches.load(Ordering::Relaxed);
        Vitals {
            requests: self.requests.load(Ordering::Relaxed),
            in_flight: in_flight as u64,
            connections: self.connections.load(Ordering::Relaxed) as u64,
            ..Vitals::default()
        }
    }
}

/// Serves until drained. Runs in the worker process and returns the status that it ends with.
pub fn run(boot: Boot) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_PER_LOOK)
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(serve(boot));
            // Whatever is left was cut off by the deadline: ending each guest in order would only take time.
            std::mem::forget(runtime);
            code
        }
        Err(error) => {
            tracing::error!(%error, "cannot start the event loop");
            ExitCode::System
        }
    }
}

async fn serve(boot: Boot) -> ExitCode {
    let Boot {
        slot,
        generation,
        config,
        code,
        listeners,
        channel,
        state,
        sandbox,
        cpu: _,
    } = boot;
    // A huge page would make one touched byte cost 2 MiB of zeroing per request.
    let _ = nix::sys::prctl::set_thp_disable(true);
    // SAFETY: the channel owns its descriptor, and the `AsyncFd` owns the channel from here on.
    let channel = match unsafe { AsyncFd::register(channel) } {
        Ok(channel) => channel,
        Err(error) => {
            tracing::error!(%error, "cannot watch the supervisor");
            return ExitCode::System;
        }
    };
    let needs = needs(&config, &listeners, state.as_deref());
    let client = match state.map(|socket| Client::start(&socket, generation)) {
        Some(Ok(client)) => Some(client),
        None => None,
        Some(Err(error)) => {
            tracing::error!(%error, "cannot find the state process's socket");
            return ExitCode::System;
        }
    };
    let queues = config.shared.consumers.clone();
    let worker = match start(config, &code, client.clone(), needs, sandbox).await {
        Ok(worker) => Arc::new(worker),
        Err(failure) => {
            // The supervisor sees the end of the channel if it does not see this.
            let _ = channel.get_ref().send(&ToSupervisor::Failed(failure));
            return ExitCode::Config;
        }
    };
    let places = Arc::new(Semaphore::new(worker.limits.connections as usize));
    for listener in listeners {
        tokio::spawn(accept::accept(listener, worker.clone(), places.clone()));
    }
    if channel.get_ref().send(&ToSupervisor::Ready).is_err() {
        return ExitCode::Ok;
    }
    tracing::debug!(slot, generation, "worker ready");
    let consumers = Consumers::start(&worker, client, &queues);
    follow(&channel, &worker, consumers).await
}

/// Loads the component, gives up what only that took, and tries it: no code of the guest's runs before.
async fn start(
    config: Config,
    code: &Path,
    client: Option<Client>,
    needs: Needs,
    sandbox: Mode,
) -> Result<Worker, Failure> {
    let handler = Handler::load(code, &config, client)?;
    needs.lock_down(sandbox)?;
    handler.try_instance().await?;
    let ids = RequestIds::new().or_fail(ExitCode::System, || "no random numbers".to_owned())?;
    Ok(Worker {
        handler,
        admission: Admission::new(config.limits.in_flight as usize),
        limits: config.limits,
        access_log: config.access_log,
        error_page: config.dev.then(ErrorPage::default),
        drain: Drain::new(),
        ids,
        requests: AtomicU64::new(0),
        surplus: AtomicU64::new(0),
        batches: AtomicUsize::new(0),
        connections: AtomicUsize::new(0),
        connection_ended: Notify::new(),
    })
}

/// Returns what a worker still needs once its code is loaded.
fn needs(config: &Config, listeners: &[TcpListener], state: Option<&Path>) -> Needs {
    let grants = &config.outbound;
    Needs {
        ports: grants.iter().map(Grant::port).collect(),
        resolves: grants.iter().any(|grant| !grant.is_address()),
        sockets: state
            .and_then(Path::parent)
            .map(Path::to_path_buf)
            .into_iter()
            .collect(),
        listeners: listeners.iter().map(AsRawFd::as_raw_fd).collect(),
        ..Needs::none(Role::Worker)
    }
}

/// Gives signs of life and does what the supervisor says, until it says to end or is gone.
async fn follow(channel: &AsyncFd<Channel>, worker: &Worker, mut consumers: Consumers) -> ExitCode {
    let mut heartbeat = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut occupation = Occupation::start();
    let mut draining = None;
    loop {
        let drained = async {
            match draining {
                Some((grace, deadline)) => drain(worker, &mut consumers, grace, deadline).await,
                None => std::future::pending().await,
            }
        };
        let message = tokio::select! {
            () = drained => return ExitCode::Ok,
            _ = heartbeat.tick() => {
                worker.surplus.store(0, Ordering::Relaxed);
                let vitals = occupation.complete(worker.vitals());
                // A supervisor that does not read now may read later; one that is gone ends the stream below.
                let _ = channel.get_ref().send(&ToSupervisor::Heartbeat(vitals));
                continue;
            }
            message = receive(channel) => message,
        };
        match message {
            Ok(Some(ToWorker::Drain {
                grace_ms,
                deadline_ms,
            })) => {
                let now = Instant::now();
                draining.get_or_insert((
                    now + Duration::from_millis(grace_ms),
                    now + Duration::from_millis(deadline_ms),
                ));
            }
            Ok(Some(ToWorker::ShowError(page))) => {
                if let Some(error_page) = &worker.error_page {
                    error_page.set(page);
                }
            }
            Ok(Some(ToWorker::Release { connections })) => {
                worker.surplus.store(connections, Ordering::Relaxed);
            }
            // Without a supervisor there is nobody to answer to, and a new one may want the port.
            Ok(None) => return ExitCode::Ok,
            Err(error) => {
                tracing::error!(%error, "cannot read from the supervisor");
                return ExitCode::Internal;
            }
        }
    }
}

/// Ends the worker's connections, in two stages, and its consumers; returns when they are over or cut off.
async fn drain(worker: &Worker, consumers: &mut Consumers, grace: Instant, deadline: Instant) {
    worker.drain.retire();
    let connections = async {
        // The queue is emptied by the accept loops, which run before the first look at the count.
        tokio::task::yield_now().await;
        let _ = timeout_at(grace, connections_ended(worker)).await;
        worker.drain.close();
        connections_ended(worker).await;
    };
    let all = async { tokio::join!(connections, consumers.end()) };
    if timeout_at(deadline, all).await.is_err() {
        let Vitals {
            connections,
            in_flight,
            ..
        } = worker.vitals();
        tracing::warn!(
            connections,
            in_flight,
            "drain timeout: connections and messages are cut off"
        );
    }
}

async fn connections_ended(worker: &Worker) {
    while worker.connections.load(Ordering::Relaxed) > 0 || worker.admission.in_flight() > 0 {
        let ended = worker.connection_ended.notified();
        // Guests that go on after their answer end without a connection's end.
        let _ = tokio::time::timeout(Duration::from_millis(50), ended).await;
    }
}

async fn receive(channel: &AsyncFd<Channel>) -> io::Result<Option<ToWorker>> {
    channel
        .async_io(tokio::io::Interest::READABLE, |channel| channel.recv())
        .await
}
