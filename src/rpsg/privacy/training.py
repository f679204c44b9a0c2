"""A training on the ledger: its whole cost is reserved before the first step, and each step is committed.

A step that was not committed was seen by nobody: when a stopped run goes on, it is drawn anew, sample and
noise, so noise never meets a second gradient. A step that was committed is never drawn again: the weights
that it led to are read back, and must have the hash that was committed with them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rpsg.errors import PrivacyError
from rpsg.privacy.gradients import SampledGradients
from rpsg.privacy.ledger import Ledger
from rpsg.types import FloatArray


@dataclass(frozen=True, slots=True)
class Training:
    """A training that was begun.

    Attributes:
        ledger: the run's.
        label: names the training.
        mechanism: its steps.
    """

    ledger: Ledger
    label: str
    mechanism: SampledGradients

    @classmethod
    def begin(cls, ledger: Ledger, label: str, mechanism: SampledGradients, *, note: str) -> "Training":
        """Reserves the cost of all steps, or finds that it was reserved.

        Raises:
            PrivacyError: the label was begun with other parameters.
            BudgetExceeded: the training would cost more than the limit leaves; nothing was drawn.
        """
        ledger.reserve(label, mechanism, note=note)
        return cls(ledger, label, mechanism)

    @property
    def n_done(self) -> int:
        """Steps that were committed."""
        return self.ledger.last_step(self.label)[0]

    @property
    def state(self) -> str:
        """The hash that was committed with the last of them; "" before the first."""
        return self.ledger.last_step(self.label)[1]

    def draw(
        self, n_units: int, private_gradients: Callable[[list[int]], Iterable[FloatArray]], size: int
    ) -> FloatArray:
        """Draws the next step: a Poisson sample of the units, and the noisy sum of their clipped gradients.

        Args:
            n_units: units there are.
            private_gradients: given the sampled units, yields one gradient each, in units of the clipping
                norm.
            size: entries of a gradient.

        Returns:
            The noisy sum, in units of the clipping norm.

        Raises:
            PrivacyError: no step is left that was paid for.
        """
        if self.n_done >= self.mechanism.n_steps:
            raise PrivacyError(f"all {self.mechanism.n_steps} steps of {self.label!r} were taken")
        noise = self.ledger.noise
        units = self.mechanism.draw_units(n_units, noise)
        return self.mechanism.draw_sum(private_gradients(units), size, noise)

    def commit(self, digest: str) -> None:
        """Commits the step that was drawn last, with the hash of the state that it led to."""
        self.ledger.keep_step(self.label, self.n_done + 1, digest)
