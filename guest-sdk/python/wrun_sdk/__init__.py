"""What a guest of wrun needs: shared state and entry points.

A guest is a component. For each request, and for each batch of messages, it runs in a fresh instance whose memory ends
with it. What is to outlast that lives behind a `lock`, in a database (`db`) or in a `queue`; the server's `wrun.toml` grants
them by their labels.

    from wrun_sdk import db, http

    @http.handler
    def main(request: http.Request) -> http.Response:
        visits = db.open("default").transaction(count)
        return http.text(f"visit {visits}\\n")

    def count(tx: db.Transaction) -> int:
        tx.execute("UPDATE counters SET n = n + 1 WHERE name = $1", "visits")
        return tx.query_one("SELECT n FROM counters WHERE name = $1", "visits", into=int)

Everywhere a duration is a number of seconds or a `timedelta`.

On ordinary Python the package can be imported, so that a guest's own logic can be tested there, but every call to the host
raises `NoHost`.
"""

from . import db, http, lock, queue
from ._host import Error, NoHost

__all__ = ["Error", "NoHost", "db", "http", "lock", "queue"]
