//! The writer: the one thread that changes a database, and the order in which it does.
//!
//! First come, first served. Pieces of work that wait together share a transaction of SQLite; an interactive transaction has
//! the writer for itself. A commit is handed on to `sync`, which acknowledges it, and the next transaction begins at once.

use super::Options;
use super::checkpoint::{self, Pace};
use super::connection::Connection;
use super::messages::external_id;
use super::migrate;
use super::outbox;
use super::queues::{Depths, Queues};
use super::serving;
use super::session::Begin;
use super::shared::{Shared, Watchdog};
use super::statement::Statements;
use super::sync::{Ack, Commit};
use super::work::Work;
use crate::failure::Failure;
use crate::state::db::DbError;
use crate::state::queue::stored::Stored;
use crate::state::queue::{Message, QueueError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;
use tokio::sync::oneshot;

/// Pieces of work that share a transaction.
const GROUP_MAX: usize = 256;

/// What the writer is asked for.
pub(super) enum Job {
    Work(Box<dyn Work>),
    Begin(Begin),
    /// What queues there are now, and how many messages each may hold.
    Queues(BTreeMap<String, u64>),
    /// Which queues are kept elsewhere now.
    Outgoing(BTreeSet<String>),
    Migrate {
        folder: PathBuf,
        answer: oneshot::Sender<Result<Vec<String>, Failure>>,
    },
    /// End, after all that was asked before.
    Close,
}

/// What the writer needs to begin.
pub(super) struct Parts {
    pub(super) options: Options,
    pub(super) connection: Connection,
    pub(super) depths: Depths,
    pub(super) commits: Sender<Commit>,
    pub(super) pace: Pace,
    pub(super) shared: Arc<Shared>,
}

/// Serves jobs until it is told to end, or nobody can ask any more. Afterwards all of the log is in the database's file.
pub(super) fn run(parts: Parts, jobs: &Receiver<Job>) {
    let watchdog = Watchdog(Arc::clone(&parts.shared));
    let connection = parts.connection;
    let mut writer = Writer {
        statements: Rc::new(Statements::new(&connection)),
        queues: Queues {
            max_depths: parts.options.queues.clone(),
            depths: parts.depths,
        },
        outgoing: BTreeSet::new(),
        stored: Vec::new(),
        options: parts.options,
        commits: parts.commits,
        pace: parts.pace,
        shared: parts.shared,
    };
    writer.serve(jobs);
    drop(writer);
    if watchdog.0.check().is_ok() {
        checkpoint::truncate(&connection, &watchdog.0);
    }
}

/// The writer's state; what it has of the open transaction is undone with it.
pub(super) struct Writer<'c> {
    pub(super) statements: Rc<Statements<'c>>,
    pub(super) queues: Queues,
    /// The queues that are kept elsewhere.
    outgoing: BTreeSet<String>,
    /// The messages that the open transaction has added.
    pub(super) stored: Vec<Stored>,
    options: Options,
    commits: Sender<Commit>,
    pace: Pace,
    pub(super) shared: Arc<Shared>,
}

/// How far a part of the open transaction can be undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    stored: usize,
    depths: usize,
}

impl Writer<'_> {
    fn serve(&mut self, jobs: &Receiver<Job>) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| jobs.recv().ok()) {
            match job {
                Job::Work(first) => {
                    let mut group = vec![first];
                    while group.len() < GROUP_MAX
                        && let Ok(job) = jobs.try_recv()
                    {
                        match job {
                            Job::Work(work) => group.push(work),
                            other => {
                                next = Some(other);
                                break;
                            }
                        }
                    }
                    self.timed(|writer| writer.do_group(group));
                }
                Job::Begin(begin) => self.timed(|writer| {
                    writer.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                    let statements = Rc::clone(&writer.statements);
                    serving::serve(&statements, Some(writer), begin);
                }),
                Job::Queues(max_depths) => self.queues.max_depths = max_depths,
                Job::Outgoing(queues) => self.outgoing = queues,
                Job::Migrate { folder, answer } => self.migrate(&folder, answer),
                Job::Close => return,
            }
        }
    }

    /// Holds the writer for a transaction.
    fn timed(&mut self, transaction: impl FnOnce(&mut Self)) {
        let began = Instant::now();
        transaction(self);
        self.shared.held_writer(began.elapsed());
        self.check_sync();
        self.pace
            .after_transaction(self.statements.connection, &self.shared);
    }

    fn do_group(&mut self, group: Vec<Box<dyn Work>>) {
        let mut group: Vec<_> = group.into_iter().filter(|work| work.start()).collect();
        if let Err(error) = self.shared.check() {
            for mut work in group {
                work.fail(error.clone());
                work.into_ack()();
            }
            return;
        }
        if group.len() > 1 && self.try_together(&mut group).is_ok() {
            self.hand_over(group);
            return;
        }
        // One of them took the others with it, or the commit failed: each by itself then, so that only that one fails.
        let mut locked = None;
        for mut work in group {
            match &locked {
                None => locked = self.do_alone(&mut *work).err(),
                Some(error) => work.fail(DbError::clone(error)),
            }
            self.hand_over(vec![work]);
        }
    }

    /// Does all of them in one transaction. An error says that nothing of it remained.
    fn try_together(&mut self, group: &mut [Box<dyn Work>]) -> Result<(), DbError> {
        self.begin()?;
        let tried = group
            .iter_mut()
            .try_for_each(|work| self.do_guarded(&mut **work));
        match tried {
            Ok(()) => self.commit(),
            Err(error) => {
                self.rollback();
                Err(error)
            }
        }
    }

    /// Does one of several, so that its failure does not touch the others. An error says that it did.
    fn do_guarded(&mut self, work: &mut dyn Work) -> Result<(), DbError> {
        let mark = self.mark();
        let statements = Rc::clone(&self.statements);
        let sqlite = &statements.connection.sqlite;
        if work.is_atomic() {
            let changes = sqlite.total_changes();
            let succeeded = work.run(self);
            // `INSERT OR FAIL` keeps the rows before the one that failed.
            if !succeeded && (sqlite.is_autocommit() || sqlite.total_changes() != changes) {
                return Err(DbError::Closed);
            }
            if !succeeded {
                self.undo_to(mark);
            }
            return Ok(());
        }
        self.savepoint()?;
        if work.run(self) {
            return self.release();
        }
        if sqlite.is_autocommit() {
            return Err(DbError::Closed);
        }
        self.undo_savepoint(mark)
    }

    /// Does one in a transaction of its own. An error says that none could begin.
    fn do_alone(&mut self, work: &mut dyn Work) -> Result<(), DbError> {
        if let Err(error) = self.begin() {
            work.fail(error.clone());
            return Err(error);
        }
        if !work.run(self) {
            self.rollback();
        } else if let Err(error) = self.commit() {
            work.fail(error);
        }
        Ok(())
    }

    /// Hands work that is done on to be acknowledged, or answers at once what waits for no disk. Messages go with it.
    fn hand_over(&mut self, group: Vec<Box<dyn Work>>) {
        let durable = group.iter().any(|work| work.is_durable());
        let mut acks = Vec::with_capacity(group.len());
        for work in group {
            if work.is_durable() {
                acks.push(work.into_ack());
            } else {
                work.into_ack()();
            }
        }
        self.acknowledge(durable, acks);
    }

    /// Has the last commit acknowledged.
    pub(super) fn acknowledge(&mut self, durable: bool, acks: Vec<Ack>) {
        let stored = std::mem::take(&mut self.stored);
        self.check_sync();
        if acks.is_empty() && stored.is_empty() {
            return;
        }
        // It fails only when the sync thread has ended, for a reason that was told. The answers are lost with it.
        let _ = self.commits.send(Commit {
            durable,
            acks,
            stored,
        });
    }

    /// After a failed sync inside of SQLite nothing can be acknowledged any more.
    fn check_sync(&self) {
        if self.statements.connection.has_lost_sync() {
            self.shared.fail("a sync failed".to_owned());
        }
    }

    pub(super) fn begin(&mut self) -> Result<(), DbError> {
        self.statements.execute("BEGIN IMMEDIATE", []).map(drop)
    }

    /// Commits, or rolls back and says why.
    pub(super) fn commit(&mut self) -> Result<(), DbError> {
        match self.statements.execute("COMMIT", []) {
            Ok(_) => {
                self.queues.depths.commit();
                Ok(())
            }
            Err(error) => {
                self.rollback();
                Err(error)
            }
        }
    }

    pub(super) fn rollback(&mut self) {
        self.undo_to(Mark {
            stored: 0,
            depths: 0,
        });
        let is_over = || self.statements.connection.sqlite.is_autocommit();
        if is_over() {
            return;
        }
        if let Err(error) = self.statements.execute("ROLLBACK", [])
            && !is_over()
        {
            self.shared
                .fail(format!("a transaction could not be rolled back: {error}"));
        }
    }

    /// Returns what [`Self::undo_savepoint`] goes back to.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            stored: self.stored.len(),
            depths: self.queues.depths.mark(),
        }
    }

    pub(super) fn savepoint(&mut self) -> Result<(), DbError> {
        self.statements.execute("SAVEPOINT part", []).map(drop)
    }

    pub(super) fn release(&mut self) -> Result<(), DbError> {
        self.statements.execute("RELEASE part", []).map(drop)
    }

    /// Undoes what was done since the savepoint.
    pub(super) fn undo_savepoint(&mut self, mark: Mark) -> Result<(), DbError> {
        self.undo_to(mark);
        self.statements.execute("ROLLBACK TO part", [])?;
        self.release()
    }

    fn undo_to(&mut self, mark: Mark) {
        self.stored.truncate(mark.stored);
        self.queues.depths.undo_to(mark.depths);
    }

    /// Adds messages to the open transaction; after an error the caller undoes them. Returns their external ids.
    pub(super) fn insert(
        &mut self,
        queue: &str,
        messages: &[Message],
    ) -> Result<Vec<String>, QueueError> {
        let Self {
            statements,
            queues,
            outgoing,
            stored,
            shared,
            ..
        } = self;
        if outgoing.contains(queue) {
            return outbox::put(statements, queue, messages, stored);
        }
        let ids = queues.insert(statements, queue, messages, stored)?;
        Ok(ids
            .into_iter()
            .map(|id| external_id(&shared.label, id))
            .collect())
    }

    fn migrate(&mut self, folder: &Path, answer: oneshot::Sender<Result<Vec<String>, Failure>>) {
        let applied = migrate::apply(&self.options, folder);
        // They were committed on another connection, whose commits nobody counts.
        self.shared.log.commits.fetch_add(1, Ordering::Release);
        self.acknowledge(
            true,
            vec![Box::new(move || {
                let _ = answer.send(applied);
            })],
        );
    }
}
