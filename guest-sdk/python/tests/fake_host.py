"""A host for tests: the generated modules as far as the SDK uses them. Importing it puts it in their place."""

from __future__ import annotations

import sys
from dataclasses import dataclass, make_dataclass
from enum import Enum
from types import ModuleType
from typing import Any


@dataclass
class Err(Exception):
    value: Any


@dataclass
class Ok:
    value: Any


def _module(name: str, **contents: Any) -> Any:
    module = ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module
    return module


def _variant(name: str, empty: str, full: str) -> dict[str, type]:
    with_value = {f"{name}_{case}": make_dataclass(f"{name}_{case}", ["value"]) for case in full.split()}
    return with_value | {f"{name}_{case}": make_dataclass(f"{name}_{case}", []) for case in empty.split()}


def _records(**fields: str) -> dict[str, type]:
    return {name: make_dataclass(name, names.split()) for name, names in fields.items()}


class Isolation(Enum):
    READ_COMMITTED = 0
    REPEATABLE_READ = 1
    SERIALIZABLE = 2


_module("componentize_py_types", Err=Err, Ok=Ok)
_module("wit_world", __path__=[])
_module("wit_world.imports", __path__=[])
_module("wit_world.exports", __path__=[])
db = _module(
    "wit_world.imports.wrun_db",
    Isolation=Isolation,
    **_variant("Value", "Null", "Boolean Integer Real Text Blob Decimal Date Time TimestampUs Uuid Json Other"),
    **_variant("Error", "Closed LostFence OutcomeUnknown", "Denied Invalid Db Timeout TooLarge Unavailable Other"),
    **_variant("Step", "", "Rows Done"),
    **_records(
        Column="name type_name",
        Rows="columns rows",
        Done="affected last_id",
        Statement="sql params",
        DbError="code message constraint retryable",
        TxOptions="read_only isolation timeout_ms",
    ),
)
lock = _module(
    "wit_world.imports.wrun_lock",
    **_variant("Error", "Timeout Lost WouldDeadlock", "Denied Invalid Limit Unavailable Other"),
    **_records(Options="wait_ms ttl_ms renew"),
)
queue = _module(
    "wit_world.imports.wrun_queue",
    **_variant("Error", "Full Closed OutcomeUnknown NotYours", "Denied Invalid TooLarge Refused Unavailable Other"),
    **_records(Message="body content_type headers key dedup_id delay_ms"),
)
consumer = _module(
    "wit_world.exports.consumer",
    **_variant("Outcome", "Ack", "Retry Dead"),
    **_records(Delivery="id queue key attempt max_attempts sent_at_ms deadline_ms content_type headers body"),
)


def rows(columns: str, *values: list[Any]) -> Any:
    """Returns rows of values as the host sends them."""
    return db.Rows([db.Column(name, "") for name in columns.split()], list(values))
