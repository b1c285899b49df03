"""A Python handler of wasi:http 0.3: `GET /` greets, `POST /echo` streams the body back."""

import componentize_py_async_support
import wit_world
from componentize_py_async_support.futures import FutureReader
from componentize_py_async_support.streams import ByteStreamReader, ByteStreamWriter
from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.wasi_http_types import (
    Fields,
    Method_Get,
    Method_Post,
    Request,
    Response,
)

PIECE_LEN_MAX = 64 * 1024


class Handler(exports.Handler):
    async def handle(self, request: Request) -> Response:
        path = (request.get_path_with_query() or "").split("?")[0]
        method = request.get_method()
        if path == "/" and isinstance(method, Method_Get):
            return text(200, b"Hello from Python 0.3!\n")
        if path == "/echo" and isinstance(method, Method_Post):
            return echo(request)
        return text(404, b"Not found\n")


def text(status: int, body: bytes) -> Response:
    writer, reader = wit_world.byte_stream()
    componentize_py_async_support.spawn(write(writer, body))
    return respond(status, reader, trailers())


def echo(request: Request) -> Response:
    _, handled = wit_world.result_unit_wasi_http_types_error_code_future(lambda: Ok(None))
    source, source_trailers = Request.consume_body(request, handled)
    writer, reader = wit_world.byte_stream()
    componentize_py_async_support.spawn(copy(source, writer))
    return respond(200, reader, source_trailers)


def respond(status: int, body: ByteStreamReader, end: FutureReader) -> Response:
    headers = Fields.from_list([("content-type", b"text/plain")])
    response, _ = Response.new(headers, body, end)
    response.set_status_code(status)
    return response


def trailers() -> FutureReader:
    future = wit_world.result_option_wasi_http_types_fields_wasi_http_types_error_code_future
    return future(lambda: Ok(None))[1]


async def write(writer: ByteStreamWriter, body: bytes) -> None:
    with writer:
        await writer.write_all(body)


async def copy(source: ByteStreamReader, writer: ByteStreamWriter) -> None:
    with source, writer:
        while not source.writer_dropped:
            piece = await source.read(PIECE_LEN_MAX)
            await writer.write_all(piece)
