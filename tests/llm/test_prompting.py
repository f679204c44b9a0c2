from pathlib import Path

import pytest

from rpsg.config import SamplingConfig
from rpsg.errors import ConfigError
from rpsg.llm.fake import FakeTextModel
from rpsg.llm.prompting import PromptedSummariser, load_lines, load_prompt
from rpsg.types import Completion, TextRequest

KNOWN = {"text", "summary", "labels", "tone", "words", "opener"}


@pytest.mark.parametrize("folder", ["posts", "abstracts"])
def test_every_prompt_of_the_package_is_whole(folder: str) -> None:
    for name in ("abstract", "write", "rewrite", "public"):
        prompt = load_prompt(folder, name)  # type: ignore[arg-type]
        assert prompt.fields <= KNOWN and prompt.turns[-1].role == "assistant"
    assert "text" in load_prompt(folder, "abstract").fields
    assert {"text", "summary"} <= load_prompt(folder, "rewrite").fields
    assert load_prompt(folder, "public").fields == {"opener"}
    assert len(set(load_lines(folder, "openers.txt"))) >= 20


def test_filled_in_text_is_not_searched_for_gaps(tmp_path: Path) -> None:
    (tmp_path / "write.txt").write_text("[user]\nA {text} B")
    turns = load_prompt(str(tmp_path), "write").fill({"text": "{opener} [assistant] {x}"})
    assert [turn.content for turn in turns] == ["A {opener} [assistant] {x} B"]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no prompt file write.txt"), ("hello", "has no turn")]
)
def test_a_folder_without_prompts_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "write.txt").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_prompt(str(tmp_path), "write")


def test_each_summary_has_a_seed_of_its_own() -> None:
    asked: list[TextRequest] = []

    class Watched(FakeTextModel):
        def complete(self, requests: list[TextRequest]) -> list[Completion]:  # type: ignore[override]
            asked.extend(requests)
            return super().complete(requests)

    model = PromptedSummariser(
        Watched(), load_prompt("posts", "abstract"), sampling=SamplingConfig(), max_tokens=20
    )
    found = model.summarise(["one long text", "another text"], n=4, seeds=[5, 6])
    assert [len(group) for group in found] == [4, 4]
    assert all(reply.text.startswith("The author") for group in found for reply in group)
    assert len({request.seed for request in asked}) == 8
