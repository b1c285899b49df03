"""Requests and responses, as far as they need no host."""

import contextlib
import io
import unittest
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal

from . import fake_host  # noqa: F401
from wrun_sdk import http


@dataclass
class Order:
    id: int
    price: Decimal


class Headers(unittest.TestCase):
    def test_names_are_the_same_in_any_case(self) -> None:
        headers = http.Headers({"Content-Type": "text/plain"})
        self.assertEqual(headers["content-type"], "text/plain")
        self.assertEqual(headers.get("CONTENT-TYPE"), "text/plain")
        self.assertNotIn("x", headers)

    def test_name_can_be_there_several_times(self) -> None:
        headers = http.Headers([("A", "1"), ("a", "2")])
        headers.add("b", "3")
        self.assertEqual((headers["a"], headers.get_all("A"), len(headers)), ("1", ["1", "2"], 2))
        headers.set("A", "4")
        self.assertEqual(headers.pairs(), [("b", "3"), ("a", "4")])


class Requests(unittest.TestCase):
    def test_query_is_decoded(self) -> None:
        request = http.Request(query_string="a=b%20c&a=d&e=")
        self.assertEqual(request.query, {"a": "b c", "e": ""})

    def test_body_that_is_no_json_or_text_is_a_value_error(self) -> None:
        with self.assertRaises(ValueError):
            http.Request(body=b"{").json()
        with self.assertRaises(ValueError):
            http.Request(body=b"\xff").text()


class Responses(unittest.TestCase):
    def test_json_holds_what_rows_hold(self) -> None:
        noon = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
        response = http.json({"at": noon, "order": Order(1, Decimal("2.50"))}, 201)
        self.assertEqual(response.body, b'{"at":"2024-01-01T12:00:00+00:00","order":{"id":1,"price":"2.50"}}')
        self.assertEqual((response.status, response.headers["content-type"]), (201, "application/json"))

    def test_what_is_no_json_is_refused(self) -> None:
        with self.assertRaises(TypeError):
            http.json({"a": b""})

    def test_function_that_forgets_to_answer_is_told_apart(self) -> None:
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            response = http._respond(lambda request: None, http.Request())  # type: ignore[arg-type, return-value]
        self.assertEqual((response.status, response.body), (500, b"Internal error\n"))
        self.assertIn("the handler returned NoneType, not http.Response", stderr.getvalue())


if __name__ == "__main__":
    unittest.main()
