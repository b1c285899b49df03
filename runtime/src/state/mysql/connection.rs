//! One connection: how it comes to be, and how wrun's own statements are run on it.
//!
//! One on which something was stopped is not used again: nobody knows which answer would be the next on it.

use super::Address;
use super::cursor::Cursor;
use super::error::whole;
use super::kinds::Kinds;
use crate::state::remote::Fault;
use mysql_async::prelude::{FromRow, Queryable as _};
use mysql_async::{Conn, Opts};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long it may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long the server may take to stop what it was asked to stop.
const CANCEL_MAX: Duration = Duration::from_secs(2);

/// A connection.
pub(in crate::state) struct Connection {
    /// A cursor has it while it reads.
    pub(super) conn: Arc<Mutex<Conn>>,
    pub(super) killer: Killer,
    pub(super) is_mariadb: bool,
    /// Nothing can be done with it any more.
    pub(super) is_broken: Cell<bool>,
    pub(super) leaves_traces: Cell<bool>,
    pub(super) kinds: Kinds,
    pub(super) cursors: RefCell<HashMap<u64, Cursor>>,
}

/// Stops, on a connection of its own, what the server does for another one.
#[derive(Clone)]
pub(super) struct Killer {
    opts: Opts,
    id: u32,
}

impl Killer {
    /// Stops its statement, or ends all of it.
    pub(super) async fn kill(&self, what: &str) {
        let killed = async {
            let mut conn = Conn::new(self.opts.clone()).await?;
            conn.query_drop(format!("KILL {what} {}", self.id)).await?;
            conn.disconnect().await
        };
        // If the server does not come to know, the statement ends by its own time limit.
        let _ = timeout(CANCEL_MAX, killed).await;
    }
}

impl Connection {
    /// Connects; the error is why that cannot be.
    pub(super) async fn open(address: &Address) -> Result<Self, String> {
        let connected = async {
            let mut conn = Conn::new(address.opts.clone()).await?;
            let version = conn.query_first::<String, _>("SELECT VERSION()").await?;
            Ok((conn, version.unwrap_or_default()))
        };
        let silent = |_| "it does not answer".to_owned();
        let connected = timeout(CONNECT_MAX, connected).await.map_err(silent)?;
        let (conn, version) = connected.map_err(|error: mysql_async::Error| whole(&error))?;
        let is_mariadb = version.contains("MariaDB");
        address.note_mariadb(is_mariadb);
        Ok(Self {
            killer: Killer {
                opts: address.opts.clone(),
                id: conn.id(),
            },
            conn: Arc::new(Mutex::new(conn)),
            is_mariadb,
            is_broken: Cell::new(false),
            leaves_traces: Cell::new(false),
            kinds: Kinds::default(),
            cursors: RefCell::default(),
        })
    }

    /// Returns what commits. MariaDB is not to stop that in the middle.
    pub(super) fn commit_statement(&self) -> &'static str {
        match self.is_mariadb {
            true => "SET max_statement_time=0; COMMIT",
            false => "COMMIT",
        }
    }

    /// Returns what ends the transaction. On MySQL the connection may then be idle again for as long as it likes.
    pub(super) fn rollback_statement(&self) -> &'static str {
        match self.is_mariadb {
            true => "ROLLBACK",
            false => "ROLLBACK; SET wait_timeout=28800",
        }
    }

    /// Runs statements of wrun's own.
    pub(super) async fn execute(&self, sql: &str) -> Result<(), Fault> {
        let done = self.conn.lock().await.query_drop(sql).await;
        self.seen(done.map_err(Fault::from))
    }

    /// Runs one of wrun's own that returns rows.
    pub(super) async fn rows<T>(&self, sql: &str) -> Result<Vec<T>, mysql_async::Error>
    where
        T: FromRow + Send + 'static,
    {
        self.conn.lock().await.query(sql).await
    }

    /// Notes whether the connection is of any more use.
    pub(super) fn seen<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        if matches!(&result, Err(fault) if fault.is_broken()) {
            self.is_broken.set(true);
        }
        result
    }

    /// Has cursors that have the connection read on to their ends, so that something else can be done.
    pub(super) async fn settle(&self) {
        let open: Vec<Cursor> = self.cursors.borrow().values().cloned().collect();
        for cursor in open {
            cursor.settle().await;
        }
    }
}

/// Waits until what was to stop a statement that had ended has stopped something else instead.
pub(super) async fn absorb(conn: &mut Conn) -> Result<(), Fault> {
    if conn.query_drop("DO 0").await.is_ok() {
        return Ok(());
    }
    Ok(conn.query_drop("DO 0").await?)
}
