"""Whether private text was on screen while texts of a run were chosen: a line of its ledger."""

from pathlib import Path

from rpsg.errors import RunDirError
from rpsg.privacy.ledger import Ledger
from rpsg.rundir import RunDir

_LABEL = "review"


def note_private_shown(ledger: Path) -> None:
    """Puts into a run's ledger, before any private text is shown, that a review shows it.

    Unlike a trail of decisions, the ledger is chained and its head is kept elsewhere: who removes the line
    is found out.

    Raises:
        RunDirError: there is no ledger.
        PrivacyError: the ledger was edited.
    """
    with _open(ledger) as opened:
        opened.attest({"saw_private": True}, _LABEL)


def private_was_shown(ledger: Path) -> bool:
    """Says whether private text was on screen in any review of a run, by its ledger.

    Raises:
        RunDirError: there is no ledger.
        PrivacyError: the ledger was edited.
    """
    with _open(ledger) as opened:
        return opened.attested(_LABEL) is not None


def check_identity(run: RunDir) -> None:
    """Refuses a ledger that is not the one the run was begun with, by what is kept outside the run folder.

    The ledger's own head is kept under a name that stands in the ledger: who writes a whole new chain could
    choose another. The run's id stands in its manifest and on its card as well.

    Raises:
        RunDirError: there is no ledger.
        PrivacyError: the run had another ledger, this one was cut, or the run's configuration was edited.
    """
    with _open(run.ledger, run.binding) as opened:
        opened.keep_identity(run.run_id)


def _open(ledger: Path, binding: str = "") -> Ledger:
    # Opening makes a ledger where there is none, and a new one would know of nothing.
    if not ledger.exists():
        raise RunDirError(f"{ledger} was removed: nothing says any more how this run's texts came about")
    return Ledger.open(ledger, binding=binding)
