"""The batch interface: half the price, an answer within a day."""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rpsg.errors import ModelRefused, ModelUnavailable
from rpsg.llm.servers import Servers

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Batch

Answer = TypeVar("Answer")
_ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0
_ENDED = {"completed", "expired", "cancelled"}
# How often, in seconds, a batch is looked for that may have been made, and how far clocks may be apart.
_LOOK_PAUSES = (5.0, 15.0, 30.0)
_CLOCKS_APART = 3600
# A line's reason when a parameter is not taken.
UNSUPPORTED = frozenset({"unsupported_parameter", "unsupported_value"})
# Under this key a batch carries our own mark.
_MARK = "rpsg"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One request of a batch that has ended.

    Attributes:
        key: what it was sent under.
        body: of the reply; None where there is none.
        reason: why there is none.
        param: the parameter that was refused, if that is why.
    """

    key: str
    body: Mapping[str, Any] | None
    reason: str = ""
    param: str | None = None


class BatchServer:
    """One server's batches. Each call is tried again as any other; see `rpsg.llm.calling`."""

    def __init__(self, servers: Servers, name: str) -> None:
        self._servers = servers
        self._name = name

    def submit(self, mark: str, bodies: Mapping[str, Mapping[str, Any]]) -> str:
        """Uploads requests and makes a batch of them; returns its id.

        Args:
            mark: a word of ours by which `find` knows the batch again.
            bodies: key to the body of a chat completion.
        """
        lines = [
            json.dumps(
                {"custom_id": key, "method": "POST", "url": _ENDPOINT, "body": body}, ensure_ascii=False
            )
            for key, body in bodies.items()
        ]
        content = "\n".join(lines).encode()
        tries = iter(range(10**6))

        async def create(client: "AsyncOpenAI") -> str:
            # An answer that was lost on its way may have been that a batch was made.
            made = await self._look(client, mark) if next(tries) else None
            if made is not None:
                return made
            file = await client.files.create(file=(f"{mark}.jsonl", content), purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id, endpoint=_ENDPOINT, completion_window="24h", metadata={_MARK: mark}
            )
            return batch.id

        return self._ask(create)

    def find(self, mark: str) -> str | None:
        """Returns the id of the batch with our mark, or None where none was made."""
        return self._ask(lambda client: self._look(client, mark))

    async def _look(self, client: "AsyncOpenAI", mark: str) -> str | None:
        # A batch may be made, or listed, a while after the call that made it failed; but all this is one
        # try of a call, and must end within its time.
        share = min(1.0, self._servers.timeout_seconds / 2 / sum(_LOOK_PAUSES))
        for pause in _LOOK_PAUSES:
            found = await _look(client, mark)
            if found is not None:
                return found
            await asyncio.sleep(share * pause)
        return await _look(client, mark)

    def wait(self, batch_id: str, on_progress: Callable[[int, int], None]) -> list[BatchLine]:
        """Waits until a batch has ended; returns what became of its requests.

        Args:
            batch_id: its id.
            on_progress: told how many requests are done, and of how many.

        Raises:
            ModelRefused: the server does not take the batch.
        """
        pause = _FIRST_PAUSE
        while True:
            batch = self._retrieve(batch_id)
            counts = batch.request_counts
            if counts is not None:
                on_progress(counts.completed + counts.failed, counts.total)
            if batch.status in _ENDED:
                return self._read(batch)
            if batch.status == "failed":
                raise ModelRefused(f"{self._name}: the server did not take the batch ({_codes(batch)})")
            self._sleep(pause)
            pause = min(_LONGEST_PAUSE, 1.5 * pause)

    def _retrieve(self, batch_id: str) -> "Batch":
        from openai import NotFoundError

        async def retrieve(client: "AsyncOpenAI") -> "Batch | None":
            try:
                return await client.batches.retrieve(batch_id)
            except NotFoundError:
                return None

        batch = self._ask(retrieve)
        if batch is None:
            raise ModelRefused(
                f"{self._name}: the server knows the batch no more; resume to send its calls again"
            )
        return batch

    def _sleep(self, seconds: float) -> None:
        async def sleep(_: int) -> None:
            await asyncio.sleep(seconds)

        # In the loop that Ctrl-C ends.
        self._servers.gather(sleep, 1)

    def _read(self, batch: "Batch") -> list[BatchLine]:
        lines: list[BatchLine] = []
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                lines += _read_lines(self._content(file_id))
        return lines

    def _content(self, file_id: str) -> bytes:
        async def read(client: "AsyncOpenAI") -> bytes:
            return (await client.files.content(file_id)).content

        return self._ask(read)

    def _ask(self, create: Callable[["AsyncOpenAI"], Awaitable[Answer]]) -> Answer:
        async def checked(client: "AsyncOpenAI") -> Answer:
            try:
                return await create(client)
            except (AttributeError, TypeError):
                # The library hands on a page that is not what was asked for as it is.
                raise ValueError("not an answer of this interface") from None

        async def answer(_: int) -> Answer:
            return await self._servers.patiently(
                lambda lane: self._servers.ask(lane, checked, lambda _: False, self._refuse),
                n_tokens=0,
                give_up=self._refuse,
            )

        return self._servers.gather(answer, 1)[0]

    def _refuse(self, reason: str) -> Any:  # noqa: ANN401 (it never returns)
        raise ModelUnavailable(
            f"{self._name}: the batch interface answered with {reason}; every finished call is kept. "
            "Resume the run later, or set mode: live for its endpoint"
        )


def new_mark() -> str:
    """Returns a word by which a batch is known again; it says when it was made up."""
    return f"{int(time.time())}-{secrets.token_hex(12)}"


async def _look(client: "AsyncOpenAI", mark: str) -> str | None:
    oldest = int(mark.partition("-")[0]) - _CLOCKS_APART
    async for batch in client.batches.list(limit=100):
        if (batch.metadata or {}).get(_MARK) == mark:
            return batch.id
        if batch.created_at and batch.created_at < oldest:
            break
    return None


def _read_lines(content: bytes) -> Iterator[BatchLine]:
    for line in content.splitlines():
        try:
            page = json.loads(line)
            if isinstance(page, Mapping) and isinstance(page.get("custom_id"), str):
                yield _read_line(page)
        except (ValueError, RecursionError):
            # What it was the answer to is not known: that call goes into another batch.
            continue


def _read_line(page: Mapping[str, Any]) -> BatchLine:
    key, response = page["custom_id"], _mapping(page.get("response"))
    status, body = response.get("status_code"), _mapping(response.get("body"))
    if status == 200 and body:
        return BatchLine(key=key, body=body)
    error = _mapping(page.get("error")) or _mapping(body.get("error"))
    param = error.get("param")
    return BatchLine(
        key=key,
        body=None,
        reason=_code(error.get("code")) or f"HTTP {status if isinstance(status, int) else 'unknown'}",
        param=param if isinstance(param, str) else None,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _code(value: object) -> str:
    # The server's own words may quote the prompt: only its codes are used.
    return value if isinstance(value, str) and value.isidentifier() else ""


def _codes(batch: "Batch") -> str:
    errors: Sequence[Any] = (batch.errors.data or []) if batch.errors else []
    return ", ".join(sorted({_code(error.code) for error in errors} - {""})) or "no reason given"
