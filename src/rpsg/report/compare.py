"""Runs side by side: one HTML file and the same as a table, from the private parts of the run folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rpsg.errors import ConfigError
from rpsg.report import answers
from rpsg.report.documents import Score
from rpsg.report.page import Assets, environment, load_assets
from rpsg.report.sources import PrivateSources, read_private
from rpsg.rundir import write_text

_LEAST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A table: one column a run.

    Attributes:
        columns: names of the runs.
        groups: (heading, rows); a row is its name and one value a run.
    """

    columns: tuple[str, ...]
    groups: tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...]


def compare_runs(folders: Sequence[Path]) -> tuple[Comparison, str]:
    """Reads the runs; returns the table and its page.

    Raises:
        ConfigError: fewer than two runs.
        RunDirError: one of them is not finished, or its private part was removed.
    """
    if len(folders) < _LEAST:
        raise ConfigError("name two runs or more")
    runs = [read_private(folder) for folder in folders]
    names = [run.name for run in runs]
    columns = tuple(
        str(folder) if names.count(run.name) > 1 else run.name
        for folder, run in zip(folders, runs, strict=True)
    )
    table = Comparison(columns=columns, groups=(_about(runs), _settings(runs), *_scores(runs)))
    return table, _render(table, [run.released.card["statement"] for run in runs], load_assets())


def write_comparison(page: str, path: Path) -> None:
    """Writes the page.

    Raises:
        ConfigError: the folder does not exist, or another name is wanted.
    """
    if path.suffix != ".html" or not path.parent.is_dir():
        raise ConfigError(f"{path}: name a file that ends in .html, in a folder that exists")
    write_text(path, page)
    path.chmod(0o600)


def _about(runs: Sequence[PrivateSources]) -> tuple[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    private = [answers.answer_private(run.released.card, run.audit, run.faults) for run in runs]
    costs = ["no paid call" if run.state.cost is None else f"{run.state.cost:.2f}" for run in runs]
    rows = (
        ("method", tuple(run.released.card["inputs"].get("method", "rpsg") for run in runs)),
        ("guarantee", tuple(run.released.card["inputs"]["guarantee"] for run in runs)),
        ("epsilon of the texts", tuple(_epsilon(run) for run in runs)),
        ("private?", tuple(answer.verdict for answer in private)),
        ("audit", tuple(run.audit["verdict"] if run.audit else "not audited" for run in runs)),
        ("texts", tuple(f"{len(run.released.rows):,}" for run in runs)),
        ("seconds", tuple(_count(run, "seconds") for run in runs)),
        ("tokens written", tuple(_count(run, "tokens written") for run in runs)),
        ("cost, US dollars", tuple(costs)),
    )
    return "Privacy, size, cost", rows


def _epsilon(run: PrivateSources) -> str:
    card = run.released.card
    return answers.show_up(card["figures"][0]["epsilon"]) if answers.holds_end_to_end(card) else "none finite"


def _count(run: PrivateSources, name: str) -> str:
    found = run.summary["counts"].get(name) if run.summary else None
    return "" if found is None else f"{found:,.0f}"


def _settings(runs: Sequence[PrivateSources]) -> tuple[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    flat = [_flatten(run.config.model_dump(mode="json")) for run in runs]
    names = sorted({name for values in flat for name in values if not name.startswith("output.folder")})
    rows = tuple((name, tuple(values.get(name, "") for values in flat)) for name in names)
    return "Settings that differ", tuple(row for row in rows if len(set(row[1])) > 1)


def _flatten(value: object, prefix: str = "") -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        if isinstance(value, list | tuple):
            return {prefix: ", ".join(map(str, value))}
        return {prefix: "" if value is None else str(value)}
    flat: dict[str, str] = {}
    for name, inner in value.items():
        flat.update(_flatten(inner, f"{prefix}.{name}" if prefix else str(name)))
    return flat


def _scores(runs: Sequence[PrivateSources]) -> list[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]]]:
    found = [
        {(score["family"], score["name"]): score for score in run.metrics["scores"]} if run.metrics else {}
        for run in runs
    ]
    keys = list(dict.fromkeys(key for scores in found for key in scores))
    groups: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for family, name in keys:
        cells = []
        for scores in found:
            score = scores.get((family, name))
            cells.append("" if score is None else _cell(score))
        groups.setdefault(f"Scores: {family}", []).append((answers.words(name), tuple(cells)))
    return [(heading, tuple(rows)) for heading, rows in groups.items()]


def _cell(score: Score) -> str:
    if score["value"] is None:
        return "not computable"
    span = answers.interval(score["low"], score["high"])
    held_out = answers.show(score["reference"])
    return f"{answers.show(score['value'])} ({span}; held-out {held_out}; n {score['n']})"


def _render(table: Comparison, statements: Sequence[str], assets: Assets) -> str:
    return (
        environment()
        .get_template("compare.html.j2")
        .render(assets=assets, title="Runs side by side", name="", table=table, statements=statements)
    )
