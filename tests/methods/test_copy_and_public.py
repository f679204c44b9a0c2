"""The floor and the ceiling of every comparison: public prompts alone, and private texts word for word."""

import json
import stat
from pathlib import Path

import pytest

from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.errors import BudgetExceeded, ConfigError, PrivacyError
from rpsg.pipeline import plan, plan_releases, plan_tasks, run, statement_of
from rpsg.privacy.budget import Budget
from rpsg.privacy.card import build_card
from rpsg.privacy.card_file import check_card, read_card
from rpsg.privacy.ledger import read_run
from rpsg.types import PrivateCorpus
from test_pipeline import config as base_config


@pytest.fixture(scope="module")
def corpus() -> PrivateCorpus:
    return read_corpus(sample_path("posts_train.jsonl"), label_columns=("topic",))


def config(folder: Path, method: str, **changes: object) -> RunConfig:
    values = base_config(folder).model_dump(mode="json", exclude_unset=True)
    del values["guarantee"]
    return RunConfig.parse({**values, "method": method, **changes})


def test_copies_are_private_texts_and_the_card_forbids_publishing(
    tmp_path: Path, corpus: PrivateCorpus
) -> None:
    settings = config(tmp_path / "run", "copy")
    result = run(settings, corpus)
    private = {record.text: record.labels["topic"] for record in corpus.records}
    assert len(result.texts) == 20 and len({item.text for item in result.texts}) == 20
    assert all(private[item.text] == item.labels["topic"] for item in result.texts)
    card, _ = read_card(result.folder / "release/privacy_card.json")
    assert "Never publish it." in card.statement == result.statement == statement_of(settings, corpus)
    assert card.inputs.method == "copy" and card.inputs.guarantee == "none"
    assert card.attacker == "Whoever reads the files reads the private texts."
    assert card.inputs.data_flow == ()
    assert (result.folder / "release/README.md").read_text().startswith("# Never publish this folder")
    assert stat.S_IMODE((result.folder / "release").stat().st_mode) == 0o700
    ledger = read_run(tmp_path / "run/private/ledger.sqlite")
    assert check_card(result.folder / "release/privacy_card.json", ledger=ledger) == []
    assert run(settings, corpus).texts == result.texts


def test_held_out_records_are_never_copied(tmp_path: Path, corpus: PrivateCorpus) -> None:
    sizes = plan(config(tmp_path / "x", "copy", n=None), corpus)
    everything = run(config(tmp_path / "run", "copy", n=sizes.n_pool), corpus)
    assert len(everything.texts) == sizes.n_pool == len(corpus) - sizes.n_calibration
    with pytest.raises(ConfigError, match="largest possible n"):
        run(config(tmp_path / "more", "copy", n=sizes.n_pool + 1), corpus)


def test_copies_are_refused_where_the_data_have_a_budget(tmp_path: Path, corpus: PrivateCorpus) -> None:
    Budget.create(corpus, name="posts", epsilon=8, delta=1e-6).close()
    with pytest.raises(BudgetExceeded, match="--outside-budget"):
        run(config(tmp_path / "run", "copy"), corpus)
    assert not (tmp_path / "run").exists()
    assert (
        "Outside the data budget"
        in run(config(tmp_path / "run", "copy", outside_budget=True), corpus).statement
    )


def test_a_card_of_copies_cannot_pass_for_another(tmp_path: Path, corpus: PrivateCorpus) -> None:
    run(config(tmp_path / "run", "copy"), corpus)
    card, _ = read_card(tmp_path / "run/release/privacy_card.json")
    lines, _ = read_run(tmp_path / "run/private/ledger.sqlite")
    forged = card.inputs.model_copy(update={"method": "public", "guarantee": "end-to-end", "epsilon": 0.0})
    with pytest.raises(PrivacyError):
        build_card(forged, lines)
    with pytest.raises(PrivacyError, match="copies"):
        build_card(card.inputs, [*lines, *lines])
    with pytest.raises(PrivacyError, match="does not give"):
        build_card(card.inputs.model_copy(update={"guarantee": "selection", "epsilon": 4.0}), lines)


DECLARED = {
    "path": "unused",
    "label_columns": ["topic"],
    "label_values": {"topic": ["eviction", "debt", "custody", "insomnia", "probation"]},
}


def test_public_is_an_end_to_end_run_at_epsilon_0(tmp_path: Path, corpus: PrivateCorpus) -> None:
    settings = config(tmp_path / "run", "public", data=DECLARED)
    assert (settings.guarantee, settings.epsilon, settings.n_units_bound) == ("end-to-end", 0.0, None)
    result = run(settings, corpus)
    assert len(result.texts) == 20
    card, _ = read_card(result.folder / "release/privacy_card.json")
    assert card.figures[0].epsilon == 0.0
    assert card.statement.endswith("they come from public prompts and declared labels.")
    assert [line.mechanism for line in card.releases] == ["PaidTexts"]
    assert plan_releases(settings, corpus)[-1].signal == "20 texts, written from public prompts alone"
    assert [task.task for task in plan_tasks(settings, corpus)] == ["write"]


def test_public_texts_do_not_depend_on_the_private_ones(tmp_path: Path, corpus: PrivateCorpus) -> None:
    other = read_corpus(sample_path("posts_test.jsonl"), label_columns=("topic",))
    one = run(config(tmp_path / "a", "public", data=DECLARED), corpus)
    two = run(config(tmp_path / "b", "public", data=DECLARED), other)
    assert sorted(item.text for item in one.texts) == sorted(item.text for item in two.texts)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "copy", "guarantee": "selection"}, "guarantee: none"),
        ({"method": "public", "guarantee": "none"}, "guarantee: end-to-end"),
        ({"method": "public", "n": 5, "epsilon": 4}, "its epsilon is 0"),
        ({"method": "public"}, "n must be set"),
        ({"method": "augpe", "n": 5, "n_units_bound": 100, "epsilon": 0}, "use method: public"),
        ({"method": "augpe", "n": 5, "epsilon": 4}, "n_units_bound must be set"),
        ({"method": "augpee"}, "method"),
        ({"method": "copy", "epsilon": 4}, "no meaning"),
    ],
)
def test_settings_that_do_not_fit_the_method_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.parse(values)


def test_a_method_is_chosen_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_cli import FAKE, POSTS, call

    monkeypatch.chdir(tmp_path)
    assert call("run", POSTS, "--method", "copy", "-n", "6", "-o", "out", *FAKE) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        shown.startswith("Privacy: No protection of any kind")
        and "private texts copied word for word" in shown
    )
    copies = [
        json.loads(line) for line in (tmp_path / "out/release/synthetic.jsonl").read_text().splitlines()
    ]
    # A terminal's output is kept in logs: no copy is shown as an example.
    assert len(copies) == 6 and not any(row["text"][:40] in shown for row in copies)
    Path("rpsg.yaml").write_text(f"data:\n  path: {POSTS}\nmethod: copy\nn: 6\n")
    assert call("plan", "rpsg.yaml", "--json") == 0
    page = json.loads(capsys.readouterr().out)
    assert [line["release"] for line in page["releases"]] == ["texts"] and page["calls"] == []
    assert call("validate", "rpsg.yaml") == 0
    assert "Never publish it." in " ".join(capsys.readouterr().out.split())
