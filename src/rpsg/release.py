"""Writes what leaves the machine: the texts, the privacy card, the data card."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rpsg.config import RunConfig
from rpsg.data_card import render_data_card
from rpsg.endpoints import find_endpoint
from rpsg.errors import RunDirError
from rpsg.plan import Plan
from rpsg.privacy import card_file
from rpsg.privacy.card import build_card
from rpsg.privacy.card_model import Card, CardInputs, DataFlow
from rpsg.privacy.ledger import read_run
from rpsg.privacy.seeds import read_released
from rpsg.privacy.shown import check_identity, private_was_shown
from rpsg.result import RunResult
from rpsg.rundir import RunDir, write_text
from rpsg.session import Session
from rpsg.types import PrivateCorpus, SyntheticText, Trust
from rpsg.writers import RELEASED_COLUMNS, guard_formula, read_written, to_table, write_rows

# All that is ever written into release/.
_DATA = {"synthetic.jsonl", "synthetic.csv", "synthetic.parquet"}
_LEAVES = _DATA | {"privacy_card.json", "privacy_card.md", "README.md", "report.html"}
_SUMMARISE = ("rpsg", "rpsg-published")


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def trust(self) -> Trust: ...


def publish(
    session: Session,
    corpus: PrivateCorpus,
    sizes: Plan,
    texts: tuple[SyntheticText, ...],
    *,
    notes: Sequence[str],
) -> RunResult:
    """Writes `release/` and the private record of rejections; returns the result."""
    config, folder = session.config, session.folder
    inputs = CardInputs(
        run_id=folder.run_id,
        method=config.method,
        guarantee=config.guarantee,
        epsilon=config.epsilon,
        delta=config.delta,
        n_candidates=config.abstract.n_candidates,
        has_units=corpus.has_units,
        n_units_bound=config.n_units_bound,
        data_flow=tuple(data_flows(session)),
        outside_budget=session.n_outside,
        public_inputs=session.public_inputs,
        contains_canaries=folder.contains_canaries,
    )
    session.ledger.attest(inputs.model_dump(mode="json"))
    card = build_card(inputs, session.ledger.lines())
    write_release(folder, config, card, texts, corpus.label_columns)
    folder.write_private(
        "rejected",
        (
            {"item": item.item_id, "record": item.record_id, "stage": item.stage, "reason": item.reason}
            for item in session.rejected
        ),
    )
    folder.mark("released")
    result = RunResult(
        texts=texts,
        label_columns=corpus.label_columns,
        statement=card.statement,
        folder=folder.root,
        counts={
            **session.counts,
            "texts released": len(texts),
            "seconds": time.monotonic() - session.started,
        },
        rejected=Counter(f"{item.stage}: {item.reason}" for item in session.rejected),
        notes=(*notes, *corpus.warnings, *_missing(texts, sizes, session)),
        n_wanted=sizes.n_wanted,
    )
    folder.log("done", result.summary())
    return result


def write_release(
    folder: RunDir,
    config: RunConfig,
    card: Card,
    texts: Sequence[SyntheticText],
    label_columns: Sequence[str],
) -> None:
    """Writes `release/` in one step: texts, privacy card, data card.

    Raises:
        PrivateDataError: a text is not a released text.
    """
    table = to_table(texts, label_columns)
    files = [f"synthetic.{suffix}" for suffix in config.output.formats]

    def write_all(target: Path) -> None:
        for name in files:
            write_rows(table, target / name)

    # Whoever shares this machine may read a release, but not copies of private texts.
    is_copy = config.method == "copy"
    readme = _readme(config, card, n_texts=len(texts), has_labels=bool(label_columns))
    folder.write_release(
        texts,
        mode=0o700 if is_copy else 0o755,
        write_rows=write_all,
        documents={
            "privacy_card.json": card_file.to_json(card),
            "privacy_card.md": card_file.render_markdown(card),
            "README.md": readme,
        },
    )


def _readme(config: RunConfig, card: Card, *, n_texts: int, has_labels: bool) -> str:
    if config.method == "copy":
        return f"# Never publish this folder\n\n**{card.statement}**\n"
    return render_data_card(
        card,
        n_texts=n_texts,
        files=[f"synthetic.{suffix}" for suffix in config.output.formats],
        languages=config.models.languages,
        has_labels=has_labels,
    )


def write_readme(run: RunDir) -> None:
    """Writes the data card anew from the privacy card and the rows, before a release leaves.

    Raises:
        ConfigError: there is no privacy card.
    """
    card, _ = card_file.read_card(run.release / "privacy_card.json")
    rows = read_written(next(path for path in files_that_leave(run) if path.name in _DATA))
    has_labels = any(name not in RELEASED_COLUMNS for row in rows[:1] for name in row)
    readme = _readme(run.read_config(), card, n_texts=len(rows), has_labels=has_labels)
    write_text(run.release / "README.md", readme)


def check_publishable(run: RunDir) -> None:
    """Refuses to let a run's texts leave the machine where they must not.

    Raises:
        RunDirError: the run is not finished, its texts are copies of private ones, or canaries were planted
            in these.
    """
    if not run.is_done("released") or not run.release.is_dir():
        raise RunDirError(f"{run.root} is not finished; finish it with: rpsg resume {run.root}")
    if run.read_config().method == "copy":
        raise RunDirError(
            f"{run.root} holds copies of private texts (method: copy), which nobody may publish"
        )
    run.check_publishable()


def files_that_leave(run: RunDir) -> list[Path]:
    """Lists the files of a release, by name; hidden ones are none.

    Raises:
        RunDirError: something stands among them that this program did not write, or links elsewhere.
    """
    found = sorted(path for path in run.release.iterdir() if not path.name.startswith("."))
    for path in found:
        if path.name not in _LEAVES or path.is_symlink() or not path.is_file():
            raise RunDirError(
                f"{path} is no file that rpsg wrote, so nothing leaves: move it out of {run.release}"
            )
    return found


def find_changes(run: RunDir) -> list[str]:
    """Returns how a release differs from what the run wrote; empty if nowhere.

    The card must follow from its lines, and be that of this run; the rows must be the texts that the ledger
    released, as they were, each once and in that order. Texts may be missing where the card says that a
    review took them out; once private texts were shown in one, only where it says that this was a private
    choice.

    Raises:
        RunDirError: something stands among the files that this program did not write, or the ledger is gone.
        PrivacyError: the ledger was edited, or is an old copy.
    """
    files, card = files_that_leave(run), run.release / "privacy_card.json"
    check_identity(run)
    problems = card_file.check_card(card, ledger=read_run(run.ledger))
    known = read_released(run.ledger)
    inputs = card_file.read_card(card)[0].inputs
    if inputs.run_id != run.run_id:
        problems.append("inputs: the card is another run's")
    reviewed = inputs.reviewed
    may_miss = reviewed == "private" or (reviewed == "public" and not private_was_shown(run.ledger))
    for path in files:
        if path.name not in _DATA:
            continue
        rows = read_written(path)
        ids = [row.get("id") for row in rows]
        if ids != [text_id for text_id in known if text_id in set(ids)]:
            problems.append(f"{path.name}: rows are repeated, or stand in another order than was drawn")
        n_missing = len(known.keys() - set(ids))
        if n_missing and not may_miss:
            problems.append(
                f"{path.name}: {n_missing} texts are missing, and the card does not say who chose"
            )
        n_changed = sum(not _is_as_released(row, known, path.suffix) for row in rows)
        if n_changed:
            problems.append(f"{path.name}: {n_changed} rows are not as they were released")
    return problems


def _is_as_released(
    row: Mapping[str, str | None], known: Mapping[str, tuple[str, Mapping[str, str]]], suffix: str
) -> bool:
    text, labels = known.get(row.get("id") or "", ("", {}))

    def shown(value: str) -> str:
        return str(guard_formula(value)) if suffix == ".csv" else value

    expected = {"id": row.get("id"), "text": shown(text)}
    expected |= {shown(name): shown(value) for name, value in labels.items()}
    return bool(text) and {name: value for name, value in row.items() if value is not None} == expected


def data_flows(session: Session) -> list[DataFlow]:
    """Says which model read which kind of text."""
    models, config = session.models, session.config
    reads = "summaries of private texts, and texts written from them"
    embeds = finds = judges = "private and written texts"
    if config.guarantee == "end-to-end":
        reads = "noisy histograms of topics, phrases, labels, tones and lengths, and texts written from them"
        judges, finds = "private texts", "written texts"
    if config.method == "copy":
        reads = finds = judges = ""
        embeds = "private texts" if config.evaluate.enabled else ""
    if config.method == "augpe":
        reads = "public prompts, and texts written from them that the votes kept"
        finds, judges = "written texts", ""
    if config.method == "rupta":
        reads = "private texts, and rewrites of them"
        finds, judges = "private and written texts", ""
    if config.method == "dpsgd":
        reads = "private texts, to be trained on; then control codes of labels"
        finds, judges = "written texts", ""
        embeds = embeds if config.evaluate.enabled else ""
    if config.epsilon == 0:
        reads, judges = "public prompts and declared labels", ""
        # Without scores no model reads private text at all.
        embeds = embeds if config.evaluate.enabled else "written texts"
    abstract = config.models.abstract
    tasks: list[tuple[str, str, _Named | None, str | None]] = [
        ("summarise", "private texts" if config.method in _SUMMARISE else "", models.summariser, abstract),
        ("write", reads, models.writer, config.models.write),
        ("embed", embeds, models.embedder, config.models.embed),
        ("sentiment", judges, models.sentiment, config.models.sentiment),
        ("find personal details", finds, models.pii, None),
    ]
    return [
        DataFlow(task=task, model=model.name, trust=model.trust, reads=what, hosts=_hosts(config, name))
        for task, what, model, name in tasks
        if model is not None and what
    ]


def _hosts(config: RunConfig, name: str | None) -> tuple[str, ...]:
    endpoint = find_endpoint(name, config.endpoints) if name else None
    return endpoint.hosts if endpoint is not None else ()


def _missing(texts: Sequence[SyntheticText], sizes: Plan, session: Session) -> list[str]:
    n_missing = sizes.n_wanted - len(texts)
    if not n_missing:
        return []
    reasons = Counter(item.reason for item in session.rejected if item.stage == "refine").most_common(3)
    why = ", ".join(f"{reason} {count}" for reason, count in reasons) or "no usable summaries"
    return [
        f"{n_missing} of {sizes.n_wanted} texts are missing after {session.config.refine.refill_rounds} "
        f"refill rounds; most frequent reasons: {why}. Ask for fewer texts, or raise refine.refill_rounds"
    ]
