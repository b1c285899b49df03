"""The boundary to the host: the modules that componentize-py generates from `wit/`, and what all others make of them.

On ordinary Python those modules are not there. Then stand-ins say so when they are used.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Callable, TypeVar

T = TypeVar("T")


class Error(Exception):
    """What the host refused or could not do."""

    retryable: bool = False
    """Whether the same, tried again from its beginning, may succeed."""

    code: str | None = None
    """The SQLSTATE, if a database's engine refused a statement."""

    _text = "{}"

    def __init__(self, what: object = "") -> None:
        super().__init__(self._text.format(what))


class NoHost(RuntimeError):
    """A call to the host where there is none: outside of a component that wrun runs."""


class _Absent:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        raise NoHost(f"{self._name}.{name} is the host's: it is there only in a component that wrun runs")


def interface(name: str) -> Any:
    """Returns a generated module: `imports.wrun_db`, `exports.consumer`."""
    try:
        return importlib.import_module(f"wit_world.{name}")
    except ModuleNotFoundError:
        return _Absent(name.partition(".")[2])


class _NoResult(Exception):
    """What no host raises."""


Err: Any = _NoResult
Ok: Any = _NoResult
try:
    from componentize_py_types import Err, Ok  # type: ignore[import-not-found, no-redef, unused-ignore]
except ModuleNotFoundError:
    pass


def case(variant: object) -> str:
    """Returns the name of a variant's case: `LostFence` of an `Error_LostFence`."""
    return type(variant).__name__.partition("_")[2]


def payload(variant: Any) -> Any:
    """Returns what a variant's case carries, if it carries something."""
    return getattr(variant, "value", "")


def call(to_error: Callable[[Any], Error], function: Callable[..., T], *args: Any) -> T:
    """Calls the host and raises what it returns as an error."""
    try:
        return function(*args)
    except Err as error:
        raise to_error(error.value) from None


def export(protocol: str, implementation: type) -> None:
    """Makes a class what the component exports: componentize-py looks for it by name in the entry module, which is the one
    that uses the decorator."""
    sys._getframe(2).f_globals[protocol] = implementation
