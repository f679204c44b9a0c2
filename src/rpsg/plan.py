"""What a run would do and release, from public settings and the size of the data; spends nothing."""

import math
from dataclasses import dataclass

from rpsg import data
from rpsg.config import RunConfig
from rpsg.errors import ConfigError, DataError
from rpsg.privacy.accounting import calibrate_gaussian, gaussian_epsilon, round_up
from rpsg.privacy.choice import permute_and_flip_best
from rpsg.privacy.mechanisms import GaussianSum
from rpsg.rng import Streams
from rpsg.types import PrivateCorpus

CALIBRATION_SHARE = 0.2
CALIBRATION_MAX = 500
# Below this many held-out records the calibrated filters would rest on too few values.
CALIBRATION_MIN = 40
DEFAULT_SHARE = 0.7
# First-round seeds for one text wanted: about three of four lead to an accepted text, and refill rounds of a
# few texts write at a third of the speed, so most should not be needed.
SEEDS_PER_TEXT = 1.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The sizes of a run.

    Attributes:
        n_records: usable records.
        n_calibration: records held out to set filter thresholds; never seeds.
        n_pool: records that may become seeds.
        n_wanted: texts to be released.
        n_seeds: seeds of the first round; refill may take the rest of the pool.
        filters_on: whether there are enough calibration records for the calibrated filters.
    """

    n_records: int
    n_calibration: int
    n_pool: int
    n_wanted: int
    n_seeds: int
    filters_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLine:
    """A line of the ledger in advance.

    Attributes:
        release: its label; refill rounds add lines of the same kind for other records.
        cost: what it costs.
        signal: what can be told from noise.
        warning: what is wrong with it and what would help; "" when nothing is.
    """

    release: str
    cost: str
    signal: str
    warning: str = ""


def split_pool(config: RunConfig, corpus: PrivateCorpus) -> tuple[PrivateCorpus, PrivateCorpus]:
    """Returns the records that may be seeds, and those held out to set filters and to compare with."""
    key = Streams(config.seed).key("calibration").to_bytes(8)
    return data.split_calibration(corpus, share=CALIBRATION_SHARE, at_most=CALIBRATION_MAX, key=key)


def make_plan(config: RunConfig, *, n_pool: int, n_calibration: int) -> Plan:
    """Computes the sizes of a run.

    Raises:
        ConfigError: more texts are wanted than there are seeds.
        PrivacyError: epsilon is so large that the vote's noise falls below what the accounting covers.
        DataError: no record is left to seed from.
    """
    if n_pool < 1:
        raise DataError("no record is left to seed from; at least 2 usable records are needed")
    if config.epsilon is not None and config.vote.enabled:
        # Refused here, before anything is drawn, when the noise would be too small to account for.
        vote_mechanism(config, n_items=1)
    n_wanted = config.n if config.n is not None else max(1, math.floor(DEFAULT_SHARE * n_pool))
    if n_wanted > n_pool:
        raise ConfigError(
            f"n: {n_wanted} texts are wanted, but each needs a seed of its own and {n_pool} records can be "
            f"seeds ({n_calibration} are held out to set the filters); the largest possible n is {n_pool}"
        )
    return Plan(
        n_records=n_pool + n_calibration,
        n_calibration=n_calibration,
        n_pool=n_pool,
        n_wanted=n_wanted,
        n_seeds=min(n_pool, math.ceil(SEEDS_PER_TEXT * n_wanted)),
        filters_on=n_calibration >= CALIBRATION_MIN,
    )


def vote_mechanism(config: RunConfig, *, n_items: int) -> GaussianSum:
    """Returns the mechanism of the one vote of a run: a function of public settings and the candidates."""
    assert config.epsilon is not None
    return GaussianSum(noise_multiplier=calibrate_gaussian(config.epsilon, config.delta), n_items=n_items)


def plan_ledger(config: RunConfig, sizes: Plan) -> list[PlannedLine]:
    """Lists what a run would release, what each line costs, and whether it is more than noise."""
    lines = [_plan_choice(config)]
    if config.vote.enabled:
        lines.append(_plan_vote(config, sizes))
    lines.append(
        PlannedLine(
            release="texts",
            cost="epsilon infinite: no noise",
            signal=f"{sizes.n_wanted} texts, rewrites of summaries of private records",
        )
    )
    return lines


def _plan_choice(config: RunConfig) -> PlannedLine:
    k = config.abstract.n_candidates
    if config.epsilon is None:
        signal, cost = f"always the best of {k}", "epsilon infinite: no noise"
        if config.method == "rpsg-published":
            signal = f"one of {k}, as the published code chooses"
            cost = f"epsilon infinite: noise of nominal epsilon {config.published.nominal_epsilon:g}"
        return PlannedLine(release="choice of summaries", cost=cost, signal=signal)
    best, blind = permute_and_flip_best(config.epsilon, k), 1 / k
    warning = ""
    if k > 1 and best < 1.5 * blind:
        warning = (
            f"the choice is little better than blind ({best:.2f} against {blind:.2f}); raise epsilon, or set "
            "abstract.n_candidates lower: the noise protects only which summary is used, not the text"
        )
    return PlannedLine(
        release="choice of summaries",
        cost=f"epsilon {config.epsilon:g} (pure, replace-one), once a record, given its summaries",
        signal=f"the best of {k} is chosen with probability {best:.2f}; blind {blind:.2f}",
        warning=warning,
    )


def _plan_vote(config: RunConfig, sizes: Plan) -> PlannedLine:
    n_candidates = sizes.n_seeds * config.write.n_variants
    votes = sizes.n_pool / n_candidates
    if config.epsilon is None:
        return PlannedLine(
            release="vote",
            cost="epsilon infinite: no noise",
            signal=f"{votes:.1f} votes a candidate on average",
        )
    noise = vote_mechanism(config, n_items=n_candidates).noise_multiplier
    epsilon = round_up(gaussian_epsilon(1 / noise, config.delta), 3)
    warning = ""
    if votes < noise:
        warning = (
            f"{votes:.1f} votes a candidate drown in noise of standard deviation {noise:.2f}: the vote "
            "decides little. More records, fewer texts (n), or a larger epsilon would help"
        )
    return PlannedLine(
        release="vote",
        cost=(
            f"Gaussian, sigma {noise:.3f}: epsilon {epsilon:g} at delta {config.delta:g} (add/remove one "
            "unit) if the candidates did not depend on the data; they do"
        ),
        signal=f"{votes:.1f} votes a candidate on average, noise of standard deviation {noise:.2f}",
        warning=warning,
    )
