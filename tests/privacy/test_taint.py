"""Plants a marker everywhere in private data and looks for it everywhere but in `private/`.

The markers are made of words too short for the fake model to repeat: what a model repeats of a summary is
not protected in these modes, and the filters' own tests cover it. Everything else is looked at here.
"""

import ast
import csv
import importlib
import inspect
import itertools
import json
import logging
import pkgutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

import rpsg
from rpsg import cli, end_to_end, pipeline, steps
from rpsg.config import RunConfig
from rpsg.errors import PrivateDataError
from rpsg.privacy.card import Card, CardInputs, build_card
from rpsg.privacy.card_file import render_markdown, to_json
from rpsg.privacy.events import NonPrivateEvent
from rpsg.privacy.ledger import Ledger, LedgerLine
from rpsg.privacy.mechanisms import NonPrivate
from rpsg.result import RunResult
from rpsg.rundir import RunDir, write_json
from rpsg.session import Session
from rpsg.stages.refine import PrivateContext
from rpsg.types import Rejection, SyntheticText
from rpsg.writers import to_table, write_rows

PLACES = ("text", "unit id", "record id", "text column", "unit column", "id column", "file name")
MARKERS = {place: f"zq-{place[0]}{place[-1]}-vj" for place in PLACES}
LABEL_COLUMN, LABEL = "zq-lc-vj", "zq-lv-vj"
# The likelihood filter needs 40 records beside the seeds.
FEW, MANY = 50, 210
MODELS = {
    "models.abstract": "fake", "models.write": "fake", "models.embed": "hash", "refine.pii.enabled": "false",
    "refine.nll.enabled": "false", "write.min_length": "20", "write.max_length": "40", "write.n_drafts": "2",
    "abstract.max_tokens": "40", "abstract.n_samples": "6", "generation.chunk_size": "32",
}  # fmt: skip


GUARANTEES = ["none", "selection", "end-to-end"]
END_TO_END = {"guarantee": "end-to-end", "epsilon": "8", "n_units_bound": "4000", "vote.rounds": "2"}


# --- planting and looking ------------------------------------------------------------------------


def plant(folder: Path, *, with_label: bool = False, n_records: int = FEW) -> Path:
    path = folder / f"{MARKERS['file name']}.csv"
    folder.mkdir(exist_ok=True)
    names = [MARKERS[place] for place in ("record id", "unit id", "text")]
    columns = [MARKERS[f"{place} column"] for place in ("id", "unit", "text")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *([LABEL_COLUMN] if with_label else [])])
        for i in range(n_records):
            story = ("heating", "landlord", "surgery", "lecture")[i % 4]
            text = (
                f"{names[2]} told me about the {story} and the letter of spring {i} when the rain came down."
            )
            writer.writerow(
                [f"{names[0]}{i}", f"{names[1]}{i // 2}", text, *([f"{LABEL}{i % 3}"] if with_label else [])]
            )
    return path


def arguments(path: Path, *more: str, with_label: bool = False, **changes: str) -> list[str]:
    settings = {**MODELS, **changes}
    columns = [f"--{kind}-column={MARKERS[f'{kind} column']}" for kind in ("text", "unit", "id")]
    columns += [f"--label-column={LABEL_COLUMN}"] if with_label else []
    settings_given = itertools.chain.from_iterable(("--set", f"{k}={v}") for k, v in settings.items())
    return ["run", str(path), *columns, "-n", "6", "-o", "out", *settings_given, *more]


def found_in(text: str) -> list[str]:
    return [place for place, marker in MARKERS.items() if marker in text.lower()]


def files_outside(folder: Path) -> list[Path]:
    """Returns every file but the data and those in `private/`."""
    parts = [path.relative_to(folder).parts for path in sorted(folder.rglob("*"))]
    return [folder.joinpath(*part) for part in parts if part[0] != "data" and "private" not in part]


def content_of(path: Path) -> str:
    """Returns all bytes of a file, a parquet file's values too: those may be compressed."""
    if path.is_dir():
        return path.name
    text = path.read_bytes().decode("latin-1") + path.name
    return text + json.dumps(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else text


def leaks_on_disk(folder: Path) -> dict[str, list[str]]:
    looked_at = files_outside(folder)
    assert looked_at
    leaks = {str(path.relative_to(folder)): found_in(content_of(path)) for path in looked_at}
    return {name: places for name, places in leaks.items() if places}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds everything a run writes: its own, the user's state, temporary files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name, variable in (("state", "XDG_STATE_HOME"), ("tmp", "TMPDIR")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setattr("tempfile.tempdir", None)  # it remembers an earlier TMPDIR
    return tmp_path


@dataclass
class Heard:
    """All that a run says."""

    lines: list[str]
    capfd: pytest.CaptureFixture[str]
    caplog: pytest.LogCaptureFixture
    warned: list[warnings.WarningMessage]

    def everything(self) -> str:
        printed = self.capfd.readouterr()
        logged = [f"{r.getMessage()} {r.args} {r.exc_info} {r.exc_text}" for r in self.caplog.records]
        warned = [str(item.message) for item in self.warned]
        return "\n".join([printed.out, printed.err, *self.lines, *logged, *warned])


@pytest.fixture
def heard(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[Heard]:
    caplog.set_level(logging.NOTSET)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield Heard([], capfd, caplog, warned)


def call(argv: Sequence[str]) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["rpsg", *argv])
        cli.main()
    return int(end.value.code or 0)


# --- a run that goes well ------------------------------------------------------------------------


def configure(path: Path, guarantee: str) -> RunConfig:
    columns = {f"{kind}_column": MARKERS[f"{kind} column"] for kind in ("text", "unit", "id")}
    return RunConfig.parse(
        {
            "guarantee": guarantee,
            **({"epsilon": 8, "n_units_bound": 200} if guarantee == "end-to-end" else {}),
            "n": 6,
            "data": {"path": str(path), **columns},
            "models": {"abstract": "fake", "write": "fake", "embed": "hash"},
            "abstract": {"n_samples": 6, "max_tokens": 40},
            "write": {"min_length": 20, "max_length": 40, "n_drafts": 2},
            "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}},
            "output": {"folder": "out", "formats": ["jsonl", "csv", "parquet"]},
        }
    )


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_no_marker_leaves_the_private_folder_of_a_run(home: Path, heard: Heard, guarantee: str) -> None:
    config = configure(plant(home / "data"), guarantee)
    corpus = pipeline.load_corpus(config)
    result = pipeline.run(config, corpus, on_progress=lambda step: heard.lines.append(repr(step)))
    assert result.complete and heard.lines
    heard.lines += [repr(result), str(result), json.dumps(result.summary()), str(result.figures())]
    heard.lines += [repr(corpus), *map(repr, corpus.records), str(result.notes)]
    assert found_in(heard.everything()) == []
    assert leaks_on_disk(home) == {}
    # They are where they may be, so this test can fail.
    kept = "".join(content_of(path) for path in (home / "out/private").iterdir())
    expected = {"text column", "unit column", "id column", "file name"}
    assert set(found_in(kept)) >= expected | (set() if guarantee == "end-to-end" else {"record id"})


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_the_command_line_prints_no_marker(home: Path, heard: Heard, guarantee: str) -> None:
    path = plant(home / "data")
    needed = END_TO_END if guarantee == "end-to-end" else {"guarantee": guarantee}
    assert call(arguments(path, "--format=parquet", **needed)) == 0
    assert call(["card", "check", "out/release/privacy_card.json", "--ledger", "out"]) == 0
    assert call(["resume", "out", "--json"]) == 0
    shown = heard.everything()
    assert "Run folder: out" in shown and found_in(shown) == []
    assert leaks_on_disk(home) == {}


def test_write_ahead_files_are_private_while_a_run_goes_on(home: Path) -> None:
    config = configure(plant(home / "data"), "selection")
    seen: set[str] = set()

    def look(_: object) -> None:
        seen.update(path.name for path in (home / "out").rglob("*"))
        assert leaks_on_disk(home) == {}

    pipeline.run(config, pipeline.load_corpus(config), on_progress=look)
    assert "calls.sqlite-wal" in seen


def test_labels_are_in_the_label_columns_of_released_rows_and_nowhere_else(home: Path, heard: Heard) -> None:
    path = plant(home / "data", with_label=True)
    assert call(arguments(path, "--format=jsonl", "--format=csv", "--format=parquet", with_label=True)) == 0
    rows = [json.loads(line) for line in (home / "out/release/synthetic.jsonl").read_text().splitlines()]
    assert all(row.pop(LABEL_COLUMN).startswith(LABEL) for row in rows)
    table = pq.read_table(home / "out/release/synthetic.parquet")
    assert table.column_names == ["id", "text", LABEL_COLUMN]
    plain = json.dumps([rows, table.drop_columns([LABEL_COLUMN]).to_pylist()])
    # The report shows the released rows, labels and all.
    shown_rows = ("synthetic.", "report.html")
    others = "".join(content_of(p) for p in files_outside(home) if not p.name.startswith(shown_rows))
    # On the terminal they stand above the examples, one line each.
    lines = heard.everything().splitlines()
    shown = [line for line in lines if not line.startswith(f"{LABEL_COLUMN}: {LABEL}")]
    assert len(shown) == len(lines) - 5
    for text in (plain, others, "\n".join(shown)):
        assert LABEL not in text and LABEL_COLUMN not in text


# --- an exception in every stage -----------------------------------------------------------------


def own_calls(function: Callable[..., Any]) -> list[str]:
    """Names what a function of this package calls of it, as `module.name`, read from its source."""
    module = sys.modules[function.__module__]
    found: dict[str, None] = {}
    for node in ast.walk(ast.parse(inspect.getsource(function))):
        if isinstance(node, ast.Call):
            parts = ast.unparse(node.func).split(".")
            owner = getattr(module, parts[0], None)
            home = getattr(owner, "__module__", None) or getattr(owner, "__name__", "")
            is_error = inspect.isclass(owner) and issubclass(owner, BaseException)
            if home.startswith("rpsg") and not is_error:
                found[".".join([module.__name__, *parts])] = None
    return list(found)


def stage_functions() -> list[str]:
    functions = inspect.getmembers(steps, inspect.isfunction)
    return [f"rpsg.steps.{name}" for name, item in functions if item.__module__.startswith("rpsg.stages")]


# Called by a run only when seeds have run out.
NOT_REACHED = {"rpsg.pipeline._unserved"}
PARTS = [
    "rpsg.data.read_chunks", "rpsg.pipeline.detect_languages", "rpsg.session.load_models",
    "rpsg.llm.fake.FakeTextModel.complete", "rpsg.llm.fake.HashEmbedder.embed",
    "rpsg.llm.sentiment.VaderSentiment.classify", "rpsg.llm.prompting.PromptedSummariser.summarise",
    "rpsg.llm.pii.PresidioDetector.find", "rpsg.llm.surrogate.Surrogate.train",
    "rpsg.llm.surrogate.Surrogate.nll", "rpsg.llm.calls.CallStore.get_chunk",
    "rpsg.llm.calls.CallStore.put_chunk",
    "rpsg.text.WordRuns.build", "rpsg.stages.refine.Refinery.refine", "rpsg.privacy.ledger.Ledger.open",
    "rpsg.privacy.ledger.Ledger.release", "rpsg.privacy.mechanisms.NoisyMax.sample",
    "rpsg.privacy.mechanisms.GaussianSum.sample", "rpsg.privacy.mechanisms.NonPrivateTexts.sample",
    "rpsg.privacy.noise.SecureNoise.gaussian", "rpsg.privacy.noise.SecureNoise.noisy_max",
    "rpsg.privacy.state.write_json", "rpsg.release.build_card", "rpsg.release.to_table",
    "rpsg.release.write_rows", "rpsg.writers._write_json_lines", "rpsg.privacy.card_file.render_markdown",
    "rpsg.rundir.RunDir.write_release", "rpsg.rundir.RunDir.write_private", "rpsg.rundir.RunDir.log",
    "rpsg.rundir.RunDir.mark", "rpsg.console.ProgressView.show", "rpsg.console_plan.print_statement",
    "rpsg.console.print_result", "rpsg.result.RunResult.figures",
]  # fmt: skip
END_TO_END_TARGETS = [
    name
    for function in (
        end_to_end.run_end_to_end, end_to_end.release_keys, end_to_end.vote_in_rounds,
        end_to_end.refine_and_release,
    )
    for name in own_calls(function)
]  # fmt: skip
TARGETS = [
    *[name for name in own_calls(pipeline.run) if name not in NOT_REACHED],
    *own_calls(pipeline.load_corpus),
    *stage_functions(),
    *END_TO_END_TARGETS,
    *PARTS,
]
QUOTE = " ".join(MARKERS.values())


def test_the_functions_to_break_are_found() -> None:
    assert set(own_calls(pipeline.run)) >= NOT_REACHED
    expected = ("choose", "hold_vote", "publish", "begin", "data.sample_seeds", "budget.note_outside")
    assert {f"rpsg.pipeline.{name}" for name in expected} <= set(TARGETS)
    assert {"rpsg.steps.abstract", "rpsg.steps.vary", "rpsg.steps.utilities"} <= set(TARGETS)


class Broken:
    """Fails like a library that quotes what it was given."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.n_calls = 0

    def __call__(self, *_: object, **__: object) -> None:
        self.n_calls += 1
        raise self.error


def needed_for(target: str) -> dict[str, str]:
    if "end_to_end" in target:
        return END_TO_END
    if "Surrogate" in target:
        return {"refine.nll.enabled": "true"}
    return {"refine.pii.enabled": "true"} if "Presidio" in target else {}


@pytest.mark.parametrize("target", TARGETS)
def test_a_bug_in_any_stage_shows_no_marker(
    home: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    path = plant(home / "data", n_records=MANY if "Surrogate" in target else FEW)
    broken = Broken(RuntimeError(f"cannot handle {QUOTE!r}"))
    with monkeypatch.context() as patch:
        patch.setattr(target, broken)
        patch.setattr("rpsg.llm.surrogate.fit", lambda *_: None)  # an untrained one will do here
        assert call(arguments(path, **needed_for(target))) == cli.EXIT_BUG
    assert broken.n_calls
    shown = heard.everything()
    assert "RuntimeError: message withheld" in shown and found_in(shown) == []
    assert leaks_on_disk(home) == {}


def chained() -> Exception:
    error = RuntimeError("could not embed")
    error.__cause__ = ValueError(QUOTE)
    return error


ERRORS: dict[str, Callable[[], Exception]] = {
    "key": lambda: KeyError(QUOTE),
    "unicode": lambda: UnicodeDecodeError("utf-8", QUOTE.encode(), 0, 1, QUOTE),
    "file": lambda: FileNotFoundError(2, "No such file or directory", QUOTE),
    "assertion": lambda: AssertionError(QUOTE),
    "group": lambda: ExceptionGroup(QUOTE, [ValueError(QUOTE)]),
    "chained": chained,
}


@pytest.mark.parametrize("kind", list(ERRORS))
def test_no_kind_of_bug_shows_a_marker(
    home: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = plant(home / "data")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "choose", Broken(ERRORS[kind]()))
        assert call(arguments(path, "--guarantee", "none")) == cli.EXIT_BUG
    shown = heard.everything()
    assert "message withheld" in shown and found_in(shown) == []
    assert leaks_on_disk(home) == {}


def test_a_bug_in_a_process_of_its_own_shows_no_marker(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the interpreter and the command line's own hooks print, not what a test runner catches.
    code = (
        "import os\nimport rpsg.pipeline\nfrom rpsg.cli import main\n"
        "def broken(*_, **__): raise RuntimeError(os.environ['QUOTE'])\n"
        "rpsg.pipeline.choose = broken\nmain()\n"
    )
    monkeypatch.setenv("QUOTE", QUOTE)
    path = plant(home / "data")
    (home / "tmp/broken.py").write_text(code)
    command = [sys.executable, str(home / "tmp/broken.py"), *arguments(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == cli.EXIT_BUG and "message withheld" in done.stderr
    assert found_in(done.stdout + done.stderr) == []
    assert leaks_on_disk(home) == {}
    # Who wants to see the message can; so the markers were in it.
    monkeypatch.setenv(cli.SHOW_MESSAGES, "1")
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert set(found_in(shown.stderr)) == set(PLACES)


# --- private types -------------------------------------------------------------------------------


def package_classes() -> list[type]:
    """Returns every class that the package defines, in any of its modules."""
    names = [item.name for item in pkgutil.walk_packages(rpsg.__path__, "rpsg.")]
    modules = [importlib.import_module(name) for name in names]
    found = {
        item
        for module in modules
        for _, item in inspect.getmembers(module, inspect.isclass)
        if item.__module__.startswith("rpsg")
    }
    return sorted(found, key=lambda item: f"{item.__module__}.{item.__qualname__}")


def private_types() -> list[type]:
    # A mechanism's parameters are public: `PrivateQuantile` is one.
    return [
        item
        for item in package_classes()
        if item.__name__.lstrip("_").startswith("Private")
        and not issubclass(item, BaseException)
        and not hasattr(item, "sample")
    ]


def tainted(kind: type) -> object:
    """Returns an object of a private type whose every field is the marker."""
    assert is_dataclass(kind), f"{kind.__name__} is private and must be a dataclass"
    item: object = object.__new__(kind)
    for part in fields(kind):
        object.__setattr__(item, part.name, QUOTE)
    return item


TYPES = private_types()
NAMES = [kind.__name__ for kind in TYPES]


def test_the_private_types_are_found() -> None:
    known = {"PrivateRecord", "PrivateCorpus", "PrivateAbstraction", "PrivateVariant", "PrivateRows"}
    assert known | {"PrivateContext", "PrivateNotes", "PrivateKeys", "PrivateAbstractions"} <= set(NAMES)
    assert PrivateContext in TYPES


@pytest.mark.parametrize("kind", TYPES, ids=NAMES)
def test_a_private_value_never_prints_itself(kind: type) -> None:
    item = tainted(kind)
    forms = [repr(item), str(item), f"{item}", f"{item!r:>9}", repr([item]), ascii(item)]
    assert [found_in(text) for text in forms] == [[]] * len(forms)


def test_what_else_holds_private_values_does_not_print_them() -> None:
    rejected = Rejection(item_id=QUOTE, record_id=QUOTE, stage="vote", reason="outvoted")
    session = object.__new__(Session)
    for part in fields(Session):
        setattr(session, part.name, QUOTE)
    for item in (rejected, session):
        assert found_in(repr(item)) == []


TEXT = SyntheticText(text_id="00ff", text="A letter came.", labels={}, paid_by=1)
LINE = LedgerLine(
    line_id=1,
    label="texts",
    mechanism="NonPrivateTexts",
    parameters={},
    events=(NonPrivateEvent(reason="rewrites"),),
    note="",
    secure_noise=True,
)


def card_inputs(**changes: object) -> CardInputs:
    values = {"run_id": "00ff", "guarantee": "none", "epsilon": None, "delta": 1e-6, "n_candidates": 5}
    return CardInputs.model_validate({**values, "has_units": False, "data_flow": (), **changes})


def result_of(texts: object) -> RunResult:
    return RunResult(
        texts=texts, label_columns=(), statement="", folder=Path(), counts={}, rejected={}, notes=(),
        n_wanted=1,
    )  # type: ignore[arg-type]  # fmt: skip


def ledger_release(folder: Path, item: object) -> None:
    with Ledger.open(folder / "ledger") as ledger:
        try:
            ledger.release("plain", NonPrivate(reason="plain data"), [item])
        finally:
            assert ledger.lines() == []


def ledger_reason(folder: Path, item: object) -> None:
    with Ledger.open(folder / "ledger") as ledger:
        ledger.release("plain", NonPrivate(reason=item), 1)


def write_release(folder: Path, rows: object, document: object) -> None:
    try:
        RunDir(folder / "run").write_release(
            rows, write_rows=lambda _: None, documents={"README.md": document}
        )
    finally:
        assert [path for path in folder.rglob("*") if path.is_file()] == []


# Every way out of the program that takes a value.
EXPORTS: dict[str, Callable[[Path, object], object]] = {
    "released rows": lambda folder, item: write_release(folder, [TEXT, item], "text"),
    "a released document": lambda folder, item: write_release(folder, [TEXT], item),
    "a table's rows": lambda _, item: to_table([TEXT, item], []),
    "a table's text": lambda _, item: to_table([replace(TEXT, text=item)], []),
    "a table's label": lambda _, item: to_table([replace(TEXT, labels={"topic": item})], ["topic"]),
    "a file instead of a table": lambda folder, item: write_rows(item, folder / "rows.jsonl"),
    "rows of a file": lambda folder, item: write_rows([item], folder / "rows.csv"),  # type: ignore[arg-type]
    "a card's input": lambda _, item: build_card(card_inputs(run_id=item), [LINE]),
    "a card's bound": lambda _, item: build_card(card_inputs(n_units_bound=item), [LINE]),
    "a card's note": lambda _, item: build_card(card_inputs(), [replace(LINE, note=item)]),
    "a card's label": lambda _, item: build_card(card_inputs(), [replace(LINE, label=item)]),
    "a card's parameter": lambda _, item: build_card(card_inputs(), [replace(LINE, parameters={"k": item})]),
    "a card's parameters": lambda _, item: build_card(
        card_inputs(), [replace(LINE, parameters={"k": [item]})]
    ),
    "a card's event": lambda _, item: build_card(
        card_inputs(), [replace(LINE, events=(NonPrivateEvent(reason=item),))]
    ),
    "a card as JSON": lambda _, item: to_json(item),
    "a card as a page": lambda _, item: render_markdown(item),
    "a JSON file": lambda folder, item: write_json(folder / "x.json", {"value": item}),
    "a log line": lambda folder, item: RunDir(folder).log("event", {"value": item}),
    "a result": lambda _, item: result_of((TEXT, item)),
    "a ledger's value": ledger_release,
    "a ledger's reason": ledger_reason,
}


@pytest.mark.parametrize("way", list(EXPORTS))
def test_every_way_out_refuses_private_values(tmp_path: Path, way: str) -> None:
    for kind in TYPES:
        with pytest.raises((TypeError, PrivateDataError, ValidationError)) as refusal:
            EXPORTS[way](tmp_path, tainted(kind))
        assert found_in(str(refusal.value)) == []
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in left if found_in(content_of(path))] == []


def test_the_ways_out_take_what_is_released() -> None:
    # So that the refusals above are about the private value.
    card = build_card(card_inputs(), [LINE])
    assert isinstance(card, Card) and to_json(card) and render_markdown(card)
    assert result_of((TEXT,)).synthetic.num_rows == 1
