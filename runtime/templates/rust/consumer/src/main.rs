//! Takes orders over HTTP at once, and handles them later from a queue.

mod orders;

use serde_json::{Value, json};
use wrun_sdk::db;
use wrun_sdk::http::{self, Request, Response, StatusCode};
use wrun_sdk::queue::Delivery;

#[wrun_sdk::http]
fn main(request: Request) -> anyhow::Result<Response> {
    let Some(route) = route(request.method().as_str(), request.uri().path()) else {
        return answer(StatusCode::NOT_FOUND, &json!({ "error": "not found" }));
    };
    let db = db::open("default")?;
    match route {
        Route::Place => match serde_json::from_slice(request.body()) {
            Ok(details) => {
                let id = orders::place(&db, &details)?;
                answer(StatusCode::ACCEPTED, &json!({ "id": id }))
            }
            Err(_) => answer(
                StatusCode::BAD_REQUEST,
                &json!({ "error": "the body is not JSON" }),
            ),
        },
        Route::Look(id) => match orders::state(&db, id)? {
            Some(state) => answer(StatusCode::OK, &json!({ "id": id, "state": state })),
            None => answer(StatusCode::NOT_FOUND, &json!({ "error": "no such order" })),
        },
    }
}

#[wrun_sdk::consumer]
fn handle(delivery: Delivery) -> anyhow::Result<()> {
    orders::finish(&db::open("default")?, &delivery)
}

/// What a request asks for.
#[derive(Debug, PartialEq)]
enum Route {
    Place,
    Look(i64),
}

fn route(method: &str, path: &str) -> Option<Route> {
    let path: Vec<&str> = path.split('/').skip(1).collect();
    match (method, path.as_slice()) {
        ("POST", ["orders"]) => Some(Route::Place),
        ("GET", ["orders", id]) => Some(Route::Look(id.parse().ok()?)),
        _ => None,
    }
}

fn answer(status: StatusCode, value: &Value) -> anyhow::Result<Response> {
    Ok(http::json(status, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_posted_and_looked_at() {
        assert_eq!(route("POST", "/orders"), Some(Route::Place));
        assert_eq!(route("GET", "/orders/7"), Some(Route::Look(7)));
    }

    #[test]
    fn order_has_a_number() {
        for path in ["/orders", "/orders/", "/orders/x", "/orders/7/8"] {
            assert_eq!(route("GET", path), None);
        }
    }
}
