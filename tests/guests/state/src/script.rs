//! What `state_db` can be told to do: the language of its scripts.

use crate::value;
use serde::Deserialize;
use serde_json::Value as Json;
use wrun_sdk::bindings::wrun::db::db;

/// One step: `{"op": NAME, …}`. Transactions and cursors are named by their number in the order in which they came to be,
/// from 0; guards are all used together.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Changes the database that the following steps are for; it is `default` at first.
    Open {
        db: String,
    },
    Dialect,
    Query(Statement),
    Execute(Statement),
    Batch {
        statements: Vec<Statement>,
        #[serde(flatten)]
        options: Options,
    },
    Begin(Options),
    TxQuery {
        #[serde(default)]
        tx: usize,
        #[serde(flatten)]
        statement: Statement,
    },
    TxExecute {
        #[serde(default)]
        tx: usize,
        #[serde(flatten)]
        statement: Statement,
    },
    Cursor {
        #[serde(default)]
        tx: usize,
        #[serde(flatten)]
        statement: Statement,
    },
    Columns {
        #[serde(default)]
        cursor: usize,
    },
    Next {
        #[serde(default)]
        cursor: usize,
        rows: u32,
    },
    DropCursor {
        #[serde(default)]
        cursor: usize,
    },
    Mark {
        #[serde(default)]
        tx: usize,
        id: String,
    },
    SendIn {
        #[serde(default)]
        tx: usize,
        queue: String,
        key: Option<String>,
        body: Json,
    },
    Commit {
        #[serde(default)]
        tx: usize,
    },
    Rollback {
        #[serde(default)]
        tx: usize,
    },
    DropTx {
        #[serde(default)]
        tx: usize,
    },
    Acquire {
        keys: Vec<String>,
        ttl_ms: Option<u32>,
        renew: Option<bool>,
    },
    /// Waits until every guard is lost.
    Lose,
    Release,
    Sleep {
        ms: u64,
    },
    /// Writes a line to stderr, for a test to wait for.
    Log {
        text: String,
    },
    Trap,
}

/// A statement and its parameters.
#[derive(Deserialize)]
pub struct Statement {
    sql: String,
    /// Puts so many spaces after the statement.
    #[serde(default)]
    spaces: usize,
    #[serde(default)]
    params: Vec<Json>,
}

impl Statement {
    pub fn sql(&self) -> String {
        self.sql.clone() + &" ".repeat(self.spaces)
    }

    pub fn params(&self) -> Vec<db::Value> {
        self.params.iter().map(value::from_json).collect()
    }

    pub fn raw(&self) -> db::Statement {
        db::Statement {
            sql: self.sql(),
            params: self.params(),
        }
    }
}

/// How to run a transaction.
#[derive(Deserialize)]
pub struct Options {
    #[serde(default)]
    read_only: bool,
    isolation: Option<Isolation>,
    timeout_ms: Option<u32>,
    /// Whether all guards have to be held at the commit.
    #[serde(default)]
    pub fenced: bool,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Isolation {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Options {
    pub fn raw(&self) -> db::TxOptions {
        let isolation = self.isolation.map(|isolation| match isolation {
            Isolation::ReadCommitted => db::Isolation::ReadCommitted,
            Isolation::RepeatableRead => db::Isolation::RepeatableRead,
            Isolation::Serializable => db::Isolation::Serializable,
        });
        db::TxOptions {
            read_only: self.read_only,
            isolation,
            timeout_ms: self.timeout_ms,
        }
    }
}
