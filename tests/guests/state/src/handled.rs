//! The table `handled`: a row for each try at handling a message, in the order in which they began.

use crate::now_ns;
use serde_json::Value as Json;
use wrun_sdk::db::{Database, Error};
use wrun_sdk::queue::Delivery;

/// Returns every row.
pub fn all(db: &Database) -> Result<Json, Error> {
    create(db)?;
    let rows: Vec<Json> = db.query("SELECT * FROM handled ORDER BY n", ())?;
    Ok(rows.into())
}

/// Notes that a try began, of which its instance was given a batch of this size, and whether it is the first of its message
/// that got so far. Returns its row.
pub fn begin(db: &Database, delivery: &Delivery, batch: usize) -> Result<i64, Error> {
    create(db)?;
    db.transaction(|tx| {
        let Delivery {
            id,
            queue,
            key,
            attempt,
            body,
            ..
        } = delivery;
        let first = tx.mark_processed(id)?;
        let body = String::from_utf8_lossy(body).trim_end().to_owned();
        let batch = i64::try_from(batch).expect("a batch is small");
        let sql = "INSERT INTO handled (id, queue, key, attempt, batch, first, start_ns, body)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let row = (
            id,
            queue,
            key.as_deref(),
            *attempt,
            batch,
            first,
            now(),
            body,
        );
        Ok(tx.execute(sql, row)?.last_id.unwrap_or_default())
    })
}

/// Notes what came of extending a delivery.
pub fn extended(db: &Database, row: i64, result: &Json) -> Result<(), Error> {
    let sql = "UPDATE handled SET extended = $1 WHERE n = $2";
    db.execute(sql, (result.to_string(), row)).map(drop)
}

/// Notes that a try ended.
pub fn end(db: &Database, row: i64) -> Result<(), Error> {
    let sql = "UPDATE handled SET end_ns = $1 WHERE n = $2";
    db.execute(sql, (now(), row)).map(drop)
}

fn create(db: &Database) -> Result<(), Error> {
    let sql = "CREATE TABLE IF NOT EXISTS handled (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT,
        queue TEXT,
        key TEXT,
        attempt INTEGER,
        batch INTEGER,
        first BOOLEAN,
        extended JSON,
        start_ns INTEGER,
        end_ns INTEGER,
        body JSON
    )";
    db.execute(sql, ()).map(drop)
}

fn now() -> i64 {
    i64::try_from(now_ns()).expect("it is earlier than 2262")
}
