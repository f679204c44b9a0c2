"""Charts of a report as plotly specifications, each with its figures as a table and its content in words.

Plain values, drawn by plotly.js in the page. plotly reads tags in labels, so every label that comes from data
is escaped here; texts never go into a specification.
"""

import html
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rpsg.report.answers import show, words
from rpsg.report.documents import Json, Score
from rpsg.report.projection import Density, Points
from rpsg.text import reveal, words_of

SYNTHETIC, REAL, BASELINE = "#1b8a8f", "#7d8795", "#b97a16"
_MOST_BARS = 15
_LONGEST_NAME = 28
_LONGEST_VALUE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One chart.

    Attributes:
        chart_id: its id in the page.
        title: its heading.
        alt: what it shows, in words.
        spec: `data` and `layout` of plotly.js.
        columns: heads of the table that says the same; empty where the page has the figures elsewhere.
        rows: its rows.
        has_points: whether its points are texts, shown on hover; `customdata` is their row.
    """

    chart_id: str
    title: str
    alt: str
    spec: Json
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    has_points: bool = False


def label(text: str | None) -> str:
    """Writes a value from data for plotly, which takes tags for markup."""
    shown = reveal(" ".join((text or "(none)").split())) or "(blank)"
    return html.escape(
        shown if len(shown) <= _LONGEST_NAME else shown[: _LONGEST_NAME - 1] + "…", quote=False
    )


def shorten(shown: str) -> str:
    """Cuts what would fill the page; a label is a word or two."""
    return shown if len(shown) <= _LONGEST_VALUE else shown[: _LONGEST_VALUE - 1] + "…"


def _layout(**more: object) -> Json:
    return {
        "margin": {"l": 56, "r": 12, "t": 8, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        "dragmode": False,
        "height": 320,
        **more,
    }


def _axis(title: str = "", **more: object) -> Json:
    return {"title": {"text": title}, "fixedrange": True, "zeroline": False, "automargin": True, **more}


def _names_axis(names: Sequence[str]) -> Json:
    # Two values may look alike when they are cut: bars stand at numbers, names beside them.
    return _axis(autorange="reversed", tickmode="array", tickvals=list(range(len(names))), ticktext=[*names])


# --- map -----------------------------------------------------------------------------------------


def _contours(density: Density) -> Json:
    return {
        "type": "contour",
        "x": _rounded(density.x),
        "y": _rounded(density.y),
        "z": [_rounded(row) for row in density.z],
        "name": "real texts (density)",
        "showscale": False,
        "showlegend": True,
        "hoverinfo": "skip",
        "ncontours": 7,
        "contours": {"coloring": "fill", "showlines": True},
        "line": {"color": REAL, "width": 1},
        "colorscale": [[0, "rgba(125,135,149,0)"], [1, "rgba(125,135,149,0.55)"]],
    }


def map_chart(points: Points, density: Density | None, *, by_meaning: bool) -> Chart:
    """Draws synthetic texts as points and, in the private report, real ones as contours of their density."""
    traces = [] if density is None else [_contours(density)]
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "x": _rounded(points.positions[:, 0]),
            "y": _rounded(points.positions[:, 1]),
            "customdata": list(range(len(points.positions))),
            "name": "synthetic texts",
            "hoverinfo": "none",
            # A white edge: points must stand out from contours of much the same darkness.
            "marker": {
                "color": SYNTHETIC,
                "size": 9 if len(points.positions) < 500 else 5,
                "opacity": 1,
                "line": {"color": "#ffffff", "width": 1},
            },
        }
    )
    near = "meaning (sentence embeddings)" if by_meaning else "the words they use"
    alt = f"{len(points.positions):,} synthetic texts as points; near each other are texts alike by {near}."
    if density is not None:
        alt += f" Contours show where {density.n:,} real texts lie."
    if density is not None and by_meaning:
        alt += f" {_overlap(points, density)}"
    hidden = _axis(showgrid=False, showticklabels=False, ticks="")
    return Chart(
        chart_id="map",
        title="Map of the texts",
        alt=alt,
        spec={
            "data": traces,
            "layout": _layout(height=460, hovermode="closest", xaxis=hidden, yaxis=hidden),
        },
        has_points=True,
    )


def _overlap(points: Points, density: Density) -> str:
    inside = density.share_inside(points.positions)
    return f"{inside:.0%} of the synthetic texts lie where 90 % of the real ones do."


def _rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


# --- distributions -------------------------------------------------------------------------------


def length_chart(synthetic: Sequence[str], real: Sequence[str] | None) -> Chart:
    """Draws how many words texts have."""
    lengths = {"synthetic": [len(words_of(text)) for text in synthetic]}
    if real:
        lengths["real"] = [len(words_of(text)) for text in real]
    everything = sorted(size for sizes in lengths.values() for size in sizes)
    top = max(10, int(np.quantile(everything, 0.99)) if everything else 10)
    edges = np.linspace(0, top, 25)
    traces: list[Json] = []
    rows = []
    for name, sizes in lengths.items():
        counts, _ = np.histogram(np.minimum(sizes, top), bins=edges)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "line": {"shape": "hv", "color": SYNTHETIC if name == "synthetic" else REAL, "width": 2},
                "fill": "tozeroy",
                # A step from each edge to the next; the last one ends where its bar does.
                "x": _rounded(edges),
                "y": _rounded(np.append(counts, counts[-1]) / max(1, len(sizes))),
                "name": f"{name} texts",
            }
        )
        rows.append((name, *_quantiles(sizes)))
    shown = "; ".join(f"{row[0]}: median {row[3]} words" for row in rows)
    return Chart(
        chart_id="lengths",
        title="Length",
        alt=f"Distribution of words per text. {shown}.",
        spec={
            "data": traces,
            "layout": _layout(
                xaxis=_axis(f"words (the longest 1 % at {top})"),
                yaxis=_axis("share of texts", tickformat=".0%"),
            ),
        },
        columns=("texts", "shortest", "lower quarter", "median", "upper quarter", "longest"),
        rows=tuple(rows),
    )


def _quantiles(sizes: Sequence[int]) -> tuple[str, ...]:
    if not sizes:
        return ("none",) * 5
    cuts = np.quantile(sizes, [0, 0.25, 0.5, 0.75, 1])
    return tuple(f"{cut:,.0f}" for cut in cuts)


def label_chart(
    name: str, synthetic: Sequence[str | None], real: Sequence[str | None] | None, *, number: int
) -> Chart:
    """Draws the shares of a label's values, the most frequent ones."""
    counts = {"synthetic": Counter(synthetic)}
    if real:
        counts["real"] = Counter(real)
    shares = {
        value: sum(found[value] / max(1, found.total()) for found in counts.values())
        for value in dict.fromkeys(value for found in counts.values() for value in found)
    }
    order = sorted(shares, key=lambda value: (-shares[value], value or ""))
    kept = order[:_MOST_BARS]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": f"{which} texts",
            "marker": {"color": SYNTHETIC if which == "synthetic" else REAL},
            "y": list(range(len(kept))),
            "x": [round(found[value] / max(1, found.total()), 4) for value in kept],
        }
        for which, found in reversed(counts.items())
    ]
    more = f"; the {len(kept)} most frequent of {len(order)} values" if len(order) > len(kept) else ""
    return Chart(
        chart_id=f"label-{number}",
        title=f"Label: {reveal(name)}",
        alt=f"Shares of the values of {reveal(name)}{more}.",
        spec={
            "data": traces,
            "layout": _layout(
                height=110 + 24 * len(kept),
                xaxis=_axis("share of texts", tickformat=".0%", rangemode="tozero"),
                yaxis=_names_axis([label(value) for value in kept]),
                barmode="group",
            ),
        },
        columns=(reveal(name), *(f"{which} texts" for which in counts)),
        rows=tuple(
            (shorten(reveal(value or "(none)")), *(f"{found[value]:,}" for found in counts.values()))
            for value in order[:100]
        ),
    )


# --- figures -------------------------------------------------------------------------------------


def utility_chart(scores: Sequence[Score]) -> Chart | None:
    """Draws what a model learns from synthetic, real and baseline texts; figures between 0 and 1 only."""
    usable = [
        score
        for score in scores
        if score["family"] == "utility" and score["value"] is not None and score["name"] != "perplexity"
    ]
    if not usable:
        return None
    names = [label(words(score["name"])) for score in usable]
    bars: list[tuple[str, str, list[float | None]]] = [
        ("baseline", BASELINE, [score["baseline"] for score in usable]),
        ("trained on real texts", REAL, [score["reference"] for score in usable]),
        ("trained on synthetic texts", SYNTHETIC, [score["value"] for score in usable]),
    ]
    places = list(range(len(names)))
    traces: list[Json] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": places,
            "x": values,
            "marker": {"color": color},
        }
        for name, color, values in bars
    ]
    traces[-1]["error_x"] = {
        "type": "data",
        "symmetric": False,
        "array": [(score["high"] or 0) - (score["value"] or 0) for score in usable],
        "arrayminus": [(score["value"] or 0) - (score["low"] or 0) for score in usable],
    }
    best = "; ".join(f"{words(score['name'])} {show(score['value'])}" for score in usable)
    return Chart(
        chart_id="utility",
        title="What a model learns from the texts",
        alt=f"Tested on held-out real texts. Trained on synthetic texts: {reveal(best)}.",
        spec={
            "data": traces,
            "layout": _layout(
                height=110 + 64 * len(names),
                barmode="group",
                xaxis=_axis("share right", range=[0, 1]),
                yaxis=_names_axis(names),
            ),
        },
    )


def funnel_chart(stages: Sequence[tuple[str, float]]) -> Chart | None:
    """Draws how many items were left after each step."""
    if not stages:
        return None
    return Chart(
        chart_id="funnel",
        title="From seeds to released texts",
        alt="; ".join(f"{name}: {count:,.0f}" for name, count in stages) + ".",
        spec={
            "data": [
                {
                    "type": "bar",
                    "orientation": "h",
                    "y": list(range(len(stages))),
                    "x": [count for _, count in stages],
                    "text": [f"{count:,.0f}" for _, count in stages],
                    "textposition": "outside",
                    "marker": {"color": SYNTHETIC},
                    "showlegend": False,
                }
            ],
            "layout": _layout(
                height=90 + 36 * len(stages),
                # Room for the number beside the longest bar, also on a phone.
                xaxis=_axis("items", range=[0, 1.25 * max(1.0, *(count for _, count in stages))]),
                yaxis=_names_axis([label(name) for name, _ in stages]),
            ),
        },
    )


def rejection_chart(rejected: Mapping[str, int]) -> Chart | None:
    """Draws why items were dropped."""
    if not rejected:
        return None
    items = sorted(rejected.items(), key=lambda item: -item[1])
    kept = items[:_MOST_BARS]
    return Chart(
        chart_id="rejections",
        title="Why items were dropped",
        alt=f"{sum(rejected.values()):,} items were dropped; most often: {items[0][0]} ({items[0][1]:,}).",
        spec={
            "data": [
                {
                    "type": "bar",
                    "orientation": "h",
                    "y": list(range(len(kept))),
                    "x": [count for _, count in kept],
                    "marker": {"color": BASELINE},
                    "showlegend": False,
                }
            ],
            "layout": _layout(
                height=90 + 24 * len(kept),
                xaxis=_axis("items"),
                yaxis=_names_axis([label(name) for name, _ in kept]),
            ),
        },
        columns=("step: reason", "items"),
        rows=tuple((name, f"{count:,}") for name, count in items),
    )


# --- the texts alone -----------------------------------------------------------------------------


def describe_texts(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Returns figures that need the released texts only."""
    if not texts:
        return (("texts", "0"),)
    tokens = [words_of(text) for text in texts]
    pairs = Counter(pair for words_ in tokens for pair in pairwise(words_))
    plain = Counter(" ".join(words_) for words_ in tokens)
    return (
        ("texts", f"{len(texts):,}"),
        ("words a text, median", f"{statistics.median(len(words_) for words_ in tokens):,.0f}"),
        ("different words", f"{len({word for words_ in tokens for word in words_}):,}"),
        ("different word pairs, share", f"{len(pairs) / max(1, pairs.total()):.2f}"),
        ("texts that another equals", f"{sum(count for count in plain.values() if count > 1):,}"),
    )
