"""Queues: messages for later, handled at least once by a `consumer`.

    orders = queue.open("orders")
    orders.send({"id": 1})
    orders.send({"id": 2}, key="alice", dedup_id="order-2", delay=60)

A message that belongs to a change in a database is sent in its transaction, by `send_in`: then both happen, or neither.
"""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Iterable, Mapping

from . import _host, _millis
from ._millis import Duration
from .db import Transaction

_wit = _host.interface("imports.wrun_queue")
_consumer = _host.interface("exports.consumer")

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def open(label: str) -> Queue:
    """Opens a queue that the manifest grants under this label in `[queues]`."""
    return Queue(_host.call(_error, _wit.Queue.open, label))


def send(label: str, body: Any) -> str:
    """Sends a message to the queue with this label: see `Queue.send`."""
    return open(label).send(body)


@dataclass
class Message:
    """A message to be sent. Bytes are sent as they are, everything else as JSON; at most 1 MiB."""

    body: Any
    key: str | None = None
    """Messages of one queue with the same key are handled one at a time, in the order in which they were sent."""
    dedup_id: str | None = None
    """If the queue was sent a message with this id within the last 5 minutes, this one is not taken, and its sender gets the
    id of the first."""
    delay: Duration | None = None
    """How long to wait before it is handled: at most 30 days."""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def _raw(self) -> Any:
        body, content_type = self.body, self.content_type
        if not isinstance(body, (bytes, bytearray, memoryview)):
            body = json.dumps(body, ensure_ascii=False).encode()
            content_type = content_type or "application/json"
        delay = None if self.delay is None else _millis.whole(self.delay)
        headers = list(self.headers.items())
        return _wit.Message(bytes(body), content_type, headers, self.key, self.dedup_id, delay)


class Queue:
    """A queue."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def send(
        self,
        body: Any,
        *,
        key: str | None = None,
        dedup_id: str | None = None,
        delay: Duration | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Sends a message, as `Message` says, and returns its id; by then it is durable."""
        return self.send_all([Message(body, key, dedup_id, delay, content_type, headers or {})])[0]

    def send_all(self, messages: Iterable[Message]) -> list[str]:
        """Sends messages, all or none, and returns their ids; by then they are durable."""
        return _host.call(_error, self._raw.send, [message._raw() for message in messages])

    def send_in(
        self,
        tx: Transaction,
        body: Any,
        *,
        key: str | None = None,
        dedup_id: str | None = None,
        delay: Duration | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Sends a message as part of a transaction: it is there if and when that commits. The queue lives in the database of
        the transaction, or is bound to a server."""
        return self.send_all_in(tx, [Message(body, key, dedup_id, delay, content_type, headers or {})])[0]

    def send_all_in(self, tx: Transaction, messages: Iterable[Message]) -> list[str]:
        """Sends messages as part of a transaction: they are there if and when it commits."""
        try:
            return _host.call(_error, self._raw.send_in, tx._raw, [message._raw() for message in messages])
        except Error as error:
            tx._note(error)
            raise


@dataclass
class Delivery:
    """One try at handling a message."""

    id: str
    """The same in every try, so it can be passed to `mark_processed`."""
    body: bytes
    queue: str = ""
    """The queue's label."""
    key: str | None = None
    attempt: int = 1
    """Which try this is, from 1."""
    max_attempts: int = 1
    """After how many tries it goes to the dead letters."""
    sent_at: datetime = _EPOCH
    deadline: datetime = _EPOCH
    """When the try is over: after that the message may be handled by somebody else."""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """Reads the content as JSON."""
        return json.loads(self.body)

    def is_last_attempt(self) -> bool:
        """Tells whether this is the last try: after it the message goes to the dead letters."""
        return self.attempt >= self.max_attempts

    def extend(self, time: Duration) -> None:
        """Gives this try `time` from now, at most 12 hours: for work that takes longer than the queue's
        `visibility-timeout`."""
        _host.call(_error, _wit.extend, self.id, _millis.short(time))


class Retry(Exception):
    """Raised by a consumer: not handled. The message comes again after this time, or after the queue's backoff. After its
    last attempt it goes to the dead letters."""

    def __init__(self, after: Duration | None = None) -> None:
        super().__init__("the message is to come again")
        self.after = after


class Dead(Exception):
    """Raised by a consumer: the message can never be handled. It goes to the dead letters, with this reason."""


def consumer(function: Callable[[Delivery], object]) -> Callable[[Delivery], object]:
    """Makes a function the component's handler of messages. It is used in the entry module, once.

    The function is called for each message of the queues under `[consumers]` in `wrun.toml`. When it returns, the message is
    handled. `Retry` and `Dead` say otherwise; any other exception is written to the log, and the message comes again.

    Messages come at least once: what handling one changes in a database belongs in one transaction with `mark_processed`, so
    that it happens once.
    """

    class Consumer:
        def handle(self, batch: list[Any]) -> list[Any]:
            return [_outcome(function, _delivery(raw)) for raw in batch]

    _host.export("Consumer", Consumer)
    return function


def _outcome(function: Callable[[Delivery], object], delivery: Delivery) -> Any:
    try:
        returned = function(delivery)
        if isinstance(returned, (Retry, Dead)):
            raise returned
    except Retry as retry:
        return _consumer.Outcome_Retry(None if retry.after is None else _millis.whole(retry.after))
    except Dead as dead:
        return _consumer.Outcome_Dead(str(dead))
    except Exception:
        print(f"failed to handle message {delivery.id}", file=sys.stderr)
        traceback.print_exc()
        return _consumer.Outcome_Retry(None)
    return _consumer.Outcome_Ack()


def _delivery(raw: Any) -> Delivery:
    return Delivery(
        id=raw.id,
        body=raw.body,
        queue=raw.queue,
        key=raw.key,
        attempt=raw.attempt,
        max_attempts=raw.max_attempts,
        sent_at=_EPOCH + timedelta(milliseconds=raw.sent_at_ms),
        deadline=_EPOCH + timedelta(milliseconds=raw.deadline_ms),
        content_type=raw.content_type,
        headers=dict(raw.headers),
    )


class Error(_host.Error):
    """Why a message was not taken. Unless it says otherwise, none of those sent together was."""


class Denied(Error):
    """The manifest does not grant this queue."""

    _text = "queue denied: {}"


class Invalid(Error):
    """The request makes no sense: no message, too many, a queue of another database than the transaction's."""

    _text = "invalid message: {}"


class Full(Error):
    """The queue holds as many messages as it may."""

    _text = "the queue is full"


class TooLarge(Error):
    """A message is over its limit."""

    _text = "message too large: {}"


class Closed(Error):
    """The transaction has ended."""

    _text = "the transaction has ended"


class OutcomeUnknown(Error):
    """The connection broke after the messages were sent: nobody can tell whether they were taken. A `dedup_id` makes it
    safe to send them again."""

    _text = "the connection broke, nobody can tell whether the message was taken"


class NotYours(Error):
    """The delivery is not this instance's, or not any more."""

    _text = "the delivery is somebody else's, or over"


class Refused(Error):
    """The engine refused. `code` is its SQLSTATE."""

    def __init__(self, code_and_message: tuple[str, str]) -> None:
        self.code, self.message = code_and_message
        super().__init__(f"{self.code}: {self.message}")


class Unavailable(Error):
    """The queue cannot be reached just now. Nothing was taken."""

    _text = "the queue is unavailable: {}"
    retryable = True


_KINDS: dict[str, Callable[[Any], Error]] = {
    kind.__name__: kind for kind in (Denied, Invalid, Full, TooLarge, Closed, OutcomeUnknown, NotYours, Refused, Unavailable)
}


def _error(value: Any) -> Error:
    return _KINDS.get(_host.case(value), Error)(_host.payload(value))
