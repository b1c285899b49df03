"""Durations as the host takes them: whole milliseconds. Rounded up, because a short time must not become none."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Union

Duration = Union[int, float, timedelta]
"""A number of seconds, or a `timedelta`."""

_U32_MAX = 2**32 - 1


def whole(duration: Duration) -> int:
    if isinstance(duration, timedelta):
        microseconds = duration // timedelta(microseconds=1)
    elif math.isfinite(duration):
        microseconds = round(duration * 1_000_000)
    else:
        raise ValueError("a duration is a finite number of seconds")
    if microseconds < 0:
        raise ValueError("a duration is not negative")
    return -(-microseconds // 1000)


def short(duration: Duration | None) -> int | None:
    """Returns what fits: a longer time is one that the host refuses."""
    return None if duration is None else min(whole(duration), _U32_MAX)
