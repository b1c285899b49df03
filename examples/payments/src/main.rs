//! Takes orders over HTTP. They are paid for later, by what handles the messages in `charge`.

mod charge;

use charge::Payment;
use serde::Deserialize;
use serde_json::{Value, json};
use wrun_sdk::db::{self, Database};
use wrun_sdk::http::{self, Request, Response, StatusCode};
use wrun_sdk::queue::{self, Message};

#[derive(Deserialize)]
struct NewOrder {
    customer: String,
    amount_cents: u32,
}

#[wrun_sdk::http]
fn main(request: Request) -> anyhow::Result<Response> {
    let db = db::open("default")?;
    let path: Vec<&str> = request.uri().path().split('/').skip(1).collect();
    match (request.method().as_str(), path.as_slice()) {
        ("POST", ["orders"]) => take_order(&db, &request),
        ("GET", ["orders", id]) => order(&db, id),
        ("GET", ["stats"]) => stats(&db),
        _ => error(StatusCode::NOT_FOUND, "not found"),
    }
}

fn take_order(db: &Database, request: &Request) -> anyhow::Result<Response> {
    let order: NewOrder = match serde_json::from_slice(request.body()) {
        Ok(order) => order,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong.to_string()),
    };
    if order.customer.is_empty() || order.customer.len() > 100 || order.amount_cents == 0 {
        return error(StatusCode::BAD_REQUEST, "customer or amount out of range");
    }
    let id = match request.headers().get("idempotency-key") {
        Some(key) => key.to_str()?.to_owned(),
        None => uuid::Uuid::new_v4().to_string(),
    };
    let payment = Payment {
        order: id,
        customer: order.customer,
        amount_cents: order.amount_cents,
    };
    place(db, &payment)?;
    answer(StatusCode::CREATED, &json!({ "id": payment.order }))
}

/// Notes an order and sends its message in one transaction: there is never one without the other.
fn place(db: &Database, payment: &Payment) -> anyhow::Result<()> {
    let payments = queue::open("payments")?;
    let message = Message::json(payment)?.key(&payment.customer);
    db.transaction(|tx| {
        // An order that is there already was sent by somebody who did not hear of it.
        let sql = "SELECT id FROM orders WHERE id = $1";
        let known: Option<Value> = tx.query_opt(sql, (&payment.order,))?;
        if known.is_none() {
            let sql = "INSERT INTO orders (id, customer, amount_cents) VALUES ($1, $2, $3)";
            let order = (&payment.order, &payment.customer, payment.amount_cents);
            tx.execute(sql, order)?;
            payments.send_in(tx, message.clone())?;
        }
        Ok(())
    })
}

fn order(db: &Database, id: &str) -> anyhow::Result<Response> {
    let sql = "SELECT id, customer, amount_cents, status FROM orders WHERE id = $1";
    match db.query_opt(sql, (id,))? {
        Some(order) => answer(StatusCode::OK, &order),
        None => error(StatusCode::NOT_FOUND, "no such order"),
    }
}

fn stats(db: &Database) -> anyhow::Result<Response> {
    let sql = "SELECT count(*) AS orders,
            count(CASE status WHEN 'paid' THEN 1 END) AS paid,
            count(CASE status WHEN 'failed' THEN 1 END) AS failed,
            count(CASE status WHEN 'pending' THEN 1 END) AS pending,
            (SELECT count(*) FROM charge_log) AS charges,
            (SELECT count(*) FROM (SELECT order_id FROM charge_log GROUP BY order_id HAVING count(*) > 1) AS more)
                AS double_charged
        FROM orders";
    answer(StatusCode::OK, &db.query_one(sql, ())?)
}

fn error(status: StatusCode, error: &str) -> anyhow::Result<Response> {
    answer(status, &json!({ "error": error }))
}

fn answer(status: StatusCode, value: &Value) -> anyhow::Result<Response> {
    Ok(http::json(status, value)?)
}
