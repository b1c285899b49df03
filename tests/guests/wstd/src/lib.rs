//! What the guests here share: a count that all instances add to.

use wrun_sdk::{db, lock, queue};

/// Adds one and returns the sum, under a lock and with a message about it, so that all of the state interfaces are used.
pub fn count() -> anyhow::Result<i64> {
    let _guard = lock::acquire("count")?;
    let counted = queue::open("counted")?;
    db::open("default")?.transaction(|tx| {
        tx.execute("CREATE TABLE IF NOT EXISTS count (n INTEGER NOT NULL)", ())?;
        let sum: i64 = tx.query_one("SELECT count(*) + 1 FROM count", ())?;
        tx.execute("INSERT INTO count (n) VALUES ($1)", (sum,))?;
        counted.send_in(tx, queue::Message::new(sum.to_string()))?;
        Ok(sum)
    })
}
