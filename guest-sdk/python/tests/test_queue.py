"""Messages and deliveries, with the host replaced."""

import contextlib
import io
import unittest
from datetime import datetime, timezone
from unittest.mock import Mock

from . import fake_host
from .fake_host import Err
from wrun_sdk import queue


def outcomes(function: object, *bodies: bytes) -> list[object]:
    """Has a consumer handle a batch."""
    queue.consumer(function)  # type: ignore[arg-type]
    batch = [
        fake_host.consumer.Delivery(str(n), "jobs", None, 2, 3, 1000, 2000, None, [("a", "b")], body)
        for n, body in enumerate(bodies)
    ]
    # What componentize-py looks for is where the decorator was used: here.
    with contextlib.redirect_stderr(io.StringIO()):
        result: list[object] = globals()["Consumer"]().handle(batch)
    return result


class Sending(unittest.TestCase):
    def setUp(self) -> None:
        self.raw = Mock()
        self.raw.send.return_value = ["id"]
        self.queue = queue.Queue(self.raw)

    def sent(self) -> object:
        return self.raw.send.call_args.args[0][0]

    def test_value_is_sent_as_json(self) -> None:
        self.assertEqual(self.queue.send({"a": "ü"}, key="k", dedup_id="d", delay=1.5, headers={"h": "v"}), "id")
        expected = fake_host.queue.Message('{"a": "ü"}'.encode(), "application/json", [("h", "v")], "k", "d", 1500)
        self.assertEqual(self.sent(), expected)

    def test_bytes_are_sent_as_they_are(self) -> None:
        self.queue.send(b"\x00")
        self.assertEqual(self.sent(), fake_host.queue.Message(b"\x00", None, [], None, None, None))

    def test_errors_have_their_types(self) -> None:
        self.raw.send.side_effect = Err(fake_host.queue.Error_Refused(("53100", "disk full")))
        with self.assertRaises(queue.Refused) as raised:
            self.queue.send(1)
        self.assertEqual((raised.exception.code, str(raised.exception)), ("53100", "53100: disk full"))
        self.raw.send.side_effect = Err(fake_host.queue.Error_Full())
        with self.assertRaisesRegex(queue.Full, "the queue is full"):
            self.queue.send(1)


class Handling(unittest.TestCase):
    def test_outcome_is_how_the_function_ends(self) -> None:
        def handle(delivery: queue.Delivery) -> object:
            match delivery.json():
                case "retry":
                    raise queue.Retry(after=0.5)
                case "later":
                    return queue.Retry()
                case "dead":
                    raise queue.Dead("why")
                case "fail":
                    raise LookupError
            return None

        retry, dead = fake_host.consumer.Outcome_Retry, fake_host.consumer.Outcome_Dead
        self.assertEqual(
            outcomes(handle, b'"ok"', b'"retry"', b'"later"', b'"dead"', b'"fail"', b"{"),
            [fake_host.consumer.Outcome_Ack(), retry(500), retry(None), dead("why"), retry(None), retry(None)],
        )

    def test_delivery_is_whole(self) -> None:
        seen: list[queue.Delivery] = []
        outcomes(seen.append, b"[1]")
        only = seen[0]
        self.assertEqual((only.id, only.queue, only.json(), only.headers), ("0", "jobs", [1], {"a": "b"}))
        self.assertEqual(only.sent_at, datetime(1970, 1, 1, 0, 0, 1, tzinfo=timezone.utc))
        self.assertFalse(only.is_last_attempt())
        self.assertTrue(queue.Delivery("1", b"", attempt=3, max_attempts=3).is_last_attempt())


if __name__ == "__main__":
    unittest.main()
