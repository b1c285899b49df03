//! Calls of `wrun` commands. They see everything that is open, whichever generation it was opened for.

use super::{Answer, Session};
use crate::state::BoxFuture;
use crate::state::db::{DbError, Statement, TxOptions, Want};
use crate::state::lock::Locks as _;
use crate::state::protocol::{ListedQueue, OperatorCall, Reply};
use crate::state::queue::{Queue, QueueError};
use crate::state::sqlite::Sqlite;
use futures_util::future::{join, join_all};
use std::path::PathBuf;

/// A copy that nobody has been told of. Dropped, it is removed.
struct Unclaimed(Option<PathBuf>);

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may not exist yet.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Session {
    pub(super) fn operate(&self, call: OperatorCall) -> Answer {
        match call {
            OperatorCall::Locks => self.list_locks(),
            OperatorCall::Databases => self.list_databases(),
            OperatorCall::Query { db, statement } => self.query(&db, statement),
            OperatorCall::Queues => self.list_queues(),
            OperatorCall::Peek { queue, dead, count } => {
                self.with_queue(&queue, |queue| queue.peek(dead, count), Reply::Messages)
            }
            OperatorCall::Redrive { queue, count } => {
                self.with_queue(&queue, |queue| queue.redrive(count), Reply::Count)
            }
            OperatorCall::Purge { queue, dead } => {
                self.with_queue(&queue, |queue| queue.purge(dead), Reply::Count)
            }
            OperatorCall::Send { queue, messages } => {
                self.with_queue(&queue, |queue| queue.send(messages), Reply::Ids)
            }
            OperatorCall::Backup { db } => self.back_up(&db),
        }
    }

    fn list_locks(&self) -> Answer {
        let listed = self.stores.locks.list();
        Answer::Later(Box::pin(async {
            listed.await.map_or_else(Reply::Lock, Reply::Locks)
        }))
    }

    fn list_databases(&self) -> Answer {
        let databases = self.stores.databases.borrow();
        let all = databases.values().map(Sqlite::status).collect();
        Answer::Now(Reply::Databases(all))
    }

    /// Runs a statement as a guest might.
    fn query(&self, db: &str, statement: Statement) -> Answer {
        let Some(database) = self.stores.database(db) else {
            return Answer::Now(Reply::Db(unknown_database(db)));
        };
        Answer::Surely(Box::pin(async move {
            let statements = vec![(statement, Want::Either)];
            let done = database.batch(statements, TxOptions::default()).await;
            done.map_or_else(Reply::Db, Reply::Steps)
        }))
    }

    fn list_queues(&self) -> Answer {
        let (queues, stores) = (self.stores.all_queues(), self.stores.clone());
        Answer::Later(Box::pin(async move {
            let stores = &stores;
            let asked = queues.into_iter().map(|(label, queue)| async move {
                let waiting = stores.relays.count(&label);
                let (status, waiting) = join(queue.status(), waiting).await;
                ListedQueue {
                    queue: label,
                    status,
                    outbox: waiting.ok(),
                }
            });
            // At the same time: servers that do not answer are waited for once.
            Reply::Queues(join_all(asked).await)
        }))
    }

    fn with_queue<T: 'static>(
        &self,
        label: &str,
        act: impl FnOnce(&dyn Queue) -> BoxFuture<'static, Result<T, QueueError>>,
        reply: fn(T) -> Reply,
    ) -> Answer {
        let Some(queue) = self.stores.queue(label) else {
            let error = QueueError::Denied(format!("no queue is called {label}"));
            return Answer::Now(Reply::Queue(error));
        };
        let done = act(&*queue);
        Answer::Later(Box::pin(async move {
            done.await.map_or_else(Reply::Queue, reply)
        }))
    }

    fn back_up(&self, db: &str) -> Answer {
        if let Some(bound) = self.stores.bound.borrow().get(db) {
            let (product, tool) = bound.backup();
            let what = format!(
                "database {db} is bound to {product}: back it up there, with {tool} for one"
            );
            return Answer::Now(Reply::Db(DbError::Invalid(what)));
        }
        let Some(sqlite) = self.stores.sqlite(db) else {
            return Answer::Now(Reply::Db(unknown_database(db)));
        };
        let path = match self.stores.new_copy() {
            Ok(path) => path,
            Err(error) => return Answer::Now(Reply::Db(DbError::Unavailable(error.to_string()))),
        };
        let Some(shown) = path.to_str().map(str::to_owned) else {
            let error = DbError::Other("the state folder's path is not UTF-8".to_owned());
            return Answer::Now(Reply::Db(error));
        };
        Answer::Later(Box::pin(async move {
            let mut unclaimed = Unclaimed(Some(path.clone()));
            match sqlite.backup(path).await {
                Ok(()) => {
                    unclaimed.0 = None;
                    Reply::Path(shown)
                }
                Err(failure) => Reply::Db(DbError::Other(failure.message)),
            }
        }))
    }
}

fn unknown_database(label: &str) -> DbError {
    DbError::Denied(format!("no database is called {label}"))
}
