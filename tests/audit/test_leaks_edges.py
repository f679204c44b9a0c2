"""What every attack on copied, disclosed, linked and replayed text does with odd games."""

from collections.abc import Callable

import pytest

from rpsg.audit.aggregation import aggregation
from rpsg.audit.copying import copying
from rpsg.audit.description import description
from rpsg.audit.disclosure import disclosure
from rpsg.audit.extraction import extraction
from rpsg.audit.finding import Finding, Game
from rpsg.audit.linkage import linkage
from rpsg.audit.pii_replay import pii_replay

Attack = Callable[[Game], tuple[Finding, ...]]


def link_all(game: Game) -> tuple[Finding, ...]:
    n = min(len(game.synthetic), len(game.members))
    return linkage(game, {i: i for i in range(n)}, generator="")


ATTACKS: list[Attack] = [
    copying, disclosure, link_all, pii_replay, extraction, aggregation, description
]  # fmt: skip
GAMES = {
    "nothing": Game(members=(), nonmembers=(), synthetic=()),
    "one word each": Game(members=("a",), nonmembers=("b",), synthetic=("a",)),
    "texts without words": Game(members=("a b", "!!"), nonmembers=("b", ""), synthetic=("...", "")),
    "all alike": Game(
        members=("same text",) * 3, nonmembers=("same text",) * 3, synthetic=("same text",) * 3
    ),
    "one unit": Game(
        members=("a b c", "d e f"), nonmembers=("x y",), synthetic=("a b", "d"), member_units=("p", "p")
    ),
    "no non-members": Game(members=("a b", "c d"), nonmembers=(), synthetic=("a b",)),
    "no members": Game(members=(), nonmembers=("a b", "c d"), synthetic=("a b",)),
    "no release": Game(members=("a b", "c"), nonmembers=("a b", "c d"), synthetic=()),
}


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_odd_games_give_findings_and_no_error(attack: Attack, name: str) -> None:
    for finding in attack(GAMES[name]):
        for share in (finding.p_value, finding.value if finding.statistic.startswith("share") else None):
            assert share is None or 0 <= share <= 1
        # What says nothing must not take part in a verdict as if it were evidence.
        assert finding.p_value is None or finding.p_value > 0.05
        assert not finding.is_leak


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_the_same_seed_gives_the_same_findings(attack: Attack, posts: list[str]) -> None:
    game = Game(
        members=tuple(posts[:60]), nonmembers=tuple(posts[60:120]), synthetic=tuple(posts[40:100]), seed=7
    )
    assert attack(game) == attack(game)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_no_finding_holds_a_private_word(attack: Attack) -> None:
    secret = "zolpidine quaxford 77231 anselm@rookwood.example " + " ".join(f"w{i}" for i in range(40))
    game = Game(members=(secret, "other one"), nonmembers=("x y z", "u v"), synthetic=(secret, "x y"))
    told = " ".join(map(repr, attack(game)))
    assert not any(word in told for word in ("zolpidine", "quaxford", "77231", "rookwood", "w39"))


def test_one_attack_decides_once(posts: list[str]) -> None:
    game = Game(members=tuple(posts[:60]), nonmembers=tuple(posts[60:120]), synthetic=tuple(posts[:20]))
    deciding = [finding.attack for attack in ATTACKS for finding in attack(game) if finding.decides]
    assert deciding == ["copied_runs", "disclosed_runs", "linkage_tfidf", "pii_replay"]
