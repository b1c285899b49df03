//! Runs the script that it is sent, step by step, and answers the list of results. `script` says what the steps are.

use serde_json::{Value as Json, json};
use std::{thread, time::Duration};
use wrun_sdk::bindings::wrun::db::db::{Cursor, Database, Error, Transaction};
use wrun_sdk::bindings::wrun::lock::lock::{self, Guard, Space};
use wrun_sdk::bindings::wrun::queue::queue::{self, Message, Queue};
use wrun_sdk::http::{Request, Response};
use wrun_test_state::answer;
use wrun_test_state::script::{Op, Options};
use wrun_test_state::value::{columns, done, rows, steps, table};

/// What a script has open; what it dropped leaves its place empty. Cursors come first: they end before transactions do.
#[derive(Default)]
struct Machine {
    cursors: Vec<Option<Cursor>>,
    txs: Vec<Option<Transaction>>,
    guards: Vec<Guard>,
    db: String,
}

#[wrun_sdk::http]
fn main(request: Request) -> Result<Response, serde_json::Error> {
    let script: Vec<Op> = serde_json::from_slice(request.body())?;
    let mut machine = Machine {
        db: "default".to_owned(),
        ..Machine::default()
    };
    let results: Json = script.into_iter().map(|op| machine.run(op)).collect();
    Ok(answer::respond(&results))
}

impl Machine {
    fn run(&mut self, op: Op) -> Json {
        match op {
            Op::Acquire {
                keys,
                ttl_ms,
                renew,
            } => answer::of(self.acquire(&keys, ttl_ms, renew)),
            Op::Release => self
                .guards
                .drain(..)
                .map(|guard| answer::of(guard.release()))
                .collect(),
            Op::SendIn {
                tx,
                queue,
                key,
                body,
            } => answer::of(self.send_in(tx, &queue, key, &body)),
            op => self
                .act(op)
                .map_or(Json::Null, |op| answer::of(self.access(op))),
        }
    }

    /// Does what cannot fail; returns what can.
    fn act(&mut self, op: Op) -> Option<Op> {
        match op {
            Op::Lose => {
                while self.guards.iter().any(Guard::is_held) {
                    sleep(10)
                }
            }
            Op::Sleep { ms } => sleep(ms),
            Op::Log { text } => eprintln!("{text}"),
            Op::Trap => panic!("as told"),
            Op::DropCursor { cursor } => drop(self.cursors[cursor].take()),
            Op::DropTx { tx } => drop(self.txs[tx].take()),
            Op::Rollback { tx } => self.tx(tx).rollback(),
            op => return Some(op),
        }
        None
    }

    fn access(&mut self, op: Op) -> Result<Json, Error> {
        Ok(match op {
            Op::Open { db } => {
                self.db = db;
                self.db()?;
                Json::Null
            }
            Op::Dialect => self.db()?.dialect().into(),
            Op::Query(query) => table(&self.db()?.query(&query.sql(), &query.params())?),
            Op::Execute(query) => done(self.db()?.execute(&query.sql(), &query.params())?),
            Op::Batch {
                statements,
                options,
            } => {
                let statements: Vec<_> = statements.iter().map(|one| one.raw()).collect();
                steps(
                    &self
                        .db()?
                        .batch(&statements, options.raw(), &self.fences(&options))?,
                )
            }
            Op::Begin(options) => {
                let tx = self.db()?.begin(options.raw(), &self.fences(&options))?;
                self.txs.push(Some(tx));
                Json::Null
            }
            Op::TxQuery { tx, statement } => {
                table(&self.tx(tx).query(&statement.sql(), &statement.params())?)
            }
            Op::TxExecute { tx, statement } => {
                done(self.tx(tx).execute(&statement.sql(), &statement.params())?)
            }
            Op::Cursor { tx, statement } => {
                let cursor = self
                    .tx(tx)
                    .open_cursor(&statement.sql(), &statement.params())?;
                self.cursors.push(Some(cursor));
                Json::Null
            }
            Op::Columns { cursor } => columns(&self.cursor(cursor).columns()),
            Op::Next { cursor, rows: max } => rows(&self.cursor(cursor).next(max)?),
            Op::Mark { tx, id } => self.tx(tx).mark_processed(&id)?.into(),
            Op::Commit { tx } => {
                self.tx(tx).commit()?;
                Json::Null
            }
            _ => unreachable!("`run` does it"),
        })
    }
    fn db(&self) -> Result<Database, Error> {
        Database::open(&self.db)
    }
    fn tx(&self, number: usize) -> &Transaction {
        self.txs[number]
            .as_ref()
            .expect("the transaction is not dropped")
    }
    fn cursor(&self, number: usize) -> &Cursor {
        self.cursors[number]
            .as_ref()
            .expect("the cursor is not dropped")
    }
    fn fences(&self, options: &Options) -> Vec<&Guard> {
        self.guards.iter().filter(|_| options.fenced).collect()
    }

    fn acquire(
        &mut self,
        keys: &[String],
        ttl_ms: Option<u32>,
        renew: Option<bool>,
    ) -> Result<u64, lock::Error> {
        let options = lock::Options {
            wait_ms: None,
            ttl_ms,
            renew,
        };
        let guard = Space::open("default")?.acquire(keys, options)?;
        let token = guard.token();
        self.guards.push(guard);
        Ok(token)
    }

    fn send_in(
        &self,
        tx: usize,
        queue: &str,
        key: Option<String>,
        body: &Json,
    ) -> Result<Json, queue::Error> {
        let mut message = Message::new(body.to_string());
        message.key = key;
        Queue::open(queue)?
            .send_in(self.tx(tx), &[message])
            .map(|ids| json!(ids))
    }
}

fn sleep(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}
