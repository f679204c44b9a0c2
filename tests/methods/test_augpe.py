"""AUG-PE: end-to-end private votes among texts from public prompts."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rpsg import registry
from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.errors import ConfigError, PrivacyError, PrivateDataError
from rpsg.llm.fake import FakeTextModel, HashEmbedder
from rpsg.methods import augpe as augpe_method
from rpsg.methods.augpe_api import mask_words
from rpsg.methods.augpe_plan import AugpePlan, solve, survivors_of
from rpsg.methods.common import share_out
from rpsg.pipeline import plan_releases, plan_tasks, run, statement_of
from rpsg.privacy import ledger
from rpsg.privacy.accounting import compose, gaussian_epsilon
from rpsg.privacy.budget import Budget
from rpsg.privacy.card_file import check_card, read_card
from rpsg.privacy.events import GaussianEvent
from rpsg.privacy.ledger import read_run
from rpsg.privacy.lines import body_of
from rpsg.privacy.mechanisms import Mechanism
from rpsg.privacy.noise import FixedNoise, IntArray
from rpsg.types import Completion, PrivateCorpus, PrivateRecord, Progress, TextRequest
from test_pipeline import Stop, stop_at
from test_pipeline import config as base_config

# arXiv 2403.01749: units, epsilon, published noise multiplier; 10 epochs, delta = 1 / (N ln N).
PUBLISHED = [
    (75_316, 1, 13.26), (75_316, 2, 7.01), (75_316, 4, 3.75),
    (8_396, 1, 11.60), (8_396, 2, 6.22), (8_396, 4, 3.38),
    (1_939_290, 1, 15.34), (1_939_290, 2, 8.03), (1_939_290, 4, 4.24),
]  # fmt: skip
TOPICS = ["eviction", "debt", "custody", "insomnia", "probation"]
DATA = {"path": "unused", "label_columns": ["topic"], "label_values": {"topic": TOPICS}}


@pytest.fixture(scope="module")
def corpus() -> PrivateCorpus:
    return read_corpus(sample_path("posts_train.jsonl"), label_columns=("topic",))


def config(folder: Path, **changes: object) -> RunConfig:
    values = base_config(folder).model_dump(mode="json", exclude_unset=True)
    del values["guarantee"]
    settings: dict[str, object] = {
        "method": "augpe", "n": 10, "epsilon": 8, "n_units_bound": 300, "data": DATA,
        "augpe": {"epochs": 3, "variations": 3},
    }  # fmt: skip
    return RunConfig.parse({**values, **settings, **changes})


def augpe(**changes: object) -> dict[str, object]:
    return {"epochs": 3, "variations": 3, **changes}


@pytest.mark.parametrize(("n_units", "epsilon", "sigma"), PUBLISHED)
def test_the_plan_solves_the_published_noise(n_units: int, epsilon: float, sigma: float) -> None:
    delta = 1 / (n_units * math.log(n_units))
    settings = config(
        Path("x"), epsilon=epsilon, delta=delta, n_units_bound=n_units, data={}, augpe={"epochs": 10}
    )
    planned = solve(settings, PrivateCorpus(records=()))
    assert {vote.noise_multiplier for vote in planned.votes} == {planned.votes[0].noise_multiplier}
    assert len(planned.votes) == 10 and planned.classes is None
    assert planned.votes[0].noise_multiplier == pytest.approx(sigma, rel=0.005)


def test_class_counts_are_charged(tmp_path: Path, corpus: PrivateCorpus) -> None:
    planned = solve(config(tmp_path), corpus)
    assert planned.classes is not None and planned.classes.n_items == len(TOPICS) + 1
    mu = math.sqrt(1 / planned.classes.noise_multiplier**2 + 3 / planned.votes[0].noise_multiplier ** 2)
    assert gaussian_epsilon(mu, 1e-6) == pytest.approx(8, abs=1e-6)
    # A tenth of mu squared.
    assert planned.classes.noise_multiplier**-2 == pytest.approx(mu**2 / 10)
    assert compose(planned.events(), 1e-6).epsilon <= 8


class Counted(FixedNoise):
    """Notes with which standard deviation noise is drawn, and for how many sums."""

    def __init__(self) -> None:
        super().__init__(3)
        self.drawn: list[tuple[int, float]] = []

    def gaussian(self, values: IntArray, std: float) -> IntArray:
        self.drawn.append((len(values), std / 2**10))
        return super().gaussian(values, std)


def test_noise_is_drawn_as_planned_and_nothing_else_is_released(
    tmp_path: Path, corpus: PrivateCorpus
) -> None:
    settings, noise = config(tmp_path / "run"), Counted()
    planned = solve(settings, corpus)
    result = run(settings, corpus, noise=noise)
    assert len(result.texts) == 10
    assert noise.drawn == [(m.n_items, m.noise_multiplier) for _, m in planned.releases()]
    lines = read_run(tmp_path / "run/private/ledger.sqlite")[0]
    assert [line.label for line in lines] == ["classes", "vote 1", "vote 2", "vote 3", "texts"]
    assert [line.mechanism for line in lines] == ["GaussianSum"] * 4 + ["PaidTexts"]
    assert tuple(event for line in lines for event in line.events) == tuple(planned.events())


def test_the_card_says_what_the_ledger_holds(tmp_path: Path, corpus: PrivateCorpus) -> None:
    settings = config(tmp_path / "run")
    result = run(settings, corpus)
    path = result.folder / "release/privacy_card.json"
    card, _ = read_card(path)
    assert card.secure_noise and card.inputs.method == "augpe"
    assert card.figures[0].epsilon is not None and card.figures[0].epsilon <= 8
    assert card.statement == result.statement == statement_of(settings, corpus)
    assert check_card(path, ledger=read_run(tmp_path / "run/private/ledger.sqlite")) == []
    reads = {flow.task: flow.reads for flow in card.inputs.data_flow}
    assert set(reads) == {"write", "embed"} and "public prompts" in reads["write"]
    assert "16 roles and 24 keywords" in card.inputs.public_inputs


def test_one_unit_moves_every_release_by_at_most_one(tmp_path: Path, corpus: PrivateCorpus) -> None:
    """Neighbouring data, the same released values: no sum may move by more than its sensitivity."""
    for removed in (0, 17, 101):
        rows = [replace(record, unit_id=f"u{i // 3}") for i, record in enumerate(corpus.records)]
        gone = rows[removed].unit_id
        whole = replace(corpus, records=tuple(rows), has_units=True)
        less = replace(whole, records=tuple(row for row in rows if row.unit_id != gone))
        sums = []
        replay: list[IntArray] = []
        for place, texts in (("a", whole), ("b", less)):
            noise = Replayed(replay if place == "b" else None)
            run(config(tmp_path / f"{place}{removed}"), texts, noise=noise)
            replay = noise.given
            sums.append(noise.exact)
        assert len(sums[0]) == len(sums[1]) == 4
        for one, other in zip(*sums, strict=True):
            assert np.linalg.norm((one - other) / 2**10) <= 1 + 1e-9
        assert any((one != other).any() for one, other in zip(*sums, strict=True))


class Replayed(FixedNoise):
    """Gives out the noisy values of an earlier run, and keeps the exact ones it was given."""

    def __init__(self, replay: list[IntArray] | None) -> None:
        super().__init__(5)
        self.exact: list[IntArray] = []
        self.given: list[IntArray] = []
        self._replay = replay

    def gaussian(self, values: IntArray, std: float) -> IntArray:
        self.exact.append(values)
        found = super().gaussian(values, std) if self._replay is None else self._replay[len(self.given)]
        self.given.append(found)
        return found


def test_no_private_text_reaches_the_writer(
    tmp_path: Path, corpus: PrivateCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = "Zyxwvutsrq"
    marked = replace(
        corpus, records=tuple(replace(r, text=f"{marker} {r.text}") for r in corpus.records[:80])
    )
    asked: list[TextRequest] = []

    class Watched(FakeTextModel):
        def complete(self, requests: "list[TextRequest]") -> list[Completion]:  # type: ignore[override]
            asked.extend(requests)
            return super().complete(requests)

    # A remote writer is allowed: it reads public prompts and what the votes kept.
    monkeypatch.setattr(registry, "text_model", lambda *_, **__: Watched(trust="remote"))
    result = run(config(tmp_path / "run"), marked)
    assert {request.content for request in asked} == {"public", "released"}
    prompts = "\n".join(m.content for request in asked for m in request.messages)
    assert marker.lower() not in prompts.lower() and result.texts
    outside = [p for p in (tmp_path / "run").rglob("*") if p.is_file() and "private" not in p.parts]
    assert not any(marker.lower() in path.read_text().lower() for path in outside)
    with pytest.raises(PrivateDataError, match="remote"):
        none = {"guarantee": "none", "epsilon": None, "output": {"folder": str(tmp_path / "none")}}
        run(config(tmp_path / "none", **none), marked)


@pytest.mark.parametrize("stage", ["classes", "vote 1", "vary, epoch 2", "vote 3"])
def test_a_stopped_run_goes_on_to_the_same_texts(tmp_path: Path, corpus: PrivateCorpus, stage: str) -> None:
    settings = config(tmp_path / "run")
    with pytest.raises(Stop):
        run(settings, corpus, on_progress=stop_at(stage))
    before = read_run(tmp_path / "run/private/ledger.sqlite")[0]
    result = run(settings, corpus)
    assert read_run(tmp_path / "run/private/ledger.sqlite")[0][: len(before)] == before
    assert len(read_run(tmp_path / "run/private/ledger.sqlite")[0]) == 5
    assert run(settings, corpus).texts == result.texts


@pytest.mark.parametrize(("stage", "goes_on"), [("classes", True), ("vote 1", False)])
def test_class_counts_of_an_earlier_version_are_kept_and_votes_are_not(
    tmp_path: Path, corpus: PrivateCorpus, monkeypatch: pytest.MonkeyPatch, stage: str, goes_on: bool
) -> None:
    settings = config(tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(ledger, "body_of", without_texts)
        run(settings, corpus, on_progress=stop_at(stage))
    if goes_on:
        assert run(settings, corpus).complete
    else:
        with pytest.raises(PrivacyError, match="'vote 1' was released before, of other texts"):
            run(settings, corpus)


def without_texts(mechanism: Mechanism, **more: object) -> dict[str, object]:  # type: ignore[type-arg]
    """The entry of a version that did not note of which texts a release is."""
    body = body_of(mechanism, **more)  # type: ignore[arg-type]
    del body["of"]
    return body


def test_votes_are_not_counted_for_texts_that_were_not_voted_on(
    tmp_path: Path, corpus: PrivateCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, write = config(tmp_path / "run"), augpe_method.write_random
    with pytest.raises(Stop):
        run(settings, corpus, on_progress=stop_at("vote 1"))
    with monkeypatch.context() as patch:
        patch.setattr(augpe_method, "write_random", lambda *a: write(*a)[::-1])
        with pytest.raises(PrivacyError, match="'vote 1' was released before, of other texts"):
            run(settings, corpus)
    assert run(settings, corpus).complete


def test_exact_votes_are_called_what_they_are(tmp_path: Path, corpus: PrivateCorpus) -> None:
    settings = config(tmp_path / "run", guarantee="none", epsilon=None)
    result = run(settings, corpus)
    assert result.statement.startswith("No differential privacy of any kind.")
    card, _ = read_card(result.folder / "release/privacy_card.json")
    assert {line.mechanism for line in card.releases} == {"NonPrivate", "NonPrivateTexts"}
    assert card.figures == () and "exact votes" in card.statement
    assert "what the votes of the private texts reveal of them" in card.not_covered


def test_votes_pull_the_texts_to_the_private_ones(tmp_path: Path, corpus: PrivateCorpus) -> None:
    """What the method is for: with exact votes private texts find nearer ones, epoch by epoch."""
    settings = config(
        tmp_path / "run", data={}, guarantee="none", epsilon=None, augpe=augpe(epochs=6, variations=4)
    )
    run(settings, corpus)
    private = HashEmbedder().embed([record.text for record in corpus.records])
    near = []
    for number in (0, 1, 6):
        path = tmp_path / f"run/private/generation-{number}.jsonl"
        texts = [json.loads(row)["text"] for row in path.read_text().splitlines()]
        # Of the random texts one of the four that were written for each one wanted.
        texts = texts[::4] if number == 0 else texts
        near.append(float((private @ HashEmbedder().embed(texts).T).max(axis=1).mean()))
    assert near[2] > near[1] > near[0]


def test_budgets_are_charged(tmp_path: Path, corpus: PrivateCorpus) -> None:
    budget = Budget.create(corpus, name="posts", epsilon=10, delta=1e-6)
    run(config(tmp_path / "run"), corpus)
    assert budget.state().spent_epsilon == pytest.approx(8, abs=1e-3)
    budget.close()


@pytest.mark.parametrize(
    "changes", [{"variation": "fill"}, {"lookahead": 2}, {"variations": 1}, {"epochs": 1}]
)
def test_variants_of_the_method_run(
    tmp_path: Path, corpus: PrivateCorpus, changes: dict[str, object]
) -> None:
    result = run(config(tmp_path / "run", augpe=augpe(**changes)), corpus)
    assert len(result.texts) == 10


def test_labels_follow_the_private_ones(tmp_path: Path) -> None:
    records = [
        PrivateRecord(record_id=f"r{i}", unit_id=f"u{i}", text="words " * 20, labels={"topic": topic})
        for i, topic in enumerate(["debt"] * 150 + ["custody"] * 50 + ["somebody's own word"] * 40)
    ]
    corpus = PrivateCorpus(records=tuple(records), label_columns=("topic",))
    result = run(config(tmp_path / "run", n=24), corpus)
    found = [item.labels["topic"] for item in result.texts]
    assert set(found) <= {*TOPICS, "other"}
    assert found.count("debt") > found.count("custody") > 0 and found.count("other") > 0


def test_plan_and_calls_are_said_in_advance(tmp_path: Path, corpus: PrivateCorpus) -> None:
    settings = config(tmp_path / "run")
    lines = {line.release: line for line in plan_releases(settings, corpus)}
    assert list(lines) == ["classes", "vote 1", "vote 2", "vote 3", "texts"]
    assert "epsilon 8, delta 1e-06" in lines["texts"].cost
    tight = config(tmp_path / "run", n_units_bound=20)
    assert "drown in noise" in plan_releases(tight, corpus)[1].warning
    tasks = {task.task: task.n_calls for task in plan_tasks(settings, corpus)}
    assert tasks == {"random": 30, "vary": 2 * 10 * 2}


def test_prompts_that_are_missing_are_said_before_anything_is_begun(
    tmp_path: Path, corpus: PrivateCorpus
) -> None:
    own = tmp_path / "prompts"
    own.mkdir()
    (own / "openers.txt").write_text("I\n")
    (own / "rewrite.txt").write_text("[user]\n{text}\n")
    write = {"prompt": str(own), "min_length": 20, "max_length": 40}
    with pytest.raises(ConfigError, match=re.escape("no prompt file random.txt")):
        run(config(tmp_path / "run", write=write), corpus)
    assert not (tmp_path / "run").exists()


def test_undeclared_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.label_values=\{topic: \[VALUE, VALUE\]\}"):
        config(Path("x"), data={"path": "unused", "label_columns": ["topic"]})


def test_texts_are_shared_out_in_proportion() -> None:
    assert share_out(10, [3.0, 1.0, -5.0]) == [8, 2, 0] or share_out(10, [3.0, 1.0, -5.0]) == [7, 3, 0]
    assert share_out(7, [-1.0, -2.0]) == [4, 3]
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = rng.normal(scale=5, size=int(rng.integers(1, 9))).tolist()
        n = int(rng.integers(0, 50))
        sizes = share_out(n, counts)
        assert sum(sizes) == n and min(sizes) >= 0
        positive = [max(0.0, count) for count in counts]
        if sum(positive) > 0:
            exact = [n * value / sum(positive) for value in positive]
            assert all(abs(size - value) < 1 for size, value in zip(sizes, exact, strict=True))


def test_survivors_are_the_best_of_their_class() -> None:
    kept, others = survivors_of([5, 9, 1, 7, 8], ["a", "b", "b", "a", "a"], {"a": 2, "b": 1}, threshold=0)
    assert kept == [1, 4, 3] and others == [0, 2]
    # Below the threshold all are equal, and what came first stays.
    kept, _ = survivors_of([1, 2, 3], ["a", "a", "a"], {"a": 1}, threshold=5)
    assert kept == [0]


def test_masking_replaces_a_share_of_the_words() -> None:
    words = [f"w{i}" for i in range(20)]
    masked = mask_words(words, 0.6, np.random.default_rng(0)).split()
    assert masked.count("_") == 12 and len(masked) == 20
    assert all(word in {"_", own} for word, own in zip(masked, words, strict=True))


def test_events_are_gaussian_of_sensitivity_one(tmp_path: Path, corpus: PrivateCorpus) -> None:
    planned: AugpePlan = solve(config(tmp_path), corpus)
    events = planned.events()
    assert all(isinstance(e, GaussianEvent) and e.sensitivity_l2 == 1.0 for e in events)
    assert all(e.replace_l2 == pytest.approx(math.sqrt(2)) for e in events if isinstance(e, GaussianEvent))


def test_progress_names_every_vote(tmp_path: Path, corpus: PrivateCorpus) -> None:
    seen: list[Progress] = []
    run(config(tmp_path / "run"), corpus, on_progress=seen.append)
    assert {"classes", "vote 1", "vote 2", "vote 3"} <= {step.stage for step in seen}
