"""One HTML page of a benchmark: its tables, figures and differences; it loads nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rpsg.bench.compare import differences
from rpsg.bench.matrix import Named
from rpsg.bench.outcomes import Outcome
from rpsg.bench.tables import make_tables, name_of
from rpsg.bench.written import (
    DIFFERENCES_HEAD,
    NOTE,
    about_differences,
    missing_of,
    named_differences,
    summary_of,
    waiting_of,
)
from rpsg.rundir import write_text


def write_page(
    outcomes: Sequence[Outcome],
    reference: str,
    figures: Mapping[str, Path],
    path: Path,
    *,
    planned: Sequence[Named],
) -> None:
    """Writes the page.

    Args:
        outcomes: of the cells.
        reference: the method that others are compared with.
        figures: title to SVG file.
        path: to write to.
        planned: all cells of the benchmark.
    """
    tables, compared = make_tables(outcomes), differences(outcomes, reference, planned)
    titles = [table.title for table in tables]
    shown = [
        {
            "title": table.title,
            "name": name_of(table),
            "head": table.head,
            "rows": table.lines,
            "figures": [
                _inline(label, file) for label, file in figures.items() if label.startswith(table.title)
            ],
        }
        for table in tables
    ]
    environment = Environment(
        loader=PackageLoader("rpsg.bench", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page = environment.get_template("bench.html.j2").render(
        note=NOTE,
        summary=summary_of(outcomes, len(planned)),
        tables=shown,
        frontiers=[
            _inline(label, file) for label, file in figures.items() if not label.startswith(tuple(titles))
        ],
        reference=reference,
        about=about_differences(compared, reference),
        differences_head=DIFFERENCES_HEAD,
        differences=named_differences(compared),
        missing=[*missing_of(tables), *waiting_of(outcomes, planned)],
    )
    write_text(path, page)


def _inline(label: str, file: Path) -> tuple[str, Markup]:
    """Returns a figure without what only a file of its own needs; matplotlib escaped the names in it."""
    text = file.read_text(encoding="utf-8")
    return label, Markup(text[text.index("<svg") :])
