"""What each provider is sent and how its answers read: shapes that their documentation shows, on loopback."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from rpsg.endpoints import BUILT_IN, CallingConfig, EndpointConfig, find_endpoint
from rpsg.llm import calling
from rpsg.llm.openai import OpenAITextModel
from rpsg.types import Message, TextRequest

KEY = "sk-canary-key"
ASKED = TextRequest(
    messages=(
        Message(role="system", content="You write posts."),
        Message(role="user", content="Write one."),
    ),
    content="public",
    max_tokens=40,
    temperature=0.7,
    top_k=30,
    top_p=0.9,
    stop=("###",),
    seed=2**31 + 5,
)
MESSAGES = [{"role": "system", "content": "You write posts."}, {"role": "user", "content": "Write one."}]
COMMON = {"messages": MESSAGES, "temperature": 0.7, "top_p": 0.9, "stop": ["###"], "seed": 5}
TEXT = "My bus was late again."
Page = dict[str, Any]


def page(message: Page, usage: Page, *, choice: Page | None = None, **more: object) -> Page:
    begun = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": 1741569952,
        "choices": [{**begun, **(choice or {})}],
        "usage": usage,
        **more,
    }


def refusal(param: str, code: str) -> Page:
    message = f"Unsupported parameter: '{param}' is not supported with this model."
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def used(read: int, written: int, **details: object) -> Page:
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        **details,
    }


@dataclass(frozen=True, kw_only=True)
class Case:
    """`body` is what is sent beside messages and sampling; `answers` come one after another."""

    model: str
    answers: tuple[Page, ...]
    body: Page
    usage: tuple[int | None, int | None]
    path: str = "/v1/chat/completions"
    key: bool = False
    without: frozenset[str] = frozenset()
    text: str = TEXT
    reason: str = ""
    settings: Page = field(default_factory=dict)


OPENAI = page(
    {"content": TEXT, "refusal": None, "annotations": []},
    used(
        19,
        10,
        prompt_tokens_details={"cached_tokens": 0, "audio_tokens": 0},
        completion_tokens_details={"reasoning_tokens": 0, "accepted_prediction_tokens": 0},
    ),
    choice={"logprobs": None},
    model="gpt-4o-mini-2024-07-18",
    service_tier="default",
    system_fingerprint="fp_72ed7ab54c",
)
REASONED = page(
    {"content": TEXT, "refusal": None},
    used(19, 330, completion_tokens_details={"reasoning_tokens": 320}),
    model="o4-mini-2025-04-16",
)
SAFE = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": False, "severity": "safe"}}
CASES = {
    "openai": Case(
        model="openai:gpt-4o-mini",
        key=True,
        answers=(OPENAI,),
        body={"model": "gpt-4o-mini", "max_tokens": 40},
        usage=(19, 10),
    ),
    "openai-newer": Case(
        model="openai:o4-mini",
        key=True,
        answers=(
            refusal("max_tokens", "unsupported_parameter"),
            refusal("temperature", "unsupported_value"),
            refusal("top_p", "unsupported_parameter"),
            refusal("stop", "unsupported_parameter"),
            REASONED,
        ),
        body={"model": "o4-mini", "max_completion_tokens": 40},
        without=frozenset({"temperature", "top_p", "stop"}),
        usage=(19, 330),
    ),
    "openai-refuses": Case(
        model="openai:gpt-4o-mini",
        key=True,
        answers=(page({"content": None, "refusal": "I'm sorry, I can't help with that."}, used(19, 9)),),
        body={"model": "gpt-4o-mini", "max_tokens": 40},
        usage=(19, 9),
        text="",
        reason="refusal",
    ),
    "azure": Case(
        model="azure:my-deployment",
        key=True,
        path="/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21",
        answers=(
            page(
                {"content": TEXT},
                used(19, 10),
                choice={"content_filter_results": SAFE},
                model="gpt-4o-mini",
                prompt_filter_results=[{"prompt_index": 0, "content_filter_results": SAFE}],
            ),
        ),
        body={"model": "my-deployment", "max_tokens": 40},
        usage=(19, 10),
    ),
    "deepseek-r1": Case(
        model="deepseek:deepseek-reasoner",
        key=True,
        answers=(
            page(
                {"content": TEXT, "reasoning_content": "The user wants a post. ### I think of a bus."},
                used(
                    12,
                    410,
                    prompt_tokens_details={"cached_tokens": 0},
                    completion_tokens_details={"reasoning_tokens": 400},
                    prompt_cache_hit_tokens=0,
                    prompt_cache_miss_tokens=12,
                ),
                choice={"logprobs": None},
                model="deepseek-reasoner",
                system_fingerprint="fp_393bca965e_prod0623_fp8_kvcache",
            ),
        ),
        body={"model": "deepseek-reasoner", "max_tokens": 40 + 4096},
        usage=(12, 410),
    ),
    # An R1 on a server without a parser of its thoughts: they stand in the text, as its chat template begins
    # with the first mark also without it.
    "r1-inline": Case(
        model="vllm:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        settings={"reasoning_tokens": 2048},
        answers=(page({"content": f"<think>\nA bus, ### I think.\n</think>\n\n{TEXT}"}, used(14, 40)),),
        body={"model": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "max_tokens": 40 + 2048, "top_k": 30},
        usage=(14, 40),
    ),
    "r1-inline-without-its-first-mark": Case(
        model="vllm:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        answers=(page({"content": f"Okay, a bus.\n</think>\n\n{TEXT}"}, used(14, 40)),),
        body={"model": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "max_tokens": 40, "top_k": 30},
        usage=(14, 40),
    ),
    "vllm": Case(
        model="vllm:Qwen/Qwen3-0.6B",
        answers=(
            page(
                {
                    "content": TEXT,
                    "refusal": None,
                    "annotations": None,
                    "audio": None,
                    "function_call": None,
                    "tool_calls": [],
                    "reasoning": "A bus, perhaps.",
                    "reasoning_content": "A bus, perhaps.",
                },
                used(24, 20, prompt_tokens_details=None),
                choice={"logprobs": None, "stop_reason": None, "token_ids": None},
                model="Qwen/Qwen3-0.6B",
                service_tier=None,
                system_fingerprint=None,
                prompt_logprobs=None,
                kv_transfer_params=None,
            ),
        ),
        body={"model": "Qwen/Qwen3-0.6B", "max_tokens": 40, "top_k": 30},
        usage=(24, 20),
    ),
    "llama-server": Case(
        model="llama-server:gemma-3-4b-it",
        answers=(
            page(
                {"content": TEXT},
                used(28, 7),
                model="gemma-3-4b-it",
                system_fingerprint="b6290-a6a58d64",
                timings={"prompt_n": 28, "prompt_ms": 447.9, "predicted_n": 7, "predicted_per_second": 16.7},
            ),
        ),
        body={"model": "gemma-3-4b-it", "max_tokens": 40, "top_k": 30},
        usage=(28, 7),
    ),
    "ollama": Case(
        model="ollama:gpt-oss:20b",
        answers=(
            page(
                {"content": TEXT, "reasoning": "The user asks for a post."},
                used(73, 78),
                model="gpt-oss:20b",
                system_fingerprint="fp_ollama",
            ),
        ),
        body={"model": "gpt-oss:20b", "max_tokens": 40},
        usage=(73, 78),
    ),
    "lmstudio": Case(
        model="lmstudio:qwen2.5-7b-instruct",
        answers=(
            page(
                {"content": TEXT, "tool_calls": []},
                used(31, 27),
                choice={"logprobs": None},
                model="qwen2.5-7b-instruct",
                stats={},
                system_fingerprint="qwen2.5-7b-instruct",
            ),
        ),
        body={"model": "qwen2.5-7b-instruct", "max_tokens": 40},
        usage=(31, 27),
    ),
    # Older servers of llama.cpp's kind leave the usage out; nothing is made up for them.
    "silent": Case(
        model="llama-server:old",
        answers=({"choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}}]},),
        body={"model": "old", "max_tokens": 40, "top_k": 30},
        usage=(None, None),
    ),
}


class Recorder:
    """Answers with pages in turn, errors as 400; keeps each request's path, headers and body."""

    def __init__(self) -> None:
        self.answers: list[Page] = []
        self.seen: list[tuple[str, dict[str, str], Page]] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                recorder.seen.append((self.path, headers, body))
                answer = recorder.answers.pop(0)
                payload = json.dumps(answer).encode()
                self.send_response(400 if "error" in answer else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.root = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    monkeypatch.setattr(calling, "_FIRST_PAUSE", 0.001)
    monkeypatch.setenv("OWN_KEY", KEY)
    found = Recorder()
    yield found
    found.close()


@pytest.mark.parametrize("name", CASES)
def test_a_provider_is_asked_and_read_as_it_wants(name: str, recorder: Recorder) -> None:
    case = CASES[name]
    prefix = case.model.split(":")[0]
    url = recorder.root if prefix == "azure" else f"{recorder.root}/v1"
    own: Page = {"base_url": url, **({"api_key_env": "OWN_KEY"} if case.key else {}), **case.settings}
    endpoint = find_endpoint(case.model, {prefix: EndpointConfig.model_validate(own)})
    assert endpoint is not None and endpoint.trust == "remote"
    recorder.answers = list(case.answers)
    model = OpenAITextModel(case.model, endpoint, CallingConfig())
    (reply,) = model.complete([ASKED])
    model.close()
    assert (reply.text, reply.reason) == (case.text, case.reason)
    assert (reply.n_prompt_tokens, reply.n_tokens) == case.usage
    assert not recorder.answers and len(recorder.seen) == len(case.answers)
    path, headers, body = recorder.seen[-1]
    assert path == case.path
    assert body == {name: item for name, item in COMMON.items() if name not in case.without} | case.body
    assert headers["content-type"] == "application/json"
    # What this machine runs is nobody's business.
    told = {"lang", "package-version", "os", "arch", "runtime", "runtime-version"}
    assert not {f"x-stainless-{name}" for name in told} & headers.keys()
    if prefix == "azure":
        assert headers["api-key"] == KEY and "authorization" not in headers
    else:
        assert headers["authorization"] == f"Bearer {KEY if case.key else 'none'}"
    assert KEY not in json.dumps(body) and "openai-organization" not in headers


def test_every_known_endpoint_has_a_recorded_shape() -> None:
    assert {case.model.split(":")[0] for case in CASES.values()} == set(BUILT_IN)
    # Where they are, by the providers' own documentation.
    where = {name: endpoint.base_url for name, endpoint in BUILT_IN.items()}
    assert where == {
        "openai": ("https://api.openai.com/v1",),
        "azure": (),
        "deepseek": ("https://api.deepseek.com/v1",),
        "vllm": ("http://127.0.0.1:8000/v1",),
        "llama-server": ("http://127.0.0.1:8080/v1",),
        "ollama": ("http://127.0.0.1:11434/v1",),
        "lmstudio": ("http://127.0.0.1:1234/v1",),
    }
