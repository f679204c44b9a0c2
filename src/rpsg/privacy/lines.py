"""A line of the ledger: what was released, without the value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from rpsg.privacy.events import EVENT_TYPES, PrivacyEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """What was released, without the value.

    Attributes:
        line_id: position in the ledger.
        label: the release's name, unique in the run.
        mechanism: class name of the mechanism.
        parameters: its public parameters.
        events: what it cost.
        note: what a reader must know about this line.
        secure_noise: whether the noise came from the secure source.
    """

    line_id: int
    label: str
    mechanism: str
    parameters: dict[str, object]
    events: tuple[PrivacyEvent, ...]
    note: str
    secure_noise: bool


def line_of(number: int, label: str, body: Mapping[str, object]) -> LedgerLine:
    """Makes a line of an entry's body."""
    events = cast("list[tuple[str, dict[str, object]]]", body["events"])
    return LedgerLine(
        line_id=number,
        label=label,
        mechanism=str(body["mechanism"]),
        parameters=cast("dict[str, object]", body["parameters"]),
        events=tuple(EVENT_TYPES[kind](**values) for kind, values in events),  # type: ignore[arg-type]
        note=str(body["note"]),
        secure_noise=bool(body["secure_noise"]),
    )
