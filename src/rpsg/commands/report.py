"""`rpsg report`, `compare`: what people look at."""

from pathlib import Path
from typing import Annotated

import typer

from rpsg.commands.options import Json
from rpsg.commands.runs import RunFolder


def report(folder: RunFolder) -> None:
    """Write a run's two reports: private/report.html for you, release/report.html for others."""
    from rpsg.report.answers import why_not_leaving
    from rpsg.report.page import write_reports
    from rpsg.report.sources import read_released

    for path in write_reports(folder):
        stays = path.parent.name == "private" or why_not_leaving(read_released(folder / "release").card)
        inside = "internal, do not share" if stays else "may leave with the release"
        typer.echo(f"Wrote {path} ({inside})")


def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN_FOLDER...", help="Two finished runs or more.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write; internal.")] = Path(
        "comparison.html"
    ),
    as_json: Json = False,
) -> None:
    """Put runs side by side: a table, and the same as a page."""
    from rpsg.console_runs import print_comparison
    from rpsg.report.compare import compare_runs, write_comparison

    table, page = compare_runs(folders)
    write_comparison(page, output)
    print_comparison(table.columns, table.groups, output, as_json=as_json)


def finish(folder: Path) -> list[str]:
    """Writes the reports of a run that just ended; returns what to tell. A report that fails loses no run."""
    from rpsg.report.page import write_reports

    try:
        return [f"Report: {path}" for path in write_reports(folder)] + _reviewed_before(folder)
    except Exception as error:  # noqa: BLE001 (the run is done, and what it wrote stays as it is)
        return [f"Note: no report ({type(error).__name__}); write it with: rpsg report {folder}"]


def _reviewed_before(folder: Path) -> list[str]:
    from rpsg.decisions import Trail, rejected_ids
    from rpsg.report.sources import read_rows
    from rpsg.rundir import RunDir

    run = RunDir.open(folder)
    out = rejected_ids(list(Trail(run.private / "review.jsonl").current().values()))
    n_rejected = sum(row["id"] in out for row in read_rows(run.release))
    if not n_rejected:
        return []
    return [
        f"Note: {n_rejected} texts that a review rejected are in the release; take them out with: "
        f"rpsg release {folder}"
    ]
