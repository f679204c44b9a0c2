from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from rpsg.errors import ModelUnavailable
from rpsg.llm.seq2seq import BeamSettings, Seq2SeqSummariser
from tiny_models import tiny_bart, tiny_gpt2, tiny_t5

TEXTS = [
    "the doctor said my dog felt terrible",
    "patients in the study",
    "my family lost the house and the money because of bad work before the morning train",
]
PLAINLY = [""] * 3
PLAIN = BeamSettings(
    beams=4, groups=1, diversity=0.0, min_tokens=5, max_tokens=20, no_repeat_ngram=3, length_penalty=1.0
)
GROUPS = BeamSettings(beams=8, groups=4, diversity=3.0, min_tokens=5, max_tokens=20)


@pytest.fixture(scope="module", params=[tiny_bart, tiny_t5], ids=["bart", "t5"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = request.param(tmp_path_factory.mktemp("model"))
    return path


def reference(folder: Path, text: str, settings: BeamSettings, n: int) -> list[str]:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        num_beams=settings.beams,
        num_return_sequences=n,
        min_new_tokens=settings.min_tokens,
        max_new_tokens=settings.max_tokens,
        no_repeat_ngram_size=settings.no_repeat_ngram,
        length_penalty=settings.length_penalty,
        early_stopping=False,
        do_sample=False,
    )
    return [tokenizer.decode(row, skip_special_tokens=True) for row in output]


@pytest.mark.parametrize("length_penalty", [1.0, 2.0])
def test_one_group_without_penalty_is_plain_beam_search(folder: Path, length_penalty: float) -> None:
    settings = BeamSettings(
        beams=4, groups=1, diversity=0.0, min_tokens=5, max_tokens=20, length_penalty=length_penalty
    )
    model = Seq2SeqSummariser.load(folder, name="tiny", settings=settings)
    found = model.summarise(TEXTS, n=3, seeds=[0, 0, 0], tones=PLAINLY)
    for text, summaries in zip(TEXTS, found, strict=True):
        expected = list(dict.fromkeys(reference(folder, text, settings, 4)))[:3]
        assert [summary.text for summary in summaries][: len(expected)] == expected


def test_groups_begin_differently(folder: Path) -> None:
    alike = BeamSettings(beams=4, groups=4, diversity=0.0, min_tokens=5, max_tokens=20)
    apart = BeamSettings(beams=4, groups=4, diversity=30.0, min_tokens=5, max_tokens=20)
    firsts = []
    for settings in (alike, apart):
        model = Seq2SeqSummariser.load(folder, name="tiny", settings=settings)
        states, mask = model._encode([model._tokenizer(TEXTS[0])["input_ids"]])
        with torch.inference_mode():
            groups = model._search(states, mask)[0]
        firsts.append(len({group.finished[0].tokens[0] for group in groups}))
    assert firsts == [1, 4]


def test_summaries_are_distinct_and_within_bounds(folder: Path) -> None:
    model = Seq2SeqSummariser.load(folder, name="tiny", settings=GROUPS)
    for summaries in model.summarise(TEXTS, n=5, seeds=[1, 2, 3], tones=PLAINLY):
        assert len({summary.text for summary in summaries}) == len(summaries) == 5
        assert all(GROUPS.min_tokens < summary.n_tokens <= GROUPS.max_tokens for summary in summaries)
        assert all((summary.finish == "length") <= (summary.n_tokens == 20) for summary in summaries)


def test_a_result_does_not_depend_on_the_batch(folder: Path) -> None:
    model = Seq2SeqSummariser.load(folder, name="tiny", settings=GROUPS)
    together = model.summarise(TEXTS, n=12, seeds=[1, 2, 3], tones=PLAINLY)
    alone = [
        model.summarise([text], n=12, seeds=[seed], tones=[""])[0] for seed, text in enumerate(TEXTS, start=1)
    ]
    assert together == alone


def test_sampling_fills_up_and_follows_the_seed(folder: Path) -> None:
    model = Seq2SeqSummariser.load(folder, name="tiny", settings=PLAIN)
    first, again, other = (model.summarise(TEXTS[:1], n=8, seeds=[seed], tones=[""])[0] for seed in (1, 1, 2))
    assert first == again
    assert [item.text for item in first] != [item.text for item in other]
    assert [item.text for item in first[:3]] == [item.text for item in other[:3]]


def test_a_text_longer_than_the_model_reads_gets_no_summary_instead_of_being_cut(folder: Path) -> None:
    model = Seq2SeqSummariser.load(folder, name="tiny", settings=PLAIN)
    found = model.summarise(["dog " * 100, TEXTS[0]], n=2, seeds=[0, 0], tones=["", ""])
    assert found[0] == []
    assert len(found[1]) == 2
    assert model.max_words < 64


def test_runs_are_not_repeated(folder: Path) -> None:
    model = Seq2SeqSummariser.load(folder, name="tiny", settings=PLAIN)
    with torch.inference_mode():
        groups = model._search(*model._encode([model._tokenizer(TEXTS[0])["input_ids"]]))[0]
    for found in groups[0].finished:
        runs = list(zip(found.tokens, found.tokens[1:], found.tokens[2:], strict=False))
        assert len(set(runs)) == len(runs) > 2


def test_a_causal_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="tiny-gpt2"):
        Seq2SeqSummariser.load(tiny_gpt2(tmp_path), name="tiny-gpt2")


def test_beams_must_divide_into_groups(folder: Path) -> None:
    with pytest.raises(ValueError, match="multiple"):
        Seq2SeqSummariser.load(folder, name="tiny", settings=BeamSettings(beams=5, groups=2))
