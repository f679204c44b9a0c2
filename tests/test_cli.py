import json
import subprocess
import sys
from pathlib import Path

import pytest

from rpsg import cli
from rpsg.data import sample_path

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
    for command in ("init", "validate", "run", "resume", "models", "doctor"):
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


def test_models_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("models", "--json") == 0
    found = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert found["smollm2-135m-instruct"]["licence"] == "Apache-2.0"
    assert len(found["all-minilm-l6-v2"]["sha256"]) == 64
    assert call("models") == 0
    assert "smollm2-135m-instruct" in capsys.readouterr().out
    assert call("doctor") == 0
    assert "MISSING" not in capsys.readouterr().out
