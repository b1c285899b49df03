"""From `wasi:http` to plain values and back."""

from __future__ import annotations

import sys
from typing import Any

from . import _host

_types = _host.interface("imports.wasi_http_types")

_PIECE_LEN = 64 << 10
"""Bytes of a body that are read at a time."""
_BODILESS = (204, 304)


def line(incoming: Any) -> tuple[str, str, str]:
    """Returns the method, the scheme and the authority."""
    scheme = incoming.scheme()
    return _name(incoming.method()), _name(scheme).lower() if scheme else "http", incoming.authority() or ""


def _name(variant: Any) -> str:
    name: str = _host.payload(variant) or _host.case(variant).upper()
    return name


def fields(incoming: Any) -> list[tuple[str, str]]:
    with incoming.headers() as headers:
        return [(name, value.decode("latin-1")) for name, value in headers.entries()]


def body(incoming: Any) -> bytes:
    """Reads a whole body; its size is limited by the host."""
    pieces = []
    with incoming.consume() as body, body.stream() as stream:
        try:
            while True:
                pieces.append(stream.blocking_read(_PIECE_LEN))
        except _host.Err as error:
            if _host.case(error.value) != "Closed":
                raise OSError(error.value.value.to_debug_string()) from None
    return b"".join(pieces)


def send(out: Any, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
    """Sends a response. The host is the judge of it: what it refuses is answered by 500."""
    try:
        response = _head(status, fields, body)
    except (_host.Err, UnicodeEncodeError) as error:
        print(f"failed to answer: status {status} with headers {fields} is refused: {error}", file=sys.stderr)
        response, body = _head(500, [], b""), b""
    outgoing = response.body()
    _types.ResponseOutparam.set(out, _host.Ok(response))
    try:
        with outgoing.write() as stream:
            _write(stream, body)
        _types.OutgoingBody.finish(outgoing, None)
    except _host.Err:
        pass  # A client that went away is not the guest's concern.


def _head(status: int, fields: list[tuple[str, str]], body: bytes) -> Any:
    headers = _types.Fields()
    for name, value in fields:
        headers.append(name, value.encode("latin-1"))
    if status not in _BODILESS and not headers.has("content-length"):
        headers.append("content-length", str(len(body)).encode())
    response = _types.OutgoingResponse(headers)
    response.set_status_code(status)
    return response


def _write(stream: Any, body: bytes) -> None:
    """Writes all of `body`, waiting whenever the host has no room."""
    rest = memoryview(body)
    while rest:
        room = stream.check_write()
        if room == 0:
            with stream.subscribe() as ready:
                ready.block()
            continue
        stream.write(bytes(rest[:room]))
        rest = rest[room:]
    # What is still buffered counts as written only once it is flushed.
    stream.blocking_flush()
