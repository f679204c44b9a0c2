"""A small causal language model trained on synthetic texts, to score how expected a text is.

Trained from scratch in about a minute on two cores: a byte-level BPE vocabulary of its own and a
GPT-2 of about one million parameters. It sees synthetic texts only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import GPT2LMHeadModel, PreTrainedModel

_BEGIN = "<s>"
_END = "</s>"
# The trainer numbers special tokens first.
BEGIN_ID, END_ID = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateSettings:
    """Size and training of the model.

    Attributes:
        vocabulary: BPE entries.
        width: hidden size.
        layers: transformer blocks.
        window: tokens read at once; longer texts are scored window by window.
        tokens: training tokens seen in all, whatever the number of texts.
        batch: windows a step.
        learning_rate: peak of the schedule.
    """

    vocabulary: int = 2048
    width: int = 128
    layers: int = 3
    window: int = 192
    tokens: int = 400_000
    batch: int = 16
    learning_rate: float = 2e-3


class Surrogate:
    """A trained surrogate; see `train_surrogate`."""

    def __init__(self, model: "GPT2LMHeadModel", tokenizer: "Tokenizer", settings: SurrogateSettings) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings

    @classmethod
    def train(cls, texts: Sequence[str], *, seed: int, settings: SurrogateSettings | None = None) -> Self:
        """Trains a surrogate on texts.

        Args:
            texts: synthetic texts, at least one.
            seed: of initialisation and batch order.
            settings: size and training.
        """
        import torch

        settings = settings or SurrogateSettings()
        tokenizer = train_tokenizer(texts, settings.vocabulary)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = new_model(tokenizer.get_vocab_size(), settings)
            windows = [piece for text in texts for piece in _windows(tokenizer, text, settings.window)]
            fit(model, windows, settings, np.random.default_rng(seed))
        model.requires_grad_(False)
        return cls(model, tokenizer, settings)

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self._model.parameters())

    def nll(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Returns the mean negative log-likelihood per token (nats) of all of each text."""
        import torch

        windows = [_windows(self._tokenizer, text, self._settings.window) for text in texts]
        flat = [(i, piece) for i, pieces in enumerate(windows) for piece in pieces]
        order = sorted(range(len(flat)), key=lambda i: len(flat[i][1]))
        totals, counts = np.zeros(len(texts)), np.zeros(len(texts))
        with torch.inference_mode():
            for start in range(0, len(order), self._settings.batch):
                part = [flat[i] for i in order[start : start + self._settings.batch]]
                losses = token_losses(self._model, *pad([piece for _, piece in part]))
                for (owner, piece), loss in zip(part, losses, strict=True):
                    totals[owner] += float(loss.sum())
                    counts[owner] += len(piece) - 1
        scores: npt.NDArray[np.float64] = totals / np.maximum(counts, 1)
        return scores


def train_tokenizer(texts: Sequence[str], size: int) -> "Tokenizer":
    """Returns a byte-level BPE tokenizer learnt from texts; it can write any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[_BEGIN, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def new_model(vocabulary: int, settings: SurrogateSettings) -> "GPT2LMHeadModel":
    """Returns an untrained GPT-2."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=settings.window + 2,
            n_embd=settings.width,
            n_layer=settings.layers,
            n_head=4,
            bos_token_id=BEGIN_ID,
            eos_token_id=END_ID,
            # Dropout helps a model this small little and would make scores random.
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )


def _windows(tokenizer: "Tokenizer", text: str, length: int) -> list[list[int]]:
    ids = [*tokenizer.encode(text).ids, END_ID]
    return [[BEGIN_ID, *ids[start : start + length]] for start in range(0, len(ids), length)]


def fit(
    model: "PreTrainedModel",
    windows: Sequence[Sequence[int]],
    settings: SurrogateSettings,
    rng: np.random.Generator,
) -> None:
    """Trains a causal model in place on token windows, for `settings.tokens` tokens in all."""
    import torch

    steps = max(1, settings.tokens // (settings.batch * settings.window))
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    queue: list[int] = []
    for _ in range(steps):
        while len(queue) < settings.batch:
            queue += rng.permutation(len(windows)).tolist()
        batch, queue = queue[: settings.batch], queue[settings.batch :]
        ids, mask = pad([windows[i] for i in batch])
        loss = token_losses(model, ids, mask).sum() / mask[:, 1:].sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def pad(windows: Sequence[Sequence[int]]) -> "tuple[torch.Tensor, torch.Tensor]":
    """Returns token ids and mask of windows, filled up at the end, shape (n, longest)."""
    import torch

    width = max(len(window) for window in windows)
    ids = torch.zeros(len(windows), width, dtype=torch.long)
    mask = torch.zeros(len(windows), width, dtype=torch.long)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = torch.tensor(window)
        mask[row, : len(window)] = 1
    return ids, mask


def token_losses(model: "PreTrainedModel", ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """Returns the negative log-likelihood (nats) of every token after the first; 0 where masked."""
    import torch

    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    targets = ids[:, 1:]
    losses = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none"
    )
    return losses.view_as(targets) * mask[:, 1:]
