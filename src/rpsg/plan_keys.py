"""The noise of an end-to-end run, solved in advance from public settings alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rpsg.config import RunConfig
from rpsg.errors import ConfigError
from rpsg.plan import PlannedLine
from rpsg.privacy.accounting import PlannedRelease, calibrate, compose, round_up
from rpsg.privacy.events import PrivacyEvent
from rpsg.privacy.mechanisms import GaussianSum, ThresholdedKeys
from rpsg.stages.keys import N_FACETS

# Relative shares of the keys' part of the budget.
_WEIGHTS = {"topics": 1.0, "facets": 1.0, "labels": 2.0, "phrases": 6.0}
# A topic needs this many times the people that naming a phrase takes.
_UNITS_PER_THRESHOLD = 20
_MAX_TOPICS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysPlan:
    """What an end-to-end run releases.

    Attributes:
        n_topics: public topics; 1 means none are told apart.
        topics: histogram of topics; None with one topic.
        facets: histogram of tones and lengths.
        labels: thresholded labels; None without label columns.
        phrases: thresholded phrases.
        votes: one a round.
        n_candidates: candidates of each round.
    """

    n_topics: int
    topics: GaussianSum | None
    facets: GaussianSum
    labels: ThresholdedKeys | None
    phrases: ThresholdedKeys
    votes: tuple[GaussianSum, ...]
    n_candidates: int

    def releases(self) -> list[tuple[str, GaussianSum | ThresholdedKeys]]:
        """Returns label and mechanism of every release, in order."""
        named = [
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


def plan_keys(config: RunConfig, *, has_labels: bool) -> KeysPlan:
    """Solves one budget for all releases of an end-to-end run.

    Reads public settings and whether there are label columns, so the plan is the same whatever the data
    are. The number of topics is the
    largest K with n_units_bound / K >= 20 naming thresholds, at least 1.

    Raises:
        ConfigError: epsilon, n or n_units_bound is missing.
        PrivacyError: epsilon is so large that the noise falls below what the accounting covers.
    """
    if config.epsilon is None or config.n is None or config.n_units_bound is None:
        raise ConfigError("guarantee: end-to-end needs epsilon, n and n_units_bound")
    several = _solve(config, config.epsilon, n_topics=2, has_labels=has_labels)
    bound = config.n_units_bound / (_UNITS_PER_THRESHOLD * several.phrases.threshold)
    n_topics = min(_MAX_TOPICS, math.floor(bound))
    return _solve(config, config.epsilon, n_topics=max(1, n_topics), has_labels=has_labels)


def _solve(config: RunConfig, epsilon: float, *, n_topics: int, has_labels: bool) -> KeysPlan:
    unused = {"topics"} if n_topics == 1 else set()
    unused |= set() if has_labels else {"labels"}
    names = [name for name in _WEIGHTS if name not in unused]
    n_rounds = config.vote.rounds if config.vote.enabled else 0
    share = config.keys.share if n_rounds else 1.0
    total = sum(_WEIGHTS[name] for name in names)
    thresholds = [name for name in names if name in {"labels", "phrases"}]
    delta = config.keys.delta_share * config.delta / len(thresholds)
    planned = [
        PlannedRelease(
            label=name, share=share * _WEIGHTS[name] / total, delta=delta if name in thresholds else 0.0
        )
        for name in names
    ]
    if n_rounds and share < 1:
        planned.append(PlannedRelease(label="votes", share=(1 - share) / n_rounds, count=n_rounds))
    noise = calibrate(epsilon, config.delta, planned)
    n_candidates = math.ceil((config.n or 1) * config.vote.candidates)
    return KeysPlan(
        n_topics=n_topics,
        topics=GaussianSum(noise_multiplier=noise["topics"], n_items=n_topics) if "topics" in noise else None,
        facets=GaussianSum(noise_multiplier=noise["facets"], n_items=N_FACETS),
        labels=_keys(noise, "labels", 1, delta) if "labels" in noise else None,
        phrases=_keys(noise, "phrases", config.keys.max_phrases, delta),
        votes=(GaussianSum(noise_multiplier=noise["votes"], n_items=n_candidates),) * n_rounds
        if "votes" in noise
        else (),
        n_candidates=n_candidates,
    )


def _keys(noise: Mapping[str, float], name: str, max_keys: int, delta: float) -> ThresholdedKeys:
    return ThresholdedKeys(noise_multiplier=noise[name], max_keys=max_keys, delta=delta)


def plan_paid_ledger(config: RunConfig, *, has_labels: bool) -> list[PlannedLine]:
    """Lists what an end-to-end run would release, and whether it is more than noise. Reads no data."""
    plan = plan_keys(config, has_labels=has_labels)
    bound = config.n_units_bound or 1
    lines = [_line(label, mechanism, plan, bound) for label, mechanism in plan.releases()]
    whole = compose(plan.events(), config.delta)
    lines.append(
        PlannedLine(
            release="texts",
            cost=f"nothing more; all of it: epsilon {round_up(whole.epsilon, 3):g}, delta {config.delta:g}",
            signal=f"{config.n} texts, written from what was released above",
        )
    )
    return lines


def _line(label: str, mechanism: GaussianSum | ThresholdedKeys, plan: KeysPlan, bound: int) -> PlannedLine:
    sigma = mechanism.noise_multiplier
    if isinstance(mechanism, ThresholdedKeys):
        people = math.ceil(mechanism.threshold * math.sqrt(mechanism.max_keys))
        warning = ""
        if people > bound / plan.n_topics / 2:
            warning = (
                f"a {label.rstrip('s')} is named only when more than half of a topic's people share it "
                f"({people} of at most {bound // plan.n_topics}); raise epsilon, or bring more people"
            )
        return PlannedLine(
            release=label,
            cost=f"sigma {sigma:.3f}, delta {mechanism.delta:g}",
            signal=f"about {people} people name one, when each holds {mechanism.max_keys}",
            warning=warning,
        )
    each = bound / mechanism.n_items
    warning = ""
    if label.startswith("vote") and each < sigma:
        warning = (
            f"at most {each:.1f} votes a candidate drown in noise of {sigma:.2f}: ask for fewer texts (n), "
            "fewer vote.candidates, or a larger epsilon"
        )
    return PlannedLine(
        release=label,
        cost=f"sigma {sigma:.3f}",
        signal=f"at most {each:.1f} people a cell on average, noise {sigma:.2f}",
        warning=warning,
    )
