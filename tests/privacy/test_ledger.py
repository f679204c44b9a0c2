import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from rpsg.errors import PrivacyError, RunDirError
from rpsg.privacy.accounting import GaussianEvent, NonPrivateEvent, PureEvent
from rpsg.privacy.ledger import Ledger
from rpsg.privacy.mechanisms import GaussianVotes, NoisyMax, NonPrivate, NonPrivateTexts, Votes
from rpsg.privacy.noise import FixedNoise, SecureNoise
from rpsg.types import PrivateVariant, SyntheticText

VOTES = Votes(units=np.arange(4), items=np.asarray([0, 1, 1, 2]), weights=np.ones(4))
COUNT = GaussianVotes(noise_multiplier=3.0, n_items=3)
CHOICE = NoisyMax(epsilon=2.0, n_candidates=3)


def test_a_release_is_replayed_and_never_drawn_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        first = ledger.release("vote", COUNT, VOTES)
        assert ledger.release("vote", COUNT, VOTES) == first
    with Ledger.open(path) as ledger:
        # Not even with other private values: what was seen is what counts.
        other = Votes(units=np.arange(1), items=np.zeros(1, np.int64), weights=np.ones(1))
        assert ledger.release("vote", COUNT, other) == first
        assert len(ledger.lines()) == 1


def test_other_parameters_under_the_same_label_are_refused(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l") as ledger:
        ledger.release("vote", COUNT, VOTES)
        with pytest.raises(PrivacyError, match="other parameters"):
            ledger.release("vote", GaussianVotes(noise_multiplier=9.0, n_items=3), VOTES)
        with pytest.raises(PrivacyError, match="other parameters"):
            ledger.release("vote", CHOICE, {"r": [0.1]})


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
    assert vote.events == (GaussianEvent(sensitivity_l2=1.0, std=3.0, relation="add/remove one unit"),)
    assert exact.events == (NonPrivateEvent(reason="no noise"),)
    assert choice.secure_noise and vote.secure_noise


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
        big = GaussianVotes(noise_multiplier=3.0, n_items=5000)
        with pytest.raises(RunDirError, match="nothing was released"):
            ledger.release("vote", big, VOTES)
        assert ledger.lines() == []


def test_two_processes_agree_on_one_draw(tmp_path: Path) -> None:
    path = tmp_path / "l"
    one, two = Ledger.open(path), Ledger.open(path)
    assert one.release("vote", COUNT, VOTES) == two.release("vote", COUNT, VOTES)
    one.close()
    two.close()
    rows = sqlite3.connect(path).execute("SELECT count(*) FROM lines").fetchone()
    assert rows == (1,)
