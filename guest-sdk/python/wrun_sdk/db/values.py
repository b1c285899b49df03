"""Python values as values of SQL, and back.

| SQL | Python |
|---|---|
| NULL | `None` |
| boolean, integer, real, text, blob | `bool`, `int`, `float`, `str`, `bytes` |
| decimal, date, time, UUID | `Decimal`, `date`, `time`, `UUID` |
| timestamp | `datetime` in UTC |
| JSON | what it holds: `dict`, `list`, … |
"""

from __future__ import annotations

import json
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Callable
from uuid import UUID

from .. import _host

wit = _host.interface("imports.wrun_db")

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LOW = 2**64 - 1


class Json:
    """A parameter that is JSON also where its value alone is something else: a text, a number, `None`."""

    def __init__(self, value: Any) -> None:
        self.value = value


def to_host(value: Any) -> Any:
    """Returns a parameter as the host takes it."""
    for kinds, convert in _TO_HOST:
        if isinstance(value, kinds):
            return convert(value)
    raise TypeError(f"a parameter cannot be a {type(value).__name__}")


def _decimal(value: Decimal) -> Any:
    if not value.is_finite():
        raise ValueError(f"a decimal parameter cannot be {value}")
    return wit.Value_Decimal(f"{value:f}")


def _time(value: time) -> Any:
    if value.tzinfo is not None:
        raise ValueError("a time of day has no time zone in SQL")
    return wit.Value_Time(value.isoformat())


def _timestamp(value: datetime) -> Any:
    if value.tzinfo is None:
        raise ValueError("a datetime parameter needs a time zone, such as timezone.utc")
    return wit.Value_TimestampUs((value - _EPOCH) // timedelta(microseconds=1))


def _json(value: Any) -> Any:
    return wit.Value_Json(json.dumps(value, ensure_ascii=False))


# In this order: a bool is an int, and a datetime is a date.
_TO_HOST: list[tuple[Any, Callable[[Any], Any]]] = [
    (type(None), lambda _: wit.Value_Null()),
    (bool, lambda value: wit.Value_Boolean(value)),
    (int, lambda value: wit.Value_Integer(value)),
    (float, lambda value: wit.Value_Real(value)),
    (str, lambda value: wit.Value_Text(value)),
    ((bytes, bytearray, memoryview), lambda value: wit.Value_Blob(bytes(value))),
    (Decimal, _decimal),
    (datetime, _timestamp),
    (date, lambda value: wit.Value_Date(value.isoformat())),
    (time, _time),
    (UUID, lambda value: wit.Value_Uuid((value.int >> 64, value.int & _LOW))),
    (Json, lambda value: _json(value.value)),
    ((dict, list), _json),
]

_FROM_HOST: dict[str, Callable[[Any], Any]] = {
    "Decimal": Decimal,
    "Date": date.fromisoformat,
    "Time": time.fromisoformat,
    "TimestampUs": lambda us: _EPOCH + timedelta(microseconds=us),
    "Uuid": lambda halves: UUID(int=halves[0] << 64 | halves[1]),
    "Json": json.loads,
    "Other": lambda named: named[1],
}


def from_host(value: Any) -> Any:
    """Returns a column's value. What Python has no value for, such as the year 0, stays as the host sent it."""
    case = _host.case(value)
    if case == "Null":
        return None
    convert = _FROM_HOST.get(case)
    if convert is None:
        return value.value
    try:
        return convert(value.value)
    except (ArithmeticError, ValueError):
        return value.value
