//! The stock: what is left of each item, and who bought one.

use serde_json::Value;
use wrun_sdk::db::{self, Database};

/// What became of a buyer's wish.
pub enum Sale {
    Sold { order: i64, left: i64 },
    SoldOut,
    NoSuchItem,
}

/// Sells one. Reading, checking and writing are one transaction, so no buyer comes between them, on whatever worker; it
/// runs again by itself where another one was in its way.
pub fn buy(db: &Database, item: &str) -> Result<Sale, db::Error> {
    db.transaction(|tx| {
        let sql = "SELECT remaining FROM stock WHERE item = $1 FOR UPDATE";
        let left: i64 = match tx.query_opt(sql, (item,))? {
            None => return Ok(Sale::NoSuchItem),
            Some(0) => return Ok(Sale::SoldOut),
            Some(left) => left,
        };
        tx.execute(
            "UPDATE stock SET remaining = remaining - 1 WHERE item = $1",
            (item,),
        )?;
        let order = tx.query_one(
            "INSERT INTO orders (item) VALUES ($1) RETURNING id",
            (item,),
        )?;
        Ok(Sale::Sold {
            order,
            left: left - 1,
        })
    })
}

/// Returns what is left of each item, as an object.
pub fn left(db: &Database) -> Result<Value, db::Error> {
    let rows: Vec<(String, i64)> =
        db.query("SELECT item, remaining FROM stock ORDER BY item", ())?;
    Ok(rows
        .into_iter()
        .map(|(item, left)| (item, Value::from(left)))
        .collect())
}

/// Adds `n` and returns what is left then; `None` if there is no such item.
pub fn restock(db: &Database, item: &str, n: u32) -> Result<Option<i64>, db::Error> {
    let sql = "UPDATE stock SET remaining = remaining + $2 WHERE item = $1 RETURNING remaining";
    db.query_opt(sql, (item, n))
}
