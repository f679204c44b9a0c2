"""Puts a report together: one HTML file that needs nothing else and asks no other host for anything."""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rpsg.report import advice, answers, charts
from rpsg.report.charts import Chart, shorten
from rpsg.report.documents import Row
from rpsg.report.projection import place, vectors_of_words
from rpsg.report.sources import PrivateSources, Released, read_private, read_released
from rpsg.rundir import RunDir, write_text
from rpsg.text import reveal
from rpsg.types import FloatArray

_STEPS = ("seeds", "summaries usable", "candidates written", "texts accepted", "texts released")
# More private texts would change no picture, and only take longer.
_MOST_REAL = 5000
# So many texts a page shows; those of a release stand in a random order.
_MOST_SHOWN = 5000


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Assets:
    """Styles and scripts that every page holds in itself.

    Attributes:
        style: the style sheet.
        script: the page's own script.
        plotly: plotly.js, compressed and in base64.
        policy: what the page may load and run: these scripts, and nothing from anywhere.
    """

    style: Markup
    script: Markup
    plotly: str
    policy: str


def load_assets() -> Assets:
    """Reads the assets from this package and from plotly's."""
    from plotly.offline import get_plotlyjs

    folder = files("rpsg.report").joinpath("assets")
    script = folder.joinpath("report.js").read_text(encoding="utf-8")
    plotly = get_plotlyjs()
    allowed = " ".join(f"'sha256-{_digest(code)}'" for code in (script, plotly))
    return Assets(
        style=Markup(folder.joinpath("report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        plotly=base64.b64encode(gzip.compress(plotly.encode(), 6, mtime=0)).decode("ascii"),
        policy=f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'",
    )


def _digest(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")


def write_reports(folder: Path) -> list[Path]:
    """Writes release/report.html, and private/report.html while there is a private part.

    Returns:
        The files, the private one first.

    Raises:
        RunDirError: there is no finished run.
    """
    run, assets = RunDir.open(folder), load_assets()
    written = []
    if run.private.is_dir():
        write_text(run.private / "report.html", render_private(read_private(folder), str(folder), assets))
        written.append(run.private / "report.html")
    write_text(run.release / "report.html", render_public(read_released(run.release), assets))
    return [*written, run.release / "report.html"]


def render_public(released: Released, assets: Assets) -> str:
    """Returns the report that may leave: a function of release/ alone."""
    texts = released.texts()
    found = [_map_of_words(texts[:_MOST_SHOWN], ())] if texts else []
    found += [charts.length_chart(texts, None), *_label_charts(released, None)]
    return _render(
        "report.html.j2",
        assets,
        charts_=found,
        rows=released.rows,
        internal=False,
        title="Release report",
        name=released.card["inputs"]["run_id"],
        stays=answers.why_not_leaving(released.card),
        card=released.card,
        answers=answers.public_answers(released.card),
        steps=advice.public_steps(released.card),
        texts_table=charts.describe_texts(texts),
    )


def render_private(sources: PrivateSources, folder: str, assets: Assets) -> str:
    """Returns the report for the person who ran it. It shows synthetic texts, never a private one."""
    released, metrics, summary = sources.released, sources.metrics, sources.summary
    records = sources.private_corpus.records if sources.private_corpus else ()
    private_texts = [record.text for record in records[:: max(1, len(records) // _MOST_REAL)]] or None
    found = [_private_map(sources, private_texts)] if released.rows else []
    found += [charts.length_chart(released.texts(), private_texts), *_label_charts(released, sources)]
    scores = metrics["scores"] if metrics else []
    counts = summary["counts"] if summary else {}
    found += [
        chart
        for chart in (
            charts.utility_chart(scores),
            charts.funnel_chart([(name, counts[name]) for name in _STEPS if name in counts]),
            charts.rejection_chart(summary["rejected"] if summary else {}),
        )
        if chart is not None
    ]
    return _render(
        "report.html.j2",
        assets,
        charts_=found,
        rows=released.rows,
        internal=True,
        title="Run report",
        name=sources.name,
        stays=answers.why_not_leaving(released.card),
        card=released.card,
        answers=(
            answers.answer_private(released.card, sources.audit, sources.faults),
            answers.answer_realistic(metrics),
            answers.answer_useful(metrics),
        ),
        steps=advice.next_steps(sources, folder),
        texts_table=charts.describe_texts(released.texts()),
        sources=sources,
        config=sources.config.to_yaml(),
    )


def _private_map(sources: PrivateSources, private_texts: Sequence[str] | None) -> Chart:
    released, kept = sources.released, sources.vectors
    rows = released.rows[:_MOST_SHOWN]
    if kept is not None and (found := _in_order(rows, kept.ids)) is not None:
        return charts.map_chart(*place(kept.real, kept.synthetic[found]), by_meaning=True)
    return _map_of_words(released.texts()[:_MOST_SHOWN], private_texts or ())


def _in_order(rows: Sequence[Row], ids: Sequence[str]) -> list[int] | None:
    """Returns where each released row's vector is; None where one has none."""
    places = {text_id: i for i, text_id in enumerate(ids)}
    found = [places.get(row["id"] or "") for row in rows]
    return [i for i in found if i is not None] if None not in found else None


def _map_of_words(texts: Sequence[str], private_texts: Sequence[str]) -> Chart:
    vectors: FloatArray = vectors_of_words([*private_texts, *texts])
    return charts.map_chart(*place(*np.split(vectors, [len(private_texts)])), by_meaning=False)


def _label_charts(released: Released, sources: PrivateSources | None) -> list[Chart]:
    corpus = sources.private_corpus if sources else None
    return [
        charts.label_chart(
            name,
            [row.get(name) for row in released.rows],
            [record.labels.get(name) for record in corpus.records] if corpus else None,
            number=number,
        )
        for number, name in enumerate(released.labels)
    ]


# --- HTML ----------------------------------------------------------------------------------------


def _render(
    template: str, assets: Assets, *, charts_: Sequence[Chart], rows: Sequence[Row], **values: object
) -> str:
    data = {
        "charts": {chart.chart_id: chart.spec for chart in charts_},
        "texts": [
            {"text": reveal(row["text"] or ""), "labels": _shown_labels(row), "id": reveal(row["id"] or "")}
            for row in rows[:_MOST_SHOWN]
        ],
    }
    return (
        environment()
        .get_template(template)
        .render(
            assets=assets,
            charts={chart.chart_id: chart for chart in charts_},
            label_charts=[chart for chart in charts_ if chart.chart_id.startswith("label-")],
            data=embed_json(data),
            n_texts=len(rows),
            n_shown=min(len(rows), _MOST_SHOWN),
            **values,
        )
    )


def _shown_labels(row: Row) -> list[str]:
    return [
        shorten(f"{reveal(name)}: {reveal(value)}")
        for name, value in row.items()
        if name not in {"id", "text"} and value is not None
    ]


def environment() -> Environment:
    """Returns the templates' environment: all is escaped and visible, and what is missing is an error."""
    found = Environment(
        loader=PackageLoader("rpsg.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_visible,
    )
    found.filters.update(
        show=answers.show,
        cell=_cell,
        words=answers.words,
        epsilon=answers.show_up,
        interval=_interval,
    )
    found.globals["place_of"] = answers.place_of
    return found


def _visible(value: object) -> object:
    # All that a template writes but markup of ours: no value can hide or turn what stands beside it.
    return reveal(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _cell(value: float | None) -> str:
    return "" if value is None else answers.show(value)


def _interval(item: Mapping[str, float | None]) -> str:
    return answers.interval(item["low"], item["high"])


def embed_json(value: object) -> Markup:
    """Writes a value as JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
