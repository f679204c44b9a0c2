from dataclasses import replace
from pathlib import Path

import pytest

from rpsg.errors import ModelError, PrivateDataError
from rpsg.llm.calls import CallStore
from rpsg.llm.fake import FakeTextModel
from rpsg.llm.wrappers import StoredTextModel, require_local
from rpsg.types import Completion, Message, Progress, TextRequest


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


def stored(model: FakeTextModel, path: Path, seen: list[Progress], settings: str = "") -> StoredTextModel:
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
