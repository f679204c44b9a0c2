"""The privacy card: what protects the private texts, in words that follow from the ledger.

A card holds its inputs (settings and ledger lines) and what follows from them. `build_card` computes
the second from the first, so a card can be checked by building it again.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from rpsg.errors import ConfigError, PrivacyError
from rpsg.privacy.accounting import (
    Figure,
    compose,
    gaussian_epsilon,
    gaussian_true_positive,
    posterior,
    round_up,
    true_positive_bound,
)
from rpsg.privacy.choice import permute_and_flip_best
from rpsg.privacy.events import (
    REPLACE,
    BoundedRangeEvent,
    DeltaEvent,
    GaussianEvent,
    NonPrivateEvent,
    PrivacyEvent,
    PureEvent,
    SampledGaussianEvent,
    ZcdpEvent,
)
from rpsg.privacy.ledger import LedgerLine
from rpsg.types import Trust

FALSE_POSITIVE = 0.01
# A family or a small team: how far the guarantee reaches for people who are in the data together.
_GROUP = 5
CardGuarantee = Literal["none", "selection", "end-to-end"]
_NOT_COVERED = {
    "none": (
        "what a summary says of its private text",
        "what the writing model repeats of a summary",
        "the vote and the filters, which read the private texts",
        "labels, which are those of the seeds",
    ),
    "selection": (
        "what a summary says of its private text",
        "what the writing model repeats of a summary",
        "the vote and the filters, which read the private texts",
        "labels, which are those of the seeds",
    ),
    "end-to-end": ("public inputs that a person chose after looking at the private texts",),
}
_NEVER_COVERED = (
    "what the public models learnt in their own training",
    "figures and files in the private part of the run folder",
    "how long the run took",
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataFlow(_Part):
    """Which model read which kind of text, and where it ran."""

    task: str
    model: str
    trust: Trust
    reads: str


class CardInputs(_Part):
    """What a card is computed from; nothing in it is computed from private data outside the ledger.

    Attributes:
        run_id: a random id.
        guarantee: what the run promises.
        epsilon: of the choice with `selection`, of everything with `end-to-end`; None with `none`.
        delta: the user's, never computed from the data.
        n_candidates: K.
        has_units: whether the data named whom to protect.
        max_records: most records of a unit that are used; None where that is not bounded.
        n_units_bound: the user's bound on the number of units; None where not given.
        data_flow: which model read what.
        outside_budget: runs on these data, this one included, that no data budget covers; None where the
            data have no budget.
        public_inputs: where topics come from, with a checksum (`end-to-end`).
    """

    run_id: str
    guarantee: CardGuarantee
    epsilon: float | None
    delta: float
    n_candidates: int
    has_units: bool
    max_records: int | None = None
    n_units_bound: int | None = None
    data_flow: tuple[DataFlow, ...]
    outside_budget: int | None = None
    public_inputs: str = ""


class CardLine(_Part):
    """One release: what was drawn, and what it costs in words."""

    line: int
    release: str
    mechanism: str
    parameters: dict[str, JsonValue]
    events: tuple[dict[str, JsonValue], ...]
    cost: tuple[str, ...]
    note: str
    secure_noise: bool


class CardFigure(_Part):
    """A rounded-up privacy figure. `epsilon` is null where nothing finite holds."""

    relation: str
    units_that_differ: int
    epsilon: float | None
    delta: float
    accountant: str


class CardChoice(_Part):
    """The noisy choice among summaries (`selection`)."""

    mechanism: str
    epsilon: float
    relation: str
    n_candidates: int
    probability_of_best: float
    probability_of_best_blind: float
    in_words: str


class Card(_Part):
    """A run's privacy card."""

    schema_version: Literal[2] = 2
    statement: str
    inputs: CardInputs
    secure_noise: bool
    unit: str
    released_texts: str
    choice: CardChoice | None
    figures: tuple[CardFigure, ...] = Field(description="of the released texts as a whole")
    attacker: str
    releases: tuple[CardLine, ...]
    not_covered: tuple[str, ...]


# --- words ---------------------------------------------------------------------------------------


def statement(
    *,
    guarantee: CardGuarantee,
    epsilon: float | None,
    n_candidates: int,
    has_units: bool,
    figures: Sequence[CardFigure] = (),
    max_records: int | None = None,
) -> str:
    """Returns what a run in this mode may say of its privacy; every output begins with it.

    Raises:
        ConfigError: the guarantee is not one of these modes, or lacks its epsilon.
    """
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
            f"used; conditional on them the choice is {epsilon:g}-DP (pure, replace-one). This does not "
            f"limit what the summary, the rewrite, the vote or the filters reveal.{unit}"
        )
    if guarantee == "end-to-end" and len(figures) > 1 and figures[0].epsilon is not None:
        whole, replaced = figures[:2]
        whom = "record (not one person)"
        if has_units:
            whom = f"person with at most {max_records} records" if max_records else "person with all records"
        return (
            f"The complete set of released texts is (epsilon={whole.epsilon:g}, delta={whole.delta:g})-DP "
            f"with respect to adding or removing one {whom}; replace-one: epsilon={_epsilon(replaced)}. "
            "Model and prompts are public inputs; the guarantee does not cover what the public model already "
            "knew, nor metrics computed internally."
        )
    raise ConfigError(f"there is no statement for guarantee {guarantee!r} with epsilon {epsilon}")


def _epsilon(figure: CardFigure) -> str:
    return "none finite" if figure.epsilon is None else f"{figure.epsilon:g}"


def promise(epsilon: float | None, delta: float, events: Sequence[PrivacyEvent], *, has_units: bool) -> str:
    """Returns the statement of an end-to-end run before it begins."""
    figures = _figures_of(events, delta)
    return statement(
        guarantee="end-to-end", epsilon=epsilon, n_candidates=0, has_units=has_units, figures=figures
    )


def noise_in_words(*, epsilon: float, n_candidates: int) -> str:
    """Says how often the noisy choice keeps the best of K evenly spaced candidates."""
    best = permute_and_flip_best(epsilon, n_candidates)
    return (
        f"With {n_candidates} summaries of evenly spaced quality the noise keeps the best one with "
        f"probability {best:.2f}; a blind choice would with probability {1 / n_candidates:.2f}."
    )


def _attacker(inputs: CardInputs, figures: Sequence[CardFigure], events: Sequence[PrivacyEvent]) -> str:
    if inputs.guarantee == "end-to-end" and figures and figures[0].epsilon is not None:
        sure = posterior(figures[0].epsilon)
        rate = _true_positive(figures[0], events)
        return (
            "An attacker who thought it 50 % likely that a unit was in the data can become at most "
            f"{_percent(sure)} sure, but for an event of probability {figures[0].delta:g}. A test that "
            f"accuses 1 % of the units that were not in the data finds at most {_percent(rate)} of those "
            "that were."
        )
    if inputs.guarantee == "selection" and inputs.epsilon is not None:
        return (
            "Nothing bounds what an attacker learns from the released texts. From which summary was chosen, "
            "given all of them, an attacker at 50 % can become at most "
            f"{_percent(posterior(inputs.epsilon))} sure which of two records it was."
        )
    return "Nothing bounds what an attacker learns from the released texts."


def _true_positive(whole: CardFigure, events: Sequence[PrivacyEvent]) -> float:
    """The smaller of the bound that any (epsilon, delta) gives and the exact one of Gaussian releases."""
    bound = true_positive_bound(whole.epsilon or 0.0, whole.delta, false_positive=FALSE_POSITIVE)
    if not all(isinstance(event, GaussianEvent | DeltaEvent) for event in events):
        return bound
    mu = math.sqrt(sum(event.mu**2 for event in events if isinstance(event, GaussianEvent)))
    delta = sum(event.delta for event in events if isinstance(event, DeltaEvent))
    return min(bound, gaussian_true_positive(mu, delta, false_positive=FALSE_POSITIVE))


def _percent(share: float) -> str:
    return f"{100 * round_up(share, 3):.1f} %"


def _cost(event: PrivacyEvent, delta: float, *, conditional: bool) -> str:
    given = " if the items summed over did not depend on the data" if conditional else ""
    match event:
        case GaussianEvent():
            epsilon = round_up(gaussian_epsilon(event.mu, delta), 3)
            return (
                f"Gaussian noise, std {event.std:.4g}, L2 sensitivity {event.sensitivity_l2:g} "
                f"({event.relation}): epsilon {epsilon:g} at delta {delta:g}{given}"
            )
        case SampledGaussianEvent():
            return (
                f"{event.count} Gaussian sums over Poisson samples at rate {event.sampling_rate:g}, noise "
                f"multiplier {event.noise_multiplier:g} ({event.relation})"
            )
        case PureEvent():
            text = f"epsilon {event.epsilon:g}, pure ({event.relation})"
            return text + (", given the candidates" if conditional else "")
        case BoundedRangeEvent():
            text = f"bounded range {event.eta:g} ({event.relation})"
        case ZcdpEvent():
            text = f"rho {event.rho:g}, zCDP ({event.relation})"
        case DeltaEvent():
            text = f"delta {event.delta:g} ({event.relation})"
        case NonPrivateEvent():
            text = "no noise: epsilon infinite"
    return text


# --- building ------------------------------------------------------------------------------------


def build_card(inputs: CardInputs, lines: Sequence[LedgerLine]) -> Card:
    """Builds the card of a finished run.

    Args:
        inputs: settings and data flow.
        lines: the run's ledger.

    Returns:
        The card. It holds nothing computed from the private data outside the ledger.

    Raises:
        PrivacyError: an end-to-end run has a release without noise, or spent more than it promised.
    """
    secure = all(line.secure_noise for line in lines)
    figures = _figures(inputs, lines) if inputs.guarantee == "end-to-end" else ()
    text = statement(
        guarantee=inputs.guarantee,
        epsilon=inputs.epsilon,
        n_candidates=inputs.n_candidates,
        has_units=inputs.has_units,
        figures=figures,
        max_records=inputs.max_records,
    )
    if inputs.outside_budget:
        text += (
            f" Outside the data budget: {inputs.outside_budget} run(s) on these data were not charged to it."
        )
    finite = inputs.guarantee == "end-to-end"
    return Card(
        statement=text if secure else f"Not private: this run used fixed test noise. {text}",
        inputs=inputs,
        secure_noise=secure,
        unit=_unit(inputs),
        released_texts=(
            "protected as a whole: see figures"
            if finite
            else "no finite epsilon: the texts as a whole are not protected by noise"
        ),
        choice=_choice(inputs),
        figures=figures,
        attacker=_attacker(inputs, figures, [event for line in lines for event in line.events]),
        releases=tuple(_card_line(line, inputs) for line in lines),
        not_covered=(*_NOT_COVERED[inputs.guarantee], *_NEVER_COVERED),
    )


def _figures(inputs: CardInputs, lines: Sequence[LedgerLine]) -> tuple[CardFigure, ...]:
    events = [event for line in lines for event in line.events]
    if any(isinstance(event, NonPrivateEvent) for event in events):
        raise PrivacyError("a run with a release without noise cannot be called end-to-end")
    whole = compose(events, inputs.delta).epsilon
    if inputs.epsilon is None or whole > inputs.epsilon * (1 + 1e-9):
        raise PrivacyError(f"the ledger's lines cost epsilon {whole:.4g}; the run promised {inputs.epsilon}")
    return _figures_of(events, inputs.delta)


def _figures_of(events: Sequence[PrivacyEvent], delta: float) -> tuple[CardFigure, ...]:
    found = (
        compose(events, delta),
        compose(events, delta, relation=REPLACE),
        compose(events, delta, group=_GROUP),
    )
    return tuple(_card_figure(figure) for figure in found)


def _card_figure(figure: Figure) -> CardFigure:
    return CardFigure(
        relation=figure.relation,
        units_that_differ=figure.group,
        epsilon=None if math.isinf(figure.epsilon) else round_up(figure.epsilon, 3),
        delta=figure.delta,
        accountant=figure.accountant,
    )


def _unit(inputs: CardInputs) -> str:
    if not inputs.has_units:
        return "one record, not one person"
    if inputs.guarantee == "end-to-end":
        return "one person, as the unit column names them"
    return "one record; a person may own several"


def _choice(inputs: CardInputs) -> CardChoice | None:
    if inputs.guarantee != "selection" or inputs.epsilon is None:
        return None
    k, epsilon = inputs.n_candidates, inputs.epsilon
    return CardChoice(
        mechanism="permute-and-flip noisy max drawn through OpenDP",
        epsilon=epsilon,
        relation="replace one record, its summaries and the run's other randomness held fixed",
        n_candidates=k,
        probability_of_best=round(permute_and_flip_best(epsilon, k), 3),
        probability_of_best_blind=round(1 / k, 3),
        in_words=noise_in_words(epsilon=epsilon, n_candidates=k),
    )


def _card_line(line: LedgerLine, inputs: CardInputs) -> CardLine:
    conditional = inputs.guarantee != "end-to-end"
    return CardLine(
        line=line.line_id,
        release=line.label,
        mechanism=line.mechanism,
        parameters=line.parameters,
        events=tuple({"type": type(event).__name__, **asdict(event)} for event in line.events),
        cost=tuple(_cost(event, inputs.delta, conditional=conditional) for event in line.events),
        note=line.note,
        secure_noise=line.secure_noise,
    )
