"""Whether private text was on screen while texts of a run were chosen: a line of its ledger."""

from pathlib import Path

from rpsg.privacy.ledger import Ledger, read_run

_LABEL = "review"


def note_private_shown(ledger: Path) -> None:
    """Puts into a run's ledger, before any private text is shown, that a review shows it.

    Unlike a trail of decisions, the ledger is chained and its head is kept elsewhere: who removes the line
    is found out.

    Raises:
        RunDirError: there is no ledger.
        PrivacyError: the ledger was edited.
    """
    read_run(ledger)
    with Ledger.open(ledger) as opened:
        opened.attest({"saw_private": True}, _LABEL)


def private_was_shown(ledger: Path) -> bool:
    """Says whether private text was on screen in any review of a run, by its ledger.

    Raises:
        RunDirError: there is no ledger.
        PrivacyError: the ledger was edited.
    """
    read_run(ledger)
    with Ledger.open(ledger) as opened:
        return opened.attested(_LABEL) is not None
