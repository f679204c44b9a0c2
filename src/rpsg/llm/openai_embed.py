"""Sentence embeddings by an OpenAI-compatible interface."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rpsg.endpoints import CallingConfig, EndpointConfig, split_name
from rpsg.errors import ModelError
from rpsg.llm.meter import CHARACTERS_PER_TOKEN
from rpsg.llm.replies import clean
from rpsg.llm.servers import Servers
from rpsg.llm.wrappers import require_local
from rpsg.types import FloatArray, Trust

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_BATCH = 64


class OpenAIEmbedder:
    """An embedder on a server. It reads private text in every mode, so a run demands `trust: local`.

    A text longer than the model reads is refused by the server, never cut silently here.

    Args:
        name: `<endpoint>:<model>`.
        endpoint: where it is.
        calling: how many calls at once.
    """

    # Cosines of unrelated and of near-identical texts were not measured for models that a user brings.
    cosine_range = (0.0, 1.0)

    def __init__(self, name: str, endpoint: EndpointConfig, calling: CallingConfig) -> None:
        self.name = name
        self.trust: Trust = endpoint.trust
        self.hosts = endpoint.hosts
        self._servers = Servers(split_name(name)[1], endpoint, calling)
        self._dimension: int | None = None

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Returns unit vectors, shape (len(texts), dimension).

        Raises:
            PrivateDataError: the server is remote: whatever is embedded is private, or compared with what is.
            ModelError: the server refuses a text, or its vectors are not finite numbers of one length.
        """
        require_local(self.name, self.trust, task="embedding")
        if not texts:
            return np.empty((0, self._measure()), dtype=np.float32)
        parts = [list(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
        found = self._servers.gather(lambda i: self._embed_part(parts[i]), len(parts))
        if len({part.shape[1] for part in found}) > 1:
            raise ModelError(f"{self.name}: the server returned vectors of several lengths")
        table = np.concatenate(found)
        norms = np.linalg.norm(table, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not (norms > 0).all():
            raise ModelError(f"{self.name}: the server returned vectors that are not finite or all zero")
        self._dimension = table.shape[1]
        unit: FloatArray = (table / norms).astype(np.float32)
        return unit

    def close(self) -> None:
        """Closes connections."""
        self._servers.close()

    def _measure(self) -> int:
        if self._dimension is None:
            self._dimension = int(self.embed(["a"]).shape[1])
        return self._dimension

    async def _embed_part(self, texts: Sequence[str]) -> FloatArray:
        from openai.types import CreateEmbeddingResponse

        async def create(client: "AsyncOpenAI") -> FloatArray:
            reply = await client.embeddings.create(
                model=self._servers.model,
                input=[clean(text) or " " for text in texts],
                encoding_format="float",
            )
            if not isinstance(reply, CreateEmbeddingResponse) or not reply.data:
                raise ValueError("not an answer with vectors")
            try:
                rows = sorted(reply.data, key=lambda row: row.index)
                if [row.index for row in rows] != list(range(len(texts))):
                    raise ValueError("not one vector a text")
                found = np.array([row.embedding for row in rows], dtype=np.float32)
            except (AttributeError, IndexError, OverflowError, TypeError):
                raise ValueError("not an answer with vectors") from None
            if found.ndim != 2:
                raise ValueError("not one vector a text")
            return found

        async def attempt(lane: int) -> FloatArray:
            return await self._servers.ask(lane, create, lambda _: False, self._refuse)

        size = int(sum(len(text) for text in texts) / CHARACTERS_PER_TOKEN)
        return await self._servers.patiently(attempt, n_tokens=size, give_up=self._refuse)

    def _refuse(self, reason: str) -> FloatArray:
        raise ModelError(
            f"{self.name}: the server did not embed a text ({reason}); it may be longer than the model reads"
        )
