"""A line of the ledger: what was released, without the value."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from rpsg.errors import PrivacyError
from rpsg.privacy.events import EVENT_TYPES, PrivacyEvent
from rpsg.privacy.hashes import texts_hash
from rpsg.privacy.mechanisms import Mechanism, describe

Value = TypeVar("Value")


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


def body_of(
    mechanism: Mechanism[Value], *, note: str, secure: bool, of: Sequence[str] = ()
) -> dict[str, object]:
    """Makes the body of an entry: all that is kept of a release but the value.

    Args:
        mechanism: what draws the value.
        note: what a reader must know about the line.
        secure: whether the noise comes from the secure source.
        of: what the places of the value stand for; a hash of it is kept.
    """
    return {
        "mechanism": type(mechanism).__name__,
        "parameters": describe(mechanism),
        "events": [[type(event).__name__, describe(event)] for event in mechanism.events],
        "note": note,
        "of": texts_hash(of) if of else None,
        "secure_noise": secure,
        "time": time.time(),
    }


def require_same(label: str, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Refuses to take what was released for another release of the same name.

    Raises:
        PrivacyError: mechanism, parameters or the texts that it was about differ.
    """
    if any(before[name] != now[name] for name in ("mechanism", "parameters")):
        raise PrivacyError(f"{label!r} was released before with other parameters; start a new run folder")
    # Entries of before 2026-12-01 name no texts: of such a vote nobody can tell what it was about.
    if before.get("of") != now["of"]:
        raise PrivacyError(
            f"{label!r} was released before, of other texts than this run has now: another version or "
            "machine began it, or its calls are gone. Resume it where it began, or start a new run folder"
        )


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
