"""Applies what a person decided: rejected texts leave the release, and the card says who chose."""

import json
from dataclasses import dataclass
from pathlib import Path

from rpsg.decisions import Trail, rejected_ids
from rpsg.errors import PrivacyError
from rpsg.privacy.card import build_card
from rpsg.privacy.card_file import read_card
from rpsg.privacy.card_model import CardInputs, Reviewed
from rpsg.privacy.ledger import Ledger, read_run
from rpsg.privacy.seeds import note_rejected, read_released
from rpsg.privacy.shown import check_identity, private_was_shown
from rpsg.release import check_publishable, find_changed_rows, write_release
from rpsg.rundir import RunDir
from rpsg.staging import put_back


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
    # Refused where the private part was removed, which holds the lock and the ledger.
    run.read_config()
    with run.working():
        put_back(run.release)
        check_publishable(run)
        check_identity(run)
        card, _ = read_card(run.release / "privacy_card.json")
        lines, attested = read_run(run.ledger)
        # What the run was, its ledger says: an edited card would otherwise become a true one here.
        inputs = CardInputs.model_validate_json(json.dumps(attested))
        trail, known = Trail(run.private / "review.jsonl"), read_released(run.ledger)
        out = rejected_ids(list(trail.current().values())) & {item.text_id for item in known.texts}
        kept = known.without(out)
        reviewed = _kind(trail, private_was_shown(run.ledger))
        # Compared with what is there, so that a release that was written anew meanwhile is reviewed again.
        wanted = build_card(inputs.model_copy(update={"reviewed": reviewed}), lines)
        is_written = out == known.rejected and not find_changed_rows(run, known, kept)
        if is_written and card == wanted and inputs.reviewed == reviewed:
            return Applied(n_kept=len(kept), n_rejected=len(out), changed=False, statement=card.statement)
        if build_card(inputs, lines).figures and reviewed == "private" and not end_guarantee:
            raise PrivacyError(
                "private texts were on screen in a review of this run, so applying its decisions ends the "
                'guarantee: the card will say "No end-to-end differential privacy". Add --end-guarantee to '
                "apply them, or --no-review to leave the release as it is"
            )
        with Ledger.open(run.ledger) as ledger:
            ledger.attest(wanted.inputs.model_dump(mode="json"))
            note_rejected(ledger, out)
        write_release(run, run.read_config(), wanted, kept, known.label_columns)
        trail.note_applied()
    return Applied(n_kept=len(kept), n_rejected=len(out), changed=True, statement=wanted.statement)


def _kind(trail: Trail, was_shown: bool) -> Reviewed:
    if not any(item.event == "decided" for item in trail.entries()):
        return "no"
    return "private" if was_shown or trail.saw_private else "public"
