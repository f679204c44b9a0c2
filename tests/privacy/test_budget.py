import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rpsg.errors import BudgetExceeded, ConfigError, PrivacyError
from rpsg.privacy import budget as budgets
from rpsg.privacy.accounting import gaussian_epsilon, zcdp_epsilon
from rpsg.privacy.budget import Budget
from rpsg.privacy.events import (
    ADD_REMOVE,
    DeltaEvent,
    GaussianEvent,
    NonPrivateEvent,
    PureEvent,
    SampledGaussianEvent,
)
from rpsg.privacy.state import state_dir
from rpsg.types import PrivateCorpus, PrivateRecord


def corpus(first: int, last: int, *, units: bool = True, prefix: str = "u") -> PrivateCorpus:
    records = tuple(
        PrivateRecord(
            record_id=f"r{i}", unit_id=f"{prefix}{i}", text=f"The zanzibar story number {i} of {prefix}."
        )
        for i in range(first, last)
    )
    return PrivateCorpus(records=records, has_units=units)


def gaussian(mu: float) -> GaussianEvent:
    return GaussianEvent(sensitivity_l2=1, std=1 / mu, relation=ADD_REMOVE)


@pytest.fixture
def budget() -> Budget:
    return Budget.create(corpus(0, 20), name="posts.csv", epsilon=3.0, delta=1e-6)


def test_runs_add_up_as_gaussians(budget: Budget) -> None:
    assert budgets.charge(corpus(0, 5), "run 1", [gaussian(0.3)]) == 0
    budgets.charge(corpus(3, 30), "run 2", [gaussian(0.4)])
    found = budget.state()
    assert found.spent_epsilon == pytest.approx(gaussian_epsilon(0.5, 1e-6))
    assert (found.n_runs, found.n_outside) == (2, 0)


def test_a_run_is_charged_once(budget: Budget) -> None:
    for _ in range(2):
        budgets.charge(corpus(0, 5), "run 1", [gaussian(0.3)])
    assert budget.state().n_runs == 1
    with pytest.raises(PrivacyError, match="another cost"):
        budgets.charge(corpus(0, 5), "run 1", [gaussian(0.2)])


def test_the_run_that_would_exceed_it_is_refused_and_not_charged(budget: Budget) -> None:
    budgets.charge(corpus(0, 5), "run 1", [gaussian(0.5)])
    with pytest.raises(BudgetExceeded, match=r"holds epsilon 3 .* Nothing was drawn"):
        budgets.charge(corpus(0, 5), "run 2", [gaussian(0.5)])
    assert budget.state().spent_epsilon == pytest.approx(gaussian_epsilon(0.5, 1e-6))


def test_rho_adds_up_as_soon_as_one_release_is_not_gaussian(budget: Budget) -> None:
    budgets.charge(corpus(0, 5), "run 1", [gaussian(0.3), PureEvent(epsilon=0.2, relation=ADD_REMOVE)])
    budgets.charge(corpus(0, 5), "run 2", [gaussian(0.3), DeltaEvent(delta=1e-7, relation=ADD_REMOVE)])
    expected = zcdp_epsilon(0.3**2 + 0.2**2 / 2, 1e-6 - 1e-7)
    assert budget.state().spent_epsilon == pytest.approx(expected)


def test_thresholds_use_up_delta(budget: Budget) -> None:
    with pytest.raises(BudgetExceeded, match="inf"):
        budgets.charge(corpus(0, 5), "run 1", [gaussian(0.1), DeltaEvent(delta=1e-6, relation=ADD_REMOVE)])


@pytest.mark.parametrize(
    "event",
    [
        NonPrivateEvent(reason="texts"),
        PureEvent(epsilon=1.0, relation="replace one record"),
        SampledGaussianEvent(noise_multiplier=1.0, sampling_rate=0.1, count=10),
    ],
)
def test_what_has_no_cost_for_a_unit_cannot_be_charged(budget: Budget, event: object) -> None:
    with pytest.raises(PrivacyError, match="cannot be charged"):
        budgets.charge(corpus(0, 5), "run", [event])  # type: ignore[list-item]
    assert budget.state().n_runs == 0


def test_one_shared_unit_is_enough_and_strangers_are_free(budget: Budget) -> None:
    assert budget.shares_unit_with(corpus(19, 40))
    assert not budget.shares_unit_with(corpus(20, 40))
    assert budgets.charge(corpus(20, 40), "run", [gaussian(5.0)]) is None
    assert budget.state().spent_epsilon == 0.0


def test_the_same_texts_without_names_are_found(budget: Budget) -> None:
    nameless = corpus(0, 3, units=False)
    renamed = replace(
        nameless,
        records=tuple(replace(r, unit_id="x", text=f"  {r.text.upper()} ") for r in nameless.records),
    )
    assert budget.shares_unit_with(renamed)


def test_units_of_charged_runs_are_learnt(budget: Budget) -> None:
    budgets.charge(corpus(19, 25), "run 1", [gaussian(0.3)])
    budgets.charge(corpus(22, 40), "run 2", [gaussian(0.4)])
    assert budget.state().spent_epsilon == pytest.approx(gaussian_epsilon(0.5, 1e-6))


def test_runs_outside_are_refused_unless_asked_for_and_then_remembered(budget: Budget) -> None:
    with pytest.raises(BudgetExceeded, match="--outside-budget"):
        budgets.refuse_uncharged(corpus(0, 5))
    budgets.refuse_uncharged(corpus(20, 25))
    assert budgets.note_outside(corpus(20, 25), "run 0") is None
    assert budgets.note_outside(corpus(0, 5), "run 1") == 1
    assert budgets.note_outside(corpus(0, 5), "run 1") == 1
    # Every later run on these data hears of it.
    assert budgets.charge(corpus(0, 5), "run 2", [gaussian(0.1)]) == 1
    assert budget.state().n_outside == 1


def test_a_second_budget_for_the_same_people_is_refused(budget: Budget) -> None:
    with pytest.raises(ConfigError, match="have a budget already"):
        Budget.create(corpus(10, 40), name="other.csv", epsilon=100, delta=1e-6)
    assert Budget.create(corpus(20, 40), name="other.csv", epsilon=1, delta=1e-6).name == "other.csv"


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0, 1e-6), (-1, 1e-6), (math.inf, 1e-6), (1, 0), (1, 0.5), (math.nan, 1e-6)]
)
def test_limits_must_be_privacy_parameters(epsilon: float, delta: float) -> None:
    with pytest.raises(ConfigError, match="needs a positive epsilon"):
        Budget.create(corpus(0, 5), name="x", epsilon=epsilon, delta=delta)


def test_the_file_is_the_owners_and_holds_no_text(budget: Budget) -> None:
    assert budget.path.stat().st_mode & 0o077 == 0
    content = b"".join(path.read_bytes() for path in budget.path.parent.iterdir())
    assert b"zanzibar" not in content and b"u19" not in content
    assert str(budget.path).startswith(os.environ["XDG_STATE_HOME"])


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda text: text + "\u200b",
        lambda text: text.replace(" ", "\u00a0"),
        lambda text: text[:-1],
    ],
    ids=["case", "invisible sign", "other spaces", "no full stop"],
)
def test_a_text_written_a_little_differently_is_found(budget: Budget, change: Callable[[str], str]) -> None:
    nameless = corpus(0, 3, units=False, prefix="u")
    other = replace(
        nameless, records=tuple(replace(r, unit_id="x", text=change(r.text)) for r in nameless.records)
    )
    assert budget.shares_unit_with(other)


def test_a_name_written_a_little_differently_is_found(budget: Budget) -> None:
    records = tuple(
        replace(r, unit_id=f" {r.unit_id.upper()}\u200b", text="other words") for r in corpus(0, 2).records
    )
    assert budget.shares_unit_with(PrivateCorpus(records=records, has_units=True))


def test_a_run_is_charged_to_all_budgets_or_to_none() -> None:
    roomy = Budget.create(corpus(0, 10), name="roomy", epsilon=50, delta=1e-6)
    tight = Budget.create(corpus(10, 20), name="tight", epsilon=0.5, delta=1e-6)
    with pytest.raises(BudgetExceeded, match="budget of tight"):
        budgets.charge(corpus(5, 15), "run", [gaussian(1.0)])
    assert (roomy.state().n_runs, tight.state().n_runs) == (0, 0)
    # With a smaller cost the same run goes through.
    budgets.charge(corpus(5, 15), "run", [gaussian(0.05)])
    assert (roomy.state().n_runs, tight.state().n_runs) == (1, 1)


def test_people_added_to_a_charged_run_are_learnt(budget: Budget) -> None:
    budgets.charge(corpus(0, 5), "run", [gaussian(0.1)])
    budgets.charge(corpus(0, 50), "run", [gaussian(0.1)])
    assert budget.shares_unit_with(corpus(45, 60)) and budget.state().n_runs == 1


def test_an_interrupted_beginning_leaves_no_budget(budget: Budget) -> None:
    (budget.path.parent / "abc.new").write_text("")
    assert [item.name for item in budgets.all_budgets()] == ["posts.csv"]


def test_a_relative_state_folder_is_not_another_one_in_every_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", os.environ["XDG_STATE_HOME"])
    monkeypatch.setenv("XDG_STATE_HOME", "st")
    assert state_dir().is_absolute()


def test_json_has_no_infinity(budget: Budget) -> None:
    state = replace(budget.state(), spent_epsilon=math.inf)
    assert json.loads(budgets.to_json([state]))[0]["spent_epsilon"] is None


def test_shown_once_more_after_reopening(budget: Budget) -> None:
    budgets.charge(corpus(0, 5), "run 1", [gaussian(0.3)])
    path: Path = budget.path
    budget.close()
    assert Budget(path).state().spent_epsilon == pytest.approx(gaussian_epsilon(0.3, 1e-6))
