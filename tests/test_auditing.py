"""`rpsg audit`, as typed: of a run, of files, of data it splits itself; what it writes and refuses."""

import json
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rpsg import auditing
from rpsg.audit.selftest import Trial
from rpsg.audit.split import pool_corpora
from rpsg.audit.verdict import LEAK, NONE_FOUND, TOO_FEW
from rpsg.data import read_corpus
from rpsg.errors import ConfigError
from rpsg.rundir import RunDir
from test_cli import call

FAKES = {
    "models.abstract": "fake", "models.write": "fake", "models.embed": "hash", "models.sentiment": "null",
    "refine.pii.enabled": "false", "refine.nll.enabled": "false", "write.min_length": "20",
    "write.max_length": "40", "abstract.max_tokens": "40", "abstract.n_samples": "6",
}  # fmt: skip
SETTINGS = [item for key, value in FAKES.items() for item in ("--set", f"{key}={value}")]
FAST = ["--embedder", "none", "--no-language-models"]
VERBS = ("lost", "found", "wrote", "read", "sold", "kept", "left", "met", "paid", "saw")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def stories(n: int, *, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    words = [
        f"{a}{b}"
        for a in ("mor", "tel", "san", "rid", "pon", "gal")
        for b in ("ning", "ter", "dow", "ge", "y")
    ]
    return [
        " ".join(f"{VERBS[rng.integers(10)]} the {words[rng.integers(30)]}" for _ in range(12))
        + f" case {seed}-{i}."
        for i in range(n)
    ]


def write(path: str, texts: Sequence[str]) -> Path:
    Path(path).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Path(path)


def test_files_of_any_tool(capsys: pytest.CaptureFixture[str]) -> None:
    texts = stories(360)
    members, others = write("m.jsonl", texts[:120]), write("n.jsonl", texts[120:240])
    arguments = ["--members", members, "--nonmembers", others, *FAST]
    clean = write("clean.jsonl", texts[240:])
    assert call("audit", "--synthetic", clean, *arguments, "-o", "clean") == 0
    assert "no leak found by these attacks at this power" in capsys.readouterr().out
    copies = write("copies.jsonl", texts[:60])
    assert call("audit", "--synthetic", copies, *arguments, "-o", "copies", "--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "leak found"
    assert found["reasons"]
    assert found == json.loads(Path("copies/audit.json").read_text()) | {"seconds": found["seconds"]}
    leaks = [json.loads(line) for line in Path("copies/leaks.jsonl").read_text().splitlines()]
    assert {leak["record"] for leak in leaks if "30 words" in leak["kind"]} == {
        f"row-{i}" for i in range(1, 61)
    }


def test_what_an_audit_writes_is_private_and_holds_no_text() -> None:
    texts = stories(360)
    names = [
        write(f"{name}.jsonl", part)
        for name, part in zip("mns", (texts[:120], texts[120:240], texts[:60]), strict=True)
    ]
    call(
        "audit", "--members", names[0], "--nonmembers", names[1], "--synthetic", names[2], *FAST, "-o", "out"
    )
    assert stat.S_IMODE(Path("out").stat().st_mode) == 0o700
    for path in Path("out").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not any(text[:25] in path.read_text() for text in texts)


def test_figures_are_those_of_the_seed() -> None:
    texts = stories(300)
    names = [write(f"{name}.jsonl", texts[i * 100 : i * 100 + 100]) for i, name in enumerate("mns")]
    found = []
    for name in ("one", "two"):
        call(
            "audit",
            "--members",
            names[0],
            "--nonmembers",
            names[1],
            "--synthetic",
            names[2],
            *FAST,
            "-o",
            name,
        )
        found.append(json.loads(Path(name, "audit.json").read_text())["findings"])
    assert found[0] == found[1]


def test_data_are_split_run_and_attacked() -> None:
    texts = stories(200)
    one, two = write("a.jsonl", texts[:120]), write("b.jsonl", [*texts[100:]])
    arguments = [
        "audit", "--from-data", one, two, *SETTINGS, "--set", "n=30", "--set", "guarantee=none", *FAST,
        "-o", "out", "--quiet",
    ]  # fmt: skip
    assert call(*arguments) in {0, 3}
    sides = [
        {json.loads(line)["text"] for line in Path("out", f"{name}.jsonl").read_text().splitlines()}
        for name in ("members", "nonmembers")
    ]
    assert sides[0] | sides[1] == set(texts)
    assert not sides[0] & sides[1]
    document = json.loads(Path("out/audit.json").read_text())
    assert document["n_synthetic"] == 30
    assert document["units"] == {"members": 100, "nonmembers": 100}
    # Texts of this mode have seeds, so linkage is measured too.
    assert {item["family"] for item in document["findings"]} >= {"membership", "copying", "linkage"}
    # Asked again it goes on with the same split and the same run.
    before = Path("out/members.jsonl").read_bytes()
    run_id = RunDir.open(Path("out/run")).run_id
    call(*arguments)
    assert Path("out/members.jsonl").read_bytes() == before
    assert RunDir.open(Path("out/run")).run_id == run_id
    # With other data it does not go on with a split of these.
    write("b.jsonl", texts[150:])
    assert call(*arguments) == 2
    assert Path("out/members.jsonl").read_bytes() == before


@pytest.mark.parametrize("killed_at", ["members.jsonl", "nonmembers.jsonl", "split.json"])
def test_a_split_that_was_killed_is_made_anew(killed_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def write_or_die(write: Callable[..., None], path: Path, *given: object, private: bool) -> None:
        if path.name == killed_at:
            (path.parent / f".{path.name}-part").write_text("half of a private text")
            raise Killed
        write(path, *given, private=private)

    source, folder = write("a.jsonl", stories(60)), Path("out")
    pooled = pool_corpora([read_corpus(source)])
    sides = (folder / "members.jsonl", folder / "nonmembers.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(auditing, "write_text", partial(write_or_die, auditing.write_text))
        patch.setattr(auditing, "write_json", partial(write_or_die, auditing.write_json))
        with pytest.raises(Killed):
            auditing._split_into(folder, sides, pooled)
    auditing._split_into(folder, sides, pooled)
    assert len(read_corpus(sides[0])) == len(read_corpus(sides[1])) == 30
    assert {path.name for path in folder.iterdir()} == {"members.jsonl", "nonmembers.jsonl", "split.json"}
    # A folder of somebody else's is not taken for one.
    other = Path("other")
    other.mkdir()
    (other / "members.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        auditing._split_into(other, (other / "members.jsonl", other / "nonmembers.jsonl"), pooled)
    assert (other / "members.jsonl").read_text() == "mine"


@pytest.mark.parametrize("content", ["a report of another tool", "[1]", '{"verdict": "fine"}'])
def test_a_file_of_another_tool_is_not_overwritten(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = stories(60)
    files = [write(f"{name}.jsonl", texts[i : i + 20]) for name, i in (("m", 0), ("n", 20), ("s", 40))]
    named = zip(("--members", "--nonmembers", "--synthetic"), files, strict=True)
    arguments = [item for pair in named for item in pair]
    Path("out").mkdir()
    Path("out/audit.json").write_text(content)
    assert call("audit", *arguments, *FAST, "-o", "out") == 2
    assert "is not overwritten" in " ".join(capsys.readouterr().err.split())
    assert Path("out/audit.json").read_text() == content
    Path("out/audit.json").unlink()
    # An audit of ours is made anew.
    for _ in range(2):
        assert call("audit", *arguments, *FAST, "-o", "out", "--quiet") in {0, 3}


def test_an_audit_that_has_too_few_texts_is_not_called_wrong() -> None:
    def trial(verdict: str, p: float | None, *, leaks: bool = True) -> str:
        made = Trial(name="x", leaks=leaks, verdict=verdict, p_smallest=p, found_by=())
        return made.outcome

    assert trial(TOO_FEW, 0.3) == trial(TOO_FEW, None, leaks=False) == "too few texts"
    assert trial(NONE_FOUND, 0.3) == trial(LEAK, 0.001, leaks=False) == "WRONG"
    assert trial(LEAK, 0.001) == trial(TOO_FEW, 0.3, leaks=False) == "right"


def test_a_run_is_audited_in_its_private_part(capsys: pytest.CaptureFixture[str]) -> None:
    data = write("posts.jsonl", stories(300))
    assert call("run", data, *SETTINGS, "-n", "40", "--guarantee", "none", "-o", "run", "--quiet") == 0
    assert call("audit", "run", *FAST) in {0, 3}
    assert "Verdict:" in capsys.readouterr().out
    document = json.loads(Path("run/private/audit/audit.json").read_text())
    assert document["units"]["members"] + document["units"]["nonmembers"] == 300
    assert not [path for path in Path("run/release").iterdir() if "audit" in path.name]


def test_a_leak_that_was_found_stands_when_a_weaker_audit_finds_none() -> None:
    texts = stories(300)
    write("members.jsonl", texts[:150])
    write("others.jsonl", texts[150:])
    write("copies.jsonl", texts[:30])
    files = ["--members", "members.jsonl", "--nonmembers", "others.jsonl"]
    assert call("audit", "--synthetic", "copies.jsonl", *files, "-o", "out", *FAST) == 3
    found = Path("out/audit.json").read_text()
    # Members that nothing was copied from: nothing is found.
    write("few.jsonl", stories(700)[650:690])
    fewer = ["--members", "few.jsonl", "--nonmembers", "others.jsonl"]
    for _ in range(2):
        assert call("audit", "--synthetic", "copies.jsonl", *fewer, "-o", "out", *FAST) == 3
        document = json.loads(Path("out/audit.json").read_text())
        assert document["verdict"] == LEAK and "an earlier audit of these texts" in document["reasons"][0]
        assert Path("out/audit-leak.json").read_text() == found
    # Of other texts too a leak stands, though an older one is kept.
    write("copies.jsonl", texts[30:60])
    for sides in (files, fewer):
        assert call("audit", "--synthetic", "copies.jsonl", *sides, "-o", "out", *FAST) == 3
    # Of other texts nothing was found.
    write("copies.jsonl", stories(900)[800:850])
    assert call("audit", "--synthetic", "copies.jsonl", *fewer, "-o", "out", *FAST) == 0


def test_a_run_is_not_audited_against_other_data(capsys: pytest.CaptureFixture[str]) -> None:
    texts = stories(300)
    data = write("posts.jsonl", texts)
    assert call("run", data, *SETTINGS, "-n", "40", "--guarantee", "none", "-o", "run", "--quiet") == 0
    write("posts.jsonl", texts[::-1])
    assert call("audit", "run", *FAST) == 2
    assert "is not what run was made from" in capsys.readouterr().err
    assert not Path("run/private/audit").exists()


@pytest.mark.parametrize("edited", ["rows", "configuration"])
def test_what_the_run_did_not_write_is_not_audited_as_its_own(
    edited: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = Path("run"), write("posts.jsonl", stories(300))
    assert call("run", data, *SETTINGS, "-n", "40", "--guarantee", "none", "-o", run, "--quiet") == 0
    if edited == "rows":
        rows = run / "release/synthetic.jsonl"
        rows.write_text("".join(rows.read_text().splitlines(keepends=True)[1:]))
    else:
        # Another seed would take other records for non-members.
        config = run / "private/config.yaml"
        config.write_text(config.read_text().replace("seed: 0", "seed: 7"))
    assert call("audit", run, *FAST) == 2
    expected = "not as the run wrote it" if edited == "rows" else "another configuration"
    assert expected in " ".join(capsys.readouterr().err.split())
    assert not (run / "private/audit").exists()


@pytest.mark.parametrize("how", ["no spaces", "cyrillic", "spelt out"])
def test_texts_that_hide_copies_leave_nothing_found_unsaid(
    how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = stories(420)
    files = [write("m.jsonl", texts[:150]), write("n.jsonl", texts[150:300])]
    hide = {
        "no spaces": lambda text: text.replace(" ", ""),
        "cyrillic": lambda text: text.translate(str.maketrans("aeo", "\u0430\u0435\u043e")),
        "spelt out": " ".join,
    }[how]
    released = [*texts[300:], *map(hide, texts[:4])]
    arguments = ["audit", "--synthetic", write("s.jsonl", released), "--members", files[0]]
    assert call(*arguments, "--nonmembers", files[1], "-o", "out", *FAST) == 0
    assert "4 released texts have words of known texts with the spaces taken out" in " ".join(
        capsys.readouterr().out.split()
    )
    assert json.loads(Path("out/audit.json").read_text())["verdict"] == TOO_FEW


def test_units_and_long_addresses_hide_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    texts = stories(420)
    files = [write("m.jsonl", texts[:150]), write("n.jsonl", texts[150:300])]
    odd = f"We gave 5 \u00b5g of TNF\u03b1 and NF-\u03baB, see {'0123456789abcdef' * 4}."
    arguments = ["audit", "--synthetic", write("s.jsonl", [f"{text} {odd}" for text in texts[300:]])]
    assert call(*arguments, "--members", files[0], "--nonmembers", files[1], "-o", "out", *FAST) == 0
    assert "spaces taken out" not in capsys.readouterr().out


def test_texts_that_occur_twice_do_not_stop_the_audit_of_a_run() -> None:
    texts = stories(300)
    data = write("posts.jsonl", [*texts, *texts[:30]])
    assert call("run", data, *SETTINGS, "-n", "40", "--guarantee", "none", "-o", "run", "--quiet") == 0
    assert call("audit", "run", *FAST) in {0, 3}
    notes = json.loads(Path("run/private/audit/audit.json").read_text())["notes"]
    assert any("on both sides" in note for note in notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to audit"),
        (["nowhere"], "holds no run"),
        (["--synthetic", "s.jsonl"], "-o is missing"),
        (["--synthetic", "s.jsonl", "-o", "out"], "--members is missing"),
        (
            ["--synthetic", "s.jsonl", "--members", "m.jsonl", "--nonmembers", "m.jsonl", "-o", "out"],
            "members and non-members",
        ),
        (
            ["--synthetic", "s.jsonl", "--members", "m.jsonl", "--nonmembers", "s.jsonl", "-o", "m.jsonl"],
            "is a file",
        ),
        (["--from-data", "-o", "out"], "needs files"),
        (["--self-test", "few.jsonl"], "at least 90"),
    ],
)
def test_what_cannot_be_audited(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = stories(80)
    for name, part in (("m", texts[:40]), ("s", texts[40:]), ("few", texts)):
        write(f"{name}.jsonl", part)
    assert call("audit", *arguments, *([] if "--self-test" in arguments else FAST)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert not any(text[:25] in error for text in texts)
    assert not Path("out").exists()


def test_a_biased_split_stops_the_audit(capsys: pytest.CaptureFixture[str]) -> None:
    texts = stories(300)
    members = write("m.jsonl", [f"{text} This year." for text in texts[:100]])
    others, synthetic = write("n.jsonl", texts[100:200]), write("s.jsonl", texts[200:])
    arguments = ["--members", members, "--nonmembers", others, "--synthetic", synthetic, "-o", "out"]
    assert call("audit", *arguments, *FAST) == 2
    assert "the split is biased" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/x", "--members", "m"], "--members has no meaning for a run folder"),
        (["runs/x", "-o", "out"], "-o has no meaning for a run folder"),
        (["--self-test", "a.jsonl", "--unit-column", "who"], "--unit-column has no meaning for --self-test"),
        (["--from-data", "a.jsonl", "-o", "out", "--nonmembers", "n"], "--nonmembers has no meaning for"),
        (["--from-data", "a", "-o", "out", "--config", "c", "--text-column", "t"], "--text-column beside"),
        (["--synthetic", "s", "--canaries", "c", "-o", "out"], "--canaries has no meaning for --synthetic"),
    ],
)  # fmt: skip
def test_an_option_that_would_be_passed_over_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("audit", *arguments) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_public_texts_are_heard_of_with_a_run(tmp_path: Path) -> None:
    texts = stories(120)
    data = write("d.jsonl", texts)
    assert call("run", data, *SETTINGS, "--set", "n=20", "--set", "guarantee=none", "-o", "one", "-q") == 0
    public = write("p.jsonl", [json.loads(line)["text"] for line in Path("d.jsonl").read_text().splitlines()])
    # All of the members are public: nothing could be called leaked.
    assert call("audit", "one", "--public", public, *FAST, "--quiet") == 2


def test_a_text_that_its_side_repeats_is_still_somebodys_own() -> None:
    texts = stories(360)
    members, others = write("m.jsonl", [*texts[:120], *texts[:6]]), write("n.jsonl", texts[120:240])
    released = write("s.jsonl", [*texts[240:], *texts[:6]])
    arguments = ("--synthetic", released, "--members", members, "--nonmembers", others, "-o", "out", *FAST)
    assert call("audit", *arguments, "--quiet") == 3
    document = json.loads(Path("out/audit.json").read_text())
    assert document["notes"] == ["6 records repeat a text of their side; each text was kept once"]
    assert document["units"] == {"members": 120, "nonmembers": 120}


def test_public_texts_that_are_the_data_are_refused_before_anything_is_paid_for() -> None:
    data = write("a.jsonl", stories(200))
    arguments = ("--from-data", data, "--public", data, *SETTINGS, "--set", "guarantee=none", "--set", "n=30")
    assert call("audit", *arguments, *FAST, "-o", "out", "--quiet") == 2
    assert not Path("out/run").exists()


def test_another_tools_leaks_are_not_overwritten() -> None:
    texts = stories(360)
    names = [write(f"{name}.jsonl", texts[i * 120 : i * 120 + 120]) for i, name in enumerate("mns")]
    Path("out").mkdir()
    Path("out/leaks.jsonl").write_text("MINE")
    arguments = ("--members", names[0], "--nonmembers", names[1], "--synthetic", names[2], *FAST, "-o", "out")
    assert call("audit", *arguments) == 2 and Path("out/leaks.jsonl").read_text() == "MINE"
