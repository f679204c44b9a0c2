import numpy as np
import pytest
import torch

from rpsg.data import read_corpus, sample_path
from rpsg.llm.surrogate import Surrogate, SurrogateSettings

SMALL = SurrogateSettings(vocabulary=600, width=64, layers=2, window=64, tokens=300_000)


@pytest.fixture(scope="module")
def posts() -> list[str]:
    return [record.text for record in read_corpus(sample_path("posts_train.jsonl")).records]


@pytest.fixture(scope="module")
def model(posts: list[str]) -> Surrogate:
    return Surrogate.train(posts[:60], seed=0, settings=SMALL)


def test_later_tokens_do_not_change_earlier_logits(model: Surrogate) -> None:
    ids = torch.randint(2, 500, (1, 40), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, 25:] = (other[0, 25:] + 7) % 500
    with torch.inference_mode():
        one, two = (model._model(input_ids=part).logits for part in (ids, other))
    assert torch.equal(one[0, :25], two[0, :25]) or torch.allclose(one[0, :25], two[0, :25], atol=1e-5)
    assert not torch.allclose(one[0, 25:], two[0, 25:], atol=1e-3)


def test_it_prefers_what_it_has_seen(model: Surrogate, posts: list[str]) -> None:
    seen, other = model.nll(posts[:60]), model.nll(posts[60:120])
    shuffled = model.nll([" ".join(reversed(text.split())) for text in posts[60:120]])
    assert np.mean(seen) < np.mean(other) < np.mean(shuffled)


def test_the_whole_text_counts(model: Surrogate, posts: list[str]) -> None:
    long = " ".join(posts[:3])
    changed = " ".join([*posts[:2], " ".join(reversed(posts[2].split()))])
    assert model.nll([long])[0] < model.nll([changed])[0]


def test_a_seed_fixes_the_model(posts: list[str]) -> None:
    tiny = SurrogateSettings(vocabulary=300, width=16, layers=1, window=32, tokens=4_000)
    one, two, other = (
        Surrogate.train(posts[:10], seed=seed, settings=tiny).nll(posts[:5]) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, two) and not np.array_equal(one, other)
