"""A guest that shares state through every interface: what its answers say is checked by tests/it/python.rs."""

import time
import uuid
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from datetime import time as time_of_day
from decimal import Decimal

from wrun_sdk import Error, db, http, lock, queue

TABLES = """
CREATE TABLE stock (n INTEGER NOT NULL CHECK (n >= 0));
CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL UNIQUE);
CREATE TABLE handled (id TEXT PRIMARY KEY, body JSON NOT NULL, attempt INTEGER NOT NULL);
CREATE TABLE counters (name TEXT PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE typed (
    id INTEGER PRIMARY KEY, boolean BOOLEAN, whole INTEGER, real REAL, text TEXT, blob BLOB, decimal DECIMAL TEXT,
    day DATE, time TIME, at TIMESTAMP, uuid UUID, json JSON, absent TEXT
);
INSERT INTO stock VALUES (0);
"""


@dataclass
class Counter:
    name: str
    n: int


@http.handler
def main(request: http.Request) -> http.Response:
    routes = {
        "/echo": echo,
        "/tables": tables,
        "/stock": stock,
        "/sell": sell,
        "/count": count,
        "/counter": counter,
        "/values": values,
        "/rows": rows,
        "/fenced": fenced,
        "/errors": errors,
        "/rollback": rollback,
        "/send": send,
        "/handled": handled,
        "/raise": fail,
    }
    route = routes.get(request.path)
    return route(request) if route else http.text("Not found\n", 404)


@queue.consumer
def handle(delivery: queue.Delivery) -> None:
    body = delivery.json()
    match body:
        case {"do": "retry"} if delivery.attempt == 1:
            raise queue.Retry(after=0.01)
        case {"do": "raise"} if delivery.attempt == 1:
            raise ValueError("as told")
        case {"do": "dead"}:
            raise queue.Dead("as told")
    with db.open("default").begin() as tx:
        if tx.mark_processed(delivery.id):
            tx.execute("INSERT INTO handled VALUES ($1, $2, $3)", delivery.id, body, delivery.attempt)


def echo(request: http.Request) -> http.Response:
    response = http.Response(request.body, status=201)
    response.headers.set("x-path", request.path)
    response.headers.set("x-query", request.query.get("name", ""))
    response.headers.set("x-mine", request.headers["X-Mine"])
    response.headers.add("set-cookie", "a=1")
    response.headers.add("set-cookie", "b=2")
    return response


def tables(_request: http.Request) -> http.Response:
    statements = (db.Statement(sql) for sql in TABLES.strip().split(";\n"))
    db.open("default").batch(statement for statement in statements)
    return http.json("made")


def stock(request: http.Request) -> http.Response:
    database = db.open("default")
    if "n" in request.query:
        database.execute("UPDATE stock SET n = $1", int(request.query["n"]))
    sql = "SELECT n AS left, (SELECT count(*) FROM orders) AS orders FROM stock"
    return http.json(database.query_one(sql))


def sell(request: http.Request) -> http.Response:
    def work(tx: db.Transaction) -> bool:
        left = tx.query_one("SELECT n FROM stock FOR UPDATE", into=int)
        if left == 0:
            return False
        tx.execute("UPDATE stock SET n = $1", left - 1)
        tx.execute("INSERT INTO orders (item) VALUES ($1)", str(uuid.uuid4()))
        return True

    sold = db.open("default").transaction(work)
    return http.json("sold") if sold else http.json("sold out", 409)


def count(request: http.Request) -> http.Response:
    """Reads and writes in two steps, which is right only if nobody else does so meanwhile."""
    name = request.query["name"]
    if request.query.get("lock") == "no":
        return http.json(read_and_write(name))
    with lock.acquire(name, wait=timedelta(seconds=60)) as guard:
        assert guard.is_held()
        return http.json(read_and_write(name))


def read_and_write(name: str) -> int:
    database = db.open("default")
    n = database.query_opt("SELECT n FROM counters WHERE name = $1", name, into=int) or 0
    time.sleep(0.02)
    sql = "INSERT INTO counters VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET n = excluded.n"
    database.execute(sql, name, n + 1)
    return n + 1


def counter(request: http.Request) -> http.Response:
    sql = "SELECT name, n FROM counters WHERE name = $1"
    return http.json(db.open("default").query_one(sql, request.query["name"], into=Counter))


def values(_request: http.Request) -> http.Response:
    sent = {
        "boolean": True,
        "whole": -(2**63),
        "real": 0.1,
        "text": "größe",
        "blob": b"\x00\xff",
        "decimal": Decimal("-12.50"),
        "day": date(2024, 2, 29),
        "time": time_of_day(23, 59, 59, 5),
        "at": datetime(2024, 2, 29, 12, 30, 0, 1, tzinfo=timezone.utc),
        "uuid": uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"),
        "json": {"a": [1, None, "ü"]},
        "absent": None,
    }
    database = db.open("default")
    places = ", ".join(f"${n + 1}" for n in range(len(sent)))
    database.execute(f"INSERT INTO typed ({', '.join(sent)}) VALUES ({places})", *sent.values())
    got = database.query_one(f"SELECT {', '.join(sent)} FROM typed")
    wrong = {name: repr(got[name]) for name in sent if got[name] != sent[name] or type(got[name]) is not type(sent[name])}
    return http.json({"wrong": wrong, "at": got["at"], "decimal": got["decimal"]})


def rows(_request: http.Request) -> http.Response:
    database = db.open("default")
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) SELECT i, i * 2 FROM n"
    with database.begin(read_only=True) as tx:
        total = sum(i + double for i, double in tx.rows(numbers, into=tuple))
        with_break = next(tx.rows(numbers, into=tuple))
    steps = database.batch(
        [
            db.Statement("INSERT INTO counters VALUES ('batch', 1)"),
            db.Statement("SELECT n FROM counters WHERE name = $1", "batch"),
        ]
    )
    done = steps[0]
    assert isinstance(done, db.Done)
    return http.json({"total": total, "first": with_break, "affected": done.affected, "rows": steps[1]})


def fenced(request: http.Request) -> http.Response:
    """Writes under a lock that holds, or one that is over before the commit."""
    database = db.open("default")
    sql = "INSERT INTO counters VALUES ('fenced', 1)"
    try:
        with lock.space("default").acquire("a", "b", ttl=0.1, renew=False) as guard:
            assert guard.token > 0
            if request.query["held"] == "yes":
                guard.extend(30)
            else:
                while guard.is_held():
                    time.sleep(0.02)
            database.transaction(lambda tx: tx.execute(sql), fences=[guard])
    except db.LostFence:
        return http.json("lost fence", 409)
    return http.json("written")


def errors(_request: http.Request) -> http.Response:
    """Answers what each of these raises: its class, code, and whether it may be tried again."""
    database = db.open("default")
    held = lock.acquire("held")

    def again() -> None:
        database.execute("INSERT INTO orders (id, item) VALUES (-1, 'x')")
        database.execute("INSERT INTO orders (id, item) VALUES (-2, 'x')")

    def closed() -> None:
        tx = database.begin()
        tx.rollback()
        tx.query("SELECT 1")

    trials = {
        "db": lambda: db.open("elsewhere"),
        "lock": lambda: lock.space("elsewhere"),
        "queue": lambda: queue.open("elsewhere"),
        "unique": again,
        "syntax": lambda: database.query("SELEC 1"),
        "closed": closed,
        "count": lambda: database.query_one("SELECT 1 WHERE 1 = 0"),
        "row": lambda: database.query_one("SELECT 'a'", into=int),
        "params": lambda: database.query("SELECT $1"),
        "deadlock": lambda: lock.acquire("held"),
        "key": lambda: lock.acquire(""),
        "empty": lambda: queue.open("jobs").send_all([]),
    }
    raised = {}
    for name, trial in trials.items():
        try:
            trial()
        except Error as error:
            raised[name] = [f"{type(error).__module__}.{type(error).__name__}", error.code, error.retryable]
    held.release()
    database.execute("DELETE FROM orders WHERE id < 0")
    return http.json(raised)


def rollback(_request: http.Request) -> http.Response:
    """Leaves nothing behind, of a change and of a message."""
    database = db.open("default")

    def work(tx: db.Transaction) -> None:
        tx.execute("INSERT INTO counters VALUES ('undone', 1)")
        queue.open("jobs").send_in(tx, {"do": "never"})
        raise LookupError

    try:
        database.transaction(work)
    except LookupError:
        return http.json(database.query("SELECT * FROM counters WHERE name = 'undone'"))
    return http.json("nothing was raised", 500)


def send(request: http.Request) -> http.Response:
    """Sends each of the bodies, half of them in a transaction."""
    jobs = queue.open("jobs")
    bodies = request.json()
    half = len(bodies) // 2
    ids = jobs.send_all(queue.Message(body, headers={"a": "b"}) for body in bodies[:half])
    with db.open("default").begin() as tx:
        ids += [jobs.send_in(tx, body) for body in bodies[half:]]
    return http.json(ids)


def handled(_request: http.Request) -> http.Response:
    return http.json(db.open("default").query("SELECT id, body, attempt FROM handled"))


def fail(_request: http.Request) -> http.Response:
    raise RuntimeError("as told")
