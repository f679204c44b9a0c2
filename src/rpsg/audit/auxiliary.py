"""Attacks with a language model of the attacker's: trained on the release, does it know members better?

The attacker has the release and other texts of the source. The pool is cut into two random halves, blind
to membership. For each half a base model is trained on the other one, so it never saw what it scores; the
base is then trained further on the release (the target), and, as references, on random subsets of the half
it already knows. All that differs between target and references is the release.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rpsg.audit.pool import BoolArray, FloatVector, Pool
from rpsg.llm.surrogate import END_ID, SurrogateSettings, fit, new_model, pad, train_tokenizer
from rpsg.rng import Streams

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import GPT2LMHeadModel

_SMALL = SurrogateSettings(vocabulary=1024, width=96, layers=2, window=128, batch=32, learning_rate=3e-3)
# Of the base model's rate: further training must not wipe out what it knows.
_FINE_TUNING = 0.33
_MIN_SHARE = 0.2
_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class AuxiliarySettings:
    """Size of the attack.

    Attributes:
        model: size of the language model, below 10 million parameters.
        epochs: passes over the release, and over each reference's subset.
        base_epochs: passes of the base model over its half.
        n_references: reference models a half.
        reference_tokens: a reference model's subset has about as many, and at most half of what it may see.
        release_tokens: of a larger release, random texts with about as many tokens are used.
        n_neighbours: altered copies of each text for the neighbourhood comparison.
    """

    model: SurrogateSettings = field(default_factory=lambda: _SMALL)
    epochs: int = 3
    base_epochs: int = 2
    n_references: int = 8
    reference_tokens: int = 25_000
    release_tokens: int = 300_000
    n_neighbours: int = 2


THOROUGH = AuxiliarySettings(
    model=SurrogateSettings(vocabulary=4096, width=256, layers=4, window=192, batch=16),
    epochs=5,
    base_epochs=8,
    n_references=32,
    reference_tokens=200_000,
    release_tokens=10**9,
    n_neighbours=25,
)


def auxiliary_scores(
    pool: Pool, synthetic: Sequence[str], settings: AuxiliarySettings | None = None
) -> Mapping[str, FloatVector]:
    """Returns attack to one score a text of the pool; higher means "member".

    `lm_ppl`: log-likelihood per token under the target. `lm_refer`: that minus the base model's (REFER).
    `lm_lira`: offline LiRA, how many standard deviations the loss lies below the references' mean loss of the
    same text (Carlini et al. 2022; the references are models of other texts, not runs of the pipeline).
    `lm_rmia`: share of the population, the other texts of the half, whose likelihood ratio to the references'
    mean probability is no larger (Zarifzadeh et al. 2024, gamma 1). `lm_min_k`: mean of the lowest 20 % of
    token log-likelihoods, each standardised by its distribution over the vocabulary (Min-K%++, Zhang et al.
    2025), minus the base model's. `lm_neighbour`: log-likelihood above that of copies with a tenth of the
    words exchanged (Mattern et al. 2023).
    """
    seeds = [Streams(pool.seed).key("auxiliary", side) % 2**31 for side in (0, 1)]
    return scores_by_halves(pool.texts, pool.halves("auxiliary"), synthetic, seeds=seeds, settings=settings)


def scores_by_halves(
    texts: Sequence[str],
    half: BoolArray,
    synthetic: Sequence[str],
    *,
    seeds: Sequence[int],
    known: Sequence[str] = (),
    settings: AuxiliarySettings | None = None,
) -> Mapping[str, FloatVector]:
    """Scores each half of the texts with models that know the other half; see `auxiliary_scores`.

    Args:
        texts: to score; nothing may tell who is in.
        half: a mask over `texts` that ignores who is in, shape (n_texts,).
        synthetic: the release.
        seeds: one for each half.
        known: further texts that the attacker has, known to the models of both halves.
        settings: size of the attack.
    """
    settings = settings or AuxiliarySettings()
    tokenizer = train_tokenizer((*texts, *known), settings.model.vocabulary)
    found: dict[str, FloatVector] = {}
    for side, seed in zip((False, True), seeds, strict=True):
        scored, others = np.flatnonzero(half == side).tolist(), np.flatnonzero(half != side).tolist()
        attack = _HalfAttack(
            tokenizer, known=[*(texts[i] for i in others), *known], seed=seed, settings=settings
        )
        for name, values in attack.score([texts[i] for i in scored], synthetic).items():
            # The two halves' models differ, so that their scores are on scales of their own.
            spread = float(values.std())
            alike = (values - values.mean()) / (spread if spread > 0 else 1.0)
            found.setdefault(name, np.empty(len(half)))[scored] = alike
    return found


class _HalfAttack:
    """Scores one half of the pool with models that know the other half."""

    def __init__(
        self, tokenizer: "Tokenizer", *, known: Sequence[str], seed: int, settings: AuxiliarySettings
    ) -> None:
        self._tokenizer, self._known, self._seed, self._settings = tokenizer, known, seed, settings

    def score(self, texts: Sequence[str], synthetic: Sequence[str]) -> dict[str, FloatVector]:
        """Returns the scores of `texts`."""
        settings, rng = self._settings, np.random.default_rng(self._seed)
        base = self._train(None, self._known, settings.base_epochs)
        released = self._some(synthetic, settings.release_tokens, rng)
        target = self._train(base, released, settings.epochs)
        windows = [self._windows([text]) for text in texts]
        losses, lowest = _read(target, windows)
        base_losses, base_lowest = _read(base, windows)
        references = np.stack(
            [
                _read(self._train(base, self._subset(rng), settings.epochs), windows, with_lowest=False)[0]
                for _ in range(settings.n_references)
            ]
        )
        # Eight references are too few to tell each text's own spread (Carlini et al. 2022, section VI).
        spread = float(np.sqrt(references.var(axis=0, ddof=1).mean()))
        ratio = _log_mean_exp(-references, axis=0)
        return {
            "lm_ppl": -losses,
            "lm_refer": base_losses - losses,
            "lm_lira": (references.mean(axis=0) - losses) / max(spread, 1e-9),
            "lm_rmia": _share_below(-losses - ratio),
            "lm_min_k": lowest - base_lowest,
            "lm_neighbour": self._against_neighbours(target, texts, losses, rng),
        }

    def _subset(self, rng: np.random.Generator) -> list[str]:
        # At most half, so that references differ from each other.
        part = rng.permutation(len(self._known))[: max(1, len(self._known) // 2)]
        return self._some([self._known[i] for i in part], self._settings.reference_tokens, rng)

    def _some(self, texts: Sequence[str], n_tokens: int, rng: np.random.Generator) -> list[str]:
        chosen = []
        for i in rng.permutation(len(texts)):
            chosen.append(texts[i])
            n_tokens -= len(self._tokenizer.encode(texts[i]).ids)
            if n_tokens <= 0:
                break
        return chosen

    def _train(self, base: "GPT2LMHeadModel | None", texts: Sequence[str], epochs: int) -> "GPT2LMHeadModel":
        import torch

        windows = self._windows(texts)
        size = self._settings.model
        rate = size.learning_rate * (1.0 if base is None else _FINE_TUNING)
        n_tokens = epochs * sum(map(len, windows))
        budget = SurrogateSettings(
            vocabulary=size.vocabulary,
            width=size.width,
            layers=size.layers,
            window=size.window,
            batch=size.batch,
            learning_rate=rate,
            tokens=n_tokens,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            if base is None:
                model = new_model(self._tokenizer.get_vocab_size(), size)
            else:
                model = deepcopy(base).requires_grad_(True)
            fit(model, windows, budget, np.random.default_rng(self._seed))
        return model.requires_grad_(False)

    def _windows(self, texts: Sequence[str]) -> list[list[int]]:
        length = self._settings.model.window
        found = []
        for text in texts:
            ids = [*self._tokenizer.encode(text).ids, END_ID]
            found += [[0, *ids[start : start + length]] for start in range(0, len(ids), length)]
        return found

    def _against_neighbours(
        self, target: "GPT2LMHeadModel", texts: Sequence[str], losses: FloatVector, rng: np.random.Generator
    ) -> FloatVector:
        words = [word for text in self._known for word in text.split()]
        total = np.zeros(len(texts))
        for _ in range(self._settings.n_neighbours):
            altered = [_alter(text, words, rng) for text in texts]
            windows = [self._windows([text]) for text in altered]
            total += _read(target, windows, with_lowest=False)[0]
        return total / self._settings.n_neighbours - losses


def _alter(text: str, words: Sequence[str], rng: np.random.Generator) -> str:
    parts = text.split()
    n = max(1, len(parts) // 10)
    for i in rng.choice(len(parts), size=min(n, len(parts)), replace=False):
        parts[i] = words[int(rng.integers(len(words)))]
    return " ".join(parts)


def _read(
    model: "GPT2LMHeadModel", windows: Sequence[Sequence[list[int]]], *, with_lowest: bool = True
) -> tuple[FloatVector, FloatVector]:
    """Returns each text's mean loss a token, and its Min-K%++ value (zeros without)."""
    import torch

    flat = [(i, piece) for i, pieces in enumerate(windows) for piece in pieces]
    flat.sort(key=lambda item: len(item[1]))
    total, count = np.zeros(len(windows)), np.zeros(len(windows))
    standardised: list[list[float]] = [[] for _ in windows]
    with torch.inference_mode():
        for start in range(0, len(flat), _BATCH):
            part = flat[start : start + _BATCH]
            ids, mask = pad([piece for _, piece in part])
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
            own = logits.gather(2, ids[:, 1:, None])[:, :, 0]
            log_total = logits.logsumexp(dim=-1)
            lengths = [len(piece) - 1 for _, piece in part]
            losses = ((log_total - own) * mask[:, 1:]).sum(dim=1).tolist()
            for (owner, _), loss, length in zip(part, losses, lengths, strict=True):
                total[owner] += loss
                count[owner] += length
            if with_lowest:
                z = _standardise(logits, own, log_total)
                for (owner, _), row, length in zip(part, z, lengths, strict=True):
                    standardised[owner] += row[:length].tolist()
    lowest = [
        np.mean(sorted(row)[: max(1, round(_MIN_SHARE * len(row)))]) if row else 0.0 for row in standardised
    ]
    return total / np.maximum(count, 1), np.array(lowest)


def _standardise(logits: "torch.Tensor", own: "torch.Tensor", log_total: "torch.Tensor") -> "torch.Tensor":
    """Returns each token's log-likelihood in standard deviations of its distribution over the vocabulary."""
    p = (logits - log_total[:, :, None]).exp()
    mean = (p * logits).sum(dim=-1)
    variance = (p * logits.square()).sum(dim=-1) - mean.square()
    return (own - mean) / variance.clamp_min(1e-6).sqrt()


def _log_mean_exp(values: FloatVector, axis: int) -> FloatVector:
    result: FloatVector = np.logaddexp.reduce(values, axis=axis) - np.log(values.shape[axis])
    return result


def _share_below(values: FloatVector) -> FloatVector:
    order = np.sort(values)
    return np.searchsorted(order, values, side="right") / len(values)
