"""{{name}}: a stock that cannot be oversold, however many buy at the same time."""

from wrun_sdk import db, http


@http.handler
def main(request: http.Request) -> http.Response:
    match request.method, request.path.split("/")[1:]:
        case "POST", ["buy", item]:
            return db.open("default").transaction(lambda tx: buy(tx, item))
        case "GET", ["stock"]:
            rows = db.open("default").query("SELECT item, remaining FROM stock ORDER BY item")
            return http.json({row["item"]: row["remaining"] for row in rows})
        case "POST", ["restock", item] if request.query.get("n", "").isdecimal():
            return restock(item, int(request.query["n"]))
        case _:
            return error("not found", 404)


def buy(tx: db.Transaction, item: str) -> http.Response:
    """Reads, checks and writes in one transaction. Nobody else can write meanwhile."""
    left = tx.query_opt("SELECT remaining FROM stock WHERE item = $1 FOR UPDATE", item, into=int)
    if left is None:
        return error("no such item", 404)
    if left == 0:
        return error("sold out", 409)
    tx.execute("UPDATE stock SET remaining = remaining - 1 WHERE item = $1", item)
    order = tx.query_one("INSERT INTO orders (item) VALUES ($1) RETURNING id", item, into=int)
    return http.json({"order": order, "left": left - 1})


def restock(item: str, n: int) -> http.Response:
    sql = 'UPDATE stock SET remaining = remaining + $1 WHERE item = $2 RETURNING remaining AS "left"'
    row = db.open("default").query_opt(sql, n, item)
    return http.json(row) if row else error("no such item", 404)


def error(what: str, status: int) -> http.Response:
    return http.json({"error": what}, status)
