"""RUPTA: rewriting until nothing gives anybody away; no guarantee, and local models only."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rpsg import registry
from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.errors import ConfigError, PrivateDataError
from rpsg.llm.fake import FakeTextModel
from rpsg.loading import check_trust
from rpsg.methods.rupta import _PrivateRewrite
from rpsg.pipeline import plan_releases, plan_tasks, run, statement_of
from rpsg.privacy.card_file import check_card, read_card
from rpsg.privacy.ledger import read_run
from rpsg.types import Completion, PrivateCorpus, PrivateRecord, TextRequest
from test_pipeline import config as base_config

NAMES = ("Zebulon", "Millersby", "Xanthippe")


class Rewriter(FakeTextModel):
    """Finds the names it knows, and takes out one of them a round."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails
        self.asked: list[TextRequest] = []

    def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
        self.asked += requests
        return [self._answer(request) for request in requests]

    def _answer(self, request: TextRequest) -> Completion:
        given = request.messages[-1].content
        if not request.messages[0].content.startswith("You list"):
            text = given.partition("<text>\n")[2].partition("\n</text>")[0]
            held = [name for name in NAMES if name in text]
            reply = "" if self.fails else text.replace(held[0], "somebody") if held else text
        else:
            reply = "\n".join(f"- {name}" for name in NAMES if name in given) or "none"
        return Completion(text=reply, n_prompt_tokens=1, n_tokens=len(reply.split()), finish="stop")


def corpus(n: int = 60) -> PrivateCorpus:
    posts = read_corpus(sample_path("posts_train.jsonl")).records[:n]
    return PrivateCorpus(
        records=tuple(
            PrivateRecord(
                record_id=f"r{i}",
                unit_id=f"u{i}",
                text=f"{' and '.join(NAMES[: i % 3 + 1])} said so. {' '.join(record.text.split())}",
                labels={"topic": "pets"},
            )
            for i, record in enumerate(posts)
        ),
        label_columns=("topic",),
    )


def config(folder: Path, **changes: object) -> RunConfig:
    values = base_config(folder).model_dump(mode="json", exclude_unset=True)
    del values["guarantee"]
    return RunConfig.parse({**values, "method": "rupta", "n": 10, **changes})


@pytest.fixture
def rewriter(monkeypatch: pytest.MonkeyPatch) -> Rewriter:
    model = Rewriter()
    monkeypatch.setattr(registry, "text_model", lambda *_, **__: model)
    return model


def test_names_are_taken_out_round_by_round(tmp_path: Path, rewriter: Rewriter) -> None:
    result = run(config(tmp_path / "run"), corpus())
    assert len(result.texts) == 10
    assert not any(name in item.text for item in result.texts for name in NAMES)
    private = {record.text for record in corpus().records}
    assert not private & {item.text for item in result.texts}
    assert {item.labels["topic"] for item in result.texts} == {"pets"}
    # A text with three names takes three rewrites, and no more are asked for than needed.
    rewrites = [r for r in rewriter.asked if "Say in general words" in r.messages[-1].content]
    assert len(rewrites) < 10 * 4 and {request.content for request in rewriter.asked} == {"private"}


def test_a_long_number_of_the_text_is_a_giveaway_whatever_the_model_says(
    tmp_path: Path, rewriter: Rewriter
) -> None:
    known = corpus()
    records = [replace(item, text=f"Ring 066.673.996. {item.text}") for item in known.records]
    run(config(tmp_path / "run"), replace(known, records=tuple(records)))
    asked = [
        r.messages[-1].content for r in rewriter.asked if "Say in general words" in r.messages[-1].content
    ]
    assert asked and all("066.673.996" in text.partition("</text>")[2] for text in asked)


def test_a_judge_of_its_own_looks_for_giveaways_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"fake": Rewriter(), "fake-judge": Rewriter()}
    monkeypatch.setattr(registry, "text_model", lambda name, **_: models[name])
    settings = config(tmp_path / "run")
    named = settings.models.model_dump() | {"judge": "fake-judge"}
    result = run(config(tmp_path / "run", models=named), corpus())
    assert not any(name in item.text for item in result.texts for name in NAMES)
    asked = {
        name: {r.messages[0].content.startswith("You list") for r in model.asked}
        for name, model in models.items()
    }
    assert asked == {"fake": {False}, "fake-judge": {True}}
    flows = read_card(result.folder / "release/privacy_card.json")[0].inputs.data_flow
    assert "look for giveaways" in {flow.task for flow in flows}


def test_a_judge_is_local_and_of_this_method(tmp_path: Path) -> None:
    named = config(tmp_path / "run").models.model_dump()
    remote = {"far": {"base_url": "https://far.example/v1"}}
    with pytest.raises(PrivateDataError, match="looking for giveaways"):
        check_trust(config(tmp_path / "run", models=named | {"judge": "far:m"}, endpoints=remote))
    with pytest.raises(ConfigError, match="asked by method: rupta alone"):
        base_config(tmp_path / "run", models=named | {"judge": "fake"})


def test_the_card_promises_nothing(tmp_path: Path, rewriter: Rewriter) -> None:
    settings = config(tmp_path / "run")
    result = run(settings, corpus())
    path = result.folder / "release/privacy_card.json"
    card, _ = read_card(path)
    assert card.statement == result.statement == statement_of(settings, corpus())
    assert card.statement.startswith("No differential privacy of any kind. Each output is one private text")
    assert card.figures == () and "wording and facts that a rewrite keeps" in card.not_covered
    assert {flow.task: flow.reads for flow in card.inputs.data_flow}[
        "write"
    ] == "private texts, and rewrites of them"
    assert check_card(path, ledger=read_run(tmp_path / "run/private/ledger.sqlite")) == []
    assert run(settings, corpus()).texts == result.texts


def test_the_loop_ends_after_the_last_round_and_keeps_the_best(tmp_path: Path, rewriter: Rewriter) -> None:
    result = run(config(tmp_path / "run", rupta={"rounds": 1}), corpus())
    # One round takes out one name: texts with two or three keep some, and are released all the same.
    assert any(name in item.text for item in result.texts for name in NAMES)
    assert not any("Zebulon" in item.text for item in result.texts)


def test_a_text_that_was_not_rewritten_is_never_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "text_model", lambda *_, **__: Rewriter(fails=True))
    result = run(config(tmp_path / "run"), corpus())
    assert result.texts == () and result.rejected["rewrite: no usable rewrite"] > 0


@pytest.mark.parametrize(
    "repeat",
    [str.upper, lambda text: text.replace("'", "\u2019"), lambda text: text + " Thanks for reading."],
)
def test_a_text_that_the_model_repeats_is_never_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeat: Callable[[str], str]
) -> None:
    class Echo(FakeTextModel):
        def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
            replies = []
            for request in requests:
                text = request.messages[-1].content.partition("<text>\n")[2].partition("\n</text>")[0]
                is_list = request.messages[0].content.startswith("You list")
                replies.append("none" if is_list else f'"{repeat(text)}"')
            return [Completion(text=reply, n_prompt_tokens=1, n_tokens=1, finish="stop") for reply in replies]

    monkeypatch.setattr(registry, "text_model", lambda *_, **__: Echo())
    result = run(config(tmp_path / "run"), corpus())
    assert result.texts == () and result.rejected["rewrite: no usable rewrite"] > 0


def test_memory_holds_the_last_rewrites(tmp_path: Path, rewriter: Rewriter) -> None:
    run(config(tmp_path / "run", rupta={"rounds": 5, "memory": 1}), corpus())
    shown = [r.messages[-1].content for r in rewriter.asked if "Not like this" in r.messages[-1].content]
    assert shown and all(text.split("\n<text>")[0].count(" / ") == 0 for text in shown)


def test_privacy_comes_before_utility() -> None:
    item = _PrivateRewrite(record=corpus(1).records[0], text="")
    assert item.best is None
    item.tries = [(2, True, "useful"), (0, False, "safe"), (1, True, "between")]
    assert item.best == "safe"
    item.tries.append((0, True, "both"))
    item.tries.append((0, True, "newest"))
    assert item.best == "newest"
    assert "useful" not in repr(item)


def test_a_remote_model_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    endpoints = {"far": {"base_url": "https://api.example.com/v1", "trust": "remote"}}
    models = {"abstract": "fake", "write": "far:model", "embed": "hash", "sentiment": None}
    settings = config(tmp_path / "run", endpoints=endpoints, models=models, allow_remote_abstractions=True)
    with pytest.raises(PrivateDataError, match="far:model"):
        run(settings, corpus())
    assert not (tmp_path / "run").exists()


def test_only_one_guarantee_fits() -> None:
    with pytest.raises(ConfigError, match="guarantee: none"):
        RunConfig.parse(
            {"method": "rupta", "guarantee": "end-to-end", "n": 5, "epsilon": 4, "n_units_bound": 9}
        )


def test_plan(tmp_path: Path) -> None:
    (line,) = plan_releases(config(tmp_path), corpus())
    assert line.cost == "epsilon infinite: no noise" and "10 rewrites" in line.signal
    assert {task.task: task.n_calls for task in plan_tasks(config(tmp_path), corpus())} == {
        "find giveaways": 60,
        "rewrite": 50,
    }


def test_without_labels_nearness_is_what_counts(tmp_path: Path, rewriter: Rewriter) -> None:
    texts = corpus()
    bare = replace(texts, records=tuple(replace(r, labels={}) for r in texts.records), label_columns=())
    assert len(run(config(tmp_path / "run"), bare).texts) == 10
