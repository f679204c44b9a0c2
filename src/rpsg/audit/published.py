"""The membership score of the published RPSG code, beside a membership AUC of the same models.

The published script (as read at commit a309c4e) compares the texts of one attack file with perturbed copies of
the same texts. No text of the other side enters, so its label is "original or perturbed", never "member or not".
Here its three comparisons are made of two files, one of members only and one of non-members only. If the score
measured membership, it would differ between them.

Written from a description of the script. Two things are simpler than there: small causal models score
originals and copies alike (the script has a masked model, and one loss for originals and another for copies),
and a perturbed word is drawn from the release's words by frequency, not by a masked model.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rpsg.audit.estimators import auc, auc_interval
from rpsg.audit.finding import Finding, Game
from rpsg.errors import DataError
from rpsg.llm.surrogate import Surrogate, SurrogateSettings
from rpsg.rng import Streams

Floats = npt.NDArray[np.float64]
_PERTURBED = 0.15
_N_RESAMPLES = 500
_MIN_TEXTS = 20


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _File:
    """Mean losses (nats a token) of one attack file.

    Attributes:
        originals: by the model trained on the release, shape (n,).
        reference: of the originals by the model trained on public texts, shape (n,).
        copies: of the perturbed copies by the first model, shape (n, n_copies).
    """

    originals: Floats
    reference: Floats
    copies: Floats

    def of(self, rows: npt.NDArray[np.int64]) -> "_File":
        return _File(originals=self.originals[rows], reference=self.reference[rows], copies=self.copies[rows])


def published(
    game: Game, *, n_copies: int = 10, settings: SurrogateSettings | None = None
) -> tuple[Finding, ...]:
    """Runs the published comparisons on a file of members and on one of non-members.

    Args:
        game: at least 20 texts of each kind, public ones included: the reference model is trained on them.
        n_copies: perturbed copies of each text (the script makes about 50).
        settings: size and training of both models.

    Returns:
        Of each of the three scores: its value on the file of members, with the file of non-members as
        control; and the difference, with a bootstrap interval. Then the AUC of members against non-members by
        the same losses, plain and relative to the reference model. All describe; none decides.

    Raises:
        DataError: there are too few texts.
    """
    sizes = [len(part) for part in (game.members, game.nonmembers, game.synthetic, game.public)]
    if min(sizes) < _MIN_TEXTS:
        raise DataError(
            f"the published comparison needs {_MIN_TEXTS} members, non-members, released and public texts "
            f"each (there are {', '.join(map(str, sizes))})"
        )
    streams = Streams(game.seed)
    target, reference = (
        Surrogate.train(texts, seed=streams.key("published", name) % 2**31, settings=settings)
        for name, texts in (("target", game.synthetic), ("reference", game.public))
    )
    words = _frequent_words(game.synthetic)
    members, nonmembers = (
        _score(texts, target, reference, words, n_copies, streams.get("published", "copies", side))
        for side, texts in (("members", game.members), ("non-members", game.nonmembers))
    )
    findings: list[Finding] = []
    for name, value in _SCORES.items():
        findings += _compare(name, value, members, nonmembers, streams.get("published", "resamples", name))
    return (*findings, *_correct(members, nonmembers))


def _frequent_words(texts: Sequence[str]) -> tuple[list[str], Floats]:
    counts = Counter(word for text in texts for word in text.split())
    shares = np.array(list(counts.values()), dtype=np.float64)
    return list(counts), shares / shares.sum()


def _score(
    texts: Sequence[str],
    target: Surrogate,
    reference: Surrogate,
    words: tuple[list[str], Floats],
    n_copies: int,
    rng: np.random.Generator,
) -> _File:
    copies = [_perturb(text, words, rng) for text in texts for _ in range(n_copies)]
    return _File(
        originals=target.nll(texts),
        reference=reference.nll(texts),
        copies=target.nll(copies).reshape(len(texts), n_copies),
    )


def _perturb(text: str, words: tuple[list[str], Floats], rng: np.random.Generator) -> str:
    parts = text.split()
    drawn = rng.choice(len(words[0]), size=len(parts), p=words[1])
    changed = rng.random(len(parts)) < _PERTURBED
    return " ".join(
        words[0][new] if change else old for old, new, change in zip(parts, drawn, changed, strict=True)
    )


def _perplexity_score(file: _File) -> float:
    # The perplexity is the score of the positive class: what a model knows well counts as unknown.
    return auc(np.exp(file.originals), np.exp(file.copies))


def _refer_score(file: _File) -> float:
    difference = file.originals - _zipped(file)
    return auc(difference, -difference)


def _lira_score(file: _File) -> float:
    ratio = file.originals / _zipped(file)
    return auc(ratio, 1 / ratio)


def _zipped(file: _File) -> Floats:
    # n originals against the first n of all copies in one list: nearly every text meets copies of another.
    return file.copies.reshape(-1)[: len(file.originals)]


_SCORES: Mapping[str, Callable[[_File], float]] = {
    "PPL": _perplexity_score,
    "REFER": _refer_score,
    "LIRA": _lira_score,
}


def _compare(
    name: str,
    value: Callable[[_File], float],
    members: _File,
    nonmembers: _File,
    rng: np.random.Generator,
) -> tuple[Finding, Finding]:
    n, m = len(members.originals), len(nonmembers.originals)
    of_members, of_nonmembers = (
        np.array([value(file.of(rng.integers(0, size, size=size))) for _ in range(_N_RESAMPLES)])
        for file, size in ((members, n), (nonmembers, m))
    )
    on_members, on_nonmembers = value(members), value(nonmembers)
    return (
        _finding(
            f"published {name} score of a file of members",
            on_members,
            of_members,
            n,
            m,
            detail="Originals against their own perturbed copies; control: a file of non-members.",
            control=on_nonmembers,
        ),
        _finding(
            f"published {name} score, members' file less non-members' file",
            on_members - on_nonmembers,
            of_members - of_nonmembers,
            n,
            m,
            detail=f"Bootstrap over texts, {_N_RESAMPLES} resamples. A score of membership would differ.",
            control=0.0,
        ),
    )


def _finding(
    statistic: str,
    value: float,
    resampled: Floats,
    n_members: int,
    n_nonmembers: int,
    *,
    detail: str,
    control: float,
) -> Finding:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Finding(
        family="description",
        attack="published_score",
        statistic=statistic,
        value=value,
        low=float(low),
        high=float(high),
        control=control,
        n_members=n_members,
        n_nonmembers=n_nonmembers,
        detail=detail,
    )


def _correct(members: _File, nonmembers: _File) -> tuple[Finding, ...]:
    scores = {
        "loss": (-members.originals, -nonmembers.originals),
        "loss relative to a reference model": (
            members.reference - members.originals,
            nonmembers.reference - nonmembers.originals,
        ),
    }
    findings = []
    for name, (inside, outside) in scores.items():
        low, high = auc_interval(inside, outside)
        findings.append(
            Finding(
                family="description",
                attack="membership_auc_beside_published",
                statistic=f"AUC of members against non-members, {name}",
                value=auc(inside, outside),
                low=low,
                high=high,
                control=0.5,
                n_members=len(inside),
                n_nonmembers=len(outside),
                detail="The same models; the label is membership. Control: a guess.",
            )
        )
    return tuple(findings)
