"""The decoding loop: slots of a preallocated key-value cache, refilled as sequences finish.

Works for any causal language model of transformers that keeps plain attention caches. The model's own
modules compute; what is ours is what they leave slow: the cache's layout, short attention and, on a
processor, the layout of half-precision weights. Counting and drawing are done on the processor, where a GPU
computes too.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import DynamicCache

from rpsg.llm.kernels import SharedPrefix, passes_on_options
from rpsg.llm.sampling import Job, sample
from rpsg.llm.slot_cache import SlotCache, states_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Told how many sequences are complete, and how many tokens are written in all.
OnWritten = Callable[[int, int], None]
# A forward pass over prompts takes about this many tokens at once: few enough to stay near the processor,
# or enough to keep a GPU busy.
_PREFILL_TOKENS = 1024
_PREFILL_TOKENS_GPU = 4096
# New sequences enter when this share of the slots is free, so that prompts are read in batches.
_REFILL_SHARE = 0.125
_MIN_SHARED = 16
# Keys and values on a processor take at most about this: of long prompts, or of a large model, fewer are
# written at once rather than more memory taken than a laptop has.
_CACHE_BYTES = 3 << 30
# Prompts up to this length are read with an explicit mask. Longer ones have more scores than the processor
# keeps near; the library's kernel, which never writes them out, is faster.
_SHORT = 512


class Decoder:
    """Runs jobs through a model, many at a time."""

    def __init__(self, model: "PreTrainedModel", *, n_slots: int) -> None:
        self._model = model
        self._device = model.device
        self._n_slots = n_slots
        self._adds_mask = model.config._attn_implementation == "rpsg"
        self._keeps_prefix_once = self._adds_mask and passes_on_options(model)

    @torch.inference_mode()
    def run(self, jobs: Sequence[Job], on_written: OnWritten | None = None) -> None:
        """Writes every job's `written`, in place. Results depend on the whole list and its order."""
        if not jobs:
            return
        shared = _shared_prefix([job.prompt for job in jobs])
        prefix = self._read_prefix(jobs[0].prompt[:shared]) if shared else None
        waiting = deque(sorted(jobs, key=lambda job: (-len(job.prompt), job.prompt)))
        active: list[Job] = []
        kept_once = None
        if prefix is not None and self._keeps_prefix_once:
            kept_once = SharedPrefix([states_of(layer) for layer in prefix.layers])
        start = shared if kept_once is not None else 0
        longest = max(len(job.prompt) + job.max_tokens for job in jobs) - start
        n_slots = min(self._n_slots, len(jobs), self._most_at_once(longest))
        n_layers = self._model.config.num_hidden_layers
        cache = SlotCache(n_layers, n_slots, longest, start=start, device=self._device)
        tokens = torch.zeros(n_slots, dtype=torch.long)
        while waiting or active:
            free = n_slots - len(active)
            if waiting and (free >= max(1, _REFILL_SHARE * n_slots) or not active or free >= len(waiting)):
                new = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                self._enter(new, active, cache, tokens, prefix, shared)
                first = len(active) - len(new)
            else:
                self._step(active, cache, tokens, kept_once)
                first = 0
            n_complete = _retire(active, cache, tokens, first)
            if n_complete and on_written is not None:
                on_written(len(jobs) - len(waiting) - len(active), sum(len(job.written) for job in jobs))

    def _most_at_once(self, longest: int) -> int:
        if self._device.type != "cpu":
            return self._n_slots
        config = self._model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        one = 2 * config.num_hidden_layers * heads * size * longest * self._model.dtype.itemsize
        return max(1, int(_CACHE_BYTES // one))

    def _read_prefix(self, prompt: list[int]) -> DynamicCache:
        cache = DynamicCache(config=self._model.config)
        ids = torch.tensor([prompt], device=self._device)
        self._model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
        return cache

    def _enter(
        self,
        new: Sequence[Job],
        active: list[Job],
        cache: SlotCache,
        tokens: torch.Tensor,
        prefix: DynamicCache | None,
        shared: int,
    ) -> None:
        is_gpu = self._device.type != "cpu"
        for part in _parts(new, shared, _PREFILL_TOKENS_GPU if is_gpu else _PREFILL_TOKENS):
            first = len(active)
            logits, filled, rows = self._prefill(part, prefix, shared)
            cache.fill(first, filled, rows, [len(job.prompt) for job in part])
            active += part
            tokens[first : len(active)] = sample(logits, part)

    def _prefill(
        self, part: Sequence[Job], prefix: DynamicCache | None, shared: int
    ) -> tuple[torch.Tensor, DynamicCache, torch.Tensor]:
        # Equal prompts stand next to each other and are read once.
        starts = [i == 0 or job.prompt != part[i - 1].prompt for i, job in enumerate(part)]
        rows = torch.tensor(starts).cumsum(0) - 1
        prompts = [job.prompt[shared:] for job, is_start in zip(part, starts, strict=True) if is_start]
        # Right padding needs no mask: a token never attends to a later one.
        lasts = torch.tensor([len(prompt) - 1 for prompt in prompts])
        ids = torch.zeros(len(prompts), int(lasts.max()) + 1, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        cache = DynamicCache(config=self._model.config)
        if prefix is not None:
            for index, layer in enumerate(prefix.layers):
                keys, values = (state.expand(len(prompts), -1, -1, -1) for state in states_of(layer))
                cache.update(keys, values, index)
        wanted, place = torch.unique(lasts, return_inverse=True)
        is_short = shared + ids.shape[1] <= _SHORT
        is_gpu = self._device.type != "cpu"
        mask = _causal_mask(shared, ids.shape[1]) if self._adds_mask and is_short and not is_gpu else None
        output = self._model(
            input_ids=ids.to(self._device), attention_mask=mask, past_key_values=cache, logits_to_keep=wanted
        )
        return output.logits[rows, place[rows]], cache, rows

    def _step(
        self, active: Sequence[Job], cache: SlotCache, tokens: torch.Tensor, kept_once: SharedPrefix | None
    ) -> None:
        n = len(active)
        positions = cache.advance(n)
        slots = torch.arange(cache.capacity, device=self._device)
        mask = (slots[None] <= positions[:, None])[:, None, None]
        if self._adds_mask:
            mask = torch.zeros(mask.shape, device=self._device).masked_fill_(~mask, -torch.inf)
        output = self._model(
            input_ids=tokens[:n, None].to(self._device),
            attention_mask=mask,
            position_ids=positions[:, None] + cache.start,
            past_key_values=cache,
            **({} if kept_once is None else {"shared_prefix": kept_once}),
        )
        tokens[:n] = sample(output.logits[:, -1], active)


def _causal_mask(before: int, length: int) -> torch.Tensor:
    """What to add to the scores of `length` tokens that follow `before` others."""
    return torch.full((1, 1, length, before + length), -torch.inf).triu(before + 1)


def _parts(jobs: Sequence[Job], shared: int, n_tokens: int) -> Iterator[list[Job]]:
    """Splits jobs, longest prompts first, so that a part's different prompts can be read at once."""
    part: list[Job] = []
    n_prompts = 0
    for job in jobs:
        if part and job.prompt == part[-1].prompt:
            part.append(job)
            continue
        if part and (n_prompts + 1) * (len(part[0].prompt) - shared) > n_tokens:
            yield part
            part, n_prompts = [], 0
        part.append(job)
        n_prompts += 1
    yield part


def _retire(active: list[Job], cache: SlotCache, tokens: torch.Tensor, first: int) -> int:
    # Complete sequences leave; the last ones take their slots, so that active slots stay contiguous.
    values = tokens.tolist()
    complete = [slot for slot in range(first, len(active)) if active[slot].take(values[slot])]
    for slot in reversed(complete):
        last = len(active) - 1
        if slot != last:
            cache.move(last, slot)
            active[slot], tokens[slot] = active[last], tokens[last]
        active.pop()
    return len(complete)


def _shared_prefix(prompts: Sequence[list[int]]) -> int:
    """Returns how many first tokens all prompts share, leaving each at least one of its own."""
    low, high = min(prompts), max(prompts)
    limit = min(len(prompt) for prompt in prompts) - 1
    length = 0
    while length < limit and low[length] == high[length]:
        length += 1
    return length if length >= _MIN_SHARED and len(prompts) > 1 else 0
