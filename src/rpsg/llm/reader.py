"""Causal language models that are trained on one data set and read another.

A small GPT-2 trained from scratch, or any Hugging Face causal model by folder; an encoder such as BERT is
loaded as a decoder, so that no token sees a later one.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from rpsg.errors import ModelError
from rpsg.llm.quiet import quiet_transformers
from rpsg.llm.surrogate import BEGIN_ID, END_ID, SurrogateSettings, fit, new_model, pad, train_tokenizer

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

# What counts as a word of the next-word accuracy: a run of letters and digits, or one sign.
_UNIT = re.compile(r"\w+|[^\w\s]")
_FINE_TUNING_RATE = 1e-4

# Token ids of a text and the character each ends before.
Encode = Callable[[str], tuple[list[int], list[int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How well a model foresaw one text.

    Attributes:
        nll: negative log-likelihood of all its tokens, in nats.
        n_tokens: how many there are.
        n_words: words and punctuation marks.
        n_right: of these, how many the model would have written itself, given the true text before.
    """

    nll: float
    n_tokens: int
    n_words: int
    n_right: int


class Reader:
    """A causal model, its tokenizer and its window."""

    def __init__(
        self,
        model: "PreTrainedModel",
        encode: Encode,
        *,
        settings: SurrogateSettings,
        begin: int,
        end: int,
    ) -> None:
        self._model = model
        self._encode = encode
        self._settings = settings
        self._begin, self._end = begin, end

    @classmethod
    def new(cls, vocabulary_from: Sequence[str], *, seed: int, settings: SurrogateSettings) -> Self:
        """Makes an untrained small GPT-2.

        Args:
            vocabulary_from: texts that fix the tokenizer; readers to be compared must share them, or
                their perplexities count different tokens.
            seed: of the weights.
            settings: size and training.
        """
        import torch

        tokenizer = train_tokenizer(vocabulary_from, settings.vocabulary)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = new_model(tokenizer.get_vocab_size(), settings)
        return cls(model, _encoder_of(tokenizer), settings=settings, begin=BEGIN_ID, end=END_ID)

    @classmethod
    def load(cls, path: Path, *, settings: SurrogateSettings) -> Self:
        """Loads a causal model from a folder; BERT and its kin become decoders.

        Raises:
            ModelError: its tokenizer has no token to begin or end a text with.
        """
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        config = AutoConfig.from_pretrained(path, local_files_only=True)
        # Without this flag an encoder's attention looks at later tokens.
        config.is_decoder = True
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(
                path, config=config, dtype=torch.float32, local_files_only=True
            )
        model.train(False)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        begin = _first_id(tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id)
        end = _first_id(tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id)

        def encode(text: str) -> tuple[list[int], list[int]]:
            found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            return list(found["input_ids"]), [stop for _, stop in found["offset_mapping"]]

        positions = int(getattr(config, "max_position_embeddings", settings.window + 2))
        fitted = replace(
            settings, window=min(settings.window, positions - 2), learning_rate=_FINE_TUNING_RATE
        )
        return cls(model, encode, settings=fitted, begin=begin, end=end)

    def train(self, texts: Sequence[str], *, seed: int) -> None:
        """Trains on texts for the token budget of the settings, however many texts there are.

        Texts are put one after the other and cut into full windows, so every step has as many tokens.
        Dropout is off: readers that are compared differ in their texts only.

        Args:
            texts: at least one.
            seed: of the order of windows.
        """
        stream: list[int] = []
        for i in np.random.default_rng(seed).permutation(len(texts)):
            stream += [self._begin, *self._encode(texts[i])[0], self._end]
        length = self._settings.window
        # A short data set is repeated until it fills a window.
        stream *= -(-(length + 1) // len(stream))
        windows = [stream[i : i + length + 1] for i in range(0, len(stream) - length, length)]
        self._model.requires_grad_(True)
        fit(self._model, windows, self._settings, np.random.default_rng(seed))
        self._model.requires_grad_(False)

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Reads texts window by window; returns one reading a text, of all of it."""
        import torch

        pieces: list[tuple[int, list[int]]] = []
        stops = []
        for i, text in enumerate(texts):
            ids, ends = self._encode(text)
            stops.append(ends)
            starts = range(0, len(ids), self._settings.window)
            pieces += [(i, [self._begin, *ids[at : at + self._settings.window]]) for at in starts]
        losses: list[list[float]] = [[] for _ in texts]
        right: list[list[bool]] = [[] for _ in texts]
        with torch.inference_mode():
            for start in range(0, len(pieces), self._settings.batch):
                part = pieces[start : start + self._settings.batch]
                ids_table, mask = pad([piece for _, piece in part])
                surprise, hits = self._score(ids_table, mask)
                for (owner, piece), row, hit in zip(part, surprise, hits, strict=True):
                    losses[owner] += row[: len(piece) - 1].tolist()
                    right[owner] += hit[: len(piece) - 1].tolist()
        return [_summarise(text, stops[i], losses[i], right[i]) for i, text in enumerate(texts)]

    def logits(self, ids: "torch.Tensor") -> "torch.Tensor":
        """Returns the model's logits, shape (n, length, vocabulary)."""
        found: torch.Tensor = self._model(input_ids=ids).logits
        return found

    def _score(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        logits = self._model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        targets = ids[:, 1:]
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return losses, logits.argmax(-1) == targets


def _summarise(text: str, stops: list[int], losses: list[float], right: list[bool]) -> Reading:
    units = np.zeros(len(text) + 1, dtype=np.int64)
    spans = [match.span() for match in _UNIT.finditer(text)]
    for number, (start, stop) in enumerate(spans):
        units[start:stop] = number
    # A token belongs to the word that its last character is in; a word is right when all its tokens are.
    wrong = {int(units[max(0, stop - 1)]) for stop, hit in zip(stops, right, strict=True) if not hit}
    seen = {int(units[max(0, stop - 1)]) for stop in stops}
    return Reading(nll=float(sum(losses)), n_tokens=len(losses), n_words=len(seen), n_right=len(seen - wrong))


def _encoder_of(tokenizer: "Tokenizer") -> Encode:
    def encode(text: str) -> tuple[list[int], list[int]]:
        found = tokenizer.encode(text, add_special_tokens=False)
        return list(found.ids), [stop for _, stop in found.offsets]

    return encode


def _first_id(*ids: int | None) -> int:
    known = [i for i in ids if i is not None]
    if not known:
        raise ModelError("the model's tokenizer has no token to begin a text with; name another model")
    return known[0]
