//! A shop with a stock of one item: the requests and messages that it takes. How it sells is in `buy`.

mod buy;

use anyhow::Context as _;
use buy::Status;
use serde_json::{Value, json};
use wrun_sdk::db::{self, Database, Statement};
use wrun_sdk::http::{self, Request, Response, StatusCode};
use wrun_sdk::queue::Delivery;

#[wrun_sdk::http]
fn main(request: Request) -> anyhow::Result<Response> {
    let db = db::open("default")?;
    let path: Vec<&str> = request.uri().path().split('/').skip(1).collect();
    match (request.method().as_str(), path.as_slice()) {
        ("POST", ["buy", way]) => buy(&db, way, &request),
        ("POST", ["reset"]) => reset(&db, request.uri().query().unwrap_or_default()),
        ("GET", ["orders", id]) => order(&db, id),
        ("GET", ["stats"]) => stats(&db),
        _ => error(StatusCode::NOT_FOUND, "not found"),
    }
}

#[wrun_sdk::consumer]
fn handle(delivery: Delivery) -> anyhow::Result<()> {
    buy::take_from_queue(&db::open("default")?, &delivery)
}

/// Sells one. Who asks again with the same `idempotency-key` gets the answer of the first time.
fn buy(db: &Database, way: &str, request: &Request) -> anyhow::Result<Response> {
    let id = match request.headers().get("idempotency-key") {
        Some(key) => key.to_str()?.to_owned(),
        None => uuid::Uuid::new_v4().to_string(),
    };
    let status = match way {
        "db" => buy::in_transaction(db, &id)?,
        "lock" => buy::under_lock(db, &id)?,
        "queue" => buy::through_queue(db, &id)?,
        "memory" => buy::in_memory(db, &id)?,
        _ => return error(StatusCode::NOT_FOUND, "no such way to buy"),
    };
    match status {
        Status::Sold => answer(StatusCode::OK, &json!({ "id": id })),
        Status::Pending => answer(StatusCode::ACCEPTED, &json!({ "id": id })),
        Status::Rejected => error(StatusCode::CONFLICT, "sold out"),
    }
}

fn reset(db: &Database, query: &str) -> anyhow::Result<Response> {
    let stock = query.strip_prefix("stock=").context("no ?stock=N")?;
    let stock: u32 = stock.parse().context("the stock is no number")?;
    db.batch(&[
        Statement::new("DELETE FROM orders", ()),
        Statement::new("UPDATE item SET stock = $1, remaining = $1", (stock,)),
    ])?;
    stats(db)
}

fn order(db: &Database, id: &str) -> anyhow::Result<Response> {
    let sql = "SELECT id, status FROM orders WHERE id = $1";
    match db.query_opt::<Value>(sql, (id,))? {
        Some(order) => answer(StatusCode::OK, &order),
        None => error(StatusCode::NOT_FOUND, "no such order"),
    }
}

/// Adds up in one statement, so that the numbers belong together: unless a way to buy is wrong, `orders` equals `sold`.
fn stats(db: &Database) -> anyhow::Result<Response> {
    let sql = r#"SELECT stock, remaining AS "left", stock - remaining AS sold,
        (SELECT count(*) FROM orders WHERE status = 'sold') AS orders FROM item"#;
    answer(StatusCode::OK, &db.query_one(sql, ())?)
}

fn error(status: StatusCode, error: &str) -> anyhow::Result<Response> {
    answer(status, &json!({ "error": error }))
}

fn answer(status: StatusCode, value: &Value) -> anyhow::Result<Response> {
    Ok(http::json(status, value)?)
}
