"""The words of a privacy card. Each figure in them is an upper bound, shown with all its digits."""

import math
from collections.abc import Sequence

from rpsg.errors import ConfigError
from rpsg.method_config import MethodName
from rpsg.privacy.accounting import (
    accuracy_bound,
    gaussian_accuracy,
    gaussian_epsilon,
    gaussian_true_positive,
    round_up,
    show,
    true_positive_bound,
)
from rpsg.privacy.card_methods import added_sentence, own_statement
from rpsg.privacy.card_model import CardFigure, CardGuarantee, CardInputs
from rpsg.privacy.choice import permute_and_flip_best
from rpsg.privacy.events import (
    BoundedRangeEvent,
    DeltaEvent,
    GaussianEvent,
    NonPrivateEvent,
    PrivacyEvent,
    PureEvent,
    SampledGaussianEvent,
    ZcdpEvent,
)

FALSE_POSITIVE = 0.01


def statement(
    *,
    guarantee: CardGuarantee,
    epsilon: float | None,
    n_candidates: int,
    has_units: bool,
    figures: Sequence[CardFigure] = (),
    max_records: int | None = None,
    method: MethodName = "rpsg",
) -> str:
    """Returns what a run in this mode may say of its privacy; every output begins with it.

    Raises:
        ConfigError: the guarantee is not one of these modes, or lacks its epsilon.
    """
    own = own_statement(method, guarantee)
    if own is not None:
        return own
    if guarantee == "none":
        return (
            "No differential privacy of any kind. Each output is an LLM rewrite of a summary of one "
            "private record; no noise was used."
        )
    if guarantee == "selection" and epsilon is not None:
        unit = (
            " The unit is one record: for a person with m records in use it is m times this epsilon."
            if has_units
            else " The unit is one record, not one person."
        )
        return (
            "No end-to-end differential privacy. Each output is an LLM rewrite of an automatically written "
            f"summary of one private record. Noise chooses which of at most {n_candidates} summaries is "
            f"used; conditional on them the choice is {show(epsilon)}-DP (pure, replace-one). This does not "
            f"limit what the summary, the rewrite, the vote or the filters reveal.{unit}"
        )
    if guarantee == "end-to-end" and len(figures) > 1 and figures[0].epsilon is not None:
        whole, replaced = figures[:2]
        whom = "record (not one person)"
        if has_units:
            whom = f"person with at most {max_records} records" if max_records else "person with all records"
        return (
            f"The complete set of released texts is (epsilon={_epsilon(whole)}, "
            f"delta={show(whole.delta)})-DP with respect to adding or removing one {whom}; replace-one: "
            f"epsilon={_epsilon(replaced)}. Model and prompts are public inputs; the guarantee does not "
            f"cover what the public model already knew, nor metrics computed internally."
            f"{added_sentence(method, guarantee)}"
        )
    raise ConfigError(f"there is no statement for guarantee {guarantee!r} with epsilon {epsilon}")


def reviewed_statement() -> str:
    """Returns the statement of an end-to-end run whose texts were chosen by a person who saw private ones."""
    return (
        "No end-to-end differential privacy. The texts were made with privacy noise, but a person who saw "
        "private texts then chose which of them are released. Nothing bounds what that choice reveals."
    )


def outside_in_words(n_runs: int) -> str:
    """Says that runs were not charged to the budget of their data."""
    return f" Outside the data budget: {n_runs} run(s) on these data were not charged to it."


def canaries_in_words() -> str:
    """Says that a run is an audit's, not a product."""
    return (
        " The data contain planted canaries, made-up records for an audit: this run is not to be published."
    )


def _epsilon(figure: CardFigure) -> str:
    return "none finite" if figure.epsilon is None else show(figure.epsilon)


def noise_in_words(*, epsilon: float, n_candidates: int) -> str:
    """Says how often the noisy choice keeps the best of K evenly spaced candidates."""
    best = permute_and_flip_best(epsilon, n_candidates)
    return (
        f"With {n_candidates} summaries of evenly spaced quality the noise keeps the best one with "
        f"probability {best:.2f}; a blind choice would with probability {1 / n_candidates:.2f}."
    )


def attacker_in_words(
    inputs: CardInputs, figures: Sequence[CardFigure], events: Sequence[PrivacyEvent]
) -> str:
    """Says what an attacker can do at most."""
    if inputs.guarantee == "end-to-end" and figures and figures[0].epsilon is not None:
        sure, rate = _attack_bounds(figures[0], events)
        return (
            f"A guess whether a unit was in the data, at even odds, is right at most {_percent(sure)} of the "
            "time. A test that accuses 1 % of the units that were not in the data finds at most "
            f"{_percent(rate)} of those that were."
        )
    if inputs.guarantee == "selection" and inputs.epsilon is not None:
        return (
            "Nothing bounds what an attacker learns from the released texts. From which summary was chosen, "
            "given all of them, a guess which of two records it was, at even odds, is right at most "
            f"{_percent(accuracy_bound(inputs.epsilon))} of the time."
        )
    return "Nothing bounds what an attacker learns from the released texts."


def _attack_bounds(whole: CardFigure, events: Sequence[PrivacyEvent]) -> tuple[float, float]:
    """Accuracy at even odds, and true positives at 1 % false ones: exact where all is Gaussian."""
    epsilon = whole.epsilon or 0.0
    if not all(isinstance(event, GaussianEvent | DeltaEvent) for event in events):
        rate = true_positive_bound(epsilon, whole.delta, false_positive=FALSE_POSITIVE)
        return accuracy_bound(epsilon, whole.delta), rate
    mu = math.sqrt(sum(event.mu**2 for event in events if isinstance(event, GaussianEvent)))
    delta = sum(event.delta for event in events if isinstance(event, DeltaEvent))
    rate = gaussian_true_positive(mu, delta, false_positive=FALSE_POSITIVE)
    return gaussian_accuracy(mu, delta), rate


def _percent(share: float) -> str:
    return f"{100 * round_up(share, 3):.1f} %"


def _floor(std: float) -> str:
    # Noise is shown rounded down: never more than there is.
    return show(math.floor(std * 1000) / 1000)


def cost_in_words(event: PrivacyEvent, delta: float, *, conditional: bool) -> str:
    """Says what an event costs; `conditional` where that holds only for candidates that are given."""
    given = " if the items summed over did not depend on the data" if conditional else ""
    match event:
        case GaussianEvent():
            epsilon = round_up(gaussian_epsilon(event.mu, delta), 3)
            return (
                f"Gaussian noise, std {_floor(event.std)}, L2 sensitivity {show(event.sensitivity_l2)} "
                f"({event.relation}): epsilon {show(epsilon)} at delta {show(delta)}{given}"
            )
        case SampledGaussianEvent():
            return (
                f"{event.count} Gaussian sums over Poisson samples at rate {show(event.sampling_rate)}, "
                f"noise multiplier {show(event.noise_multiplier)} ({event.relation})"
            )
        case PureEvent():
            text = f"epsilon {show(event.epsilon)}, pure ({event.relation})"
            return text + (", given the candidates" if conditional else "")
        case BoundedRangeEvent():
            text = f"bounded range {show(event.eta)} ({event.relation})"
        case ZcdpEvent():
            text = f"rho {show(event.rho)}, zCDP ({event.relation})"
        case DeltaEvent():
            text = f"delta {show(event.delta)} ({event.relation})"
        case NonPrivateEvent():
            text = "no noise: epsilon infinite"
    return text
