"""The privacy card: what protects the private texts, in words that follow from the ledger.

A card holds its inputs (settings and ledger lines) and what follows from them. `build_card` computes
the second from the first, so a card can be checked by building it again.
"""

import math
from collections.abc import Mapping, Sequence

from rpsg.errors import PrivacyError
from rpsg.method_config import MethodName
from rpsg.privacy.accounting import Figure, compose, round_up
from rpsg.privacy.card_methods import check_method, not_covered, what_an_attacker_can, what_is_released
from rpsg.privacy.card_model import Card, CardChoice, CardFigure, CardInputs, CardLine, Reviewed
from rpsg.privacy.card_words import (
    attacker_in_words,
    canaries_in_words,
    cost_in_words,
    noise_in_words,
    outside_in_words,
    reviewed_statement,
    statement,
)
from rpsg.privacy.choice import permute_and_flip_best
from rpsg.privacy.events import REPLACE, NonPrivateEvent, PrivacyEvent
from rpsg.privacy.lines import LedgerLine
from rpsg.privacy.mechanisms import describe

# Labels of the ledger lines that choose summaries begin so.
CHOICE = "choice of summaries"
# A family or a small team: how far the guarantee reaches for people who are in the data together.
_GROUP = 5
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
_REVIEW: Mapping[Reviewed, tuple[str, ...]] = {
    "no": (),
    "public": ("what the person who took texts out knew of the private ones; none was on screen",),
    "private": ("which texts a person took out after reading private ones",),
}
_NEVER_COVERED = (
    "what the public models learnt in their own training",
    "figures and files in the private part of the run folder",
    "how long the run took",
)


def build_card(inputs: CardInputs, lines: Sequence[LedgerLine]) -> Card:
    """Builds the card of a finished run.

    Args:
        inputs: settings and data flow.
        lines: the run's ledger.

    Returns:
        The card. It holds nothing computed from the private data outside the ledger.

    Raises:
        PrivacyError: the lines are not those of a run with these inputs, for example an end-to-end run with
            a release without noise, or one that spent more than it promised.
    """
    _check_lines(inputs, lines)
    secure = all(line.secure_noise for line in lines)
    finite = inputs.guarantee == "end-to-end"
    figures = _figures(inputs, lines) if finite else ()
    if finite and inputs.reviewed == "private":
        finite, figures, text = False, (), reviewed_statement()
    else:
        text = statement(
            guarantee=inputs.guarantee,
            epsilon=inputs.epsilon,
            n_candidates=inputs.n_candidates,
            has_units=inputs.has_units,
            figures=figures,
            max_records=inputs.max_records,
            method=inputs.method,
        )
    if inputs.outside_budget:
        text += outside_in_words(inputs.outside_budget)
    if inputs.contains_canaries:
        text += canaries_in_words()
    events = [event for line in lines for event in line.events]
    return Card(
        statement=text if secure else f"Not private: this run used fixed test noise. {text}",
        inputs=inputs,
        secure_noise=secure,
        unit=_unit(inputs),
        released_texts=what_is_released(
            inputs,
            "protected as a whole: see figures"
            if finite
            else "no finite epsilon: the texts as a whole are not protected by noise",
        ),
        choice=_choice(inputs),
        figures=figures,
        attacker=what_an_attacker_can(inputs, attacker_in_words(inputs, figures, events)),
        releases=tuple(_card_line(line, inputs) for line in lines),
        not_covered=(
            *not_covered(inputs, _NOT_COVERED[inputs.guarantee]),
            *_REVIEW[inputs.reviewed],
            *_NEVER_COVERED,
        ),
    )


def promise(
    epsilon: float | None,
    delta: float,
    events: Sequence[PrivacyEvent],
    *,
    has_units: bool,
    outside_budget: bool = False,
    method: MethodName = "rpsg",
) -> str:
    """Returns the statement of an end-to-end run before it begins."""
    figures = _figures_of(events, delta)
    text = statement(
        guarantee="end-to-end",
        epsilon=epsilon,
        n_candidates=0,
        has_units=has_units,
        figures=figures,
        method=method,
    )
    return text + (outside_in_words(1) if outside_budget and events else "")


def _check_lines(inputs: CardInputs, lines: Sequence[LedgerLine]) -> None:
    check_method(inputs, lines)
    if inputs.n_units_bound is not None and inputs.delta * inputs.n_units_bound >= 1:
        raise PrivacyError("delta is not below 1 over the bound on the number of units")
    if inputs.guarantee == "none" and inputs.epsilon is not None:
        raise PrivacyError("a run without noise has no epsilon")
    if inputs.guarantee == "end-to-end" and not lines:
        raise PrivacyError("an end-to-end run has releases, and the ledger has no line")
    choices = [line for line in lines if str(line.label).startswith(CHOICE)]
    if inputs.guarantee == "selection":
        promised = {"epsilon": inputs.epsilon, "n_candidates": inputs.n_candidates}
        drawn = [line.parameters for line in choices if line.mechanism == "NoisyMax"]
        if len(drawn) != len(choices) or not drawn or any(item != promised for item in drawn):
            raise PrivacyError("the choices on the ledger are not those that the run promised")


def event_values(event: PrivacyEvent) -> dict[str, object]:
    """Returns an event as plain values."""
    return {"type": type(event).__name__, **describe(event)}


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
    if inputs.guarantee == "none":
        return "none: nobody is protected by noise"
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
        events=tuple(event_values(event) for event in line.events),
        cost=tuple(cost_in_words(event, inputs.delta, conditional=conditional) for event in line.events),
        note=line.note,
        secure_noise=line.secure_noise,
    )
