"""What leaves the machine: reviewed, packed, pushed; and what stays when the private part is removed."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from hub_server import TOKEN, hub
from rpsg.decisions import Trail
from rpsg.errors import ConfigError, PrivacyError, RunDirError
from rpsg.hub import push_release
from rpsg.pack import pack_release, public_configuration
from rpsg.privacy.card_file import check_card
from rpsg.privacy.hashes import chain_hash
from rpsg.privacy.ledger import read_run
from rpsg.privacy.shown import note_private_shown
from rpsg.release import find_changes
from rpsg.report.answers import holds_end_to_end
from rpsg.report.sources import read_released
from rpsg.review.session import open_review
from rpsg.reviewed import apply_review
from rpsg.rundir import RunDir
from rpsg.runstate import find_runs, purge_private
from rpsg.text import digest_of
from test_cli import FAKE, POSTS, call

SELECTION: list[str] = []
END_TO_END = ["--guarantee", "end-to-end", "--epsilon", "8", "--n-units-bound", "1000"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(base / "state"))
        for name, options in (("selection", SELECTION), ("end-to-end", END_TO_END)):
            formats = ["--format", "jsonl", "--format", "csv", "--label-column", "topic"]
            assert call("run", POSTS, "-n", "8", "-o", base / name, "-q", *formats, *options, *FAKE) == 0
    return base


@pytest.fixture
def runs(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "runs")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "runs/state"))
    return tmp_path / "runs"


def run_again(folder: Path, *options: str) -> None:
    """Goes through all of a finished run again, which `rpsg resume` does not."""
    made = ["run", POSTS, "-n", "8", "-o", folder, "--format", "jsonl", "--format", "csv"]
    needed = END_TO_END if "end-to-end" in folder.name else SELECTION
    assert call(*made, "--label-column", "topic", *needed, *FAKE, *options) == 0


def ids(folder: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (folder / "release/synthetic.jsonl").read_text().splitlines()]


def reject(folder: Path, *text_ids: str, private: bool) -> Trail:
    trail = Trail(folder / "private/review.jsonl")
    trail.open(shows_private=private)
    for text_id in text_ids:
        trail.decide(text_id, "reject", "names somebody")
    return trail


def holds(folder: Path) -> bool:
    return check_card(folder / "release/privacy_card.json", ledger=read_run(RunDir.open(folder).ledger)) == []


# --- review --------------------------------------------------------------------------------------


def test_rejected_texts_leave_every_file_and_can_come_back(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, before = runs / "selection", (runs / "selection/release/synthetic.csv").read_bytes()
    first, *others = ids(run)
    trail = reject(run, first, private=True)
    assert call("release", run) == 0
    assert "7 texts in the release, 1 kept out" in capsys.readouterr().out
    assert ids(run) == others and first not in (run / "release/synthetic.csv").read_text()
    assert holds(run) and first not in (run / "release/report.html").read_text()
    card = json.loads((run / "release/privacy_card.json").read_text())
    assert card["inputs"]["reviewed"] == "private"
    assert "which texts a person took out after reading private ones" in card["not_covered"]
    assert "names somebody" not in "".join(path.read_text() for path in (run / "release").iterdir())
    assert not apply_review(run).changed
    trail.decide(first, "accept")
    assert apply_review(run).n_kept == 8
    assert (run / "release/synthetic.csv").read_bytes() == before
    assert [item.event for item in trail.entries()].count("applied") == 2


def test_a_release_that_is_written_anew_is_reviewed_again(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "selection"
    first, *others = ids(run)
    reject(run, first, private=True)
    apply_review(run)
    run_again(run)
    assert first in ids(run) and "1 texts that a review rejected" in " ".join(capsys.readouterr().out.split())
    assert apply_review(run).changed and ids(run) == others and holds(run)


def test_a_finished_run_is_left_as_it_is(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs / "selection"
    reject(run, ids(run)[0], private=False)
    assert apply_review(run).changed
    packed = pack_release(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert call("resume", run) == 0
    assert "is finished; nothing was done" in capsys.readouterr().out and packed.exists()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    # What is not as it was released is made anew.
    (run / "release/synthetic.csv").unlink()
    assert call("resume", run, "-q") == 0 and (run / "release/synthetic.csv").exists()


def test_texts_with_a_leak_stay_unless_that_is_asked_for(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "selection"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    texts = [json.loads(line)["text"] for line in (run / "release/synthetic.jsonl").read_text().splitlines()]
    (run / "private/audit").mkdir()
    found = {"verdict": "leak found", "findings": [], "texts_digest": digest_of(texts)}
    (run / "private/audit/audit.json").write_text(json.dumps(found))
    assert call("release", run, "--pack") == 2 and not list(run.glob("*.zip"))
    assert call("push", run, "me/texts") == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert shown.count("found a leak") == 2 and shown.count("--despite-leak") == 2
    (run / "private/audit/audit.json").write_text(json.dumps(found | {"texts_digest": "of other texts"}))
    assert call("release", run, "--pack") == 0
    (run / "private/audit/audit.json").write_text(json.dumps(found))
    assert call("release", run, "--despite-leak") == 2
    assert call("release", run, "--pack", "--despite-leak") == 0 and list(run.glob("*.zip"))


def test_a_public_review_keeps_the_guarantee(runs: Path) -> None:
    run = runs / "end-to-end"
    before = json.loads((run / "release/privacy_card.json").read_text())
    reject(run, ids(run)[0], private=False)
    assert apply_review(run).n_kept == 7
    card = json.loads((run / "release/privacy_card.json").read_text())
    assert card["statement"] == before["statement"] and card["figures"] == before["figures"]
    assert card["inputs"]["reviewed"] == "public" and holds(run)
    assert holds_end_to_end(read_released(run / "release").card)


@pytest.mark.parametrize("verdict", ["reject", "accept"])
def test_a_private_review_ends_the_guarantee(
    runs: Path, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "end-to-end"
    files = {path: path.read_bytes() for path in (run / "release").iterdir()}
    trail = Trail(run / "private/review.jsonl")
    trail.open(shows_private=True)
    trail.decide(ids(run)[0], verdict, "x")
    with pytest.raises(PrivacyError, match="--end-guarantee"):
        apply_review(run)
    assert call("release", run, "--pack") == 2
    assert {path: path.read_bytes() for path in (run / "release").iterdir()} == files
    # Left out, the release is what it was.
    assert call("release", run, "--pack", "--no-review") == 0
    assert holds_end_to_end(read_released(run / "release").card)

    assert call("release", run, "--end-guarantee") == 0
    assert "No end-to-end differential privacy." in capsys.readouterr().out
    card = read_released(run / "release").card
    assert card["statement"].startswith("No end-to-end differential privacy.") and card["figures"] == []
    assert not holds_end_to_end(card) and "epsilon=" not in card["statement"] and holds(run)
    assert card["attacker"] == "Nothing bounds what an attacker learns from the released texts."
    for name in ("privacy_card.md", "README.md", "report.html"):
        assert "No end-to-end differential privacy" in (run / "release" / name).read_text()
    assert "differential-privacy" not in (run / "release/README.md").read_text().split("---")[1]
    assert "No guarantee for the texts" in (run / "private/report.html").read_text()
    # A card that claims the guarantee back does not follow from the ledger.
    values = json.loads((run / "release/privacy_card.json").read_text())
    values["inputs"]["reviewed"] = "no"
    (run / "release/privacy_card.json").write_text(json.dumps(values))
    assert not holds(run)


def test_a_private_choice_cannot_be_made_to_look_like_none(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "end-to-end"
    everything, rows = ids(run), run / "release/synthetic.jsonl"
    trail = run / "private/review.jsonl"
    note_private_shown(run / "private/ledger.sqlite")
    reject(run, everything[0], private=True)
    apply_review(run, end_guarantee=True)
    assert ids(run) == everything[1:]
    # Without the trail nothing says that a text was chosen out: then it is not out, and the guarantee holds.
    trail.unlink()
    assert apply_review(run).changed and ids(run) == everything and holds(run)
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[1:]))
    assert call("release", run, "--pack", "--no-review") == 2
    assert "synthetic.jsonl: not byte for byte what the" in " ".join(capsys.readouterr().err.split())
    assert call("release", run, "--pack") == 0 and ids(run) == everything


def test_an_edited_card_never_becomes_a_true_one(runs: Path) -> None:
    path = runs / "end-to-end/release/privacy_card.json"
    before = json.loads(path.read_text())
    edited = {**before, "inputs": {**before["inputs"], "has_units": True, "epsilon": 9.0, "data_flow": []}}
    path.write_text(json.dumps(edited))
    reject(runs / "end-to-end", ids(runs / "end-to-end")[0], private=False)
    assert apply_review(runs / "end-to-end").changed
    after = json.loads(path.read_text())
    assert after["inputs"] == {**before["inputs"], "reviewed": "public"}
    assert after["figures"] == before["figures"] and not find_changes(RunDir.open(runs / "end-to-end"))


def test_a_chain_written_anew_under_another_name_is_found(runs: Path) -> None:
    # Who edits private/ alone cannot make the ledger forget that private texts were shown.
    folder = runs / "end-to-end"
    open_review(folder, public=False)
    config = folder / "private/config.yaml"
    config.write_text(config.read_text() + "\n")
    binding = RunDir.open(folder).binding
    with sqlite3.connect(folder / "private/ledger.sqlite") as db:
        limit = dict(db.execute("SELECT name, value FROM meta"))["limit"]
        db.execute("DELETE FROM entries WHERE kind = 'card' AND label = 'review'")
        db.execute("UPDATE meta SET value = ? WHERE name = 'binding'", (binding,))
        db.execute("UPDATE meta SET value = 'other' WHERE name = 'ledger_id'")
        rows = list(db.execute("SELECT entry_id, label, kind, body, result FROM entries ORDER BY entry_id"))
        last = f"other/{binding}/{limit}"
        for number, (entry_id, *rest) in enumerate(rows, start=1):
            last = chain_hash(last, number, *rest)
            db.execute(
                "UPDATE entries SET entry_id = ?, hash = ? WHERE entry_id = ?", (number, last, entry_id)
            )
    (folder / "private/review.jsonl").unlink()
    for attempt in (
        lambda: open_review(folder, public=True), lambda: apply_review(folder), lambda: pack_release(folder),
    ):  # fmt: skip
        with pytest.raises(PrivacyError, match="this run had another ledger"):
            attempt()


@pytest.mark.parametrize("how", ["repeated", "sorted", "relabelled"])
def test_rows_are_those_drawn_each_once_and_in_that_order(runs: Path, how: str) -> None:
    path = runs / "selection/release/synthetic.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    changed = {
        "repeated": [*rows, rows[0]],
        "sorted": sorted(rows, key=lambda row: row["text"]),
        "relabelled": [{key: value for key, value in rows[0].items() if key != "topic"}, *rows[1:]],
    }[how]
    assert not find_changes(RunDir.open(runs / "selection"))
    path.write_text("".join(json.dumps(row) + "\n" for row in changed))
    assert find_changes(RunDir.open(runs / "selection"))


@pytest.mark.parametrize("how", ["key twice", "column twice", "new column", "missing column", "spaces"])
def test_what_a_reader_passes_over_does_not_leave(
    runs: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "selection"
    lines, table = run / "release/synthetic.jsonl", run / "release/synthetic.csv"
    rows, cells = lines.read_text().splitlines(), table.read_text().splitlines()
    before = lines.read_bytes(), table.read_bytes()
    lines.write_text("\n".join({
        "key twice": ['{"text": "SECRET", ' + rows[0][1:], *rows[1:]],
        "new column": [f'{row[:-1]}, "SECRET": null}}' for row in rows],
        "missing column": [re.sub(', "topic": "[^"]*"', "", row) for row in rows],
        "spaces": [row.replace('", "', '",  "') for row in rows],
    }.get(how, rows)) + "\n")  # fmt: skip
    if how == "column twice":
        table.write_text("\n".join(['"text",' + cells[0], *(f'"SECRET",{row}' for row in cells[1:])]) + "\n")
    assert (lines.read_bytes(), table.read_bytes()) != before
    assert call("release", run, "--pack", "--no-review") == 2 and not list(run.glob("*.zip"))
    assert "rpsg release" in capsys.readouterr().err
    with pytest.raises(RunDirError, match="not byte for byte"):
        push_release(run, "us/posts")
    assert call("release", run, "--pack") == 0
    assert (lines.read_bytes(), table.read_bytes()) == before


def test_a_file_put_back_after_a_review_does_not_leave(runs: Path) -> None:
    run = runs / "selection"
    table, lines = run / "release/synthetic.csv", run / "release/synthetic.jsonl"
    before, rejected = table.read_bytes(), ids(run)[0]
    reject(run, rejected, private=False)
    apply_review(run)
    kept = lines.read_text().splitlines(keepends=True)
    table.write_bytes(before)
    # Only what was rejected may be missing.
    lines.write_text("".join(kept[1:]))
    assert find_changes(RunDir.open(run)) == [
        f"synthetic.{kind}: not byte for byte what the ledger released" for kind in ("csv", "jsonl")
    ]
    assert apply_review(run).changed and rejected not in table.read_text()
    assert lines.read_text() == "".join(kept) and not find_changes(RunDir.open(run))
    table.unlink()
    assert find_changes(RunDir.open(run)) == ["synthetic.csv: missing"]


def test_a_run_that_goes_on_after_a_private_review_releases_everything_again(runs: Path) -> None:
    run = runs / "end-to-end"
    everything, names = ids(run), ("synthetic.jsonl", "synthetic.csv")
    before = {name: (run / "release" / name).read_bytes() for name in names}
    note_private_shown(run / "private/ledger.sqlite")
    reject(run, everything[0], private=True)
    assert apply_review(run, end_guarantee=True).changed
    thinned = {name: (run / "release" / name).read_bytes() for name in names}
    run_again(run, "-q")
    # What was released without anybody's choice, under a card that says so.
    assert {name: (run / "release" / name).read_bytes() for name in names} == before
    assert holds(run) and not find_changes(RunDir.open(run))
    assert call("release", run, "--pack", "--no-review") == 0
    for name, content in thinned.items():
        (run / "release" / name).write_bytes(content)
    assert len(find_changes(RunDir.open(run))) == len(names)
    assert call("release", run, "--pack", "--no-review") == 2
    with pytest.raises(PrivacyError, match="--end-guarantee"):
        apply_review(run)


def test_what_was_packed_before_a_review_does_not_stay(runs: Path) -> None:
    run = runs / "selection"
    path = pack_release(run)
    reject(run, ids(run)[0], private=False)
    assert path.exists() and apply_review(run).changed and not path.exists()
    assert pack_release(run) == path and not apply_review(run).changed and path.exists()


def test_a_release_is_put_back_after_a_kill_between_two_renames(runs: Path) -> None:
    run = runs / "end-to-end"
    rejected, *others = ids(run)
    reject(run, rejected, private=False)
    shutil.copytree(run / "release", run / ".release-abc")
    (run / "release").rename(run / ".release-abc-before")
    assert call("release", run, "--pack") == 0
    assert ids(run) == others and not list(run.glob(".release-*")) and not find_changes(RunDir.open(run))


def test_a_line_added_to_the_data_card_does_not_leave(runs: Path) -> None:
    readme = runs / "selection/release/README.md"
    before = readme.read_text()
    readme.write_text(f"{before}A private line.\n")
    with zipfile.ZipFile(pack_release(runs / "selection")) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("README.md")]
        assert archive.read(name).decode() == before


def test_a_ledger_that_is_gone_is_missed(runs: Path) -> None:
    run = runs / "end-to-end"
    (run / "private/ledger.sqlite").unlink()
    released = ["release", run]
    for command in (released, [*released, "--pack", "--no-review"], ["review", run, "--public"]):
        assert call(*command) == 2, command
    assert not (run / "private/ledger.sqlite").exists()


def test_a_reviewed_run_without_decisions_stays(runs: Path) -> None:
    run = runs / "end-to-end"
    reject(run, private=True)
    assert not apply_review(run).changed


# --- data card -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "protected"), [("selection", False), ("end-to-end", True)])
def test_the_data_card_has_what_a_hub_reads(runs: Path, name: str, protected: bool) -> None:
    page = (runs / name / "release/README.md").read_text()
    _, front, rest = page.split("---\n", 2)
    values = yaml.safe_load(front)
    assert values["configs"] == [{"config_name": "default", "data_files": "synthetic.jsonl"}]
    assert values["size_categories"] == ["n<1K"] and values["language"] == ["en"]
    assert ("differential-privacy" in values["tags"]) is protected and "synthetic" in values["tags"]
    assert values["task_categories"] == ["text-generation", "text-classification"]
    statement = json.loads((runs / name / "release/privacy_card.json").read_text())["statement"]
    assert f"**{statement}**" in rest and "apostrophe" in rest


# --- pack ----------------------------------------------------------------------------------------


def test_a_pack_holds_what_may_leave_and_nothing_private(runs: Path) -> None:
    run = runs / "end-to-end"
    assert call("release", run, "--pack") == 0
    path = next(run.glob("rpsg-*.zip"))
    first = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = {name.split("/")[1] for name in archive.namelist()}
        files = {name.split("/")[1]: archive.read(name).decode() for name in archive.namelist()}
    released = {item.name for item in (run / "release").iterdir()}
    assert names == released | {"configuration.yaml", "sbom.cdx.json", "STATEMENT.md"}
    assert not any(str(place) in text for text in files.values() for place in (POSTS, run, Path.home()))
    config = yaml.safe_load(files["configuration.yaml"])
    assert config["epsilon"] == 8 and "path" not in config["data"] and "endpoints" not in config
    statement = files["STATEMENT.md"]
    assert "It certifies nothing" in statement and "epsilon=" in statement
    for heading in ("Singling out", "Linkability", "Inference"):
        assert f"## {heading}" in statement
    pack_release(run)
    assert path.read_bytes() == first


def test_the_list_of_software_is_what_cyclonedx_asks_for(runs: Path) -> None:
    path = pack_release(runs / "selection")
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("sbom.cdx.json"))
        found = json.loads(archive.read(name))
        page = archive.read(name.replace("sbom.cdx.json", "STATEMENT.md")).decode()
    assert (found["bomFormat"], found["specVersion"], found["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", found["serialNumber"])
    refs = [item["bom-ref"] for item in found["components"]]
    assert len(refs) == len(set(refs)) and {item["type"] for item in found["components"]} == {
        "library", "machine-learning-model",
    }  # fmt: skip
    by_name = {item["name"]: item for item in found["components"]}
    assert {"rpsg", "torch", "opendp", "numpy", "fake"} <= set(by_name) and "pytest" not in by_name
    assert by_name["torch"]["purl"].startswith("pkg:pypi/torch@2.13.0")
    # Without a guarantee the page promises nothing.
    assert page.count("Nothing rules it out") == 3 and "by proof" not in page


def test_paths_and_servers_are_left_out_of_a_configuration(tmp_path: Path) -> None:
    values = {
        "data": {"path": "secret/posts.csv", "text_column": "body"},
        "output": {"folder": "/home/me/run", "formats": ["csv"]},
        "endpoints": {"ours": {"base_url": "http://inside:1"}},
        "models": {"write": "local:/models/x", "abstract": "openai-community/gpt2", "embed": str(tmp_path)},
        "abstract": {"prompt": "~/prompts"},
        "keys": {"public": "./public.json"},
        "executor": {"kind": "ray", "address": "ray://inside:10001", "storage": "s3://inside/folder"},
    }
    text = public_configuration(values)
    for part in ("secret", "/home", "inside", "/models", str(tmp_path), "~", "public.json"):
        assert part not in text
    assert "openai-community/gpt2" in text and "text_column: body" in text
    values = {
        "models": {
            "write": "llamacpp:/home/me/x.gguf",
            "embed": "LlamaCpp/mine.GGUF",
            "abstract": "a/" * 200,
        },
        "write": {"prompt": "clinic/prompts"},
        "keys": {"public": "clinic/public.json"},
    }
    text = public_configuration(values)
    assert not [part for part in ("me/x", "mine", "clinic") if part in text]


def test_a_configuration_does_not_depend_on_where_it_is_packed(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pack_release(runs / "selection").read_bytes()
    for name in ("rpsg", "fake", "topic", "posts", "selection"):
        (tmp_path / "here" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert pack_release(runs / "selection").read_bytes() == before


def test_a_folder_within_a_release_costs_nothing(runs: Path) -> None:
    run = runs / "selection"
    first, *others = ids(run)
    (run / "release/.ipynb_checkpoints").mkdir()
    (run / "release/.ipynb_checkpoints/x.txt").write_text("x")
    reject(run, first, private=True)
    assert call("release", run) == 0
    assert ids(run) == others and not list(run.glob(".release-*"))


def test_what_a_killed_process_left_of_a_release_goes(runs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run, purged = runs / "selection", runs / "end-to-end"
    for folder in (run, purged):
        (folder / ".release-killed").mkdir()
        (folder / ".release-killed/synthetic.jsonl").write_text("a private copy")
        # Not ours, though it is called so.
        (folder / ".release-link").symlink_to(elsewhere)
    reject(run, ids(run)[0], private=True)
    assert call("release", run) == 0 and not list(run.glob(".release-*"))
    assert call("purge", purged, "--private") == 0 and not list(purged.glob(".release-*"))
    assert elsewhere.is_dir()


def test_a_folder_of_another_program_is_not_purged(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"manifest_version": 3}')
    for part in ("private", "done"):
        (tmp_path / part).mkdir()
    (tmp_path / "done/released").touch()
    (tmp_path / "private/keys.txt").write_text("mine")
    with pytest.raises(RunDirError, match="not a run's private part"):
        purge_private(tmp_path)
    assert (tmp_path / "private/keys.txt").read_text() == "mine"


def test_a_private_part_that_is_a_link_is_purged_too(runs: Path, tmp_path: Path) -> None:
    run, elsewhere = runs / "selection", tmp_path / "other disk"
    (run / "private").rename(elsewhere)
    (run / "private").symlink_to(elsewhere)
    purge_private(run)
    assert not elsewhere.exists() and not list(run.glob(".private-*")) and not (run / "private").is_symlink()


# --- what never leaves ---------------------------------------------------------------------------


def test_a_run_with_canaries_never_leaves(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs / "selection"
    manifest = run / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "contains_canaries": True}))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for leave in (apply_review, pack_release, lambda folder: push_release(folder, "me/texts")):
        with pytest.raises(RunDirError, match="canaries"):
            leave(run)
    assert call("release", run) == 2 and call("push", run, "me/texts") == 2
    assert not list(run.glob("*.zip"))


def test_a_run_that_is_not_finished_or_does_not_hold_never_leaves(runs: Path) -> None:
    run = runs / "selection"
    card = run / "release/privacy_card.json"
    card.write_text(card.read_text().replace("No end-to-end", "Full end-to-end"))
    for leave in (pack_release, lambda folder: push_release(folder, "me/texts")):
        with pytest.raises(RunDirError, match="does not hold"):
            leave(run)
    (run / "done/released").unlink()
    with pytest.raises(RunDirError, match="not finished"):
        pack_release(run)


# --- purge ---------------------------------------------------------------------------------------


def test_purging_the_private_part_leaves_a_release_that_can_be_checked(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "end-to-end"
    files = {path: path.read_bytes() for path in (run / "release").iterdir()}
    assert call("purge", run, "--private") == 0
    assert sorted(path.name for path in run.iterdir()) == ["done", "manifest.json", "release"]
    assert {path: path.read_bytes() for path in (run / "release").iterdir()} == files
    assert call("card", "check", run / "release/privacy_card.json") == 0
    assert call("report", run) == 0 and {path: path.read_bytes() for path in files} == files
    states = {state.folder.name: state.state for state in find_runs(runs)}
    assert states == {"end-to-end": "purged", "selection": "finished"}
    capsys.readouterr()
    assert call("status", run) == 0 and capsys.readouterr().out == f"{run}: purged\n"
    commands = (["release", run], ["push", run, "a/b"], ["review", run], ["resume", run], ["audit", run])
    for command in (*commands, ["release", run, "--pack"], ["compare", run, run]):
        assert call(*command) == 2, command
        assert f"{run}/private was removed" in " ".join(capsys.readouterr().err.split("\n")), command
    assert call("purge", run, "--private") == 0


def test_a_purge_that_was_cut_off_is_gone_on_with(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs / "selection"

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("rpsg.staging.shutil.rmtree", killed)
        purge_private(run)
    assert not (run / "private").exists() and list(run.glob(".private-*"))
    assert purge_private(run) > 0 and not list(run.glob(".private-*"))


def test_a_run_that_is_not_finished_is_not_purged(runs: Path) -> None:
    (runs / "selection/done/released").unlink()
    with pytest.raises(RunDirError, match="not finished"):
        purge_private(runs / "selection")
    assert (runs / "selection/private/ledger.sqlite").exists()


# --- push ----------------------------------------------------------------------------------------


def push(
    folder: Path, url: str, *more: str, code: str = "from rpsg.cli import main; main()", **environment: str
) -> subprocess.CompletedProcess[str]:
    # In a process of its own: the hub's client reads its settings when it is first imported.
    own = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", **environment}
    return subprocess.run(
        [sys.executable, "-c", code, "push", str(folder), "me/texts", *more],
        env={**{name: value for name, value in os.environ.items() if name != "HF_TOKEN"}, **own},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_push_sends_the_release_and_nothing_else(runs: Path) -> None:
    run = runs / "selection"
    with hub() as server:
        done = push(run, server.url, "--token-env", "MY_TOKEN", MY_TOKEN=TOKEN)
        assert done.returncode == 0, done.stderr
        assert "Pushed to" in done.stdout and TOKEN not in done.stdout + done.stderr
        assert {name: content for name, content in server.files.items() if name != ".gitattributes"} == {
            path.name: path.read_bytes() for path in (run / "release").iterdir()
        }
        assert server.created[0]["visibility"] == "private" and server.created[0]["type"] == "dataset"
        assert not [path for path in server.asked if "agent" in path or "telemetry" in path]
        push(run, server.url, "--public", HF_TOKEN=TOKEN)
        assert server.created[-1]["visibility"] == "public"


@pytest.mark.parametrize("answer", [(409, b"{}"), (200, b"<html>sign in</html>"), (200, b"{}"), (200, b"[]")])
def test_what_is_no_hub_is_said_to_be_none(runs: Path, answer: tuple[int, bytes]) -> None:
    with hub() as server:
        server.odd = ("create", *answer, {})
        done = push(runs / "selection", server.url, HF_TOKEN=TOKEN)
        assert done.returncode == 2 and "Traceback" not in done.stderr + done.stdout
        assert "the hub" in done.stderr and TOKEN not in done.stderr and server.files == {}


def test_a_release_is_not_sent_on_to_another_host(runs: Path) -> None:
    with hub() as server, hub() as other:
        server.odd = ("/commit/", 307, b"", {"Location": f"{other.url}/api/datasets/me/texts/commit/main"})
        done = push(runs / "selection", server.url, HF_TOKEN=TOKEN)
        assert done.returncode == 2 and "nothing was sent there" in done.stderr
        assert other.asked == []


def test_a_hub_that_says_nothing_is_given_up(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import rpsg.hub; rpsg.hub._SECONDS = 0.5; from rpsg.cli import main; main()"
    with hub() as server:
        server.odd = ("create", 0, b"", {})
        done = push(runs / "selection", server.url, code=code, HF_TOKEN=TOKEN)
        assert done.returncode == 2 and "does not answer" in done.stderr


def test_a_token_in_the_place_of_its_variable_is_not_repeated(runs: Path) -> None:
    done = push(runs / "selection", "http://127.0.0.1:9", "--token-env", TOKEN)
    assert done.returncode == 2 and "is not set" in done.stderr and TOKEN not in done.stderr + done.stdout


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"{TOKEN}\u00e9", f"a {TOKEN}"])
def test_what_is_no_token_is_refused_and_not_shown(runs: Path, token: str) -> None:
    done = push(runs / "selection", "http://127.0.0.1:9", HF_TOKEN=token)
    assert done.returncode == 2 and "HF_TOKEN holds" in done.stderr and TOKEN not in done.stderr


def test_rejected_texts_are_not_pushed(runs: Path) -> None:
    run = runs / "selection"
    first = ids(run)[0]
    reject(run, first, private=True)
    with hub() as server:
        done = push(run, server.url, HF_TOKEN=TOKEN)
        assert done.returncode == 2 and "1 texts that a review rejected" in done.stderr
        assert server.asked == []
        assert push(run, server.url, "--no-review", HF_TOKEN=TOKEN).returncode == 0
        assert first in server.files["synthetic.jsonl"].decode()
        assert call("release", run) == 0
        assert push(run, server.url, HF_TOKEN=TOKEN).returncode == 0
        assert first not in server.files["synthetic.jsonl"].decode()


@pytest.mark.parametrize("change", ["card of another run", "jsonl", "csv", "a row more", "label"])
def test_a_release_that_was_edited_never_leaves(
    runs: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    run, other = runs / "selection", runs / "end-to-end"
    rows = run / "release/synthetic.jsonl"
    if change == "card of another run":
        # It holds by itself, and promises what this run does not keep.
        for name in ("privacy_card.json", "privacy_card.md"):
            shutil.copy(other / "release" / name, run / "release" / name)
    elif change == "csv":
        table = run / "release/synthetic.csv"
        table.write_text(table.read_text().replace('","', '","A private name ', 3))
    elif change == "a row more":
        rows.write_text(rows.read_text() + json.dumps({"id": "x", "text": "private", "topic": None}) + "\n")
    else:
        first, *others = rows.read_text().splitlines(keepends=True)
        part = {"text" if change == "jsonl" else "topic": "private"}
        rows.write_text("".join([json.dumps(json.loads(first) | part) + "\n", *others]))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for leave in (pack_release, lambda folder: push_release(folder, "me/texts")):
        with pytest.raises(RunDirError, match="does not hold"):
            leave(run)


def test_a_page_that_was_edited_is_written_anew_before_it_leaves(runs: Path) -> None:
    run = runs / "selection"
    page = run / "release/report.html"
    pack_release(run)
    before = page.read_bytes()
    page.write_text("Certified private.")
    with zipfile.ZipFile(pack_release(run)) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("report.html")]
        assert archive.read(name) == before
    page.write_text("Certified private.")
    with hub() as server:
        assert push(run, server.url, HF_TOKEN=TOKEN).returncode == 0
        assert server.files["report.html"] == before


@pytest.mark.parametrize("kind", ["file", "folder", "link", "linked data"])
def test_what_rpsg_did_not_write_never_leaves(runs: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    run = runs / "selection"
    odd = run / "release/notes.txt"
    if kind == "file":
        odd.write_text("x")
    elif kind == "folder":
        odd.mkdir()
    elif kind == "link":
        odd.symlink_to(run / "private/config.yaml")
    else:
        odd = run / "release/report.html"
        odd.unlink()
        odd.symlink_to(run / "private/report.html")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for leave in (pack_release, lambda folder: push_release(folder, "me/texts")):
        with pytest.raises(RunDirError, match=odd.name):
            leave(run)


def test_hidden_files_are_never_packed_or_pushed(runs: Path) -> None:
    run = runs / "selection"
    (run / "release/.DS_Store").write_text("x")
    (run / "release/.cache").mkdir()
    (run / "release/.cache/synthetic.jsonl").write_text("x")
    with zipfile.ZipFile(pack_release(run)) as archive:
        assert not [name for name in archive.namelist() if "/." in name]
    with hub() as server:
        assert push(run, server.url, HF_TOKEN=TOKEN).returncode == 0
        assert not [name for name in server.files if "cache" in name or "DS" in name]


def test_push_refused_is_one_message_without_the_token(runs: Path) -> None:
    run = runs / "selection"
    with hub() as server:
        done = push(run, server.url, HF_TOKEN="hf_other")
        assert done.returncode == 2 and "refused (401)" in done.stderr and "hf_other" not in done.stderr
        assert server.files == {}
        server.asked.clear()
        done = push(run, server.url)
        assert done.returncode == 2 and "HF_TOKEN is not set" in done.stderr and server.asked == []
    done = push(run, server.url, HF_TOKEN=TOKEN)
    assert done.returncode == 2 and "does not answer" in done.stderr
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        push_release(run, "texts")
