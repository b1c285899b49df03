"""Rows as the caller wants them, and the queries that databases and transactions have in common."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Dict, TypeVar, overload
from uuid import UUID

from .errors import RowCount, UnexpectedRow
from .values import from_host, to_host

T = TypeVar("T")

Row = Dict[str, Any]
"""A row by the names of its columns."""

_VALUES = (bool, int, float, str, bytes, Decimal, date, time, datetime, UUID)


def params(values: tuple[Any, ...]) -> list[Any]:
    return [to_host(value) for value in values]


def decode(into: Any, columns: list[str], values: list[Any]) -> Any:
    """Returns a row as a dict; or what `into` says: a value's type for the only column, `tuple`, or a class that takes the
    columns by their names."""
    values = [from_host(value) for value in values]
    if into is tuple:
        return tuple(values)
    if into in _VALUES:
        return _only(into, columns, values)
    row = dict(zip(columns, values))
    if into is None:
        return row
    try:
        return into(**row)
    except TypeError as error:
        raise UnexpectedRow(error) from None


def _only(into: type, columns: list[str], values: list[Any]) -> Any:
    if len(values) != 1:
        raise UnexpectedRow(f"it has {len(values)} columns, one is wanted")
    value = values[0]
    if type(value) is into:
        return value
    # The embedded engine has no truth values of its own: an expression such as `EXISTS (…)` is 0 or 1. Nor is a sum of
    # whole numbers anything else than one.
    if type(value) is int and (into is float or (into is bool and value in (0, 1))):
        return into(value)
    raise UnexpectedRow(f"column {columns[0]} is {value!r}, {into.__name__} is wanted")


class Queries:
    """What can be asked of a database and of a transaction."""

    def _rows(self, sql: str, params: list[Any]) -> Any:
        raise NotImplementedError

    @overload
    def query(self, sql: str, *values: Any) -> list[Row]: ...

    @overload
    def query(self, sql: str, *values: Any, into: type[T]) -> list[T]: ...

    def query(self, sql: str, *values: Any, into: Any = None) -> list[Any]:
        """Runs a query and returns its rows."""
        rows = self._rows(sql, params(values))
        columns = [column.name for column in rows.columns]
        return [decode(into, columns, row) for row in rows.rows]

    @overload
    def query_one(self, sql: str, *values: Any) -> Row: ...

    @overload
    def query_one(self, sql: str, *values: Any, into: type[T]) -> T: ...

    def query_one(self, sql: str, *values: Any, into: Any = None) -> Any:
        """Runs a query that has exactly one row."""
        rows = self.query(sql, *values, into=into)
        if len(rows) != 1:
            raise RowCount(len(rows))
        return rows[0]

    @overload
    def query_opt(self, sql: str, *values: Any) -> Row | None: ...

    @overload
    def query_opt(self, sql: str, *values: Any, into: type[T]) -> T | None: ...

    def query_opt(self, sql: str, *values: Any, into: Any = None) -> Any:
        """Runs a query that has one row or none."""
        rows = self.query(sql, *values, into=into)
        if len(rows) > 1:
            raise RowCount(len(rows))
        return rows[0] if rows else None
