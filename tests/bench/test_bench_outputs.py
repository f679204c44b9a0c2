"""What a benchmark writes: differences, figures, the page, the plan."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel
from test_bench import config

from rpsg import plan_calls
from rpsg.audit.estimators import holm
from rpsg.bench.compare import Difference, differences, differences_csv
from rpsg.bench.figures import _frontier, draw_figures
from rpsg.bench.judge import JOINT_P
from rpsg.bench.outcomes import Outcome
from rpsg.bench.page import write_page
from rpsg.bench.planning import plan_bench
from rpsg.bench.tables import make_tables
from rpsg.bench.written import missing_of, named_differences, write_tables
from rpsg.errors import ConfigError
from test_cli import call

ONE = Outcome(
    data="posts", method="rpsg", model="m", epsilon=4.0, n=20, seed=0, state="done", reason="",
    card_epsilon=3.9, figures={}, costs={"seconds": 10.0},
)  # fmt: skip
ACCURACY, DISTANCE = "utility: next_word_accuracy", "fidelity: frechet_distance"
LEAKS = "membership: AUC, combined"


def cells(method: str, epsilon: float | None, values: list[float], **changes: object) -> list[Outcome]:
    return [
        replace(
            ONE, method=method, epsilon=epsilon, seed=seed,
            figures={ACCURACY: value, DISTANCE: 1 - value, LEAKS: 0.5}, **changes,
        )
        for seed, value in enumerate(values)
    ]  # fmt: skip


def compared(outcomes: list[Outcome], planned: list[Outcome] | None = None) -> list[Difference]:
    return differences(outcomes, "rpsg", planned or outcomes)


OURS, WORSE, NOISY = [0.5, 0.52, 0.48], [0.4, 0.421, 0.379], [0.53, 0.5, 0.49]
OUTCOMES = [
    *cells("rpsg", 1.0, OURS), *cells("rpsg", 4.0, OURS),
    *cells("worse", 4.0, WORSE), *cells("noisy", 4.0, NOISY), *cells("copy", None, WORSE),
]  # fmt: skip


def test_methods_are_compared_in_pairs_and_corrected_for_their_number() -> None:
    found = {
        (item.method, item.epsilon, item.reference_epsilon): item
        for item in compared(OUTCOMES)
        if item.figure == ACCURACY
    }
    assert set(found) == {("worse", 4.0, 4.0), ("noisy", 4.0, 4.0), ("copy", None, 1.0), ("copy", None, 4.0)}
    for name, values in (("worse", WORSE), ("noisy", NOISY)):
        item, paired = found[name, 4.0, 4.0], ttest_rel(values, OURS)
        low, high = paired.confidence_interval()
        assert item.p_value == pytest.approx(paired.pvalue) and item.n_seeds == 3
        assert (item.mean - item.half, item.mean + item.half) == pytest.approx((low, high))
    adjusted = [item.adjusted for item in found.values()]
    assert adjusted == pytest.approx(list(holm([item.p_value for item in found.values()])))


def test_a_noisy_method_is_not_called_different_by_the_spread_of_the_quiet_ones() -> None:
    """Without any true difference, one of eight methods five times as noisy as the others."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        others = [cells(f"m{i}", 4.0, rng.normal(0.5, 0.01, 3).tolist()) for i in range(7)]
        outcomes = [*cells("rpsg", 4.0, rng.normal(0.5, 0.01, 3).tolist()), *(i for o in others for i in o)]
        outcomes += cells("wild", 4.0, rng.normal(0.5, 0.05, 3).tolist())
        found = [item for item in compared(outcomes) if item.figure == ACCURACY]
        wrong += any(item.adjusted < 0.05 for item in found)
    assert wrong <= 20  # of 200, at most 0.05 expected; 0.15 and more with one spread for all


def test_models_and_sizes_are_corrected_for_together() -> None:
    two = [*cells("rpsg", 4.0, OURS), *cells("worse", 4.0, WORSE)]
    both = [*two, *cells("rpsg", 4.0, OURS, n=40), *cells("worse", 4.0, WORSE, n=40)]
    alone, together = ([i for i in compared(o) if i.figure == ACCURACY] for o in (two, both))
    assert together[0].adjusted == pytest.approx(2 * alone[0].p_value)


def test_comparisons_that_are_not_run_yet_count(tmp_path: Path) -> None:
    """So that no p grows when a benchmark goes on; rows of fewer seeds are named, and have no reference."""
    planned = [*OUTCOMES, *cells("later", 4.0, OURS), *cells("later", 1.0, OURS)]
    now, then = compared(OUTCOMES, planned), compared(planned)
    before = {(i.method, i.epsilon, i.reference_epsilon, i.figure): i.adjusted for i in now}
    after = {(i.method, i.epsilon, i.reference_epsilon, i.figure): i.adjusted for i in then}
    assert before and all(after[key] <= value for key, value in before.items())
    first = min((i for i in now if i.figure == ACCURACY), key=lambda item: item.p_value)
    assert first.adjusted == pytest.approx(6 * first.p_value)
    only = [item for item in OUTCOMES if item.seed == 0] + cells("noisy", 4.0, NOISY)[1:]
    write_tables(only, "rpsg", tmp_path, planned=planned)
    page = (tmp_path / "tables.md").read_text()
    # What all rows share, here data, model and size, stands above the tables.
    assert "| noisy | 4 | 0, 1, 2 |" in page and "| worse | 4 | 0 |" in page
    assert "posts, m, worse, 4, 20; posts, m, copy, -, 20: not run yet (seed 1, 2)" in page
    assert "posts, m, later, 4, 20; posts, m, later, 1, 20: not run yet (seed 0, 1, 2)" in page
    assert "no other method has two seeds in common with rpsg" in page


def test_values_that_agree_have_no_interval_and_p_values_none(tmp_path: Path) -> None:
    items = [
        replace(item, figures={LEAKS: 0.5 + i / 10, JOINT_P: i / 3}) for i, item in enumerate(OUTCOMES[:3])
    ]
    write_tables(items, "rpsg", tmp_path, planned=items)
    page = (tmp_path / "tables.md").read_text()
    assert "| 0, 1, 2 | 0.6 (0.352 to 0.848) | 0.333 |" in page and "| 0, 1, 2 | 3.9 |" in page


def test_what_is_the_same_in_every_seed_has_no_spread_to_test_against() -> None:
    base = [*cells("rpsg", 4.0, [0.5] * 3), *cells("same", 4.0, [0.5] * 3), *cells("other", 4.0, [0.4] * 3)]
    found = {item.method: item.p_value for item in compared(base) if item.figure == ACCURACY}
    assert found == {"same": 1.0, "other": 0.25}


def test_only_cells_that_are_done_and_alike_are_compared() -> None:
    ours = cells("rpsg", 4.0, OURS)
    assert compared(ours + cells("worse", 1.0, WORSE)) == []
    assert compared(ours + cells("worse", 4.0, WORSE, n=10)) == []
    assert compared(ours + cells("worse", 4.0, WORSE, state="short")) == []
    assert {item.p_value for item in compared(ours + cells("same", 4.0, OURS))} == {1.0}
    # A cell that is missing costs a degree of freedom, not the comparison.
    (two,) = (i for i in compared(ours + cells("worse", 4.0, WORSE[:2])) if i.figure == ACCURACY)
    assert two.n_seeds == 2
    assert compared(ours + cells("worse", 4.0, WORSE[:1])) == []


def test_differences_beyond_chance_are_named(tmp_path: Path) -> None:
    write_tables(OUTCOMES, "rpsg", tmp_path, planned=OUTCOMES)
    page = (tmp_path / "tables.md").read_text()
    assert r"| posts | m | worse | 4 | 4 | 20 | utility: next\_word\_accuracy | -0.1 (" in page
    named = named_differences(compared(OUTCOMES))
    assert {row[2] for row in named} == {"worse", "copy"}
    rows = list(csv.DictReader(differences_csv(compared(OUTCOMES)).splitlines()))
    assert len(rows) == 12 and rows[0]["method"] == "worse" and float(rows[0]["difference"]) < 0
    assert {row["figure"] for row in rows} == {ACCURACY, DISTANCE, LEAKS}


def test_names_cannot_break_a_table_or_become_commands(tmp_path: Path) -> None:
    odd = "a|b\n<i>x\\input{/etc/passwd}$^2~"
    outcomes = [*OUTCOMES, *cells(odd, 4.0, WORSE)]
    write_tables(outcomes, "rpsg", tmp_path, planned=outcomes)
    lines = (tmp_path / "tables.md").read_text().splitlines()
    rows = [line for line in lines if "input" in line and line.startswith("|")]
    assert rows and all(line.endswith("|") and r"a\|b \<i\>x" in line for line in rows)
    latex = (tmp_path / "tables.tex").read_text()
    assert "\\input{" not in latex and r"x\textbackslash{}input\{/etc/passwd\}\$\textasciicircum{}2" in latex
    assert "\n<i>" not in latex


def test_a_figure_that_some_seeds_lack_is_named() -> None:
    lacking = [*OUTCOMES[:2], replace(OUTCOMES[2], figures={ACCURACY: 0.5})]
    row = "posts, m, rpsg, 1, 20"
    assert missing_of(make_tables(lacking)) == [
        f"{row}: {DISTANCE}: 2 of 3 seeds have it", f"{row}: {LEAKS}: 2 of 3 seeds have it",
    ]  # fmt: skip
    assert missing_of(make_tables(OUTCOMES)) == []
    # What all cells lack is said once.
    unaudited = [replace(item, reason="no audit: few people") for item in OUTCOMES]
    assert missing_of(make_tables(unaudited)) == ["every row: no audit: few people (seed 0, 1, 2)"]


def test_tables_and_charts_say_which_way_is_better(tmp_path: Path) -> None:
    outcomes = [replace(item, better={ACCURACY: "higher", DISTANCE: "lower"}) for item in OUTCOMES]
    write_tables(outcomes, "rpsg", tmp_path, planned=outcomes)
    page, latex = (tmp_path / "tables.md").read_text(), (tmp_path / "tables.tex").read_text()
    assert r"| next\_word\_accuracy ↑ |" in page and r"| frechet\_distance ↓ |" in page
    assert r"next\_word\_accuracy $\uparrow$" in latex and r"frechet\_distance $\downarrow$" in latex
    with (tmp_path / "tables.csv").open() as file:
        sides = {row["figure"]: row["better"] for row in csv.DictReader(file)}
    assert sides[ACCURACY] == "higher" and sides[DISTANCE] == "lower" and sides[LEAKS] == ""
    drawn = draw_figures(make_tables(outcomes), tmp_path / "figures")
    assert "frechet_distance ↓" in drawn["Distribution similarity"].read_text()


def test_costs_of_nothing_are_drawn() -> None:
    free = [replace(item, costs={"seconds": 0.0}) for item in OUTCOMES]
    assert list(_frontier(make_tables(free)))


def test_the_verdicts_of_audits_are_counted() -> None:
    verdicts = ["leak found", "inconclusive: too few records", "leak found"]
    judged = [replace(ONE, seed=seed, verdict=word) for seed, word in enumerate([*verdicts, ""])]
    (row,) = next(table.rows for table in make_tables(judged) if table.title.startswith("Privacy"))
    found = row.figures["share of seeds in which the audit found a leak"]
    assert found is not None and found.mean == pytest.approx(2 / 3) and found.n == 3


def test_figures_and_page_hold_every_method_and_escape_names(tmp_path: Path) -> None:
    outcomes = [*OUTCOMES, *cells("<b>$x</b>", 4.0, WORSE, n=40)]
    drawn = draw_figures(make_tables(outcomes), tmp_path / "figures")
    assert {path.name for path in drawn.values()} >= {
        "utility.svg", "utility-by-n.svg", "distribution-similarity.svg", "privacy.svg", "efficiency.svg",
        "membership-inference.svg", "frontier-next-word-accuracy.svg", "frontier-frechet-distance.svg",
    }  # fmt: skip
    assert all(path.with_suffix(".png").read_bytes().startswith(b"\x89PNG") for path in drawn.values())
    svg = (tmp_path / "figures/utility.svg").read_text()
    assert "worse, ε 4" in svg and "&lt;b&gt;$x&lt;/b&gt;" in svg and "<b>" not in svg
    again = draw_figures(make_tables(outcomes), tmp_path / "again")
    assert all(path.read_bytes() == again[title].read_bytes() for title, path in drawn.items())
    write_page(
        outcomes, "rpsg", drawn, tmp_path / "index.html", planned=[*outcomes, *cells("later", 4.0, OURS)]
    )
    page = (tmp_path / "index.html").read_text()
    assert page.count("<svg") == len(drawn) and "<b>" not in page and "<script" not in page
    assert "What differs from rpsg" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_without_matplotlib_figures_are_refused_before_anything_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="--no-figures"):
        draw_figures(make_tables(OUTCOMES), tmp_path / "figures")
    file = tmp_path / "bench.yaml"
    file.write_text(json.dumps(config().model_dump(mode="json", exclude_unset=True)))
    assert call("bench", str(file), "-o", str(tmp_path / "out")) == 2
    assert "--no-figures" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_plan_says_what_each_cell_asks_of_its_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_calls, "has_half_precision", lambda: True)
    plain, copy = list(plan_bench(config(seeds=[0])))
    # 20 texts wanted need at least as many seeds, each with 6 summaries, 2 drafts and 2 rewrites.
    assert plain.n_calls >= 20 * (6 + 2 + 2) and plain.cost == 0
    assert copy.n_calls == 0
    file = tmp_path / "bench.yaml"
    file.write_text(json.dumps(config().model_dump(mode="json", exclude_unset=True)))
    assert call("bench", str(file), "--plan", "--tokens-per-second", "10") == 0
    shown = " ".join(capsys.readouterr().out.split())
    n_written = 2 * plain.n_tokens
    assert f"4 cells, {2 * plain.n_calls:,} calls" in shown
    assert f"{n_written / 36000:.1f} hours of writing" in shown and "Nothing was spent" in shown
    # Of a model that is not the embedded one nobody knows how fast it is.
    assert call("bench", str(file), "--plan") == 0 and "hours" not in capsys.readouterr().out
    embedded = config(models=["smollm2-135m-instruct"]).model_dump(mode="json", exclude_unset=True)
    file.write_text(json.dumps(embedded))
    assert call("bench", str(file), "--plan") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"about {n_written / 260 / 3600:.1f} hours of two cores with the embedded model" in shown
    assert call("bench", str(file)) == 2 and "-o FOLDER" in capsys.readouterr().err


def test_one_cell_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.yaml"
    file.write_text(json.dumps(config(n=20).model_dump(mode="json", exclude_unset=True)))
    name = "posts_copy_fake_epsilon-None_n-20_seed-1"
    assert call("bench", str(file), "-o", str(tmp_path / "out"), "--cell", name) == 0
    assert [path.stem for path in (tmp_path / "out/cells").iterdir()] == [name]
    capsys.readouterr()
    # A queue looks at the status.
    too_many = {**config(n=500).model_dump(mode="json", exclude_unset=True)}
    file.write_text(json.dumps(too_many))
    name = "posts_plain_fake_epsilon-None_n-500_seed-0"
    assert call("bench", str(file), "-o", str(tmp_path / "more"), "--cell", name) == 1
    assert "failed: posts, plain, seed 0: " in capsys.readouterr().out
    assert not (tmp_path / "out/tables.md").exists()
    assert call("bench", str(file), "-o", str(tmp_path / "out"), "--cell", "none") == 2
    assert "no cell none" in capsys.readouterr().err
