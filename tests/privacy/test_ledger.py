import math
import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from rpsg.errors import BudgetExceeded, PrivacyError, RunDirError
from rpsg.privacy.accounting import calibrate_gaussian
from rpsg.privacy.events import GaussianEvent, NonPrivateEvent, PureEvent
from rpsg.privacy.ledger import Ledger, Limit, read_run
from rpsg.privacy.mechanisms import GaussianSum, NoisyMax, PrivateQuantile, PrivateRows, ThresholdedKeys
from rpsg.privacy.noise import FixedNoise, SecureNoise
from rpsg.privacy.plain import NonPrivate, NonPrivateTexts
from rpsg.types import PrivateVariant, SyntheticText

VOTES = PrivateRows(units=np.arange(4), items=np.asarray([0, 1, 1, 2]), weights=np.ones(4))
COUNT = GaussianSum(noise_multiplier=3.0, n_items=3)
CHOICE = NoisyMax(epsilon=2.0, n_candidates=3)
KEYS = ThresholdedKeys(noise_multiplier=2.0, max_keys=3, delta=1e-7)
QUANTILE = PrivateQuantile(quantile=0.5, epsilon=1.0, candidates=(1.0, 2.0))


def test_a_release_is_replayed_and_never_drawn_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        first = ledger.release("vote", COUNT, VOTES)
        assert ledger.release("vote", COUNT, VOTES) == first
    with Ledger.open(path) as ledger:
        # Not even with other private values: what was seen is what counts.
        other = PrivateRows(units=np.arange(1), items=np.zeros(1, np.int64), weights=np.ones(1))
        assert ledger.release("vote", COUNT, other) == first
        assert len(ledger.lines()) == 1


def test_other_parameters_under_the_same_label_are_refused(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l") as ledger:
        ledger.release("vote", COUNT, VOTES)
        with pytest.raises(PrivacyError, match="other parameters"):
            ledger.release("vote", GaussianSum(noise_multiplier=9.0, n_items=3), VOTES)
        with pytest.raises(PrivacyError, match="other parameters"):
            ledger.release("vote", CHOICE, {"r": [0.1]})


def test_a_draw_is_never_taken_for_one_of_other_texts(tmp_path: Path) -> None:
    texts = ["a heated flat", "b", "c"]
    with Ledger.open(tmp_path / "l") as ledger:
        first = ledger.release("vote", COUNT, VOTES, of=texts)
        assert ledger.release("vote", COUNT, VOTES, of=tuple(texts)) == first
        for others in (texts[::-1], texts[:2], ["a heated flatb", "", "c"], ()):
            with pytest.raises(PrivacyError, match="of other texts"):
                ledger.release("vote", COUNT, VOTES, of=others)
        assert [line.label for line in ledger.lines()] == ["vote"]
    # A hash of them is kept, not the texts.
    assert b"heated" not in (tmp_path / "l").read_bytes()


def test_a_draw_without_texts_is_not_taken_for_one_of_texts(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l") as ledger:
        ledger.release("vote", COUNT, VOTES)
        with pytest.raises(PrivacyError, match="of other texts"):
            ledger.release("vote", COUNT, VOTES, of=["a", "b", "c"])


def test_a_record_is_drawn_for_once_in_a_run(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l") as ledger:
        ledger.release("first", CHOICE, {"a": [0.1, 0.2], "b": [0.3]})
        with pytest.raises(PrivacyError, match="one draw a record"):
            ledger.release("second", CHOICE, {"c": [0.5], "a": [0.1, 0.2]})
        assert [line.label for line in ledger.lines()] == ["first"]
        # Nothing of the refused release was kept.
        ledger.release("third", CHOICE, {"c": [0.5]})


def test_lines_describe_what_was_released(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l") as ledger:
        ledger.release("choice", CHOICE, {"a": [0.1]}, note="one draw")
        ledger.release("vote", COUNT, VOTES)
        ledger.release("exact", NonPrivate(reason="no noise"), [1, 2])
        choice, vote, exact = ledger.lines()
    assert choice.events == (PureEvent(epsilon=2.0, relation="replace one record"),)
    assert choice.parameters == {"epsilon": 2.0, "n_candidates": 3}
    assert choice.note == "one draw"
    assert vote.events == (
        GaussianEvent(sensitivity_l2=1.0, std=3.0, relation="add/remove one unit", replace_l2=math.sqrt(2)),
    )
    assert exact.events == (NonPrivateEvent(reason="no noise"),)
    assert choice.secure_noise and vote.secure_noise


def test_every_event_of_a_mechanism_is_charged(tmp_path: Path) -> None:
    mechanisms = (KEYS, CHOICE, COUNT, QUANTILE)
    values = ({"u": ["rent"]}, {"r": [0.1]}, VOTES, {"u": [1.0]})
    with Ledger.open(tmp_path / "l") as ledger:
        for mechanism, value in zip(mechanisms, values, strict=True):
            ledger.release(type(mechanism).__name__, mechanism, value)
        lines = ledger.lines()
    assert len(KEYS.events) == 2
    assert [line.events for line in lines] == [mechanism.events for mechanism in mechanisms]


def test_fixed_noise_is_stamped(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l", noise=FixedNoise(1)) as ledger:
        ledger.release("vote", COUNT, VOTES)
        assert not ledger.lines()[0].secure_noise


def test_texts_get_fresh_ids_and_a_secret_order(tmp_path: Path) -> None:
    variants = [
        PrivateVariant(variant_id=f"v{i}", record_id=f"r{i}", text=f"text {i}", labels={"topic": str(i)})
        for i in range(50)
    ]
    with Ledger.open(tmp_path / "l") as ledger:
        texts = ledger.release("texts", NonPrivateTexts(reason="rewrites"), variants)
        again = ledger.release("texts", NonPrivateTexts(reason="rewrites"), variants)
    assert isinstance(texts, tuple) and all(isinstance(text, SyntheticText) for text in texts)
    assert texts == again
    assert [text.text for text in texts] != [variant.text for variant in variants]
    assert {text.text for text in texts} == {variant.text for variant in variants}
    assert len({text.text_id for text in texts}) == 50
    assert all(text.text.split()[1] == text.labels["topic"] for text in texts)


def test_only_the_owner_can_read_the_ledger(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l"):
        assert (tmp_path / "l").stat().st_mode & 0o077 == 0


def test_a_damaged_file_gets_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "l").write_text("this is no database, but it is long enough to look at" * 20)
    with pytest.raises(RunDirError, match="cannot open the ledger"):
        Ledger.open(tmp_path / "l")


class KillBefore(SecureNoise):
    """Ends the process like a power cut, after the draw and before the commit."""

    def gaussian(self, values: np.ndarray, std: float) -> np.ndarray:
        super().gaussian(values, std)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def _die(path: Path) -> None:
    Ledger.open(path, noise=KillBefore()).release("vote", COUNT, VOTES)


def test_a_draw_that_nobody_saw_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "l"
    process = multiprocessing.get_context("spawn").Process(target=_die, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with Ledger.open(path) as ledger:
        assert ledger.lines() == []
        ledger.release("vote", COUNT, VOTES)
        assert len(ledger.lines()) == 1


def test_nothing_is_released_when_the_ledger_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with Ledger.open(path) as ledger:
        # A full disk, as SQLite sees it: the file may not grow.
        ledger._db.execute("PRAGMA max_page_count = 1")
        big = GaussianSum(noise_multiplier=3.0, n_items=5000)
        with pytest.raises(RunDirError, match="nothing was released"):
            ledger.release("vote", big, VOTES)
        assert ledger.lines() == []


def test_two_processes_agree_on_one_draw(tmp_path: Path) -> None:
    path = tmp_path / "l"
    one, two = Ledger.open(path), Ledger.open(path)
    assert one.release("vote", COUNT, VOTES) == two.release("vote", COUNT, VOTES)
    one.close()
    two.close()
    rows = sqlite3.connect(path).execute("SELECT count(*) FROM entries").fetchone()
    assert rows == (1,)


# --- the chain -----------------------------------------------------------------------------------


def fill(path: Path, *labels: str) -> None:
    with Ledger.open(path) as ledger:
        for label in labels:
            ledger.release(label, COUNT, VOTES)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET result = '[1.0, 1.0, 1.0]' WHERE entry_id = 1",
        "UPDATE entries SET body = replace(body, '3.0', '9.0') WHERE entry_id = 2",
        "UPDATE entries SET label = 'another' WHERE entry_id = 1",
        "DELETE FROM entries WHERE entry_id = 1",
        "UPDATE entries SET hash = 'ff' WHERE entry_id = 2",
    ],
)
def test_an_edited_ledger_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "l"
    fill(path, "one", "two")
    with sqlite3.connect(path) as db:
        db.execute(change)
    with pytest.raises(PrivacyError, match="the file was edited"):
        Ledger.open(path)


def test_a_cut_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l"
    fill(path, "one", "two")
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM entries WHERE entry_id = 2")
    with pytest.raises(PrivacyError, match="has 1 entries and had 2"):
        Ledger.open(path)


def test_an_old_copy_is_refused_and_the_newest_goes_on(tmp_path: Path) -> None:
    path, copy = tmp_path / "l", tmp_path / "copy"
    fill(path, "one")
    copy.write_bytes(path.read_bytes())
    fill(path, "two")
    with pytest.raises(PrivacyError, match="old copy"):
        Ledger.open(copy)
    fill(path, "three")


def test_a_copy_that_went_its_own_way_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, copy = tmp_path / "l", tmp_path / "copy"
    fill(path, "one")
    copy.write_bytes(path.read_bytes())
    fill(path, "two")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
        fill(copy, "other")
    with pytest.raises(PrivacyError, match="another copy of this run went on"):
        Ledger.open(copy)


def test_a_ledger_of_other_data_is_refused(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "l", binding="these data").close()
    with pytest.raises(PrivacyError, match="other data"):
        Ledger.open(tmp_path / "l", binding="those data")


def test_heads_hold_no_text_and_are_for_the_owner_only(tmp_path: Path) -> None:
    fill(tmp_path / "l", "zanzibar")
    heads = list((Path(os.environ["XDG_STATE_HOME"]) / "rpsg/heads").glob("*.json"))
    assert len(heads) == 1 and "zanzibar" not in heads[0].read_text() + heads[0].name
    assert heads[0].stat().st_mode & 0o077 == 0 and heads[0].parent.stat().st_mode & 0o077 == 0


def test_a_state_folder_that_cannot_be_written_gets_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(RunDirError, match="set XDG_STATE_HOME"):
        Ledger.open(tmp_path / "l")


def test_lines_can_be_read_from_a_finished_run(tmp_path: Path) -> None:
    fill(tmp_path / "l", "one")
    assert [line.label for line in read_run(tmp_path / "l")[0]] == ["one"]
    with pytest.raises(RunDirError, match="no ledger"):
        read_run(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


# --- many draws, limits --------------------------------------------------------------------------


class KillAfter(SecureNoise):
    """Ends the process at a given draw."""

    def __init__(self, draws: int) -> None:
        super().__init__()
        self._left = draws

    def noisy_max(self, utilities: list[float], scale: float) -> int:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().noisy_max(utilities, scale)


MANY = {f"r{i}": [0.2, 0.9, 0.5] for i in range(2500)}


def _die_midway(path: Path) -> None:
    Ledger.open(path, noise=KillAfter(1700)).release("choice", CHOICE, MANY)


def test_many_draws_are_paid_first_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    path = tmp_path / "l"
    process = multiprocessing.get_context("spawn").Process(target=_die_midway, args=(path,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    with Ledger.open(path) as ledger:
        # The whole cost is on the ledger, and the first part's draws are kept.
        assert [line.label for line in ledger.lines()] == ["choice"]
        kept = ledger._drawn("choice")
        assert len(kept) == 1000
        drawn = ledger.release("choice", CHOICE, MANY)
        assert isinstance(drawn, dict) and list(drawn) == list(MANY)
        assert {name: drawn[name] for name in kept} == kept
        assert ledger.release("choice", CHOICE, MANY) == drawn
        with pytest.raises(PrivacyError, match="begun for other records"):
            ledger.release("choice", CHOICE, {"stranger": [0.1]})


def test_a_limit_is_never_passed(tmp_path: Path) -> None:
    noise = calibrate_gaussian(2.0, 1e-6, n_releases=3)
    count = GaussianSum(noise_multiplier=noise, n_items=3)
    with Ledger.open(tmp_path / "l", limit=Limit(epsilon=2.0, delta=1e-6)) as ledger:
        for label in ("one", "two", "three"):
            ledger.release(label, count, VOTES)
        with pytest.raises(BudgetExceeded, match="Nothing was drawn"):
            ledger.release("four", count, VOTES)
        with pytest.raises(BudgetExceeded):
            ledger.release("exact", NonPrivate(reason="no noise"), [1])
        assert len(ledger.lines()) == 3
        # What was released before stays available.
        assert ledger.release("two", count, VOTES)


def _spend(path: Path, name: str) -> None:
    noise = calibrate_gaussian(2.0, 1e-6, n_releases=6)
    with Ledger.open(path, limit=Limit(epsilon=2.0, delta=1e-6)) as ledger:
        for i in range(5):
            try:
                ledger.release(f"{name} {i}", GaussianSum(noise_multiplier=noise, n_items=3), VOTES)
            except BudgetExceeded:
                return


def test_two_processes_never_overspend(tmp_path: Path) -> None:
    path = tmp_path / "l"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_spend, args=(path, name)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(read_run(path)[0]) == 6


# --- what a hostile reader tried -------------------------------------------------------------------


def test_a_deleted_ledger_is_not_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with Ledger.open(path, binding="run") as ledger:
        ledger.release("vote", COUNT, VOTES)
    path.unlink()
    with pytest.raises(PrivacyError, match="had another ledger, which is gone"):
        Ledger.open(path, binding="run")


def test_two_copies_that_are_open_at_once_do_not_both_draw(tmp_path: Path) -> None:
    path, copy = tmp_path / "l", tmp_path / "copy"
    fill(path, "one")
    copy.write_bytes(path.read_bytes())
    with Ledger.open(path) as first, Ledger.open(copy) as second:
        first.release("two", COUNT, VOTES)
        with pytest.raises(PrivacyError, match="old copy"):
            second.release("two", COUNT, VOTES)


def test_emptying_the_table_of_claims_does_not_allow_a_second_draw(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with Ledger.open(path) as ledger:
        ledger.release("first", CHOICE, {"a": [0.1, 0.2]})
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM claimed")
    with Ledger.open(path) as ledger:
        with pytest.raises(PrivacyError, match="one draw a record"):
            ledger.release("second", CHOICE, {"a": [0.1, 0.2]})
        with pytest.raises(PrivacyError, match="begun for other records"):
            ledger.release("first", CHOICE, {"a": [0.1, 0.2]})


def test_draws_of_a_resumed_release_decide_whether_noise_was_secure(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with Ledger.open(path) as ledger, pytest.raises(ValueError, match="stop"):
        ledger._noise.noisy_max = lambda *_: (_ for _ in ()).throw(ValueError("stop"))  # type: ignore[method-assign]
        ledger.release("choice", CHOICE, {"a": [0.1, 0.2]})
    with Ledger.open(path, noise=FixedNoise(1)) as ledger:
        ledger.release("choice", CHOICE, {"a": [0.1, 0.2]})
        assert not ledger.lines()[0].secure_noise


def test_a_limit_cannot_be_changed_or_left_out_later(tmp_path: Path) -> None:
    path = tmp_path / "l"
    Ledger.open(path, limit=Limit(epsilon=0.5, delta=1e-6)).close()
    with pytest.raises(PrivacyError, match="another limit"):
        Ledger.open(path, limit=Limit(epsilon=50, delta=1e-6))
    with Ledger.open(path) as ledger, pytest.raises(BudgetExceeded):
        ledger.release("vote", COUNT, VOTES)
    nothing = Limit(epsilon=math.nan, delta=1e-6)
    with Ledger.open(tmp_path / "nan", limit=nothing) as ledger, pytest.raises(BudgetExceeded):
        ledger.release("vote", COUNT, VOTES)


@pytest.mark.parametrize("change", ["DELETE FROM meta", "DELETE FROM meta WHERE name = 'binding'"])
def test_a_ledger_without_identity_gets_one_message(tmp_path: Path, change: str) -> None:
    path = tmp_path / "l"
    with Ledger.open(path, binding="run") as ledger:
        ledger.release("vote", COUNT, VOTES)
    with sqlite3.connect(path) as db:
        db.execute(change)
    with pytest.raises(PrivacyError):
        Ledger.open(path, binding="run")


def test_a_damaged_head_gets_one_message(tmp_path: Path) -> None:
    fill(tmp_path / "l", "one")
    (head,) = (Path(os.environ["XDG_STATE_HOME"]) / "rpsg/heads").glob("*.json")
    head.write_text("")
    with pytest.raises(PrivacyError, match="is damaged"):
        Ledger.open(tmp_path / "l")
