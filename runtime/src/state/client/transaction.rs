//! A transaction, and its cursors, as seen by the process that began it.
//!
//! It lives as long as its connection: when that breaks it is rolled back, unless its commit was on the way.

use super::lanes::Lane;
use super::link::{Link, Pending, Unanswered, Unsent};
use super::{Fences, Line, UNEXPECTED, UNREACHABLE, locked};
use crate::state::db::{Column, DbError, Row, Statement, Step, TxOptions, Want};
use crate::state::protocol::{Call, Reply, TRANSACTIONS_MAX};
use crate::state::queue::{Message, QueueError};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What the first call of a transaction is told whose connection broke.
const ROLLED_BACK: &str = "the state process was restarted, the transaction was rolled back";

/// An open transaction. Dropped, it is rolled back.
#[derive(Debug)]
pub struct Transaction {
    open: Arc<Open>,
    /// The connection that it has to itself, if it has one.
    lane: Mutex<Option<Lane>>,
    db: String,
    read_only: bool,
}

/// Rows of a query, piece by piece. Dropped, it is closed.
#[derive(Debug)]
pub struct Cursor {
    transaction: Arc<Open>,
    number: u64,
    columns: Vec<Column>,
}

/// What a transaction and its cursors share.
#[derive(Debug)]
struct Open {
    link: Arc<Link>,
    number: u64,
    /// The number of its next cursor.
    cursors: AtomicU64,
    /// Its calls, and those of them that were answered.
    asked: AtomicU64,
    answered: AtomicU64,
    /// It was committed or rolled back, or is known to be broken.
    ended: AtomicBool,
}

impl Transaction {
    /// Begins one. It is on the way when this returns; its first call tells what came of it.
    pub(super) async fn begin(
        line: &Line,
        db: &str,
        options: TxOptions,
        fences: Fences,
    ) -> Result<Self, DbError> {
        let number = line.number();
        let mut call = Call::Begin {
            tx: number,
            db: db.to_owned(),
            options,
            fences: fences.numbers,
        };
        if fences.link.is_none() {
            while let Some(lane) = line.lanes.take(line).await {
                match lane.link().begin(call) {
                    Ok(_) => return Ok(Self::new(number, db, options, lane.link(), Some(lane))),
                    // It broke, and this is the first to notice.
                    Err(Unsent::Closed(unsent)) => call = *unsent,
                    Err(error) => return Err(unchanged(error.into())),
                }
            }
        }
        let begun = line.on(fences.link, call, Link::begin).await;
        let (link, has_place) = begun.map_err(unchanged)?;
        if !has_place {
            let what = format!("more than {TRANSACTIONS_MAX} transactions of one worker");
            return Err(DbError::Unavailable(what));
        }
        Ok(Self::new(number, db, options, link, None))
    }

    fn new(number: u64, db: &str, options: TxOptions, link: Arc<Link>, lane: Option<Lane>) -> Self {
        Self {
            open: Arc::new(Open {
                link,
                number,
                cursors: AtomicU64::new(0),
                asked: AtomicU64::new(0),
                answered: AtomicU64::new(0),
                ended: AtomicBool::new(false),
            }),
            lane: Mutex::new(lane),
            db: db.to_owned(),
            read_only: options.read_only,
        }
    }

    /// Returns the label of its database.
    pub fn db(&self) -> &str {
        &self.db
    }

    /// Runs a statement.
    pub async fn run(&self, statement: Statement, want: Want) -> Result<Step, DbError> {
        let tx = self.open.number;
        let call = Call::Run {
            tx,
            statement,
            want,
        };
        match self.open.call(call).await? {
            Reply::Steps(mut steps) if steps.len() == 1 => Ok(steps.remove(0)),
            reply => Err(refused(reply)),
        }
    }

    /// Opens a cursor.
    pub async fn open_cursor(&self, statement: Statement) -> Result<Cursor, DbError> {
        let mut cursor = Cursor {
            transaction: self.open.clone(),
            number: self.open.cursors.fetch_add(1, Ordering::Relaxed),
            columns: Vec::new(),
        };
        let call = Call::OpenCursor {
            tx: self.open.number,
            cursor: cursor.number,
            statement,
        };
        match self.open.call(call).await? {
            Reply::Columns(columns) => {
                cursor.columns = columns;
                Ok(cursor)
            }
            reply => Err(refused(reply)),
        }
    }

    /// Notes that the work called `id` is done; false if it was before.
    pub async fn mark_processed(&self, id: String) -> Result<bool, DbError> {
        let tx = self.open.number;
        match self.open.call(Call::MarkProcessed { tx, id }).await? {
            Reply::First(first) => Ok(first),
            reply => Err(refused(reply)),
        }
    }

    /// Adds messages to a queue of the same database.
    pub async fn send(
        &self,
        queue: &str,
        messages: Vec<Message>,
    ) -> Result<Vec<String>, QueueError> {
        let call = Call::SendIn {
            tx: self.open.number,
            queue: queue.to_owned(),
            messages,
        };
        match self.open.call(call).await {
            Ok(Reply::Ids(ids)) => Ok(ids),
            Ok(reply) => Err(super::queue_refused(reply)),
            Err(DbError::Closed) => Err(QueueError::Closed),
            Err(DbError::TooLarge(what)) => Err(QueueError::TooLarge(what)),
            Err(error) => Err(QueueError::Unavailable(error.to_string())),
        }
    }

    /// Makes everything durable.
    pub async fn commit(&self) -> Result<(), DbError> {
        let tx = self.open.number;
        let pending = self.open.ask(Call::Commit { tx })?;
        self.open.end();
        let reply = pending.reply().await;
        if reply.is_ok() {
            self.keep_lane();
        }
        match reply {
            Ok(Reply::Done) => Ok(()),
            Ok(reply) => Err(refused(reply)),
            Err(_) if self.read_only => Err(DbError::Unavailable(UNREACHABLE.to_owned())),
            Err(_) => Err(DbError::OutcomeUnknown),
        }
    }

    /// Undoes everything. What has ended already stays as it is.
    pub async fn rollback(&self) {
        let tx = self.open.number;
        if !self.open.ended.load(Ordering::Acquire)
            && !self.open.is_idle()
            && locked(&self.lane).take().is_some()
        {
            // Nobody need wait until it begins, or until a call is done.
            self.open.end();
            return;
        }
        if let Ok(pending) = self.open.ask(Call::Rollback { tx }) {
            self.open.end();
            // Without an answer it is rolled back all the same.
            if pending.reply().await.is_ok() {
                self.keep_lane();
            }
        }
    }

    /// The last call was answered.
    fn keep_lane(&self) {
        if let Some(lane) = locked(&self.lane).take() {
            lane.keep();
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.open.ended.load(Ordering::Acquire) {
            let has_lane = locked(&self.lane).is_some();
            // On a lane, what was not answered ends only with that.
            if !has_lane || self.open.is_idle() {
                let tx = self.open.number;
                if self.open.link.tell(Call::Rollback { tx }) {
                    self.keep_lane();
                }
            }
            self.open.end();
        }
    }
}

impl Cursor {
    /// Returns its columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Returns up to `max_rows` rows; none at the end.
    pub async fn next(&self, max_rows: u32) -> Result<Vec<Row>, DbError> {
        let call = Call::Next {
            tx: self.transaction.number,
            cursor: self.number,
            max_rows,
        };
        match self.transaction.call(call).await? {
            Reply::Page(rows) => Ok(rows),
            reply => Err(refused(reply)),
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if !self.transaction.ended.load(Ordering::Acquire) {
            self.transaction.link.tell(Call::CloseCursor {
                tx: self.transaction.number,
                cursor: self.number,
            });
        }
    }
}

impl Open {
    fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.link.end_transaction();
        }
    }

    /// Tells whether it has begun, and has nothing to do just now.
    fn is_idle(&self) -> bool {
        let answered = self.answered.load(Ordering::Relaxed);
        answered > 0 && answered == self.asked.load(Ordering::Relaxed)
    }

    fn ask(&self, call: Call) -> Result<Pending, DbError> {
        if self.ended.load(Ordering::Acquire) {
            return Err(DbError::Closed);
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.link
            .ask(call)
            .map_err(|unsent| self.broken(unsent.into()))
    }

    async fn call(&self, call: Call) -> Result<Reply, DbError> {
        self.link.set_served();
        let pending = self.ask(call)?;
        let reply = pending.reply().await.map_err(|error| self.broken(error))?;
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(reply)
    }

    /// The first call that meets a broken connection says so; to the next ones the transaction has ended.
    fn broken(&self, error: Unanswered) -> DbError {
        match error {
            Unanswered::TooLarge => unchanged(error),
            Unanswered::NotSent | Unanswered::Broken => {
                self.end();
                DbError::Unavailable(ROLLED_BACK.to_owned())
            }
        }
    }
}

/// The error for a call that has changed nothing, whether or not it was carried out.
pub(super) fn unchanged(error: Unanswered) -> DbError {
    match error {
        Unanswered::TooLarge => DbError::TooLarge("the call".to_owned()),
        Unanswered::NotSent | Unanswered::Broken => DbError::Unavailable(UNREACHABLE.to_owned()),
    }
}

pub(super) fn refused(reply: Reply) -> DbError {
    match reply {
        Reply::Db(error) => error,
        Reply::Refused(why) => DbError::Other(why),
        _ => DbError::Other(UNEXPECTED.to_owned()),
    }
}
