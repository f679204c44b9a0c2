"""`guarantee: end-to-end`: what is released is a function of ledger outputs and public inputs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import pytest

from rpsg import data, registry
from rpsg.config import RunConfig
from rpsg.errors import BudgetExceeded, ConfigError, PrivateDataError
from rpsg.llm.fake import FakeTextModel, HashEmbedder
from rpsg.pipeline import plan_releases, run, statement_of
from rpsg.privacy import budget
from rpsg.privacy.budget import Budget
from rpsg.privacy.card_file import check_card
from rpsg.privacy.ledger import read_lines, read_run
from rpsg.privacy.noise import FixedNoise, IntArray
from rpsg.privacy.plain import PaidTexts
from rpsg.rng import Streams
from rpsg.rundir import RunDir, write_json
from rpsg.stages.keys import PrivateKeys, choose_words, extract_keys
from rpsg.text import WordRuns
from rpsg.types import Completion, PrivateCorpus, PrivateRecord, PrivateVariant, TextRequest
from test_pipeline import config as base_config

Drawn = TypeVar("Drawn")
WORDS = ["rent", "court", "notice", "shelter", "winter", "heater", "pantry", "wages"]


def config(folder: Path, **changes: object) -> RunConfig:
    settings: dict[str, object] = {"guarantee": "end-to-end", "epsilon": 8, "n": 10, "n_units_bound": 200}
    return base_config(folder, **{**settings, **changes})


def record(i: int, *, unit: str | None = None) -> PrivateRecord:
    # Sixteen different texts, each written by several units, so that one more changes no support.
    kind = i % 16
    words = " ".join(WORDS[(kind + step) % len(WORDS)] for step in range(5))
    return PrivateRecord(
        record_id=f"r{i}",
        unit_id=unit or f"u{i}",
        text=f"Yesterday the {words} came up again and nobody knew what would happen to number {kind}.",
        labels={"topic": ("rent", "bail")[kind % 2]},
    )


def corpus(n: int) -> PrivateCorpus:
    return PrivateCorpus(records=tuple(record(i) for i in range(n)), label_columns=("topic",))


class RecordedNoise:
    """Gives out the noisy values of an earlier run, whatever it is given now."""

    secure = False

    def __init__(self, *, log: list[object] | None = None) -> None:
        self._own = FixedNoise(7)
        self._replays = log is not None
        self.log: list[object] = [] if log is None else list(log)

    def _next(self, draw: Callable[[], Drawn]) -> Drawn:
        if self._replays:
            return cast("Drawn", self.log.pop(0))
        found = draw()
        self.log.append(found)
        return found

    def gaussian(self, values: IntArray, std: float) -> IntArray:
        found = self._next(lambda: self._own.gaussian(values, std))
        assert len(found) == len(values)
        return np.asarray(found)

    def noisy_max(self, utilities: Sequence[float], scale: float) -> int:
        return int(self._next(lambda: self._own.noisy_max(utilities, scale)))

    def shuffle(self, n: int) -> list[int]:
        return list(self._next(lambda: self._own.shuffle(n)))

    def token(self) -> str:
        return str(self._next(self._own.token))


def release_of(
    folder: Path, settings: RunConfig, texts: PrivateCorpus, noise: RecordedNoise
) -> dict[str, bytes]:
    # The run's random id is the only thing on the card that is not computed from settings and ledger.
    opened = RunDir.create(folder, settings, fingerprint=data.fingerprint(texts))
    write_json(opened.manifest, {"run_id": "0" * 16, "layout": 1})
    run(settings, texts, noise=noise)
    return {path.name: path.read_bytes() for path in sorted((folder / "release").iterdir())}


SETTINGS: dict[str, dict[str, object]] = {
    "one round": {},
    "three rounds": {"vote": {"rounds": 3}},
    "no vote": {"vote": {"enabled": False}},
    "several topics": {"n_units_bound": 4000},
    "with removal of details": {"refine": {"pii": {"enabled": True}}},
    "every format": {"output": {"formats": ["jsonl", "csv", "parquet"]}},
}


@pytest.mark.parametrize("name", list(SETTINGS))
def test_neighbours_with_the_same_draws_release_the_same_bytes(tmp_path: Path, name: str) -> None:
    noise = RecordedNoise()
    found = []
    for i, texts in enumerate((corpus(120), corpus(121))):
        changes = dict(SETTINGS[name])
        output = {**dict(changes.pop("output", {})), "folder": str(tmp_path / str(i))}  # type: ignore[call-overload]
        settings = config(tmp_path / str(i), **changes).model_copy(
            update={"output": RunConfig.parse({"output": output}).output}
        )
        source = noise if i == 0 else RecordedNoise(log=noise.log)
        found.append(release_of(tmp_path / str(i), settings, texts, source))
    assert {"synthetic.jsonl", "privacy_card.json", "privacy_card.md", "README.md"} <= set(found[0])
    assert found[0] == found[1]


def test_other_draws_release_other_bytes(tmp_path: Path) -> None:
    one, two = RecordedNoise(), RecordedNoise()
    two._own = FixedNoise(8)
    a, b = (
        release_of(tmp_path / name, config(tmp_path / name), corpus(120), noise)
        for name, noise in (("a", one), ("b", two))
    )
    assert a["synthetic.jsonl"] != b["synthetic.jsonl"]


def test_a_run_keeps_its_promise_and_says_so_before_and_after(tmp_path: Path) -> None:
    settings, texts = config(tmp_path / "run"), corpus(150)
    result = run(settings, texts)
    assert result.complete and len(result.texts) == 10
    assert result.statement == statement_of(settings, texts)
    assert result.statement.startswith("The complete set of released texts is (epsilon=8, delta=1e-06)-DP")
    card = result.folder / "release/privacy_card.json"
    assert check_card(card, ledger=read_run(result.folder / "private/ledger.sqlite")) == []
    page = json.loads(card.read_text())
    assert page["figures"][0]["epsilon"] == pytest.approx(8, abs=1e-3)
    assert [line["release"] for line in page["releases"]] == [
        "facets",
        "labels",
        "phrases",
        "vote 1",
        "texts",
    ]
    assert page["releases"][-1]["events"] == []
    assert {text.labels["topic"] for text in result.texts} <= {"rent", "bail", "other"}


def test_the_plan_reads_no_data(tmp_path: Path) -> None:
    settings = config(tmp_path / "run")
    assert plan_releases(settings, corpus(20)) == plan_releases(settings, corpus(150))
    lines = plan_releases(settings, corpus(20))
    assert "all of it: epsilon 8, delta 1e-06" in lines[-1].cost
    few = plan_releases(config(tmp_path / "run", n_units_bound=30), corpus(20))
    assert any("is named only when more than half" in line.warning for line in few)


def test_the_writing_model_may_be_remote_and_reads_no_private_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Remote(FakeTextModel):
        def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
            seen.extend(turn.content for request in requests for turn in request.messages)
            return super().complete(requests)

    monkeypatch.setattr(registry, "text_model", lambda *_, **__: Remote(trust="remote"))
    texts = corpus(150)
    run(config(tmp_path / "run", vote={"rounds": 2}), texts)
    private = WordRuns.build([item.text for item in texts.records], 6)
    assert seen and not any(private.shared_with(text) for text in seen)
    assert "| write | fake | remote |" in (tmp_path / "run/release/privacy_card.md").read_text()


@pytest.mark.parametrize("missing", ["epsilon", "n", "n_units_bound"])
def test_nothing_is_taken_from_the_data_that_the_user_did_not_say(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"{missing} must be set with guarantee: end-to-end"):
        config(tmp_path / "run", **{missing: None})


def test_runs_are_charged_to_the_budget_of_their_data(tmp_path: Path) -> None:
    texts = corpus(150)
    shared = Budget.create(texts, name="posts.csv", epsilon=10, delta=1e-6)
    settings = config(tmp_path / "one")
    run(settings, texts)
    assert shared.state().spent_epsilon == pytest.approx(8, rel=1e-6)
    # A second call reads the first back and is not charged again; another run does not fit.
    run(settings, texts)
    assert shared.state().n_runs == 1
    with pytest.raises(BudgetExceeded, match="Nothing was drawn"):
        run(config(tmp_path / "two"), texts)
    assert read_lines(tmp_path / "two/private/ledger.sqlite") == []
    run(config(tmp_path / "three", outside_budget=True), texts)
    assert "Outside the data budget: 1 run(s)" in (tmp_path / "three/release/privacy_card.md").read_text()
    assert budget.all_budgets()[0].n_outside == 1


def test_a_stopped_run_is_replayed_and_never_drawn_again(tmp_path: Path) -> None:
    settings, texts = config(tmp_path / "run"), corpus(150)

    class Stop(Exception):
        pass

    def stop(step: object) -> None:
        if "vote 1" in repr(step):
            raise Stop

    with pytest.raises(Stop):
        run(settings, texts, on_progress=stop)
    before = read_lines(tmp_path / "run/private/ledger.sqlite")
    result = run(settings, texts)
    after = read_lines(result.folder / "private/ledger.sqlite")
    assert after[: len(before)] == before and len(after) == len(before) + 1


def keys_of(records: Sequence[PrivateRecord]) -> PrivateKeys:
    embedder = HashEmbedder()
    vectors = dict(
        zip((r.record_id for r in records), embedder.embed([r.text for r in records]), strict=True)
    )
    centroids = embedder.embed(["rent and court", "winter and heater", "pantry"])
    return extract_keys(
        records, vectors=vectors, tones={}, centroids=centroids, max_phrases=3, salt=Streams(0)
    )


def test_a_units_keys_are_a_function_of_that_unit_alone() -> None:
    everyone = [record(i) for i in range(40)]
    together = keys_of(everyone)
    for i, one in enumerate(everyone):
        alone = keys_of([one])
        assert (alone.topics[0], alone.facets[0]) == (together.topics[i], together.facets[i])
        assert alone.phrases[one.unit_id] == together.phrases[one.unit_id]
        assert alone.labels[one.unit_id] == together.labels[one.unit_id]


def test_several_records_of_one_unit_count_once() -> None:
    many = keys_of([record(i, unit="anna") for i in range(30)] + [record(3, unit="ben")])
    assert len(many.topics) == len(many.facets) == len(many.units) == 2
    assert len(many.phrases["anna"]) == 3 and len(many.labels["anna"]) == 1


def test_words_are_ranked_by_a_public_hash_not_by_frequency() -> None:
    one = choose_words(["rent rent rent court winter heater"], 2, Streams(0))
    two = choose_words(["heater winter court rent"], 2, Streams(0))
    assert one == two and len(one) == 2


def test_only_candidates_are_paid_for() -> None:
    variant = PrivateVariant(variant_id="v", record_id="r", text="zanzibar")
    with pytest.raises(PrivateDataError):
        PaidTexts(reason="x").sample([variant], FixedNoise(1))  # type: ignore[list-item]


def test_label_values_that_few_people_have_are_never_named(tmp_path: Path) -> None:
    rare = replace(corpus(150).records[0], labels={"topic": "zanzibar"})
    texts = replace(corpus(150), records=(rare, *corpus(150).records[1:]))
    result = run(config(tmp_path / "run"), texts)
    content = "".join(path.read_text() for path in (result.folder / "release").iterdir())
    assert "zanzibar" not in content
