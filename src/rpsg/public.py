"""Public material of an end-to-end run: topics and phrases of texts that nobody has to protect.

They are written by the model from public prompts, or come from a corpus that the user declares public.
Nothing here reads the private data, its size, or a sibling of it.
"""

import hashlib
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rpsg import registry
from rpsg.config import RunConfig
from rpsg.data import read_corpus
from rpsg.errors import ConfigError, DataError
from rpsg.llm.calls import CallStore
from rpsg.llm.prompting import PromptName
from rpsg.loading import Models, OnProgress, load_models
from rpsg.plan_keys import plan_keys
from rpsg.public_file import LONGEST_WORD, PublicFile, PublicMaterial
from rpsg.rng import Streams
from rpsg.session import Session
from rpsg.stages.variants import Source, write_texts
from rpsg.text import content_words, is_usable
from rpsg.types import Embedder, FloatArray

Counts = npt.NDArray[np.float64]

# Words in more public texts than this tell nothing.
_TOO_FREQUENT = 0.5
# Clusters that telling words must tell apart, whatever the number of topics.
_CLUSTERS = 20
_SPLITS = ("train", "test", "dev", "valid", "validation", "eval", "holdout", "private")


def build_file(
    texts: Sequence[str],
    *,
    source: str,
    embedder: Embedder,
    n_topics: int,
    n_phrases: int,
    max_phrases: int,
    seed: int,
) -> PublicFile:
    """Builds topics and phrases from public texts.

    Args:
        texts: public texts.
        source: what they are, in words.
        embedder: the one that the run will use.
        n_topics: clusters wanted.
        n_phrases: most phrases to keep.
        max_phrases: most phrases of one person that will count.
        seed: of the clustering.
    """
    vectors = embedder.embed(texts)
    words = [{word for word in content_words([text]) if len(word) <= LONGEST_WORD} for text in texts]
    ranked = _telling_words(words, vectors, seed=seed)[:n_phrases]
    rank = {word: i for i, word in enumerate(ranked)}
    counted: Counter[str] = Counter()
    for own in words:
        counted.update(sorted(own & rank.keys(), key=rank.__getitem__)[:max_phrases])
    return PublicFile(
        source=source,
        embedder=embedder.name,
        n_texts=len(texts),
        texts_sha256=_digest(texts),
        centroids=tuple(
            tuple(row) for row in _cluster(vectors, min(n_topics, len(texts) // 4), seed=seed).tolist()
        ),
        phrases={word: counted[word] / len(texts) for word in ranked},
    )


def _telling_words(words: Sequence[set[str]], vectors: FloatArray, *, seed: int) -> list[str]:
    """Ranks words by how much they tell of a text's cluster: mutual information of word and cluster."""
    centroids = _cluster(vectors, min(_CLUSTERS, max(2, len(words) // 5)), seed=seed)
    clusters = np.argmax(vectors @ centroids.T, axis=1)
    frequency = Counter(word for own in words for word in own)
    names = sorted(word for word, count in frequency.items() if 2 <= count <= _TOO_FREQUENT * len(words))
    if not names:
        raise DataError("the public texts share no content word; bring more of them")
    place = {word: i for i, word in enumerate(names)}
    joint = np.zeros((len(names), len(centroids)))
    for own, cluster in zip(words, clusters, strict=True):
        joint[[place[word] for word in own if word in place], cluster] += 1
    sizes = np.bincount(clusters, minlength=len(centroids)).astype(np.float64)
    scores = _information(joint, sizes) + _information(sizes - joint, sizes)
    return [names[i] for i in np.lexsort((np.arange(len(names)), -scores))]


def _information(joint: Counts, sizes: Counts) -> Counts:
    share = joint / sizes.sum()
    expected = share.sum(axis=1, keepdims=True) * (sizes / sizes.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(share > 0, share * np.log(share / expected), 0.0)
    total: Counts = terms.sum(axis=1)
    return total


def read_public_corpus(path: Path, *, text_column: str, config: RunConfig) -> list[str]:
    """Reads texts that the user declares public.

    Raises:
        ConfigError: the file is the private one, or by its name another part of the same data set.
        DataError: the file cannot be used.
    """
    private = Path(config.data.path).resolve() if config.data.path else None
    if private is not None and path.resolve() == private:
        raise ConfigError(f"{path} is the private file of this configuration; it cannot be public")
    if private is not None and path.resolve().parent == private.parent and _stem(path) == _stem(private):
        raise ConfigError(
            f"{path} is by its name another part of the private data set ({private.name}); topics and "
            "phrases must come from texts of other people"
        )
    return [record.text for record in read_corpus(path, text_column=text_column).records]


def _stem(path: Path) -> str:
    parts = [part for part in path.stem.lower().replace("-", "_").split("_") if part not in _SPLITS]
    return "_".join(parts)


def build_topics(session: Session, *, n_topics: int) -> PublicMaterial:
    """Builds the topics of a run that names no public file; with one topic there is nothing to build."""
    if n_topics == 1:
        dimension = session.models.embedder.embed(["a"]).shape[1]
        return PublicMaterial(
            centroids=np.zeros((1, dimension), dtype=np.float32),
            phrases={},
            provenance="one topic, no public texts needed",
        )
    wanted = max(session.config.keys.n_public_texts, 4 * n_topics)
    texts = write_public_texts(session, wanted, round_name="public topics")
    vectors = session.models.embedder.embed(texts)
    centroids = _cluster(vectors, n_topics, seed=topic_seed(session.streams))
    where = f"{len(texts)} texts of public prompts, sha256 {_digest(texts)}"
    return PublicMaterial(centroids=centroids, phrases={}, provenance=f"{len(centroids)} topics from {where}")


def topic_seed(streams: Streams) -> int:
    """Returns the public seed of the clustering."""
    return streams.key("topics") % 2**32


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSession:
    """What writing from public prompts needs, outside a run."""

    config: RunConfig
    models: Models
    streams: Streams


def build_public_file(
    config: RunConfig,
    *,
    corpus: Path | None,
    text_column: str = "text",
    n_phrases: int = 500,
    on_progress: OnProgress = lambda _: None,
) -> PublicFile:
    """What `rpsg public build` does: topics and phrases for a configuration, without its private data.

    Args:
        config: an end-to-end configuration; its private file is not opened.
        corpus: texts that the user declares public; None lets the model write from public prompts.
        text_column: of the corpus.
        n_phrases: most phrases to keep.
        on_progress: told what is written.

    Raises:
        ConfigError: the configuration is not end-to-end, or the corpus is the private file or a part of it.
        DataError: the corpus cannot be used.
    """
    keys = config.keys.model_copy(update={"public": None, "vocabulary": "data"})
    planned = plan_keys(config.model_copy(update={"keys": keys}), has_labels=bool(config.data.label_columns))
    streams = Streams(config.seed)
    if corpus is not None:
        texts = read_public_corpus(corpus, text_column=text_column, config=config)
        embedder = registry.embedder(config.models.embed, device=config.generation.device)
        source = f"declared public: {corpus.name}"
    else:
        with tempfile.TemporaryDirectory() as folder, closing(CallStore(Path(folder) / "calls")) as store:
            models = load_models(config, store, on_progress)
            session = PublicSession(config=config, models=models, streams=streams)
            n_texts = max(config.keys.n_public_texts, 4 * planned.n_topics)
            with closing(models):
                texts = write_public_texts(session, n_texts, round_name="public topics")
        embedder, source = models.embedder, f"written by {models.writer.name} from public prompts"
    return build_file(
        texts,
        source=source,
        embedder=embedder,
        n_topics=planned.n_topics,
        n_phrases=n_phrases,
        max_phrases=config.keys.max_phrases,
        seed=topic_seed(streams),
    )


def write_public(
    session: Session | PublicSession, sources: Sequence[Source], *, prompt: PromptName, round_name: str
) -> list[str]:
    """Writes one text from each source, none of which is private."""
    return write_texts(
        sources,
        model=session.models.writer.at(f"{prompt}, {round_name}"),
        embedder=session.models.embedder,
        config=session.config.write,
        prompt=prompt,
        n_each=1,
        streams=session.streams,
        round_name=round_name,
    )


def write_public_texts(session: Session | PublicSession, n: int, *, round_name: str) -> list[str]:
    """Writes texts from public prompts; returns the usable ones, or all where none is."""
    config = session.config.write
    lengths = session.streams.get("public lengths", round_name)
    sources = [
        Source(
            source_id=f"{round_name} {i}",
            record_id=f"{round_name} {i}",
            text="",
            summary="",
            labels={},
            tone="neutral",
            n_words=int(lengths.integers(config.min_length, config.max_length)),
            content="public",
        )
        for i in range(n)
    ]
    texts = write_public(session, sources, prompt="public", round_name=round_name)
    return [text for text in texts if is_usable(text)] or texts


def _cluster(vectors: FloatArray, k: int, *, seed: int) -> FloatArray:
    from scipy.cluster.vq import kmeans2

    different = np.unique(vectors.astype(np.float64), axis=0)
    k = max(1, min(k, len(different)))
    # Begun from different texts; a cluster that loses all of its texts is left out.
    rng = np.random.default_rng(seed)
    start = different[rng.choice(len(different), size=k, replace=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        centroids, owners = kmeans2(different, start, minit="matrix", missing="warn")
    centroids = centroids[np.unique(owners)]
    unit: FloatArray = (centroids / np.linalg.norm(centroids, axis=1, keepdims=True)).astype(np.float32)
    return unit
