"""An event loop in a thread of its own: async inside, synchronous outside, also in a notebook."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future, wait
from typing import Any, TypeVar

Result = TypeVar("Result")
_CLEAN_UP_SECONDS = 10.0


class BackgroundLoop:
    """Runs coroutines one after another for a synchronous caller."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rpsg calls", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Waits for the result. Ctrl-C cancels the work, waits until it has cleaned up, and goes on up."""
        # Not run_coroutine_threadsafe: its future counts as done as soon as it is cancelled, while the work
        # still writes what was paid for.
        ended: Future[Result] = Future()
        begun: list[asyncio.Task[Result]] = []

        def begin() -> None:
            task = self._loop.create_task(work)
            begun.append(task)
            task.add_done_callback(lambda done: _pass_on(done, ended))

        def stop() -> None:
            for task in begun:
                task.cancel()

        try:
            self._loop.call_soon_threadsafe(begin)
            return ended.result()
        except BaseException:
            if not ended.done():
                self._loop.call_soon_threadsafe(stop)
                wait([ended], timeout=_CLEAN_UP_SECONDS)
            raise

    def close(self) -> None:
        """Stops the thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)
            self._loop.close()


def _pass_on(done: asyncio.Task[Result], ended: "Future[Result]") -> None:
    if done.cancelled():
        ended.set_exception(CancelledError())
    elif (error := done.exception()) is not None:
        ended.set_exception(error)
    else:
        ended.set_result(done.result())
