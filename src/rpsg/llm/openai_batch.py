"""The batch interface: half the price, an answer within a day."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
# How far back a batch is looked for whose id was not noted before the process died.
_MOST_LISTED = 200
# Under this key a batch carries our own mark.
_MARK = "rpsg"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One request of a batch that has ended.

    Attributes:
        key: what it was sent under.
        body: of the reply; None where there is none.
        reason: why there is none.
    """

    key: str
    body: Mapping[str, Any] | None
    reason: str = ""


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
            json.dumps({"custom_id": key, "method": "POST", "url": _ENDPOINT, "body": body})
            for key, body in bodies.items()
        ]
        content = "\n".join(lines).encode()
        tries = iter(range(10**6))

        async def create(client: "AsyncOpenAI") -> str:
            # An answer that was lost on its way may have been that a batch was made.
            made = await _look(client, mark) if next(tries) else None
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
        return self._ask(lambda client: _look(client, mark))

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
            batch = self._ask(lambda client: client.batches.retrieve(batch_id))
            counts = batch.request_counts
            if counts is not None:
                on_progress(counts.completed + counts.failed, counts.total)
            if batch.status in _ENDED:
                return self._read(batch)
            if batch.status == "failed":
                raise ModelRefused(f"{self._name}: the server did not take the batch ({_codes(batch)})")
            self._sleep(pause)
            pause = min(_LONGEST_PAUSE, 1.5 * pause)

    def _sleep(self, seconds: float) -> None:
        async def sleep(_: int) -> None:
            await asyncio.sleep(seconds)

        # In the loop that Ctrl-C ends.
        self._servers.gather(sleep, 1)

    def _read(self, batch: "Batch") -> list[BatchLine]:
        lines: list[BatchLine] = []
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                lines += [_read_line(line) for line in self._content(file_id).splitlines() if line.strip()]
        return lines

    def _content(self, file_id: str) -> bytes:
        async def read(client: "AsyncOpenAI") -> bytes:
            return (await client.files.content(file_id)).content

        return self._ask(read)

    def _ask(self, create: Callable[["AsyncOpenAI"], Awaitable[Answer]]) -> Answer:
        async def answer(_: int) -> Answer:
            return await self._servers.patiently(
                lambda lane: self._servers.ask(lane, create, lambda _: False, self._refuse),
                n_tokens=0,
                give_up=self._refuse,
            )

        return self._servers.gather(answer, 1)[0]

    def _refuse(self, reason: str) -> Any:  # noqa: ANN401 (it never returns)
        raise ModelUnavailable(
            f"{self._name}: the batch interface answered with {reason}; every finished call is kept. "
            "Resume the run later, or set mode: live for its endpoint"
        )


async def _look(client: "AsyncOpenAI", mark: str) -> str | None:
    n_seen = 0
    async for batch in client.batches.list(limit=100):
        if (batch.metadata or {}).get(_MARK) == mark:
            return batch.id
        n_seen += 1
        if n_seen >= _MOST_LISTED:
            break
    return None


def _read_line(line: bytes) -> BatchLine:
    page = json.loads(line)
    response = page.get("response") or {}
    status = response.get("status_code")
    if status == 200 and isinstance(response.get("body"), Mapping):
        return BatchLine(key=page["custom_id"], body=response["body"])
    # The server's own words may quote the prompt: only its codes are used.
    error = page.get("error") or (response.get("body") or {}).get("error") or {}
    code = str(error.get("code") or "")
    return BatchLine(
        key=page["custom_id"], body=None, reason=code if code.isidentifier() else f"HTTP {status}"
    )


def _codes(batch: "Batch") -> str:
    errors: Sequence[Any] = (batch.errors.data or []) if batch.errors else []
    return ", ".join(sorted({str(error.code) for error in errors})) or "no reason given"
