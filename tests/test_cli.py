import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from rpsg import cli, console_plan, plan_calls
from rpsg.console import print_result
from rpsg.data import sample_path
from rpsg.result import RunResult
from rpsg.types import SyntheticText

POSTS = sample_path("posts_test.jsonl")
FAKE = ["--set", "models.abstract=fake", "--set", "models.write=fake", "--set", "models.embed=hash",
        "--set", "models.sentiment=null", "--set", "refine.pii.enabled=false", "--set",
        "refine.nll.enabled=false", "--set", "write.min_length=20", "--set", "write.max_length=40",
        "--set", "abstract.max_tokens=40", "--set", "generation.chunk_size=16"]  # fmt: skip


def call(*arguments: str | Path) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["rpsg", *map(str, arguments)])
        cli.main()
    return int(end.value.code or 0)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['rpsg', '--help']\n"
        "from rpsg.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pandas', 'pyarrow', 'numpy', 'scipy', 'opendp', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for command in ("init", "validate", "run", "resume", "evaluate", "models", "doctor"):
        assert f"  {command}" in done.stdout


def test_init_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("init", "rpsg.yaml") == 0
    text = Path("rpsg.yaml").read_text().replace("posts.csv", str(POSTS))
    Path("rpsg.yaml").write_text(text)
    assert call("validate", "rpsg.yaml") == 0
    shown = capsys.readouterr().out
    assert "No end-to-end differential privacy." in shown and "Nothing was spent." in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rpsg.yaml"]
    assert call("validate", "rpsg.yaml", "--json") == 0
    page = json.loads(capsys.readouterr().out)
    assert page["plan"]["n_pool"] + page["plan"]["n_calibration"] == page["plan"]["n_records"]
    assert call("init", "rpsg.yaml") == 2
    assert call("init", "rpsg.yaml", "--force") == 0


def test_run_prints_statement_table_examples_and_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", POSTS, "--label-column", "topic", "-n", "8", "-o", "out", *FAKE) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("Privacy: No end-to-end differential privacy.")
    assert shown.count("No end-to-end differential privacy.") == 2
    assert "What happened" in shown and "texts released" in shown and "out/release" in shown
    assert shown.count("topic: ") >= 5
    assert len((tmp_path / "out/release/synthetic.jsonl").read_text().splitlines()) == 8


def test_a_text_cannot_write_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = SyntheticText(
        text_id="a", text="Hello \x1b]0;owned\x07 \u202e there", labels={"topic": "\x1b[2J"}, paid_by=1
    )
    result = RunResult(
        texts=(text,), label_columns=("topic",), statement="None.", folder=Path("run"), counts={},
        rejected={}, notes=(), n_wanted=1,
    )  # fmt: skip
    print_result(result, quiet=False, as_json=False)
    shown = capsys.readouterr().out
    assert "Hello" in shown and "U+001B" in shown and "U+202E" in shown
    assert "\x1b]0" not in shown and "\x1b[2J" not in shown and "\u202e" not in shown


def test_run_json_and_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", POSTS, "-n", "4", "-o", "one", "--json", *FAKE) == 0
    page = json.loads(capsys.readouterr().out)
    assert page["n_released"] == 4 and page["folder"] == "one"
    assert call("run", POSTS, "-n", "4", "-o", "two", "--quiet", *FAKE) == 0
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == ""


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rpsg import console

    show = console.ProgressView.show

    def stop(self: console.ProgressView, step: object) -> None:
        if getattr(step, "stage", "") == "vote":
            raise KeyboardInterrupt
        show(self, step)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(console.ProgressView, "show", stop)
        assert call("run", POSTS, "-n", "8", "-o", "out", *FAKE) == 130
    assert "rpsg resume out" in capsys.readouterr().err
    assert not (tmp_path / "out/release").exists()
    monkeypatch.chdir("/")
    assert call("resume", tmp_path / "out", "--quiet") == 0
    assert len((tmp_path / "out/release/synthetic.jsonl").read_text().splitlines()) == 8


BAD = {
    "missing file": (["run", "nothing.csv"], "nothing.csv"),
    "missing column": (["run", POSTS, "--text-column", "txt"], "'text'"),
    "missing label": (["run", POSTS, "--label-column", "topik"], "'topic'"),
    "epsilon not a number": (["run", POSTS, "--epsilon", "four"], "epsilon"),
    "epsilon nan": (["run", POSTS, "--epsilon", "nan"], "epsilon"),
    "epsilon negative": (["run", POSTS, "--epsilon", "-1"], "epsilon"),
    "epsilon zero": (["run", POSTS, "--epsilon", "0"], "epsilon"),
    "epsilon without noise": (["run", POSTS, "--guarantee", "none", "--epsilon", "4"], "no meaning"),
    "unknown key": (["run", POSTS, "--set", "vote.surviv=0.5"], "'survive'"),
    "setting without value": (["run", POSTS, "--set", "vote"], "KEY=VALUE"),
    "unknown preset": (["run", POSTS, "--preset", "large"], "preset"),
    "too many": (["run", POSTS, "-n", "100000"], "largest possible n"),
    "unknown model": (["run", POSTS, "--set", "models.embed=all-minilm"], "all-minilm-l6-v2"),
    "no configuration": (["validate", "none.yaml"], "rpsg init none.yaml"),
    "no run": (["resume", "nowhere"], "holds no run"),
    "label like an id": (["run", POSTS, "--label-column", "id"], "id"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_gets_one_message_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, hint = BAD[name]
    extra = ["-o", "out"] if arguments[0] == "run" else []
    assert call(*arguments, *extra) == 2
    printed = capsys.readouterr()
    assert printed.err.count("Error: ") == 1 and len(printed.err.strip().splitlines()) == 1
    assert hint in printed.err
    assert not (tmp_path / "out" / "release").exists()
    if name != "unknown model":
        assert list(tmp_path.iterdir()) == []


def test_text_in_another_language_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["text"] + [
        f"Hoy perdí el trabajo número {i} y no sé cómo voy a pagar el alquiler de mi casa este mes."
        for i in range(30)
    ]
    Path("es.csv").write_text("\n".join(lines))
    assert call("run", "es.csv", "-o", "out") == 2
    assert "es" in capsys.readouterr().err
    assert not Path("out").exists()


def test_models_and_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("models", "--json") == 0
    found = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert found["smollm2-135m-instruct"]["licence"] == "Apache-2.0"
    assert len(found["all-minilm-l6-v2"]["sha256"]) == 64
    assert call("models") == 0
    assert "smollm2-135m-instruct" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find_spec(name))
        assert call("doctor") == 0
    assert 'pip install "rpsg[ray]"' in " ".join(capsys.readouterr().out.split())
    assert call("doctor") == 0
    assert "MISSING" not in capsys.readouterr().out


# --- budgets, plans, cards -----------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Returns the one message with which a command ends."""
    capsys.readouterr()
    assert call(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("Error: ")
    assert len(printed.err.strip().splitlines()) == 1
    return printed.err


def write_config(text: str) -> Path:
    path = Path("rpsg.yaml")
    path.write_text(f"data:\n  path: {POSTS}\n{text}")
    return path


def test_plan_prints_the_ledger_in_advance_and_spends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config("n: 8\nepsilon: 4\n")
    assert call("plan", config) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "No end-to-end differential privacy." in shown and shown.endswith("Nothing was spent.")
    assert "choice of summaries" in shown and "vote" in shown and "texts" in shown
    assert call("plan", config, "--json") == 0
    rows = {row["release"]: row for row in json.loads(capsys.readouterr().out)["releases"]}
    assert rows["choice of summaries"]["cost"].startswith("epsilon 4 (pure, replace-one)")
    assert "sigma 1.194: epsilon 4 at delta 1e-06" in rows["vote"]["cost"]
    assert rows["texts"]["cost"] == "epsilon infinite: no noise"
    assert [path.name for path in tmp_path.iterdir()] == ["rpsg.yaml"]


@pytest.mark.parametrize("has_half", [True, False])
def test_a_dry_run_says_of_a_data_file_what_plan_says_of_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, has_half: bool
) -> None:
    for module in (plan_calls, console_plan):
        monkeypatch.setattr(module, "has_half_precision", lambda: has_half)
    config = write_config("n: 8\nepsilon: 4\n")
    assert call("plan", config, "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert call("run", POSTS, "-n", "8", "--epsilon", "4", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out) == planned
    tokens = sum(task["n_tokens"] for task in planned["calls"])
    assert planned["seconds_on_two_cores"] == pytest.approx((1 if has_half else 3) * tokens / 260)
    assert call("run", POSTS, "-n", "8", "--epsilon", "4", "--dry-run") == 0
    assert ("has no bfloat16" in capsys.readouterr().out) is not has_half
    assert [path.name for path in tmp_path.iterdir()] == ["rpsg.yaml"]
    assert call("run", POSTS, "-n", "8", "--dry-run", *FAKE) == 0
    assert "two quiet cores" not in capsys.readouterr().out
    # Without options a data file has a plan of its own, by the same defaults.
    assert call("plan", POSTS, "--json") == 0
    by_default = capsys.readouterr().out
    assert call("run", POSTS, "--dry-run", "--json") == 0
    assert capsys.readouterr().out == by_default
    assert call("validate", POSTS) == 0
    assert "Configuration and data are fine" in capsys.readouterr().out


def test_plan_warns_where_the_noise_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", write_config("n: 60\nepsilon: 0.05\n")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning: choice of summaries: the choice is little better than blind" in shown
    assert "warning: vote:" in shown and "drown in noise" in shown


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("epsilon: -1\n", "epsilon"),
        ("n: 100000\n", "largest possible n"),
        ("noise_seed: 7\n", "'noise_seed'; privacy noise is never seeded or set by hand"),
        ("vote:\n  noise: 0.1\n", "'vote.noise'; privacy noise is never seeded or set by hand"),
        ("delta: 1e-4\nn_units_bound: 10000\n", "delta 0.0001 must be below 1/n_units_bound = 0.0001"),
        ("n_units_bound: 0\n", "n_units_bound"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "validate", "run"])
def test_a_configuration_that_costs_privacy_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, text: str, hint: str
) -> None:
    assert hint in refused(capsys, command, write_config(text))
    assert [path.name for path in tmp_path.iterdir()] == ["rpsg.yaml"]


def test_a_delta_below_one_over_the_bound_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", write_config("delta: 1e-5\nn_units_bound: 10000\n"), "--json") == 0
    assert "at delta 1e-05" in capsys.readouterr().out


def test_plan_without_a_file_says_how_to_get_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "rpsg init none.yaml" in refused(capsys, "plan", "none.yaml")


def test_budgets_are_made_once_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("budget", "show") == 0
    assert "There is no data budget" in capsys.readouterr().out
    assert call("budget", "init", POSTS, "--epsilon", "8") == 0
    assert "Budget of posts_test.jsonl: epsilon 8 at delta 1e-06." in capsys.readouterr().out
    assert call("budget", "show", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["epsilon"], found["spent_epsilon"]) == ("posts_test.jsonl", 8.0, 0.0)
    assert (found["runs"], found["outside"]) == (0, 0)
    assert call("budget", "show") == 0
    assert "posts_test.jsonl" in capsys.readouterr().out
    assert "have a budget already" in refused(capsys, "budget", "init", POSTS, "--epsilon", "8")


BAD_BUDGETS = {
    "missing file": (["nothing.csv", "--epsilon", "8"], "nothing.csv"),
    "epsilon zero": ([POSTS, "--epsilon", "0"], "positive epsilon"),
    "epsilon infinite": ([POSTS, "--epsilon", "inf"], "positive epsilon"),
    "delta one": ([POSTS, "--epsilon", "8", "--delta", "1"], "delta between 0 and 0.01"),
    "missing column": ([POSTS, "--epsilon", "8", "--unit-column", "nobody"], "no column 'nobody'"),
}


@pytest.mark.parametrize("name", list(BAD_BUDGETS))
def test_a_budget_that_cannot_be_is_refused(capsys: pytest.CaptureFixture[str], name: str) -> None:
    arguments, hint = BAD_BUDGETS[name]
    assert hint in refused(capsys, "budget", "init", *arguments)
    assert call("budget", "show", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_run_outside_the_budget_must_be_asked_for_and_is_remembered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("budget", "init", POSTS, "--epsilon", "8") == 0
    run = ["run", POSTS, "-n", "4", "-o", "out", "--quiet", *FAKE]
    assert "add --outside-budget" in refused(capsys, *run)
    assert not Path("out").exists()
    assert call(*run, "--outside-budget") == 0
    note = "Outside the data budget: 1 run(s) on these data were not charged to it."
    assert json.loads(Path("out/release/privacy_card.json").read_text())["statement"].endswith(note)
    assert note in Path("out/release/README.md").read_text()
    assert call("budget", "show", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["outside"], found["runs"]) == (1, 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run and the state folder that its ledger's head is kept in."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        assert call("run", POSTS, "-n", "4", "-o", folder / "out", "--quiet", *FAKE) == 0
    return folder


@pytest.fixture
def card(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished run's card, with the page beside it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(finished / "state"))
    for name in ("privacy_card.json", "privacy_card.md"):
        (tmp_path / name).write_bytes((finished / "out/release" / name).read_bytes())
    return tmp_path / "privacy_card.json"


def forge(card: Path) -> None:
    values = json.loads(card.read_text())
    values["releases"].pop(1)
    card.write_text(json.dumps(values))
    card.with_suffix(".md").unlink()


def test_a_card_is_checked_alone_and_with_its_ledger(
    card: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("card", "check", card) == 0
    assert "Not checked: whether a line was left out." in capsys.readouterr().out
    assert call("card", "check", card, "--ledger", finished / "out") == 0
    assert "Not checked" not in capsys.readouterr().out
    forge(card)
    assert call("card", "check", card) == 0
    message = refused(capsys, "card", "check", card, "--ledger", finished / "out")
    assert "the card's lines are not the ledger's" in message
    assert "holds no run" in refused(capsys, "card", "check", card, "--ledger", "nowhere")


def test_a_card_whose_words_do_not_follow_is_refused(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = json.loads(card.read_text())
    card.write_text(json.dumps({**values, "statement": "The released texts are anonymous."}))
    assert "does not hold: statement" in refused(capsys, "card", "check", card)
    card.write_text("{")
    assert "is no JSON object" in refused(capsys, "card", "check", card)
    assert "cannot read" in refused(capsys, "card", "check", "none.json")


def test_a_signed_card_holds_until_it_is_edited(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("card", "keygen", "key") == 0
    public = capsys.readouterr().out.removeprefix("Public key: ").strip()
    assert len(public) == 64 and Path("key").stat().st_mode & 0o077 == 0
    assert "is not signed" in refused(capsys, "card", "check", card, "--public-key", public)
    assert call("card", "sign", card, "--key", "key") == 0
    assert public in capsys.readouterr().out
    assert call("card", "check", card, "--public-key", public) == 0
    forge(card)
    assert "changed after it was signed" in refused(capsys, "card", "check", card, "--public-key", public)


def test_keys_that_cannot_be_used_are_refused(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "make one with: rpsg card keygen" in refused(capsys, "card", "sign", card, "--key", "none")
    Path("key").write_text("zz")
    assert "is no key" in refused(capsys, "card", "sign", card, "--key", "key")
    assert "a key is never overwritten" in refused(capsys, "card", "keygen", "key")
    assert "cannot write the key" in refused(capsys, "card", "keygen", "no/folder/key")
    assert "signature" not in json.loads(card.read_text())


def test_the_schema_is_printed(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("card", "schema") == 0
    page = json.loads(capsys.readouterr().out)
    assert set(json.loads(card.read_text())) <= set(page["properties"])
    assert set(page["required"]) <= set(json.loads(card.read_text()))


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"rpsg {importlib.metadata.version('rpsg')}\n"
