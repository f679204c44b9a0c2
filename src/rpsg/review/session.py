"""Opens the review of a finished run."""

from collections.abc import Mapping
from pathlib import Path

from rpsg.decisions import Trail
from rpsg.errors import ConfigError, RunDirError
from rpsg.privacy.seeds import read_released as read_all_released
from rpsg.privacy.shown import check_identity, note_private_shown, private_was_shown
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
    check_identity(run)
    if not public:
        note_private_shown(run.ledger)
    trail.open(shows_private=private_was_shown(run.ledger))
    texts: dict[str, tuple[str, Mapping[str, str | None]]] = {
        row["id"] or "": (row["text"] or "", {name: row[name] for name in released.labels})
        for row in released.rows
    }
    # Those too that an earlier review took out, so that this can be taken back.
    known = read_all_released(run.ledger).texts
    texts |= {item.text_id: (item.text, item.labels) for item in known if item.text_id not in texts}
    return Review(
        texts={
            text_id: (text, {name: value for name, value in labels.items() if value is not None})
            for text_id, (text, labels) in texts.items()
        },
        trail=trail,
        neighbours=neighbours,
        has_guarantee=holds_end_to_end(released.card),
        was_shown=lambda: private_was_shown(run.ledger),
    )
