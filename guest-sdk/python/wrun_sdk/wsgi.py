"""Applications of WSGI, such as those of Flask, as handlers.

app = Flask(__name__)
main = http.handler(wsgi.adapt(app))
"""

from __future__ import annotations

# Frameworks look it up when the first request comes. By then nothing can be imported any more.
import encodings.idna  # noqa: F401
import io
import sys
from typing import Any, Callable, Iterable

from .http import Handler, Headers, Request, Response


def adapt(app: Callable[..., Iterable[bytes]]) -> Handler:
    """Returns a handler that has the application answer."""

    def handle(request: Request) -> Response:
        response = Response()
        written: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
            response.status = int(status.split(" ", 1)[0])
            response.headers = Headers(headers)
            return written.append

        pieces = app(_environ(request), start_response)
        try:
            written.extend(pieces)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        response.body = b"".join(written)
        return response

    return handle


def _environ(request: Request) -> dict[str, Any]:
    host, _, port = request.authority.rpartition(":")
    if not host or not port.isdecimal():
        host, port = request.authority, "443" if request.scheme == "https" else "80"
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        # Bytes as latin-1: so WSGI wants it.
        "PATH_INFO": request.path.encode().decode("latin-1"),
        "QUERY_STRING": request.query_string,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(request.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": True,
    }
    for name in request.headers:
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = ", ".join(request.headers.get_all(name))
    return environ
