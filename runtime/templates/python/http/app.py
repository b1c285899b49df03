"""What {{name}} answers."""

from wrun_sdk import http


@http.handler
def main(request: http.Request) -> http.Response:
    match request.method, request.path.split("/")[1:]:
        case "GET", [""]:
            return http.text("Hello from {{name}}!\n")
        case "GET", ["hello", person]:
            return http.text(f"Hello, {person}!\n")
        case _:
            return http.text("Not found\n", 404)
