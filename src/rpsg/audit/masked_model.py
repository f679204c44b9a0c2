"""A small bidirectional masked language model trained on a release, for `rpsg.audit.published`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from rpsg.llm.surrogate import BEGIN_ID, END_ID, SurrogateSettings, pad, train_tokenizer

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import BertForMaskedLM

Floats = npt.NDArray[np.float64]
_MASKED = 0.15
_N_HEADS = 4


class MaskedModel:
    """A trained model; see `train`. A text is read up to the model's window."""

    def __init__(self, model: "BertForMaskedLM", tokenizer: "Tokenizer", settings: SurrogateSettings) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings
        self._mask_id = tokenizer.get_vocab_size()

    @classmethod
    def train(
        cls,
        public: Sequence[str],
        release: Sequence[str],
        *,
        seed: int,
        settings: SurrogateSettings,
        n_epochs: int = 4,
    ) -> Self:
        """Trains a model on public texts, then fine-tunes it on a release.

        Of every text 15 % of the tokens are masked, anew each time.

        Args:
            public: at least one; the vocabulary is theirs.
            release: at least one.
            seed: of initialisation, order and masks.
            settings: size, and training on public texts.
            n_epochs: how often each released text is seen.
        """
        import torch
        from transformers import BertConfig, BertForMaskedLM

        tokenizer = train_tokenizer(public, settings.vocabulary)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = BertForMaskedLM(
                BertConfig(
                    vocab_size=tokenizer.get_vocab_size() + 1,
                    hidden_size=settings.width,
                    num_hidden_layers=settings.layers,
                    num_attention_heads=_N_HEADS,
                    intermediate_size=2 * settings.width,
                    max_position_embeddings=settings.window + 2,
                    hidden_dropout_prob=0.0,
                    attention_probs_dropout_prob=0.0,
                )
            )
            trained = cls(model, tokenizer, settings)
            rng = np.random.default_rng(seed)
            n_steps = max(1, settings.tokens // (settings.batch * settings.window))
            trained._fit(public, n_steps, settings.learning_rate, rng)
            n_steps = -(-n_epochs * len(release) // settings.batch)
            # A tenth of the rate, as is usual for fine-tuning.
            trained._fit(release, n_steps, settings.learning_rate / 10, rng)
        model.requires_grad_(False)
        return trained

    def loss_seeing(self, texts: Sequence[str]) -> Floats:
        """Returns the mean loss (nats a token) of predicting each token where it stands, unmasked."""
        return self._losses(texts, lambda logits, ids: (logits[:, 1:], ids[:, 1:]))

    def loss_shifted(self, texts: Sequence[str]) -> Floats:
        """Returns the mean loss (nats a token) of predicting each token from the place before it."""
        return self._losses(texts, lambda logits, ids: (logits[:, :-1], ids[:, 1:]))

    def perturb(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Returns texts of which 15 % of the tokens were masked and drawn from the model."""
        import torch

        perturbed: list[str] = []
        for ids, mask in self._batches([self._encode(text) for text in texts]):
            hidden = self._choose(mask, rng)
            with torch.inference_mode():
                logits = self._model(
                    input_ids=torch.where(hidden, self._mask_id, ids), attention_mask=mask
                ).logits
            # No markers and no mask among the tokens drawn.
            chances = logits[..., 2 : self._mask_id].softmax(dim=-1).cumsum(dim=-1)
            uniform = torch.from_numpy(rng.random((*ids.shape, 1), dtype=np.float32))
            drawn = 2 + (chances < uniform).sum(dim=-1).clamp(max=self._mask_id - 3)
            for row, kept in zip(torch.where(hidden, drawn, ids), mask, strict=True):
                tokens = row[kept.bool()].tolist()[1:]
                perturbed.append(self._tokenizer.decode([token for token in tokens if token != END_ID]))
        return perturbed

    def _encode(self, text: str) -> list[int]:
        return [BEGIN_ID, *self._tokenizer.encode(text).ids[: self._settings.window - 1], END_ID]

    def _batches(self, windows: Sequence[list[int]]) -> "list[tuple[torch.Tensor, torch.Tensor]]":
        size = self._settings.batch
        return [pad(windows[start : start + size]) for start in range(0, len(windows), size)]

    def _choose(self, mask: "torch.Tensor", rng: np.random.Generator) -> "torch.Tensor":
        import torch

        chosen = torch.from_numpy(rng.random(tuple(mask.shape)) < _MASKED) & mask.bool()
        chosen[:, 0] = False
        return chosen

    def _fit(self, texts: Sequence[str], n_steps: int, rate: float, rng: np.random.Generator) -> None:
        import torch

        windows = [self._encode(text) for text in texts]
        optimizer = torch.optim.AdamW(self._model.parameters(), lr=rate)
        queue: list[int] = []
        for _ in range(n_steps):
            while len(queue) < self._settings.batch:
                queue += rng.permutation(len(windows)).tolist()
            batch, queue = queue[: self._settings.batch], queue[self._settings.batch :]
            ids, mask = pad([windows[i] for i in batch])
            hidden = self._choose(mask, rng)
            if not hidden.any():
                continue
            logits = self._model(
                input_ids=torch.where(hidden, self._mask_id, ids), attention_mask=mask
            ).logits
            loss = torch.nn.functional.cross_entropy(logits[hidden], ids[hidden])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def _losses(
        self,
        texts: Sequence[str],
        align: "Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]",
    ) -> Floats:
        import torch

        found: list[Floats] = []
        for ids, mask in self._batches([self._encode(text) for text in texts]):
            with torch.inference_mode():
                logits, targets = align(self._model(input_ids=ids, attention_mask=mask).logits, ids)
                losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
                kept = mask[:, 1:]
                found.append(((losses * kept).sum(dim=1) / kept.sum(dim=1)).double().numpy())
        return np.concatenate(found)
