"""The code in docs/guide-python.md."""

import re
import unittest
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

from . import fake_host  # noqa: F401
from wrun_sdk import db, http, queue

GUIDE = Path(__file__).parents[3] / "docs/guide-python.md"


def example(defines: str) -> dict[str, Any]:
    """Runs the block of code that defines this function, and returns what is in it."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (code,) = (block for block in blocks if f"def {defines}(" in block)
    contents: dict[str, Any] = {"__name__": "guide"}
    exec(compile(code, str(GUIDE), "exec"), contents)
    return contents


def database() -> Any:
    """Returns a database whose transactions call their function."""
    database = MagicMock()
    database.transaction.side_effect = lambda work, **_: work(database.tx)
    return database


class Guide(unittest.TestCase):
    def test_requests(self) -> None:
        main = example("main")["main"]
        self.assertEqual(main(http.Request()).body, b"Hello!\n")
        greeting = http.Request("GET", "/hello/Ada", "lang=de")
        self.assertEqual(main(greeting).body, b'{"hello":"Ada","lang":"de"}')
        echoed = main(http.Request("POST", "/echo", body=b"a"))
        self.assertEqual((echoed.status, echoed.body), (201, b"a"))
        self.assertEqual(echoed.headers["content-type"], "text/plain")

    @patch("wrun_sdk.db.open", new_callable=database)
    def test_transactions(self, open: Any) -> None:
        open.return_value = open
        open.tx.query_one.return_value = 0
        self.assertFalse(example("buy")["buy"]("lamp"))
        open.tx.query_one.return_value = 1
        self.assertTrue(example("buy")["buy"]("lamp"))
        open.tx.execute.assert_called_once()
        example("move")["move"](10)
        self.assertEqual(open.begin().__enter__().execute.call_count, 2)

    @patch("wrun_sdk.lock.acquire")
    @patch("wrun_sdk.db.open", new_callable=database)
    def test_rows_and_locks(self, open: Any, acquire: Any) -> None:
        open.return_value = open
        example("look")["look"](open)
        self.assertEqual(open.query.call_count, 2)
        open.query_one.return_value = 3
        example("restock")["restock"]("lamp", 4)
        self.assertEqual(open.tx.execute.call_args.args[1:], (7, "lamp"))
        self.assertEqual(open.transaction.call_args.kwargs, {"fences": [acquire().__enter__()]})

    @patch("wrun_sdk.queue.open")
    @patch("wrun_sdk.db.open", new_callable=database)
    def test_queues(self, open: Any, orders: Any) -> None:
        open.return_value = open
        open.tx.execute.return_value.last_id = 7
        guide = example("place")
        guide["place"]({"item": "lamp"})
        orders().send_in.assert_called_once_with(open.tx, {"id": 7}, key="alice", delay=60)
        guide["handle"](queue.Delivery("1", b'{"id":7}'))
        self.assertEqual(open.tx.execute.call_args.args[1], 7)
        with self.assertRaises(queue.Dead):
            guide["handle"](queue.Delivery("1", b"{}"))

    @patch("wrun_sdk.db.open", new_callable=database)
    def test_errors(self, open: Any) -> None:
        open.return_value = open
        register = example("register")["register"]
        self.assertEqual(register("ada").status, 201)
        open.execute.side_effect = db.Refused("23505", "…")
        self.assertEqual(register("ada").status, 409)


if __name__ == "__main__":
    unittest.main()
