"""Membership inference: what is planted is found, what is not there is not."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from rpsg.audit.auxiliary import AuxiliarySettings, auxiliary_scores
from rpsg.audit.control import bag_of_words_control, check_split
from rpsg.audit.finding import Finding, Game
from rpsg.audit.membership import membership_findings, membership_scores
from rpsg.audit.permutation import joint_test
from rpsg.audit.pool import Pool
from rpsg.audit.run import AuditSettings, audit
from rpsg.audit.selftest import self_test
from rpsg.audit.split import game_of, pool_corpora, split_by_coin
from rpsg.audit.verdict import LEAK, NONE_FOUND, TOO_FEW, judge
from rpsg.data import read_corpus, sample_path
from rpsg.errors import DataError
from rpsg.llm.surrogate import SurrogateSettings
from rpsg.types import PrivateCorpus, PrivateRecord

WORDS = [f"w{i}" for i in range(400)]
QUICK = AuditSettings(language_models=False)


def invent(n: int, *, seed: int, length: int = 30) -> list[str]:
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(WORDS) + 1)
    drawn = rng.choice(WORDS, size=(n, length), p=weights / weights.sum())
    return [" ".join(row) for row in drawn]


def game(synthetic: Sequence[str] | None = None, *, n: int = 150, seed: int = 0) -> Game:
    texts = invent(3 * n, seed=seed)
    return Game(
        members=tuple(texts[:n]),
        nonmembers=tuple(texts[n : 2 * n]),
        synthetic=tuple(texts[2 * n :] if synthetic is None else synthetic),
        seed=seed,
    )


# --- the pool -------------------------------------------------------------------------------------


def test_scores_cannot_depend_on_membership() -> None:
    # With the sides swapped, units and texts keep their scores: labels are all that changes.
    one = game()
    other = Game(
        members=one.nonmembers,
        nonmembers=one.members,
        synthetic=one.synthetic,
        member_units=tuple(f"n{i}" for i in range(150)),
        nonmember_units=tuple(f"m{i}" for i in range(150)),
        seed=one.seed,
    )
    found = []
    for each in (one, other):
        pool = Pool.of(each)
        scores = membership_scores(pool, each)
        order = np.argsort(pool.units)
        found.append({pool.texts[i]: scores["ngram_overlap_2"][pool.units[i]] for i in order})
    assert found[0] == pytest.approx(found[1])


def test_a_unit_counts_once_however_many_texts_it_has() -> None:
    texts = invent(90, seed=1)
    pool = Pool.of(
        Game(
            members=tuple(texts[:60]),
            nonmembers=tuple(texts[60:]),
            synthetic=("w1 w2",),
            member_units=tuple(f"u{i // 3}" for i in range(60)),
            nonmember_units=tuple(f"v{i}" for i in range(30)),
        )
    )
    assert (pool.n_members, pool.n_nonmembers) == (20, 30)
    assert len(pool.by_unit(np.arange(90.0))) == 50
    # No unit could stand on the other side: every test would say p = 1, of a biased split too.
    with pytest.raises(DataError, match="only 0 of 20 member units"):
        check_split(pool)


def test_where_copies_cannot_be_seen_the_verdict_does_not_say_that_none_was_found() -> None:
    one, settings = game(), AuditSettings(language_models=False)
    assert audit(one, settings).verdict.word == NONE_FOUND
    few = audit(replace(one, synthetic=one.synthetic[:5]), settings).verdict
    assert few.word == TOO_FEW and few.reasons == (
        "5 released texts; 20 are the least that attacks can work on",
    )

    def clauses(texts: Sequence[str]) -> tuple[str, ...]:
        # As in Chinese: a whole clause is one word.
        return tuple("，".join(text.replace(" ", "")[i : i + 20] for i in (0, 20, 40)) for text in texts)

    unspaced = Game(
        members=clauses(one.members), nonmembers=clauses(one.nonmembers),
        synthetic=(*clauses(one.synthetic), *clauses(one.members)[:1]), seed=0,
    )  # fmt: skip
    verdict = audit(unspaced, settings).verdict
    assert verdict.word == TOO_FEW and "no copy can be seen" in verdict.reasons[0]


def test_a_coin_that_fell_badly_is_noted_and_not_refused() -> None:
    # 1 in 100 fair splits is "biased": refusing these would cost the run that was paid for before.
    one = game()
    biased = replace(one, members=tuple(f"{text} w1 w1 zz" for text in one.members))
    pool = Pool.of(biased)
    with pytest.raises(DataError, match="the split is biased"):
        check_split(pool)
    assert check_split(pool, drawn=True).is_biased
    found = audit(biased, QUICK, drawn=True)
    assert any("once in a hundred" in note for note in found.notes)
    assert not any("once in a hundred" in note for note in audit(one, QUICK, drawn=True).notes)


def test_texts_that_differ_in_case_or_stops_are_the_same() -> None:
    one = game()
    alike = replace(one, nonmembers=(*one.nonmembers[1:], f"{one.members[0].upper()}."))
    with pytest.raises(DataError, match="1 texts are both members and non-members, word for word"):
        Pool.of(alike)


def test_nearly_the_same_texts_on_both_sides_hide_copies() -> None:
    one = game()
    # Every seventh word differs, so that no 13 words in a row are anybody's own.
    near = tuple(
        " ".join("other" if i % 7 == 0 else word for i, word in enumerate(text.split()))
        for text in one.members
    )
    hidden = replace(one, nonmembers=near, synthetic=(*one.synthetic, *near[:20]))
    assert audit(replace(one, synthetic=one.synthetic), QUICK).verdict.word == NONE_FOUND
    told = audit(hidden, QUICK, drawn=True).verdict
    assert told.word != NONE_FOUND


def test_copies_that_are_nobodys_own_are_not_called_none() -> None:
    one = game()
    copied = one.members[:6]
    near = tuple(f"{text} so said another" for text in copied)
    told = audit(
        replace(one, nonmembers=(*one.nonmembers, *near), synthetic=(*one.synthetic, *copied)), QUICK
    ).verdict
    assert told.word == TOO_FEW and "6 members that others have too" in told.reasons[0]


def test_units_without_a_partner_do_not_count() -> None:
    # 20 units a side can be compared; 130 members have two texts each, others three, and all are copied.
    texts = invent(20 + 260 + 20 + 390, seed=3)
    sizes = [[1] * 20 + [2] * 130, [1] * 20 + [3] * 130]
    members, others = texts[:280], texts[280:]
    units = [
        [f"{side}{i}" for i, n in enumerate(part) for _ in range(n)]
        for side, part in zip("ab", sizes, strict=True)
    ]
    unequal = Game(
        members=tuple(members), nonmembers=tuple(others), member_units=tuple(units[0]),
        nonmember_units=tuple(units[1]), seed=0,
        synthetic=tuple(" ".join(text.split()[2:17]) for text in members[20:]),
    )  # fmt: skip
    told = audit(unequal, QUICK, drawn=True).verdict
    assert told.word == TOO_FEW
    assert any("only 20 units of a side have as many texts" in item for item in told.reasons)


@pytest.mark.parametrize("released", [["positive", "negative"] * 50, [f"row {i}" for i in range(100)], None])
def test_a_release_that_holds_next_to_nothing_is_not_called_clean(released: list[str] | None) -> None:
    one = game()
    told = audit(replace(one, synthetic=tuple(released or [one.synthetic[0]] * 25)), QUICK).verdict
    assert told.word == TOO_FEW and "Is it the right file and column?" in told.reasons[-1]


def test_files_that_were_exchanged_are_noticed() -> None:
    one = game()
    swapped = replace(one, synthetic=(*one.synthetic, *one.nonmembers[:20]))
    told = audit(swapped, QUICK).verdict
    assert told.word == TOO_FEW and "files were exchanged" in told.reasons[0]


def test_what_is_private_or_released_is_no_public_text() -> None:
    one = game()
    for public, name in (
        (one.members, "member"), (one.nonmembers, "non-member"), (one.synthetic, "synthetic")
    ):  # fmt: skip
        with pytest.raises(DataError, match=f"150 of 150 {name} texts are among the public texts"):
            Pool.of(replace(one, public=public))
    assert Pool.of(replace(one, public=one.synthetic[:10])).n_units == 300


def test_texts_shorter_than_the_longest_runs_are_audited() -> None:
    one = game(n=40)
    short = Game(
        members=tuple(" ".join(text.split()[:3]) for text in one.members),
        nonmembers=tuple(" ".join(text.split()[:3]) for text in one.nonmembers),
        synthetic=("w1 w2 w3",),
        seed=0,
    )
    scores = membership_scores(Pool.of(short), short)
    assert not scores["ngram_overlap_5"].any() and scores["ngram_overlap_1"].any()
    wordless = Game(
        members=tuple("😀" * (i + 1) for i in range(40)),
        nonmembers=tuple("🙃" * (i + 1) for i in range(40)),
        synthetic=("😀",),
        seed=0,
    )
    with pytest.raises(DataError, match="holds a word"):
        Pool.of(wordless)


@pytest.mark.parametrize(
    ("members", "nonmembers", "message"),
    [
        (["same text here"] * 30, invent(30, seed=2), "units"),
        (invent(10, seed=3), invent(30, seed=2), "at least 20"),
        (invent(30, seed=2), invent(30, seed=2), "both members and non-members"),
    ],
)
def test_sides_that_overlap_or_are_tiny_are_refused(
    members: list[str], nonmembers: list[str], message: str
) -> None:
    units = ("u",) * 30 if message == "units" else ()
    with pytest.raises(DataError, match="at least 20" if message == "units" else message):
        Pool.of(
            Game(members=tuple(members), nonmembers=tuple(nonmembers), synthetic=("x",), member_units=units)
        )


def test_a_game_shows_no_text() -> None:
    one = game()
    assert "w1" not in repr(one)
    assert "w1" not in repr(Pool.of(one))


# --- the control ----------------------------------------------------------------------------------


def test_a_biased_split_is_refused() -> None:
    fair = game()
    shifted = tuple(f"{text} newer" if i % 2 else text for i, text in enumerate(fair.nonmembers))
    biased = Game(members=fair.members, nonmembers=shifted, synthetic=fair.synthetic)
    with pytest.raises(DataError, match="the split is biased"):
        check_split(Pool.of(biased))


def test_the_control_is_fair_on_random_splits() -> None:
    # Its p-value is exact, so over 40 fair splits it is below 0.1 about four times; 12 or more has p < 0.001.
    p_values = [
        bag_of_words_control(Pool.of(game(n=40, seed=seed)), n_permutations=99).p_value for seed in range(40)
    ]
    assert sum(p <= 0.1 for p in p_values) < 12
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.2)


def test_a_split_that_was_balanced_by_label_is_not_called_biased() -> None:
    # Texts of ten labels, each with words of its own: the hardest case for a classifier judged by halves.
    biased = 0
    for seed in range(20):
        texts = invent(200, seed=seed)
        records = tuple(
            PrivateRecord(
                record_id=str(i),
                unit_id=f"u{i}",
                text=f"{text} {f'label{i % 10} ' * 5}",
                labels={"l": str(i % 10)},
            )
            for i, text in enumerate(texts)
        )
        members, others = split_by_coin(
            PrivateCorpus(records=records, label_columns=("l",)), key=bytes([seed, 1])
        )
        pool = Pool.of(game_of(members, others, ["-"], seed=seed))
        biased += bag_of_words_control(pool, n_permutations=199).is_biased
    assert biased <= 1


def test_large_units_on_one_side_are_no_leak() -> None:
    # Half of the members have 50 texts, nobody else has: the highest of 50 scores is high by chance.
    rng = np.random.default_rng(0)
    sizes = np.r_[np.full(50, 50), np.ones(150, dtype=int)]
    pool = Pool(
        texts=("-",) * int(sizes.sum()),
        units=np.repeat(np.arange(200), sizes),
        is_member=np.arange(200) < 100,
        seed=0,
    )
    scores = pool.by_unit(rng.normal(size=int(sizes.sum())))[None]
    assert joint_test(scores, pool.is_member, seed=0, n_permutations=499).p_joint < 0.01
    assert (
        joint_test(scores, pool.is_member, seed=0, n_permutations=499, draw=pool.assignments).p_joint > 0.01
    )


# --- the test -------------------------------------------------------------------------------------


def test_the_joint_test_finds_a_few_members_and_a_small_shift() -> None:
    rng = np.random.default_rng(0)
    is_member = np.arange(1000) < 500
    noise = rng.normal(size=(3, 1000))
    copied = noise.copy()
    copied[0, :10] += 10
    shifted = noise + 0.3 * is_member
    assert joint_test(noise, is_member, seed=0).p_joint > 0.05
    assert joint_test(copied, is_member, seed=0).p_each[0] < 0.01
    assert joint_test(shifted, is_member, seed=0).p_joint < 0.001


def test_the_joint_test_keeps_its_level_with_dependent_attacks() -> None:
    rng = np.random.default_rng(1)
    is_member = np.arange(200) < 100
    p_values = []
    for seed in range(200):
        base = rng.normal(size=200)
        scores = np.stack([base, base + 0.01 * rng.normal(size=200), rng.normal(size=200), np.round(base)])
        p_values.append(joint_test(scores, is_member, seed=seed, n_permutations=199).p_joint)
    # Below 0.05 with probability 0.05: 10 of 200 expected, 22 or more has p < 0.001.
    assert sum(p <= 0.05 for p in p_values) < 22


# --- attacks --------------------------------------------------------------------------------------


def values(findings: Sequence[Finding], statistic: str) -> dict[str, float]:
    return {
        item.attack: item.value for item in findings if item.statistic == statistic and item.value is not None
    }


def test_every_attack_finds_a_release_that_copies() -> None:
    one = game()
    copying = game(one.members[:100])
    pool = Pool.of(copying)
    found = values(membership_findings(pool, membership_scores(pool, copying)), "AUC")
    assert len(found) == 14
    # Invented texts have no word of their own.
    assert found.pop("rare_ngram_1") < 0.75
    assert min(found.values()) > 0.7


def test_a_release_of_edited_nonmembers_is_not_taken_for_one_of_members(abstracts: list[str]) -> None:
    # With weights of either sign the combination learns that likeness means "not a member".
    rng = np.random.default_rng(5)
    edited = [" ".join(word for word in text.split() if rng.random() > 0.35) for text in abstracts[200:260]]
    one = Game(
        members=tuple(abstracts[:200]),
        nonmembers=tuple(abstracts[200:400]),
        synthetic=(*abstracts[400:480], *edited),
    )
    for swapped, is_found in ((False, False), (True, True)):
        sides = {"members": one.nonmembers, "nonmembers": one.members} if swapped else {}
        this = replace(one, **sides)  # type: ignore[arg-type]
        pool = Pool.of(this)
        findings = membership_findings(pool, membership_scores(pool, this))
        (found,) = [item for item in findings if item.attack == "combined" and item.decides]
        assert found.p_value is not None and (found.p_value < 0.01) is is_found, found
        assert is_found or found.value == 0.5


def test_the_attacks_with_a_language_model_find_a_release_that_copies() -> None:
    one = game(n=60)
    settings = AuxiliarySettings(
        model=SurrogateSettings(vocabulary=600, width=32, layers=1, window=64, batch=8, learning_rate=1e-2),
        epochs=40,
        base_epochs=1,
        n_references=8,
        reference_tokens=500,
        n_neighbours=1,
    )
    copying = game(one.members[:50], n=60)
    pool = Pool.of(copying)
    found = {
        name: pool.by_unit(scores)
        for name, scores in auxiliary_scores(pool, copying.synthetic, settings).items()
    }
    figures = values(membership_findings(pool, found), "AUC")
    assert set(figures) == {
        "combined", "lm_ppl", "lm_refer", "lm_lira", "lm_rmia", "lm_min_k", "lm_neighbour",
    }  # fmt: skip
    assert min(figures[name] for name in ("lm_refer", "lm_lira", "lm_rmia")) > 0.65
    assert min(figures.values()) > 0.5


# --- verdicts -------------------------------------------------------------------------------------


def test_the_audit_says_what_it_found() -> None:
    clean = audit(game(), QUICK)
    assert clean.verdict.word == NONE_FOUND
    copying = audit(game(game().members), QUICK)
    assert copying.verdict.word == LEAK
    assert copying.verdict.p_smallest is not None
    assert copying.verdict.p_smallest < 0.01


def test_few_records_are_inconclusive_and_no_verdict_says_safe() -> None:
    few = audit(game(n=50), QUICK)
    assert few.verdict.word == TOO_FEW
    assert not any("safe" in word for word in (LEAK, NONE_FOUND, TOO_FEW))


def test_a_leak_by_itself_needs_no_statistics() -> None:
    run = Finding(
        family="copying", attack="run", statistic="words", value=31, n_members=5, n_nonmembers=5, is_leak=True
    )
    assert judge([run], n_members=5, n_nonmembers=5).word == LEAK


def test_self_test() -> None:
    posts = [
        r.text
        for name in ("posts_train.jsonl", "posts_test.jsonl")
        for r in read_corpus(sample_path(name)).records
    ]
    trials = {trial.name: trial for trial in self_test(posts, settings=QUICK)}
    assert not trials["made without the data"].leaks
    assert trials["made without the data"].verdict != LEAK
    assert trials["copies 10% of the members"].passed
    assert trials["repeats every member with words left out"].passed


# --- the split ------------------------------------------------------------------------------------


def corpus(n: int, *, per_unit: int = 1) -> PrivateCorpus:
    return PrivateCorpus(
        records=tuple(
            PrivateRecord(
                record_id=str(i), unit_id=f"u{i // per_unit}", text=text, labels={"topic": "ab"[i // 10 % 2]}
            )
            for i, text in enumerate(invent(n, seed=5))
        ),
        label_columns=("topic",),
        has_units=per_unit > 1,
    )


def test_the_split_keeps_people_whole_and_labels_even() -> None:
    members, others = split_by_coin(corpus(100, per_unit=2))
    assert not {r.unit_id for r in members.records} & {r.unit_id for r in others.records}
    assert len(members) == len(others) == 50
    assert abs(sum(r.labels["topic"] == "a" for r in members.records) - 25) <= 4
    again, _ = split_by_coin(corpus(100, per_unit=2))
    assert {r.unit_id for r in again.records} != {r.unit_id for r in members.records}


def test_the_split_is_that_of_its_key() -> None:
    one, two = (split_by_coin(corpus(100), key=b"k")[0] for _ in range(2))
    assert one.records == two.records


def test_pooled_files_hold_each_text_once() -> None:
    both = pool_corpora([corpus(30), corpus(40)])
    assert len(both) == 40
    assert len({record.unit_id for record in both.records}) == 40
