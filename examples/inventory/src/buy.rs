//! Four ways to sell one of a stock: in a transaction, under a lock, through a queue, and in memory, which cannot work.

use serde::Deserialize;
use std::sync::Mutex;
use wrun_sdk::db::{self, Database, Statement, Transaction, TxOptions};
use wrun_sdk::lock;
use wrun_sdk::queue::{self, Delivery, Message};

/// What became of an order.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Sold,
    Rejected,
}

/// Way 1, the one to begin with: everything in one transaction.
pub fn in_transaction(db: &Database, id: &str) -> Result<Status, db::Error> {
    db.transaction(|tx| {
        place(tx, id)?;
        decide(tx, id)
    })
}

/// Way 2: read, check, write, one buyer at a time. A lock keeps out only those who take it, so this way does not mix with
/// the others. The guard goes along with the write, which happens only if the lock was held until then.
pub fn under_lock(db: &Database, id: &str) -> anyhow::Result<Status> {
    let guard = lock::acquire("stock")?;
    if let Some(decided) = db.query_opt("SELECT status FROM orders WHERE id = $1", (id,))? {
        return Ok(decided);
    }
    let left: i64 = db.query_one("SELECT remaining FROM item", ())?;
    let (left, status, name) = match left {
        0 => (0, Status::Rejected, "rejected"),
        _ => (left - 1, Status::Sold, "sold"),
    };
    let order = "INSERT INTO orders (id, status) VALUES ($1, $2)";
    let write = [
        Statement::new("UPDATE item SET remaining = $1", (left,)),
        Statement::new(order, (id, name)),
    ];
    db.batch_with(TxOptions::default(), &[&guard], &write)?;
    Ok(status)
}

/// Way 3: the order waits in a queue, which is told in the transaction that notes the order.
pub fn through_queue(db: &Database, id: &str) -> anyhow::Result<Status> {
    let orders = queue::open("orders")?;
    db.transaction(|tx| {
        if place(tx, id)? {
            orders.send_in(tx, Message::json(&id)?.key("stock"))?;
        }
        Ok(Status::Pending)
    })
}

/// Way 3, later. A message may come twice; what it causes is done once.
pub fn take_from_queue(db: &Database, delivery: &Delivery) -> anyhow::Result<()> {
    let id: String = delivery.json()?;
    db.transaction(|tx| {
        if tx.mark_processed(&delivery.id)? {
            decide(tx, &id)?;
        }
        Ok(())
    })
}

/// The broken way: `if left > 0 { left -= 1 }`. Right for as long as there is one process, which lives on; here every
/// buyer gets a fresh instance, and finds all of the stock.
pub fn in_memory(db: &Database, id: &str) -> anyhow::Result<Status> {
    static LEFT: Mutex<Option<i64>> = Mutex::new(None);
    let stock = db.query_one("SELECT stock FROM item", ())?;
    let mut left = LEFT.lock().expect("an instance has one thread");
    let left = left.get_or_insert(stock);
    if *left == 0 {
        return Ok(Status::Rejected);
    }
    *left -= 1;
    let sold = db.execute("INSERT INTO orders (id, status) VALUES ($1, 'sold')", (id,));
    if !sold.as_ref().is_err_and(is_taken) {
        sold?;
    }
    Ok(Status::Sold)
}

/// Notes an order; false if it was there already.
fn place(tx: &Transaction, id: &str) -> Result<bool, db::Error> {
    match tx.execute(
        "INSERT INTO orders (id, status) VALUES ($1, 'pending')",
        (id,),
    ) {
        Err(error) if is_taken(&error) => {
            // Of somebody who was quicker this transaction may know nothing: then it is for the next one.
            let noted: Option<Status> =
                tx.query_opt("SELECT status FROM orders WHERE id = $1", (id,))?;
            noted.map(|_| false).ok_or(error)
        }
        noted => noted.map(|_| true),
    }
}

/// Tells whether a key was there already. The code is the same on every engine, and `ON CONFLICT` is not.
fn is_taken(error: &db::Error) -> bool {
    error.code() == Some("23505")
}

/// Sells to an order or rejects it, if that was not done before. An order that `/reset` deleted is over.
fn decide(tx: &Transaction, id: &str) -> Result<Status, db::Error> {
    match tx.query_opt("SELECT status FROM orders WHERE id = $1", (id,))? {
        Some(Status::Pending) => {}
        decided => return Ok(decided.unwrap_or(Status::Rejected)),
    }
    let left: i64 = tx.query_one("SELECT remaining FROM item FOR UPDATE", ())?;
    let (status, name) = match left {
        0 => (Status::Rejected, "rejected"),
        _ => (Status::Sold, "sold"),
    };
    if left > 0 {
        tx.execute("UPDATE item SET remaining = remaining - 1", ())?;
    }
    tx.execute("UPDATE orders SET status = $1 WHERE id = $2", (name, id))?;
    Ok(status)
}
