from rpsg.audit.description import NOTICE, description
from rpsg.audit.finding import Game
from rpsg.llm.fake import HashEmbedder


def test_distances_never_decide_and_carry_the_notice(copying_game: Game) -> None:
    findings = description(copying_game)
    assert len(findings) == 4
    for finding in findings:
        assert finding.family == "description" and finding.p_value is None
        assert not finding.decides and not finding.is_leak and NOTICE in finding.detail
        assert finding.low <= finding.value <= finding.high  # type: ignore[operator]


def test_copies_have_distance_zero() -> None:
    texts = tuple(f"alpha{i} beta{i} gamma{i} delta" for i in range(30))
    for embedder in (None, HashEmbedder()):
        game = Game(members=texts, nonmembers=tuple(f"other{i} words{i}" for i in range(40)), synthetic=texts)
        found = {finding.statistic: finding for finding in description(game, embedder=embedder)}
        closest = found["median of the distance to the closest record"]
        assert closest.value == 0 and closest.control > 0.3  # type: ignore[operator]
        assert closest.n_members == closest.n_nonmembers == 30
        assert found["median of the nearest neighbour distance ratio"].value == 0


def test_a_text_equal_to_two_records_is_nearer_to_neither() -> None:
    game = Game(members=("red fox", "red fox"), nonmembers=("a b", "c d"), synthetic=("red fox",))
    found = {finding.attack: finding.value for finding in description(game)}
    assert found == {"dcr": 0.0, "nndr": 1.0}


def test_too_few_texts_give_nothing() -> None:
    assert description(Game(members=("a",), nonmembers=("b", "c"), synthetic=("d",))) == ()
