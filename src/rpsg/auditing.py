"""What `rpsg audit` does: makes a game of a run, of files, or of data it splits itself, and attacks it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rpsg import pipeline
from rpsg.audit.canary_mark import without_planted
from rpsg.audit.canary_scores import MODELS
from rpsg.audit.control import check_split
from rpsg.audit.copying import VERBATIM, find_copies
from rpsg.audit.finding import Game
from rpsg.audit.linkage import pair_rows
from rpsg.audit.pii_replay import find_replays
from rpsg.audit.pool import Pool
from rpsg.audit.result import EARLIER, FILE, Audit, write_audit
from rpsg.audit.run import AuditSettings, audit
from rpsg.audit.split import game_of, pool_corpora, split_by_coin, without_repeats, without_shared
from rpsg.canaries import (
    Scoring,
    check_planted_run,
    check_release,
    join_canaries,
    score_run,
)
from rpsg.config import RunConfig
from rpsg.data import fingerprint, read_corpus
from rpsg.errors import ConfigError, DataError
from rpsg.loading import OnProgress
from rpsg.plan import split_pool
from rpsg.privacy.seeds import read_seeds
from rpsg.rundir import RunDir, write_json, write_text
from rpsg.types import PrivateCorpus, Progress
from rpsg.writers import check_own_files

# No column of the user's own is called that.
_UNIT = "rpsg unit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A release made by any tool, and the data it was and was not made from.

    Attributes:
        synthetic: the released texts.
        members: the private texts that the release was made from.
        nonmembers: other texts of the same source.
        public: texts the attacker knows besides; None for none.
        text_column: column of the texts.
        synthetic_text_column: its name in the synthetic file, where it differs.
        unit_column: column naming the person, in members and non-members.
    """

    synthetic: Path
    members: Path
    nonmembers: Path
    public: Path | None = None
    text_column: str = "text"
    synthetic_text_column: str | None = None
    unit_column: str | None = None


def audit_files(
    files: Files, folder: Path, *, settings: AuditSettings, seed: int = 0, on_progress: OnProgress
) -> Audit:
    """Audits a release made by any tool, and writes audit.json into `folder`.

    Raises:
        ConfigError: a column does not exist, or the folder is a file.
        DataError: the data cannot be used, overlap, or differ by more than chance.
    """
    _check_folder(folder)
    members, n_members = without_repeats(_read(files.members, files.text_column, files.unit_column))
    nonmembers, n_others = without_repeats(_read(files.nonmembers, files.text_column, files.unit_column))
    synthetic = _read(files.synthetic, files.synthetic_text_column or files.text_column, None)
    public = _texts(_read(files.public, files.text_column, None)) if files.public else ()
    game = game_of(members, nonmembers, _texts(synthetic), public=public, seed=seed)
    notes = _note_repeats(n_members + n_others)
    found = audit(game, settings, notes=notes, on_progress=_named(on_progress))
    return _write(found, folder, game, members, synthetic)


def audit_run(
    folder: Path,
    *,
    nonmembers: Path | None = None,
    canaries: Path | None = None,
    public: Path | None = None,
    settings: AuditSettings,
    seed: int = 0,
    on_progress: OnProgress,
) -> Audit:
    """Audits a finished run against the data its configuration names; writes private/audit/audit.json.

    In the modes with summaries members are the records that could seed, non-members the calibration part: a
    random part of the data that never seeds and does not vote, though the filters' thresholds are read off
    it. An end-to-end run uses everybody, so its non-members must be given.

    Raises:
        ConfigError: an end-to-end run without non-members, or canaries of another run.
        RunDirError: the folder holds no run.
        DataError: the run is not finished, or the data cannot be compared.
    """
    run = RunDir.open(folder)
    config = run.read_config()
    if not run.is_done("released"):
        raise DataError(f"{folder} is not finished; finish it with: rpsg resume {folder}")
    check_release(run)
    if canaries is not None:
        check_planted_run(canaries, run)
    corpus = pipeline.load_corpus(config)
    if json.loads((run.private / "data.json").read_text())["fingerprint"] != fingerprint(corpus):
        raise DataError(f"{config.data.path} is not what {folder} was made from; put those data back")
    if nonmembers is not None:
        members = corpus
        others = _read(nonmembers, config.data.text_column, config.data.unit_column)
    elif config.guarantee == "end-to-end":
        raise ConfigError(
            "an end-to-end run uses every record, so nobody is left to compare with; give other texts of the "
            "same source with --nonmembers, or split the data first with --from-data"
        )
    else:
        members, others = split_pool(config, corpus)
    if run.contains_canaries:
        # Made-up records are people of neither side, and unlike both.
        members, others = (without_planted(side, Path(config.data.path or "")) for side in (members, others))
    members, others, n_shared = without_shared(members, others)
    notes = [f"{n_shared} units have a text that is on both sides; they were left out"] if n_shared else []
    (members, n_members), (others, n_others) = without_repeats(members), without_repeats(others)
    notes += _note_repeats(n_members + n_others)
    synthetic = _released(run)
    known = _texts(_read(public, config.data.text_column, None)) if public else ()
    game = game_of(members, others, _texts(synthetic), public=known, seed=seed)
    pairs = pair_rows(read_seeds(run.ledger), _ids(synthetic), _ids(members))
    settings = replace(settings, generator=config.models.embed)
    drawn = nonmembers is None
    found = audit(game, settings, pairs=pairs, notes=notes, drawn=drawn, on_progress=_named(on_progress))
    if canaries is not None:
        how = Scoring(auxiliary=MODELS if settings.language_models else None, seed=seed)
        found = join_canaries(found, score_run(canaries, folder, how))
    return _write(found, run.private / "audit", game, members, synthetic)


def audit_from_data(
    sources: Sequence[Path],
    config: RunConfig,
    folder: Path,
    *,
    public: Path | None = None,
    settings: AuditSettings,
    seed: int = 0,
    on_progress: OnProgress,
) -> Audit:
    """Splits data by a secret coin, runs the configured method on one half, and attacks the release.

    Writes into `folder`: members.jsonl and nonmembers.jsonl (private), the run, audit.json. A folder in which
    the data were split is gone on with, so nothing is paid twice.

    Raises:
        ConfigError: a column does not exist, or the folder holds something else.
        DataError: the data cannot be used.
    """
    _check_folder(folder)
    # In whichever order they were named, so that it is gone on with.
    sources = sorted(sources)
    known = _texts(_read(public, config.data.text_column, None)) if public else ()
    sides = (folder / "members.jsonl", folder / "nonmembers.jsonl")
    pooled = pool_corpora([pipeline.load_corpus(_with_data(config, path=str(path))) for path in sources])
    _split_into(folder, sides, pooled)
    columns = {
        "text_column": "text",
        "id_column": "id",
        "unit_column": _UNIT if config.data.unit_column else None,
    }
    members, others = (pipeline.load_corpus(_with_data(config, path=str(path), **columns)) for path in sides)
    # Before anything is paid for.
    check_split(Pool.of(game_of(members, others, ["-"], public=known, seed=seed)), drawn=True)
    output = config.output.model_copy(update={"folder": str(folder / "run")})
    run_config = _with_data(config, path=str(sides[0]), **columns).model_copy(update={"output": output})
    pipeline.run(run_config, members, on_progress=on_progress)
    run = RunDir.open(folder / "run")
    synthetic = _released(run)
    game = game_of(members, others, _texts(synthetic), public=known, seed=seed)
    pairs = pair_rows(read_seeds(run.ledger), _ids(synthetic), _ids(members))
    settings = replace(settings, generator=config.models.embed)
    note = f"{len(members)} records on the members' side, {len(others)} on the other, by a secret coin"
    found = audit(game, settings, pairs=pairs, notes=(note,), drawn=True, on_progress=_named(on_progress))
    return _write(found, folder, game, members, synthetic)


def _note_repeats(n: int) -> list[str]:
    return [f"{n} records repeat a text of their side; each text was kept once"] if n else []


def _named(on_progress: OnProgress) -> Callable[[str], None]:
    return lambda name: on_progress(Progress(stage=f"audit: {name}", done=0, total=1))


def texts_of(path: Path, *, text_column: str = "text") -> tuple[str, ...]:
    """Reads the texts of a file.

    Raises:
        ConfigError: the column does not exist.
        DataError: the file cannot be used.
    """
    return _texts(_read(path, text_column, None))


def _split_into(folder: Path, sides: tuple[Path, Path], pooled: PrivateCorpus) -> None:
    """Splits the data, or makes sure that these are the data that were split here before."""
    done, begun, digest = folder / "split.json", folder / "split.begun", fingerprint(pooled)
    if done.exists():
        if json.loads(done.read_text(encoding="utf-8")) != {"fingerprint": digest}:
            raise ConfigError(f"{folder} holds a split of other data; name a new folder with -o")
        return
    if folder.exists() and any(folder.iterdir()) and not begun.exists():
        raise ConfigError(f"{folder} is not empty; name a new folder with -o")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    begun.touch(mode=0o600)
    # Left by a process that was killed: nothing was paid for yet, so new coins are thrown.
    for path in (*sides, done):
        for left in folder.glob(f".{path.name}-*"):
            left.unlink()
    for path, part in zip(sides, split_by_coin(pooled), strict=True):
        rows = [
            {**record.labels, "id": record.record_id, _UNIT: record.unit_id, "text": record.text}
            for record in part.records
        ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(path, text, private=True)
    write_json(done, {"fingerprint": digest}, private=True)
    begun.unlink()


def _with_data(config: RunConfig, **values: object) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update=values)})


def _released(run: RunDir) -> PrivateCorpus:
    return _read(run.release / f"synthetic.{run.read_config().output.formats[0]}", "text", None)


def _write(found: Audit, folder: Path, game: Game, members: PrivateCorpus, synthetic: PrivateCorpus) -> Audit:
    """Writes audit.json and, beside it, which record leaked into which text: for the data's owner only."""
    found = write_audit(found, folder)
    copies = find_copies(game)
    leaks = [
        {"kind": f"{VERBATIM} words in a row", "record": members.records[i].record_id} for i in copies.members
    ]
    leaks += [
        {
            "kind": replay.kind,
            "record": members.records[replay.member].record_id,
            "released": synthetic.records[replay.synthetic].record_id,
        }
        for replay in find_replays(game)
    ]
    text = "".join(json.dumps(leak) + "\n" for leak in leaks)
    write_text(folder / "leaks.jsonl", text, private=True)
    return found


def _read(path: Path, text_column: str, unit_column: str | None) -> PrivateCorpus:
    try:
        return read_corpus(path, text_column=text_column, unit_column=unit_column, min_words=1)
    except (ConfigError, DataError) as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from None


def _ids(corpus: PrivateCorpus) -> list[str]:
    return [record.record_id for record in corpus.records]


def _texts(corpus: PrivateCorpus) -> tuple[str, ...]:
    return tuple(record.text for record in corpus.records)


def _check_folder(folder: Path) -> None:
    check_own_files(folder, known_by={FILE: {"verdict", "findings"}}, beside=("leaks.jsonl", EARLIER))
