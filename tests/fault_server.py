"""A model server on loopback that fails as it is told: what the client meets in the wild, on order.

Run as a program it serves without faults until its input ends, for measurements in which the server must not
share the client's process: python tests/fault_server.py DELAY_SECONDS MOST_AT_ONCE
"""

import asyncio
import json
import sys
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from threading import Thread

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

OK = "ok"
# Longer than the client of a test waits.
STALL_SECONDS = 3.0
_ODD_DATE = "Mon, 01 Jan 2024 00:00:00 +99999999999999"


class _Exposing(H11Protocol):
    """Hands the connection to the application, so that a fault can be that it is cut."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: dict[str, object], receive: object, send: object) -> None:
            await app({**scope, "transport": transport}, receive, send)  # type: ignore[arg-type]

        self.app = with_transport  # type: ignore[assignment]


class Server:
    """Answers each prompt with its echo, after the faults that are listed for it.

    Attributes:
        faults: prompt to faults that come first.
        always: what comes when none is listed.
        draw: picks the fault of a try, instead of `faults` and `always`.
        asked: prompt to requests that arrived whole.
        answered: prompt to good answers that were sent.
        bodies: every request's body.
        lines: every request's path and authorization.
        headers: every request's headers.
    """

    def __init__(self, *, delay: float = 0.0, most_at_once: int | None = None, port: int = 0) -> None:
        self.faults: dict[str, list[str]] = {}
        self.always = OK
        self.draw: Callable[[str], str] | None = None
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, object]] = []
        self.lines: list[str] = []
        self.headers: list[str] = []
        self.keeps_requests = True
        self._delay, self._most, self._now = delay, most_at_once, 0
        routes = [Route("/{path:path}", self._answer, methods=["GET", "POST"])]
        config = uvicorn.Config(
            Starlette(routes=routes), port=port, http=_Exposing, log_level="critical", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def close(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)

    async def _answer(self, request: Request) -> Response:
        body = json.loads(await request.body())
        asked = body.get("input") or [body["messages"][-1]["content"]]
        prompt = " ".join(asked)
        if self.keeps_requests:
            self.asked[prompt] += 1
            self.bodies.append(body)
            query = f"?{request.url.query}" if request.url.query else ""
            self.lines.append(f"{request.url.path}{query} {request.headers.get('authorization')}")
            self.headers.append("\n".join(f"{name}: {value}" for name, value in request.headers.items()))
        if self._most is not None and self._now >= self._most:
            return _page(429, failure("rate_limit_exceeded", prompt), {})
        self._now += 1
        try:
            await asyncio.sleep(self._delay)
            return await self._reply(request, body, prompt)
        finally:
            self._now -= 1

    async def _reply(self, request: Request, body: Mapping[str, object], prompt: str) -> Response:
        waiting = self.faults.get(prompt, [])
        fault = self.draw(prompt) if self.draw else waiting.pop(0) if waiting else self.always
        if fault == "reset":
            request.scope["transport"].abort()
            return Response()
        if fault == "slow":
            await asyncio.sleep(STALL_SECONDS)
        status, page, extra = faulty(prompt, fault)
        inputs = body.get("input")
        if isinstance(inputs, list) and status == 200 and fault != "no vectors":
            page = vectors(inputs)
        payload = json.dumps(page).encode()
        if (odd := _odd(fault, payload)) is not None:
            return odd
        if fault in {OK, "thoughts", "silent"} and self.keeps_requests:
            self.answered[prompt] += 1
        return Response(payload, status, headers=extra, media_type="application/json")


async def _stall(payload: bytes) -> AsyncIterator[bytes]:
    yield payload[:20]
    await asyncio.sleep(STALL_SECONDS)


def _odd(fault: str, payload: bytes) -> Response | None:
    """Returns an answer that is none in its form; None for other faults."""
    if fault == "stalled":
        return StreamingResponse(_stall(payload), media_type="application/json")
    if fault == "endless":
        return StreamingResponse(_endless(), media_type="application/json")
    if fault == "packed":
        return Response(_packed(), headers={"Content-Encoding": "gzip"}, media_type="application/json")
    if fault == "truncated":
        return Response(payload[: len(payload) // 2], media_type="application/json")
    if fault == "deep":
        return Response("[" * 200_000, media_type="application/json")
    return Response("<html>busy</html>", media_type="text/html") if fault == "html" else None


def _packed() -> bytes:
    packer = zlib.compressobj(wbits=31)
    return b"".join(packer.compress(b" " * 1_000_000) for _ in range(300)) + packer.flush()


async def _endless() -> AsyncIterator[bytes]:
    for _ in range(300):
        yield b" " * 1_000_000


def _page(status: int, page: Mapping[str, object], headers: Mapping[str, str]) -> Response:
    return Response(json.dumps(page), status, headers=headers, media_type="application/json")


def completion(text: str, finish: str = "stop") -> dict[str, object]:
    """Returns a reply; all have one id, as replies of careless servers do."""
    return {
        "id": "same",
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5},
    }


def faulty(prompt: str, fault: str) -> tuple[int, dict[str, object], dict[str, str]]:
    """Returns status, body and headers of a reply; errors quote the prompt, as servers do."""
    good = completion(f"echo {prompt}")
    known: dict[str, tuple[int, dict[str, object], dict[str, str]]] = {
        "429": (429, failure("rate_limit_exceeded", prompt), {}),
        "429 at once": (429, failure("rate_limit_exceeded", prompt), {"Retry-After": "0"}),
        "odd date": (429, failure("rate_limit_exceeded", prompt), {"Retry-After": _ODD_DATE}),
        "odd parameter": (400, failure("unsupported_value", prompt, param=["x"]), {}),
        "many tokens": (200, {**good, "usage": {"prompt_tokens": 2**63, "completion_tokens": 5}}, {}),
        "429 after": (429, failure("rate_limit_exceeded", prompt), {"Retry-After": "0.05"}),
        "max_tokens": (400, failure("unsupported_parameter", prompt, param="max_tokens"), {}),
        "billing": (400, failure("billing_hard_limit_reached", prompt), {}),
        "too long": (400, failure("context_length_exceeded", prompt), {}),
        "moved": (307, {}, {"Location": "http://127.0.0.1:9/v1/chat/completions"}),
        "no choices": (200, {**good, "choices": []}, {}),
        "filter": (200, completion("", finish="content_filter"), {}),
        "empty": (200, completion(""), {}),
        "thoughts": (200, completion(f"<think>private plans</think>\necho {prompt}"), {}),
        "endless thoughts": (200, completion("<think>and then", finish="length"), {}),
        "silent": (200, {key: value for key, value in good.items() if key != "usage"}, {}),
    }
    if fault.isdigit() and fault not in known:
        return int(fault), failure("broken", prompt), {}
    return known.get(fault, (200, good, {}))


def vectors(texts: list[str]) -> dict[str, object]:
    """Returns the vectors of texts in another order than that of the texts."""
    rows = [
        {"object": "embedding", "index": i, "embedding": [float(len(text)), 1.0]}
        for i, text in enumerate(texts)
    ]
    return {
        "object": "list",
        "model": "m",
        "data": rows[::-1],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }


def failure(code: str, prompt: str, param: object = None) -> dict[str, object]:
    return {"error": {"code": code, "param": param, "message": f"quoting {prompt}"}}


if __name__ == "__main__":
    found = Server(delay=float(sys.argv[1]), most_at_once=int(sys.argv[2]))
    found.keeps_requests = False
    print(found.url, flush=True)
    sys.stdin.read()
    found.close()
