"""What a run would do, from public settings and the size of the data; spends nothing."""

import math
from dataclasses import dataclass

from rpsg.config import RunConfig
from rpsg.errors import ConfigError, DataError

CALIBRATION_SHARE = 0.2
CALIBRATION_MAX = 500
# Below this many held-out records the calibrated filters would rest on too few values.
CALIBRATION_MIN = 40
DEFAULT_SHARE = 0.7
# First-round seeds for one text wanted: vote and filters drop about a quarter.
SEEDS_PER_TEXT = 1.3


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


def make_plan(config: RunConfig, *, n_pool: int, n_calibration: int) -> Plan:
    """Computes the sizes of a run.

    Raises:
        ConfigError: more texts are wanted than there are seeds.
        DataError: no record is left to seed from.
    """
    if n_pool < 1:
        raise DataError("no record is left to seed from; at least 2 usable records are needed")
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
