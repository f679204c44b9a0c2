"""The client against a server on loopback that fails in every way it is told to."""

import asyncio
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from fault_server import OK, Server
from rpsg import registry
from rpsg.endpoints import CallingConfig, EndpointConfig, Serving, find_endpoint
from rpsg.errors import ConfigError, LimitReached, ModelBusy, ModelError, ModelUnavailable, PrivateDataError
from rpsg.llm import calling, servers
from rpsg.llm.background import BackgroundLoop
from rpsg.llm.calls import CallStore
from rpsg.llm.fake import FakeTextModel
from rpsg.llm.meter import Meter, load_prices
from rpsg.llm.openai import OpenAITextModel
from rpsg.llm.openai_embed import OpenAIEmbedder
from rpsg.llm.replies import Unusable, read_reply
from rpsg.llm.sentiment import PromptedSentiment
from rpsg.llm.wrappers import CalledTextModel
from rpsg.types import Completion, Content, Message, TextRequest

KEY = "sk-canary-key"
# Closed after each test, which may have ended with the run that it is about.
OPENED: list[OpenAITextModel | OpenAIEmbedder] = []


def opened(model: OpenAITextModel) -> OpenAITextModel:
    OPENED.append(model)
    return model


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(calling, "_FIRST_PAUSE", 0.01)
    found = Server()
    yield found
    for model in OPENED:
        model.close()
    OPENED.clear()
    found.close()


def endpoint(server: Server, **settings: object) -> EndpointConfig:
    return EndpointConfig.model_validate({"base_url": server.url, "trust": "local", **settings})


def ask(n: int, content: Content = "private") -> list[TextRequest]:
    return [
        TextRequest(
            messages=(Message(role="user", content=f"text {i}"),), content=content, max_tokens=9, seed=i
        )
        for i in range(n)
    ]


def complete(server: Server, n: int, **settings: object) -> list[str]:
    model = opened(OpenAITextModel("own:m", endpoint(server, **settings), CallingConfig()))
    return [reply.text or reply.reason for reply in model.complete(ask(n))]


PASSING = ["429", "429 after", "500", "502", "503", "reset", "truncated", "html", "no choices", "empty"]
LATE = ["slow", "stalled"]


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_costs_no_text(server: Server, fault: str) -> None:
    server.faults = {"text 1": [fault], "text 4": [fault, fault]}
    assert complete(server, 6) == [f"echo text {i}" for i in range(6)]
    assert set(server.answered.values()) == {1}


@pytest.mark.parametrize("fault", LATE)
def test_an_answer_that_does_not_come_is_asked_for_again(server: Server, fault: str) -> None:
    server.faults = {"text 1": [fault]}
    assert complete(server, 3, timeout_seconds=0.5) == [f"echo text {i}" for i in range(3)]


def test_mixed_faults_lose_nothing_and_repeat_no_answered_call(server: Server) -> None:
    server.faults = {f"text {i}": [PASSING[(i * k) % len(PASSING)] for k in (1, 3)] for i in range(0, 200, 2)}
    assert complete(server, 200) == [f"echo text {i}" for i in range(200)]
    assert set(server.answered.values()) == {1}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("filter", "content filter"),
        ("too long", "context too long"),
        ("endless thoughts", "reasoning did not end"),
        ("500", "gave up: HTTP 500"),
    ],
)
def test_a_fault_that_stays_is_a_rejected_reply_with_a_reason(
    server: Server, fault: str, reason: str
) -> None:
    server.faults = {"text 1": [fault] * 10}
    assert complete(server, 3) == ["echo text 0", reason, "echo text 2"]
    assert server.asked["text 1"] <= calling.ATTEMPTS


def test_thoughts_are_not_part_of_the_text(server: Server) -> None:
    server.always = "thoughts"
    assert complete(server, 1) == ["echo text 0"]


def test_a_newer_model_is_asked_as_it_wants(server: Server) -> None:
    server.faults = {"text 0": ["max_tokens"]}
    assert complete(server, 1) == ["echo text 0"]
    assert server.bodies[-1]["max_completion_tokens"] == 9 and "max_tokens" not in server.bodies[-1]


@pytest.mark.parametrize(("fault", "says"), [("401", "key"), ("404", "model"), ("moved", "not followed")])
def test_a_wrong_setting_ends_the_run_with_what_to_do(server: Server, fault: str, says: str) -> None:
    server.always = fault
    with pytest.raises(ModelUnavailable, match=says) as error:
        complete(server, 50)
    assert "text" not in str(error.value).replace("texts", "") and server.url not in str(error.value)


def test_a_dead_server_ends_the_run(server: Server) -> None:
    server.always = "503"
    with pytest.raises(ModelBusy, match="resume"):
        complete(server, 200, patience_seconds=0.2)


def test_a_remote_server_gets_no_byte_of_private_text(server: Server) -> None:
    for content in ("private", "abstraction"):
        model = OpenAITextModel("own:m", endpoint(server, trust="remote"), CallingConfig())
        with pytest.raises(PrivateDataError, match="own:m is remote"):
            model.complete([*ask(1, "public"), *ask(1, content)])
    assert not server.asked
    model = OpenAITextModel("own:m", endpoint(server, trust="remote"), CallingConfig())
    assert [reply.text for reply in model.complete(ask(2, "released"))] == ["echo text 0", "echo text 1"]
    model.close()


def test_a_key_is_sent_and_shown_nowhere(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_KEY", KEY)
    setting = endpoint(server, api_key_env="OWN_KEY")
    model = OpenAITextModel("own:m", setting, CallingConfig())
    model.complete(ask(1))
    assert server.lines == [f"/v1/chat/completions Bearer {KEY}"]
    assert not any(KEY in repr(item) for item in (setting, model, model._servers, model.__dict__))
    model.close()
    monkeypatch.delenv("OWN_KEY")
    with pytest.raises(ConfigError, match="OWN_KEY is not set"):
        OpenAITextModel("own:m", setting, CallingConfig())


def test_the_key_of_a_known_endpoint_is_not_sent_to_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    own = {"openai": EndpointConfig.model_validate({"base_url": "http://127.0.0.1:9/v1"})}
    found = find_endpoint("openai:m", own)
    assert found is not None and found.read_keys() == [""]
    known = find_endpoint("openai:m", {})
    assert known is not None and known.read_keys() == [KEY]


def test_a_name_with_a_colon_that_is_no_endpoint_says_what_may_be_meant() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'ollama'\?.* name without a colon"):
        find_endpoint("olama:m", {})
    with pytest.raises(
        ConfigError, match=r"known: .*vllm.* another package brings has a name without a colon"
    ):
        find_endpoint("acme:large", {})


def kept(server: Server, path: Path, **settings: object) -> CalledTextModel:
    limits = {
        name: settings.pop(name) for name in ("max_tokens", "max_cost", "max_seconds") if name in settings
    }
    serving = Serving(
        endpoints={"own": endpoint(server, **settings)}, calling=CallingConfig(), remote_content=frozenset()
    )
    store = CallStore(path)
    return CalledTextModel(
        opened(registry.text_model("own:m", serving=serving)),  # type: ignore[arg-type]
        store=store,
        stage="write",
        meter=Meter(CallingConfig.model_validate(limits), load_prices(None), store.usage()),
        on_progress=lambda _: None,
    )


def test_a_finished_call_is_never_made_again(server: Server, tmp_path: Path) -> None:
    server.faults = {"text 3": ["401"]}
    with pytest.raises(ModelUnavailable):
        kept(server, tmp_path / "calls").complete(ask(30))
    paid = Counter(server.answered)
    replies = kept(server, tmp_path / "calls").complete(ask(30))
    assert [reply.text for reply in replies] == [f"echo text {i}" for i in range(30)]
    assert paid and set(server.answered.values()) == {1}
    assert not any(b"text 3" in path.read_bytes().replace(b"echo text 3", b"") for path in tmp_path.iterdir())


def test_a_limit_stops_the_run_and_counts_what_was_used_before(server: Server, tmp_path: Path) -> None:
    with pytest.raises(LimitReached, match="max_tokens"):
        kept(server, tmp_path / "calls", max_tokens=100).complete(ask(50))
    n_before = sum(server.answered.values())
    assert 0 < 12 * n_before <= 100
    with pytest.raises(LimitReached):
        kept(server, tmp_path / "calls", max_tokens=12 * n_before).complete(ask(50))
    assert sum(server.answered.values()) == n_before
    with pytest.raises(ConfigError, match="price of 'own:m' is unknown"):
        kept(server, tmp_path / "calls", max_cost=1.0)


def test_usage_that_is_not_reported_is_not_guessed(server: Server, tmp_path: Path) -> None:
    server.always = "silent"
    (reply,) = kept(server, tmp_path / "calls").complete(ask(1))
    assert (reply.n_prompt_tokens, reply.n_tokens) == (None, None)
    (used,) = CallStore(tmp_path / "calls").usage()
    assert (used.n_prompt_tokens, used.n_tokens, used.n_reported, used.n_unreported) == (0, 0, 0, 1)
    server.always = OK
    kept(server, tmp_path / "calls").complete(ask(3))
    (used,) = CallStore(tmp_path / "calls").usage()
    assert (used.n_prompt_tokens, used.n_tokens, used.n_reported, used.n_unreported) == (14, 10, 2, 1)


def test_what_a_silent_server_used_counts_after_a_resume_by_its_length(
    server: Server, tmp_path: Path
) -> None:
    server.always = "silent"
    kept(server, tmp_path / "calls").complete(ask(20))
    # 20 prompts of 6 or 7 characters and as many replies of 11 or 12: at least 20 * (1.5 + 2.75) tokens.
    with pytest.raises(LimitReached, match="max_tokens"):
        kept(server, tmp_path / "calls", max_tokens=85).complete(ask(21))
    assert server.asked["text 20"] == 0


def test_what_was_sent_where_is_on_file(server: Server, tmp_path: Path) -> None:
    server.faults = {"text 0": ["500"]}
    kept(server, tmp_path / "calls").complete(ask(2))
    (line,) = CallStore(tmp_path / "calls").sent()
    assert (line.host, line.model, line.content, line.n) == ("127.0.0.1", "own:m", "private", 3)


@pytest.mark.parametrize("n", [1, 30])
def test_a_text_is_not_given_up_because_its_server_is_down(
    server: Server, tmp_path: Path, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Few, so that a text is asked for more often within the second that the test waits.
    monkeypatch.setattr(calling, "ATTEMPTS", 2)
    server.always = "503"
    with pytest.raises(ModelBusy, match="resume"):
        kept(server, tmp_path / "calls", patience_seconds=1.0).complete(ask(n))
    assert max(server.asked.values()) > calling.ATTEMPTS
    server.always = OK
    replies = kept(server, tmp_path / "calls").complete(ask(n))
    assert [reply.text for reply in replies] == [f"echo text {i}" for i in range(n)]


def test_one_of_two_servers_may_be_down(server: Server) -> None:
    pair = [server.url, "http://127.0.0.1:9/v1"]
    assert complete(server, 80, base_url=pair) == [f"echo text {i}" for i in range(80)]


def test_a_server_that_says_at_once_again_and_again_is_not_called_in_a_loop(server: Server) -> None:
    server.faults = {"text 0": ["429 at once"] * 4}
    began = time.monotonic()
    assert complete(server, 1) == ["echo text 0"]
    assert time.monotonic() - began > 0.01 * 0.1 * 4


@pytest.mark.parametrize("fault", ["deep", "odd parameter", "odd date", "many tokens"])
def test_what_no_server_should_say_breaks_nothing(server: Server, tmp_path: Path, fault: str) -> None:
    server.faults = {"text 1": [fault]}
    replies = kept(server, tmp_path / "calls").complete(ask(3))
    assert [reply.text or reply.reason for reply in replies] in (
        [f"echo text {i}" for i in range(3)],
        ["echo text 0", "HTTP 400", "echo text 2"],
    )


def test_settings_that_a_server_refuses_lose_no_text(server: Server, tmp_path: Path) -> None:
    server.always = "400"
    with pytest.raises(ModelError, match="refuses every request"):
        kept(server, tmp_path / "calls").complete(ask(20))
    server.always = OK
    replies = kept(server, tmp_path / "calls").complete(ask(20))
    assert [reply.text for reply in replies] == [f"echo text {i}" for i in range(20)]


def test_one_text_that_a_server_refuses_is_rejected(server: Server) -> None:
    server.faults = {"text 1": ["400"] * calling.ATTEMPTS}
    replies = complete(server, 20)
    assert replies[1] == "gave up: HTTP 400"
    assert [reply for i, reply in enumerate(replies) if i != 1] == [
        f"echo text {i}" for i in range(20) if i != 1
    ]


@pytest.mark.parametrize("fault", ["402", "405", "407", "billing", "400"])
def test_an_account_that_is_closed_meanwhile_loses_no_text(
    server: Server, tmp_path: Path, fault: str
) -> None:
    server.draw = lambda prompt: OK if len(server.answered) < 5 else fault
    with pytest.raises((ModelUnavailable, ModelBusy, ModelError)):
        kept(server, tmp_path / "calls", patience_seconds=0.5).complete(ask(20))
    server.draw = None
    replies = kept(server, tmp_path / "calls").complete(ask(20))
    assert [reply.text for reply in replies] == [f"echo text {i}" for i in range(20)]
    assert set(server.answered.values()) == {1}


@pytest.mark.parametrize("fault", ["packed", "endless"])
def test_an_answer_that_would_fill_the_memory_is_not_read(
    server: Server, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_MOST_BYTES", 1_000_000)
    server.faults = {"text 1": [fault]}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert complete(server, 3) == [f"echo text {i}" for i in range(3)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_no_request_is_made_after_the_time_that_was_given(server: Server, tmp_path: Path) -> None:
    server.always = "500"
    model = kept(server, tmp_path / "calls", max_seconds=0.3, patience_seconds=60.0)
    began = time.monotonic()
    with pytest.raises(LimitReached, match="max_seconds"):
        model.complete(ask(3))
    assert time.monotonic() - began < 20


def test_a_run_that_has_ended_waits_for_no_budget(server: Server) -> None:
    server.always = "401"
    model = opened(OpenAITextModel("own:m", endpoint(server), CallingConfig(requests_per_minute=30)))
    began = time.monotonic()
    with pytest.raises(ModelUnavailable):
        model.complete(ask(60))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("key", ["sk-1\n", "sk-\u00e9", "sk 1"])
def test_what_can_be_no_key_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OWN_KEY", key)
    setting = EndpointConfig.model_validate({"base_url": "http://127.0.0.1:9/v1", "api_key_env": "OWN_KEY"})
    with pytest.raises(ConfigError, match="OWN_KEY holds a space") as error:
        setting.read_keys()
    assert "sk" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "finish", "expected"),
    [
        ("[THINK]a plan[/THINK]The bus.", "stop", "The bus."),
        ("<reasoning>a plan</reasoning>The bus.", "stop", "The bus."),
        ("The bus <think>a plan</think>came.", "stop", "The bus came."),
        (
            "<|channel|>analysis<|message|>a plan<|end|><|channel|>final<|message|>The bus.",
            "stop",
            "The bus.",
        ),
        ("<|channel|>analysis<|message|>a plan", "length", "reasoning did not end"),
        ("The bus. <think>a plan", "length", "reasoning did not end"),
        ([{"type": "reasoning", "text": "a plan"}, {"type": "text", "text": "The bus."}], "stop", "The bus."),
        ("The bu", "error", "broken off"),
        ("The bu", "abort", "broken off"),
    ],
)
def test_thoughts_and_broken_ends_are_no_text(content: object, finish: str, expected: str) -> None:
    page = {"choices": [{"finish_reason": finish, "message": {"role": "assistant", "content": content}}]}
    try:
        shown = read_reply(page, ask(1)[0]).text
    except Unusable as error:
        shown = error.reply.reason
    assert shown == expected


def test_a_server_gets_nothing_of_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "canary")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "canary")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Own: canary")
    complete(server, 1)
    complete(server, 1, api="azure", api_version="2024-10-21")
    assert len(server.headers) == 2 and not any("canary" in headers for headers in server.headers)


def test_azure(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_KEY", KEY)
    url = server.url.removesuffix("/v1")
    settings = {"api": "azure", "base_url": url, "api_version": "2024-10-21", "api_key_env": "OWN_KEY"}
    assert complete(server, 1, **settings) == ["echo text 0"]
    assert server.lines[0].startswith("/openai/deployments/m/chat/completions?api-version=2024-10-21")
    assert f"api-key: {KEY}" in server.headers[0]


def test_vectors_come_in_the_order_of_the_texts(server: Server) -> None:
    model = OpenAIEmbedder("own:m", endpoint(server), CallingConfig())
    texts = ["a" * i for i in range(1, 151)]
    server.faults = {" ".join(texts[:64]): ["500"]}
    table = model.embed(texts)
    assert table.dtype == np.float32 and table[:, 0] / table[:, 1] == pytest.approx(range(1, 151), rel=1e-4)
    assert np.linalg.norm(table, axis=1) == pytest.approx(1.0)
    assert model.embed([]).shape == (0, 2)
    model.close()


@pytest.mark.parametrize("fault", ["no vectors", "html"])
def test_an_embedder_that_does_not_embed_ends_the_run(server: Server, fault: str) -> None:
    server.always = fault
    model = OpenAIEmbedder("own:m", endpoint(server), CallingConfig())
    with pytest.raises(ModelError, match="did not embed"):
        model.embed(["one", "two"])
    model.close()


def test_sentiment_is_asked_for_in_words() -> None:
    class Answers(FakeTextModel):
        def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
            assert {request.content for request in requests} == {"private"}
            words = ["Positive.", "negative", "positive or negative", ""]
            return [Completion(text=word, n_prompt_tokens=1, n_tokens=1, finish="stop") for word in words]

    found = PromptedSentiment(Answers()).classify(["a"] * 4)
    assert [(item.label, item.confidence) for item in found] == [
        ("positive", 1.0), ("negative", 1.0), ("neutral", 0.0), ("neutral", 0.0),
    ]  # fmt: skip


def test_a_reasoning_models_thoughts_count_against_a_limit(server: Server, tmp_path: Path) -> None:
    with pytest.raises(LimitReached):
        kept(server, tmp_path / "calls", max_tokens=1000, reasoning_tokens=1000).complete(ask(1))
    assert not server.asked


def test_ctrl_c_waits_until_what_was_paid_for_is_on_file() -> None:
    loop, seen = BackgroundLoop(), []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.2)
            seen.append("on file")

    # A process that runs in the background, as the tests may, ignores the signal unless told otherwise.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run(work())
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["on file"]
    loop.close()


def test_a_remote_embedder_is_sent_nothing(server: Server) -> None:
    model = opened(OpenAIEmbedder("own:m", endpoint(server, trust="remote"), CallingConfig()))  # type: ignore[arg-type]
    with pytest.raises(PrivateDataError, match="must be local"):
        model.embed(["a private text"])
    assert server.bodies == []
