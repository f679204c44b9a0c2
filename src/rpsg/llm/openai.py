"""Models behind an OpenAI-compatible interface; the only HTTP client.

Works with OpenAI, Azure OpenAI, DeepSeek, vLLM, llama.cpp's server, Ollama, LM Studio. A remote server gets
no private text: every request says the most private thing in its prompt, and is checked before it is sent.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from rpsg.endpoints import FREE, CallingConfig, EndpointConfig, split_name
from rpsg.errors import PrivateDataError
from rpsg.llm.meter import estimate_tokens
from rpsg.llm.openai_batch import BatchServer
from rpsg.llm.replies import Unusable, read_reply, rejected, to_messages
from rpsg.llm.servers import Servers
from rpsg.types import CallSink, Completion, Content, TextRequest, Trust

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_ANSWERS = 3
_SEEDS = 2**31


class OpenAITextModel:
    """A text model on one or several servers.

    Args:
        name: `<endpoint>:<model>`.
        endpoint: where it is and whether it may read private text.
        calling: how many calls at once.
        allowed: what a remote server may be sent.

    Raises:
        ConfigError: a key's environment variable is not set.
    """

    def __init__(
        self,
        name: str,
        endpoint: EndpointConfig,
        calling: CallingConfig,
        *,
        allowed: frozenset[Content] = FREE,
    ) -> None:
        self.name = name
        self.trust: Trust = endpoint.trust
        self.context_tokens = endpoint.context_tokens
        self.reasoning_tokens = endpoint.reasoning_tokens
        self._endpoint = endpoint
        self._allowed = allowed
        self._servers = Servers(split_name(name)[1], endpoint, calling)
        self._unknown: set[str] = set()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where requests go."""
        return self._endpoint.hosts

    def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
        """Returns one completion a request, in order; those without a usable reply say why."""
        sink = _Keeper(len(requests))
        self.complete_each(requests, sink)
        return cast("list[Completion]", sink.replies)

    def complete_each(self, requests: Sequence[TextRequest], sink: CallSink) -> None:
        """Completes requests in any order and hands each reply on as soon as it is there.

        Raises:
            PrivateDataError: a prompt holds what this server must not read; nothing was sent.
            ModelUnavailable: the server refuses the key, the model or the path.
            ModelBusy: no call has succeeded for too long.
        """
        self._check(requests)
        self._servers.run(lambda i: self._answer(requests[i], i, sink), len(requests), sink)

    @property
    def batches(self) -> BatchServer | None:
        """The batch interface; None where calls are to be made one by one."""
        return BatchServer(self._servers, self.name) if self._endpoint.mode == "batch" else None

    def close(self) -> None:
        """Closes connections."""
        self._servers.close()

    def _check(self, requests: Sequence[TextRequest]) -> None:
        if self.trust == "local":
            return
        wrong = sorted({request.content for request in requests} - self._allowed)
        if wrong:
            raise PrivateDataError(
                f"{self.name} is remote and must not be sent {wrong[0]} text; name a local model, or set "
                "trust: local for its endpoint if you run the server yourself"
            )

    async def _answer(self, request: TextRequest, index: int, sink: CallSink) -> Completion:
        used_prompt: int | None = 0
        used: int | None = 0
        for number in range(_ANSWERS):
            asked = replace(request, seed=(request.seed + number) % _SEEDS)
            reply = await self._call(asked, index, sink)
            used_prompt = _sum(used_prompt, reply.n_prompt_tokens)
            used = _sum(used, reply.n_tokens)
            if reply.finish != "rejected" or reply.reason not in _WORTH_ANOTHER_TRY:
                break
        return replace(reply, n_prompt_tokens=used_prompt, n_tokens=used)

    async def _call(self, request: TextRequest, index: int, sink: CallSink) -> Completion:
        n_characters = sum(len(message.content) for message in request.messages)

        async def attempt(lane: int) -> Completion:
            sink.sending(index, self._servers.host(lane), n_characters)
            return await self._servers.ask(
                lane, lambda client: self._create(client, request), self.drop_unknown, rejected
            )

        return await self._servers.patiently(
            attempt, n_tokens=estimate_tokens(request) + request.max_tokens, give_up=_gave_up
        )

    async def _create(self, client: "AsyncOpenAI", request: TextRequest) -> Completion:
        # The library's own `chat.completions.create` spends longer on checking our prompt's types than on
        # sending it.
        page = await client.post("/chat/completions", cast_to=object, body=self.body_of(request))
        try:
            return read_reply(page, request)
        except Unusable as error:
            return error.reply

    def body_of(self, request: TextRequest) -> dict[str, Any]:
        """Returns what is sent of a request.

        Raises:
            PrivateDataError: its prompt holds what this server must not read.
        """
        self._check([request])
        length = request.max_tokens + self.reasoning_tokens
        body: dict[str, Any] = {
            "max_tokens": length,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed % _SEEDS,
        }
        if request.stop:
            body["stop"] = list(request.stop)
        if "max_tokens" in self._unknown:
            body["max_completion_tokens"] = length
        body = {key: value for key, value in body.items() if key not in self._unknown}
        if self._endpoint.top_k and request.top_k:
            body["top_k"] = request.top_k
        return {"model": self._servers.model, "messages": to_messages(request.messages), **body}

    def drop_unknown(self, parameter: str | None) -> bool:
        """Leaves a parameter out from now on; tells whether it is one that can be left out."""
        # Newer models refuse parameters that older ones need: max_tokens, temperature, top_p, seed.
        if not isinstance(parameter, str) or parameter not in {
            "max_tokens",
            "temperature",
            "top_p",
            "seed",
            "stop",
        }:
            return False
        self._unknown.add(parameter)
        return True


_WORTH_ANOTHER_TRY = frozenset({"empty reply", "reasoning did not end", "no text", "broken off"})


class _Keeper:
    """A sink that keeps replies in memory."""

    def __init__(self, n: int) -> None:
        self.replies: list[Completion | None] = [None] * n

    def begin(self, index: int) -> None: ...

    def sending(self, index: int, host: str, n_characters: int) -> None: ...

    def end(self, index: int, reply: Completion | None) -> None: ...

    async def keep(self, index: int, reply: Completion) -> None:
        self.replies[index] = reply

    def flush(self) -> None: ...


def _gave_up(reason: str) -> Completion:
    return rejected(f"gave up: {reason}")


def _sum(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more
