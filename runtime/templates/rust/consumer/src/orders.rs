//! Orders, from being placed to being done.

use serde_json::Value;
use wrun_sdk::db::{self, Database};
use wrun_sdk::queue::{self, Delivery, Message};

/// Records an order and sends it to the queue, in one transaction: either both happen or none.
pub fn place(db: &Database, details: &Value) -> anyhow::Result<i64> {
    let queue = queue::open("orders")?;
    db.transaction(|tx| {
        let sql = "INSERT INTO orders (details, state) VALUES ($1, 'queued') RETURNING id";
        let id: i64 = tx.query_one(sql, (details.to_string(),))?;
        queue.send_in(tx, Message::json(&id)?)?;
        Ok(id)
    })
}

/// Does what there is to do for an order. A message may come twice; the mark makes its effect happen once.
pub fn finish(db: &Database, delivery: &Delivery) -> anyhow::Result<()> {
    let id: i64 = delivery.json()?;
    db.transaction(|tx| {
        if tx.mark_processed(&delivery.id)? {
            tx.execute("UPDATE orders SET state = 'done' WHERE id = $1", (id,))?;
        }
        Ok(())
    })
}

/// Returns an order's state, if there is such an order.
pub fn state(db: &Database, id: i64) -> Result<Option<String>, db::Error> {
    db.query_opt("SELECT state FROM orders WHERE id = $1", (id,))
}
