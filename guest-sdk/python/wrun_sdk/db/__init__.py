"""Databases: SQL with transactions.

    database = db.open("default")
    database.execute("INSERT INTO items (name) VALUES ($1)", "lamp")
    items = database.query("SELECT id, name FROM items WHERE price < $1", 100)
    count = database.query_one("SELECT count(*) FROM items", into=int)
    cheapest = database.query_opt("SELECT name FROM items ORDER BY price LIMIT 1", into=str)

A row is a dict by the names of the columns. With `into` it becomes something else: a dataclass or another class takes columns
by name, `tuple` takes them by place, and the type of a value (`int`, `str`, `datetime`, …) is the only column's. Which values
are which is in `values`.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Literal, TypeVar

from .. import _host, _millis
from .._millis import Duration
from ..lock import Guard
from .errors import (
    Closed,
    Denied,
    Error,
    Invalid,
    LostFence,
    OutcomeUnknown,
    Refused,
    RowCount,
    Timeout,
    TooLarge,
    Unavailable,
    UnexpectedRow,
    from_host,
)
from .rows import Queries, Row, decode, params
from .transaction import Cursor, Done, Transaction, run
from .values import Json, wit

__all__ = [
    "Closed",
    "Cursor",
    "Database",
    "Denied",
    "Done",
    "Error",
    "Invalid",
    "Isolation",
    "Json",
    "LostFence",
    "OutcomeUnknown",
    "Refused",
    "Row",
    "RowCount",
    "Statement",
    "Timeout",
    "TooLarge",
    "Transaction",
    "Unavailable",
    "UnexpectedRow",
    "open",
]

T = TypeVar("T")

Isolation = Literal["read committed", "repeatable read", "serializable"]


def open(label: str) -> Database:
    """Opens a database that the manifest grants under this label in `[databases]`."""
    return Database(_host.call(from_host, wit.Database.open, label))


class Statement:
    """A statement with its parameters, for a batch."""

    def __init__(self, sql: str, *values: Any) -> None:
        self.sql = sql
        self.values = values


class Database(Queries):
    """A database. Each call is a transaction of its own."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def execute(self, sql: str, *values: Any) -> Done:
        """Runs a statement for its effect. When it returns the change is durable."""
        done = _host.call(from_host, self._raw.execute, sql, params(values))
        return Done(done.affected, done.last_id)

    def batch(
        self,
        statements: Iterable[Statement],
        *,
        fences: Iterable[Guard] = (),
        isolation: Isolation | None = None,
        read_only: bool = False,
        timeout: Duration | None = None,
    ) -> list[list[Row] | Done]:
        """Runs statements in one transaction and one round trip: all of them take effect, or none. If one of the `fences` is
        not held at the commit, none does. Returns for each its rows, or what it did."""
        raw = [wit.Statement(statement.sql, params(statement.values)) for statement in statements]
        options = _options(read_only, isolation, timeout)
        return [_step(step) for step in _host.call(from_host, self._raw.batch, raw, options, _raw(fences))]

    def transaction(
        self,
        work: Callable[[Transaction], T],
        *,
        fences: Iterable[Guard] = (),
        isolation: Isolation | None = None,
        read_only: bool = False,
        timeout: Duration | None = None,
    ) -> T:
        """Runs `work` in a transaction, commits it and returns what `work` returned. If `work` raises, nothing is changed.

        Where the host says that the same may succeed on another try, `work` is called again in a new transaction, up to 5
        times, each after a longer pause. So it should do nothing outside of the transaction that must not be done twice.
        `OutcomeUnknown` is never tried again.

        It is committed only if all of the `fences` are held then; `LostFence` says that one was not.
        """
        guards = list(fences)

        def begin() -> Transaction:
            return self.begin(fences=guards, isolation=isolation, read_only=read_only, timeout=timeout)

        return run(begin, work)

    def begin(
        self,
        *,
        fences: Iterable[Guard] = (),
        isolation: Isolation | None = None,
        read_only: bool = False,
        timeout: Duration | None = None,
    ) -> Transaction:
        """Begins a transaction that is not tried again: for what `transaction` does not fit. A `with` block commits it at its
        end."""
        options = _options(read_only, isolation, timeout)
        return Transaction(_host.call(from_host, self._raw.begin, options, _raw(fences)))

    def dialect(self) -> str:
        """Names the language of its statements: `sqlite`, `postgres`, `mysql` or `mariadb`."""
        dialect: str = self._raw.dialect()
        return dialect

    def _rows(self, sql: str, params: list[Any]) -> Any:
        return _host.call(from_host, self._raw.query, sql, params)


def _options(read_only: bool, isolation: Isolation | None, timeout: Duration | None) -> Any:
    level = isolation and wit.Isolation[isolation.upper().replace(" ", "_")]
    return wit.TxOptions(read_only, level, _millis.short(timeout))


def _raw(fences: Iterable[Guard]) -> list[Any]:
    return [guard._raw for guard in fences]


def _step(step: Any) -> list[Row] | Done:
    if _host.case(step) == "Done":
        return Done(step.value.affected, step.value.last_id)
    columns = [column.name for column in step.value.columns]
    return [decode(None, columns, row) for row in step.value.rows]
