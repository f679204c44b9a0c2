"""Opens the review of a finished run."""

from pathlib import Path

from rpsg.decisions import Trail
from rpsg.errors import ConfigError, RunDirError
from rpsg.privacy.shown import note_private_shown, private_was_shown
from rpsg.report.answers import holds_end_to_end
from rpsg.report.sources import read_released, read_texts
from rpsg.review.near import PrivateNeighbours
from rpsg.review.server import Review
from rpsg.rundir import RunDir


def open_review(folder: Path, *, public: bool) -> Review:
    """Reads a run's texts, and unless `public` the private ones; notes in the trail that a review began.

    Raises:
        RunDirError: there is no finished run, or its private part was removed.
        PrivacyError: its ledger was edited.
        ConfigError: the private texts are not where they were, or were changed.
    """
    run = RunDir.open(folder)
    if not run.private.is_dir():
        raise RunDirError(f"{folder}/private was removed: there is nothing to review with")
    released = read_released(run.release)
    neighbours = None
    if not public:
        corpus, why = read_texts(run, run.read_config())
        if corpus is None:
            raise ConfigError(
                f"the private texts cannot be shown: {why}; --public shows synthetic texts only"
            )
        neighbours = PrivateNeighbours.build(corpus)
    trail = Trail(run.private / "review.jsonl")
    if not public:
        note_private_shown(run.ledger)
    was_shown = private_was_shown(run.ledger)
    trail.open(shows_private=was_shown)
    return Review(
        texts={
            row["id"] or "": (
                row["text"] or "",
                {name: row[name] or "" for name in released.labels if row[name] is not None},
            )
            for row in released.rows
        },
        trail=trail,
        neighbours=neighbours,
        ends_guarantee=holds_end_to_end(released.card) and (was_shown or trail.saw_private),
    )
