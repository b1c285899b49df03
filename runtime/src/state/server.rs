//! The state process: owns the locks, the databases and the queues, and serves those who connect.
//!
//! One thread does everything but the work on databases. Runs after the fork, knows the supervisor's channel and the
//! socket, and nothing of guests or HTTP.

mod accept;
mod bound;
mod configure;
mod outbox;
mod peer;
mod relays;
mod returning;
mod servers;
mod session;
mod sessions;
mod stores;

#[cfg(test)]
mod tests;

use crate::config::Secret;
use crate::config::sandbox::Mode;
use crate::config::shared::Shared;
use crate::exit_code::ExitCode;
use crate::ipc::{Channel, HEARTBEAT_MS, StateReport, StateVitals, ToState};
use crate::sandbox::{Needs, Role};
use accept::Reception;
use configure::Configurator;
use returning::Returning;
use servers::Servers;
use sessions::Sessions;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use stores::Stores;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, timeout};

/// How long connections may go on once the state process is to stop.
const STOP_MAX: Duration = Duration::from_secs(1);

/// What the state process is started with.
pub struct Boot {
    /// The folder for the databases' files; it exists.
    pub data: PathBuf,
    /// The socket that workers and `wrun` commands connect to; it does not block.
    pub listener: UnixListener,
    /// The way to the supervisor.
    pub channel: Channel,
    /// Folders with migrations, now or after a reload.
    pub reads: Vec<PathBuf>,
    /// The URLs of the servers that labels are bound to, by name, such as `db.default`.
    pub servers: BTreeMap<String, Secret>,
    /// What all state processes of one server of wrun's are known by where others are known, too.
    pub identity: String,
    /// Whether the kernel is asked to confine it.
    pub sandbox: Mode,
}

/// Serves until stopped. Runs in the state process and returns the status that it ends with.
pub fn run(mut boot: Boot) -> ExitCode {
    // Certificates that they name are read now, too.
    let servers = Servers::read(std::mem::take(&mut boot.servers), boot.identity.clone());
    let needs = Needs {
        read: boot.reads.clone(),
        write: vec![boot.data.clone()],
        ports: servers.ports(),
        resolves: servers.resolves(),
        scatters: servers.scatters(),
        sockets: servers.sockets(),
        listeners: vec![boot.listener.as_raw_fd()],
        ..Needs::none(Role::State)
    };
    // Now, while there is one thread: those to come are confined like it.
    if let Err(failure) = needs.lock_down(boot.sandbox) {
        tracing::error!(error = %failure, "state process cannot be confined");
        return failure.code;
    }
    serve_as_child_of(boot, servers, nix::unistd::getppid().as_raw())
}

/// Serves until stopped; `supervisor` is the process whose children are workers.
fn serve_as_child_of(boot: Boot, servers: Servers, supervisor: i32) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the event loop");
            return ExitCode::System;
        }
    };
    let tasks = LocalSet::new();
    let code = tasks.block_on(&runtime, async {
        match Server::new(boot, servers, supervisor) {
            Ok(server) => server.serve().await,
            Err(error) => {
                tracing::error!(%error, "cannot start to serve");
                ExitCode::System
            }
        }
    });
    if code != ExitCode::Ok {
        // Ending in order would mean more work for an engine that cannot work.
        std::mem::forget((tasks, runtime));
    }
    code
}

/// The state process as a whole.
struct Server {
    listener: tokio::net::UnixListener,
    channel: Rc<AsyncFd<Channel>>,
    reception: Rc<Reception>,
    configurator: Configurator,
    /// Why an engine cannot go on.
    fatal: mpsc::UnboundedReceiver<String>,
}

/// Why [`Server`] no longer takes connections.
enum End {
    Stop,
    Fatal(String),
}

impl Server {
    fn new(boot: Boot, servers: Servers, supervisor: i32) -> io::Result<Self> {
        // SAFETY: the channel owns its descriptor, and the `AsyncFd` owns the channel from here on.
        let channel = unsafe { AsyncFd::register(boot.channel) }?;
        let (failed, fatal) = mpsc::unbounded_channel();
        let stores = Rc::new(Stores::new(boot.data));
        stores.remove_copies()?;
        let sessions = Rc::<Sessions>::default();
        let returning = Rc::<Returning>::default();
        let configurator = Configurator::new(
            stores.clone(),
            sessions.clone(),
            returning.clone(),
            servers,
            Arc::new(move |why| drop(failed.send(why))),
        );
        Ok(Self {
            listener: tokio::net::UnixListener::from_std(boot.listener)?,
            channel: Rc::new(channel),
            reception: Rc::new(Reception {
                stores,
                sessions,
                returning,
                supervisor,
            }),
            configurator,
            fatal,
        })
    }

    async fn serve(self) -> ExitCode {
        let Self {
            listener,
            channel,
            reception,
            configurator,
            mut fatal,
        } = self;
        let sessions = reception.sessions.clone();
        let beat = tokio::task::spawn_local(beat(channel.clone(), reception.clone()));
        let mut open = JoinSet::new();
        let end = tokio::select! {
            end = follow(&channel, &reception.stores, configurator) => end,
            Some(why) = fatal.recv() => End::Fatal(why),
            () = accept::accept(&listener, reception.clone(), &mut open) => End::Stop,
        };
        if let End::Fatal(why) = end {
            // Nothing that is in memory may reach the disk, or anybody, from here on.
            tracing::error!(error = why, "a database cannot go on");
            return ExitCode::Internal;
        }
        drop(listener);
        let _ = timeout(STOP_MAX, sessions.all_ended()).await;
        open.shutdown().await;
        reception.stores.relays.clear();
        let queues = reception.stores.queues.take();
        for queue in queues.values() {
            // What is not written is delivered again.
            let _ = timeout(STOP_MAX, queue.flush()).await;
        }
        for queue in reception.stores.bound_queues.take().into_values() {
            // What is not given back comes to others later.
            let _ = timeout(STOP_MAX, queue.close()).await;
        }
        let databases = reception.stores.databases.take();
        for database in databases.into_values() {
            database.close().await;
        }
        for bound in reception.stores.bound.take().into_values() {
            bound.close();
        }
        for bound in reception.stores.locks.bound().values() {
            // What is not given back runs out.
            let _ = timeout(STOP_MAX, bound.flush()).await;
        }
        beat.abort();
        ExitCode::Ok
    }
}

/// Does what the supervisor says, until it says to end or is gone.
async fn follow(
    channel: &Rc<AsyncFd<Channel>>,
    stores: &Stores,
    configurator: Configurator,
) -> End {
    let (todo, orders) = mpsc::unbounded_channel();
    // Beside this loop, because it may take long, and the end of the supervisor must be seen meanwhile.
    let configuring = tokio::task::spawn_local(carry_out(channel.clone(), configurator, orders));
    let end = loop {
        let message = channel
            .async_io(Interest::READABLE, |channel| channel.recv())
            .await;
        match message {
            Ok(Some(ToState::Configure {
                generation,
                shared,
                live,
            })) => {
                let _ = todo.send((generation, shared, live));
            }
            Ok(Some(ToState::Forget { generation })) => stores.forget(generation),
            Ok(Some(ToState::Stop)) | Ok(None) => break End::Stop,
            Err(error) => {
                tracing::error!(%error, "cannot read from the supervisor");
                break End::Stop;
            }
        }
    };
    configuring.abort();
    end
}

/// A generation to make ready: its number, what it may use, and the workers that are not to be surprised.
type Order = (u64, Shared, Vec<i32>);

/// Makes generations ready, one after the other.
async fn carry_out(
    channel: Rc<AsyncFd<Channel>>,
    mut configurator: Configurator,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    while let Some((generation, shared, live)) = orders.recv().await {
        let report = match configurator.configure(generation, shared, &live).await {
            Ok(()) => StateReport::Configured { generation },
            Err(failure) => StateReport::Failed {
                generation,
                failure,
            },
        };
        // Its end is noticed by whoever reads.
        let _ = channel
            .async_io(Interest::WRITABLE, |channel| channel.send(&report))
            .await;
    }
}

/// Gives signs of life for as long as it is polled.
async fn beat(channel: Rc<AsyncFd<Channel>>, reception: Rc<Reception>) {
    let mut interval = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let vitals = StateVitals {
            sessions: reception.sessions.len() as u64,
            bound: reception.stores.bound_status(),
        };
        // A supervisor that does not read now may read later.
        let _ = channel.get_ref().send(&StateReport::Heartbeat(vitals));
    }
}
