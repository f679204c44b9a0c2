"""A review served in a thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from rpsg.review.server import ReviewServer
from rpsg.review.session import open_review


@contextmanager
def serving(folder: Path, *, public: bool = False) -> Iterator[ReviewServer]:
    server = ReviewServer.on_port(lambda: open_review(folder, public=public), 0)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
