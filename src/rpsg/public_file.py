"""The file of public topics and phrases that an end-to-end run may name."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rpsg.errors import ConfigError
from rpsg.rundir import write_text
from rpsg.text import content_words
from rpsg.types import FloatArray

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
LONGEST_WORD = 50
Word = Annotated[str, Field(max_length=LONGEST_WORD)]
_NORM_TOLERANCE = 1e-3
_REMEDY = "build it again with: rpsg public build CONFIG"


class PublicFile(BaseModel):
    """Public topics and phrases, with where they come from.

    Attributes:
        source: what the texts were, in words.
        embedder: name of the model that the centroids belong to.
        n_texts: texts they were built from.
        texts_sha256: of these texts.
        centroids: unit vectors, one a topic, shape (k, d).
        phrases: word to the share of public texts in which it would count, the most telling word first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(1, ge=1, le=1)
    source: str = Field(max_length=300)
    embedder: str = Field(max_length=300)
    n_texts: int = Field(ge=1)
    texts_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    centroids: tuple[tuple[float, ...], ...] = Field(min_length=1, max_length=200)
    phrases: dict[Word, Share] = Field(min_length=1, max_length=10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicMaterial:
    """Public topics and phrases as a run uses them.

    Attributes:
        centroids: unit vectors, shape (k, d).
        phrases: word to its share of public texts; empty where none were built.
        provenance: where they come from, for the card.
        embedder: name of the model that the centroids belong to.
        sha256: of the file; "" where there is none.
    """

    centroids: FloatArray
    phrases: dict[str, float]
    provenance: str
    embedder: str = ""
    sha256: str = ""


def write_public_file(content: PublicFile, path: Path) -> None:
    """Writes the file in one step."""
    write_text(path, json.dumps(content.model_dump(mode="json"), ensure_ascii=False) + "\n")


def read_public_file(path: Path) -> PublicMaterial:
    """Reads a file of public topics and phrases.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    try:
        raw = path.read_bytes()
    except OSError:
        raise ConfigError(
            f"keys.public: cannot read {path}; make it with: rpsg public build CONFIG"
        ) from None
    try:
        content = PublicFile.model_validate_json(raw)
        centroids = np.asarray(content.centroids, dtype=np.float32)
        norms = np.linalg.norm(centroids.astype(np.float64), axis=1)
        sound = bool(np.abs(norms - 1).max() < _NORM_TOLERANCE)
        sound = sound and content_words([" ".join(content.phrases)]) == set(content.phrases)
    except (ValidationError, ValueError):
        # Also rows of different lengths.
        sound = False
    if not sound:
        raise ConfigError(f"keys.public: {path} is not a file of public topics and phrases; {_REMEDY}")
    digest = hashlib.sha256(raw).hexdigest()
    topics = "1 topic" if len(centroids) == 1 else f"{len(centroids)} topics"
    return PublicMaterial(
        centroids=centroids,
        phrases=content.phrases,
        provenance=(
            f"{topics} and {len(content.phrases)} phrases of {content.n_texts} texts ({content.source}), "
            f"texts sha256 {content.texts_sha256}, file sha256 {digest}"
        ),
        embedder=content.embedder,
        sha256=digest,
    )
