"""Low-rank additions to a causal language model, and the gradient of one text. The only torch code of DP-SGD.

Of W + s B A only B is trained; A is drawn once from public randomness (Sun et al. 2024, arXiv 2403.12313):
half as many weights get noise, and noise is never multiplied by noise.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import numpy as np
import torch
from torch import nn

from rpsg.errors import ConfigError
from rpsg.llm.local import control_tokens, render
from rpsg.llm.quiet import quiet_transformers
from rpsg.method_config import DpsgdConfig
from rpsg.text import defuse
from rpsg.types import FloatArray, Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Attention's inputs, by the names that architectures give them.
_TARGETS = ("q_proj", "v_proj", "qkv_proj", "c_attn", "query_key_value")
_SCALE = 2.0
_IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateExample:
    """One private text as tokens.

    Attributes:
        ids: control code, text, end of turn.
        n_code: tokens of the control code, which the model is not trained to write.
        is_cut: whether the text is longer than what is kept.
    """

    ids: tuple[int, ...]
    n_code: int
    is_cut: bool


class _Adapter(nn.Module):
    """A linear layer whose weights stay, and a product of two small matrices beside it."""

    def __init__(self, base: nn.Module, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        n_in, n_out = _shape(base)
        noise = torch.randn(rank, n_in, generator=generator) / math.sqrt(n_in)
        self.a = nn.Parameter(noise, requires_grad=False)
        self.b = nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the sum of both."""
        added: torch.Tensor = nn.functional.linear(nn.functional.linear(x, self.a), self.b)
        whole: torch.Tensor = self.base(x) + _SCALE * added
        return whole

    def merged(self) -> nn.Module:
        """Adds the product to the layer's own weights and returns the layer."""
        added = (_SCALE * self.b @ self.a).detach()
        with torch.no_grad():
            _weight(self.base).add_(added if isinstance(self.base, nn.Linear) else added.T)
        return self.base


def _weight(layer: nn.Module) -> torch.Tensor:
    return cast("torch.Tensor", layer.weight)


def _shape(layer: nn.Module) -> tuple[int, int]:
    first, second = _weight(layer).shape
    # GPT-2's Conv1D keeps its weights the other way round.
    return (int(second), int(first)) if isinstance(layer, nn.Linear) else (int(first), int(second))


class Trainee:
    """A model in training. Its trainable weights are one vector."""

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        settings: DpsgdConfig,
        *,
        seed: int,
    ) -> None:
        self._model, self._tokenizer, self._settings = model, tokenizer, settings
        self._control = control_tokens(tokenizer)
        self._positions = int(getattr(model.config, "max_position_embeddings", None) or sys.maxsize)
        model.train(False)
        model.requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        self._adapters = dict(_attach(model, settings, generator))
        self._weights = [adapter.b for adapter in self._adapters.values()]

    @classmethod
    def load(cls, path: Path, settings: DpsgdConfig, *, seed: int, threads: int | None) -> Self:
        """Loads a model of a folder in single precision.

        Raises:
            ConfigError: its attention has none of the names that are known.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if threads is not None:
            torch.set_num_threads(threads)
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        return cls(model, tokenizer, settings, seed=seed)

    @property
    def size(self) -> int:
        """Number of trainable weights."""
        return sum(weight.numel() for weight in self._weights)

    def encode(self, code: Sequence[Message], text: str) -> PrivateExample:
        """Returns a text as tokens after its control code, cut where the model's context or our limit ends.

        Raises:
            ConfigError: the control code alone fills the model's context.
        """

        def tokens(piece: str) -> list[int]:
            return list(self._tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"])

        begun = tokens(render(self._tokenizer, code, self._control))
        own = [*tokens(self._control.sub(" ", defuse(text))), self._tokenizer.eos_token_id]
        room = self._positions - len(begun)
        if room < 1:
            raise ConfigError(
                f"models.write: this model reads {self._positions} tokens, and the control code alone has "
                f"{len(begun)}; shorten control.txt of the prompt folder, or name a larger model"
            )
        kept = own[: min(self._settings.max_tokens, room)]
        return PrivateExample(ids=(*begun, *kept), n_code=len(begun), is_cut=len(kept) < len(own))

    def gradient(self, example: PrivateExample) -> FloatArray:
        """Returns the gradient of a text's mean loss a token, shape (size,): a function of that text."""
        found = torch.autograd.grad(self._loss(example), self._weights)
        return torch.cat([part.flatten() for part in found]).numpy().astype(np.float32)

    def gradients(self, examples: Sequence[PrivateExample]) -> Iterator[FloatArray]:
        """Yields the gradient of each text, in order; as many texts at a time as torch has threads.

        Each is computed by one thread, so its bytes are the same alone, beside others, and on any number of
        cores.
        """
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(n_threads) as pool:
                yield from pool.map(self.gradient, examples)
        finally:
            torch.set_num_threads(n_threads)

    def loss(self, examples: Sequence[PrivateExample]) -> float:
        """Returns the mean loss a token of some texts; private where they are: a run never reports it."""
        total = 0.0
        with torch.inference_mode():
            for example in examples:
                total += float(self._loss(example))
        return total / len(examples)

    def _loss(self, example: PrivateExample) -> torch.Tensor:
        ids = torch.tensor([example.ids])
        n_own = len(example.ids) - example.n_code
        # Logits of the control code are not asked for, and the last one is ignored, not cut off: either would
        # fill a matrix of vocabulary x tokens with zeros on the way back.
        logits = self._model(input_ids=ids, use_cache=False, logits_to_keep=n_own + 1).logits
        targets = torch.tensor([*example.ids[example.n_code :], _IGNORED])
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets, ignore_index=_IGNORED)

    def set_weights(self, values: FloatArray) -> None:
        """Sets the trainable weights."""
        start = 0
        with torch.no_grad():
            for weight in self._weights:
                part = values[start : start + weight.numel()]
                weight.copy_(torch.from_numpy(part.copy()).view_as(weight))
                start += weight.numel()

    def save(self, folder: Path) -> None:
        """Writes the whole model, additions merged into its weights; it cannot be trained on afterwards."""
        for name, adapter in self._adapters.items():
            parent, _, own = name.rpartition(".")
            setattr(self._model.get_submodule(parent), own, adapter.merged())
        with quiet_transformers():
            self._model.save_pretrained(folder)
            self._tokenizer.save_pretrained(folder)


def _attach(
    model: "PreTrainedModel", settings: DpsgdConfig, generator: torch.Generator
) -> Iterator[tuple[str, _Adapter]]:
    first = model.config.num_hidden_layers - settings.layers
    names = [
        name
        for name, _ in model.named_modules()
        if name.rpartition(".")[2] in _TARGETS and _layer_of(name) >= first
    ]
    if not names:
        raise ConfigError(
            f"models.write: none of {', '.join(_TARGETS)} is in this model, so method: dpsgd does not know "
            "what to train; name a Llama-like model or GPT-2"
        )
    for name in names:
        parent, _, own = name.rpartition(".")
        adapter = _Adapter(model.get_submodule(name), settings.rank, generator)
        setattr(model.get_submodule(parent), own, adapter)
        yield name, adapter


def _layer_of(name: str) -> int:
    return next((int(part) for part in name.split(".") if part.isdigit()), 0)
