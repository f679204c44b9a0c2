"""The decoding loop: slots of a preallocated key-value cache, refilled as sequences finish.

Works for any causal language model of transformers that keeps plain attention caches. The model's own
modules compute; what is ours is what they leave slow on a processor: the cache's layout, attention for a
single new token, and the layout of half-precision weights.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A forward pass over prompts takes about this many tokens at once.
_PREFILL_TOKENS = 2048
# New sequences enter when this share of the slots is free, so that prompts are read in batches.
_REFILL_SHARE = 0.125
_MIN_SHARED = 16
_CAPACITY_STEP = 32
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


class _SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, one row a slot, each row filled up to its own length.

    Keys are stored transposed, (slots, heads, width of a head, positions), as the product with a
    single query reads them. The matrix kernel copies what is not dense, so all positions are handed
    out, and their number follows the longest sequence.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, cache: "_SlotCache") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache = cache
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        slots, most = self._cache.n_slots, self._cache.most
        self._key_room = key_states.new_empty(slots * key_states[0, :, 0].numel() * most)
        self._value_room = value_states.new_empty(slots * value_states[0, :, 0].numel() * most)
        self._heads = key_states.shape[1]
        self._take_room(self._cache.capacity)
        self.keys.zero_()
        self.values.zero_()

    def resize(self, capacity: int) -> None:
        # Within memory that is already mapped: fresh pages cost more than the copy.
        kept = min(capacity, self._cache.capacity)
        keys, values = self.keys[..., :kept].clone(), self.values[:, :, :kept].clone()
        self._take_room(capacity)
        self.keys[..., :kept], self.values[:, :, :kept] = keys, values
        self.keys[..., kept:], self.values[:, :, kept:] = 0, 0

    def _take_room(self, capacity: int) -> None:
        slots, heads, most = self._cache.n_slots, self._heads, self._cache.most
        n_keys, n_values = (len(room) // most * capacity for room in (self._key_room, self._value_room))
        self.keys = self._key_room[:n_keys].view(slots, heads, -1, capacity)
        self.values = self._value_room[:n_values].view(slots, heads, capacity, -1)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n, cache = key_states.shape[0], self._cache
        self.keys[cache.rows[:n], :, :, cache.positions[:n]] = key_states[:, :, 0]
        self.values[cache.rows[:n], :, cache.positions[:n]] = value_states[:, :, 0]
        return self.keys[:n].transpose(2, 3), self.values[:n]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        del query_length
        return self._cache.capacity, 0

    def get_seq_length(self) -> int:
        return self._cache.capacity - 1

    def get_max_length(self) -> int:
        return self._cache.capacity


class _SlotCache(Cache):
    """A cache whose row i holds the sequence in slot i; `positions` is each one's last position."""

    def __init__(self, n_layers: int, n_slots: int, longest: int) -> None:
        self.n_slots = n_slots
        self.most = _round_up(longest)
        self.capacity = 0
        self.rows = torch.arange(n_slots)
        self.positions = torch.zeros(n_slots, dtype=torch.long)
        self.slot_layers = [_SlotLayer(self) for _ in range(n_layers)]
        super().__init__(layers=list(self.slot_layers))

    def fit(self, width: int) -> None:
        """Makes room for `width` positions and gives back what is far more."""
        if self.capacity - 2 * _CAPACITY_STEP <= width <= self.capacity:
            return
        capacity = _round_up(width)
        for layer in self.slot_layers:
            if layer.keys is not None:
                layer.resize(capacity)
        self.capacity = capacity

    def fill(self, first: int, prefilled: DynamicCache, lengths: Sequence[int]) -> None:
        """Copies prompts that were read with right padding into slots."""
        end = first + len(lengths)
        self.fit(max([*lengths, *(self.positions[:first] + 1).tolist()]))
        for layer, source in zip(self.slot_layers, prefilled.layers, strict=True):
            keys, values = _states_of(source)
            if layer.keys is None:
                layer.lazy_initialization(keys, values)
            width = keys.shape[2]
            layer.keys[first:end, ..., :width] = keys.transpose(2, 3)
            layer.values[first:end, :, :width] = values
        self.positions[first:end] = torch.tensor(lengths) - 1

    def move(self, source: int, target: int) -> None:
        """Moves a sequence to another slot."""
        length = int(self.positions[source]) + 1
        for layer in self.slot_layers:
            layer.keys[target, ..., :length] = layer.keys[source, ..., :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]
        self.positions[target] = self.positions[source]


def _round_up(width: int) -> int:
    return -(-width // _CAPACITY_STEP) * _CAPACITY_STEP


def _states_of(layer: object) -> tuple[torch.Tensor, torch.Tensor]:
    attention = cast("CacheLayerMixin", layer)
    return cast("torch.Tensor", attention.keys), cast("torch.Tensor", attention.values)


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: object,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention of one new token a sequence as two small products; all else goes to the library's kernel.

    The library's kernel works through each head's keys on its own, and three heads may share them; it
    took half of a step's time. Only `Decoder._step` passes a mask that is added to the scores.
    """
    if query.shape[2] != 1 or attention_mask is None or not attention_mask.is_floating_point():
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **cast("dict[str, Any]", options)
        )
    rows, heads, _, width = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    scores = (grouped @ key.transpose(2, 3)).float()
    scores = scores * (width**-0.5 if scaling is None else scaling) + attention_mask
    mixed = scores.softmax(-1).to(value.dtype) @ value
    return mixed.reshape(rows, 1, heads, value.shape[3]), None


AttentionInterface.register("rpsg", _attend)
AttentionMaskInterface.register("rpsg", sdpa_mask)
# What `_attend` does not compute; a model with one of these keeps the library's attention.
_OTHER_ATTENTION = ("sliding_window", "attn_logit_softcapping", "use_sliding_window", "layer_types")


def use_slot_attention(model: "PreTrainedModel") -> None:
    """Lets a model attend with `_attend`, where its attention is the plain one."""
    plain = not any(getattr(model.config, name, None) for name in _OTHER_ATTENTION)
    if plain and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("rpsg")


class _PackedLinear(nn.Module):
    """A linear layer whose bfloat16 weight is laid out once for the processor's matrix kernel."""

    def __init__(self, linear: nn.Linear, batch: int) -> None:
        super().__init__()
        self._bias = linear.bias
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), batch)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            states, self._weight, self._bias, "none", [], ""
        )
        return result


def pack_linear_layers(model: "PreTrainedModel", batch: int) -> None:
    """Repacks every bfloat16 linear layer in place, where the processor can use it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child.weight.dtype == torch.bfloat16:
                setattr(module, name, _PackedLinear(child, batch))


class Decoder:
    """Runs jobs through a model, many at a time."""

    def __init__(self, model: "PreTrainedModel", *, n_slots: int) -> None:
        self._model = model
        self._n_slots = n_slots
        self._adds_mask = model.config._attn_implementation == "rpsg"

    @torch.inference_mode()
    def run(self, jobs: Sequence[Job]) -> None:
        """Writes every job's `written`, in place. Results depend on the whole list and its order."""
        if not jobs:
            return
        shared = _shared_prefix([job.prompt for job in jobs])
        prefix = self._read_prefix(jobs[0].prompt[:shared]) if shared else None
        waiting = deque(sorted(jobs, key=lambda job: -len(job.prompt)))
        active: list[Job] = []
        n_slots = min(self._n_slots, len(jobs))
        longest = max(len(job.prompt) + job.max_tokens for job in jobs)
        cache = _SlotCache(self._model.config.num_hidden_layers, n_slots, longest)
        tokens = torch.zeros(n_slots, dtype=torch.long)
        while waiting or active:
            free = n_slots - len(active)
            if waiting and (free >= max(1, _REFILL_SHARE * n_slots) or not active or free >= len(waiting)):
                new = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                self._enter(new, active, cache, tokens, prefix, shared)
                first = len(active) - len(new)
            else:
                self._step(active, cache, tokens)
                first = 0
            _retire(active, cache, tokens, first)

    def _read_prefix(self, prompt: list[int]) -> DynamicCache:
        cache = DynamicCache(config=self._model.config)
        self._model(input_ids=torch.tensor([prompt]), past_key_values=cache, logits_to_keep=1)
        return cache

    def _enter(
        self,
        new: Sequence[Job],
        active: list[Job],
        cache: _SlotCache,
        tokens: torch.Tensor,
        prefix: DynamicCache | None,
        shared: int,
    ) -> None:
        start = 0
        while start < len(new):
            # Sorted by length, so the first of a part is its longest.
            size = max(1, _PREFILL_TOKENS // (len(new[start].prompt) - shared))
            part = new[start : start + size]
            first = len(active)
            logits, filled = self._prefill(part, prefix, shared)
            cache.fill(first, filled, [len(job.prompt) for job in part])
            active += part
            tokens[first : len(active)] = _sample(logits, part)
            start += size

    def _prefill(
        self, part: Sequence[Job], prefix: DynamicCache | None, shared: int
    ) -> tuple[torch.Tensor, DynamicCache]:
        # Right padding needs no mask: a token never attends to a later one.
        lasts = [len(job.prompt) - shared - 1 for job in part]
        ids = torch.zeros(len(part), max(lasts) + 1, dtype=torch.long)
        for row, job in enumerate(part):
            ids[row, : lasts[row] + 1] = torch.tensor(job.prompt[shared:])
        cache = DynamicCache(config=self._model.config)
        if prefix is not None:
            for index, layer in enumerate(prefix.layers):
                keys, values = _states_of(layer)
                cache.update(keys.expand(len(part), -1, -1, -1), values.expand(len(part), -1, -1, -1), index)
        wanted, place = torch.unique(torch.tensor(lasts), return_inverse=True)
        output = self._model(input_ids=ids, past_key_values=cache, logits_to_keep=wanted)
        return output.logits[torch.arange(len(part)), place], cache

    def _step(self, active: Sequence[Job], cache: _SlotCache, tokens: torch.Tensor) -> None:
        n = len(active)
        cache.positions[:n] += 1
        positions = cache.positions[:n]
        cache.fit(int(positions.max()) + 1)
        mask = (torch.arange(cache.capacity)[None] <= positions[:, None])[:, None, None]
        if self._adds_mask:
            mask = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
        output = self._model(
            input_ids=tokens[:n, None],
            attention_mask=mask,
            position_ids=positions[:, None],
            past_key_values=cache,
        )
        tokens[:n] = _sample(output.logits[:, -1], active)


def _retire(active: list[Job], cache: _SlotCache, tokens: torch.Tensor, first: int) -> None:
    # Complete sequences leave; the last ones take their slots, so that active slots stay contiguous.
    values = tokens.tolist()
    complete = [slot for slot in range(first, len(active)) if active[slot].take(values[slot])]
    for slot in reversed(complete):
        last = len(active) - 1
        if slot != last:
            cache.move(last, slot)
            active[slot], tokens[slot] = active[last], tokens[last]
        active.pop()


def _sample(logits: torch.Tensor, jobs: Sequence[Job]) -> torch.Tensor:
    """Draws one token a row: temperature, then top-k, then top-p, then the row's own uniform."""
    vocabulary = logits.shape[-1]
    keep = torch.tensor([[job.top_k or vocabulary] for job in jobs])
    keep = torch.where(torch.tensor([[job.temperature == 0] for job in jobs]), 1, keep)
    temperature = torch.tensor([[job.temperature or _GREEDY_TEMPERATURE] for job in jobs])
    top_p = torch.tensor([[job.top_p] for job in jobs])
    values, indices = _top(logits, min(int(keep.max()), vocabulary))
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


def _shared_prefix(prompts: Sequence[list[int]]) -> int:
    """Returns how many first tokens all prompts share, leaving each at least one of its own."""
    low, high = min(prompts), max(prompts)
    limit = min(len(prompt) for prompt in prompts) - 1
    length = 0
    while length < limit and low[length] == high[length]:
        length += 1
    return length if length >= _MIN_SHARED and len(prompts) > 1 else 0
