"""DP-SGD as a mechanism: noisy sums of clipped gradients over Poisson samples of the units. Closed set."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from rpsg.errors import PrivacyError
from rpsg.privacy.accounting import compose
from rpsg.privacy.events import PrivacyEvent, SampledGaussianEvent
from rpsg.privacy.losses import loss_distribution
from rpsg.privacy.noise import NoiseSource
from rpsg.types import FloatArray

# Steps of the public grid to a unit's whole contribution. Finer than that of counts: a gradient has tens of
# thousands of entries, each a small part of its length.
GRADIENT_STEPS = 2**20
_COARSE = 1e-3
# So many times too much noise the coarse grid may ask for.
_COARSE_AT_MOST = 8.0
_DIGITS = 3
_LEAST, _MOST = 0.3, 1e4
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledGradients:
    """The steps of a DP-SGD training (Abadi et al. 2016).

    In each step every unit is in the sample with the same probability, on its own; each sampled unit gives
    one gradient, which is clipped to L2 norm 1 (in units of the clipping norm) and rounded toward zero to a
    grid; the sum gets discrete Gaussian noise. So adding or removing a unit changes a step as a Gaussian
    mechanism of sensitivity 1 over a Poisson sample does. A unit's gradient must be a function of that unit,
    the earlier steps and fresh randomness alone: gradients computed in one batch differ in their last bits
    with what else is in it, so units are computed one by one.

    Attributes:
        noise_multiplier: noise std / L2 sensitivity.
        sampling_rate: of each unit, in each step.
        n_steps: steps of the whole training.

    Raises:
        PrivacyError: a parameter is not allowed.
    """

    noise_multiplier: float
    sampling_rate: float
    n_steps: int

    def __post_init__(self) -> None:
        if not self.noise_multiplier >= _LEAST:
            raise PrivacyError(
                f"the noise multiplier of a training must be at least {_LEAST} (given: "
                f"{self.noise_multiplier:g}); ask for a smaller epsilon"
            )
        SampledGaussianEvent(
            noise_multiplier=self.noise_multiplier, sampling_rate=self.sampling_rate, count=self.n_steps
        )

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """All steps of the training."""
        return (
            SampledGaussianEvent(
                noise_multiplier=self.noise_multiplier, sampling_rate=self.sampling_rate, count=self.n_steps
            ),
        )

    def sample(self, private_value: object, noise: NoiseSource) -> object:
        """Refuses: a training is drawn step by step (see `Ledger.draw_step`)."""
        raise PrivacyError("a training is not drawn at once")

    def draw_units(self, n_units: int, noise: NoiseSource) -> list[int]:
        """Draws the units of one step: each with the sampling rate, from the noise's own secret source."""
        return noise.poisson(n_units, self.sampling_rate)

    def draw_sum(self, private_gradients: Iterable[FloatArray], size: int, noise: NoiseSource) -> FloatArray:
        """Draws one step's noisy sum, in units of the clipping norm.

        Args:
            private_gradients: one vector a sampled unit, shape (size,), in units of the clipping norm.
            size: number of weights.
            noise: the source.
        """
        total = np.zeros(size, dtype=np.int64)
        for gradient in private_gradients:
            total += clip_gradient(gradient)
        noisy = noise.gaussian(total, self.noise_multiplier * GRADIENT_STEPS)
        return (noisy / GRADIENT_STEPS).astype(np.float32)


def clip_gradient(gradient: FloatArray) -> IntArray:
    """Clips a vector to L2 norm 1, in grid steps rounded toward zero; what is not a number counts as 0."""
    values = np.nan_to_num(gradient.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    norm = float(np.linalg.norm(values))
    steps: IntArray = np.trunc(values * (GRADIENT_STEPS / max(1.0, norm))).astype(np.int64)
    # Division may round up: the bound is checked in integers, where it is exact.
    if int((steps**2).sum()) > GRADIENT_STEPS**2:
        steps -= np.sign(steps)
    return steps


def calibrate_training(
    epsilon: float, delta: float, *, sampling_rate: float, n_steps: int, beside: Sequence[PrivacyEvent] = ()
) -> SampledGradients:
    """Returns the training with the least noise that is (epsilon, delta)-DP together with other events.

    Raises:
        PrivacyError: the other events alone cost more, or the noise would be out of range.
    """
    from scipy.optimize import brentq

    def excess(log_noise: float, interval: float = _COARSE) -> float:
        event = SampledGaussianEvent(
            noise_multiplier=math.exp(log_noise), sampling_rate=sampling_rate, count=n_steps
        )
        return loss_distribution((*beside, event), 1, interval).epsilon(delta) - epsilon

    low, high = math.log(_LEAST), math.log(_MOST)
    if excess(high) > 0:
        raise PrivacyError(f"no noise makes this training epsilon {epsilon:g} at delta {delta:g}")
    noise = _LEAST if excess(low) <= 0 else math.exp(float(brentq(excess, low, high, xtol=1e-4)))
    # Each step of a long training loses so little that the coarse grid rounds all of it up. It is searched
    # again on a finer one, from there on, where losses are small and so is their distribution.
    fine, low = partial(excess, interval=_COARSE * min(1.0, epsilon)), math.log(noise / _COARSE_AT_MOST)
    if epsilon < 1 and noise > _LEAST * _COARSE_AT_MOST and fine(math.log(noise)) < 0 < fine(low):
        noise = math.exp(float(brentq(fine, low, math.log(noise), xtol=1e-4)))
    # Rounded up, so that it is a short number on the card, and until it holds for the exact figure.
    noise = math.ceil(noise * 10**_DIGITS) / 10**_DIGITS
    while True:
        found = SampledGradients(noise_multiplier=noise, sampling_rate=sampling_rate, n_steps=n_steps)
        if compose([*beside, *found.events], delta).epsilon <= epsilon:
            return found
        noise = round(noise + max(10**-_DIGITS, 1e-4 * noise), _DIGITS)
