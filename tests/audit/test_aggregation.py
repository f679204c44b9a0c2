from collections.abc import Sequence

import numpy as np
import pytest

from rpsg.audit.aggregation import aggregation
from rpsg.audit.finding import Finding, Game
from rpsg.llm.fake import HashEmbedder
from rpsg.types import FloatArray, Trust


def of(findings: tuple[Finding, ...], statistic: str) -> Finding:
    return next(finding for finding in findings if finding.statistic == statistic)


class Faint:
    """Random vectors for known texts; those of released texts point a little towards their member's."""

    name = "faint"
    trust: Trust = "local"
    cosine_range = (0.0, 1.0)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        return np.array([self._vector(text) for text in texts], dtype=np.float32)

    def _vector(self, text: str) -> FloatArray:
        vector = np.random.default_rng(list(text.encode())).normal(size=100)
        if text.startswith("from "):
            vector = vector + 0.2 * np.random.default_rng(list(text.split()[1].encode())).normal(size=100)
        unit: FloatArray = (vector / np.linalg.norm(vector)).astype(np.float32)
        return unit


MEMBERS = tuple(f"m{i}" for i in range(100))
OTHERS = tuple(f"n{i}" for i in range(100))


def test_many_faint_texts_together_beat_the_best() -> None:
    released = tuple(f"from {member} {i}" for member in MEMBERS for i in range(20))
    game = Game(members=MEMBERS, nonmembers=OTHERS, synthetic=released)
    gain = of(aggregation(game, embedder=Faint()), "AUC gained by the mean of the 20 most like")
    assert gain.value > 0.05 and gain.low > 0  # type: ignore[operator]


def test_one_copy_is_told_by_the_best_text_and_pooling_all_loses(abstracts: list[str]) -> None:
    members = abstracts[:60]
    game = Game(
        members=tuple(members),
        nonmembers=tuple(abstracts[60:120]),
        synthetic=(*members, *abstracts[120:400]),
    )
    for embedder in (None, HashEmbedder()):
        findings = aggregation(game, embedder=embedder)
        assert of(findings, "AUC by the most like released text").value == 1.0
        assert of(findings, "AUC gained by the mean of all").high < 0  # type: ignore[operator]


def test_a_second_release_of_the_same_data_helps() -> None:
    first, second = (tuple(f"from {m} {run}{i}" for m in MEMBERS for i in range(3)) for run in "ab")
    game = Game(members=MEMBERS, nonmembers=OTHERS, synthetic=first)
    name = "the mean of the most like text of each of two releases"
    findings = aggregation(game, embedder=Faint(), second=second)
    gain = of(findings, f"AUC gained by {name}")
    assert gain.low > 0  # type: ignore[operator]
    assert of(findings, f"AUC by {name}").value == pytest.approx(
        of(findings, "AUC by the most like released text").value + gain.value  # type: ignore[operator]
    )
    assert not any("two releases" in finding.statistic for finding in aggregation(game))


def test_without_a_leak_every_interval_holds_a_guess(null_game: Game) -> None:
    for finding in aggregation(null_game):
        assert finding.low <= finding.control <= finding.high, finding  # type: ignore[operator]
        assert finding.p_value is None and not finding.decides


def test_an_empty_side_gives_nothing() -> None:
    assert aggregation(Game(members=("a",), nonmembers=(), synthetic=("a",))) == ()
    assert aggregation(Game(members=("a",), nonmembers=("b",), synthetic=())) == ()
