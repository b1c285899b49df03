//! The embedded engine: one SQLite file per database, with a thread that writes it, threads that read it, and a thread that
//! makes it durable.
//!
//! Guests' statements, transactions and the messages of queues meet here, because they share transactions. Who may use a
//! database, and whether the locks of a transaction are held, is for `server` to say.

mod authorizer;
mod backup;
mod checkpoint;
mod company;
mod connection;
mod convert;
mod database;
mod error;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod loan;
mod messages;
mod migrate;
mod outbox;
mod prepared;
mod queues;
mod reader;
mod schema;
mod serving;
mod session;
mod shared;
mod statement;
mod store;
mod sync;
mod ticket;
mod tokens;
mod work;
mod writer;

pub use loan::{MaySend, Returned};

use super::BoxFuture;
use super::db::{Database, DbError};
use super::protocol::DatabaseStatus;
use super::queue::stored::Stored;
use crate::config::shared::Durability;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail};
use checkpoint::Pace;
use connection::{Connection, Role};
use reader::Readers;
use shared::Shared;
use statement::Statements;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use ticket::{Ticket, stopped};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use work::{Manner, OneShot};
use writer::{Job, Parts, Writer};

/// Before it two connections could corrupt a write-ahead log between them.
const VERSION_MIN: i32 = 3_051_003;
/// Threads that read for guests.
const READERS: usize = 4;

/// What makes the write-ahead log durable.
pub type SyncFn = Arc<dyn Fn(&Path) -> io::Result<()> + Send + Sync>;

/// What is told that the engine cannot go on: the process must end, so that the next one recovers.
pub type FatalFn = Arc<dyn Fn(String) + Send + Sync>;

/// How to open a database.
#[derive(Clone)]
pub struct Options {
    /// Its file, in a folder that is there.
    pub path: PathBuf,
    pub label: String,
    /// In bytes.
    pub max_size: u64,
    pub durability: Durability,
    /// The name of SQLite's VFS; `None` is the default one.
    pub vfs: Option<String>,
    /// What syncs the log, whose path it gets; `None` is fdatasync.
    pub sync: Option<SyncFn>,
    pub fatal: FatalFn,
    /// The queues that live in this database, and how many messages each may hold.
    pub queues: BTreeMap<String, u64>,
}

/// An open database. Clones are the same one; when the last is gone its threads end by themselves.
#[derive(Clone)]
pub struct Sqlite {
    inner: Rc<Inner>,
}

struct Inner {
    options: Options,
    shared: Arc<Shared>,
    /// None once it is closed.
    jobs: RefCell<Option<Sender<Job>>>,
    readers: Readers,
    /// For the messages of queues, which do not wait for what guests read.
    own_reader: Readers,
    threads: RefCell<Vec<JoinHandle<()>>>,
}

impl Sqlite {
    /// Opens a database, or makes it. Messages go to `sent` when they are durable, in the order of their commits.
    pub fn open(options: Options, sent: UnboundedSender<Vec<Stored>>) -> Result<Self, Failure> {
        let opening = || format!("database {}: cannot be opened", options.label);
        if rusqlite::version_number() < VERSION_MIN {
            return Err(Failure::new(
                ExitCode::Internal,
                format!("SQLite {} is too old", rusqlite::version()),
            ));
        }
        let connection =
            Connection::open(&options, Role::Writer).or_fail(ExitCode::Unavailable, opening)?;
        let wal = with_suffix(&options.path, "-wal");
        let shared = Arc::new(Shared::new(
            options.label.clone(),
            wal.clone(),
            Arc::clone(&connection.log),
            Arc::clone(&options.fatal),
        ));
        // What the last process left in the log may be in memory only: see `sync`.
        checkpoint::truncate(&connection, &shared);
        shared.check().or_fail(ExitCode::System, opening)?;
        let depths = schema::prepare(&Statements::new(&connection))
            .or_fail(ExitCode::Unavailable, opening)?;
        let sync = match &options.sync {
            Some(sync) => Arc::clone(sync),
            None => sync::fdatasync(&wal).or_fail(ExitCode::System, opening)?,
        };
        if options.vfs.is_none() {
            sync_folder(&options.path).or_fail(ExitCode::System, opening)?;
        }

        let (commits, committed) = mpsc::channel();
        let (requests, requested) = mpsc::sync_channel(1);
        let (jobs, asked) = mpsc::channel();
        let parts = Parts {
            options: options.clone(),
            connection,
            depths,
            commits,
            pace: Pace::new(requests),
            shared: Arc::clone(&shared),
        };
        let for_sync = Arc::clone(&shared);
        let for_checkpoints = (options.clone(), Arc::clone(&shared));
        let threads = vec![
            spawn("sync", &options.label, move || {
                sync::run(&committed, &sync, &sent, for_sync)
            })?,
            spawn("keep", &options.label, move || {
                checkpoint::run(&requested, &for_checkpoints.0, for_checkpoints.1);
            })?,
            spawn("write", &options.label, move || writer::run(parts, &asked))?,
        ];
        Ok(Self {
            inner: Rc::new(Inner {
                readers: Readers::new(options.clone(), Arc::clone(&shared), READERS),
                own_reader: Readers::new(options.clone(), Arc::clone(&shared), 1),
                options,
                shared,
                jobs: RefCell::new(Some(jobs)),
                threads: RefCell::new(threads),
            }),
        })
    }

    /// Returns the label that it was opened with.
    pub fn label(&self) -> &str {
        &self.inner.options.label
    }

    /// Replaces the queues that live here and how many messages each may hold.
    pub fn set_queues(&self, queues: BTreeMap<String, u64>) {
        self.ask(Job::Queues(queues));
    }

    /// Replaces the queues that are kept elsewhere, to which transactions send by the outbox.
    pub fn set_outgoing(&self, queues: BTreeSet<String>) {
        self.ask(Job::Outgoing(queues));
    }

    /// Raises the highest fencing token that may be given out by `block`, durably whatever the database's durability is,
    /// and returns it: the new ones are the `block` up to and including it.
    pub fn reserve_tokens(&self, block: u64) -> BoxFuture<'static, Result<u64, DbError>> {
        let manner = Manner {
            atomic: true,
            durable: true,
        };
        self.work(Ticket::patient(), manner, move |writer, _| {
            schema::reserve_tokens(&writer.statements, block)
        })
    }

    /// Applies the `.sql` files of a folder that were not applied yet; returns their names.
    pub fn migrate(&self, folder: PathBuf) -> BoxFuture<'static, Result<Vec<String>, Failure>> {
        let (answer, answered) = oneshot::channel();
        self.ask(Job::Migrate { folder, answer });
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(closed())) })
    }

    /// Copies the database to a new file while it is used.
    pub fn backup(&self, to: PathBuf) -> BoxFuture<'static, Result<(), Failure>> {
        let (answer, answered) = oneshot::channel();
        let options = self.inner.options.clone();
        let copying = spawn("copy", self.label(), move || {
            let _ = answer.send(backup::copy(&options, &to));
        });
        Box::pin(async move {
            copying?;
            answered.await.unwrap_or_else(|_| Err(closed()))
        })
    }

    /// Returns how it stands.
    pub fn status(&self) -> DatabaseStatus {
        let shared = &self.inner.shared;
        let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        DatabaseStatus {
            db: self.label().to_owned(),
            dialect: self.dialect().to_owned(),
            bytes: size(&self.inner.options.path),
            wal_bytes: size(&shared.wal),
            commits: shared.log.commits.load(Ordering::Relaxed),
            syncs: shared.syncs.load(Ordering::Relaxed),
            writer_held_max_ms: shared.writer_held_max_ms(),
        }
    }

    /// Finishes what was asked for, brings everything into the database's file and ends the threads. Later calls answer
    /// `Unavailable`.
    pub fn close(&self) -> BoxFuture<'static, ()> {
        let jobs = self.inner.jobs.take();
        let mut readers = self.inner.readers.close();
        readers.extend(self.inner.own_reader.close());
        let threads = self.inner.threads.take();
        let (answer, answered) = oneshot::channel();
        let closing = spawn("close", self.label(), move || {
            // Readers first: the last of the log can be moved when nobody reads, and what they were asked may come to write.
            readers.into_iter().for_each(join);
            if let Some(jobs) = jobs {
                // It fails only if the writer has ended.
                let _ = jobs.send(Job::Close);
            }
            threads.into_iter().for_each(join);
            let _ = answer.send(());
        });
        Box::pin(async move {
            if closing.is_ok() {
                let _ = answered.await;
            }
        })
    }

    fn is_durable(&self) -> bool {
        self.inner.options.durability == Durability::Full
    }

    /// Asks the writer. Once it is closed the job is dropped, which those who wait for its answer notice.
    fn ask(&self, job: Job) {
        if let Some(jobs) = &*self.inner.jobs.borrow() {
            // It fails only if the writer has ended.
            let _ = jobs.send(job);
        }
    }

    /// Has the writer do something in a transaction of its own.
    fn work<T, E>(
        &self,
        ticket: Ticket,
        manner: Manner,
        action: impl FnMut(&mut Writer<'_>, &Ticket) -> Result<T, E> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, E>>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.ask(Job::Work(Box::new(OneShot::new(
            ticket.clone(),
            manner,
            answer,
            action,
        ))));
        Box::pin(ticket.answer(answered))
    }
}

fn closed() -> Failure {
    Failure::new(ExitCode::Unavailable, stopped().to_string())
}

/// Waits for the end of a thread. If it panicked, its watchdog has told.
fn join(thread: JoinHandle<()>) {
    let _ = thread.join();
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Brings the names of the files beside `path` to the disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn spawn(
    what: &str,
    label: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Failure> {
    thread::Builder::new()
        .name(format!("{what} {label}"))
        .spawn(run)
        .or_fail(ExitCode::System, || {
            format!("database {label}: no thread for `{what}`")
        })
}

#[cfg(test)]
mod power_loss;
#[cfg(test)]
mod tests;
