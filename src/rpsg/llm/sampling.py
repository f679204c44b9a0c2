"""Draws tokens: temperature, then top-k, then top-p, each sequence from its own random stream."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

_VOCABULARY_BLOCK = 64
_GREEDY_TEMPERATURE = 1e-4


@dataclass(slots=True, kw_only=True)
class Job:
    """One sequence to be written.

    Attributes:
        prompt: token ids.
        max_tokens: upper bound on new tokens.
        temperature: 0 is greedy.
        top_k: 0 keeps all tokens.
        top_p: nucleus, after top-k.
        stops: token ids that end the sequence.
        seed: of the job's own random stream.
        written: new token ids.
        stopped: whether it ended before `max_tokens`.
    """

    prompt: list[int]
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    stops: frozenset[int]
    seed: int
    written: list[int] = field(default_factory=list)
    stopped: bool = False
    uniforms: list[float] = field(default_factory=list)

    def take(self, token: int) -> bool:
        """Adds a token; tells whether the sequence is complete."""
        if token in self.stops:
            self.stopped = True
            return True
        self.written.append(token)
        return self.stopped or len(self.written) >= self.max_tokens

    def next_uniform(self) -> float:
        """Returns the job's next random number; depends on its seed and position only."""
        if not self.uniforms:
            rng = np.random.Generator(np.random.Philox(key=self.seed))
            self.uniforms = rng.random(self.max_tokens + 1).tolist()
        return self.uniforms[len(self.written)]


def sample(logits: torch.Tensor, jobs: Sequence[Job]) -> torch.Tensor:
    """Draws one token a row: temperature, then top-k, then top-p, then the row's own uniform.

    The largest logits are found where they are; the rest is done on the processor, so that the same logits
    give the same tokens on every device, and a GPU's sums, whose order may change, have no part in it.
    """
    vocabulary = logits.shape[-1]
    keep = torch.tensor([[job.top_k or vocabulary] for job in jobs])
    keep = torch.where(torch.tensor([[job.temperature == 0] for job in jobs]), 1, keep)
    temperature = torch.tensor([[job.temperature or _GREEDY_TEMPERATURE] for job in jobs])
    top_p = torch.tensor([[job.top_p] for job in jobs])
    values, indices = (best.cpu() for best in _top(logits, min(int(keep.max()), vocabulary)))
    ranks = torch.arange(values.shape[-1])[None]
    chances = (values / temperature).masked_fill(ranks >= keep, -torch.inf).softmax(-1)
    # The token that crosses top-p is kept.
    chances = chances.masked_fill(chances.cumsum(-1) - chances >= top_p, 0.0)
    heights = chances.double().cumsum(-1)
    uniforms = torch.tensor([[job.next_uniform()] for job in jobs], dtype=torch.double)
    drawn = torch.searchsorted(heights, uniforms * heights[:, -1:], right=True)
    # Rounding may point past the last token that has a chance.
    last = (chances > 0).sum(-1, keepdim=True) - 1
    return indices.gather(1, torch.minimum(drawn, last))[:, 0]


def _top(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact top-k, largest first: the k largest values lie in the k blocks with the largest maxima."""
    rows, vocabulary = logits.shape
    n_blocks = vocabulary // _VOCABULARY_BLOCK
    if vocabulary % _VOCABULARY_BLOCK or k >= n_blocks:
        values, indices = logits.float().topk(k, dim=-1)
        return values, indices
    blocks = logits.view(rows, n_blocks, _VOCABULARY_BLOCK)
    best = blocks.amax(-1).topk(k, dim=-1).indices
    inside = blocks.gather(1, best[..., None].expand(-1, -1, _VOCABULARY_BLOCK)).reshape(rows, -1)
    values, places = inside.float().topk(k, dim=-1)
    indices = best.gather(1, places // _VOCABULARY_BLOCK) * _VOCABULARY_BLOCK + places % _VOCABULARY_BLOCK
    return values, indices
