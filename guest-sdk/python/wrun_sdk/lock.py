"""Locks: mutual exclusion between guests, whichever worker process they run in.

A lock is a key in a space; the space `default` is the one that `acquire` uses. Who holds a lock is exact as long as the state
process lives. Across a pause or a restart only the fencing token is: give the guard to a transaction, which commits only if
it is still held.

    with lock.acquire("stock:1", wait=2.0) as guard:
        db.open("default").transaction(sell, fences=[guard])
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from . import _host, _millis
from ._millis import Duration

_wit = _host.interface("imports.wrun_lock")


def acquire(
    *keys: str,
    wait: Duration | None = None,
    ttl: Duration | None = None,
    renew: bool | None = None,
) -> Guard:
    """Takes locks of the space `default`: see `Space.acquire`."""
    return space("default").acquire(*keys, wait=wait, ttl=ttl, renew=renew)


def space(label: str) -> Space:
    """Opens a space of keys that the manifest grants under this label in `[locks]`."""
    return Space(_host.call(_error, _wit.Space.open, label))


class Space:
    """A space of keys."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def acquire(
        self,
        *keys: str,
        wait: Duration | None = None,
        ttl: Duration | None = None,
        renew: bool | None = None,
    ) -> Guard:
        """Takes all of the keys, or none. The host sorts them, so callers that want the same ones cannot block each other.

        `wait` is how long to wait for them: 0 tries once; 10 seconds by default, 10 minutes at most. `ttl` is how long they
        hold without a sign of life of this worker: 30 seconds by default, 100 ms to a day. With `renew=False` the host does
        not prolong them: they are lost once `ttl` is over, unless the guard is extended.
        """
        options = _wit.Options(_millis.short(wait), _millis.short(ttl), renew)
        return Guard(_host.call(_error, self._raw.acquire, list(keys), options))


class Guard:
    """Locks that are held together. Leaving the `with` block releases them."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._released = False

    @property
    def token(self) -> int:
        """The fencing token: for each of the keys greater than every one that was ever granted for it."""
        token: int = self._raw.token()
        return token

    def is_held(self) -> bool:
        """Tells whether the locks are still held, as far as the host knows. False is final."""
        held: bool = self._raw.is_held()
        return held

    def extend(self, ttl: Duration) -> None:
        """Makes the locks hold for `ttl` from now."""
        _host.call(_error, self._raw.extend, _millis.short(ttl))

    def release(self) -> None:
        """Releases the locks. `Lost` means that they did not hold until now: what was done under them was not exclusive."""
        self._released = True
        _host.call(_error, self._raw.release)

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._released:
            return
        try:
            self.release()
        except Error:
            # An error that is on its way already says more.
            if error is None:
                raise


class Error(_host.Error):
    """Why a lock could not be taken, kept or released."""


class Denied(Error):
    """The manifest does not grant this space."""

    _text = "lock space denied: {}"


class Invalid(Error):
    """The request makes no sense: a key that is empty or too long, a time out of range."""

    _text = "invalid lock: {}"


class Timeout(Error):
    """A key stayed taken for as long as the caller would wait."""

    _text = "timed out waiting for a lock"


class Lost(Error):
    """The locks are not held any more."""

    _text = "the lock was lost"


class WouldDeadlock(Error):
    """Waiting would never end: this instance holds a key already, or its holder waits for this instance."""

    _text = "waiting for this lock would never end"


class Limit(Error):
    """Too many locks, or too many that wait for one."""

    _text = "limit of locks reached: {}"


class Unavailable(Error):
    """The state process cannot be reached. Trying again later may succeed."""

    _text = "locks are unavailable: {}"
    retryable = True


_KINDS = {kind.__name__: kind for kind in (Denied, Invalid, Timeout, Lost, WouldDeadlock, Limit, Unavailable)}


def _error(value: Any) -> Error:
    return _KINDS.get(_host.case(value), Error)(_host.payload(value))
