"""The smallest handler: `GET /` answers a greeting, everything else 404."""

from wrun_sdk import http


@http.handler
def main(request: http.Request) -> http.Response:
    if request.path == "/" and request.method in ("GET", "HEAD"):
        return http.text("Hello from Python!\n")
    return http.text("Not found\n", 404)
