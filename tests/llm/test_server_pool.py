"""Several servers of one model: the least busy is asked, a dead one is left and tried again later."""

from collections.abc import Callable, Iterator

import pytest

from fault_server import OK, Server
from rpsg.endpoints import CallingConfig, EndpointConfig
from rpsg.llm import calling
from rpsg.llm.openai import OpenAITextModel
from rpsg.types import Message, TextRequest

Pair = tuple[Server, Server]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float, float], Pair]]:
    monkeypatch.setattr(calling, "_FIRST_PAUSE", 0.01)
    opened: list[Server] = []

    def start(first: float, second: float) -> Pair:
        opened.extend(Server(delay=delay) for delay in (first, second))
        return opened[0], opened[1]

    yield start
    for server in opened:
        server.close()


def complete(servers: Pair, n: int, *, at_once: int = 8, timeout: float = 5.0) -> None:
    """Has `n` prompts answered and checks the replies."""
    urls = tuple(server.url for server in servers)
    endpoint = EndpointConfig(base_url=urls, trust="local", timeout_seconds=timeout)
    model = OpenAITextModel("own:m", endpoint, CallingConfig(max_concurrency=at_once))
    requests = [
        TextRequest(messages=(Message(role="user", content=f"text {i}"),), content="public", max_tokens=9)
        for i in range(n)
    ]
    try:
        assert [reply.text for reply in model.complete(requests)] == [f"echo text {i}" for i in range(n)]
    finally:
        model.close()


def answers(server: Server) -> int:
    return sum(server.answered.values())


def test_the_least_busy_server_is_asked(serve: Callable[[float, float], Pair]) -> None:
    slow, quick = serve(0.2, 0.02)
    complete((slow, quick), 200)
    # At all times both have as many calls as they may: the quick one answers more in the same time.
    assert answers(slow) > 8 and answers(quick) > 3 * answers(slow)
    assert answers(slow) + answers(quick) == 200


def test_a_server_that_is_dead_is_used_again_when_it_is_back(serve: Callable[[float, float], Pair]) -> None:
    ill, well = serve(0.0, 0.05)
    tries: list[str] = []

    def recover(prompt: str) -> str:
        tries.append(prompt)
        return "503" if len(tries) <= 6 else OK

    ill.draw = recover
    complete((ill, well), 400)
    # It was left: in the time of its failures the other answered many; then it took its share.
    assert len(tries) > 6 and answers(ill) > 50 and answers(well) > 50
    assert answers(ill) + answers(well) == 400


@pytest.mark.parametrize("is_first", [True, False])
def test_calls_do_not_wait_at_a_server_that_hangs(
    serve: Callable[[float, float], Pair], is_first: bool
) -> None:
    hung, well = serve(30.0, 0.01)
    complete((hung, well) if is_first else (well, hung), 300, at_once=64, timeout=1.0)
    assert answers(well) >= 300
    # The calls of its first moment, then one at a time: they wait for nothing.
    assert sum(hung.asked.values()) <= 20
