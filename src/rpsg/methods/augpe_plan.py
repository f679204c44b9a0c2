"""The noise and the sizes of an AUG-PE run, solved in advance from public settings alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rpsg.config import RunConfig
from rpsg.methods.common import classes_of, texts_wanted
from rpsg.plan import PlannedLine
from rpsg.privacy.accounting import PlannedRelease, calibrate, compose, round_up
from rpsg.privacy.events import PrivacyEvent
from rpsg.privacy.mechanisms import GaussianSum
from rpsg.types import Labels, PrivateCorpus


@dataclass(frozen=True, slots=True, kw_only=True)
class AugpePlan:
    """What a run releases.

    Attributes:
        n: survivors of every vote.
        n_candidates: candidates of every vote: L times as many.
        labels: the classes; one without labels where there are no label columns.
        classes: counts the private texts of each class; None with one class, or without noise.
        votes: one an epoch; empty without noise.
        n_epochs: votes.
    """

    n: int
    n_candidates: int
    labels: tuple[Labels, ...]
    classes: GaussianSum | None
    votes: tuple[GaussianSum, ...]
    n_epochs: int

    def releases(self) -> list[tuple[str, GaussianSum]]:
        """Returns label and mechanism of every release with noise, in order."""
        first = [("classes", self.classes)] if self.classes is not None else []
        return first + [(f"vote {i}", vote) for i, vote in enumerate(self.votes, start=1)]

    def events(self) -> list[PrivacyEvent]:
        """Returns what the run costs; nothing where there is no noise to account for."""
        return [event for _, mechanism in self.releases() for event in mechanism.events]


def solve(config: RunConfig, corpus: PrivateCorpus) -> AugpePlan:
    """Solves one budget for class counts and votes: mu^2 = 1 / sigma_c^2 + T / sigma^2 (exact).

    With a guarantee, reads public settings and whether there are label columns only. Without one, n may be
    left to the number of records.

    Raises:
        ConfigError: n is missing, or declared labels make too many classes.
        PrivacyError: epsilon is so large that the noise falls below what the accounting covers.
    """
    settings = config.augpe
    n, labels = texts_wanted(config, corpus), classes_of(config, corpus)
    n_candidates = settings.variations * n
    classes, votes = _calibrated(config, len(labels), n_candidates)
    return AugpePlan(
        n=n,
        n_candidates=n_candidates,
        labels=labels,
        classes=classes,
        votes=votes,
        n_epochs=settings.epochs,
    )


def _calibrated(
    config: RunConfig, n_classes: int, n_candidates: int
) -> tuple[GaussianSum | None, tuple[GaussianSum, ...]]:
    if config.epsilon is None:
        return None, ()
    epochs, share = config.augpe.epochs, config.augpe.class_share if n_classes > 1 else 0.0
    planned = [PlannedRelease(label="votes", share=(1 - share) / epochs, count=epochs)]
    if n_classes > 1:
        planned.append(PlannedRelease(label="classes", share=share))
    noise = calibrate(config.epsilon, config.delta, planned)
    vote = GaussianSum(noise_multiplier=noise["votes"], n_items=n_candidates)
    classes = None
    if n_classes > 1:
        classes = GaussianSum(noise_multiplier=noise["classes"], n_items=n_classes)
    return classes, (vote,) * epochs


def survivors_of(
    counts: Sequence[float], classes: Sequence[str], sizes: Mapping[str, int], *, threshold: float
) -> tuple[list[int], list[int]]:
    """Returns the indices of the candidates that survive a vote, and of the others, both by rank.

    Of each class as many survive as it has texts. Noisy counts less the threshold, at least 0, decide; of
    equals the earlier goes first, so that what survived before does again.
    """
    values = np.maximum(np.asarray(counts, dtype=np.float64) - threshold, 0.0)
    order = np.argsort(-values, kind="stable").tolist()
    left = dict(sizes)
    kept, others = [], []
    for index in order:
        name = classes[index]
        if left.get(name, 0) > 0:
            left[name] -= 1
            kept.append(index)
        else:
            others.append(index)
    return kept, others


def plan_lines(config: RunConfig, planned: AugpePlan) -> list[PlannedLine]:
    """Lists the ledger of a run in advance."""
    if config.epsilon is None:
        lines = [
            PlannedLine(
                release="votes",
                cost="epsilon infinite: no noise",
                signal=f"{planned.n_epochs} votes among {planned.n_candidates} candidates",
            )
        ]
        cost = "epsilon infinite: no noise"
    else:
        bound = config.n_units_bound or 1
        lines = [_line(label, mechanism, bound) for label, mechanism in planned.releases()]
        whole = compose(planned.events(), config.delta)
        cost = f"nothing more; all of it: epsilon {round_up(whole.epsilon, 3):g}, delta {config.delta:g}"
    return [*lines, PlannedLine(release="texts", cost=cost, signal=f"{planned.n} texts, those voted for")]


def _line(label: str, mechanism: GaussianSum, bound: int) -> PlannedLine:
    sigma, each = mechanism.noise_multiplier, bound / mechanism.n_items
    warning = ""
    if label != "classes" and each < sigma:
        warning = (
            f"at most {each:.1f} votes a candidate drown in noise of {sigma:.2f}: ask for fewer texts (n), "
            "fewer augpe.variations or augpe.epochs, or a larger epsilon"
        )
    return PlannedLine(
        release=label,
        cost=f"sigma {sigma:.3f}",
        signal=f"at most {each:.1f} people a cell on average, noise {sigma:.2f}",
        warning=warning,
    )
