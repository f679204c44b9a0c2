"""A text model and an embedder without weights: fast, deterministic, for tests of pipelines."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from rpsg.rng import Streams
from rpsg.text import words_of
from rpsg.types import Completion, FloatArray, TextRequest, Trust

_DIMENSION = 256
_FRAMES = (
    "I have been thinking about the {0} and the {1} for weeks.",
    "My {0} got worse after the {1}, and nobody could explain it.",
    "We tried to fix the {0} before the {1} came.",
    "In the end the {0} mattered more than any {1}.",
    "Nobody told me that a {0} could change a {1} so much.",
    "The {0} is hard, but the {1} helps me through it.",
)


class FakeTextModel:
    """Writes sentences around words of the last user turn; a function of prompt and seed."""

    name = "fake"
    context_tokens = 4096

    def __init__(self, trust: Trust = "local") -> None:
        self.trust: Trust = trust

    def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
        """Returns one reply a request."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: TextRequest) -> Completion:
        prompt = "\n".join(message.content for message in request.messages)
        source = next((m.content for m in reversed(request.messages) if m.role == "user"), prompt)
        rng = Streams(request.seed).get(hashlib.sha256(prompt.encode()).hexdigest())
        words = [word for word in words_of(source) if len(word) > 4] or ["matter", "thing"]
        sentences: list[str] = []
        while len(" ".join(sentences).split()) < request.max_tokens:
            frame = _FRAMES[int(rng.integers(len(_FRAMES)))]
            first, second = (words[int(rng.integers(len(words)))] for _ in range(2))
            sentences.append(frame.format(first, second))
        tokens = " ".join(sentences).split()
        text = " " + " ".join(tokens[: request.max_tokens])
        for stop in request.stop:
            text = text.split(stop)[0]
        begun = request.messages[-1].content if request.messages[-1].role == "assistant" else ""
        return Completion(
            text=begun + text,
            n_prompt_tokens=len(prompt.split()),
            n_tokens=len(text.split()),
            finish="length",
        )


class HashEmbedder:
    """Hashed bag of words: texts that share words are near."""

    name = "hash"
    trust: Trust = "local"
    cosine_range = (0.0, 1.0)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Returns unit vectors, shape (len(texts), 256)."""
        table = np.zeros((len(texts), _DIMENSION), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in words_of(text):
                digest = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
                table[row, digest % _DIMENSION] += 1 if digest >> 63 else -1
            norm = float(np.linalg.norm(table[row]))
            if math.isclose(norm, 0):
                table[row, 0] = norm = 1.0
            table[row] /= norm
        return table
