"""Applies what a person decided: rejected texts leave the release, and the card says who chose."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rpsg.decisions import Trail, rejected_ids
from rpsg.errors import PrivacyError
from rpsg.privacy.card import build_card
from rpsg.privacy.card_file import read_card
from rpsg.privacy.card_model import Card, CardInputs, Reviewed
from rpsg.privacy.ledger import Ledger, read_run
from rpsg.privacy.seeds import read_released
from rpsg.privacy.shown import check_identity, private_was_shown
from rpsg.release import check_publishable, write_release
from rpsg.report.documents import Row
from rpsg.report.sources import read_rows
from rpsg.rundir import RunDir
from rpsg.types import SyntheticText

_FIXED = ("id", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of a release.

    Attributes:
        n_kept: texts in it now.
        n_rejected: texts that decisions keep out.
        changed: whether it was written anew.
        statement: what its card says now.
    """

    n_kept: int
    n_rejected: int
    changed: bool
    statement: str


def apply_review(folder: Path, *, end_guarantee: bool = False) -> Applied:
    """Writes the release without the texts that were rejected.

    Decisions depend on private text when any was on screen before; then they are a private filter, and a
    card that had a finite epsilon has none afterwards.

    Args:
        folder: a finished run.
        end_guarantee: apply also what takes the release its guarantee.

    Raises:
        RunDirError: there is no finished run, it holds planted canaries, or its private part was removed.
        PrivacyError: the guarantee would end and `end_guarantee` is not set, or the ledger is not the run's;
            nothing was changed.
    """
    run = RunDir.open(folder)
    check_publishable(run)
    with run.working():
        check_identity(run)
        card, _ = read_card(run.release / "privacy_card.json")
        lines, attested = read_run(run.ledger)
        # What the run was, its ledger says: an edited card would otherwise become a true one here.
        inputs = CardInputs.model_validate_json(json.dumps(attested))
        rows, trail = read_rows(run.release), Trail(run.private / "review.jsonl")
        out = rejected_ids(list(trail.current().values()))
        everything = _all_rows(run, rows)
        kept = [row for row in everything if row["id"] not in out]
        reviewed = _kind(trail, private_was_shown(run.ledger))
        # Compared with what is there, so that a release that was written anew meanwhile is reviewed again.
        wanted = build_card(inputs.model_copy(update={"reviewed": reviewed}), lines)
        if kept == rows and card == wanted and inputs.reviewed == reviewed:
            n_out = len(everything) - len(kept)
            return Applied(n_kept=len(kept), n_rejected=n_out, changed=False, statement=card.statement)
        if build_card(inputs, lines).figures and reviewed == "private" and not end_guarantee:
            raise PrivacyError(
                "private texts were on screen in a review of this run, so applying its decisions ends the "
                'guarantee: the card will say "No end-to-end differential privacy". Add --end-guarantee to '
                "apply them, or --no-review to leave the release as it is"
            )
        labels = [name for name in everything[0] if name not in _FIXED]
        card = _write(run, inputs.model_copy(update={"reviewed": reviewed}), kept, labels=labels)
        trail.note_applied()
    n_out = len(everything) - len(kept)
    return Applied(n_kept=len(kept), n_rejected=n_out, changed=True, statement=card.statement)


def _kind(trail: Trail, was_shown: bool) -> Reviewed:
    if not any(item.event == "decided" for item in trail.entries()):
        return "no"
    return "private" if was_shown or trail.saw_private else "public"


def _all_rows(run: RunDir, rows: Sequence[Row]) -> list[Row]:
    """Returns the rows as the ledger released them, so that a rejection can be taken back.

    Not as a file beside the release says: who takes a text out of that would choose, unseen by the card.
    """
    released = read_released(run.ledger)
    names = dict.fromkeys(name for row in rows[:1] for name in row if name not in _FIXED)
    names |= dict.fromkeys(name for _, labels in released.values() for name in labels)
    return [
        {"id": text_id, "text": text, **{name: labels.get(name) for name in names}}
        for text_id, (text, labels) in released.items()
    ]


def _write(run: RunDir, inputs: CardInputs, rows: Sequence[Row], *, labels: Sequence[str]) -> Card:
    with Ledger.open(run.ledger) as ledger:
        lines = ledger.lines()
        card = build_card(inputs, lines)
        ledger.attest(inputs.model_dump(mode="json"))
    paid_by = next(line.line_id for line in lines if line.label == "texts")
    texts = [
        SyntheticText(
            text_id=cast("str", row["id"]),
            text=cast("str", row["text"]),
            labels={name: value for name in labels if (value := row[name]) is not None},
            paid_by=paid_by,
        )
        for row in rows
    ]
    write_release(run, run.read_config(), card, texts, labels)
    return card
