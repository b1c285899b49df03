"""An application of WSGI behind the adapter, with the standard library's checks in between."""

import unittest
from typing import Any, Callable, Iterable
from wsgiref.validate import validator

from . import fake_host  # noqa: F401
from wrun_sdk import http, wsgi


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    names = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT", "HTTP_X_MINE")
    seen = " ".join(environ[name] for name in names)
    start_response("201 Created", [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    return [seen.encode("latin-1"), b" ", body]


class Adapting(unittest.TestCase):
    def test_application_sees_the_request_and_answers(self) -> None:
        headers = http.Headers([("X-Mine", "1"), ("x-mine", "2")])
        request = http.Request("POST", "/größe", "a=b", headers, b"body", "https", "shop.example:8443")
        response = wsgi.adapt(validator(app))(request)
        self.assertEqual(response.status, 201)
        self.assertEqual(response.body.decode(), "POST /größe a=b shop.example 8443 1, 2 body")
        self.assertEqual(response.headers.get_all("set-cookie"), ["a=1", "b=2"])

    def test_port_is_the_usual_one_if_none_is_told(self) -> None:
        response = wsgi.adapt(app)(http.Request(authority="shop.example", headers=http.Headers({"x-mine": ""})))
        self.assertIn(b"shop.example 80", response.body)


if __name__ == "__main__":
    unittest.main()
