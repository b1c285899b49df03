"""A transaction, and how one is run again where that may help."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Generic, Iterator, TypeVar, overload

from .. import _host
from .errors import from_host
from .rows import Queries, Row, decode, params

T = TypeVar("T")

_RETRIES_MAX = 5
_PAUSE_MAX_S = 0.02
"""The longest pause before the first retry; each further one may be twice as long."""
_PAGE_ROWS = 500
"""Rows that a cursor fetches at a time."""


@dataclass
class Done:
    """What a statement that returns no rows did."""

    affected: int
    """Rows that it inserted, changed or deleted."""
    last_id: int | None
    """The row id of the last row that it inserted, where the engine has one."""


class Transaction(Queries):
    """An open transaction. As a context manager it commits at the end of the block, and rolls back if that raises."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._ended = False
        self._retry_may_help = False

    def execute(self, sql: str, *values: Any) -> Done:
        """Runs a statement for its effect."""
        done = self._call(self._raw.execute, sql, params(values))
        return Done(done.affected, done.last_id)

    @overload
    def rows(self, sql: str, *values: Any) -> Cursor[Row]: ...

    @overload
    def rows(self, sql: str, *values: Any, into: type[T]) -> Cursor[T]: ...

    def rows(self, sql: str, *values: Any, into: Any = None) -> Cursor[Any]:
        """Runs a query whose rows are fetched as they are asked for: for more of them than fit into memory. At most 8 such
        are open at a time."""
        return Cursor(self, self._call(self._raw.open_cursor, sql, params(values)), into)

    def mark_processed(self, id: str) -> bool:
        """Notes that the work called `id` is done, as part of this transaction. False says that it was done before, and then
        there is nothing to do: this makes an effect happen once where a message may come twice."""
        is_new: bool = self._call(self._raw.mark_processed, id)
        return is_new

    def commit(self) -> None:
        """Makes everything durable, or says exactly what it did not do."""
        self._ended = True
        # What failed before did not matter to the work. What matters now is the commit.
        self._retry_may_help = False
        self._call(self._raw.commit)

    def rollback(self) -> None:
        """Undoes everything."""
        self._ended = True
        self._raw.rollback()

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ended:
            return
        if error is None:
            self.commit()
        else:
            self.rollback()

    def _rows(self, sql: str, params: list[Any]) -> Any:
        return self._call(self._raw.query, sql, params)

    def _call(self, function: Callable[..., T], *args: Any) -> T:
        try:
            return _host.call(from_host, function, *args)
        except _host.Error as error:
            self._note(error)
            raise

    def _note(self, error: _host.Error) -> None:
        """Remembers that another try may succeed where this one failed: the work may raise an error of its own instead."""
        self._retry_may_help |= error.retryable


class Cursor(Generic[T]):
    """The rows of a query, fetched as they are asked for."""

    def __init__(self, tx: Transaction, raw: Any, into: Any) -> None:
        self._tx = tx
        self._raw = raw
        self._into = into
        self._columns = [column.name for column in raw.columns()]
        self._page: Iterator[list[Any]] = iter(())

    def close(self) -> None:
        """Ends the query, if its rows have not all been fetched."""
        if self._raw is not None:
            self._raw.__exit__(None, None, None)
            self._raw = None

    def __iter__(self) -> Cursor[T]:
        return self

    def __next__(self) -> T:
        values = next(self._page, None)
        if values is None:
            values = self._next_page()
        row: T = decode(self._into, self._columns, values)
        return row

    def _next_page(self) -> list[Any]:
        if self._raw is not None:
            self._page = iter(self._tx._call(self._raw.next, _PAGE_ROWS))
            for values in self._page:
                return values
        self.close()
        raise StopIteration


def run(begin: Callable[[], Transaction], work: Callable[[Transaction], T]) -> T:
    """Runs `work` in transactions that `begin` begins, until one is committed or another try would not help."""
    retries = 0
    while True:
        tx = None
        try:
            tx = begin()
            with tx:
                return work(tx)
        except Exception as error:
            retry_may_help = tx._retry_may_help if tx else isinstance(error, _host.Error) and error.retryable
            if not retry_may_help or retries == _RETRIES_MAX:
                raise
        # A random time, so that those who were in each other's way are not again.
        time.sleep(random.uniform(0, _PAUSE_MAX_S * 2**retries))
        retries += 1
