"""What every model of a kind must do, whoever wrote it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rpsg import registry
from rpsg.config import SamplingConfig
from rpsg.llm.embed import TransformerEmbedder
from rpsg.llm.fake import FakeTextModel, HashEmbedder
from rpsg.llm.local import LocalTextModel
from rpsg.llm.prompting import Prompt, PromptedSummariser
from rpsg.llm.sentiment import TransformerSentiment, VaderSentiment
from rpsg.llm.seq2seq import Seq2SeqSummariser
from rpsg.llm.surrogate import Surrogate, SurrogateSettings
from rpsg.types import (
    Embedder,
    LikelihoodModel,
    Message,
    PiiDetector,
    SentimentModel,
    Summariser,
    TextModel,
    TextRequest,
)
from tiny_models import tiny_bart, tiny_bert, tiny_classifier, tiny_gpt2, tiny_llama, tiny_t5, tiny_t5_encoder

TEXTS = [
    "my dog was lost",
    "the doctor said my pain was bad",
    "we found a house near the river",
    "my dog was lost",
]
LONG = " ".join(["the doctor said my work was good and the train was terrible"] * 12)
Maker = Callable[[Path], object]

TEXT_MODELS: dict[str, Maker] = {
    "fake": lambda _: FakeTextModel(),
    "gpt2": lambda folder: LocalTextModel.load(tiny_gpt2(folder), name="tiny", dtype="float32"),
    "llama": lambda folder: LocalTextModel.load(tiny_llama(folder), name="tiny", dtype="float32"),
}
EMBEDDERS: dict[str, Maker] = {
    "hash": lambda _: HashEmbedder(),
    "bert": lambda folder: TransformerEmbedder.load(tiny_bert(folder), name="tiny"),
    "t5": lambda folder: TransformerEmbedder.load(tiny_t5_encoder(folder), name="tiny"),
    "embedded": lambda _: registry.embedder("all-minilm-l6-v2"),
}
SENTIMENTS: dict[str, Maker] = {
    "vader": lambda _: VaderSentiment(),
    "roberta": lambda folder: TransformerSentiment.load(tiny_classifier(folder), name="tiny"),
}
SUMMARISERS: dict[str, Maker] = {
    "bart": lambda folder: Seq2SeqSummariser.load(tiny_bart(folder), name="tiny"),
    "t5": lambda folder: Seq2SeqSummariser.load(tiny_t5(folder), name="tiny"),
    "prompted": lambda _: PromptedSummariser(
        FakeTextModel(),
        Prompt(turns=(Message(role="user", content="{text}"),)),
        sampling=SamplingConfig(),
        max_tokens=30,
    ),
}


def made(table: dict[str, Maker], name: str, folder: Path) -> object:
    return table[name](folder)


def requests(*, temperature: float = 1.0) -> list[TextRequest]:
    return [
        TextRequest(
            messages=(Message(role="user", content=text),),
            content="public",
            max_tokens=6,
            temperature=temperature,
            seed=i,
        )
        for i, text in enumerate(TEXTS)
    ]


@pytest.mark.parametrize("name", list(TEXT_MODELS))
def test_text_model(name: str, tmp_path: Path) -> None:
    model = made(TEXT_MODELS, name, tmp_path)
    assert isinstance(model, TextModel) and model.trust == "local"
    replies = model.complete(requests())
    assert len(replies) == len(TEXTS) and model.complete([]) == []
    assert all(reply.n_tokens <= 6 and reply.n_prompt_tokens > 0 for reply in replies)
    assert model.complete(requests()) == replies
    assert [reply.text for reply in model.complete(requests()[::-1])][::-1] == [r.text for r in replies]
    assert model.context_tokens > 0


@pytest.mark.parametrize("name", list(EMBEDDERS))
def test_embedder(name: str, tmp_path: Path) -> None:
    model = made(EMBEDDERS, name, tmp_path)
    assert isinstance(model, Embedder) and model.trust == "local"
    vectors = model.embed([*TEXTS, LONG, ""])
    assert vectors.dtype == np.float32 and vectors.shape[0] == len(TEXTS) + 2
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)
    assert vectors[0] == pytest.approx(vectors[3], abs=1e-6)
    assert model.embed(TEXTS[1:2])[0] == pytest.approx(vectors[1], abs=1e-5)
    assert model.embed([]).shape[0] == 0
    low, high = model.cosine_range
    assert -1 <= low < high <= 1


@pytest.mark.parametrize("name", ["bert", "t5", "embedded"])
def test_an_embedder_reads_the_end_of_a_long_text(name: str, tmp_path: Path) -> None:
    model = made(EMBEDDERS, name, tmp_path)
    assert isinstance(model, Embedder)
    long = "the doctor said my pain was bad . " * 60
    one, other = model.embed([long, long + "the train to the river was wonderful . " * 30])
    assert float(one @ other) < 0.9999


@pytest.mark.parametrize("name", list(SENTIMENTS))
def test_sentiment_model(name: str, tmp_path: Path) -> None:
    model = made(SENTIMENTS, name, tmp_path)
    assert isinstance(model, SentimentModel) and model.trust == "local"
    found = model.classify([*TEXTS, LONG, ""])
    assert len(found) == len(TEXTS) + 2 and model.classify([]) == []
    assert all(item.label in {"positive", "negative", "neutral"} for item in found)
    assert all(0 <= item.confidence <= 1 for item in found)
    assert model.classify(TEXTS[1:2]) == [found[1]]


def test_vader_hears_the_end_of_a_text() -> None:
    begin = "The meeting was on Monday. " * 40
    found = VaderSentiment().classify(
        [begin, begin + "It was wonderful! " * 20, begin + "It was terrible, I hate it. " * 20]
    )
    assert [item.label for item in found] == ["neutral", "positive", "negative"]


@pytest.mark.parametrize("name", list(SUMMARISERS))
def test_summariser(name: str, tmp_path: Path) -> None:
    model = made(SUMMARISERS, name, tmp_path)
    assert isinstance(model, Summariser) and model.trust == "local" and model.max_words > 0
    found = model.summarise(TEXTS[:3], n=3, seeds=[1, 2, 3], tones=["", "positive", "negative"])
    assert len(found) == 3 and all(1 <= len(group) <= 3 for group in found)
    assert model.summarise(TEXTS[:3], n=3, seeds=[1, 2, 3], tones=["", "positive", "negative"]) == found


def test_likelihood_model() -> None:
    small = SurrogateSettings(vocabulary=300, width=32, layers=1, window=16, tokens=20_000)
    model = Surrogate.train([*TEXTS, LONG], seed=0, settings=small)
    assert isinstance(model, LikelihoodModel)
    scores = model.nll([*TEXTS, LONG, ""])
    assert scores.shape == (6,) and np.isfinite(scores).all() and (scores >= 0).all()
    assert scores[0] == pytest.approx(scores[3])
    assert model.nll(TEXTS[1:2])[0] == pytest.approx(scores[1], rel=1e-4)
    assert model.n_parameters < 10_000_000


def test_pii_detector() -> None:
    model = registry.pii_detector("presidio-en")
    assert isinstance(model, PiiDetector) and model.trust == "local"
    assert model.find([]) == []
    assert len(model.find(["Nothing here.", "Write to mara@quill.example."])) == 2
