"""Writes what leaves the machine: the texts, the privacy card, the data card."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from rpsg.config import RunConfig
from rpsg.data_card import render_data_card
from rpsg.endpoints import find_endpoint
from rpsg.errors import RunDirError
from rpsg.exchange import was_in_bucket
from rpsg.plan import Plan
from rpsg.privacy import card_file
from rpsg.privacy.card import build_card
from rpsg.privacy.card_model import Card, CardInputs, DataFlow
from rpsg.privacy.ledger import read_run
from rpsg.privacy.seeds import ReleasedTexts, note_columns, note_rejected, read_released
from rpsg.privacy.shown import check_identity
from rpsg.result import RunResult
from rpsg.rundir import RunDir, write_text
from rpsg.session import Session
from rpsg.types import PrivateCorpus, SyntheticText, Trust
from rpsg.writers import to_table, write_rows

# All that is ever written into release/.
_DATA = {"synthetic.jsonl", "synthetic.csv", "synthetic.parquet"}
_LEAVES = _DATA | {"privacy_card.json", "privacy_card.md", "README.md", "report.html"}
# A label that would have had so many texts by its share of the data, and has none, is named.
_LOST_FROM = 2.0
# A task of the card that no model has.
IN_BUCKET = "keep chunks"
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
    note_columns(session.ledger, corpus.label_columns)
    # Everything again: what a review of this run took out, it takes out anew when it is applied.
    note_rejected(session.ledger, ())
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
        notes=(*notes, *corpus.warnings, *_missing(texts, sizes, session), *_lost_labels(corpus, texts)),
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

    def write_all(target: Path) -> None:
        for name in _row_files(config):
            write_rows(table, target / name)

    packed(folder).unlink(missing_ok=True)
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
        files=_row_files(config),
        languages=config.models.languages,
        has_labels=has_labels,
    )


def packed(run: RunDir) -> Path:
    """Returns where a release is packed; a zip there is of the release as it stands."""
    return run.root / f"rpsg-{run.run_id}.zip"


def _row_files(config: RunConfig) -> list[str]:
    return [f"synthetic.{suffix}" for suffix in config.output.formats]


def write_readme(run: RunDir) -> None:
    """Writes the data card anew from the privacy card and the ledger, before a release leaves.

    Raises:
        ConfigError: there is no privacy card.
    """
    card, _ = card_file.read_card(run.release / "privacy_card.json")
    known = read_released(run.ledger)
    n_texts, has_labels = len(known.without(known.rejected)), bool(known.label_columns)
    readme = _readme(run.read_config(), card, n_texts=n_texts, has_labels=has_labels)
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

    The card must follow from its lines, and be that of this run. Every file of rows must hold, byte for byte,
    what the ledger released, in that order, without the texts that a review took out when it was applied.

    Raises:
        RunDirError: something stands among the files that this program did not write, or the ledger is gone.
        PrivacyError: the ledger was edited, or is an old copy.
    """
    files, card = files_that_leave(run), run.release / "privacy_card.json"
    check_identity(run)
    problems = card_file.check_card(card, ledger=read_run(run.ledger))
    inputs = card_file.read_card(card)[0].inputs
    if inputs.run_id != run.run_id:
        problems.append("inputs: the card is another run's")
    known = read_released(run.ledger)
    # Nothing is missing from a release that, by its card, nobody chose from.
    changed = find_changed_rows(run, known, known.without(known.rejected if inputs.reviewed != "no" else ()))
    missing = [name for name in _row_files(run.read_config()) if run.release / name not in files]
    return [
        *problems,
        *(f"{name}: not byte for byte what the ledger released" for name in changed),
        *(f"{name}: missing" for name in missing),
    ]


def find_changed_rows(run: RunDir, known: ReleasedTexts, texts: Sequence[SyntheticText]) -> list[str]:
    """Returns the names of the files of rows that do not hold these texts, byte for byte."""
    # Compared as bytes: a reader would pass over a key or a column that stands there twice.
    table = to_table(texts, known.label_columns)
    changed = []
    with TemporaryDirectory(dir=run.private) as folder:
        for path in files_that_leave(run):
            if path.name in _DATA:
                write_rows(table, Path(folder) / path.name)
                if (Path(folder) / path.name).read_bytes() != path.read_bytes():
                    changed.append(path.name)
    return changed


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
        embeds = "written texts"
        if config.evaluate.enabled:
            embeds += ", and private ones for their scores"
    abstract = config.models.abstract
    tasks: list[tuple[str, str, _Named | None, str | None]] = [
        ("summarise", "private texts" if config.method in _SUMMARISE else "", models.summariser, abstract),
        ("write", reads, models.writer, config.models.write),
        ("look for giveaways", reads, models.judge, config.models.judge),
        ("embed", embeds, models.embedder, config.models.embed),
        ("sentiment", judges, models.sentiment, config.models.sentiment),
        ("find personal details", finds, models.pii, None),
    ]
    flows = [
        DataFlow(task=task, model=model.name, trust=model.trust, reads=what, hosts=_hosts(config, name))
        for task, what, model, name in tasks
        if model is not None and what
    ]
    if was_in_bucket(session.folder.private):
        what = "private and written texts, while models computed on a cluster; the operator's own bucket"
        flows.append(DataFlow(task=IN_BUCKET, model="none", trust="local", reads=what, hosts=("a bucket",)))
    return flows


def _hosts(config: RunConfig, name: str | None) -> tuple[str, ...]:
    endpoint = find_endpoint(name, config.endpoints) if name else None
    return endpoint.hosts if endpoint is not None else ()


def _lost_labels(corpus: PrivateCorpus, texts: Sequence[SyntheticText]) -> list[str]:
    """Counts frequent labels that no text has; the private report shows which."""
    n_lost, share = 0, len(texts) / len(corpus)
    for column in corpus.label_columns:
        counts = Counter(record.labels.get(column, "") for record in corpus.records)
        here = {"", *(item.labels.get(column) for item in texts)}
        n_lost += sum(value not in here and n * share >= _LOST_FROM for value, n in counts.items())
    if not n_lost:
        return []
    return [
        f"read from your data: labels that would have had {_LOST_FROM:.0f} texts or more by their share of "
        f"the data and have none: {n_lost}; the table of labels in the private report names them"
    ]


def _missing(texts: Sequence[SyntheticText], sizes: Plan, session: Session) -> list[str]:
    n_missing = sizes.n_wanted - len(texts)
    if not n_missing:
        return []
    reasons = Counter(item.reason for item in session.rejected if item.stage == "refine").most_common(3)
    why = ", ".join(f"{reason} {count}" for reason, count in reasons) or "too few usable texts were written"
    return [
        f"{n_missing} of {sizes.n_wanted} texts are missing after at most "
        f"{session.config.refine.refill_rounds} refill rounds; most frequent reasons: {why}. Ask for fewer "
        "texts, or raise refine.refill_rounds"
    ]
