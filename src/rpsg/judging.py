"""The end of a run: its texts are judged, for the person who ran it only."""

from collections.abc import Sequence
from dataclasses import replace

from rpsg.errors import RpsgError
from rpsg.evaluate.resampling import MIN_ROWS
from rpsg.evaluate.run import evaluate_run
from rpsg.result import RunResult
from rpsg.scores import TextSample
from rpsg.session import Session
from rpsg.stored import take
from rpsg.types import PrivateRecord, SyntheticText

# Real texts that are compared with; more would cost time and memory, and narrow no interval much.
MOST_REAL = 5000


def judge(
    session: Session,
    result: RunResult,
    *,
    real: Sequence[PrivateRecord],
    holdout: Sequence[PrivateRecord],
) -> RunResult:
    """Scores a release into `private/scores`: the figures read private texts without noise.

    The release is written before and is not changed; nor does the run fail where there is nothing to score.

    Args:
        session: the open run.
        result: the finished run.
        real: private records that the texts were made from.
        holdout: records to compare these with; what they get is the reference. They never seed in the modes
            with summaries; in an end-to-end run they are a random part of the data, counted and voting too.

    Returns:
        The result, with a note on where the scores are or why there are none.
    """
    settings = session.config.evaluate
    if not settings.enabled:
        return result
    n_least = min(len(real), len(holdout), len(result.texts))
    if n_least < MIN_ROWS:
        note = f"no scores: they need {MIN_ROWS} real, held-out and released texts each"
        return _noted(result, note)
    session.tell("scores", 0, 1)
    if len(real) > MOST_REAL:
        rows = session.streams.get("scores").choice(len(real), size=MOST_REAL, replace=False)
        real = list(take(real, sorted(rows.tolist())))
    labels = _comparable(result, real, holdout)
    samples = {
        "real": _private_sample(session, real, labels),
        "holdout": _private_sample(session, holdout, labels),
        "synthetic": _released_sample(session, result.texts, labels),
    }
    try:
        evaluate_run(
            result.folder,
            samples,
            embedder=session.models.embedder,
            labels=labels,
            language_model=settings.language_model,
            seed=session.config.seed,
        )
    except RpsgError as error:
        return _noted(result, f"no scores (read from your data): {error}")
    # The map shows no more texts than that; the order of released ones is a random one.
    session.folder.write_vectors(
        {role: found.vectors[:MOST_REAL] for role, found in samples.items() if found.vectors is not None},
        ids=[item.text_id for item in result.texts[:MOST_REAL]],
    )
    session.tell("scores", 1, 1)
    where = result.folder / "private" / "scores" / "metrics.json"
    return _noted(result, f"scores of the release, computed from private texts, are in {where}")


def _comparable(result: RunResult, *private: Sequence[PrivateRecord]) -> list[str]:
    """Returns the label columns in which released texts have values that each private part has too."""

    def values(name: str, items: Sequence[PrivateRecord | SyntheticText]) -> set[str | None]:
        return {item.labels.get(name) for item in items}

    return [
        name
        for name in result.label_columns
        if all(values(name, result.texts) & values(name, part) for part in private)
    ]


def _noted(result: RunResult, note: str) -> RunResult:
    return replace(result, notes=(*result.notes, note))


def _private_sample(session: Session, records: Sequence[PrivateRecord], labels: Sequence[str]) -> TextSample:
    return TextSample(
        texts=tuple(record.text for record in records),
        labels={name: tuple(record.labels.get(name, "") for record in records) for name in labels},
        vectors=session.embed_records(records).read(),
        embedder=session.models.embedder.name,
    )


def _released_sample(session: Session, texts: Sequence[SyntheticText], labels: Sequence[str]) -> TextSample:
    return TextSample(
        texts=tuple(item.text for item in texts),
        labels={name: tuple(item.labels.get(name, "") for item in texts) for name in labels},
        vectors=session.models.embedder.embed([item.text for item in texts]),
        embedder=session.models.embedder.name,
    )
