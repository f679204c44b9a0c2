"""The plan of calls against what a run then asks."""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest

from rpsg import pipeline
from rpsg.config import RunConfig
from rpsg.data import sample_path
from rpsg.llm.fake import FakeTextModel
from rpsg.llm.meter import load_prices
from rpsg.plan_calls import plan_calls, shortest_seconds
from rpsg.types import Completion, TextRequest
from test_cli import call

POSTS = sample_path("posts_test.jsonl")


def config(folder: Path, **over: object) -> RunConfig:
    values: dict[str, object] = {
        "data": {"path": str(POSTS)},
        "models": {"abstract": "fake", "write": "fake", "embed": "hash", "sentiment": None},
        "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}, "refill_rounds": 0},
        "evaluate": {"enabled": False},
        "output": {"folder": str(folder)},
        "n": 10,
    }
    return RunConfig.parse({**values, **over})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    counts: Counter[str] = Counter()
    answer = FakeTextModel.complete

    def complete(self: FakeTextModel, requests: Sequence[TextRequest]) -> list[Completion]:
        counts.update(request.content for request in requests)
        return answer(self, requests)

    monkeypatch.setattr(FakeTextModel, "complete", complete)
    return counts


PAID: dict[str, object] = {"guarantee": "end-to-end", "epsilon": 8, "n_units_bound": 500}


@pytest.mark.parametrize(
    "over",
    [
        {"guarantee": "end-to-end", "epsilon": 0, "n_units_bound": 500},
        PAID,
        {**PAID, "vote": {"rounds": 3}, "n_units_bound": 2000},
    ],
    ids=["public prompts", "paid", "three rounds"],
)
def test_an_end_to_end_run_asks_what_was_planned(
    tmp_path: Path, over: dict[str, object], asked: Counter[str]
) -> None:
    settings = config(tmp_path / "run", **over)
    corpus = pipeline.load_corpus(settings)
    planned = plan_calls(settings, corpus, pipeline.plan(settings, corpus))
    pipeline.run(settings, corpus)
    n_planned = sum(task.n_calls for task in planned)
    # A seed for which no word was named is written from the prompt without drafts.
    assert n_planned / settings.write.n_drafts <= sum(asked.values()) <= n_planned
    if settings.epsilon == 0:
        assert asked == {"public": n_planned}


def test_a_run_from_summaries_asks_what_was_planned(tmp_path: Path, asked: Counter[str]) -> None:
    settings = config(tmp_path / "run")
    corpus = pipeline.load_corpus(settings)
    planned = {task.task: task for task in plan_calls(settings, corpus, pipeline.plan(settings, corpus))}
    pipeline.run(settings, corpus)
    assert planned["summarise"].n_calls <= asked["private"] <= 2 * planned["summarise"].n_calls
    n_written = planned["write"].n_calls + planned["rewrite"].n_calls
    assert 0.5 * n_written <= asked["abstraction"] <= n_written


def test_cost_is_that_of_the_price_table_and_unknown_stays_unknown(tmp_path: Path) -> None:
    table = tmp_path / "prices.json"
    table.write_text('{"version": "1", "models": {"own:m": {"prompt": 1.0, "completion": 10.0}}}')
    calling = {"prices": str(table), "requests_per_minute": 10, "tokens_per_minute": 1000}
    settings = config(
        tmp_path / "run",
        **{**PAID, "n_units_bound": 150},
        models={"write": "own:m", "embed": "hash", "sentiment": None},
        endpoints={"own": {"base_url": "http://127.0.0.1:9/v1"}},
        calling=calling,
    )
    corpus = pipeline.load_corpus(settings)
    (task,) = plan_calls(settings, corpus, pipeline.plan(settings, corpus))
    assert task.cost == pytest.approx((task.n_prompt_tokens + 10 * task.n_tokens) / 1e6)
    by_tokens = 60 * (task.n_prompt_tokens + task.n_tokens) / 1000
    assert shortest_seconds(settings, [task]) == pytest.approx(max(by_tokens, 6 * task.n_calls))
    unpriced = settings.model_copy(update={"calling": type(settings.calling)()})
    (task,) = plan_calls(unpriced, corpus, pipeline.plan(unpriced, corpus))
    assert task.cost is None and shortest_seconds(unpriced, [task]) is None


def test_the_packages_prices_say_where_and_when_they_were_read() -> None:
    table = load_prices(None)
    known = {name: price for name, price in table.models.items() if price is not None}
    assert known and all(price.source and price.checked for price in known.values())
    assert date.fromisoformat(table.version) >= max(price.checked or date.min for price in known.values())
    states = {name: price.confirmed for name, price in known.items()}
    assert set(states.values()) == {True, False}
    assert all(table.is_confirmed(name) == confirmed for name, confirmed in states.items())
    assert not table.is_confirmed("own:m") and table.cost("own:m", 1, 1) is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("openai:gpt-4o-mini", "price not confirmed"),
        ("openai:gpt-3.5-turbo", "."),
        ("openai:new", "price unknown"),
    ],
)
def test_a_plan_says_what_is_not_known_of_a_price(
    name: str, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    models = {"write": name, "embed": "hash", "sentiment": None}
    file = tmp_path / "rpsg.yaml"
    file.write_text(config(tmp_path / "run", **{**PAID, "n_units_bound": 150}, models=models).to_yaml())
    assert call("plan", file) == 0
    printed = capsys.readouterr().out
    (line,) = [row for row in printed.splitlines() if name in row]
    assert shown in line
    assert ("not confirmed" in line) == (shown == "price not confirmed")


def test_the_command_prints_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rpsg.yaml"
    file.write_text(config(tmp_path / "run").to_yaml())
    assert call("plan", file) == 0
    shown = capsys.readouterr().out
    assert "summarise" in shown and "this machine" in shown and "tokens are estimates" in shown
