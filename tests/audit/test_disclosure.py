from dataclasses import replace

import numpy as np
import pytest

from rpsg.audit.disclosure import disclosure
from rpsg.audit.finding import Finding, Game


def of(findings: tuple[Finding, ...], attack: str, statistic: str = "share of members disclosed") -> Finding:
    return next(f for f in findings if f.attack == attack and f.statistic.startswith(statistic))


def test_copies_of_2_percent_are_found(copying_game: Game) -> None:
    findings = disclosure(copying_game)
    for attack in ("disclosed_runs", "disclosed_words", "disclosed_links"):
        rate = of(findings, attack)
        assert rate.p_value is not None and rate.p_value < (0.01 if rate.decides else 0.05), rate
        assert 6 < of(findings, attack, "true disclosures").value < 15  # type: ignore[operator]
        assert of(findings, attack, "share of phantoms").value < 0.5  # type: ignore[operator]


def test_a_release_of_other_texts_discloses_phantoms_only(null_game: Game) -> None:
    findings = disclosure(null_game)
    for attack in ("disclosed_runs", "disclosed_words", "disclosed_links"):
        rate = of(findings, attack)
        assert rate.p_value is not None and rate.p_value > 0.05, rate
        estimate = of(findings, attack, "true disclosures")
        assert estimate.low < 0 < estimate.high  # type: ignore[operator]
        assert of(findings, attack, "lower bound of epsilon, one run").value == 0


def test_rewritten_copies_are_found_too(null_game: Game) -> None:
    # Three words of ten replaced: no long run is left.
    rng = np.random.default_rng(0)
    rewritten = [
        " ".join(word if rng.random() > 0.3 else "something" for word in text.split())
        for text in null_game.members[:20]
    ]
    game = replace(null_game, synthetic=(*null_game.synthetic, *rewritten))
    p_values = [of(disclosure(game), f"disclosed_{kind}").p_value for kind in ("runs", "words", "links")]
    assert all(p is not None and p < 0.01 for p in p_values), p_values


def test_words_of_two_units_or_of_public_texts_disclose_nobody() -> None:
    words = "zolpidine quaxford 77231 and so on"

    def disclosed(**texts: tuple[str, ...]) -> float | None:
        game = Game(
            **{"members": (words,), "nonmembers": ("nothing here",), "synthetic": (words,), **texts}  # type: ignore[arg-type]
        )
        return of(disclosure(game), "disclosed_words").value

    assert disclosed() == 1.0
    assert disclosed(public=("zolpidine quaxford 77231 on",)) == 0.0
    assert disclosed(members=(words, words)) == 0.0
    assert disclosed(members=(words, words), member_units=("a", "a")) == 1.0


@pytest.mark.parametrize("split", ["fixed", "coins"])
def test_a_full_copy_bounds_epsilon_under_the_relation_of_the_split(abstracts: list[str], split: str) -> None:
    members = tuple(abstracts[:300])
    game = Game(members=members, nonmembers=tuple(abstracts[300:600]), synthetic=members)
    findings = disclosure(game, split=split)  # type: ignore[arg-type]
    for statistic in ("lower bound of epsilon, one run", "lower bound of epsilon, from rates"):
        bound = of(findings, "disclosed_runs", statistic)
        assert bound.value > 3  # type: ignore[operator]
        assert ("replacing one unit" in bound.detail) is (split == "fixed")


def test_bounds_hold_for_randomised_response() -> None:
    # A unit's words are released with probability e / (1 + e) if it is in, else 1 / (1 + e): epsilon is 1 for
    # adding or removing it, 2 for replacing it. A bound at 95 % may be above that in 5 % of runs.
    rng = np.random.default_rng(3)
    above = {"coins": 0, "fixed": 0}
    for seed in range(40):
        names = [f"word{i} other{i} third{i}" for i in range(400)]
        kept = rng.random(400) < np.where(np.arange(400) < 200, np.e / (1 + np.e), 1 / (1 + np.e))
        game = Game(
            members=tuple(names[:200]),
            nonmembers=tuple(names[200:]),
            synthetic=tuple(name for name, keep in zip(names, kept, strict=True) if keep),
            seed=seed,
        )
        for split, epsilon in (("coins", 1.0), ("fixed", 2.0)):
            findings = disclosure(game, delta=0.0, split=split)  # type: ignore[arg-type]
            bound = of(findings, "disclosed_words", "lower bound of epsilon, one run").value
            above[split] += bound > epsilon  # type: ignore[operator]
    assert max(above.values()) <= 5


def test_an_empty_side_gives_rates_and_no_bounds() -> None:
    findings = disclosure(Game(members=("a b c",), nonmembers=(), synthetic=("a b c",)))
    assert {finding.statistic for finding in findings} == {"share of members disclosed"}
    assert of(findings, "disclosed_words").p_value is None
