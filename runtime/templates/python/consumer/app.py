"""{{name}}: notes orders at once and handles them later."""

from typing import Any

from wrun_sdk import db, http, queue


@http.handler
def main(request: http.Request) -> http.Response:
    match request.method, request.path.split("/")[1:]:
        case "POST", ["orders"]:
            return order(request)
        case "GET", ["orders", id] if id.isdecimal():
            sql = "SELECT id, state FROM orders WHERE id = $1"
            row = db.open("default").query_opt(sql, int(id))
            return http.json(row) if row else error("no such order", 404)
        case _:
            return error("not found", 404)


def order(request: http.Request) -> http.Response:
    try:
        details = request.json()
    except ValueError:
        return error("the body is not JSON", 400)
    orders = queue.open("orders")
    return db.open("default").transaction(lambda tx: place(tx, orders, details))


def place(tx: db.Transaction, orders: queue.Queue, details: Any) -> http.Response:
    """Notes an order and sends it to the queue: both happen, or neither."""
    sql = "INSERT INTO orders (details, state) VALUES ($1, 'queued') RETURNING id"
    id = tx.query_one(sql, db.Json(details), into=int)
    orders.send_in(tx, {"id": id})
    return http.json({"id": id}, 202)


@queue.consumer
def handle(delivery: queue.Delivery) -> None:
    db.open("default").transaction(lambda tx: finish(tx, delivery))


def finish(tx: db.Transaction, delivery: queue.Delivery) -> None:
    """Handles an order. A message may come twice; what it causes is done once."""
    if tx.mark_processed(delivery.id):
        tx.execute("UPDATE orders SET state = 'done' WHERE id = $1", delivery.json()["id"])


def error(what: str, status: int) -> http.Response:
    return http.json({"error": what}, status)
