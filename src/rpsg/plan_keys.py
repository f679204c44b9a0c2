"""The noise of an end-to-end run, solved in advance from public settings alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rpsg.config import RunConfig
from rpsg.errors import ConfigError
from rpsg.privacy.accounting import PlannedRelease, calibrate
from rpsg.privacy.events import PrivacyEvent
from rpsg.privacy.mechanisms import GaussianSum, ThresholdedKeys
from rpsg.public_file import PublicMaterial, read_public_file
from rpsg.stages.keys import N_FACETS, label_cells, phrase_cells

# Relative shares of the keys' part of the budget.
_WEIGHTS = {"topics": 1.0, "facets": 1.0, "labels": 2.0, "phrases": 6.0}
# A topic needs this many times the people that naming a phrase takes.
_UNITS_PER_THRESHOLD = 20
_MAX_TOPICS = 200
_MAX_CELLS = 200_000
_MAX_LABELS = 10_000

Histogram = GaussianSum | ThresholdedKeys


@dataclass(frozen=True, kw_only=True)
class KeysPlan:
    """What an end-to-end run releases; nothing with epsilon 0, which writes from public prompts only.

    Attributes:
        n_topics: public topics; 1 means none are told apart.
        topics: histogram of topics; None with one topic.
        facets: histogram of tones and lengths.
        labels: of declared labels, or thresholded; None without label columns.
        phrases: of public phrases, or thresholded.
        votes: one a round.
        n_candidates: candidates of each round.
        material: public topics and phrases; None where the run builds its topics itself.
        vocabulary: the only phrases that count; empty for any.
        label_values: label column to its declared values; empty where labels are not declared.
    """

    n_topics: int
    topics: GaussianSum | None = None
    facets: GaussianSum | None = None
    labels: Histogram | None = None
    phrases: Histogram | None = None
    votes: tuple[GaussianSum, ...] = ()
    n_candidates: int
    material: PublicMaterial | None = None
    vocabulary: tuple[str, ...] = ()
    label_values: Mapping[str, Sequence[str]]

    @cached_property
    def phrase_cells(self) -> list[str]:
        """Every public key of topic and phrase."""
        return phrase_cells(self.n_topics, self.vocabulary)

    @cached_property
    def label_cells(self) -> list[str]:
        """Every declared key of topic and labels."""
        return label_cells(self.n_topics, self.label_values)

    def releases(self) -> list[tuple[str, Histogram]]:
        """Returns label and mechanism of every release, in order."""
        named: list[tuple[str, Histogram | None]] = [
            ("topics", self.topics),
            ("facets", self.facets),
            ("labels", self.labels),
            ("phrases", self.phrases),
        ]
        named += [(f"vote {i}", vote) for i, vote in enumerate(self.votes, start=1)]
        return [(label, mechanism) for label, mechanism in named if mechanism is not None]

    def events(self) -> list[PrivacyEvent]:
        """Returns what the run costs."""
        return [event for _, mechanism in self.releases() for event in mechanism.events]


def noise_floor(mechanism: Histogram) -> float:
    """Returns the weight that noise alone exceeds in less than one cell on average, or the threshold."""
    from scipy.special import ndtri

    if isinstance(mechanism, ThresholdedKeys):
        return mechanism.threshold
    return mechanism.noise_multiplier * float(ndtri(1 - 1 / max(2, mechanism.n_items)))


def plan_keys(config: RunConfig, *, has_labels: bool) -> KeysPlan:
    """Solves one budget for all releases of an end-to-end run.

    Reads public settings, the public file they name, and whether there are label columns, so the plan is
    the same whatever the data are. The number of topics is the largest K with n_units_bound / K >= 20
    naming thresholds (in the weights of the histogram), at least 1 and at most 200.

    Raises:
        ConfigError: epsilon, n or n_units_bound is missing; the public file does not fit.
        PrivacyError: epsilon is so large that the noise falls below what the accounting covers.
    """
    if config.epsilon is None or config.n is None:
        raise ConfigError("guarantee: end-to-end needs epsilon and n")
    n_candidates = math.ceil(config.n * config.vote.candidates)
    values = config.data.label_values if has_labels else {}
    n_labels = math.prod(len(found) + 1 for found in values.values()) if values else 0
    if n_labels > _MAX_LABELS:
        raise ConfigError(
            f"data.label_values: {n_labels:,} combinations of declared labels, at most {_MAX_LABELS:,} can "
            "be counted; declare fewer values or columns"
        )
    if config.epsilon == 0:
        return KeysPlan(n_topics=1, n_candidates=n_candidates, label_values=values)
    if config.n_units_bound is None:
        raise ConfigError("guarantee: end-to-end needs n_units_bound")
    material = None
    if config.keys.public is not None:
        material = read_public_file(Path(config.keys.public))
    solve = _Solver(config, config.epsilon, n_candidates, has_labels, values, n_labels, material)
    most = max_topics(config.n_units_bound, solve)
    if material is None:
        return solve(most)
    n_topics = len(material.centroids)
    if n_topics > most:
        raise ConfigError(
            f"keys.public: the file has {n_topics} topics, and {config.n_units_bound} people at epsilon "
            f"{config.epsilon:g} are enough for {most}; build it again with: rpsg public build CONFIG"
        )
    return solve(n_topics)


@dataclass(frozen=True, slots=True)
class _Solver:
    config: RunConfig
    epsilon: float
    n_candidates: int
    has_labels: bool
    label_values: Mapping[str, Sequence[str]]
    n_labels: int
    material: PublicMaterial | None

    def most_topics(self) -> int:
        """Returns how many topics fit the cells that can be counted."""
        largest = max(1, self.n_labels, len(self._vocabulary()))
        return min(_MAX_TOPICS, _MAX_CELLS // largest)

    def __call__(self, n_topics: int) -> KeysPlan:
        config = self.config
        rounds = config.vote.rounds if config.vote.enabled and config.keys.share < 1 else 0
        vocabulary = self._vocabulary()
        delta, planned = self._planned(n_topics, rounds)
        noise = calibrate(self.epsilon, config.delta, planned)

        def histogram(name: str, n_items: int, max_keys: int = 1) -> Histogram | None:
            if name not in noise:
                return None
            if n_items:
                return GaussianSum(noise_multiplier=noise[name], n_items=n_items)
            return ThresholdedKeys(noise_multiplier=noise[name], max_keys=max_keys, delta=delta)

        topics = GaussianSum(noise_multiplier=noise["topics"], n_items=n_topics) if n_topics > 1 else None
        votes = (
            (GaussianSum(noise_multiplier=noise["votes"], n_items=self.n_candidates),) * rounds
            if rounds
            else ()
        )
        return KeysPlan(
            n_topics=n_topics,
            topics=topics,
            facets=GaussianSum(noise_multiplier=noise["facets"], n_items=N_FACETS),
            labels=histogram("labels", n_topics * self.n_labels),
            phrases=histogram("phrases", n_topics * len(vocabulary), config.keys.max_phrases),
            votes=votes,
            n_candidates=self.n_candidates,
            material=self.material,
            vocabulary=vocabulary,
            label_values=self.label_values,
        )

    def _vocabulary(self) -> tuple[str, ...]:
        public = self.material is not None and self.config.keys.vocabulary == "public"
        return tuple(self.material.phrases) if public and self.material else ()

    def _planned(self, n_topics: int, rounds: int) -> tuple[float, list[PlannedRelease]]:
        config = self.config
        unused = {"topics"} if n_topics == 1 else set()
        unused |= set() if self.has_labels else {"labels"}
        names = [name for name in _WEIGHTS if name not in unused]
        share = config.keys.share if rounds else 1.0
        total = sum(_WEIGHTS[name] for name in names)
        open_ended = [] if self.label_values or not self.has_labels else ["labels"]
        open_ended += [] if self._vocabulary() else ["phrases"]
        delta = config.keys.delta_share * config.delta / max(1, len(open_ended))
        planned = [
            PlannedRelease(
                label=name, share=share * _WEIGHTS[name] / total, delta=delta if name in open_ended else 0.0
            )
            for name in names
        ]
        if rounds:
            planned.append(PlannedRelease(label="votes", share=(1 - share) / rounds, count=rounds))
        return delta, planned


def max_topics(n_units_bound: int, solve: "_Solver") -> int:
    """Returns the largest K with n_units_bound / K >= 20 naming thresholds, at least 1."""
    several = solve(2)
    assert several.phrases is not None
    # The threshold of public phrases grows with the number of cells, slowly: one topic's is the smallest.
    enough = math.floor(n_units_bound / (_UNITS_PER_THRESHOLD * noise_floor(several.phrases)))
    most = min(solve.most_topics(), enough)
    while most > 2 and isinstance(several.phrases, GaussianSum):
        phrases = solve(most).phrases
        assert phrases is not None
        if most * _UNITS_PER_THRESHOLD * noise_floor(phrases) <= n_units_bound:
            break
        most -= 1
    return max(1, most)
