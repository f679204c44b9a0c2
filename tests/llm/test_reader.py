from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from rpsg.data import read_corpus, sample_path
from rpsg.llm.reader import Reader, _summarise
from rpsg.llm.surrogate import SurrogateSettings
from tiny_models import tiny_bert, tiny_gpt2, tiny_llama

TINY = SurrogateSettings(vocabulary=500, width=32, layers=2, window=48, tokens=30_000)


@pytest.fixture(scope="module")
def posts() -> list[str]:
    return [record.text for record in read_corpus(sample_path("posts_train.jsonl")).records]


def new(texts: list[str], *, tokens: int = TINY.tokens) -> Reader:
    return Reader.new(texts, seed=0, settings=replace(TINY, tokens=tokens))


@pytest.mark.parametrize("make", [tiny_bert, tiny_gpt2, tiny_llama, None])
def test_a_later_token_changes_no_earlier_logit(make: object, tmp_path: Path, posts: list[str]) -> None:
    reader = new(posts[:20]) if make is None else Reader.load(make(tmp_path), settings=TINY)  # type: ignore[operator]
    ids = torch.randint(4, 50, (1, 12), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, 8:] = (other[0, 8:] + 7) % 50
    with torch.inference_mode():
        one, two = reader.logits(ids), reader.logits(other)
    assert torch.allclose(one[0, :8], two[0, :8], atol=1e-5)
    assert not torch.allclose(one[0, 8:], two[0, 8:], atol=1e-3)


def test_bert_without_the_flag_would_see_the_future(tmp_path: Path) -> None:
    """The published code left BERT bidirectional; the test above would have caught it."""
    model = BertForMaskedLM.from_pretrained(tiny_bert(tmp_path)).eval()
    ids = torch.randint(4, 50, (1, 12), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, 8:] = (other[0, 8:] + 7) % 50
    with torch.inference_mode():
        assert not torch.allclose(model(ids).logits[0, :8], model(other).logits[0, :8], atol=1e-3)


def test_training_lowers_perplexity_and_is_fixed_by_its_seed(posts: list[str]) -> None:
    readings = []
    for seed in (0, 0, 1):
        reader = new(posts[:60])
        before = sum(reading.nll for reading in reader.read(posts[60:80]))
        reader.train(posts[:60], seed=seed)
        readings.append(reader.read(posts[60:80]))
        assert sum(reading.nll for reading in readings[-1]) < 0.95 * before
    assert readings[0] == readings[1] != readings[2]


@pytest.mark.parametrize("make", [tiny_bert, tiny_gpt2, tiny_llama])
def test_any_causal_model_can_be_trained_further(make: object, tmp_path: Path) -> None:
    text = "the dog went to the river . my family lost the house ."
    reader = Reader.load(make(tmp_path), settings=replace(TINY, window=8, tokens=8_000))  # type: ignore[operator]
    before = reader.read([text])[0]
    reader.train([text] * 4, seed=0)
    after = reader.read([text])[0]
    assert after.nll < 0.9 * before.nll and after.n_right >= before.n_right
    assert after.n_words == before.n_words == after.n_tokens == 13


def test_all_of_a_long_text_is_read(posts: list[str]) -> None:
    reader = new(posts[:20])
    long = " ".join(posts[:5])
    assert reader.read([long])[0].n_tokens > 4 * TINY.window
    parts = reader.read([long, posts[0], long])
    assert parts[0].n_tokens == parts[2].n_tokens
    assert parts[0].nll == pytest.approx(parts[2].nll, rel=1e-5)
    # The likelihood is that of the model, token by token.
    with torch.inference_mode():
        ids = [0, *reader._encode(posts[0])[0]][: TINY.window + 1]
        scores = reader.logits(torch.tensor([ids])).log_softmax(-1)[0]
        expected = -sum(float(scores[i, token]) for i, token in enumerate(ids[1:]))
    short = reader.read([posts[0][: len(posts[0])]])[0]
    assert short.n_tokens >= len(ids) - 1
    if short.n_tokens == len(ids) - 1:
        assert short.nll == pytest.approx(expected, rel=1e-4)


def test_a_word_is_right_when_all_its_tokens_are() -> None:
    text = "lost money again."
    # Tokens: "lost", " mon", "ey", " again", "."
    reading = _summarise(text, [4, 8, 10, 16, 17], [1.0] * 5, [True, True, False, True, True])
    assert (reading.n_words, reading.n_right, reading.nll) == (4, 3, 5.0)


def test_every_training_has_the_same_number_of_tokens(
    posts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rpsg.llm import surrogate

    seen: list[int] = []
    losses = surrogate.token_losses

    def spy(model: object, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append(int(mask[:, 1:].sum()))
        return losses(model, ids, mask)  # type: ignore[arg-type]

    monkeypatch.setattr(surrogate, "token_losses", spy)
    totals = []
    for texts in (posts[:100], posts[:3], [text[:40] for text in posts]):
        seen.clear()
        new(posts[:20], tokens=20_000).train(texts, seed=0)
        totals.append(sum(seen))
    assert len(set(totals)) == 1 and np.isclose(totals[0], 20_000, rtol=0.05)
