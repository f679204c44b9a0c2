"""The privacy card: what protects the private texts, in words that follow from the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rpsg.errors import ConfigError
from rpsg.privacy.accounting import (
    GaussianEvent,
    NonPrivateEvent,
    PrivacyEvent,
    PureEvent,
    gaussian_epsilon,
    permute_and_flip_best,
    round_up,
)
from rpsg.privacy.ledger import LedgerLine
from rpsg.types import Guarantee, Trust

SCHEMA_VERSION = 1
_NOT_COVERED = (
    "what a summary says of its private text",
    "what the writing model repeats of a summary",
    "the vote and the filters, which read the private texts",
    "what the public models learnt in their own training",
    "figures and files in the private part of the run folder",
    "how long the run took",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFlow:
    """Which model read which kind of text, and where it ran."""

    task: str
    model: str
    trust: Trust
    reads: str


def statement(*, guarantee: Guarantee, epsilon: float | None, n_candidates: int, has_units: bool) -> str:
    """Returns what a run in this mode may say of its privacy; every output begins with it.

    Raises:
        ConfigError: the guarantee is not one of these modes.
    """
    if guarantee == "none":
        return (
            "No differential privacy of any kind. Each output is an LLM rewrite of a summary of one "
            "private record; no noise was used."
        )
    if guarantee != "selection" or epsilon is None:
        raise ConfigError(f"there is no statement for guarantee {guarantee!r} with epsilon {epsilon}")
    unit = (
        " The unit is one record: for a person with m records in use it is m times this epsilon."
        if has_units
        else " The unit is one record, not one person."
    )
    return (
        "No end-to-end differential privacy. Each output is an LLM rewrite of an automatically written "
        f"summary of one private record. Noise chooses which of at most {n_candidates} summaries is used; "
        f"conditional on them the choice is {epsilon:g}-DP (pure, replace-one). This does not limit what "
        f"the summary, the rewrite, the vote or the filters reveal.{unit}"
    )


def noise_in_words(*, epsilon: float, n_candidates: int) -> str:
    """Says how often the noisy choice keeps the best of K evenly spaced candidates."""
    best = permute_and_flip_best(epsilon, n_candidates)
    return (
        f"With {n_candidates} summaries of evenly spaced quality the noise keeps the best one with "
        f"probability {best:.2f}; a blind choice would with probability {1 / n_candidates:.2f}."
    )


def build_card(
    *,
    guarantee: Guarantee,
    epsilon: float | None,
    delta: float,
    n_candidates: int,
    has_units: bool,
    lines: Sequence[LedgerLine],
    flows: Sequence[DataFlow],
    run_id: str,
) -> dict[str, object]:
    """Builds the card of a finished run.

    Args:
        guarantee: `none` or `selection`.
        epsilon: of the choice; None with `none`.
        delta: at which the vote's noise was calibrated.
        n_candidates: K.
        has_units: whether the data named the person to protect.
        lines: the run's ledger.
        flows: which model read what.
        run_id: a random id.

    Returns:
        Plain values, ready for JSON. It holds nothing computed from the private data.
    """
    secure = all(line.secure_noise for line in lines)
    text = statement(guarantee=guarantee, epsilon=epsilon, n_candidates=n_candidates, has_units=has_units)
    card: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "statement": text if secure else f"Not private: this run used fixed test noise. {text}",
        "guarantee": guarantee,
        "secure_noise": secure,
        "unit": "one record; a person may own several" if has_units else "one record, not one person",
        "released_texts": "no finite epsilon: the texts as a whole are not protected by noise",
        "releases": [_line(line, delta) for line in lines],
        "data_flow": [asdict(flow) for flow in flows],
        "not_covered": list(_NOT_COVERED),
    }
    if guarantee == "selection" and epsilon is not None:
        card["choice"] = {
            "mechanism": "permute-and-flip noisy max drawn through OpenDP",
            "epsilon": epsilon,
            "relation": "replace one record, its summaries and the run's other randomness held fixed",
            "n_candidates": n_candidates,
            "probability_of_best": round(permute_and_flip_best(epsilon, n_candidates), 3),
            "probability_of_best_blind": round(1 / n_candidates, 3),
            "in_words": noise_in_words(epsilon=epsilon, n_candidates=n_candidates),
        }
    return card


def _line(line: LedgerLine, delta: float) -> dict[str, object]:
    return {
        "line": line.line_id,
        "release": line.label,
        "mechanism": line.mechanism,
        "parameters": line.parameters,
        "cost": [_cost(event, delta) for event in line.events],
        "note": line.note,
        "secure_noise": line.secure_noise,
    }


def _cost(event: PrivacyEvent, delta: float) -> str:
    match event:
        case GaussianEvent():
            epsilon = round_up(gaussian_epsilon(event.mu, delta), 3)
            return (
                f"Gaussian noise, std {event.std:.4g}, L2 sensitivity {event.sensitivity_l2:g} "
                f"({event.relation}): epsilon {epsilon:g} at delta {delta:g} if the items voted on "
                "did not depend on the data"
            )
        case PureEvent():
            return f"epsilon {event.epsilon:g}, pure ({event.relation}), given the candidates"
        case NonPrivateEvent():
            return "no noise: epsilon infinite"


def render_markdown(card: Mapping[str, object]) -> str:
    """Returns the card as a page for people."""
    parts = [f"# Privacy card\n\n**{card['statement']}**\n"]
    choice = card.get("choice")
    if isinstance(choice, Mapping):
        parts.append(f"{choice['in_words']} The draw: {choice['mechanism']}.\n")
    parts.append(
        f"- Unit: {card['unit']}\n- Released texts: {card['released_texts']}\n- Run: {card['run_id']}\n"
    )
    parts.append("## Every release of this run\n")
    parts.append("| line | what | mechanism | cost | note |\n|---|---|---|---|---|")
    for line in _rows(card, "releases"):
        costs = "; ".join(str(cost) for cost in _list(line["cost"]))
        parts.append(
            f"| {line['line']} | {line['release']} | {line['mechanism']} | {costs} | {line['note']} |"
        )
    parts.append("\n## Which model read what\n\n| task | model | runs | reads |\n|---|---|---|---|")
    parts += [
        f"| {flow['task']} | {flow['model']} | {flow['trust']} | {flow['reads']} |"
        for flow in _rows(card, "data_flow")
    ]
    parts.append("\n## Not covered\n")
    parts += [f"- {item}" for item in _list(card["not_covered"])]
    return "\n".join(parts) + "\n"


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _rows(card: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    return [row for row in _list(card[name]) if isinstance(row, Mapping)]
