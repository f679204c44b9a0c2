"""A text model whose calls go in batches, which outlive the process that sent them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rpsg.endpoints import EndpointConfig
from rpsg.errors import ConfigError, ModelRefused, ModelUnavailable
from rpsg.llm.calls import Call, Sending, call_key
from rpsg.llm.meter import estimate_tokens
from rpsg.llm.openai import OpenAITextModel
from rpsg.llm.openai_batch import UNSUPPORTED, new_mark
from rpsg.llm.replies import Unusable, read_reply, rejected
from rpsg.llm.servers import OF_THE_ACCOUNT
from rpsg.llm.wrappers import KeptTextModel
from rpsg.types import Completion, Progress, TextRequest

if TYPE_CHECKING:
    from rpsg.llm.openai_batch import BatchLine, BatchServer

# What servers take in one batch.
_MOST_CALLS, _MOST_BYTES = 20_000, 80_000_000
_ROUNDS = 3
# Said of one text for good; anything else may be asked for once more.
_FINAL = {"content_filter": "content filter", "context_length_exceeded": "context too long"}


@dataclass(eq=False, repr=False)
class BatchedTextModel(KeptTextModel[OpenAITextModel]):
    """A text model on a server with a batch interface.

    A batch is noted before it is sent, and carries a mark by which it is found again: what a process that
    died had sent is waited for, and sent again only if the server does not list it within a minute.

    Raises:
        LimitReached: the next call might go over a limit on cost, tokens or time.
        ModelRefused: the server does not take a batch.
    """

    # Batches whose calls the meter knows to be under way.
    _counted: set[str] = field(default_factory=set, init=False)
    _n_answers: int = field(default=0, init=False)
    _left_out: set[str | None] = field(default_factory=set, init=False)

    def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
        """Completes what is not on file yet, in batches; waits for them."""
        keys = [call_key(self.name, request) for request in requests]
        asked = dict(zip(keys, requests, strict=True))
        found = self.store.find(keys)
        batches = self.model.batches
        assert batches is not None
        number = 0
        while waiting := {key: request for key, request in asked.items() if key not in found}:
            n_left_out = len(self._left_out)
            for mark, batch in self._under_way(waiting, batches).items():
                try:
                    lines = batches.wait(batch, self._report_waiting)
                except ModelRefused:
                    # Nothing will come of it: the next try makes another.
                    self.store.end_batch(mark, [], self.store.keys_in_batch(mark))
                    raise
                self._keep(mark, lines, asked, is_last=number == _ROUNDS - 1)
            found = self.store.find(keys)
            # Of several parameters that a model does not take, a server names one at a time.
            number += len(self._left_out) == n_left_out
        self._report(len(found), len(asked))
        return [found[key] for key in keys]

    def _under_way(self, waiting: Mapping[str, TextRequest], batches: "BatchServer") -> dict[str, str]:
        """Finds the batches that hold these calls, and makes new ones for the rest."""
        found: dict[str, str] = {}
        covered: set[str] = set()
        for mark, noted in self.store.open_batches(list(waiting)).items():
            held = self.store.keys_in_batch(mark)
            # Without an id: the process died while it sent the batch, which may have arrived.
            batch = noted or batches.find(mark)
            if batch is None:
                self.store.end_batch(mark, [], held)
                continue
            self.store.name_batch(mark, batch)
            found[mark] = batch
            for key in held & waiting.keys() if mark not in self._counted else ():
                self.meter.begun_before(self.name, *self._size(waiting[key]))
            self._counted.add(mark)
            covered |= held
        for part in _parts({key: request for key, request in waiting.items() if key not in covered}):
            mark = new_mark()
            bodies = {key: self.model.body_of(request) for key, request in part.items()}
            self._begin(mark, part)
            found[mark] = batches.submit(mark, bodies)
            self.store.name_batch(mark, found[mark])
        return found

    def _begin(self, mark: str, part: Mapping[str, TextRequest]) -> None:
        for request in part.values():
            self.meter.begin(self.name, *self._size(request))
        self._counted.add(mark)
        host = self.hosts[0]
        sendings = {
            key: Sending(
                host=host,
                model=self.name,
                content=request.content,
                n_characters=sum(len(message.content) for message in request.messages),
            )
            for key, request in part.items()
        }
        self.store.begin_batch(mark, sendings)

    def _keep(
        self, mark: str, lines: Sequence["BatchLine"], asked: Mapping[str, TextRequest], *, is_last: bool
    ) -> None:
        by_key = {line.key: line for line in lines}
        # Calls of the batch that nobody asks for now stay open: they are paid, and may be asked for again.
        held = self.store.keys_in_batch(mark) & asked.keys()
        dropped = self._leave_out({line.param for line in lines if line.reason in UNSUPPORTED})
        calls = []
        for key in held:
            reply = _reply(by_key.get(key), asked[key], is_last=is_last and not dropped)
            self.meter.end(self.name, *self._size(asked[key]), reply)
            if reply is not None:
                calls.append(Call(key=key, stage=self.stage, model=self.name, reply=reply))
        refused = {line.reason for line in lines if line.body is None}
        if closed := refused & OF_THE_ACCOUNT:
            self.store.end_batch(mark, calls, held)
            raise ModelUnavailable(
                f"{self.name}: the account is not served ({', '.join(sorted(closed))}). Every finished call "
                "is kept; resume the run when it is"
            )
        self._n_answers += sum(line.body is not None for line in lines)
        if len(refused) == 1 and not self._n_answers:
            # While nothing was ever answered, this is more likely the settings, and a rejection would lose
            # every text for good.
            self._stop_if_hard(mark, held, *refused, is_last=is_last and not dropped)
        self.store.end_batch(mark, calls, held)

    def _leave_out(self, parameters: set[str | None]) -> bool:
        """Leaves refused parameters out from now on; tells whether any was still sent."""
        found = {name for name in parameters - self._left_out if self.model.drop_unknown(name)}
        self._left_out |= found
        return bool(found)

    def _stop_if_hard(self, mark: str, held: set[str], reason: str, *, is_last: bool) -> None:
        if not is_last or reason in _FINAL:
            return
        self.store.end_batch(mark, [], held)
        raise ModelUnavailable(
            f"{self.name}: the server refuses every request of a batch ({reason}); check the key, the "
            "account, the model's name and the endpoint's settings. Every finished call is kept; resume the "
            "run then"
        )

    def _size(self, request: TextRequest) -> tuple[int, int]:
        return estimate_tokens(request), request.max_tokens + self.model.reasoning_tokens

    def _report_waiting(self, done: int, total: int) -> None:
        self._report(done, total)
        if done < total:
            # The batch stays open, and the next resume waits for it.
            self.meter.check_time()

    def _report(self, done: int, total: int) -> None:
        cost = self.meter.cost_so_far(self.name)
        self.on_progress(Progress(stage=self.stage, done=done, total=total, cost=cost))


def check_batch_endpoint(name: str, endpoint: EndpointConfig) -> None:
    """Refuses batches over several servers or keys: a batch lives on one.

    Raises:
        ConfigError: there are several.
    """
    if endpoint.mode == "batch" and (len(endpoint.base_url) != 1 or len(endpoint.api_key_env) > 1):
        raise ConfigError(f"{name}: mode: batch needs one base_url and at most one key")


def _reply(line: "BatchLine | None", request: TextRequest, *, is_last: bool) -> Completion | None:
    """Reads a reply; None where the call is worth another batch."""
    if line is None:
        # A batch that ran out of time has no line for what it did not come to.
        return rejected("gave up: no reply in any batch") if is_last else None
    if line.reason in OF_THE_ACCOUNT:
        # It says nothing of the text, which is asked for again when the account is served.
        return None
    if line.body is None:
        reason = _FINAL.get(line.reason, f"gave up: {line.reason}")
        return rejected(reason) if is_last or line.reason in _FINAL else None
    try:
        return read_reply(line.body, request)
    except Unusable as error:
        return error.reply
    except ValueError:
        return rejected("gave up: the answer is not a completion") if is_last else None


def _parts(waiting: Mapping[str, TextRequest]) -> Iterator[dict[str, TextRequest]]:
    part: dict[str, TextRequest] = {}
    size = 0
    for key, request in waiting.items():
        n = sum(len(message.content.encode()) for message in request.messages)
        if part and (len(part) >= _MOST_CALLS or size + n > _MOST_BYTES):
            yield part
            part, size = {}, 0
        part[key] = request
        size += n
    if part:
        yield part
