//! Charges for orders: tried again if that fails, given up in the end, never done twice.
//!
//! The payment provider is simulated. The customer's name says how it behaves: `flaky-2` is refused twice, `broken` always,
//! and `fraud` for good.

use anyhow::bail;
use serde::{Deserialize, Serialize};
use wrun_sdk::db::{self, Database, Transaction};
use wrun_sdk::queue::{Delivery, Outcome};

/// What is to be paid: the content of a message.
#[derive(Deserialize, Serialize)]
pub struct Payment {
    pub order: String,
    pub customer: String,
    pub amount_cents: u32,
}

#[wrun_sdk::consumer]
fn handle(delivery: Delivery) -> anyhow::Result<Outcome> {
    let db = db::open("default")?;
    let payment: Payment = delivery.json()?;
    if payment.customer == "fraud" {
        give_up(&db, &payment)?;
        return Ok(Outcome::Dead("fraud".to_owned()));
    }
    let paid = pay(&db, &delivery, &payment);
    if paid.is_err() && delivery.is_last_attempt() {
        give_up(&db, &payment)?;
    }
    paid.map(|()| Outcome::Ack)
}

/// Pays once, however often the message comes: that it is done is noted in the same transaction.
fn pay(db: &Database, delivery: &Delivery, payment: &Payment) -> anyhow::Result<()> {
    db.transaction(|tx| {
        if tx.mark_processed(&delivery.id)? {
            charge(tx, payment, delivery.attempt)?;
            let sql = "UPDATE orders SET status = 'paid' WHERE id = $1";
            tx.execute(sql, (&payment.order,))?;
        }
        Ok(())
    })
}

/// The provider: refuses, or takes the money every time that it is asked to.
fn charge(tx: &Transaction, payment: &Payment, attempt: u32) -> anyhow::Result<()> {
    let flaky = payment.customer.strip_prefix("flaky-");
    let refusals: u32 = flaky.and_then(|n| n.parse().ok()).unwrap_or(0);
    if payment.customer == "broken" || attempt <= refusals {
        bail!("the provider refused order {}", payment.order);
    }
    let sql = "INSERT INTO charge_log (order_id, amount_cents) VALUES ($1, $2)";
    tx.execute(sql, (&payment.order, payment.amount_cents))?;
    Ok(())
}

fn give_up(db: &Database, payment: &Payment) -> Result<(), db::Error> {
    let sql = "UPDATE orders SET status = 'failed' WHERE id = $1 AND status = 'pending'";
    db.execute(sql, (&payment.order,))?;
    Ok(())
}
