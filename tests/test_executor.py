"""Threads: the bytes of a run do not depend on what computes them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keyed_noise import KeyedNoise
from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.errors import ConfigError, ModelUnavailable
from rpsg.executor import (
    ChunkedEmbedder,
    Description,
    Spec,
    SpreadEmbedder,
    SpreadSentiment,
    SpreadTextModel,
    ThreadExecutor,
    Worker,
    embed_singly,
)
from rpsg.pipeline import run
from rpsg.types import Completion, Message, Progress, TextRequest
from tiny_models import tiny_bart, tiny_bert, tiny_classifier, tiny_llama

TEXTS = ["the doctor said my dog felt terrible .", "a cat .", "his family lost the house and the money ."]
STAGES = {
    "selection": {"abstract", "write, first", "rewrite, first"},
    "end-to-end": {"public, public topics", "keys, first", "public, first"},
}


def config(folder: Path, guarantee: str, **executor: object) -> RunConfig:
    values: dict[str, object] = {
        "guarantee": guarantee,
        "epsilon": 16,
        "n": 24,
        "n_units_bound": 500,
        "models": {"abstract": "fake", "write": "fake", "embed": "hash", "sentiment": "vader"},
        "abstract": {"n_samples": 6, "max_tokens": 40},
        "write": {"min_length": 20, "max_length": 40, "n_drafts": 2},
        "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}},
        "evaluate": {"enabled": False},
        "generation": {"threads": 1, "chunk_size": 8},
        "executor": executor,
        "output": {"folder": str(folder)},
    }
    return RunConfig.parse(values)


def release_of(settings: RunConfig, on_progress: Callable[[Progress], None] = lambda _: None) -> bytes:
    corpus = read_corpus(sample_path("posts_train.jsonl"), label_columns=("topic",))
    result = run(settings, corpus, noise=KeyedNoise(), on_progress=on_progress)
    assert len(result.texts) >= 12
    return (result.folder / "release/synthetic.jsonl").read_bytes()


@pytest.mark.parametrize("guarantee", ["selection", "end-to-end"])
def test_threads_release_the_same_bytes(tmp_path: Path, guarantee: str) -> None:
    seen: list[Progress] = []
    alone = release_of(config(tmp_path / "serial", guarantee))
    beside = release_of(config(tmp_path / "threads", guarantee, kind="threads", workers=3), seen.append)
    assert alone == beside
    # Every stage that has models is cut into chunks.
    for stage in STAGES[guarantee]:
        assert sum(step.stage == stage for step in seen) > 1, stage


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    made = {"text": tiny_llama, "summariser": tiny_bart, "embedder": tiny_bert}
    return {kind: make(root / kind) for kind, make in made.items()}


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadExecutor]:
    found = ThreadExecutor(2)
    yield found
    found.close()


def request(text: str, seed: int) -> TextRequest:
    return TextRequest(
        messages=(Message(role="user", content=text),), content="private", max_tokens=12, seed=seed,
        stop=("\n",),
    )  # fmt: skip


def test_models_with_weights_write_and_embed_the_same_on_workers(
    folders: dict[str, Path], executor: ThreadExecutor
) -> None:
    requests = [request(TEXTS[seed % 3], seed) for seed in range(8)]
    chunks = [requests[:5], requests[5:]]
    for kind in ("text", "summariser"):
        spec = Spec(kind=kind, name=str(folders[kind]), threads=1, dtype="float32", max_tokens=8)  # type: ignore[arg-type]
        here: Any = spec.load()
        away = SpreadTextModel(executor, spec)
        assert (away.name, away.trust) == (here.name, here.trust)
        if kind == "text":
            assert away.context_tokens == here.context_tokens
            expected = [[[reply] for reply in here.complete(chunk)] for chunk in chunks]
            found: dict[int, list[list[Completion]]] = dict(away.compute(chunks))
            assert [found[place] for place in (0, 1)] == expected
            assert away.complete(chunks[0]) == [reply for (reply,) in expected[0]]
        else:
            assert away.max_words == here.max_words
            asked: Any = {"n": 2, "seeds": [1, 2, 3], "tones": ["", "positive", "negative"]}
            assert away.summarise(TEXTS, **asked) == here.summarise(TEXTS, **asked)
    spec = Spec(kind="embedder", name=str(folders["embedder"]))
    local: Any = spec.load()
    near, far = ChunkedEmbedder(local, chunk_size=2), SpreadEmbedder(executor, spec, chunk_size=2)
    assert far.cosine_range == local.cosine_range
    assert np.array_equal(near.embed(TEXTS), far.embed(TEXTS)) and far.embed(TEXTS).dtype == np.float32
    assert np.array_equal(near.embed_singly(TEXTS), far.embed_singly(TEXTS))
    assert np.array_equal(far.embed_singly(TEXTS), embed_singly(local.embed, TEXTS))
    assert far.embed([]).shape[0] == near.embed([]).shape[0] == 0


@pytest.mark.parametrize("name", ["vader", "tiny"])
def test_sentiment_is_the_same_on_workers(tmp_path: Path, executor: ThreadExecutor, name: str) -> None:
    name = str(tiny_classifier(tmp_path)) if name == "tiny" else name
    spec = Spec(kind="sentiment", name=name, threads=1)
    here: Any = spec.load()
    away = SpreadSentiment(executor, spec, chunk_size=2)
    texts = ["I love this wonderful house .", "a terrible , bad night .", *TEXTS]
    judged = away.classify(texts)
    assert judged == here.classify(texts) and len(set(judged)) > 1
    assert (away.name, away.trust, away.classify([])) == (here.name, "local", [])


def test_a_worker_loads_each_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Spec] = []
    load = Spec.load
    monkeypatch.setattr(Spec, "load", lambda spec: (loaded.append(spec), load(spec))[1])
    worker = Worker()
    for kind in ("embedder", "embedder singly", "embedder"):
        worker.compute(Spec(kind=kind, name="hash"), '["a text"]')  # type: ignore[arg-type]
    assert len(loaded) == 1
    assert Description.of(worker.model(loaded[0])) == Description(name="hash", trust="local")


def test_a_model_that_fails_ends_the_run_and_starts_no_more_chunks(
    executor: ThreadExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def fail(_worker: Worker, _spec: Spec, chunk: str) -> str:
        begun.append(chunk)
        raise ModelUnavailable("gone")

    monkeypatch.setattr(Worker, "compute", fail)
    with pytest.raises(ModelUnavailable, match="gone"):
        list(executor.compute(Spec(kind="embedder", name="hash"), (f'["{i}"]' for i in range(100))))
    assert len(begun) < 20


def test_progress_of_an_executor_is_that_of_what_is_done(executor: ThreadExecutor) -> None:
    results = executor.compute(Spec(kind="embedder", name="hash"), (f'["text {i}"]' for i in range(30)))
    assert sorted(place for place, _ in results) == list(range(30))


@pytest.mark.parametrize("kind", ["threads", "ray"])
def test_threads_of_a_worker_must_be_named(tmp_path: Path, kind: str) -> None:
    settings = config(tmp_path / "run", "selection", kind=kind)
    generation = settings.generation.model_copy(update={"threads": None})
    with pytest.raises(ConfigError, match=r"needs generation.threads"):
        release_of(settings.model_copy(update={"generation": generation}))


def test_a_run_goes_on_with_another_executor(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(step: Progress) -> None:
        if step.stage == "write, first":
            raise Stopped

    whole = release_of(config(tmp_path / "whole", "selection"))
    with pytest.raises(Stopped):
        release_of(config(tmp_path / "run", "selection", kind="threads", workers=2), stop)
    assert release_of(config(tmp_path / "run", "selection")) == whole


def test_threads_do_not_depend_on_which_models_a_worker_has_loaded(folders: dict[str, Path]) -> None:
    before = torch.get_num_threads()
    try:
        for kind in ("embedder", "summariser", "text"):
            torch.set_num_threads(3)
            Spec(kind=kind, name=str(folders[kind]), threads=2, max_tokens=8).load()  # type: ignore[arg-type]
            assert torch.get_num_threads() == 2, kind
    finally:
        torch.set_num_threads(before)
