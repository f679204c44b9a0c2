"""Public material of an end-to-end run: topics from texts that the model writes from public prompts.

Nothing here reads the private data, its size, or a sibling of it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rpsg.llm.prompting import PromptName
from rpsg.session import Session
from rpsg.stages.variants import Source, write_texts
from rpsg.text import MIN_WORDS, flaw_of
from rpsg.types import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicMaterial:
    """Public topics.

    Attributes:
        centroids: unit vectors, shape (k, d).
        sha256: of the texts they were built from; "" where there is one topic and none were needed.
        n_texts: how many these are.
    """

    centroids: FloatArray
    sha256: str
    n_texts: int

    @property
    def provenance(self) -> str:
        """Says on the card where the topics come from."""
        if not self.n_texts:
            return "one topic, no public texts needed"
        return (
            f"{len(self.centroids)} topics from {self.n_texts} texts of public prompts, sha256 {self.sha256}"
        )


def build_public(session: Session, *, n_topics: int) -> PublicMaterial:
    """Builds public topics; with one topic there is nothing to build."""
    if n_topics == 1:
        dimension = session.models.embedder.embed(["a"]).shape[1]
        return PublicMaterial(centroids=np.zeros((1, dimension), dtype=np.float32), sha256="", n_texts=0)
    wanted = max(session.config.keys.n_public_texts, 4 * n_topics)
    texts = write_public_texts(session, wanted, round_name="public topics")
    vectors = session.models.embedder.embed(texts)
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    return PublicMaterial(
        centroids=_cluster(vectors, n_topics, seed=session.streams.key("topics") % 2**32),
        sha256=digest,
        n_texts=len(texts),
    )


def write_public(
    session: Session, sources: Sequence[Source], *, prompt: PromptName, round_name: str
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


def write_public_texts(session: Session, n: int, *, round_name: str) -> list[str]:
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
        )
        for i in range(n)
    ]
    texts = write_public(session, sources, prompt="public", round_name=round_name)
    return [text for text in texts if flaw_of(text, min_words=MIN_WORDS) is None] or texts


def _cluster(vectors: FloatArray, k: int, *, seed: int) -> FloatArray:
    from scipy.cluster.vq import kmeans2

    k = min(k, len(vectors))
    centroids, _ = kmeans2(vectors.astype(np.float64), k, minit="++", rng=np.random.default_rng(seed))
    norms = np.linalg.norm(centroids, axis=1, keepdims=True)
    unit: FloatArray = (centroids / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit
