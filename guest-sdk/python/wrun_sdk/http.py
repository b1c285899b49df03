"""HTTP: whole requests and whole responses.

    @http.handler
    def main(request: http.Request) -> http.Response:
        return http.text("Hello!\\n")

Both bodies are in memory. A handler that streams them uses the interfaces of `wasi:http` as componentize-py generates them.
"""

from __future__ import annotations

import dataclasses
import json as json_module
import sys
import traceback
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Callable, Iterable, Iterator, Mapping
from urllib.parse import parse_qsl, unquote
from uuid import UUID

from . import _host, _wire


class Headers(Mapping[str, str]):
    """Header fields. Their names are the same in lower and upper case, and one can be there several times."""

    def __init__(self, fields: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        self._fields = [(name.lower(), value) for name, value in pairs]

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return values[0]

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._fields))

    def __len__(self) -> int:
        return len(dict(self._fields))

    def __repr__(self) -> str:
        return f"Headers({self._fields!r})"

    def get_all(self, name: str) -> list[str]:
        """Returns every value of this name."""
        return [value for key, value in self._fields if key == name.lower()]

    def pairs(self) -> list[tuple[str, str]]:
        """Returns all names, in lower case, with their values."""
        return list(self._fields)

    def set(self, name: str, value: str) -> None:
        """Sets the only value of this name."""
        self._fields = [pair for pair in self._fields if pair[0] != name.lower()]
        self.add(name, value)

    def add(self, name: str, value: str) -> None:
        """Adds a value, for a name that may have several, such as `set-cookie`."""
        self._fields.append((name.lower(), value))


@dataclass
class Request:
    """A request with its body."""

    method: str = "GET"
    path: str = "/"
    """The path without the query, percent-decoded."""
    query_string: str = ""
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""
    scheme: str = "http"
    authority: str = ""
    """The host, and the port if it is not the usual one."""

    @property
    def query(self) -> dict[str, str]:
        """The first value of each name in the query."""
        pairs = parse_qsl(self.query_string, keep_blank_values=True)
        return dict(reversed(pairs))

    def json(self) -> Any:
        """Reads the body as JSON; `ValueError` says that it is none."""
        return json_module.loads(self.body)

    def text(self) -> str:
        """Reads the body as UTF-8; `ValueError` says that it is none."""
        return self.body.decode()


@dataclass
class Response:
    """A response with its body."""

    body: bytes = b""
    status: int = 200
    headers: Headers = field(default_factory=Headers)


def text(text: str, status: int = 200) -> Response:
    """Returns a response of plain text."""
    return _response(text.encode(), status, "text/plain; charset=utf-8")


def json(value: Any, status: int = 200) -> Response:
    """Returns a response with a value as JSON. What rows and dataclasses hold is written, too: decimals, dates, times and UUIDs
    as text."""
    text = json_module.dumps(value, default=_jsonable, ensure_ascii=False, separators=(",", ":"))
    return _response(text.encode(), status, "application/json")


def _response(body: bytes, status: int, content_type: str) -> Response:
    return Response(body, status, Headers({"content-type": content_type}))


def _jsonable(value: Any) -> Any:
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


Handler = Callable[[Request], Response]


def handler(function: Handler) -> Handler:
    """Makes a function the component's HTTP handler. It is used in the entry module, once.

    The function gets the whole request and returns the whole response. An exception is written to the log and answers 500.
    """

    class IncomingHandler:
        def handle(self, request: Any, out: Any) -> None:
            _answer(function, request, out)

    _host.export("IncomingHandler", IncomingHandler)
    return function


def _answer(function: Handler, incoming: Any, out: Any) -> None:
    try:
        request = _request(incoming)
    except OSError as error:
        response = text(f"{error}\n", 400)
    else:
        response = _respond(function, request)
    _wire.send(out, response.status, response.headers.pairs(), response.body)


def _request(incoming: Any) -> Request:
    method, scheme, authority = _wire.line(incoming)
    path, _, query_string = (incoming.path_with_query() or "/").partition("?")
    fields, body = _wire.fields(incoming), _wire.body(incoming)
    return Request(method, unquote(path), query_string, Headers(fields), body, scheme, authority)


def _respond(function: Handler, request: Request) -> Response:
    try:
        response: object = function(request)
        if isinstance(response, Response):
            return response
        raise TypeError(f"the handler returned {type(response).__name__}, not http.Response")
    except Exception:
        print("failed to answer", file=sys.stderr)
        traceback.print_exc()
        return text("Internal error\n", 500)
