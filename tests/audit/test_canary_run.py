"""`rpsg canary` from the command line: spending shown first, the mark on a run, no publishing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rpsg import auditing, pipeline
from rpsg.audit.control import Control
from rpsg.audit.finding import Finding, Game
from rpsg.audit.result import Audit
from rpsg.audit.verdict import judge
from rpsg.canaries import join_canaries
from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.errors import DataError, RunDirError
from rpsg.privacy.budget import Budget, Cost, budgets_of
from rpsg.rundir import RunDir
from test_cli import call

POSTS = sample_path("posts_train.jsonl")
SETTINGS = {
    "guarantee": "end-to-end",
    "epsilon": 4.0,
    "n": 6,
    "n_units_bound": 10_000,
    "models": {"abstract": "fake", "write": "fake", "embed": "hash", "sentiment": None},
    "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}},
    "write": {"min_length": 20, "max_length": 40},
    "evaluate": {"enabled": False},
    "data": {"path": str(POSTS)},
}
PLANT = ("canary", "plant", "rpsg.yaml", "-o", "planted.jsonl", "--secrets", "secrets.json", "-n", "22")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    Path("rpsg.yaml").write_text(json.dumps(SETTINGS))


def run_planted(guarantee: str = "end-to-end") -> RunDir:
    changes: dict[str, object] = {
        "guarantee": guarantee,
        "data": {"path": "planted.jsonl"},
        "output": {"folder": "runs/c"},
    }
    if guarantee == "none":
        changes["epsilon"] = None
    config = RunConfig.parse({**SETTINGS, **changes})
    pipeline.run(config, pipeline.load_corpus(config))
    return RunDir.open(Path("runs/c"))


def test_what_both_runs_spend_is_said_before_anything_is_planted(capsys: pytest.CaptureFixture[str]) -> None:
    corpus = read_corpus(POSTS)
    Budget.create(corpus, name="posts", epsilon=5.0, delta=1e-6).close()
    assert call(*PLANT, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "Each spends epsilon 4 at delta 1e-06; together they spend 6" in shown
    assert "spent 0 now, 4 after the canary run, 6 after the clean run, which it does not hold" in shown
    assert "could show epsilon 1.9 (one run) or 0.9 (two-sided) with 22 canaries" in shown
    assert sorted(path.name for path in Path().iterdir()) == ["rpsg.yaml"]
    # What was announced is what is charged: the planted file is known by the people it shares.
    assert call(*PLANT, "--quiet") == 0
    run_planted()
    (budget,) = budgets_of(corpus)
    assert budget.state().spent_epsilon == pytest.approx(4.0, abs=1e-3)
    budget.close()


def test_a_cost_of_two_runs() -> None:
    cost = Cost(mu2=0.5, rho=0.25, delta=1e-8)
    assert cost.times(2) == Cost(mu2=1.0, rho=0.5, delta=2e-8)
    assert Cost(mu2=None, rho=0.25, delta=0.0).times(2) == Cost(mu2=None, rho=0.5, delta=0.0)


def test_a_planting_prints_no_coin_and_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*PLANT) == 0
    shown = capsys.readouterr()
    secrets = json.loads(Path("secrets.json").read_text())
    for text in (shown.out, shown.err):
        assert not any(c["text"] in text or c["canary_id"] in text for c in secrets["canaries"])
    assert oct(Path("secrets.json").stat().st_mode)[-3:] == "600"
    assert call(*PLANT) == 2
    assert "never overwritten" in capsys.readouterr().err
    # Other coins, the same words: not even how many are in is told.
    for path in Path().glob("[ps]*.json*"):
        path.rename(f"old-{path.name}")
    assert call(*PLANT) == 0
    again = json.loads(Path("secrets.json").read_text())
    assert [c["is_in"] for c in again["canaries"]] != [c["is_in"] for c in secrets["canaries"]]
    assert capsys.readouterr().out == shown.out


@pytest.mark.parametrize("guarantee", ["end-to-end", "none"])
def test_the_mark_is_on_the_run_its_card_and_its_data_card(guarantee: str) -> None:
    assert call(*PLANT, "--quiet") == 0
    # The mark beside the file is lost; the texts are known all the same.
    Path("planted.jsonl.canaries").unlink()
    run = run_planted(guarantee)
    assert json.loads(run.manifest.read_text())["contains_canaries"] is True
    card = json.loads((run.release / "privacy_card.json").read_text())
    assert card["inputs"]["contains_canaries"] is True
    for name in ("privacy_card.md", "README.md"):
        assert "this run is not to be published" in (run.release / name).read_text()
    assert call("card", "check", "runs/c/release/privacy_card.json", "--ledger", "runs/c") == 0


def test_what_publishes_refuses_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*PLANT, "--quiet") == 0
    run = run_planted()
    with pytest.raises(RunDirError, match="without canaries"):
        run.check_publishable()
    assert call("card", "keygen", "key") == 0
    assert call("card", "sign", "runs/c/release/privacy_card.json", "--key", "key") == 2
    assert "planted canaries" in capsys.readouterr().err
    assert "signature" not in (run.release / "privacy_card.json").read_text()
    # An edited manifest does not help: the card says it too.
    run.manifest.write_text(run.manifest.read_text().replace("true", "false"))
    with pytest.raises(RunDirError, match="without canaries"):
        run.check_publishable()


def test_a_run_of_clean_data_has_no_mark() -> None:
    assert call(*PLANT, "--quiet") == 0
    config = RunConfig.parse({**SETTINGS, "output": {"folder": "runs/clean"}})
    result = pipeline.run(config, pipeline.load_corpus(config))
    run = RunDir.open(Path("runs/clean"))
    run.check_publishable()
    assert "contains_canaries" not in run.manifest.read_text()
    assert "canaries" not in result.statement


def test_a_run_that_goes_on_keeps_the_mark_it_lost() -> None:
    assert call(*PLANT, "--quiet") == 0
    run = run_planted()
    run.manifest.write_text(json.dumps({"run_id": run.run_id, "layout": 1}))
    (run.release / "privacy_card.json").unlink()
    assert not run.contains_canaries
    assert run_planted().contains_canaries


def test_the_statement_before_a_run_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*PLANT, "--quiet") == 0
    capsys.readouterr()
    Path("planted.yaml").write_text(json.dumps({**SETTINGS, "data": {"path": "planted.jsonl"}}))
    assert call("validate", "planted.yaml") == 0
    assert "not to be published" in capsys.readouterr().out
    assert call("validate", "rpsg.yaml") == 0
    assert "not to be published" not in capsys.readouterr().out


def test_score_of_a_run_and_of_any_file(capsys: pytest.CaptureFixture[str]) -> None:
    # Few canaries of one kind: with five of a kind all coins may fall on one side.
    assert call(*PLANT, "--kind", "tail", "--quiet") == 0
    run_planted()
    capsys.readouterr()
    by_words = "--no-language-models"
    assert call("canary", "score", "secrets.json", "--run", "runs/c", by_words, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["findings"]
    (bound,) = [row for row in rows if row["attack"] == "all_kinds" and "one run" in row["statistic"]]
    assert "claimed: 4" in bound["detail"] and bound["value"] < 1.9
    # Copied through: the planted file itself as the release.
    copied = ("canary", "score", "secrets.json", "--synthetic", "planted.jsonl")
    assert call(*copied, by_words, "--json") == 3
    rows = json.loads(capsys.readouterr().out)["findings"]
    (bound,) = [row for row in rows if row["attack"] == "all_kinds" and "one run" in row["statistic"]]
    assert 1.2 < bound["value"] < 1.9
    assert call(*copied, by_words) == 3
    shown = capsys.readouterr().out
    assert "Verdict: leak found" in shown and "100: 3.5 / 2.6; 500: 5.1 / 4.2; 1,000: 5.8 / 4.9" in shown
    assert "of 22 guesses right" in shown and "no finite epsilon is claimed" in shown
    secrets = json.loads(Path("secrets.json").read_text())
    assert not any(canary["text"][:40] in shown for canary in secrets["canaries"])


def test_scores_that_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*PLANT, "--quiet") == 0
    for arguments, message in (
        ((), "name what to score"),
        (("--run", "runs/none"), "holds no run"),
        (("--synthetic", "nothing.csv"), "does not exist"),
    ):
        assert call("canary", "score", "secrets.json", *arguments) == 2
        assert message in capsys.readouterr().err
    config = RunConfig.parse({**SETTINGS, "output": {"folder": "runs/clean"}})
    pipeline.run(config, pipeline.load_corpus(config))
    assert call("canary", "score", "secrets.json", "--run", "runs/clean") == 2
    assert "not made from planted data" in capsys.readouterr().err
    assert call("canary", "plant", "rpsg.yaml", "-o", "p.csv", "--secrets", "s.json", "--kind", "bird") == 2
    assert "suffix, sampled, fact, tail" in capsys.readouterr().err


def test_canaries_join_the_audit_of_a_run() -> None:
    own = Finding(
        family="membership", attack="nearest", statistic="AUC", value=0.5, p_value=0.5, n_members=200,
        n_nonmembers=200, decides=True,
    )  # fmt: skip
    audit = Audit(
        verdict=judge([own], n_members=200, n_nonmembers=200), control=Control(auc=0.5, p_value=0.5),
        findings=(own,), n_members=200, n_nonmembers=200, n_synthetic=9, relation="", seconds={}, seed=0,
    )  # fmt: skip
    refuted = replace(own, family="canary", attack="all_kinds", decides=False, is_leak=True)
    joined = join_canaries(audit, [refuted, replace(own, family="canary", p_value=0.004)])
    assert audit.verdict.word != "leak found" and joined.verdict.word == "leak found"
    # Holm's adjustment is over all of them: 0.004 becomes 0.008.
    assert joined.verdict.p_smallest == pytest.approx(0.008)
    assert [item.decides for item in joined.findings] == [True, True, False]


def test_planted_records_are_on_neither_side_of_an_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(*PLANT, "--quiet") == 0
    run_planted()
    games: list[Game] = []

    def keep(game: Game, *_: object, **__: object) -> None:
        games.append(game)
        raise DataError("enough")

    monkeypatch.setattr(auditing, "audit", keep)
    others = sample_path("posts_test.jsonl")
    assert call("audit", "runs/c", "--nonmembers", others, "--canaries", "secrets.json", "-q") == 2
    secrets = json.loads(Path("secrets.json").read_text())
    planted = {item["text"] for item in secrets["canaries"]}
    assert (
        planted and not planted & set(games[0].members) and len(games[0].members) == len(read_corpus(POSTS))
    )


def test_coins_of_another_planting_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*PLANT, "--quiet") == 0
    run_planted("none")
    other = ("canary", "plant", "rpsg.yaml", "-o", "other.jsonl", "--secrets", "other.json", "-n", "22", "-q")
    assert call(*other) == 0
    assert call("canary", "score", "other.json", "--run", "runs/c") == 2
    assert "of another planting" in capsys.readouterr().err.replace("\n", " ")
    # Planted again under the same names, the data are others than the run was made from.
    for name in ("planted.jsonl", "planted.jsonl.canaries", "secrets.json"):
        Path(name).unlink()
    assert call(*PLANT, "--quiet") == 0
    assert call("canary", "score", "secrets.json", "--run", "runs/c") == 2
    assert "is not what runs/c was made from" in capsys.readouterr().err.replace("\n", " ")


def test_the_coins_are_never_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sub").mkdir()
    for output in ("sub/../same.jsonl", "./same.jsonl"):
        plant = ("canary", "plant", "rpsg.yaml", "-o", output, "--secrets", "same.jsonl", "-n", "22", "-q")
        assert call(*plant) == 2 and not Path("same.jsonl").exists()
    assert "three files" in capsys.readouterr().err.replace("\n", " ")
