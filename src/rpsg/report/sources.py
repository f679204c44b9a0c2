"""Reads what a report is drawn from: release/ alone for the one that leaves, all of a run for the other."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from rpsg.config import RunConfig
from rpsg.data import fingerprint, read_corpus
from rpsg.errors import RpsgError, RunDirError
from rpsg.report.documents import LEAK, Audit, Card, Finding, Metrics, Row, Summary
from rpsg.rundir import RunDir
from rpsg.runstate import RunState, read_state
from rpsg.text import digest_of
from rpsg.types import FloatArray, PrivateCorpus
from rpsg.writers import read_written

# Columns of a released row that are no labels.
_FIXED = ("id", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What is in release/: nothing else goes into the report that leaves.

    Attributes:
        card: privacy_card.json.
        rows: the released texts, in their order.
    """

    card: Card
    rows: tuple[Row, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The label columns."""
        return tuple(name for name in (self.rows[0] if self.rows else ()) if name not in _FIXED)

    def texts(self) -> list[str]:
        """Returns the texts alone."""
        return [row["text"] or "" for row in self.rows]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Vectors:
    """Embeddings that a run kept: one row a text, shape (n, d); `ids` name the synthetic ones."""

    real: FloatArray
    synthetic: FloatArray
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateSources:
    """All of a run. The private texts themselves are read for counts and for the map, and never shown.

    Attributes:
        released: what is in release/.
        name: of the run folder.
        config: its configuration.
        state: calls, tokens, cost.
        summary: counts, rejections and notes; None for a run without its last event.
        metrics: scores; None where there are none of these texts.
        audit: None where these texts were not audited.
        vectors: embeddings; None where none were kept.
        private_corpus: the private texts; None where their file is gone or has changed.
        private_note: why it is None.
        faults: what is wrong with card and rows; empty where they are as the run wrote them.
        stale: "scores" and "audit" where these are of other texts than are released now.
    """

    released: Released
    name: str
    config: RunConfig
    state: RunState
    summary: Summary | None
    metrics: Metrics | None
    audit: Audit | None
    vectors: Vectors | None
    private_corpus: PrivateCorpus | None
    private_note: str = ""
    faults: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


def read_released(folder: Path) -> Released:
    """Reads a release.

    Raises:
        RunDirError: it is not there, or not as this version writes it.
    """
    card_file = folder / "privacy_card.json"
    try:
        card = cast("Card", json.loads(card_file.read_text(encoding="utf-8")))
        missing = Card.__required_keys__ - card.keys()
        if missing:
            raise ValueError
        return Released(card=card, rows=tuple(read_rows(folder)))
    except OSError:
        raise RunDirError(
            f"{folder} is not written yet; finish the run with: rpsg resume {folder.parent}"
        ) from None
    except (ValueError, AttributeError, TypeError):
        raise RunDirError(
            f"{folder} is not as this version of rpsg writes it; write it anew with: "
            f"rpsg release {folder.parent}"
        ) from None


def read_rows(folder: Path) -> list[Row]:
    """Reads the rows of a release, from whichever of its files holds them unchanged."""
    found = (folder / f"synthetic.{kind}" for kind in ("jsonl", "parquet", "csv"))
    return read_written(next((path for path in found if path.exists()), folder / "synthetic.csv"))


def read_private(folder: Path) -> PrivateSources:
    """Reads a run, and its private texts where their file is still as the run read it.

    Raises:
        RunDirError: there is no finished run, or its private part was removed.
    """
    run = RunDir.open(folder)
    config = run.read_config()
    corpus, note = read_texts(run, config)
    summary = cast("Summary | None", _last_summary(run.private / "events.jsonl"))
    released = read_released(run.release)
    metrics = _read_json(run.private / "scores" / "metrics.json")
    audit = _read_audit(run.private / "audit" / "audit.json")
    stale = {
        name: _is_stale(found, released)
        for name, found in (("scores", metrics), ("audit", cast("Mapping[str, object] | None", audit)))
    }
    return PrivateSources(
        released=released,
        faults=_check_release(run),
        stale=tuple(name for name, is_old in stale.items() if is_old),
        name=folder.resolve().name,
        config=config,
        state=read_state(folder),
        summary=summary,
        metrics=None if stale["scores"] else cast("Metrics | None", metrics),
        audit=None if stale["audit"] else audit,
        vectors=_read_vectors(run.private / "scores" / "vectors.npz"),
        private_corpus=corpus,
        private_note=note,
    )


def read_texts(run: RunDir, config: RunConfig) -> tuple[PrivateCorpus | None, str]:
    """Reads the private texts again; where they are not what the run read: None, and why."""
    source = config.data
    if source.path is None:
        return None, "the run was given its texts in memory"
    try:
        corpus = read_corpus(
            Path(source.path),
            text_column=source.text_column,
            label_columns=source.label_columns,
            unit_column=source.unit_column,
            id_column=source.id_column,
            min_words=source.min_words,
        )
    except RpsgError:
        return None, "their file is not where it was"
    known = _read_json(run.private / "data.json") or {}
    if known.get("fingerprint") != fingerprint(corpus):
        return None, "their file was changed since the run"
    return corpus, ""


def _read_json(path: Path) -> dict[str, object] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise RunDirError(f"{path} cannot be read; remove it, or write it again") from None
    if not isinstance(found, dict):
        raise RunDirError(f"{path} holds no JSON object; remove it, or write it again")
    return found


def _check_release(run: RunDir) -> tuple[str, ...]:
    """Returns what is wrong with card and rows, by the run's own ledger: edited, thinned, another run's."""
    from rpsg.release import find_changes

    try:
        return tuple(find_changes(run))
    except RpsgError as error:
        return (str(error),)


def _is_stale(found: Mapping[str, object] | None, released: Released) -> bool:
    """Whether figures are of other texts: a review took some out since, or put some back."""
    return found is not None and found.get("texts_digest") != digest_of(released.texts())


def refuse_leak(run: RunDir) -> None:
    """Refuses to let out texts that an audit found a leak in.

    Raises:
        RunDirError: it did, or the release or the audit is not as this version writes it.
    """
    audit = _read_audit(run.private / "audit" / "audit.json")
    if audit is None or _is_stale(cast("Mapping[str, object]", audit), read_released(run.release)):
        return
    if audit["verdict"] == LEAK or any(item["is_leak"] for item in audit["findings"]):
        raise RunDirError(
            f"an audit of these texts found a leak, so they stay here; {run.private / 'report.html'} says "
            "what leaked. To let them out all the same, add --despite-leak"
        )


def _read_audit(path: Path) -> Audit | None:
    found = _read_json(path)
    if found is None:
        return None
    findings = found.get("findings")
    if not isinstance(found.get("verdict"), str) or not isinstance(findings, list):
        raise RunDirError(f"{path} is not as this version of rpsg writes it; audit anew")
    if any(not isinstance(item, dict) or Finding.__required_keys__ - item.keys() for item in findings):
        raise RunDirError(f"{path} holds a finding that this version of rpsg does not write; audit anew")
    return cast("Audit", found)


def _last_summary(path: Path) -> dict[str, object] | None:
    if not path.exists():
        return None
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    done = [item for item in found if item.get("event") == "done"]
    return cast("dict[str, object]", done[-1]) if done else None


def _read_vectors(path: Path) -> Vectors | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as stored:
        real = np.concatenate([stored["real"], stored["holdout"]]).astype(np.float32)
        synthetic = stored["synthetic"].astype(np.float32)
        return Vectors(real=real, synthetic=synthetic, ids=tuple(stored["ids"].tolist()))
