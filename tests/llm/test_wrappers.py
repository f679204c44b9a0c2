from dataclasses import replace
from pathlib import Path

import pytest

from rpsg.config import SamplingConfig
from rpsg.errors import ModelError, PrivateDataError
from rpsg.llm import wrappers
from rpsg.llm.calls import CallStore
from rpsg.llm.fake import FakeTextModel
from rpsg.llm.local import LocalTextModel
from rpsg.llm.prompting import Prompt, PromptedSummariser
from rpsg.llm.wrappers import StoredSummariser, StoredTextModel, require_local
from rpsg.types import Completion, Message, Progress, TextModel, TextRequest
from tiny_models import tiny_llama


class Counting(FakeTextModel):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def complete(self, requests: list[TextRequest]) -> list[Completion]:  # type: ignore[override]
        self.calls.append(len(requests))
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        return super().complete(requests)

    fail_at = 0


def ask(n: int) -> list[TextRequest]:
    return [
        TextRequest(
            messages=(Message(role="user", content=f"text number {i}"),),
            content="public",
            max_tokens=5,
            seed=i,
        )
        for i in range(n)
    ]


def stored(model: TextModel, path: Path, seen: list[Progress], settings: str = "") -> StoredTextModel:
    return StoredTextModel(
        model,
        store=CallStore(path),
        stage="write",
        chunk_size=4,
        settings=settings,
        on_progress=seen.append,
    )


def test_finished_chunks_are_read_back_and_the_rest_is_written(tmp_path: Path) -> None:
    model, seen = Counting(), []
    model.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        stored(model, tmp_path / "calls.sqlite", seen).complete(ask(10))
    again = Counting()
    replies = stored(again, tmp_path / "calls.sqlite", seen).complete(ask(10))
    assert again.calls == [2]
    assert replies == FakeTextModel().complete(ask(10))
    assert [step.done for step in seen] == [0, 4, 8, 0, 4, 8, 10]
    assert [step.n_new > 0 for step in seen] == [False, True, True, False, False, False, True]


def of_lengths(*lengths: int) -> list[TextRequest]:
    return [replace(request, max_tokens=n) for request, n in zip(ask(len(lengths)), lengths, strict=True)]


def test_progress_is_told_within_a_chunk_and_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrappers, "_TELL_SECONDS", 0.0)
    model = LocalTextModel.load(tiny_llama(tmp_path / "llama"), name="tiny", dtype="float32")
    seen: list[Progress] = []
    kept = stored(model, tmp_path / "calls.sqlite", seen)
    replies = kept.complete(of_lengths(2, 5, 9, 14, 3, 8))
    done = [step.done for step in seen]
    assert done == sorted(done) and done[-1] == 6 and len(set(done) - {0, 4, 6}) >= 2
    tokens = [step.n_tokens for step in seen]
    assert tokens == sorted(tokens) and tokens[-1] == sum(reply.n_tokens or 0 for reply in replies)
    assert sum(step.n_new for step in seen) == tokens[-1]
    assert model.on_written is None
    assert kept.complete(of_lengths(2, 5, 9, 14, 3, 8)) == replies


def test_progress_of_summaries_counts_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrappers, "_TELL_SECONDS", 0.0)
    model = LocalTextModel.load(tiny_llama(tmp_path / "llama"), name="tiny", dtype="float32")
    prompt = Prompt(turns=(Message(role="user", content="<text>{text}</text> {hint}"),))
    summariser = PromptedSummariser(model, prompt, sampling=SamplingConfig(), max_tokens=12)
    seen: list[Progress] = []
    kept = StoredSummariser(
        summariser, CallStore(tmp_path / "c"), chunk_size=3, settings="", on_progress=seen.append
    )
    kept.summarise(["a cat", "my dog", "the house"], n=4, seeds=[1, 2, 3], tones=["neutral"] * 3)
    assert seen[-1].done == seen[-1].total == 3 and all(step.done <= 3 for step in seen)
    assert len(seen) > 3


@pytest.mark.parametrize("change", ["prompt", "settings"])
def test_another_call_is_not_mistaken_for_a_stored_one(tmp_path: Path, change: str) -> None:
    stored(Counting(), tmp_path / "calls.sqlite", []).complete(ask(4))
    model = Counting()
    requests = ask(5)[1:] if change == "prompt" else ask(4)
    settings = "float32" if change == "settings" else ""
    stored(model, tmp_path / "calls.sqlite", [], settings).complete(requests)
    assert model.calls == [4]


def test_the_store_is_for_its_owner_only(tmp_path: Path) -> None:
    CallStore(tmp_path / "calls.sqlite")
    assert (tmp_path / "calls.sqlite").stat().st_mode & 0o777 == 0o600


def test_private_text_needs_a_local_model() -> None:
    require_local("m", "local", task="abstraction")
    with pytest.raises(PrivateDataError, match="'m' is remote"):
        require_local("m", "remote", task="abstraction")


@pytest.mark.parametrize("fault", ["fewer", "more", "none", "not a text"])
def test_what_a_model_should_not_return_is_not_kept(tmp_path: Path, fault: str) -> None:
    class Odd(FakeTextModel):
        def complete(self, requests: list[TextRequest]) -> list[Completion]:  # type: ignore[override]
            good = super().complete(requests)
            odd = replace(good[0], text=None)  # type: ignore[arg-type]
            return {"fewer": good[1:], "more": [*good, good[0]], "none": [None, *good[1:]]}.get(
                fault, [odd, *good[1:]]
            )  # type: ignore[return-value]

    with pytest.raises(ModelError, match="did not return one text a request"):
        stored(Odd(), tmp_path / "calls.sqlite", []).complete(ask(8))
    assert len(stored(FakeTextModel(), tmp_path / "calls.sqlite", []).complete(ask(8))) == 8
