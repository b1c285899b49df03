//! A shop that cannot sell more than it has: the requests that it takes. How it sells is in `stock`.

mod stock;

use serde_json::{Value, json};
use stock::Sale;
use wrun_sdk::db;
use wrun_sdk::http::{self, Request, Response, StatusCode};

#[wrun_sdk::http]
fn main(request: Request) -> anyhow::Result<Response> {
    let uri = request.uri();
    let Some(route) = route(request.method().as_str(), uri.path(), uri.query()) else {
        return answer(StatusCode::NOT_FOUND, &json!({ "error": "not found" }));
    };
    let db = db::open("default")?;
    match route {
        Route::Stock => answer(StatusCode::OK, &stock::left(&db)?),
        Route::Buy(item) => match stock::buy(&db, item)? {
            Sale::Sold { order, left } => {
                answer(StatusCode::OK, &json!({ "order": order, "left": left }))
            }
            Sale::SoldOut => answer(StatusCode::CONFLICT, &json!({ "error": "sold out" })),
            Sale::NoSuchItem => no_such_item(),
        },
        Route::Restock { item, n } => match stock::restock(&db, item, n)? {
            Some(left) => answer(StatusCode::OK, &json!({ "left": left })),
            None => no_such_item(),
        },
    }
}

/// What a request asks for.
#[derive(Debug, PartialEq)]
enum Route<'a> {
    Stock,
    Buy(&'a str),
    Restock { item: &'a str, n: u32 },
}

fn route<'a>(method: &str, path: &'a str, query: Option<&str>) -> Option<Route<'a>> {
    let path: Vec<&str> = path.split('/').skip(1).collect();
    match (method, path.as_slice()) {
        ("GET", ["stock"]) => Some(Route::Stock),
        ("POST", ["buy", item]) => Some(Route::Buy(item)),
        ("POST", ["restock", item]) => {
            let n = query?.strip_prefix("n=")?.parse().ok()?;
            Some(Route::Restock { item, n })
        }
        _ => None,
    }
}

fn no_such_item() -> anyhow::Result<Response> {
    answer(StatusCode::NOT_FOUND, &json!({ "error": "no such item" }))
}

fn answer(status: StatusCode, value: &Value) -> anyhow::Result<Response> {
    Ok(http::json(status, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buying_is_a_post() {
        assert_eq!(
            route("POST", "/buy/ticket", None),
            Some(Route::Buy("ticket"))
        );
        assert_eq!(route("GET", "/buy/ticket", None), None);
    }

    #[test]
    fn restocking_needs_a_number() {
        let expected = Route::Restock {
            item: "ticket",
            n: 5,
        };
        assert_eq!(
            route("POST", "/restock/ticket", Some("n=5")),
            Some(expected)
        );
        for query in [None, Some("n=-5"), Some("n=many"), Some("m=5")] {
            assert_eq!(route("POST", "/restock/ticket", query), None);
        }
    }
}
