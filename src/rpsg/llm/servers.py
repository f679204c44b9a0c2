"""The servers of one endpoint and how they are called; see `rpsg.llm.calling` for when again."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import parsedate_to_datetime
from itertools import chain
from time import time
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from httpx2 import AsyncByteStream, ReadError

from rpsg.endpoints import CallingConfig, EndpointConfig
from rpsg.errors import ModelBusy, ModelError, ModelUnavailable
from rpsg.llm.background import BackgroundLoop
from rpsg.llm.calling import Breaker, Failed, Lane, Queue, Throttled, call_with_patience
from rpsg.types import CallSink, Completion

if TYPE_CHECKING:
    from httpx2 import Response
    from openai import APIStatusError, AsyncOpenAI

Answer = TypeVar("Answer")
_REFUSALS_TO_STOP = 5
# The HTTP library looks at every connection that a client has before each request: a few clients with few
# connections are quicker than one with many.
_CALLS_A_CLIENT = 8
_ABOUT_US = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version")
# Of one answer; a batch of a few ten thousand replies is the largest.
_MOST_BYTES = 512_000_000


class Servers:
    """The servers and keys of one endpoint, and how they are called. Keys show nowhere."""

    def __init__(self, model: str, endpoint: EndpointConfig, calling: CallingConfig) -> None:
        self.model = model
        self._endpoint = endpoint
        self._pairs = [(url, key) for url in endpoint.base_url for key in endpoint.read_keys()]
        self._calling = calling
        self._clients: list[list[AsyncOpenAI]] = []
        self._turn = 0
        self._lanes: list[Lane] = []
        self._loop: BackgroundLoop | None = None
        self._breaker = Breaker(endpoint.patience_seconds)
        self._n_answers = self._n_refusals = 0
        self._stopped: list[BaseException] = []
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"Servers({self.model!r}, {', '.join(self._endpoint.hosts)})"

    @property
    def timeout_seconds(self) -> float:
        """Longest time of one try."""
        return self._endpoint.timeout_seconds

    def host(self, lane: int) -> str:
        """Returns the host name behind a lane."""
        return urlsplit(self._pairs[lane][0]).hostname or ""

    def run(self, answer: Callable[[int], Awaitable[Completion]], n: int, sink: CallSink) -> None:
        """Answers requests 0 to n - 1 and hands the replies to the sink."""

        async def do(i: int) -> None:
            sink.begin(i)
            reply: Completion | None = None
            try:
                reply = await answer(i)
            finally:
                sink.end(i, reply)
            await sink.keep(i, reply)

        self._work_through(n, do, sink.flush)

    def gather(self, answer: Callable[[int], Awaitable[Answer]], n: int) -> list[Answer]:
        """Returns the answers 0 to n - 1."""
        found: dict[int, Answer] = {}

        async def do(i: int) -> None:
            found[i] = await answer(i)

        self._work_through(n, do, lambda: None)
        return [found[i] for i in range(n)]

    def _work_through(self, n: int, do: Callable[[int], Awaitable[None]], at_end: Callable[[], None]) -> None:
        if not n:
            return
        if self._loop is None:
            self._loop = BackgroundLoop()
        self._loop.run(self._work(n, do, at_end))

    async def _work(self, n: int, do: Callable[[int], Awaitable[None]], at_end: Callable[[], None]) -> None:
        self._connect()
        self._stopped, self._ended = [], asyncio.Event()
        self._breaker.begin()
        todo = iter(range(n))

        async def work() -> None:
            for i in todo:
                if self._stopped:
                    return
                try:
                    await do(i)
                except Exception as error:  # noqa: BLE001 (calls under way are paid for: they end first)
                    self._stopped.append(error)
                    self._ended.set()

        # Twice as many as may call at once: some are waiting for their reply to be on file.
        n_workers = min(n, 2 * self._calling.max_concurrency * len(self._lanes))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(n_workers):
                    group.create_task(work())
        finally:
            at_end()
        if self._stopped:
            raise self._stopped[0]

    async def patiently(
        self,
        attempt: Callable[[int], Awaitable[Answer]],
        *,
        n_tokens: int,
        give_up: Callable[[str], Answer],
    ) -> Answer:
        """Calls with retries; see `rpsg.llm.calling`."""

        async def unless_stopped(lane: int) -> Answer:
            if self._stopped:
                raise self._stopped[0]
            return await attempt(lane)

        return await call_with_patience(
            unless_stopped,
            lanes=self._lanes,
            breaker=self._breaker,
            n_tokens=n_tokens,
            give_up=give_up,
            ended=self._ended,
        )

    async def ask(
        self,
        lane: int,
        create: Callable[["AsyncOpenAI"], Awaitable[Answer]],
        drop_unknown: Callable[[str | None], bool],
        refused: Callable[[str], Answer],
    ) -> Answer:
        """Makes one try at one call and says in our own words what went wrong with it."""
        import openai

        try:
            async with asyncio.timeout(self._endpoint.timeout_seconds):
                reply = await create(self._next_client(lane))
        except openai.APIStatusError as error:
            return refused(self._judge(error, drop_unknown))
        except (TimeoutError, openai.APITimeoutError):
            raise Failed("no answer in time") from None
        except openai.APIConnectionError:
            raise Failed("connection failed", is_down=True) from None
        except (ValueError, RecursionError, openai.APIError):
            raise Failed("the answer is not a completion") from None
        self._n_answers += 1
        return reply

    def _judge(self, error: "APIStatusError", drop_unknown: Callable[[str | None], bool]) -> str:
        # The server's own words may quote the prompt: only its codes are used.
        status, code = error.status_code, error.code if isinstance(error.code, str) else ""
        if code in OF_THE_ACCOUNT and status not in _HARD:
            raise ModelUnavailable(
                f"{self.model}: the account or the model is not served (HTTP {status} {code}). Every "
                "finished call is kept; resume the run when it is"
            ) from None
        if status == 429:
            raise Throttled(self._pause(error)) from None
        if status in {408, 409, 425} or status >= 500:
            raise Failed(f"HTTP {status}", is_down=status in {502, 503, 504}) from None
        if status in _HARD or 300 <= status < 400:
            raise ModelUnavailable(f"{self.model}: {_HARD.get(status, _MOVED)} (HTTP {status})") from None
        if code in {"unsupported_parameter", "unsupported_value"} and drop_unknown(error.param):
            raise Failed("a parameter is not supported") from None
        reason = _SOFT.get(code, "context too long" if status == 413 else f"HTTP {status}")
        if reason.startswith("HTTP") and not self._n_answers:
            # While nothing was ever answered, this is more likely the settings than this one text, which a
            # rejection would lose for good.
            self._n_refusals += 1
            if self._n_refusals < _REFUSALS_TO_STOP:
                raise Failed(reason) from None
            raise ModelError(
                f"{self.model}: the server refuses every request ({reason}); check the model's name and "
                "the endpoint's settings, and try one call by hand"
            ) from None
        if reason.startswith("HTTP"):
            # Of this text, or of the account or model all at once? Tried again: if others are answered
            # meanwhile, it is of this text.
            raise Failed(reason) from None
        return reason

    def _pause(self, error: "APIStatusError") -> float | None:
        pause = _retry_after(error.response.headers)
        if pause is not None and pause > self._endpoint.patience_seconds:
            raise ModelBusy(
                f"{self.model}: the server asks to come back in {pause:.0f} s. Every finished call is kept; "
                "resume the run then, or raise patience_seconds of its endpoint"
            ) from None
        return pause

    def _connect(self) -> None:
        if self._clients:
            return
        calling = self._calling
        waiting: Queue = deque()
        n_clients = -(-calling.max_concurrency // _CALLS_A_CLIENT)
        for url, key in self._pairs:
            self._clients.append([self._client(url, key) for _ in range(n_clients)])
            self._lanes.append(
                Lane(
                    max_concurrency=calling.max_concurrency,
                    requests_per_minute=calling.requests_per_minute,
                    tokens_per_minute=calling.tokens_per_minute,
                    waiting=waiting,
                )
            )

    def _next_client(self, lane: int) -> "AsyncOpenAI":
        self._turn += 1
        return self._clients[lane][self._turn % len(self._clients[lane])]

    def _client(self, url: str, key: str) -> "AsyncOpenAI":
        import openai

        # A proxy of the environment, or another address that a server sends us to, must not see what only
        # this server may.
        http = openai.DefaultAsyncHttpxClient(
            follow_redirects=False,
            trust_env=self._endpoint.trust == "remote",
            # A few packed bytes may be gigabytes.
            headers={"Accept-Encoding": "identity"},
            event_hooks={"response": [_limit]},
        )
        shared: dict[str, Any] = {
            "api_key": key or "none",
            "max_retries": 0,
            "timeout": self._endpoint.timeout_seconds,
            "http_client": http,
        }
        client: AsyncOpenAI
        if self._endpoint.api == "azure":
            version = self._endpoint.api_version
            client = openai.AsyncAzureOpenAI(azure_endpoint=url, api_version=version, **shared)
        else:
            client = openai.AsyncOpenAI(base_url=url, **shared)
        # The library reads more of the environment than we say it does: an account's ids and headers of the
        # user's own, meant for another server.
        client.organization = client.project = None
        # Nor need a server know what this machine runs.
        left_out: Any = {f"X-Stainless-{name}": openai.Omit() for name in _ABOUT_US}
        client._custom_headers = left_out
        return client

    def close(self) -> None:
        """Closes connections and the thread that used them."""
        if self._loop is None:
            return
        for client in chain.from_iterable(self._clients):
            self._loop.run(client.close())
        self._loop.close()
        self._loop, self._clients, self._lanes = None, [], []


_HARD = {
    401: "the server refuses the key; check the variable that api_key_env names",
    402: "the account has no credit left; every finished call is kept, resume the run when it has",
    403: "the key may not use this model",
    404: "the server does not know this model or path; check the model's name and base_url",
    405: "the server does not take this request at this path; check base_url",
    407: "a proxy on the way wants a password",
    410: "the model or path is gone; check the model's name and base_url",
}
# Of the settings or the account, not of a text.
OF_THE_ACCOUNT = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "account_deactivated",
        "invalid_api_key",
        "model_not_found",
    }
)
_MOVED = "the server sends us to another address, which is not followed; set base_url to the final one"
_SOFT = {
    "context_length_exceeded": "context too long",
    "content_filter": "content filter",
    "content_policy_violation": "content filter",
}


async def _limit(response: "Response") -> None:
    """Makes the reading of an answer end that has no end."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ReadError("a packed answer was not asked for")
    assert isinstance(response.stream, AsyncByteStream)
    response.stream = _Limited(response.stream)


class _Limited(AsyncByteStream):
    def __init__(self, stream: AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        n_bytes = 0
        async for part in self._stream:
            n_bytes += len(part)
            if n_bytes > _MOST_BYTES:
                raise ReadError("an answer without an end")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


def _retry_after(headers: Any) -> float | None:  # noqa: ANN401 (the HTTP library's)
    exact = headers.get("retry-after-ms")
    given = headers.get("retry-after")
    try:
        if exact is not None:
            given = str(float(exact) / 1000)
        pause = None if given is None else max(0.0, float(given))
        return None if pause is None or math.isnan(pause) else pause
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(str(given)).timestamp() - time())
    except (TypeError, ValueError, OverflowError):
        return None
