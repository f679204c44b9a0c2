"""Calling servers that may be busy, broken or slow: how many at once, when again, when to give up.

A server says 429 when it has too much to do. The number of calls at once doubles until the first 429, then
grows by one a round and shrinks by a fifth with each round that saw a 429 (additive increase,
multiplicative decrease). Errors of the server and of the network are tried again after growing pauses;
nothing is tried for ever, and a run ends with a message when nothing has worked for a while.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiolimiter import AsyncLimiter

from rpsg.errors import ModelBusy

Answer = TypeVar("Answer")
# Tries of one call that a server or the network failed.
ATTEMPTS = 10
_FIRST_CALLS = 4.0
_DECREASE = 0.8
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
# A server that fails this often in a row is taken to be down once the patience is over.
_FAILURES_TO_STOP = 8
# Failures in a row that one or two calls make by themselves.
_FEW_FAILURES = 2 * ATTEMPTS


class Throttled(Exception):
    """The server has too much to do. `pause` is what it asked for, in seconds."""

    def __init__(self, pause: float | None) -> None:
        super().__init__("throttled")
        self.pause = pause


class Failed(Exception):
    """A try failed in a way that may pass.

    Attributes:
        reason: fit to be shown: it holds nothing of a text.
        is_down: whether the server seems not to be there at all.
    """

    def __init__(self, reason: str, *, is_down: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_down = is_down


# Calls that wait for a place at any server of a pool.
Queue = deque[asyncio.Future[None]]


class AdaptiveLimit:
    """How many calls one server and key gets at once."""

    def __init__(self, most: int, waiting: Queue) -> None:
        self._most = float(most)
        self._limit = min(_FIRST_CALLS, self._most)
        self._is_growing_fast = True
        self._paused_until = 0.0
        self._cut_at = 0.0
        self._waiting = waiting
        self.in_flight = 0

    @property
    def load(self) -> float:
        """The share of what is allowed that is in use."""
        return self.in_flight / self._limit

    @property
    def has_room(self) -> bool:
        """Whether one more call may start."""
        return self.in_flight < int(self._limit) and time.monotonic() >= self._paused_until

    async def wait(self) -> None:
        """Returns when there may be room, here or at another server of the pool."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        await place

    def release(self) -> None:
        """Gives a place back."""
        self.in_flight -= 1
        self._wake()

    def succeeded(self) -> None:
        """Notes a call that the server had room for."""
        self._limit = min(self._most, self._limit + (1 if self._is_growing_fast else 1 / self._limit))

    def throttled(self, started: float, pause: float | None) -> None:
        """Notes a 429; those of calls that were under way together count once."""
        now = time.monotonic()
        self._is_growing_fast = False
        if started >= self._cut_at:
            self._limit = max(1.0, self._limit * _DECREASE)
            self._cut_at = now
        if pause is not None and now + pause > self._paused_until:
            self._paused_until = now + pause
            asyncio.get_running_loop().call_later(pause, self._wake)

    def _wake(self) -> None:
        n_free = int(self._limit) - self.in_flight
        while self._waiting and n_free > 0:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                n_free -= 1


@dataclass(slots=True)
class Breaker:
    """Ends a run whose server is down: nothing has worked for `patience` seconds."""

    patience: float
    n_failures: int = 0
    n_successes: int = 0
    last_success: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Starts the patience anew."""
        self.n_failures, self.last_success = 0, time.monotonic()

    def succeeded(self) -> None:
        """Notes that the server works."""
        self.begin()
        self.n_successes += 1

    def blames_call(self, error: Failed, n_successes: int) -> bool:
        """Tells whether a call keeps failing because of itself, and not because its server is down.

        Args:
            error: its last failure.
            n_successes: calls that had succeeded when it first failed.
        """
        if self.n_successes > n_successes:
            return True
        return not error.is_down and self.n_failures <= _FEW_FAILURES

    def failed(self, reason: str) -> None:
        """Notes a failure.

        Raises:
            ModelBusy: the server is taken to be down.
        """
        self.n_failures += 1
        silent = time.monotonic() - self.last_success
        if self.n_failures >= _FAILURES_TO_STOP and silent >= self.patience:
            raise ModelBusy(
                f"the model server has not answered for {silent:.0f} s ({self.n_failures} failures in a row, "
                f"the last: {reason}). Every finished call is kept; resume the run when the server works"
            )


class Lane:
    """One server and key: its share of the calls and the budgets of its account."""

    def __init__(
        self,
        *,
        max_concurrency: int,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        waiting: Queue,
    ) -> None:
        self.limit = AdaptiveLimit(max_concurrency, waiting)
        self._n_failures = 0
        self._avoided_until = 0.0
        self._requests = _budget(requests_per_minute)
        self._tokens = _budget(tokens_per_minute)

    @property
    def is_avoided(self) -> bool:
        """Whether it just failed, or is being tried again with one call."""
        return time.monotonic() < self._avoided_until or (self.keeps_failing and self.limit.in_flight > 0)

    @property
    def keeps_failing(self) -> bool:
        """Whether more than one call in a row failed here."""
        return self._n_failures > 1

    def failed(self) -> None:
        """Notes a failure that was not the call's."""
        self._n_failures += 1
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._n_failures, 20))
        self._avoided_until = time.monotonic() + longest

    def succeeded(self) -> None:
        """Notes that it works."""
        self._n_failures, self._avoided_until = 0, 0.0
        self.limit.succeeded()

    @property
    def has_budget(self) -> bool:
        """Whether its account may make so many calls or tokens a minute only."""
        return self._requests is not None or self._tokens is not None

    async def within_budget(self, n_tokens: int) -> None:
        """Waits for the account's budgets."""
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is not None:
            await self._tokens.acquire(min(n_tokens, self._tokens.max_rate))


def _budget(per_minute: int | None) -> AsyncLimiter | None:
    # Spread over the minute: servers count in shorter windows too.
    if per_minute is None:
        return None
    window = max(1.0, 60.0 / per_minute)
    return AsyncLimiter(per_minute * window / 60.0, window)


async def _take_place(lanes: Sequence[Lane]) -> int:
    """Waits until a server has room and takes a place there; returns the number of the least busy.

    A call waits for all of them, so that none waits at a server that hangs. One that failed has to wait
    while another does not; when its time is over, it is tried with one call.
    """
    while True:
        usable = [i for i, lane in enumerate(lanes) if not lane.is_avoided] or range(len(lanes))
        free = [i for i in usable if lanes[i].limit.has_room]
        if free:
            number = min(free, key=lambda i: lanes[i].limit.load)
            lanes[number].limit.in_flight += 1
            return number
        await lanes[0].limit.wait()


async def call_with_patience(
    attempt: Callable[[int], Awaitable[Answer]],
    *,
    lanes: Sequence[Lane],
    breaker: Breaker,
    n_tokens: int,
    give_up: Callable[[str], Answer],
    ended: asyncio.Event,
) -> Answer:
    """Calls one of several servers until it answers.

    Args:
        attempt: makes the call; given the number of the lane. Raises `Throttled` or `Failed` when it may
            be tried again.
        lanes: the servers; the least busy one is taken.
        breaker: shared by all calls.
        n_tokens: estimate of the call's size, for budgets.
        give_up: makes the answer of a call that failed `ATTEMPTS` times though the server works. A call
            that fails because the server is down goes on until the breaker ends the run: a text must not
            be given up for that.
        ended: set when the run has ended: nothing is waited for any more.

    Raises:
        ModelBusy: no call has succeeded for too long.
    """
    n_failed = n_throttled = n_successes = 0
    while True:
        number = await _take_place(lanes)
        lane, started = lanes[number], time.monotonic()
        try:
            if lane.has_budget:
                await _unless(ended, lane.within_budget(n_tokens))
            started = time.monotonic()
            answer = await attempt(number)
        except Throttled as error:
            n_throttled += 1
            lane.limit.throttled(started, error.pause)
            breaker.failed("429 too many requests")
            # A server that says "at once" again and again is not called faster than one that says nothing.
            pause = 0.0 if error.pause else _pause(n_throttled)
        except Failed as error:
            lane.failed()
            breaker.failed(error.reason)
            if lane.keeps_failing and not all(other.keeps_failing for other in lanes):
                # The server's fault, while another works: it says nothing of this call.
                await _unless(ended, asyncio.sleep(_FIRST_PAUSE * random.random()))
                continue
            n_successes = n_successes if n_failed else breaker.n_successes
            n_failed += 1
            if n_failed >= ATTEMPTS and breaker.blames_call(error, n_successes):
                return give_up(error.reason)
            pause = _pause(n_failed)
        else:
            lane.succeeded()
            breaker.succeeded()
            return answer
        finally:
            lane.limit.release()
        await _unless(ended, asyncio.sleep(pause))


async def _unless(ended: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Waits for work, or until the run has ended."""
    both = [asyncio.ensure_future(work), asyncio.ensure_future(ended.wait())]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for item in both:
            item.cancel()


def _pause(n_failures: int) -> float:
    # Full jitter: calls that failed together do not come back together.
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(n_failures - 1, 20))
    return random.uniform(0.1, 1.0) * longest
