import pytest

from rpsg.audit.extraction import extraction
from rpsg.audit.finding import Finding, Game

TEXT = "Anselm Rookwood owes the clinic money since the roof of his house fell in last winter, he says."


def of(findings: tuple[Finding, ...], statistic: str) -> Finding:
    return next(finding for finding in findings if finding.statistic.startswith(statistic))


def test_each_models_release_gets_its_own_rates(posts: list[str]) -> None:
    members = posts[:140]
    game = Game(members=tuple(members), nonmembers=tuple(posts[140:280]), synthetic=tuple(posts[280:]))
    findings = extraction(game, {"copies": members[:40], "others": posts[280:]})
    rate = "share of released texts with a member's private detail"
    assert of(findings, f"{rate}, copies").value > 0.3  # type: ignore[operator]
    others = of(findings, f"{rate}, others")
    assert others.value <= 0.1 and others.control <= 0.1  # type: ignore[operator]
    assert of(findings, "share of members of whom half a text is released, copies").value == 40 / 140
    assert of(findings, "share of members of whom half a text is released, others").value == 0
    assert not any(finding.decides for finding in findings)


def test_without_names_the_pooled_release_is_one(posts: list[str]) -> None:
    game = Game(members=tuple(posts[:50]), nonmembers=tuple(posts[50:100]), synthetic=tuple(posts[:50]))
    findings = extraction(game)
    assert len(findings) == 3
    assert of(findings, "share of the members' private details that are released").value == 1.0
    assert of(findings, "share of members of whom half a text is released").value == 1.0


@pytest.mark.parametrize(("n_words", "is_extracted"), [(18, 1.0), (9, 1.0), (8, 0.0), (0, 0.0)])
def test_half_a_text_counts_as_extracted(n_words: int, is_extracted: float) -> None:
    # The text has 18 words.
    released = " ".join(TEXT.split()[:n_words]) or "nothing"
    game = Game(members=(TEXT,), nonmembers=("other words",), synthetic=("x", f"well, {released}"))
    findings = extraction(game)
    assert of(findings, "share of members of whom half a text is released").value == is_extracted


def test_an_empty_release_extracts_nothing() -> None:
    findings = extraction(Game(members=(TEXT,), nonmembers=(), synthetic=()))
    assert of(findings, "share of released texts").value is None
    assert of(findings, "share of the members' private details").value == 0.0
