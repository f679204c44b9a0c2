"""What a report says, and what it is made of."""

import json
import shutil
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path
from typing import Any, cast

import pytest
from markupsafe import Markup

from rpsg.audit.finding import Finding
from rpsg.decisions import Trail
from rpsg.errors import ConfigError, RunDirError
from rpsg.report import answers
from rpsg.report.advice import next_steps
from rpsg.report.charts import label_chart, length_chart, utility_chart
from rpsg.report.compare import compare_runs
from rpsg.report.documents import Audit, Card, Metrics, Score
from rpsg.report.page import embed_json, environment, load_assets, render_public, write_reports
from rpsg.report.projection import place, vectors_of_words
from rpsg.report.sources import read_private, read_released
from rpsg.reviewed import apply_review
from rpsg.text import digest_of
from rpsg.types import FloatArray, SyntheticText
from rpsg.writers import to_table, write_rows
from test_cli import FAKE, POSTS, call

LEAK, NO_LEAK, FEW = (
    "leak found",
    "no leak found by these attacks at this power",
    "inconclusive: too few records",
)


def card(guarantee: str = "end-to-end", epsilon: float | None = 8.0, *, secure: bool = True) -> Card:
    whole = {"relation": "add", "units_that_differ": 1, "epsilon": epsilon, "delta": 1e-6, "accountant": "a"}
    figures = [whole] if guarantee == "end-to-end" else []
    return cast(
        "Card",
        {
            "statement": "s",
            "inputs": {"guarantee": guarantee, "epsilon": epsilon, "run_id": "r", "delta": 1e-6},
            "secure_noise": secure,
            "unit": "one record",
            "figures": figures,
            "releases": [{"secure_noise": secure}],
        },
    )


def audit(verdict: str, **changes: object) -> Audit:
    found = Finding(
        family="membership", attack="ngram_model", statistic="AUC", value=0.52, low=0.47, high=0.57,
        control=0.5, p_value=0.3, n_members=100, n_nonmembers=100, decides=True,
    )  # fmt: skip
    return cast("Audit", {"verdict": verdict, "findings": [{**asdict(found), **changes}]})


def keep_audit(folder: Path, found: Audit) -> None:
    digest = digest_of(read_released(folder / "release").texts())
    (folder / "private/audit").mkdir()
    (folder / "private/audit/audit.json").write_text(json.dumps({**found, "texts_digest": digest}))


def test_a_finding_that_is_a_leak_is_never_green() -> None:
    found = answers.answer_private(card("end-to-end", epsilon=4.0), audit(NO_LEAK))
    assert (found.verdict, found.tone) == ("Yes, as far as the guarantee goes", "good")
    found = answers.answer_private(card("end-to-end", epsilon=4.0), audit(NO_LEAK, is_leak=True))
    assert (found.verdict, found.tone) == ("Leak found", "bad")


@pytest.mark.parametrize("guarantee", ["none", "selection"])
@pytest.mark.parametrize("verdict", [None, LEAK, NO_LEAK, FEW])
def test_private_is_never_green_without_a_guarantee(guarantee: str, verdict: str | None) -> None:
    found = answers.answer_private(card(guarantee), audit(verdict) if verdict else None)
    assert found.tone in {"bad", "unsure"}
    assert found.verdict == ("Leak found" if verdict == LEAK else "No guarantee for the texts")


@pytest.mark.parametrize(
    ("epsilon", "secure", "verdict", "tone"),
    [
        (8.0, True, NO_LEAK, "good"),
        (10.0, True, NO_LEAK, "good"),
        (10.001, True, NO_LEAK, "unsure"),
        (None, True, NO_LEAK, "unsure"),
        (8.0, True, None, "unsure"),
        (8.0, True, FEW, "unsure"),
        (8.0, True, "a word of a later version", "unsure"),
        (8.0, True, LEAK, "bad"),
        (8.0, False, NO_LEAK, "bad"),
    ],
)
def test_private_is_green_only_where_all_holds(
    epsilon: float | None, secure: bool, verdict: str | None, tone: str
) -> None:
    found = answers.answer_private(card(epsilon=epsilon, secure=secure), audit(verdict) if verdict else None)
    assert found.tone == tone
    # The report that leaves says nothing of the audit.
    outside = answers.public_answers(card(epsilon=epsilon, secure=secure))
    assert all(answer.tone != "good" for answer in outside)


def test_what_to_do_next_follows_from_the_files(finished: Path) -> None:
    sources = read_private(finished)

    def commands(**changes: object) -> list[str]:
        return [step.command for step in next_steps(replace(sources, **changes), "runs/my run")]  # type: ignore[arg-type]

    assert commands()[:2] == ["rpsg audit 'runs/my run'", "rpsg review 'runs/my run'"]
    assert commands()[-1] == "rpsg release 'runs/my run' --pack"
    # After a leak nothing is packed.
    assert not any("release" in command for command in commands(audit=audit(LEAK)))
    guaranteed = replace(sources.released, card={**sources.released.card, **card()})
    found = commands(released=guaranteed)
    assert found[0].endswith("--nonmembers FILE") and "rpsg review 'runs/my run' --public" in found
    planted = {**sources.released.card["inputs"], "contains_canaries": True}
    marked = replace(sources.released, card={**sources.released.card, "inputs": planted})  # type: ignore[typeddict-item]
    assert commands(released=marked) == ["rpsg canary score", "rpsg run CONFIG"]


def test_the_report_shows_an_audit(run_folder: Path) -> None:
    found = audit(FEW)
    found["findings"].append({**found["findings"][0], "attack": "quiet_one", "decides": False, "value": None})
    found["reasons"], found["notes"] = ["12 members; 100 are the least"], ["a note <b>"]
    keep_audit(run_folder, found)
    write_reports(run_folder)
    page = (run_folder / "private/report.html").read_text()
    assert "Verdict: inconclusive: too few records." in page and "12 members; 100 are the least" in page
    assert page.index("ngram model") < page.index("1 more figures, which do not decide")
    assert page.index("1 more figures, which do not decide") < page.index("quiet one")
    assert "a note &lt;b&gt;" in page and "had too few to find a leak" in page


def test_figures_of_other_texts_are_not_shown(run_folder: Path) -> None:
    assert read_private(run_folder).stale == ()
    keep_audit(run_folder, audit(NO_LEAK))
    path = run_folder / "private/audit/audit.json"
    assert read_private(run_folder).audit is not None
    # Nobody knows of which texts an audit is that does not say so.
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "texts_digest": None}))
    assert read_private(run_folder).audit is None
    path.write_text(before)
    trail = Trail(run_folder / "private/review.jsonl")
    trail.decide(read_released(run_folder / "release").rows[0]["id"] or "", "reject", "rare detail")
    assert apply_review(run_folder).changed
    sources = read_private(run_folder)
    assert sources.stale == ("scores", "audit") and sources.audit is None and sources.metrics is None
    write_reports(run_folder)
    page = unescape((run_folder / "private/report.html").read_text())
    assert "The audit is of other texts" in page and "The scores are of other texts" in page
    assert any("texts before a review" in step.text for step in next_steps(sources, "runs/x"))
    # Taken back, they are of these texts again.
    trail.decide(trail.entries()[0].text_id, "undecided")
    assert apply_review(run_folder).changed and read_private(run_folder).stale == ()


def test_a_card_that_is_not_this_runs_is_never_green(run_folder: Path) -> None:
    assert read_private(run_folder).faults == ()
    path = run_folder / "release/privacy_card.json"
    forged = json.loads(path.read_text())
    forged |= {
        **card(), "inputs": {**forged["inputs"], "guarantee": "end-to-end"}, "releases": forged["releases"]
    }  # fmt: skip
    path.write_text(json.dumps(forged))
    sources = read_private(run_folder)
    told = answers.answer_private(sources.released.card, audit(NO_LEAK), sources.faults)
    assert told.tone == "bad" and told.verdict == "Not as the run wrote it"
    assert answers.answer_private(sources.released.card, audit(NO_LEAK)).tone == "good"
    steps = next_steps(sources, "runs/x")
    assert len(steps) == 1 and steps[0].command == "rpsg release runs/x"
    write_reports(run_folder)
    assert "Not as the run wrote it" in (run_folder / "private/report.html").read_text()


def test_rows_that_are_missing_are_never_green(run_folder: Path) -> None:
    path = run_folder / "release/synthetic.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[5:]))
    (fault,) = read_private(run_folder).faults
    assert fault == "synthetic.jsonl: not byte for byte what the ledger released"


def test_copies_of_private_texts_never_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "copies"
    settings = ("--set", "method=copy", "--set", "guarantee=none", "--set", "evaluate.enabled=false")
    assert call("run", POSTS, "-n", "20", "-o", folder, "-q", *FAKE, *settings) == 0
    assert call("report", folder) == 0
    said = capsys.readouterr().out
    assert said.count("internal, do not share") == 2 and "may leave" not in said
    inside, outside = ((folder / name).read_text() for name in ("private/report.html", "release/report.html"))
    assert "release/report.html may leave" not in inside and "Not for release" in inside
    assert "Never publish this folder" in outside and "--pack" not in inside + outside


def test_a_run_with_canaries_is_not_for_release() -> None:
    planted = card()
    planted["inputs"]["contains_canaries"] = True
    assert answers.answer_private(planted, audit(NO_LEAK)).tone == "bad"


def test_private_shows_the_strongest_attack_and_its_control() -> None:
    found = audit(NO_LEAK)
    found["findings"].append({**found["findings"][0], "attack": "other", "p_value": 0.01, "value": 0.61})
    found["findings"].append(
        {**found["findings"][0], "attack": "described", "p_value": 0.001, "decides": False}
    )
    figures = dict(answers.answer_private(card(), found).figures)
    assert figures["other, AUC"] == "0.61" and figures["95 % interval"] == "0.47 to 0.57"
    assert figures["without a leak"] == "0.5" and figures["epsilon"] == "8 at delta 1e-06"


def score(name: str, value: float | None, **more: object) -> Score:
    base = {"family": "fidelity", "name": name, "value": value, "low": None, "high": None, "n": 50,
            "reference": 0.5, "baseline": 0.9, "better": "lower", "reason": "because"}  # fmt: skip
    return cast("Score", {**base, **more})


@pytest.mark.parametrize(
    ("value", "low", "high", "place_"),
    [
        (0.55, 0.45, 0.65, "as real"),
        (0.4, 0.35, 0.45, "as real"),
        (0.7, 0.65, 0.75, "in between"),
        (0.88, 0.84, 0.92, "as the baseline or worse"),
        (0.99, 0.98, 1.0, "as the baseline or worse"),
        (None, None, None, None),
        # Within its interval of real texts, and of the baseline too.
        (0.7, 0.49, 0.91, "cannot tell"),
        (0.64, 0.25, 1.0, "cannot tell"),
    ],
)
def test_a_figure_stands_between_real_texts_and_the_baseline(
    value: float | None, low: float | None, high: float | None, place_: str | None
) -> None:
    assert answers.place_of(score("x", value, low=low, high=high)) == place_


@pytest.mark.parametrize(
    ("value", "reference", "baseline"),
    [(0.0467, 0.0841, 0.0374), (0.0, 0.0, 0.0)],
    ids=["shuffled", "nothing"],
)
def test_what_learnt_nothing_is_never_called_useful(value: float, reference: float, baseline: float) -> None:
    found = score("label_accuracy topic", value, family="utility", low=0.0, high=0.106, better="higher",
                  reference=reference, baseline=baseline)  # fmt: skip
    answer = answers.answer_useful(cast("Metrics", {"scores": [found], "notes": []}))
    assert (answer.verdict, answer.tone) == ("Too few texts to say", "unsure")
    assert "1 cannot tell real texts from the baseline" in answer.why


def test_copies_are_named_where_figures_look_good() -> None:
    note = "213 synthetic texts are copies of real ones: fidelity and utility are flattered"
    found = score("classifier_auc", 0.51, low=0.47, high=0.55)
    for notes, verdict, tone in (([], "Like real texts", "good"), ([note], "The figures mislead", "unsure")):
        answer = answers.answer_realistic(cast("Metrics", {"scores": [found], "notes": notes}))
        assert (answer.verdict, answer.tone, note in answer.why) == (verdict, tone, bool(notes))


def test_answers_without_scores_say_so() -> None:
    for metrics in (None, cast("Metrics", {"scores": [], "notes": [], "rows": {}, "embedder": None})):
        assert answers.answer_realistic(metrics).verdict == "Not measured"
        assert answers.answer_useful(metrics).tone == "silent"
    unlearnt = score("label_accuracy topic", None, family="utility", reason="too few of each to learn")
    found = answers.answer_useful(cast("Metrics", {"scores": [unlearnt], "notes": []}))
    assert found.verdict == "Not measured" and found.why == "Too few of each to learn."


def test_a_run_ends_with_its_reports(finished: Path) -> None:
    inside, outside = (finished / name for name in ("private/report.html", "release/report.html"))
    assert oct(inside.stat().st_mode)[-3:] == "600"
    page, public = inside.read_text(), outside.read_text()
    statement = json.loads((finished / "release/privacy_card.json").read_text())["statement"]
    for text in (page, public):
        assert all(part in unescape(text) for part in statement.split(". "))
        assert text.index("No end-to-end") < text.index('class="answers"') < text.index("What to do next")
    assert "Internal, not covered by the guarantee" in page and "not audited" in page
    assert "Internal" not in public and "not audited" not in public
    assert "where 213" not in public and "Contours show where" in page


def test_the_report_that_leaves_depends_on_nothing_private(run_folder: Path) -> None:
    report = run_folder / "release/report.html"
    before = report.read_bytes()
    config = run_folder / "private/config.yaml"
    config.write_text(config.read_text().replace(str(POSTS), "/elsewhere/posts.jsonl"))
    keep_audit(run_folder, audit(LEAK))
    scores = run_folder / "private/scores/metrics.json"
    scores.write_text(scores.read_text().replace("0.", "0.1"))
    (run_folder / "private/events.jsonl").write_text("")
    for path in (run_folder / "private/scores").glob("vectors*"):
        path.unlink()
    inside = (run_folder / "private/report.html").read_bytes()
    write_reports(run_folder)
    assert (run_folder / "private/report.html").read_bytes() != inside
    assert "Leak found" in (run_folder / "private/report.html").read_text()
    assert report.read_bytes() == before
    shutil.rmtree(run_folder / "private")
    assert write_reports(run_folder) == [report]
    assert report.read_bytes() == before


def runs_of(text: str) -> set[str]:
    words = text.split()
    return {" ".join(words[i : i + 8]) for i in range(len(words) - 7)}


def test_no_private_text_is_in_a_report(finished: Path) -> None:
    private = [json.loads(line)["text"] for line in POSTS.read_text(encoding="utf-8").splitlines()]
    runs = set().union(*map(runs_of, private)) - runs_of((finished / "release/synthetic.jsonl").read_text())
    assert len(runs) > 1000
    for part in ("private", "release"):
        page = (finished / f"{part}/report.html").read_text()
        # What a browser shows, and the data of charts and texts.
        shown = unescape(page).replace('\\"', '"').replace("\\n", " ")
        assert not runs & runs_of(shown)


def test_a_report_that_fails_loses_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> list[Path]:
        raise ValueError("private text")

    monkeypatch.setattr("rpsg.report.page.write_reports", fail)
    assert call("run", POSTS, "-n", "4", "-o", tmp_path / "one", *FAKE) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "no report (ValueError)" in shown and "private text" not in shown and "rpsg report" in shown
    assert (tmp_path / "one/release/privacy_card.json").exists()


def test_report_and_compare_refuse_what_is_no_run(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("report", tmp_path) == 2
    (tmp_path / "half/private").mkdir(parents=True)
    (tmp_path / "half/manifest.json").write_text("{}")
    with pytest.raises((RunDirError, ConfigError)):
        write_reports(tmp_path / "half")
    assert call("compare", finished) == 2
    assert "two runs or more" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"verdict": "leak found", "findings": [{}]}'])
def test_an_odd_audit_is_refused_by_name(run_folder: Path, content: str) -> None:
    (run_folder / "private/audit").mkdir()
    (run_folder / "private/audit/audit.json").write_text(content)
    with pytest.raises(RunDirError, match=r"audit\.json"):
        write_reports(run_folder)


def test_a_release_of_no_text_is_reported(run_folder: Path) -> None:
    (run_folder / "release/synthetic.jsonl").write_text("")
    write_reports(run_folder)
    page = unescape((run_folder / "private/report.html").read_text())
    assert "scores" in read_private(run_folder).stale and "Map of the texts" not in page


def test_runs_side_by_side(
    finished: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_audit(run_folder, audit(LEAK))
    table, _ = compare_runs([finished, run_folder])
    # Two folders of one name are told apart.
    assert table.columns == (str(finished), str(run_folder))
    rows = dict(table.groups[0][1])
    assert rows["audit"] == ("not audited", LEAK) and rows["texts"] == ("24", "24")
    assert any("fidelity" in heading for heading, _ in table.groups)
    assert call("compare", finished, run_folder, "-o", tmp_path / "c.html", "--json") == 0
    assert json.loads(capsys.readouterr().out)["audit"][str(run_folder)] == LEAK
    page = (tmp_path / "c.html").read_text()
    assert LEAK in page and "Internal, not covered by the guarantee" in page
    assert call("compare", finished, run_folder, "-o", tmp_path / "no/c.html") == 2


def test_charts_are_what_plotly_draws(finished: Path) -> None:
    from plotly.graph_objects import Figure

    page = (finished / "private/report.html").read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert {"map", "lengths", "label-0", "funnel", "rejections"} <= set(data["charts"])
    for spec in data["charts"].values():
        Figure(spec, skip_invalid=False)


def test_the_last_bar_of_lengths_is_whole() -> None:
    texts = ["word " * n for n in (5, 5, 20)]
    (trace,) = cast("list[dict[str, Any]]", length_chart(texts, None).spec["data"])
    # A step from each edge to the next: the last one has a width too.
    assert trace["line"]["shape"] == "hv" and len(trace["x"]) == len(trace["y"]) == 25
    assert trace["x"][-1] > trace["x"][-2] and trace["y"][-2:] == [0.3333, 0.3333]


def test_labels_that_look_alike_keep_their_bars() -> None:
    long = "a" * 40
    chart = label_chart("topic", [f"{long}1", f"{long}2", "<b>x</b>", None], None, number=0)
    axis = cast("dict[str, Any]", chart.spec["layout"])["yaxis"]
    assert len(axis["tickvals"]) == 4 and "&lt;b&gt;x&lt;/b&gt;" in axis["ticktext"]
    assert length_chart([], None).rows[0][1] == "none"
    scores = [
        {"family": "utility", "name": f"accuracy_{long}{end}", "value": 0.5, "low": 0.4, "high": 0.6}
        | {"reference": 0.7, "baseline": 0.52}
        for end in ("1", "2\u202e")
    ]
    drawn = utility_chart(cast("Any", scores))
    assert drawn is not None and "\u202e" not in drawn.alt
    assert [trace["y"] for trace in cast("list[dict[str, Any]]", drawn.spec["data"])] == [[0, 1]] * 3


def test_no_value_of_a_page_hides_or_turns_what_stands_beside_it() -> None:
    page = environment().from_string("{{ a }} {{ b|join(', ') }} {{ c }}")
    assert page.render(a="x\u202ey", b=["<b>", "\u200b"], c=Markup("<i>")) == (
        "x⟨U+202E⟩y &lt;b&gt;, ⟨U+200B⟩ <i>"
    )


def test_a_script_element_cannot_be_ended_by_data() -> None:
    text = str(embed_json({"a": "</script><!--<script>&\u2028"}))
    assert not set("<>&\u2028") & set(text) and json.loads(text)["a"].startswith("</script>")


def test_the_map_is_the_same_each_time_and_shows_no_single_real_text() -> None:
    texts = [f"word{i % 5} and thing{i % 3} were late" for i in range(40)]
    first, second = (place(*_split(vectors_of_words(texts), 30)) for _ in range(2))
    assert (first[0].positions == second[0].positions).all() and first[0].positions.shape == (10, 2)
    assert first[1] is not None and first[1].n == 30
    # Fewer real texts would show as single hills.
    assert place(*_split(vectors_of_words(texts), 10))[1] is None
    assert vectors_of_words(["?", "!"]).shape == (2, 2)


def _split(vectors: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    return vectors[:n], vectors[n:]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_every_kind_of_release_is_read(tmp_path: Path, run_folder: Path, suffix: str) -> None:
    rows = [
        SyntheticText(text_id="a", text="One, two.\n\u2028Three", labels={"topic": "x"}, paid_by=1),
        SyntheticText(text_id="b", text="Four", labels={}, paid_by=1),
    ]
    write_rows(to_table(rows, ["topic"]), tmp_path / f"synthetic.{suffix}")
    shutil.copy(run_folder / "release/privacy_card.json", tmp_path)
    found = read_released(tmp_path)
    assert found.rows == (
        {"id": "a", "text": "One, two.\n\u2028Three", "topic": "x"},
        {"id": "b", "text": "Four", "topic": None},
    )
    assert found.labels == ("topic",) and found.texts()[1] == "Four"


def test_a_page_shows_no_more_than_can_be_drawn(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpsg.report.page._MOST_SHOWN", 10)
    write_reports(run_folder)
    for part in ("private", "release"):
        page = (run_folder / f"{part}/report.html").read_text()
        data = json.loads(page.split('id="data">')[1].split("</script>")[0])
        assert len(data["texts"]) == 10 and "10 of 24 synthetic texts" in page
        assert all(len(trace["x"]) == 10 for trace in data["charts"]["map"]["data"] if "customdata" in trace)


def test_one_text_without_a_word_is_drawn(run_folder: Path) -> None:
    path = run_folder / "release/synthetic.jsonl"
    path.write_text('{"id": "a", "text": "?!", "topic": null}\n')
    assert "?!" in render_public(read_released(run_folder / "release"), load_assets())
    path.write_text("")
    assert "What to do next" in render_public(read_released(run_folder / "release"), load_assets())
