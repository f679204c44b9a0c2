"""The batch interface against a server on loopback that keeps files and batches as the real one does."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from email import message_from_bytes
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fault_server import Server, completion
from rpsg.endpoints import CallingConfig, EndpointConfig
from rpsg.errors import ConfigError, LimitReached, ModelError, ModelUnavailable, PrivateDataError
from rpsg.llm import openai_batch
from rpsg.llm.batched import BatchedTextModel, check_batch_endpoint
from rpsg.llm.calls import CallStore
from rpsg.llm.meter import Meter, PriceTable
from rpsg.llm.openai import OpenAITextModel
from rpsg.types import Completion, Content, Message, Progress, TextRequest

KEY = "sk-canary-key"


class BatchServer(Server):
    """Answers every request of a batch with its echo, except what is listed.

    Attributes:
        errors: prompt to codes that its first tries get.
        left_out: prompts that the first batch does not come to; it expires.
        paid: prompt to good answers.
        polls_to_end: how often a batch is asked for before it has ended.
        refuses: whether batches fail at once.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.made: dict[str, dict[str, object]] = {}
        self.errors: dict[str, list[str]] = {}
        self.left_out: set[str] = set()
        self.paid: Counter[str] = Counter()
        self.polls_to_end = 2
        self.refuses = False
        self.paths: list[str] = []
        self.loses_answer = False
        self.odd_line = ""
        super().__init__()

    async def _answer(self, request: Request) -> Response:
        self.paths.append(f"{request.method} {request.url.path}")
        self.headers.append(request.headers.get("authorization", ""))
        match request.url.path.removeprefix("/v1/").split("/"):
            case ["files"]:
                form = _parts(request.headers["content-type"], await request.body())
                assert form["purpose"] == b"batch"
                name = f"file-{len(self.files)}"
                self.files[name] = form["file"]
                return JSONResponse({"id": name, "object": "file"})
            case ["files", name, "content"]:
                return Response(self.files[name], media_type="application/jsonl")
            case ["batches"] if request.method == "GET":
                rows = [self._show(name) for name in reversed(self.made)]
                return JSONResponse({"object": "list", "data": rows, "has_more": False})
            case ["batches"]:
                name = f"batch-{len(self.made)}"
                self.made[name] = {**await request.json(), "polls": 0, "status": "in_progress"}
                if self.loses_answer:
                    self.loses_answer = False
                    return JSONResponse({"error": {"code": "broken"}}, 500)
                return JSONResponse(self._show(name))
            case ["batches", name] if name not in self.made:
                return JSONResponse({"error": {"code": "not_found"}}, 404)
            case ["batches", name]:
                self._go_on(self.made[name])
                return JSONResponse(self._show(name))
        return Response(status_code=404)

    def _show(self, name: str) -> dict[str, object]:
        made = self.made[name]
        shown = ("input_file_id", "endpoint", "completion_window", "metadata", "status", "output_file_id")
        page = {key: made[key] for key in shown if key in made}
        errors = {"data": [{"code": "invalid_file", "message": "quoting text 1"}]} if self.refuses else None
        return {"id": name, "object": "batch", "created_at": int(time.time()), "errors": errors, **page}

    def _go_on(self, made: dict[str, object]) -> None:
        made["polls"] = int(str(made["polls"])) + 1
        if self.refuses:
            made["status"] = "failed"
        elif int(str(made["polls"])) >= self.polls_to_end and made["status"] == "in_progress":
            lines = [json.loads(line) for line in self.files[str(made["input_file_id"])].splitlines()]
            out = [line for line in map(self._reply_to, reversed(lines)) if line]
            name = f"file-{len(self.files)}"
            rows = [json.dumps(line) for line in out]
            if self.odd_line:
                rows[0], self.odd_line = self.odd_line, ""
                self.paid.clear()
            self.files[name] = "\n".join(rows).encode()
            made |= {"status": "expired" if self.left_out else "completed", "output_file_id": name}
            self.left_out = set()

    def _reply_to(self, line: Mapping[str, object]) -> dict[str, object] | None:
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        body = line["body"]
        assert isinstance(body, dict)
        prompt = body["messages"][-1]["content"]
        if prompt in self.left_out:
            return None
        waiting = self.errors.get(prompt, [])
        if waiting:
            code, _, param = waiting.pop(0).partition(":")
            error = {"error": {"code": code, "param": param or None, "message": f"quoting {prompt}"}}
            return {"custom_id": line["custom_id"], "response": {"status_code": 400, "body": error}}
        self.paid[prompt] += 1
        response = {"status_code": 200, "body": completion(f"echo {prompt}")}
        return {"custom_id": line["custom_id"], "response": response, "error": None}


def _parts(content_type: str, body: bytes) -> dict[str, bytes]:
    message = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    return {
        str(part.get_param("name", header="content-disposition")): bytes(part.get_payload(decode=True))  # type: ignore[arg-type]
        for part in message.walk()
        if not part.is_multipart()
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setattr(openai_batch, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(openai_batch, "_LOOK_PAUSES", (0.01, 0.1, 0.3))
    monkeypatch.setattr("rpsg.llm.calling._FIRST_PAUSE", 0.01)
    monkeypatch.setenv("OWN_KEY", KEY)
    found = BatchServer()
    yield found
    found.close()


def ask(n: int, content: Content = "released") -> list[TextRequest]:
    return [
        TextRequest(
            messages=(Message(role="user", content=f"text {i}"),), content=content, max_tokens=9, seed=i
        )
        for i in range(n)
    ]


PRICES = PriceTable.model_validate({"version": "1", "models": {"own:m": {"prompt": 1.0, "completion": 1.0}}})


def complete(
    server: BatchServer,
    path: Path,
    requests: list[TextRequest],
    steps: list[Progress] | None = None,
    **limits: float,
) -> list[Completion]:
    endpoint = EndpointConfig(base_url=(server.url,), api_key_env=("OWN_KEY",), mode="batch")
    calling = CallingConfig.model_validate(limits)
    model = OpenAITextModel("own:m", endpoint, calling)
    with closing(model), closing(CallStore(path)) as store:
        batched = BatchedTextModel(
            model,
            store=store,
            stage="write",
            meter=Meter(calling, PRICES, store.usage()),
            on_progress=([] if steps is None else steps).append,
        )
        return batched.complete(requests)


def echoes(n: int) -> list[str]:
    return [f"echo text {i}" for i in range(n)]


def test_a_batch_answers_every_request_once(server: BatchServer, tmp_path: Path) -> None:
    steps: list[Progress] = []
    replies = complete(server, tmp_path / "calls", ask(30), steps)
    assert [reply.text for reply in replies] == echoes(30)
    assert [(reply.n_prompt_tokens, reply.n_tokens) for reply in replies] == [(7, 5)] * 30
    assert len(server.made) == 1 and set(server.paid.values()) == {1}
    assert server.paths[:2] == ["POST /v1/files", "POST /v1/batches"]
    assert set(server.headers) == {f"Bearer {KEY}"}
    assert steps[-1].done == steps[-1].total == 30 and steps[-1].cost == pytest.approx(30 * 12 / 1e6)
    with closing(CallStore(tmp_path / "calls")) as store:
        (sent,) = store.sent()
    assert (sent.host, sent.content, sent.n) == ("127.0.0.1", "released", 30)
    # On file: nothing is sent again.
    complete(server, tmp_path / "calls", ask(30))
    assert len(server.made) == 1


def test_what_failed_or_was_not_come_to_goes_into_another_batch(server: BatchServer, tmp_path: Path) -> None:
    server.errors = {"text 1": ["server_error"], "text 2": ["content_filter"], "text 3": ["rate_limit"] * 9}
    server.left_out = {"text 4"}
    replies = complete(server, tmp_path / "calls", ask(6))
    assert [reply.text or reply.reason for reply in replies] == [
        "echo text 0", "echo text 1", "content filter", "gave up: rate_limit", "echo text 4", "echo text 5",
    ]  # fmt: skip
    assert len(server.made) == 3 and set(server.paid.values()) == {1}


class Killed(BaseException):
    pass


def die(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("at", ["begun", "submitted", "named", "waiting", "read"])
def test_a_process_that_dies_pays_for_no_batch_twice(
    server: BatchServer, tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit_and_die(self: openai_batch.BatchServer, mark: str, bodies: Mapping[str, object]) -> str:
        submit(self, mark, bodies)  # type: ignore[arg-type]
        raise Killed

    submit = openai_batch.BatchServer.submit
    with monkeypatch.context() as patch:
        target, name, what = {
            "begun": (openai_batch.BatchServer, "submit", die),
            "submitted": (openai_batch.BatchServer, "submit", submit_and_die),
            "named": (openai_batch.BatchServer, "wait", die),
            "waiting": (openai_batch.BatchServer, "_sleep", die),
            "read": (CallStore, "end_batch", die),
        }[at]
        patch.setattr(target, name, what)
        with pytest.raises(Killed):
            complete(server, tmp_path / "calls", ask(10))
    # More is asked for after the restart: only that is new.
    replies = complete(server, tmp_path / "calls", ask(12))
    assert [reply.text for reply in replies] == echoes(12)
    assert set(server.paid.values()) == {1}


def test_an_answer_that_was_lost_on_its_way_makes_no_second_batch(
    server: BatchServer, tmp_path: Path
) -> None:
    server.loses_answer = True
    assert [reply.text for reply in complete(server, tmp_path / "calls", ask(5))] == echoes(5)
    assert len(server.made) == 1


def test_a_batch_that_is_not_taken_ends_the_run_with_the_servers_code(
    server: BatchServer, tmp_path: Path
) -> None:
    server.refuses = True
    with pytest.raises(ModelError, match="invalid_file") as error:
        complete(server, tmp_path / "calls", ask(5))
    assert "text 1" not in str(error.value)
    # What was refused is asked for anew, not waited for.
    server.refuses = False
    assert [reply.text for reply in complete(server, tmp_path / "calls", ask(5))] == echoes(5)


@pytest.mark.parametrize("code", ["insufficient_quota", "model_not_found", "rate_limit"])
def test_settings_that_a_server_refuses_lose_no_text(server: BatchServer, tmp_path: Path, code: str) -> None:
    server.errors = {f"text {i}": [code] * 3 for i in range(4)}
    with pytest.raises(ModelUnavailable, match=code):
        complete(server, tmp_path / "calls", ask(4))
    server.errors = {}
    assert [reply.text for reply in complete(server, tmp_path / "calls", ask(4))] == echoes(4)


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
def test_an_account_closed_meanwhile_loses_no_text(server: BatchServer, tmp_path: Path, code: str) -> None:
    server.errors = {f"text {i}": [code] * 9 for i in range(2, 10)}
    with pytest.raises(ModelUnavailable, match=code):
        complete(server, tmp_path / "calls", ask(10))
    server.errors = {}
    assert [reply.text for reply in complete(server, tmp_path / "calls", ask(10))] == echoes(10)
    assert set(server.paid.values()) == {1}


def test_parameters_that_are_not_taken_are_left_out_one_after_another(
    server: BatchServer, tmp_path: Path
) -> None:
    names = ["max_tokens", "temperature", "top_p", "seed"]
    server.errors = {f"text {i}": [f"unsupported_value:{name}" for name in names] for i in range(4)}
    assert [reply.text for reply in complete(server, tmp_path / "calls", ask(4))] == echoes(4)
    bodies = [json.loads(line)["body"] for line in server.files["file-8"].splitlines()]
    assert all(body["max_completion_tokens"] == 9 and not body.keys() & set(names) for body in bodies)


def test_a_server_that_refuses_what_is_not_sent_ends_the_run(server: BatchServer, tmp_path: Path) -> None:
    server.errors = {f"text {i}": ["unsupported_value:seed"] * 20 for i in range(4)}
    with pytest.raises(ModelUnavailable, match="unsupported_value"):
        complete(server, tmp_path / "calls", ask(4))


def test_a_batch_is_looked_for_within_the_time_of_one_try(server: BatchServer, tmp_path: Path) -> None:
    endpoint = EndpointConfig(base_url=(server.url,), timeout_seconds=0.4)
    with (
        pytest.MonkeyPatch.context() as patch,
        closing(OpenAITextModel("own:m", endpoint, CallingConfig())) as model,
    ):
        patch.setattr(openai_batch, "_LOOK_PAUSES", (5.0, 15.0, 30.0))
        assert openai_batch.BatchServer(model._servers, "own:m").find(openai_batch.new_mark()) is None


def test_what_nobody_asks_for_after_a_restart_stays_paid(server: BatchServer, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(openai_batch.BatchServer, "wait", die)
        complete(server, tmp_path / "calls", ask(10))
    assert [reply.text for reply in complete(server, tmp_path / "calls", ask(5))] == echoes(5)
    assert [reply.text for reply in complete(server, tmp_path / "calls", ask(10))] == echoes(10)
    assert set(server.paid.values()) == {1} and len(server.made) == 1


def test_a_limit_counts_the_batches_of_an_earlier_process(server: BatchServer, tmp_path: Path) -> None:
    limit = 10 * (9 + 6)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(openai_batch.BatchServer, "wait", die)
        complete(server, tmp_path / "calls", ask(10), max_tokens=limit)
    with pytest.raises(LimitReached):
        complete(server, tmp_path / "calls", ask(20), max_tokens=limit)


@pytest.mark.parametrize("odd", ['"oops"', "not json", '{"custom_id": 5}', "[" * 100_000])
def test_an_odd_line_costs_one_more_batch_and_not_the_run(
    server: BatchServer, tmp_path: Path, odd: str
) -> None:
    server.odd_line = odd
    assert [reply.text for reply in complete(server, tmp_path / "calls", ask(4))] == echoes(4)


def test_a_batch_that_is_gone_is_made_again_by_the_next_resume(server: BatchServer, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(openai_batch.BatchServer, "wait", die)
        complete(server, tmp_path / "calls", ask(4))
    server.made.clear()
    with pytest.raises(ModelError, match="knows the batch no more"):
        complete(server, tmp_path / "calls", ask(4))
    assert [reply.text for reply in complete(server, tmp_path / "calls", ask(4))] == echoes(4)


def test_a_batch_is_held_to_limits_and_to_what_may_be_sent(server: BatchServer, tmp_path: Path) -> None:
    with pytest.raises(LimitReached, match="max_tokens"):
        complete(server, tmp_path / "a", ask(30), max_tokens=100)
    with pytest.raises(LimitReached, match="max_cost"):
        complete(server, tmp_path / "b", ask(30), max_cost=0.0001)
    with pytest.raises(PrivateDataError, match="own:m is remote"):
        complete(server, tmp_path / "c", [*ask(3), *ask(1, "private")])
    assert not server.files


def test_batches_live_on_one_server() -> None:
    two = EndpointConfig(base_url=("http://a/v1", "http://b/v1"), mode="batch")
    with pytest.raises(ConfigError, match="one base_url"):
        check_batch_endpoint("own:m", two)
    check_batch_endpoint("own:m", two.model_copy(update={"mode": "live"}))
