"""`guarantee: end-to-end`: what is released is a function of ledger outputs and public inputs."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from itertools import count
from pathlib import Path
from threading import Thread
from typing import TypeVar, cast

import numpy as np
import pytest

from rpsg import data, end_to_end, judging, registry
from rpsg import public as public_texts
from rpsg.config import RunConfig
from rpsg.errors import BudgetExceeded, ConfigError, PrivacyError, PrivateDataError, RunDirError
from rpsg.llm.fake import FakeTextModel, HashEmbedder
from rpsg.llm.surrogate import Surrogate, SurrogateSettings
from rpsg.pipeline import plan_notes, plan_releases, run, statement_of
from rpsg.plan_keys import KeysPlan
from rpsg.privacy import budget
from rpsg.privacy.budget import Budget
from rpsg.privacy.card_file import check_card, read_card
from rpsg.privacy.ledger import read_run
from rpsg.privacy.mechanisms import PrivateRows
from rpsg.privacy.noise import FixedNoise, IntArray
from rpsg.privacy.plain import PaidTexts
from rpsg.public import build_file
from rpsg.public_file import read_public_file, write_public_file
from rpsg.rng import Streams
from rpsg.rundir import RunDir, write_json
from rpsg.runstate import read_state
from rpsg.scores import TextSample
from rpsg.session import Session
from rpsg.stages.herding import rank_by_herding
from rpsg.stages.keys import PrivateKeys, ReleasedKeys, WordChoice, extract_keys, sample_paid_seeds
from rpsg.stages.vote import floor_diversity
from rpsg.stored import StoredRecords
from rpsg.text import WordRuns
from rpsg.types import (
    Candidate,
    Completion,
    FloatArray,
    Message,
    PrivateCorpus,
    PrivateRecord,
    PrivateVariant,
    Progress,
    Sentiment,
    TextRequest,
    Trust,
)
from test_pipeline import Stop, stop_at
from test_pipeline import config as base_config

Drawn = TypeVar("Drawn")
PUBLIC = "public.json"
ONE_DRAFT = {"min_length": 20, "max_length": 40, "n_drafts": 1}
WORDS = ["rent", "court", "notice", "shelter", "winter", "heater", "pantry", "wages"]


def config(folder: Path, **changes: object) -> RunConfig:
    settings: dict[str, object] = {"guarantee": "end-to-end", "epsilon": 8, "n": 10, "n_units_bound": 200}
    return base_config(folder, **{**settings, **changes})


def record(i: int, *, unit: str | None = None) -> PrivateRecord:
    # Sixteen different sets of words, each used by several units, so that one more changes no support.
    kind, marks = i % 16, "!" * (1 + i // 16)
    words = " ".join(WORDS[(kind + step) % len(WORDS)] for step in range(5))
    return PrivateRecord(
        record_id=f"r{i}",
        unit_id=unit or f"u{i}",
        text=f"Yesterday the {words} came up again and nobody knew what would happen to number {kind}{marks}",
        labels={"topic": ("rent", "bail")[kind % 2]},
    )


def corpus(n: int) -> PrivateCorpus:
    return PrivateCorpus(records=tuple(record(i) for i in range(n)), label_columns=("topic",))


def skewed(n: int) -> PrivateCorpus:
    """The same sets of words, but most units write the first: another data set of the same support."""
    records = [record(i if i < 16 else 16 * i) for i in range(n)]
    return PrivateCorpus(records=tuple(records), label_columns=("topic",))


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
    public = read_public_file(Path(settings.keys.public)).sha256 if settings.keys.public else ""
    opened = RunDir.create(folder, settings, fingerprint=data.fingerprint(texts), public=public)
    write_json(opened.manifest, {"run_id": "0" * 16, "layout": 1})
    # Two folders of one id are copies of one run: the user's state would refuse the second's ledger.
    os.environ["XDG_STATE_HOME"] = str(folder.with_name(f"{folder.name}.state").absolute())
    run(settings, texts, noise=noise)
    return {path.name: path.read_bytes() for path in sorted((folder / "release").iterdir())}


DECLARED = {"path": "unused", "label_columns": ["topic"], "label_values": {"topic": ["rent", "bail"]}}
SETTINGS: dict[str, dict[str, object]] = {
    "one round": {},
    "three rounds": {"vote": {"rounds": 3}},
    "no vote": {"vote": {"enabled": False}},
    "several topics": {"n_units_bound": 4000},
    "declared labels": {"data": DECLARED},
    "public list": {"keys": {"public": PUBLIC, "vocabulary": "public"}, "n_units_bound": 4000},
    "public topics, phrases of the data": {"keys": {"public": PUBLIC}, "n_units_bound": 4000},
    "with likelihood filter": {"n": 25, "refine": {"pii": {"enabled": False}, "nll": {"enabled": True}}},
    "with scores": {"n": 20, "evaluate": {"enabled": True}},
    "epsilon 0": {"epsilon": 0},
    "epsilon 0, declared labels": {"epsilon": 0, "data": DECLARED},
    "with removal of details": {"refine": {"pii": {"enabled": True}}},
    "every format": {"output": {"formats": ["jsonl", "csv", "parquet"]}},
}


@pytest.fixture(autouse=True)
def _public_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Settings name the file by a path that is the same for both neighbours.
    monkeypatch.chdir(tmp_path)
    texts = [f"The {a} and the {b} were late again this year." for a in WORDS for b in WORDS if a != b]
    content = build_file(
        texts, source="a test", embedder=HashEmbedder(), n_topics=2, n_phrases=6, max_phrases=20, seed=1
    )
    write_public_file(content, tmp_path / PUBLIC)


@pytest.fixture(autouse=True)
def _short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    train = partial(Surrogate.train, settings=SurrogateSettings(tokens=8_000, width=32, layers=1))
    monkeypatch.setattr("rpsg.end_to_end.Surrogate.train", train)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_neighbours_with_the_same_draws_release_the_same_bytes(tmp_path: Path, name: str) -> None:
    noise = RecordedNoise()
    found = []
    for i, texts in enumerate((corpus(120), corpus(121), skewed(200))):
        changes = dict(SETTINGS[name])
        output = {**dict(changes.pop("output", {})), "folder": str(tmp_path / str(i))}  # type: ignore[call-overload]
        settings = config(tmp_path / str(i), **changes).model_copy(
            update={"output": RunConfig.parse({"output": output}).output}
        )
        source = noise if i == 0 else RecordedNoise(log=noise.log)
        found.append(release_of(tmp_path / str(i), settings, texts, source))
    assert {"synthetic.jsonl", "privacy_card.json", "privacy_card.md", "README.md"} <= set(found[0])
    assert found[0] == found[1] == found[2]
    scored = [(tmp_path / str(i) / "private/scores/metrics.json").exists() for i in range(3)]
    assert scored == [name == "with scores"] * 3


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


@pytest.mark.parametrize("name", ["one round", "three rounds", "several topics", "public list"])
def test_the_mechanisms_of_a_run_are_those_planned_whatever_the_data(tmp_path: Path, name: str) -> None:
    found = []
    for n in (40, 150):
        settings = config(tmp_path / str(n), **SETTINGS[name])
        result = run(settings, corpus(n), noise=FixedNoise(5))
        lines = read_run(result.folder / "private/ledger.sqlite")[0]
        found.append([(line.label, line.mechanism, line.parameters) for line in lines])
    assert found[0] == found[1]
    planned = [line.release for line in plan_releases(settings, corpus(40))]
    assert [label for label, _, _ in found[0]] == planned


def test_the_plan_reads_no_data(tmp_path: Path) -> None:
    settings = config(tmp_path / "run")
    assert plan_releases(settings, corpus(20)) == plan_releases(settings, corpus(150))
    lines = plan_releases(settings, corpus(20))
    assert "all of it: epsilon 8, delta 1e-06" in lines[-1].cost
    few = plan_releases(config(tmp_path / "run", n_units_bound=30), corpus(20))
    assert any("is named only when more than half" in line.warning for line in few)


class RecordingServer:
    """Stands in for a remote language model: keeps every byte it is sent, and answers with a fake's text."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                bodies.append(f"{self.path} {self.headers} {body}")
                asked = json.loads(body)
                request = TextRequest(
                    messages=tuple(Message(**turn) for turn in asked["messages"]),
                    content="released",
                    max_tokens=asked["max_tokens"],
                    seed=asked["seed"],
                )
                (reply,) = FakeTextModel().complete([request])
                message = {"role": "assistant", "content": reply.text}
                payload = json.dumps({"choices": [{"finish_reason": "stop", "message": message}]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "RecordingServer":
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize("name", ["one round", "three rounds", "several topics", "public list"])
def test_the_writing_model_may_be_remote_and_no_private_text_reaches_it(tmp_path: Path, name: str) -> None:
    texts = corpus(150)
    with RecordingServer() as server:
        settings = config(tmp_path / "run", **SETTINGS[name])
        served = {"models": {"write": "own:fake"}, "endpoints": {"own": {"base_url": server.url}}}
        values = settings.model_dump(exclude_unset=True)
        values["models"] = {**values.get("models", {}), **served["models"]}
        run(RunConfig.parse({**values, "endpoints": served["endpoints"]}), texts)
    private = WordRuns.build([item.text for item in texts.records], 6)
    assert len(server.bodies) >= 20
    assert not any(private.shared_with(body) for body in server.bodies)
    card = json.loads((tmp_path / "run/release/privacy_card.json").read_text())
    sent_to = {flow["task"]: flow["hosts"] for flow in card["inputs"]["data_flow"]}
    assert sent_to == {task: ["127.0.0.1"] if task == "write" else [] for task in sent_to}
    assert "| write | own:fake | remote |" in (tmp_path / "run/release/privacy_card.md").read_text()
    # What was sent is on file too, and nothing went elsewhere.
    state = read_state(tmp_path / "run")
    assert {item.host for item in state.sent} == {"127.0.0.1"}
    # An attempt that found no connection counts: it was made.
    assert state.n_calls >= len(server.bodies)
    assert {item.content for item in state.sent} <= {"public", "released"}


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
    assert read_run(tmp_path / "two/private/ledger.sqlite")[0] == []
    run(config(tmp_path / "three", outside_budget=True), texts)
    assert "Outside the data budget: 1 run(s)" in (tmp_path / "three/release/privacy_card.md").read_text()
    assert budget.all_budgets()[0].n_outside == 1


def test_a_stopped_run_is_replayed_and_never_drawn_again(tmp_path: Path) -> None:
    settings, texts = config(tmp_path / "run"), corpus(150)
    with pytest.raises(Stop):
        run(settings, texts, on_progress=stop_at("vote 1"))
    before = read_run(tmp_path / "run/private/ledger.sqlite")[0]
    result = run(settings, texts)
    after = read_run(result.folder / "private/ledger.sqlite")[0]
    assert after[: len(before)] == before and len(after) == len(before) + 1


def test_votes_are_not_counted_for_texts_that_were_not_voted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, texts = config(tmp_path / "run", vote={"rounds": 2}, write=ONE_DRAFT), corpus(150)
    with pytest.raises(Stop):
        run(settings, texts, on_progress=stop_at("vote 2"))
    # A version that ranks the first vote's candidates in another way varies others for the second.
    with monkeypatch.context() as patch:
        patch.setattr(end_to_end, "rank_by_herding", lambda *a, **k: rank_by_herding(*a, **k)[::-1])
        with pytest.raises(PrivacyError, match="'vote 2' was released before, of other texts"):
            run(settings, texts)
    assert run(settings, texts).complete


def test_topics_are_not_counted_for_texts_that_did_not_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, texts = config(tmp_path / "run", n_units_bound=4000, write=ONE_DRAFT), corpus(150)
    with pytest.raises(Stop):
        run(settings, texts, on_progress=stop_at("keys"))
    write = public_texts.write_public_texts
    with monkeypatch.context() as patch:
        patch.setattr(public_texts, "write_public_texts", lambda *a, **k: write(*a, **k)[::-1])
        with pytest.raises(PrivacyError, match="'topics' was released before, of other texts"):
            run(settings, texts)
    assert run(settings, texts).complete


def keys_of(records: Sequence[PrivateRecord]) -> PrivateKeys:
    embedder = HashEmbedder()
    vectors = embedder.embed([r.text for r in records])
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
    one = WordChoice(2, Streams(0))(["rent rent rent court winter heater"])
    two = WordChoice(2, Streams(0))(["heater winter court rent"])
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


def test_half_of_the_candidates_are_written_without_phrases_where_a_vote_chooses() -> None:
    keys = ReleasedKeys(topics=[1.0], facets=[1.0] * 15, labels={}, phrases={"0\x1fheater": 9.0})

    def n_guided(share: float, each: int = 1) -> int:
        seeds = sample_paid_seeds(
            keys,
            40,
            label_columns=(),
            phrases_per_text=each,
            guided=share,
            streams=Streams(1),
            round_name="a",
        )
        return sum(seed.phrases == ("heater",) for seed in seeds)

    assert [n_guided(share) for share in (0.0, 0.5, 0.75, 1.0)] == [0, 20, 30, 40]
    # One word where a text takes four: with all of them written around it, they would be of nothing else.
    assert [n_guided(share, each=4) for share in (0.5, 1.0)] == [5, 10]


@pytest.mark.parametrize(("vote", "n_guided"), [({}, 15), ({"enabled": False}, 30)])
def test_without_a_vote_every_text_is_guided(
    tmp_path: Path, vote: dict[str, object], n_guided: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    reply = FakeTextModel.complete

    def note(self: FakeTextModel, requests: Sequence[TextRequest]) -> list[Completion]:
        asked.extend(
            next(m.content for m in request.messages[::-1] if m.role == "user") for request in requests
        )
        return reply(self, requests)

    monkeypatch.setattr(FakeTextModel, "complete", note)
    plain = PrivateCorpus(records=tuple(replace(item, labels={}) for item in corpus(160).records))
    settings = config(tmp_path / "run", vote=vote, write=ONE_DRAFT, keys={"phrases_per_text": 1})
    run(settings, plain)
    assert sum("Words: " in prompt for prompt in asked) == n_guided
    # The others know what AUG-PE knows: public roles and keywords, each second of them.
    assert sum("Written by " in prompt for prompt in asked) == (30 - n_guided + 1) // 2
    card, _ = read_card(tmp_path / "run/release/privacy_card.json")
    assert "16 roles and 24 keywords" in card.inputs.public_inputs


def test_a_prompt_folder_without_roles_will_do_and_half_a_set_will_not(tmp_path: Path) -> None:
    own = tmp_path / "prompts"
    shutil.copytree(resources.files("rpsg").joinpath("prompts/posts"), own)  # type: ignore[arg-type]
    for name in ("random.txt", "roles.txt", "keywords.txt"):
        (own / name).unlink()
    settings = config(tmp_path / "run", write={**ONE_DRAFT, "prompt": str(own)})
    assert run(settings, corpus(160)).complete
    card, _ = read_card(tmp_path / "run/release/privacy_card.json")
    assert "keywords" not in card.inputs.public_inputs
    shutil.copy(str(resources.files("rpsg").joinpath("prompts/posts/random.txt")), own)
    with pytest.raises(ConfigError, match=r"no prompt file roles\.txt"):
        run(config(tmp_path / "other", write={**ONE_DRAFT, "prompt": str(own)}), corpus(160))
    (own / "roles.txt").write_text("\n")
    (own / "random.txt").unlink()
    with pytest.raises(ConfigError, match=r"no prompt file random\.txt"):
        run(config(tmp_path / "other", write={**ONE_DRAFT, "prompt": str(own)}), corpus(160))
    for name in ("random.txt", "keywords.txt"):
        shutil.copy(str(resources.files("rpsg").joinpath("prompts/posts", name)), own)
    for method in ("rpsg", "augpe"):
        empty = config(tmp_path / "other", method=method, write={**ONE_DRAFT, "prompt": str(own)})
        with pytest.raises(ConfigError, match=r"roles\.txt is empty"):
            run(empty, corpus(160))
    assert not (tmp_path / "other").exists()


def test_a_vote_goes_to_usable_texts_and_others_stand_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply, number = FakeTextModel.complete, count()

    def every_third_is_empty(self: FakeTextModel, requests: Sequence[TextRequest]) -> list[Completion]:
        return [replace(item, text="") if next(number) % 3 == 0 else item for item in reply(self, requests)]

    monkeypatch.setattr(FakeTextModel, "complete", every_third_is_empty)
    seen: list[PrivateRows] = []
    written: list[Candidate] = []
    floor, hold = floor_diversity, end_to_end.vote_in_rounds

    def keep(rows: PrivateRows) -> PrivateRows:
        seen.append(rows)
        return floor(rows)

    def hold_and_look(
        session: Session, private: PrivateCorpus, candidates: Sequence[Candidate], planned: KeysPlan
    ) -> list[Candidate]:
        written.extend(candidates)
        ranked = hold(session, private, candidates, planned)
        n_usable = sum(bool(item.text) for item in ranked)
        assert n_usable == 20 and all(item.text for item in ranked[:20])
        return ranked

    monkeypatch.setattr(end_to_end, "floor_diversity", keep)
    monkeypatch.setattr(end_to_end, "vote_in_rounds", hold_and_look)
    result = run(config(tmp_path / "run", epsilon=1, write=ONE_DRAFT), corpus(160))
    (votes,) = seen
    # All of 160 people's votes count, none of them for a text that cannot be released.
    assert len(votes.items) == 160 and all(written[i].text for i in votes.items.tolist())
    assert result.complete and result.counts["candidates written"] == 30


def test_rank_follows_the_released_counts_by_herding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = end_to_end.vote_in_rounds
    given: list[tuple[list[float], FloatArray, float]] = []
    ranks: list[tuple[list[str], list[str]]] = []

    def spy(counts: Sequence[float], vectors: FloatArray, *, noise: float) -> list[int]:
        given.append((list(counts), vectors, noise))
        return rank_by_herding(counts, vectors, noise=noise)

    def look(
        session: Session, private: PrivateCorpus, candidates: Sequence[Candidate], planned: KeysPlan
    ) -> list[Candidate]:
        ranked = hold(session, private, candidates, planned)
        assert [vote.noise_multiplier for vote in planned.votes] == [noise for _, _, noise in given]
        ranks.append(([item.text for item in candidates], [item.text for item in ranked]))
        return ranked

    monkeypatch.setattr(end_to_end, "rank_by_herding", spy)
    monkeypatch.setattr(end_to_end, "vote_in_rounds", look)
    run(config(tmp_path / "run", epsilon=1, write=ONE_DRAFT), corpus(160))
    ((counts, vectors, noise),), ((written, ranked),) = given, ranks
    assert len(counts) == len(vectors) == len(written) == 30
    assert ranked == [written[i] for i in rank_by_herding(counts, vectors, noise=noise)]


def test_epsilon_0_writes_from_public_prompts_alone(tmp_path: Path) -> None:
    texts = corpus(150)
    found = []
    for name, private in (("a", texts), ("b", replace(texts, records=texts.records[:70]))):
        settings = config(tmp_path / name, epsilon=0, data=DECLARED)
        result = run(settings, private, noise=FixedNoise(3))
        found.append([text.text for text in result.texts])
        page = json.loads((result.folder / "release/privacy_card.json").read_text())
        assert page["figures"][0]["epsilon"] == 0 and page["inputs"]["public_inputs"].startswith("public pr")
        assert [line["release"] for line in page["releases"]] == ["texts"]
    assert found[0] == found[1] and len(found[0]) == 10
    assert plan_releases(settings, texts)[-1].signal == "10 texts, written from public prompts alone"
    assert "right at most 50.0 % of" in page["attacker"]


def test_epsilon_0_is_not_charged_to_the_budget(tmp_path: Path) -> None:
    texts = corpus(150)
    shared = Budget.create(texts, name="posts.csv", epsilon=1, delta=1e-6)
    run(config(tmp_path / "run", epsilon=0), texts)
    assert (shared.state().n_runs, shared.state().n_outside, shared.state().spent_epsilon) == (0, 0, 0.0)


def test_undeclared_label_values_count_as_other_and_are_never_named(tmp_path: Path) -> None:
    records = tuple(replace(item, labels={"topic": "zanzibar"}) for item in corpus(150).records[:70])
    texts = replace(corpus(150), records=(*records, *corpus(150).records[70:]))
    result = run(config(tmp_path / "run", data=DECLARED, n=20), texts)
    content = "".join(path.read_text() for path in (result.folder / "release").iterdir())
    assert "zanzibar" not in content
    assert {text.labels["topic"] for text in result.texts} <= {"rent", "bail", "other"}
    assert "label values declared: topic (2)" in (result.folder / "release/privacy_card.md").read_text()
    labels = next(
        line for line in read_run(result.folder / "private/ledger.sqlite")[0] if line.label == "labels"
    )
    assert (labels.mechanism, labels.parameters["n_items"]) == ("GaussianSum", 3)


def test_a_public_list_is_all_that_can_be_named(tmp_path: Path) -> None:
    settings = config(
        tmp_path / "run",
        n_units_bound=4000,
        epsilon=20,
        delta=1e-4,
        keys={"public": PUBLIC, "vocabulary": "public"},
    )
    result = run(settings, corpus(150))
    lines = {line.label: line for line in read_run(result.folder / "private/ledger.sqlite")[0]}
    assert lines["phrases"].mechanism == "GaussianSum"
    assert lines["phrases"].parameters["n_items"] == 2 * 6
    card = (result.folder / "release/privacy_card.md").read_text()
    assert "2 topics and 6 phrases of 56 texts" in card and "file sha256" in card
    assert (
        sum(event.delta for line in lines.values() for event in line.events if hasattr(event, "delta")) < 1e-4
    )


def test_a_units_public_words_are_the_first_of_the_list() -> None:
    ranking = ["court", "rent", "heater"]
    assert WordChoice(2, Streams(0), ranking)(["heater winter rent court"]) == ["court", "rent"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": {"vocabulary": "public"}}, "needs keys.public"),
        ({"data": {"label_columns": ["topic"], "label_values": {"mood": ["a"]}}}, "every label column"),
        ({"epsilon": 1e-4}, "epsilon must be at least 0.001"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path / "run", **change)


def test_epsilon_0_asks_for_the_declared_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Seen(FakeTextModel):
        def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
            asked.extend(" ".join(turn.content for turn in request.messages[-2:]) for request in requests)
            return super().complete(requests)

    monkeypatch.setattr(registry, "text_model", lambda *_, **__: Seen())
    result = run(config(tmp_path / "run", epsilon=0, data=DECLARED, n=30), corpus(150))
    n_other = sum(text.labels["topic"] == "other" for text in result.texts)
    assert 0 < n_other < 20
    for value in ("rent", "bail"):
        assert sum(f"topic: {value}" in prompt for prompt in asked) >= 10


def test_no_model_reads_private_text_with_epsilon_0_and_no_scores(tmp_path: Path) -> None:
    result = run(config(tmp_path / "run", epsilon=0), corpus(150))
    flows = json.loads((result.folder / "release/privacy_card.json").read_text())["inputs"]["data_flow"]
    assert flows and not any("private" in flow["reads"] for flow in flows)


def test_a_vector_is_a_function_of_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Seen(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> FloatArray:
            if any("nobody knew" in text for text in texts):
                sizes.append(len(texts))
            return super().embed(texts)

    monkeypatch.setattr(registry, "embedder", lambda *_, **__: Seen())
    run(config(tmp_path / "run"), corpus(40))
    assert sizes == [1] * 40


def test_a_tone_is_a_function_of_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A model on a server reads what it is sent at once in one batch.
    batches: list[int] = []

    class Seen:
        name = "seen"
        trust: Trust = "local"

        def classify(self, texts: Sequence[str]) -> list[Sentiment]:
            batches.append(len(texts))
            return [Sentiment(label="neutral", confidence=1.0) for _ in texts]

    monkeypatch.setattr(registry, "sentiment_model", lambda *_, **__: Seen())
    models = {**config(tmp_path).models.model_dump(), "sentiment": "seen"}
    run(config(tmp_path / "run", models=models), corpus(30))
    assert batches == [1] * 30


def test_the_card_does_not_say_who_is_in_other_data(tmp_path: Path) -> None:
    zoe = replace(record(200, unit="zoe"), text="Zoe alone writes of an olive tree by the sea wall.")
    others = PrivateCorpus(records=(zoe,), label_columns=("topic",))
    Budget.create(others, name="other.csv", epsilon=50, delta=1e-6)
    budget.note_outside(others, "an earlier run")
    found = []
    for i, texts in enumerate((corpus(120), replace(corpus(120), records=(*corpus(120).records, zoe)))):
        result = run(config(tmp_path / str(i)), texts, noise=FixedNoise(3))
        found.append(result)
        assert result.statement.endswith(statement_of(config(tmp_path / str(i)), texts))
    assert found[0].statement == found[1].statement
    assert not found[0].notes
    assert found[1].notes == ("read from your data: 1 run(s) on these people are outside their budget",)


def test_a_run_belongs_to_its_public_file(tmp_path: Path) -> None:
    settings = config(tmp_path / "run", keys={"public": PUBLIC, "vocabulary": "public"}, n_units_bound=4000)
    run(settings, corpus(120))
    path = tmp_path / PUBLIC
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "source": "another"}))
    with pytest.raises(RunDirError, match="a run of other public data"):
        run(settings, corpus(120))


@pytest.mark.parametrize("method", ["rpsg", "augpe"])
def test_a_run_belongs_to_its_prompt_files(tmp_path: Path, method: str) -> None:
    own = tmp_path / "prompts"
    shutil.copytree(resources.files("rpsg").joinpath("prompts/posts"), own)  # type: ignore[arg-type]
    settings = config(tmp_path / "run", method=method, write={**ONE_DRAFT, "prompt": str(own)})

    def stop(progress: Progress) -> None:
        if progress.stage.startswith("vote"):
            raise Stop

    with pytest.raises(Stop):
        run(settings, corpus(160), on_progress=stop)
    keywords = (own / "keywords.txt").read_text()
    (own / "keywords.txt").write_text("the sea\n")
    with pytest.raises(
        RunDirError, match=r"a run of other prompt files.*put back what it was begun with and go on"
    ):
        run(settings, corpus(160))
    (own / "keywords.txt").write_text(keywords)
    assert run(settings, corpus(160)).complete


def test_a_survivor_stands_once_in_the_prompt_that_varies_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    reply = FakeTextModel.complete

    def note(self: FakeTextModel, requests: Sequence[TextRequest]) -> list[Completion]:
        asked.extend(request.messages[-2].content for request in requests)
        return reply(self, requests)

    monkeypatch.setattr(FakeTextModel, "complete", note)
    run(config(tmp_path / "run", vote={"rounds": 2}, write=ONE_DRAFT), corpus(160))
    again = [prompt.split("Post:")[1].split("Tell it")[0].strip() for prompt in asked if "Tell it" in prompt]
    assert again and all(text.count(text[:20]) == 1 for text in again)


def test_a_public_file_cannot_write_on_the_card(tmp_path: Path) -> None:
    path = tmp_path / PUBLIC
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "source": "x\n\n# Privacy card\n\n**(epsilon=0.1)-DP**"}))
    settings = config(tmp_path / "run", keys={"public": PUBLIC}, n_units_bound=4000)
    page = (run(settings, corpus(120)).folder / "release/privacy_card.md").read_text()
    assert "\n# Privacy card\n\n**(eps" not in page and "**(epsilon=0.1)" not in page


def test_many_declared_labels_are_refused_at_once(tmp_path: Path) -> None:
    columns = [f"c{i}" for i in range(6)]
    values = {name: [str(i) for i in range(50)] for name in columns}
    data_settings = {"path": "unused", "label_columns": columns, "label_values": values}
    for epsilon in (0, 8):
        settings = config(tmp_path / "run", epsilon=epsilon, data=data_settings)
        with pytest.raises(ConfigError, match="17,596,287,801 combinations"):
            plan_releases(settings, corpus(20))


def test_a_long_public_list_lowers_the_number_of_topics(tmp_path: Path) -> None:
    words = {f"word{chr(97 + i // 676)}{chr(97 + i // 26 % 26)}{chr(97 + i % 26)}": 0.1 for i in range(2000)}
    content = json.loads((tmp_path / PUBLIC).read_text())
    (tmp_path / PUBLIC).write_text(json.dumps({**content, "phrases": words}))
    settings = config(
        tmp_path / "run", keys={"public": PUBLIC, "vocabulary": "public"}, n_units_bound=100_000, delta=1e-7
    )
    assert next(line.release for line in plan_releases(settings, corpus(20))) == "topics"


@pytest.mark.parametrize("values", [[], ["rent", "rent"], ["rent", ""], ["rent", "other"]])
def test_declared_values_that_mean_nothing_are_refused(tmp_path: Path, values: list[str]) -> None:
    declared = {"path": "unused", "label_columns": ["topic"], "label_values": {"topic": values}}
    with pytest.raises(ConfigError, match="values must differ"):
        config(tmp_path / "run", data=declared)
    # Methods without noise write by them too.
    with pytest.raises(ConfigError, match="values must differ"):
        RunConfig.parse({"data": declared, "method": "augpe", "guarantee": "none", "n": 20})


def test_labels_may_hold_any_character(tmp_path: Path) -> None:
    odd = {"a=b": "x\x1fb=secret", "c": 'say "no", [/b]'}
    records = tuple(replace(item, labels=odd) for item in corpus(150).records)
    texts = PrivateCorpus(records=records, label_columns=("a=b", "c"))
    values = {name: [value] for name, value in odd.items()}
    settings = config(
        tmp_path / "run", data={"path": "unused", "label_columns": ["a=b", "c"], "label_values": values}
    )
    found = {(text.labels["a=b"], text.labels["c"]) for text in run(settings, texts).texts}
    assert (odd["a=b"], odd["c"]) in found
    assert found <= {(a, c) for a in (odd["a=b"], "other") for c in (odd["c"], "other")}


def test_public_texts_with_odd_words_and_repeats_make_a_file(tmp_path: Path) -> None:
    texts = ["notice " + "a" * 60 + " garden"] * 24 + [f"shelter {word} pantry" for word in WORDS] * 3
    content = build_file(
        texts, source="x", embedder=HashEmbedder(), n_topics=200, n_phrases=50, max_phrases=5, seed=0
    )
    assert max(map(len, content.phrases)) <= 50 and {"garden", "shelter"} <= set(content.phrases)
    rows = {tuple(row) for row in content.centroids}
    assert len(rows) == len(content.centroids) <= len(texts) // 4
    write_public_file(content, tmp_path / "odd.json")
    settings = config(tmp_path / "run", keys={"public": str(tmp_path / "odd.json")}, n_units_bound=10**5)
    assert plan_releases(settings.model_copy(update={"delta": 1e-7}), corpus(20))


def test_public_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / PUBLIC

    def refused(message: str, **changes: object) -> None:
        with pytest.raises(ConfigError, match=message):
            plan_releases(config(tmp_path / "run", keys={"public": PUBLIC}, **changes), corpus(20))

    refused("are enough for 1; build it again", n_units_bound=30)
    content = json.loads(path.read_text())
    broken: list[dict[str, object]] = [
        {"centroids": [[1.0, float("nan")]]},
        {"centroids": [[0.0] * 256]},
        {"centroids": [[], []]},
        {"centroids": [[1.0], [0.6, 0.8]]},
        {"phrases": {"THE": 0.1}},
        {"phrases": {}},
        {"texts_sha256": "no"},
    ]
    for change in broken:
        path.write_text(json.dumps({**content, **change}))
        refused("is not a file of public topics")
    shared = Budget.create(corpus(20), name="posts.csv", epsilon=10, delta=1e-6)
    for change in ({"embedder": "another"}, {"centroids": [[1.0, 0.0], [0.0, 1.0]]}):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(ConfigError, match="build it again with"):
            settings = config(tmp_path / str(change)[:12], keys={"public": PUBLIC}, n_units_bound=4000)
            run(settings, corpus(20))
    assert shared.state().n_runs == 0
    path.unlink()
    refused("make it with: rpsg public build")


def test_a_unit_of_many_records_has_the_weight_of_a_few_candidates() -> None:
    votes = PrivateRows(
        units=np.asarray([0] * 100 + [1]), items=np.asarray([*range(100), 0]), weights=np.ones(101)
    )
    floored = floor_diversity(votes, floor=4.0)
    weights = np.bincount(floored.units, weights=floored.weights)
    assert weights == pytest.approx([2.0, 1.0])
    norms = np.sqrt(np.bincount(floored.units, weights=floored.weights**2))
    assert (norms <= 1 + 1e-12).all()


def test_plan_says_how_many_phrases_will_be_named_and_what_capping_does(tmp_path: Path) -> None:
    settings = config(tmp_path / "run", n_units_bound=2000)
    phrases = next(line for line in plan_releases(settings, corpus(20)) if line.release == "phrases")
    assert "were your texts like the sample posts_train.jsonl, about" in phrases.signal
    few = config(tmp_path / "run", n_units_bound=100, keys={"max_phrases": 1})
    line = next(line for line in plan_releases(few, corpus(20)) if line.release == "phrases")
    assert "about 0 would be named" in line.signal and "probably no phrase" in line.warning
    many = tuple(record(i, unit=f"u{i % 3}") for i in range(60))
    notes = plan_notes(settings, PrivateCorpus(records=many, label_columns=("topic",), has_units=True))
    assert "60 records of 3 people, at most 20 of one" in notes[0] and "are not counted" in notes[0]
    assert plan_notes(settings, corpus(20)) == []


def test_scores_of_a_run_stay_in_its_private_part(tmp_path: Path) -> None:
    result = run(config(tmp_path / "run", n=20, evaluate={"enabled": True}), corpus(150))
    scores = result.folder / "private/scores/metrics.json"
    names = [score["name"] for score in json.loads(scores.read_text())["scores"]]
    assert "frechet_distance" in names and scores.stat().st_mode & 0o077 == 0
    assert not list((result.folder / "release").glob("*score*"))
    assert any(str(scores) in note for note in result.notes)
    few = run(config(tmp_path / "few", n=5, evaluate={"enabled": True}), corpus(150))
    assert any(note.startswith("no scores: they need 20") for note in few.notes)


def test_scores_of_large_data_are_those_of_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def seen(_folder: Path, samples: dict[str, TextSample], **_: object) -> None:
        assert len(samples["real"].texts) == len(samples["real"].vectors)
        sizes.append(len(samples["real"].texts))

    monkeypatch.setattr(judging, "evaluate_run", seen)
    for most in (30, 5000):
        monkeypatch.setattr(judging, "MOST_REAL", most)
        run(config(tmp_path / str(most), n=20, evaluate={"enabled": True}), corpus(120))
    assert sizes == [30, 96]


def test_large_files_give_the_same_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "posts.jsonl"
    rows = [{"id": item.record_id, "text": item.text, **item.labels} for item in corpus(120).records]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    releases = []
    for limit in (2**28, 0):
        monkeypatch.setattr(data, "IN_MEMORY_BYTES", limit)
        texts = data.read_corpus(path, label_columns=("topic",))
        noise = RecordedNoise()
        releases.append(release_of(tmp_path / str(limit), config(tmp_path / str(limit)), texts, noise))
    assert isinstance(texts.records, StoredRecords)
    assert releases[0] == releases[1]
