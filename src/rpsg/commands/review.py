"""`rpsg review`: read what was made, and accept or reject it."""

import shlex
import signal
from typing import Annotated

import typer

from rpsg.commands.runs import RunFolder


def review(
    folder: RunFolder,
    public: Annotated[
        bool, typer.Option("--public", help="Show synthetic texts only; keeps a guarantee.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; default: any free one.")] = 0,
) -> None:
    """Serve a page, to you alone, on which texts are accepted or rejected; `rpsg release` applies it."""
    from rpsg.review.server import ReviewServer
    from rpsg.review.session import open_review

    server = ReviewServer.on_port(lambda: open_review(folder, public=public), port)
    review = server.review
    # Also in a shell's background, where Ctrl-C is ignored from the start, and when it is told to end.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.default_int_handler)
    try:
        typer.echo(f"Open once, in a browser here:\n  {server.url}\nCtrl-C ends it and closes the page.")
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        typer.echo()
    finally:
        server.server_close()
    current = review.trail.current().values()
    n_rejected = sum(item.verdict == "reject" for item in current)
    typer.echo(
        f"{len(current)} of {len(review.texts)} texts decided, {n_rejected} rejected. "
        f"Apply it with: rpsg release {shlex.quote(str(folder))}"
    )
