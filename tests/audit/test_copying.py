import random
import time
from dataclasses import replace

import numpy as np
import pytest

from rpsg.audit.copying import copying, find_copies, longest_shared_runs
from rpsg.audit.events import Units
from rpsg.audit.finding import Finding, Game
from rpsg.audit.own import SYNTHETIC, KnownRuns
from rpsg.audit.wordruns import WordRuns
from rpsg.errors import DataError
from rpsg.text import WordRuns as TextRuns
from rpsg.text import normalised_words, words_of

LONG = " ".join(f"w{i}" for i in range(40))


def of(findings: tuple[Finding, ...], attack: str) -> Finding:
    return next(finding for finding in findings if finding.attack == attack)


def longest_common_run(one: list[str], other: list[str]) -> int:
    best = 0
    for i in range(len(one)):
        for j in range(len(other)):
            length = 0
            while one[i + length : i + length + 1] and one[i + length] == "".join(
                other[j + length : j + length + 1]
            ):
                length += 1
            best = max(best, length)
    return best


# --- runs of words ---------------------------------------------------------------------------------


def random_texts(rng: random.Random, n: int) -> list[str]:
    # Two letters only, so that texts share long runs; some are empty, some repeat.
    texts = [" ".join(rng.choice("ab") for _ in range(rng.randrange(0, 25))) for _ in range(n)]
    return [*texts, texts[0], ""]


def test_longest_runs_are_those_of_comparing_all_pairs() -> None:
    rng = random.Random(0)
    for _ in range(20):
        members, synthetic = random_texts(rng, 6), random_texts(rng, 6)
        game = Game(members=tuple(members), nonmembers=("x",), synthetic=tuple(synthetic))
        expected = [max(longest_common_run(s.split(), m.split()) for m in members) for s in synthetic]
        assert longest_shared_runs(game).tolist() == expected


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 13])
def test_runs_have_one_name_exactly_if_they_are_equal(length: int) -> None:
    texts = random_texts(random.Random(length), 12)
    named = WordRuns.build(texts).name(length)
    runs: list[tuple[str, ...] | None] = []
    for text in texts:
        words = text.split()
        runs += [
            tuple(words[i : i + length]) if i + length <= len(words) else None for i in range(len(words))
        ]
    assert [run is None for run in runs] == (named < 0).tolist()
    number: dict[tuple[str, ...], int] = {}
    for run, name in zip(runs, named.tolist(), strict=True):
        if run is not None:
            assert number.setdefault(run, name) == name
    assert len(set(number.values())) == len(number)


def test_a_run_of_two_units_or_of_a_public_text_is_nobodys_own() -> None:
    def owners(**texts: tuple[str, ...]) -> set[int]:
        game = Game(**{"nonmembers": ("nothing",), "synthetic": (f"so {LONG} then",), **texts})  # type: ignore[arg-type]
        known = KnownRuns.of(game)
        return set(known.owners(30)[known.runs.group == SYNTHETIC].tolist()) - {-1}

    assert owners(members=("other", LONG)) == {1}
    assert owners(members=(LONG, LONG)) == set()
    assert owners(members=(LONG, LONG), member_units=("a", "a")) == {0}
    assert owners(members=(LONG,), nonmembers=(LONG,)) == set()
    assert owners(members=(LONG,), public=(f"{LONG} more",)) == set()
    assert owners(members=("w1",), nonmembers=(LONG,)) == {1}


def test_case_punctuation_and_width_of_letters_do_not_count() -> None:
    assert normalised_words("STRASSE, it’s ﬁne!") == normalised_words("straße it's fine")


@pytest.mark.parametrize(
    "written",
    [
        "don\u02bct",
        "don\u00b4t",
        "don`t",
        "do\u00adn't",
        "d\u200bon't",
        "d\u200do\ufe0fn't",
        "\u202edon't\u202c",
        "d\u206aon't",
        "d\u0332o\u0332n\u0338't",
    ],
)
def test_signs_that_a_program_changes_or_nobody_sees_do_not_count(written: str) -> None:
    assert normalised_words(f"a {written}\u2028b_c\x0bd") == ["a", "don't", "b", "c", "d"]
    assert TextRuns.build([f"they {written} know"], 3).shared_with("They don’t know")


def test_vowel_signs_belong_to_their_word_and_points_do_not_count() -> None:
    assert normalised_words("मैं दिल्ली में रहती हूँ।") == ["मैं", "दिल्ली", "में", "रहती", "हूँ"]
    assert normalised_words("שָׁלוֹם עוֹלָם") == normalised_words("שלום עולם")
    assert normalised_words("كَتَبَ") == normalised_words("كتب")
    # A selector after an emoji is no word.
    assert words_of("I \u2764\ufe0f tea \u0301 10\u2079") == ["i", "tea", "10"]


def test_tags_and_written_line_ends_do_not_count() -> None:
    assert normalised_words("a <b>b</b><br/>c\\nd 1 < 2<p>") == ["a", "b", "c", "d", "1", "2"]
    # Only the name goes: a copy may stand within a tag.
    assert normalised_words('<img alt="they never paid">') == ["alt", "they", "never", "paid"]
    assert normalised_words("x <they never paid> y") == ["x", "they", "never", "paid", "y"]


def test_html_entities_are_the_signs_that_they_stand_for() -> None:
    assert normalised_words("I don&#39;t &amp; can&rsquo;t&nbsp;pay") == normalised_words(
        "I don't & can’t pay"
    )


# --- the findings ----------------------------------------------------------------------------------


def test_copies_of_2_percent_are_found(copying_game: Game) -> None:
    findings = copying(copying_game)
    tested = of(findings, "copied_runs")
    assert tested.decides and tested.p_value is not None and tested.p_value < 0.01
    assert tested.value == 0.02 and tested.control == 0.0
    assert of(findings, "verbatim_runs").is_leak
    assert of(findings, "longest_run").value > 100  # type: ignore[operator]
    share = of(findings, "shared_runs")
    assert share.value > 0.04 > share.control  # type: ignore[operator]


def test_a_release_of_other_texts_is_no_leak(null_game: Game) -> None:
    findings = copying(null_game)
    tested = of(findings, "copied_runs")
    assert tested.p_value is not None and tested.p_value > 0.1
    assert not any(finding.is_leak for finding in findings)


def test_p_values_under_random_labels_are_not_too_small(abstracts: list[str], others: list[str]) -> None:
    # Copies of texts that are on either side by chance: what the test must not take for a leak.
    rng, release = np.random.default_rng(1), (*others[:20], *abstracts[:20])
    p_values = []
    for _ in range(50):
        texts = [abstracts[i] for i in rng.permutation(60)]
        game = Game(members=tuple(texts[:30]), nonmembers=tuple(texts[30:]), synthetic=release)
        p_values.append(of(copying(game), "copied_runs").p_value)
    assert sum(p <= 0.05 for p in p_values if p is not None) <= 7


def notice(date: str) -> str:
    words = LONG.split()
    return " ".join([*words[:22], *date.split(), *words[22:45]])


def test_a_phrase_of_everybody_with_a_date_in_it_is_nobodys_own() -> None:
    days = [f"on {i} March 2019" for i in range(40)]
    game = Game(
        members=tuple(f"m{i} {notice(day)}" for i, day in enumerate(days[:20])),
        nonmembers=tuple(f"n{i} {notice(day)}" for i, day in enumerate(days[20:])),
        synthetic=(notice(days[3]), notice(days[7])),
    )
    found = of(copying(game), "verbatim_runs")
    assert (found.value, found.is_leak) == (0, False) and find_copies(game).members == ()
    assert KnownRuns.of(game).shared_with_release(30).tolist() == [3, 7]
    # Half of thirty words around it are one member's alone.
    own = " ".join(f"own{i}" for i in range(16))
    game = replace(
        game, members=(*game.members, f"{own} {notice(days[39])}"), synthetic=(f"{own} {notice(days[39])}",)
    )
    assert of(copying(game), "verbatim_runs").is_leak


def test_what_comes_back_of_both_sides_is_left_to_the_test() -> None:
    texts = [" ".join(f"t{i}w{j}" for j in range(40)) for i in range(200)]
    game = Game(members=tuple(texts[:100]), nonmembers=tuple(texts[100:]), synthetic=())
    for members, nonmembers, is_leak in ((1, 0, True), (3, 2, False), (12, 1, True)):
        released = (*texts[:members], *texts[100 : 100 + nonmembers])
        found = of(copying(replace(game, synthetic=released)), "verbatim_runs")
        assert (found.value, found.control, found.is_leak) == (members, nonmembers, is_leak)


def test_thirty_words_of_one_member_are_a_leak_and_twenty_nine_are_not() -> None:
    words = LONG.split()
    for n, leaks in ((30, True), (29, False)):
        game = Game(
            members=("other text", LONG), nonmembers=("nothing",), synthetic=("x", " ".join(words[:n]))
        )
        assert of(copying(game), "verbatim_runs").is_leak is leaks
        copies = find_copies(game)
        assert copies.members == ((1,) if leaks else ())
        assert copies.synthetic == ((1,) if leaks else ())
        assert "w1" not in repr(copies)


def test_texts_of_one_unit_count_once() -> None:
    members = tuple(f"{LONG} {i}" for i in range(5))
    game = Game(
        members=members, nonmembers=("a", "b"), synthetic=(LONG,), member_units=("p",) * 5, nonmember_units=()
    )
    tested = of(copying(game), "copied_runs")
    assert (tested.value, tested.n_members, tested.n_nonmembers) == (1.0, 1, 2)


def test_a_unit_on_both_sides_is_refused() -> None:
    game = Game(
        members=("a",), nonmembers=("b",), synthetic=("c",), member_units=("p",), nonmember_units=("p",)
    )
    with pytest.raises(DataError, match="split the data by unit"):
        copying(game)
    with pytest.raises(DataError, match="give one a text"):
        Units.of(Game(members=("a", "b"), nonmembers=(), synthetic=(), member_units=("p",)))


@pytest.mark.parametrize("side", ["members", "nonmembers", "synthetic"])
def test_an_empty_side_gives_no_figure_and_no_error(side: str) -> None:
    texts: dict[str, tuple[str, ...]] = {"members": (LONG,), "nonmembers": ("b",), "synthetic": (LONG,)}
    findings = copying(Game(**{**texts, side: ()}))  # type: ignore[arg-type]
    assert len(findings) == 4


def test_time_grows_about_linearly() -> None:
    rng = np.random.default_rng(0)

    def seconds(n: int) -> float:
        texts = [" ".join(f"w{word}" for word in row) for row in rng.zipf(1.3, size=(n, 100)) % 20_000]
        third = n // 3
        game = Game(
            members=tuple(texts[:third]),
            nonmembers=tuple(texts[third : 2 * third]),
            synthetic=tuple(texts[2 * third :]),
        )
        began = time.process_time()
        copying(game)
        return time.process_time() - began

    seconds(60)
    times = [seconds(n) for n in (450, 4500)]
    ratio = times[1] / times[0]
    print(f"{times[0]:.2f} s for 450 texts of 100 words, {times[1]:.2f} s for 4,500: {ratio:.1f} times")
    # Quadratic would be 100.
    assert ratio < 30
