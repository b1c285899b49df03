"""Why a call to a database failed."""

from __future__ import annotations

from typing import Any

from .. import _host


class Error(_host.Error):
    """Why a call failed. Unless it says otherwise, nothing was changed."""


class Denied(Error):
    """The manifest does not grant this database, or guests may not run such a statement."""

    _text = "denied: {}"


class Invalid(Error):
    """The request makes no sense: several statements, a wrong number of parameters."""

    _text = "invalid: {}"


class Refused(Error):
    """The engine refused the statement. `code` is its SQLSTATE: `23505` for a unique key that is there already."""

    def __init__(self, code: str, message: str, constraint: str | None = None, retryable: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.constraint = constraint
        """The constraint that was violated, where the engine names it."""
        self.retryable = retryable


class Timeout(Error):
    """A time limit was reached, and the transaction was rolled back."""

    _text = "timed out: {}"


class Closed(Error):
    """The transaction or cursor has ended."""

    _text = "the transaction has ended"


class LostFence(Error):
    """A lock that the transaction was begun with was lost, and the transaction was rolled back."""

    _text = "a lock of the transaction was lost"


class OutcomeUnknown(Error):
    """The connection broke during the commit: it happened wholly or not at all, and nobody can tell which. To repeat the work
    is safe only if `mark_processed`, or a key of the caller's own, makes it so."""

    _text = "the connection broke during the commit, its outcome is unknown"


class TooLarge(Error):
    """A statement, parameter, row or result is over its limit."""

    _text = "too large: {}"


class Unavailable(Error):
    """The database cannot be reached just now. Nothing was changed."""

    _text = "unavailable: {}"
    retryable = True


class UnexpectedRow(Error):
    """A row is not what the caller wants it to be. In a transaction of its own the statement took effect all the same."""

    _text = "unexpected row: {}"


class RowCount(Error):
    """One row was wanted; there were so many."""

    _text = "expected one row, got {}"


_KINDS = {kind.__name__: kind for kind in (Denied, Invalid, Timeout, Closed, LostFence, OutcomeUnknown, TooLarge, Unavailable)}


def from_host(value: Any) -> Error:
    what = _host.payload(value)
    if _host.case(value) == "Db":
        return Refused(what.code, what.message, what.constraint, what.retryable)
    return _KINDS.get(_host.case(value), Error)(what)
