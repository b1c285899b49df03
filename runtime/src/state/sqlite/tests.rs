//! The engine as its users see it: every test opens a database of its own.

mod queues;
mod statements;
mod storage;
mod transactions;

use super::*;
use crate::state::db::{Done, Row, Rows, Statement, Step, Transaction, TxOptions, Value, Want};
use crate::state::queue::{Message, QueueError};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;

/// An open database in a folder that goes with it.
struct Opened {
    db: Sqlite,
    sent: UnboundedReceiver<Vec<Stored>>,
    fatal: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

/// Opens a database with the queues `jobs`, for 4 messages, and `mail`.
fn open() -> Opened {
    open_with(|_| {})
}

fn open_with(adjust: impl FnOnce(&mut Options)) -> Opened {
    open_in(tempfile::tempdir().unwrap(), adjust)
}

fn open_in(folder: TempDir, adjust: impl FnOnce(&mut Options)) -> Opened {
    let fatal = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&fatal);
    let mut options = Options {
        path: folder.path().join("default.db"),
        label: "default".to_owned(),
        max_size: 1 << 30,
        durability: Durability::Full,
        vfs: None,
        sync: None,
        fatal: Arc::new(move |reason| told.lock().unwrap().push(reason)),
        queues: [("jobs".to_owned(), 4), ("mail".to_owned(), 1_000_000)].into(),
    };
    adjust(&mut options);
    let (sender, sent) = tokio::sync::mpsc::unbounded_channel();
    Opened {
        db: Sqlite::open(options, sender).unwrap(),
        sent,
        fatal,
        folder,
    }
}

impl Opened {
    async fn reopen(self) -> Opened {
        self.db.close().await;
        open_in(self.folder, |_| {})
    }
}

fn statement(sql: &str) -> Statement {
    Statement {
        sql: sql.to_owned(),
        params: Vec::new(),
    }
}

fn with(sql: &str, params: impl IntoIterator<Item = Value>) -> Statement {
    Statement {
        sql: sql.to_owned(),
        params: params.into_iter().collect(),
    }
}

fn text(content: &str) -> Value {
    Value::Text(content.to_owned())
}

fn int(number: i64) -> Value {
    Value::Integer(number)
}

fn short(timeout: Duration) -> TxOptions {
    TxOptions {
        timeout,
        ..TxOptions::default()
    }
}

fn read_only() -> TxOptions {
    TxOptions {
        read_only: true,
        ..TxOptions::default()
    }
}

/// Runs one statement in a transaction of its own.
async fn run(db: &Sqlite, statement: Statement) -> Result<Step, DbError> {
    let steps = db.batch(vec![(statement, Want::Either)], TxOptions::default());
    Ok(steps.await?.remove(0))
}

async fn execute(db: &Sqlite, sql: &str) -> Done {
    match run(db, statement(sql)).await {
        Ok(Step::Done(done)) => done,
        other => panic!("{sql}: {other:?}"),
    }
}

async fn query(db: &Sqlite, sql: &str) -> Vec<Row> {
    match run(db, statement(sql)).await {
        Ok(Step::Rows(Rows { rows, .. })) => rows,
        other => panic!("{sql}: {other:?}"),
    }
}

async fn run_in(tx: &dyn Transaction, sql: &str) -> Result<Step, DbError> {
    tx.run(statement(sql), Want::Either).await
}

fn code_of<T: std::fmt::Debug>(result: Result<T, DbError>) -> String {
    match result {
        Err(DbError::Engine { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

/// A statement that never ends by itself.
const ENDLESS: &str =
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
