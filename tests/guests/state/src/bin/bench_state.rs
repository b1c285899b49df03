//! What `just bench-state` and `just bench` measure, `?n=` times in a row, and how long each took: `{"n":, "ns":, "p50_ns":, "p99_ns":}`.

use serde_json::{Value as Json, json};
use std::time::Instant;
use wrun_sdk::db::{self, Database, Isolation, Statement, TxOptions};
use wrun_sdk::http::{Request, Response};
use wrun_sdk::lock::{self, Guard};
use wrun_sdk::queue::{self, Delivery, Message};
use wrun_test_state::{answer, now_ns, query};

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[wrun_sdk::http]
fn main(request: Request) -> Result<Response, Box<dyn std::error::Error>> {
    let n = query::number(&request, "n").unwrap_or(1);
    let figures = match request.uri().path() {
        "/setup" => timed(1, || Ok(setup(&db::open("default")?)?)),
        "/read" => {
            let db = db::open("default")?;
            timed(n, || Ok(read(&db)?))
        }
        "/lock" => {
            let locks = lock::space("default")?;
            let key = query::text(&request, "key").unwrap_or_else(|| now_ns().to_string());
            timed(n, || {
                Ok(locks.acquire([key.as_str()]).and_then(Guard::release)?)
            })
        }
        "/lock-hot" => {
            let locks = lock::space("default")?;
            timed(n, || Ok(locks.acquire(["hot"]).and_then(Guard::release)?))
        }
        "/tx" => {
            let db = db::open("default")?;
            let isolation = query::text(&request, "isolation").map(|_| Isolation::ReadCommitted);
            timed(n, || Ok(transaction(&db, isolation)?))
        }
        "/batch" => {
            let db = db::open("default")?;
            timed(n, || Ok(db.batch(&statements()).map(drop)?))
        }
        "/send" => {
            let queue = queue::open("jobs")?;
            let batch = query::number(&request, "batch").unwrap_or(1);
            let messages = vec![Message::new("x".repeat(100)); batch];
            timed(n, || Ok(queue.send_all(&messages).map(drop)?))
        }
        path => panic!("no such path: {path}"),
    };
    Ok(answer::respond(&figures?))
}

#[wrun_sdk::consumer]
fn handle(_delivery: Delivery) {}

fn timed(n: usize, mut work: impl FnMut() -> Outcome) -> Result<Json, Box<dyn std::error::Error>> {
    let begin = Instant::now();
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let begin = Instant::now();
        work()?;
        times.push(ns(begin));
    }
    let ns = ns(begin);
    times.sort_unstable();
    let percentile = |percent: usize| times.get(times.len() * percent / 100);
    Ok(json!({ "n": n, "ns": ns, "p50_ns": percentile(50), "p99_ns": percentile(99) }))
}

fn ns(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn setup(db: &Database) -> Result<(), db::Error> {
    let statements = [
        "CREATE TABLE IF NOT EXISTS hot (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
        "CREATE TABLE IF NOT EXISTS sales (hot INTEGER NOT NULL)",
        "DELETE FROM hot",
        "INSERT INTO hot (id, n) VALUES (1, 0)",
    ];
    for sql in statements {
        db.execute(sql, ())?;
    }
    Ok(())
}

fn read(db: &Database) -> Result<(), db::Error> {
    db.query_one::<i64>("SELECT n FROM hot WHERE id = $1", (1,))
        .map(drop)
}

/// One row that everybody wants, at another isolation than the default if that is named: BEGIN, SELECT … FOR UPDATE, UPDATE, INSERT, COMMIT, each a round trip.
fn transaction(db: &Database, isolation: Option<Isolation>) -> Result<(), db::Error> {
    let options = TxOptions {
        isolation,
        ..TxOptions::default()
    };
    db.transaction_with(options, &[], |tx| {
        let n: i64 = tx.query_one("SELECT n FROM hot WHERE id = 1 FOR UPDATE", ())?;
        tx.execute("UPDATE hot SET n = $1 WHERE id = 1", (n + 1,))?;
        tx.execute("INSERT INTO sales (hot) VALUES (1)", ())
            .map(drop)
    })
}

/// The same effect in one round trip.
fn statements() -> [Statement; 2] {
    [
        Statement::new("UPDATE hot SET n = n + 1 WHERE id = 1", ()),
        Statement::new("INSERT INTO sales (hot) VALUES (1)", ()),
    ]
}
