import time
from collections import Counter

import numpy as np
import pytest

from rpsg import data
from rpsg.audit.details import Detail, find_details
from rpsg.audit.finding import Finding, Game
from rpsg.audit.pii_replay import find_replays, pii_replay
from rpsg.text import normalised_words


def of(findings: tuple[Finding, ...], attack: str) -> Finding:
    return next(finding for finding in findings if finding.attack == attack)


def found(text: str) -> set[tuple[str, str]]:
    return {(detail.kind, " ".join(detail.words)) for detail in find_details(text)}


# --- the detector ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("write to j.doe+x@mail.example.com.", "email", "j doe x mail example com"),
        ("call (509) 555-0117 now", "phone", "5095550117"),
        ("ring +44 20 7946 0958", "phone", "2079460958"),
        ("I live at 63 Kererū Gully Terrace.", "address", "63 kererū gully terrace"),
        ("case R0092-617C was closed", "id", "r0092 617c"),
        ("born 22 august 1981", "date", "22 august 1981"),
        ("on 9/4/2004", "date", "9 4 2004"),
        ("I spoke to Anselm Rookwood today", "name", "anselm rookwood"),
        ("When Dr. Thackeray came", "name", "dr thackeray"),
        ("a boy named Wren", "name", "wren"),
        ("the clinic, Juniper Ledge Family Clinic, said", "name", "juniper ledge family clinic"),
        ("my username is gums_of_steel", "username", "gums of steel"),
        ("In Duluth you need a coat", "place", "duluth"),
        ("I owe $5,200 by then", "amount", "5 200"),
    ],
)
def test_details_are_found(text: str, kind: str, words: str) -> None:
    assert (kind, words) in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "On Monday the results were out. In March I moved.",
        "a decrease of 32.1-52.3 in 1993-1997 and 120/80",
        "When I was there, My mother said The End",
        "I handle packages all night",
    ],
)
def test_ordinary_words_and_figures_are_no_details(text: str) -> None:
    assert {kind for kind, _ in found(text)} <= {"amount"}, found(text)


def test_share_of_the_planted_details_that_the_detector_finds(planted: list[list[dict[str, str]]]) -> None:
    texts = [record.text for record in data.read_corpus(data.sample_path("posts_train.jsonl")).records]
    n_found: Counter[str] = Counter()
    n_planted: Counter[str] = Counter()
    for text, details in zip(texts, planted, strict=True):
        shown = [" ".join(detail.words) for detail in find_details(text)]
        for detail in details:
            words = " ".join(normalised_words(detail["value"]))
            n_planted[detail["type"]] += 1
            n_found[detail["type"]] += any(
                words in one or one in words or words.replace(" ", "").endswith(one) for one in shown
            )
    for kind, n in sorted(n_planted.items()):
        print(f"{kind}: {n_found[kind]} of {n}")
    for kind in ("EMAIL", "PHONE", "ID", "ADDRESS", "DATE_OF_BIRTH"):
        assert n_found[kind] == n_planted[kind]
    for kind in ("USERNAME", "ORG"):
        assert n_found[kind] >= 0.8 * n_planted[kind]
    # Given names alone and names in lower case: what it says it misses.
    assert n_found["PERSON"] >= 0.4 * n_planted["PERSON"]


@pytest.mark.parametrize("piece", ["a", "A", "A'", "1,", "1-", "a.", "A-", "_", "A ", "12 A ", "@", "Ab_1"])
def test_hostile_texts_are_read_in_linear_time(piece: str) -> None:
    began = time.process_time()
    find_details(piece * 50_000)
    assert time.process_time() - began < 5


def test_a_detail_shows_no_value() -> None:
    assert repr(Detail("name", ("anselm", "rookwood"))) == "Detail(<name>)"


# --- replay ----------------------------------------------------------------------------------------


def posts_game(posts: list[str], synthetic: list[str]) -> Game:
    return Game(members=tuple(posts[:140]), nonmembers=tuple(posts[140:280]), synthetic=tuple(synthetic))


def test_copied_posts_replay_their_details(posts: list[str]) -> None:
    game = posts_game(posts, posts[280:] + posts[:30])
    findings = pii_replay(game)
    main = of(findings, "pii_replay")
    assert main.decides and main.p_value < 1e-4 and main.value > 0.15 > main.control  # type: ignore[operator]
    assert of(findings, "pii_telling").is_leak
    replays = [replay for replay in find_replays(game) if replay.kind in ("email", "phone", "id", "address")]
    assert len(replays) > 5
    # Copies stand after the 40 other posts, in the same order.
    assert all(replay.synthetic == replay.member + 40 for replay in replays)
    assert "example" not in repr(replays)


def test_posts_of_others_replay_nothing(posts: list[str]) -> None:
    findings = pii_replay(posts_game(posts, posts[280:]))
    main = of(findings, "pii_replay")
    assert main.p_value > 0.05  # type: ignore[operator]
    assert not any(finding.is_leak for finding in findings)


def test_a_row_of_quotes_takes_no_time() -> None:
    began = time.perf_counter()
    find_details("my alias " + '"' * 200_000)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("text", ["I lived at {}47 Harrowgate Street.", "Case RX-{}7-4410-9 is mine."])
def test_a_few_addresses_may_be_chance_and_many_are_not(posts: list[str], text: str) -> None:
    # Eight of members alone, or eleven and one, are too many for chance: a helpline's address comes back of
    # both sides.
    own = [text.format(i + 11) for i in range(24)]
    for n_members, n_nonmembers, is_leak in ((3, 0, False), (8, 0, True), (8, 1, False), (11, 1, True)):
        game = Game(
            members=(*posts[:100], *own[:12]),
            nonmembers=(*posts[100:200], *own[12:]),
            synthetic=(*posts[280:], *own[:n_members], *own[12 : 12 + n_nonmembers]),
        )
        found = of(pii_replay(game), "pii_telling")
        assert (found.value, found.control) == (n_members, n_nonmembers)
        assert found.is_leak is is_leak, found


def test_removed_details_are_not_replayed(posts: list[str], planted: list[list[dict[str, str]]]) -> None:
    texts = [record.text for record in data.read_corpus(data.sample_path("posts_train.jsonl")).records]
    redacted = list(texts)
    for row, details in enumerate(planted):
        for detail in details:
            redacted[row] = redacted[row].replace(detail["value"], "[REMOVED]")
    rng = np.random.default_rng(0).permutation(len(texts))
    members, nonmembers = rng[:106], rng[106:]
    game = Game(
        members=tuple(texts[i] for i in members),
        nonmembers=tuple(texts[i] for i in nonmembers),
        synthetic=tuple(redacted[i] for i in members),
    )
    findings = pii_replay(game)
    for kind in ("email", "phone", "id", "username"):
        assert of(findings, f"pii_{kind}").value <= 0.1, kind  # type: ignore[operator]


def test_a_detail_of_two_units_or_of_public_text_is_not_private() -> None:
    text = "Write to Anselm Rookwood, a.rookwood@example.com."

    def value(**texts: tuple[str, ...]) -> float | None:
        game = Game(
            **{"members": (text,), "nonmembers": ("I met Lorcan Whitebread.",), "synthetic": (text,), **texts}  # type: ignore[arg-type]
        )
        return of(pii_replay(game), "pii_replay").value

    assert value() == 1.0
    assert value(public=(text,)) is None
    assert value(members=(text, text)) is None
    assert value(members=(text, text), member_units=("a", "a")) == 1.0
    assert value(synthetic=("Anselm met Rookwood.",)) == 0.0


def test_phone_numbers_match_in_any_layout_and_without_area_code() -> None:
    for written in ("509.555.0117", "5550117 or 555-0117", "+1 (509) 555 0117"):
        game = Game(members=("call (509) 555-0117",), nonmembers=("call 555-0188",), synthetic=(written,))
        assert of(pii_replay(game), "pii_phone").value == 1.0, written
    game = Game(members=("call (509) 555-0117",), nonmembers=("x",), synthetic=("call 607-555-0117",))
    assert of(pii_replay(game), "pii_phone").value == 0.0


def test_one_changed_sign_and_another_order_are_fuzzy_replays() -> None:
    for written in ("a man, Anselm Rockwood, came", "ROOKWOOD: Rookwood Anselm came", "Anselm Rookwod came"):
        game = Game(
            members=("I am Anselm Rookwood.",), nonmembers=("I met Lorcan Whitebread.",), synthetic=(written,)
        )
        findings = pii_replay(game)
        assert of(findings, "pii_replay").value == 0.0
        assert of(findings, "pii_replay_fuzzy").value == 1.0, written


def test_findings_hold_no_detail(posts: list[str]) -> None:
    game = posts_game(posts, posts[:30])
    told = " ".join(repr(finding) for finding in pii_replay(game)).casefold()
    for text in game.members:
        for detail in find_details(text):
            if detail.kind == "name" and len(detail.words) > 2:
                assert " ".join(detail.words) not in told


@pytest.mark.parametrize("side", ["members", "nonmembers", "synthetic"])
def test_an_empty_side_decides_nothing(side: str) -> None:
    texts = {"members": ("a@b.example",), "nonmembers": ("c@d.example",), "synthetic": ("a@b.example",)}
    main = of(pii_replay(Game(**{**texts, side: ()})), "pii_replay")  # type: ignore[arg-type]
    assert main.decides is (side == "synthetic")
