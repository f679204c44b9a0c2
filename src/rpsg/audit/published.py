"""The membership score of the published RPSG code, beside a membership AUC of the same release.

The published script (as read at commit a309c4e) compares the texts of one attack file with perturbed copies
of these same texts. No other text enters: its label is "original or perturbed", never "member or not". Here
its three scores are computed of a file of members only and of one of non-members only.

Reimplemented small: a masked model, trained on public texts and fine-tuned on the release, scores and
perturbs. As in the script, an original is scored by the loss of tokens that the model sees, a copy by a loss
shifted by one place; and the first n copies of all, in one list, stand against the n originals. "One loss" is
the same with the first loss for both.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rpsg.audit.estimators import auc, auc_interval
from rpsg.audit.finding import Finding, Game
from rpsg.audit.masked_model import MaskedModel
from rpsg.audit.similarity import cosine_blocks, fit_tfidf
from rpsg.errors import DataError
from rpsg.llm.surrogate import SurrogateSettings
from rpsg.rng import Streams

Floats = npt.NDArray[np.float64]
_N_RESAMPLES = 500
_MIN_TEXTS = 20


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _File:
    """Mean losses (nats a token) of one attack file.

    Attributes:
        originals: of its texts, shape (n,).
        copies: of their perturbed copies, shape (n, n_copies).
    """

    originals: Floats
    copies: Floats

    def resample(self, rng: np.random.Generator) -> "_File":
        rows = rng.integers(0, len(self.originals), size=len(self.originals))
        return _File(originals=self.originals[rows], copies=self.copies[rows])


def published(
    game: Game, *, n_copies: int = 10, n_epochs: int = 4, settings: SurrogateSettings | None = None
) -> tuple[Finding, ...]:
    """Computes the published scores of a file of members and of a file of non-members.

    Args:
        game: at least 20 members, non-members, released and public texts.
        n_copies: perturbed copies of each text (the script makes about 50).
        n_epochs: how often the model sees each released text (the paper: 3 to 5).
        settings: size of the masked model and its training on public texts.

    Returns:
        Of each of the three scores, as in the script and with one loss: the value on the file of members,
        with the file of non-members as control, and the difference with its interval. Then the AUC
        of members against non-members by likeness to the nearest released text. All describe; none decides.

    Raises:
        DataError: there are too few texts.
    """
    sizes = [len(part) for part in (game.members, game.nonmembers, game.synthetic, game.public)]
    if min(sizes) < _MIN_TEXTS:
        raise DataError(
            f"the published score needs {_MIN_TEXTS} members, non-members, released and public texts each "
            f"(there are {', '.join(map(str, sizes))})"
        )
    streams = Streams(game.seed)
    seed = streams.key("published", "model") % 2**31
    model = MaskedModel.train(
        game.public,
        game.synthetic,
        seed=seed,
        settings=settings or SurrogateSettings(),
        n_epochs=n_epochs,
    )
    files = [
        _score(texts, model, n_copies, streams.get("published", side))
        for side, texts in (("members", game.members), ("non-members", game.nonmembers))
    ]
    findings: list[Finding] = []
    for how, (members, nonmembers) in (
        ("as in the script", [file for file, _ in files]),
        ("one loss", [file for _, file in files]),
    ):
        for name, value in _SCORES.items():
            rng = streams.get("published", how, name)
            findings += _compare(f"{name} score, {how}", value, members, nonmembers, rng)
    return (*findings, _membership(game))


def _score(
    texts: tuple[str, ...], model: MaskedModel, n_copies: int, rng: np.random.Generator
) -> tuple[_File, _File]:
    copies = model.perturb([text for text in texts for _ in range(n_copies)], rng)
    originals = model.loss_seeing(texts)
    shape = (len(texts), n_copies)
    return (
        _File(originals=originals, copies=model.loss_shifted(copies).reshape(shape)),
        _File(originals=originals, copies=model.loss_seeing(copies).reshape(shape)),
    )


def _perplexity_score(file: _File) -> float:
    # Perplexity is the score of the positive class: what a model knows well counts as unknown to it.
    return auc(np.exp(file.originals), np.exp(file.copies))


def _refer_score(file: _File) -> float:
    difference = file.originals - _zipped(file)
    return auc(difference, -difference)


def _lira_score(file: _File) -> float:
    ratio = file.originals / _zipped(file)
    return auc(ratio, 1 / ratio)


def _zipped(file: _File) -> Floats:
    # n originals against the first n of all copies: nearly every text meets copies of another.
    return file.copies.reshape(-1)[: len(file.originals)]


_SCORES: Mapping[str, Callable[[_File], float]] = {
    "PPL": _perplexity_score,
    "REFER": _refer_score,
    "LIRA": _lira_score,
}


def _compare(
    name: str, value: Callable[[_File], float], members: _File, nonmembers: _File, rng: np.random.Generator
) -> tuple[Finding, Finding]:
    errors = [
        float(np.std([value(file.resample(rng)) for _ in range(_N_RESAMPLES)]))
        for file in (members, nonmembers)
    ]
    on_members, on_nonmembers = value(members), value(nonmembers)
    # Which texts come first matters to the score, so resamples need not lie around it: their spread counts.
    half = 1.96 * errors[0]
    of_members = Finding(
        family="description",
        attack="published_score",
        statistic=f"published {name}: file of members",
        value=on_members,
        low=max(0.0, on_members - half),
        high=min(1.0, on_members + half),
        control=on_nonmembers,
        n_members=len(members.originals),
        n_nonmembers=len(nonmembers.originals),
        detail="Originals against their own perturbed copies; control: a file of non-members.",
    )
    half = 1.96 * math.hypot(*errors)
    difference = replace(
        of_members,
        statistic=f"published {name}: members' file less non-members'",
        value=on_members - on_nonmembers,
        low=on_members - on_nonmembers - half,
        high=on_members - on_nonmembers + half,
        control=0.0,
        detail=f"1.96 standard errors, bootstrap over texts, {_N_RESAMPLES} resamples.",
    )
    return of_members, difference


def _membership(game: Game) -> Finding:
    known = (*game.members, *game.nonmembers)
    words = fit_tfidf(known)
    blocks = cosine_blocks(words.transform(known), words.transform(game.synthetic))
    likeness = np.concatenate([cosines.max(axis=1) for _, cosines in blocks])
    members, nonmembers = likeness[: len(game.members)], likeness[len(game.members) :]
    low, high = auc_interval(members, nonmembers)
    return Finding(
        family="description",
        attack="membership_beside_published",
        statistic="AUC of members against non-members",
        value=auc(members, nonmembers),
        low=low,
        high=high,
        control=0.5,
        n_members=len(members),
        n_nonmembers=len(nonmembers),
        detail="Score: likeness to the nearest released text, TF-IDF; the label is membership.",
    )
