"""Privacy loss distributions: for mechanisms that have no closed form together."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rpsg.errors import PrivacyError
from rpsg.privacy.events import (
    BoundedRangeEvent,
    GaussianEvent,
    PrivacyEvent,
    PureEvent,
    SampledGaussianEvent,
)

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

INTERVAL = 1e-4
# A mixture's losses take a second for every thousandth of this; epsilon grows by a ten-thousandth of itself.
GROUP_INTERVAL = 1e-2


@dataclass(frozen=True, slots=True)
class LossDistribution:
    """The privacy loss of some events together, rounded so that each epsilon is an upper bound."""

    _found: "PrivacyLossDistribution"

    def epsilon(self, delta: float) -> float:
        """Returns the smallest epsilon at `delta`, under add/remove of one unit."""
        return float(self._found.get_epsilon_for_delta(delta))


@lru_cache(maxsize=64)
def loss_distribution(
    events: tuple[PrivacyEvent, ...], group: int = 1, interval: float = INTERVAL
) -> LossDistribution:
    """Composes the events' losses, under add/remove of `group` units together.

    Discrete noise on a fine grid is treated as continuous (see `rpsg.privacy.mechanisms`). In a Poisson
    sample there are Binomial(group, rate) units of a group, so its sum is moved by at most that: a mixture of
    Gaussian mechanisms dominates it (Ganesh 2024, arXiv 2401.10294).

    Args:
        events: none of them delta-only.
        group: units that differ.
        interval: to which losses are rounded up; a wider one is quicker, and epsilon a little larger.

    Raises:
        PrivacyError: an event has no loss distribution of its own.
    """
    from dp_accounting.pld import privacy_loss_distribution as pld
    from dp_accounting.pld.common import DifferentialPrivacyParameters

    total = pld.from_privacy_parameters(DifferentialPrivacyParameters(0.0, 0.0), interval)
    mu = group * math.sqrt(sum(event.mu**2 for event in events if isinstance(event, GaussianEvent)))
    if mu:
        total = total.compose(pld.from_gaussian_mechanism(1 / mu, value_discretization_interval=interval))
    for event in events:
        match event:
            case PureEvent() | BoundedRangeEvent():
                parameters = DifferentialPrivacyParameters(group * event.epsilon, 0.0)
                total = total.compose(pld.from_privacy_parameters(parameters, interval))
            case SampledGaussianEvent():
                one = _sampled(event, group, interval)
                total = total.compose(one.self_compose(event.count))
            case GaussianEvent():
                pass
            case _:
                raise PrivacyError(f"a {type(event).__name__} has no loss distribution of its own")
    return LossDistribution(total)


def _sampled(event: SampledGaussianEvent, group: int, interval: float) -> "PrivacyLossDistribution":
    from dp_accounting.pld import privacy_loss_distribution as pld

    if group == 1:
        return pld.from_gaussian_mechanism(
            event.noise_multiplier,
            sampling_prob=event.sampling_rate,
            value_discretization_interval=interval,
        )
    return pld.from_mixture_gaussian_mechanism(
        event.noise_multiplier,
        list(range(group + 1)),
        _binomial(group, event.sampling_rate),
        value_discretization_interval=interval,
    )


def _binomial(n: int, rate: float) -> list[float]:
    return [math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(n + 1)]
