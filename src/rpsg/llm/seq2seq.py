"""Summaries by encoder-decoder models such as facebook/bart-large-cnn.

Diverse beam search (Vijayakumar 2016): beams are split into groups, and at each step a group pays for
tokens that earlier groups chose in that step. What is still missing is sampled.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rpsg.errors import ModelUnavailable
from rpsg.llm.quiet import quiet_transformers
from rpsg.types import Completion, Device, Trust

if TYPE_CHECKING:
    import torch
    from transformers import EncoderDecoderCache, PreTrainedModel, PreTrainedTokenizerBase

_WORDS_PER_TOKEN = 0.7
_BLOCKED = -1e9
_SHORTER = "Lower abstract.max_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamSettings:
    """How summaries are searched; lengths in tokens.

    Attributes:
        beams: of all groups together; a multiple of `groups`.
        groups: searched one after another in each step.
        diversity: log-probability a token loses for each time an earlier group chose it in this step.
        no_repeat_ngram: no run of so many tokens occurs twice; 0 allows all.
        length_penalty: scores are divided by length to this power.
        texts_at_once: texts decoded together.
    """

    beams: int = 8
    groups: int = 4
    diversity: float = 0.3
    min_tokens: int = 50
    max_tokens: int = 150
    no_repeat_ngram: int = 3
    length_penalty: float = 1.0
    temperature: float = 1.05
    top_k: int = 50
    top_p: float = 0.92
    texts_at_once: int = 4

    @classmethod
    def of_length(cls, max_tokens: int) -> Self:
        """Returns the default search with summaries of a third of `max_tokens` at least."""
        return cls(min_tokens=max_tokens // 3, max_tokens=max_tokens)

    def within(self, max_tokens: int) -> Self:
        """Returns these settings with summaries of at most `max_tokens`."""
        most = min(self.max_tokens, max_tokens)
        return replace(self, max_tokens=most, min_tokens=min(self.min_tokens, most // 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    tokens: tuple[int, ...] = field(repr=False)
    score: float
    ended: bool


class _Group:
    """One text's beams of one group: running ones, and the best finished ones."""

    def __init__(self, size: int, length_penalty: float) -> None:
        self._size = size
        self._length_penalty = length_penalty
        self.running: list[tuple[int, ...]] = [()] * size
        # Only the first beam counts in the first step: all are alike.
        self.scores = [0.0] + [_BLOCKED] * (size - 1)
        self.parents = list(range(size))
        self.finished: list[_Found] = []
        self.open = True

    def advance(self, ranked: Sequence[tuple[float, int, int]], eos: frozenset[int], *, last: bool) -> None:
        """Takes (score, beam, token) best first; keeps the best unfinished as running beams.

        In the last step the best are finished as they are: they ran into the length limit.
        """
        kept: list[tuple[float, int, int]] = []
        for rank, (score, beam, token) in enumerate(ranked):
            ends = token in eos
            if not ends:
                kept.append((score, beam, token))
            if (ends or last) and rank < self._size and self.open:
                self._finish((*self.running[beam], token), score, ended=ends)
        kept = kept[: self._size]
        self.running = [(*self.running[beam], token) for _, beam, token in kept]
        self.scores = [score for score, _, _ in kept]
        self.parents = [beam for _, beam, _ in kept]
        if len(self.finished) == self._size:
            best = self.scores[0] / len(self.running[0]) ** self._length_penalty
            self.open = self.open and best > self.finished[-1].score

    def _finish(self, tokens: tuple[int, ...], score: float, *, ended: bool) -> None:
        if score <= _BLOCKED / 2:
            return
        score /= len(tokens) ** self._length_penalty
        found = [*self.finished, _Found(tokens=tokens, score=score, ended=ended)]
        self.finished = sorted(found, key=lambda item: -item.score)[: self._size]


class Seq2SeqSummariser:
    """Several distinct summaries a text by an encoder-decoder model."""

    trust: Trust = "local"

    def __init__(
        self,
        name: str,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        settings: BeamSettings,
        source_tokens: int,
    ) -> None:
        if settings.beams % settings.groups:
            raise ValueError(f"beams {settings.beams} must be a multiple of groups {settings.groups}")
        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings
        self._source_tokens = source_tokens
        given = model.generation_config.eos_token_id
        self._eos = frozenset(given if isinstance(given, list) else [given])
        tasks = getattr(model.config, "task_specific_params", None) or {}
        # T5 was trained with a word that names the task before the text.
        self._prefix = str(tasks.get("summarization", {}).get("prefix", ""))

    @classmethod
    def load(
        cls, path: Path, *, name: str, settings: BeamSettings | None = None, device: Device = "cpu"
    ) -> Self:
        """Loads a model from a folder with safetensors, in float32.

        Args:
            path: the folder.
            name: what to call the model.
            settings: of the search; no summary gets longer than the decoder's positions.
            device: that computes; the search itself is done on the processor.

        Raises:
            ModelUnavailable: the folder does not hold an encoder-decoder model.
            ConfigError: there is no GPU.
            ModelError: it has too little memory.
        """
        import torch
        from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

        from rpsg.llm.device import explain_full_memory, on_one, resolve_device

        device = resolve_device(device)
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        if not config.is_encoder_decoder:
            raise ModelUnavailable(f"model {name!r} is no encoder-decoder model; use it as a text model")
        with quiet_transformers(), explain_full_memory(name, lower="Use a smaller model"):
            model = AutoModelForSeq2SeqLM.from_pretrained(
                path,
                dtype=torch.float32,
                device_map=on_one(device),
                local_files_only=True,
                use_safetensors=True,
            ).eval()
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        limits = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions"))
        positions = next((int(limit) for limit in limits if limit), 512)
        return cls(
            name,
            model,
            tokenizer,
            settings=(settings or BeamSettings()).within(positions),
            source_tokens=min(positions, int(tokenizer.model_max_length)),
        )

    @property
    def max_words(self) -> int:
        """Longest text in words that is surely read whole."""
        return int(self._source_tokens * _WORDS_PER_TOKEN)

    def summarise(
        self, texts: Sequence[str], *, n: int, seeds: Sequence[int], tones: Sequence[str]
    ) -> list[list[Completion]]:
        """Returns up to `n` distinct summaries a text: the best of each group first, then the next.

        A text of more tokens than the model reads gets none: it is never cut. The model takes no
        instructions, so `tones` say nothing to it.

        Raises:
            ModelError: the GPU's memory is full.
        """
        import torch

        from rpsg.llm.device import explain_full_memory

        sources = [list(self._tokenizer(self._prefix + text, verbose=False)["input_ids"]) for text in texts]
        readable = [i for i, source in enumerate(sources) if len(source) <= self._source_tokens]
        readable.sort(key=lambda i: len(sources[i]))
        results: list[list[Completion]] = [[] for _ in texts]
        step = self._settings.texts_at_once
        with torch.inference_mode(), explain_full_memory(self.name, lower=_SHORTER):
            for start in range(0, len(readable), step):
                part = readable[start : start + step]
                states, mask = self._encode([sources[i] for i in part])
                for row, groups in enumerate(self._search(states, mask)):
                    item = part[row]
                    length = len(sources[item])
                    found = _by_preference(groups)
                    own = (states[row : row + 1, :length], mask[row : row + 1, :length])
                    results[item] = self._complete(found, own, n=n, seed=seeds[item])
        return results

    def _complete(
        self, found: list[_Found], source: "tuple[torch.Tensor, torch.Tensor]", *, n: int, seed: int
    ) -> list[Completion]:
        distinct = self._distinct(found, source[1].shape[1])
        if len(distinct) < n:
            found = found + self._sample(*source, count=2 * (n - len(distinct)), seed=seed)
            distinct = self._distinct(found, source[1].shape[1])
        return distinct[:n]

    def _distinct(self, found: Sequence[_Found], n_source: int) -> list[Completion]:
        kept: dict[str, Completion] = {}
        for item in found:
            text = str(self._tokenizer.decode(list(item.tokens), skip_special_tokens=True)).strip()
            kept.setdefault(
                " ".join(text.split()).lower(),
                Completion(
                    text=text,
                    n_prompt_tokens=n_source,
                    n_tokens=len(item.tokens),
                    finish="stop" if item.ended else "length",
                ),
            )
        return list(kept.values())

    def _encode(self, sources: Sequence[Sequence[int]]) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        width = max(len(source) for source in sources)
        pad = int(self._model.config.pad_token_id)
        ids = torch.full((len(sources), width), pad, dtype=torch.long)
        mask = torch.zeros(len(sources), width, dtype=torch.long)
        for row, source in enumerate(sources):
            ids[row, : len(source)] = torch.tensor(source)
            mask[row, : len(source)] = 1
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        encoder = self._model.get_encoder()
        return encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask

    def _search(self, states: "torch.Tensor", mask: "torch.Tensor") -> list[list[_Group]]:
        import torch

        rule = self._settings
        size = rule.beams // rule.groups
        items = [[_Group(size, rule.length_penalty) for _ in range(rule.groups)] for _ in states]
        states, mask = states.repeat_interleave(rule.beams, 0), mask.repeat_interleave(rule.beams, 0)
        cache = self._new_cache()
        for length in range(rule.max_tokens):
            rows = [tokens for groups in items for group in groups for tokens in group.running]
            logits = self._forward(states, mask, rows=rows, cache=cache)
            allowed = self._allow(logits.log_softmax(-1), rows, length)
            shaped = allowed.view(len(items), rule.groups, size, -1)
            for groups, scores in zip(items, shaped, strict=True):
                self._step(groups, scores, last=length + 1 == rule.max_tokens)
            if not any(group.open for groups in items for group in groups):
                break
            order = [
                (item * rule.groups + number) * size + parent
                for item, groups in enumerate(items)
                for number, group in enumerate(groups)
                for parent in group.parents
            ]
            cache.reorder_cache(torch.LongTensor(order))
        return items

    def _step(self, groups: Sequence[_Group], scores: "torch.Tensor", *, last: bool) -> None:
        """Moves one text's groups on by a token; `scores` has shape (groups, beams, vocabulary)."""
        import torch

        chosen: Counter[int] = Counter()
        for group, table in zip(groups, scores, strict=True):
            size, vocabulary = table.shape
            total = table + torch.tensor(group.scores)[:, None]
            if chosen:
                tokens = torch.tensor(list(chosen))
                total[:, tokens] -= self._settings.diversity * torch.tensor(list(chosen.values()))
            best = total.flatten().topk((1 + len(self._eos)) * size)
            ranked = [
                (value, index // vocabulary, index % vocabulary)
                for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
            group.advance(ranked, self._eos, last=last)
            chosen.update(tokens[-1] for tokens in group.running)

    def _allow(self, scores: "torch.Tensor", rows: Sequence[tuple[int, ...]], length: int) -> "torch.Tensor":
        """Blocks an early end and repeated runs; forces the first token where the model wants one."""
        first = self._model.generation_config.forced_bos_token_id
        if length == 0 and first is not None:
            scores[:] = _BLOCKED
            scores[:, first] = 0.0
            return scores
        if length < self._settings.min_tokens:
            scores[:, sorted(self._eos)] = _BLOCKED
        start = int(self._model.generation_config.decoder_start_token_id)
        for row, tokens in enumerate(rows):
            banned = _repeating((start, *tokens), self._settings.no_repeat_ngram)
            if banned:
                scores[row, banned] = _BLOCKED
        return scores

    def _new_cache(self) -> "EncoderDecoderCache":
        from transformers import DynamicCache, EncoderDecoderCache

        return EncoderDecoderCache(DynamicCache(), DynamicCache())

    def _forward(
        self,
        states: "torch.Tensor",
        mask: "torch.Tensor",
        *,
        rows: Sequence[tuple[int, ...]],
        cache: "EncoderDecoderCache",
    ) -> "torch.Tensor":
        """Returns the next token's logits, shape (rows, vocabulary), where the search is done."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        start = int(self._model.generation_config.decoder_start_token_id)
        last = torch.tensor([[tokens[-1] if tokens else start] for tokens in rows])
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=last.to(self._model.device),
            past_key_values=cache,
            use_cache=True,
        )
        logits: torch.Tensor = output.logits[:, -1].float().cpu()
        return logits

    def _sample(self, states: "torch.Tensor", mask: "torch.Tensor", *, count: int, seed: int) -> list[_Found]:
        """Draws `count` summaries of one text; top-k before top-p."""
        import torch

        rule = self._settings
        random = torch.Generator().manual_seed(seed)
        states, mask = states.repeat_interleave(count, 0), mask.repeat_interleave(count, 0)
        cache = self._new_cache()
        rows: list[tuple[int, ...]] = [()] * count
        ended = [False] * count
        for length in range(rule.max_tokens):
            scores = self._allow(self._forward(states, mask, rows=rows, cache=cache), rows, length)
            values, tokens = (scores / rule.temperature).topk(min(rule.top_k, scores.shape[1]))
            shares = values.softmax(-1)
            shares[shares.cumsum(-1) - shares >= rule.top_p] = 0.0
            drawn = tokens.gather(1, torch.multinomial(shares, 1, generator=random))[:, 0].tolist()
            rows = [
                row if done else (*row, token) for row, done, token in zip(rows, ended, drawn, strict=True)
            ]
            ended = [done or token in self._eos for done, token in zip(ended, drawn, strict=True)]
            if all(ended):
                break
        return [_Found(tokens=row, score=0.0, ended=done) for row, done in zip(rows, ended, strict=True)]


def _by_preference(groups: Sequence[_Group]) -> list[_Found]:
    """The best of every group, best first, then every group's second, and so on."""
    ranked = []
    for place in range(max(len(group.finished) for group in groups)):
        same = [group.finished[place] for group in groups if place < len(group.finished)]
        ranked += sorted(same, key=lambda item: -item.score)
    return ranked


def _repeating(tokens: tuple[int, ...], length: int) -> list[int]:
    """Tokens that would complete a run which is already there."""
    if length < 1 or len(tokens) < length:
        return []
    tail = tokens[len(tokens) - length + 1 :]
    return [
        tokens[i + length - 1] for i in range(len(tokens) - length + 1) if tokens[i : i + length - 1] == tail
    ]
