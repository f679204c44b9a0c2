"""The exact test of events among units: Fisher's, within units of as many texts."""

import numpy as np
import pytest

from rpsg.audit.disclosure import disclosure
from rpsg.audit.events import EventCounts, Units
from rpsg.audit.finding import Game


@pytest.mark.parametrize(
    "counts", [(0, 0, 20, 30), (10, 0, 500, 500), (7, 3, 40, 60), (20, 30, 20, 30), (1, 9, 50, 50)]
)
def test_of_units_alike_it_is_fishers(counts: tuple[int, int, int, int]) -> None:
    from scipy.stats import fisher_exact

    members, nonmembers, n_members, n_nonmembers = counts
    table = [[members, n_members - members], [nonmembers, n_nonmembers - nonmembers]]
    found = EventCounts(
        members=members, nonmembers=nonmembers, n_members=n_members, n_nonmembers=n_nonmembers
    )
    assert found.p_value() == pytest.approx(fisher_exact(table, alternative="greater").pvalue, rel=1e-9)
    less = fisher_exact(table, alternative="less").pvalue
    assert found.mirrored.p_value() == pytest.approx(less, rel=1e-9)


def test_many_large_units_on_one_side_are_no_leak() -> None:
    # Every large unit has the event and no small one, on both sides: nothing tells members from others.
    large = EventCounts(members=30, nonmembers=3, n_members=30, n_nonmembers=3)
    small = EventCounts(members=0, nonmembers=0, n_members=20, n_nonmembers=47)
    assert EventCounts.of([large, small]).p_value() == pytest.approx(1.0)
    none = EventCounts(members=0, nonmembers=0, n_members=0, n_nonmembers=0)
    assert EventCounts.of([large, none, small]).p_value() == EventCounts.of([large, small]).p_value()
    whole = EventCounts(members=30, nonmembers=3, n_members=50, n_nonmembers=50)
    assert whole.p_value() < 1e-7  # type: ignore[operator]


def test_the_test_is_exact_within_sizes() -> None:
    rng = np.random.default_rng(0)
    sizes = np.repeat([1, 5], [60, 40])
    chance = np.where(sizes == 5, 0.5, 0.1)
    p_values = []
    for _ in range(400):
        # Three of four large units are members.
        is_member = np.concatenate([rng.permutation(60) < 20, rng.permutation(40) < 30])
        having = rng.random(100) < chance
        strata = [
            EventCounts(
                members=int((having & is_member & (sizes == size)).sum()),
                nonmembers=int((having & ~is_member & (sizes == size)).sum()),
                n_members=int((is_member & (sizes == size)).sum()),
                n_nonmembers=int((~is_member & (sizes == size)).sum()),
            )
            for size in (1, 5)
        ]
        p_values.append(EventCounts.of(strata).p_value())
    below = np.array(p_values, dtype=float) <= 0.05
    # Discrete, so at most 5 %; three standard deviations of 400 trials.
    assert below.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_units_are_counted_by_their_number_of_texts() -> None:
    units = Units.of(
        Game(
            members=("a", "b", "c"), nonmembers=("d", "e"), synthetic=(), member_units=("p", "p", "q"),
            nonmember_units=("r", "s"),
        )
    )  # fmt: skip
    found = units.count(np.array([True, True, False, True, False]))
    assert (found.members, found.nonmembers, found.n_members, found.n_nonmembers) == (1, 1, 2, 2)
    assert [item.n_members for item in found.strata] == [1, 1]
    assert found.p_value() == pytest.approx(1.0)


def test_bounds_of_epsilon_compare_units_of_as_many_texts() -> None:
    # Large members share their words with the release as large non-members do; small ones never.
    words = [f"word{i}" for i in range(2000)]
    texts = [" ".join(words[i * 8 : i * 8 + 8]) for i in range(220)]
    large = [f"{side}{unit}" for side, n in (("m", 18), ("n", 2)) for unit in range(n) for _ in range(5)]
    member_units = [*large[:90], *(f"ms{i}" for i in range(10))]
    nonmember_units = [*large[90:], *(f"ns{i}" for i in range(90))]
    members, nonmembers = texts[:100], texts[100:200]
    game = Game(
        members=tuple(members), nonmembers=tuple(nonmembers),
        synthetic=(*members[:90:5], *nonmembers[:10:5]),
        member_units=tuple(member_units), nonmember_units=tuple(nonmember_units),
    )  # fmt: skip
    bounds = [item for item in disclosure(game) if "lower bound of epsilon" in item.statistic]
    assert len(bounds) == 6 and all(item.value == 0 for item in bounds)
