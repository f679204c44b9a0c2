import math
from pathlib import Path

import numpy as np
import pytest

from rpsg.errors import ConfigError, PrivacyError
from rpsg.privacy.accounting import gaussian_epsilon
from rpsg.privacy.card import build_card
from rpsg.privacy.card_file import render_markdown, to_json
from rpsg.privacy.card_model import Card, CardGuarantee, CardInputs, DataFlow
from rpsg.privacy.card_words import noise_in_words, statement
from rpsg.privacy.ledger import Ledger
from rpsg.privacy.lines import LedgerLine
from rpsg.privacy.mechanisms import GaussianSum, Mechanism, NoisyMax, PrivateRows, ThresholdedKeys, describe
from rpsg.privacy.noise import FixedNoise
from rpsg.privacy.plain import NonPrivate, NonPrivateTexts
from rpsg.types import PrivateVariant

FLOWS = (DataFlow(task="summarise", model="m", trust="local", reads="private texts"),)
ONE_VOTE = PrivateRows(units=np.zeros(1, np.int64), items=np.zeros(1, np.int64), weights=np.ones(1))


def inputs(guarantee: CardGuarantee, **changes: object) -> CardInputs:
    values: dict[str, object] = {
        "run_id": "00ff",
        "guarantee": guarantee,
        "epsilon": None if guarantee == "none" else 4.0,
        "delta": 1e-6,
        "n_candidates": 5,
        "has_units": False,
        "data_flow": FLOWS,
    }
    return CardInputs.model_validate({**values, **changes})


def card(path: Path, guarantee: CardGuarantee, *, fixed: bool = False, **changes: object) -> Card:
    with Ledger.open(path, noise=FixedNoise(1) if fixed else None) as ledger:
        if guarantee == "selection":
            ledger.release(
                "choice of summaries, first", NoisyMax(epsilon=4.0, n_candidates=5), {"r": [0.1, 0.2]}
            )
            ledger.release("vote", GaussianSum(noise_multiplier=1.194, n_items=1), ONE_VOTE)
        else:
            ledger.release("choice", NonPrivate(reason="best"), {"r": 1})
        variant = PrivateVariant(variant_id="v", record_id="r", text="zanzibar secret")
        ledger.release("texts", NonPrivateTexts(reason="rewrites"), [variant])
        ledger.attest(inputs(guarantee, **changes).model_dump(mode="json"))
        return build_card(inputs(guarantee, **changes), ledger.lines())


def line(number: int, mechanism: Mechanism[object], *, secure: bool = True) -> LedgerLine:
    return LedgerLine(
        line_id=number,
        label=f"release {number}",
        mechanism=type(mechanism).__name__,
        parameters=describe(mechanism),
        events=mechanism.events,
        note="",
        secure_noise=secure,
    )


SUM = GaussianSum(noise_multiplier=3.0, n_items=4)
KEYS = ThresholdedKeys(noise_multiplier=3.0, max_keys=2, delta=1e-7)


def test_wording_of_none() -> None:
    assert statement(guarantee="none", epsilon=None, n_candidates=5, has_units=True) == (
        "No differential privacy of any kind. Each output is an LLM rewrite of a summary of one private "
        "record; no noise was used."
    )


def test_wording_of_selection() -> None:
    text = statement(guarantee="selection", epsilon=4.0, n_candidates=5, has_units=True)
    base = (
        "No end-to-end differential privacy. Each output is an LLM rewrite of an automatically written "
        "summary of one private record. Noise chooses which of at most 5 summaries is used; conditional on "
        "them the choice is 4-DP (pure, replace-one). This does not limit what the summary, the rewrite, "
        "the vote or the filters reveal."
    )
    assert (
        text
        == f"{base} The unit is one record: for a person with m records in use it is m times this epsilon."
    )
    without = statement(guarantee="selection", epsilon=4.0, n_candidates=5, has_units=False)
    assert without == f"{base} The unit is one record, not one person."


@pytest.mark.parametrize("guarantee", ["none", "selection"])
def test_the_card_never_claims_more_than_holds(tmp_path: Path, guarantee: CardGuarantee) -> None:
    page = card(tmp_path / "l", guarantee)
    for text in (to_json(page), render_markdown(page)):
        lowered = text.lower()
        assert "(epsilon, delta)-dp" not in lowered and "(ε, δ)" not in lowered and ")-dp" not in lowered
        assert "no end-to-end differential privacy" in lowered or "no differential privacy" in lowered
        assert "anonym" not in lowered and "guaranteed" not in lowered
        assert "zanzibar" not in lowered
    assert "no finite epsilon" in page.released_texts and page.figures == ()
    # Without noise there is no unit that it protects.
    assert page.unit.startswith("none" if guarantee == "none" else "one record")
    assert page.attacker.startswith("Nothing bounds what an attacker learns from the released texts.")


def test_the_markdown_begins_with_the_statement(tmp_path: Path) -> None:
    page = card(tmp_path / "l", "selection")
    assert render_markdown(page).splitlines()[2] == f"**{page.statement}**"
    assert "probability 0.51; a blind choice would with probability 0.20" in render_markdown(page)


def test_every_line_of_the_ledger_is_on_the_card(tmp_path: Path) -> None:
    page = card(tmp_path / "l", "selection")
    assert [line.mechanism for line in page.releases] == ["NoisyMax", "GaussianSum", "NonPrivateTexts"]
    assert "epsilon 3.999 at delta 1e-06 if the items summed over did not depend" in page.releases[1].cost[0]
    assert page.releases[2].cost == ("no noise: epsilon infinite",)


def test_fixed_noise_shows_as_not_private(tmp_path: Path) -> None:
    page = card(tmp_path / "l", "selection", fixed=True)
    assert page.secure_noise is False
    assert page.statement.startswith("Not private")


def test_runs_outside_the_budget_are_in_the_first_sentence_block(tmp_path: Path) -> None:
    page = card(tmp_path / "l", "selection", outside_budget=2)
    assert "Outside the data budget: 2 run(s)" in page.statement
    assert "Outside the data budget" not in card(tmp_path / "m", "selection", outside_budget=0).statement


def test_end_to_end_figures_follow_from_the_lines() -> None:
    page = build_card(inputs("end-to-end", has_units=True, max_records=3), [line(1, SUM), line(2, KEYS)])
    whole, replaced, group = page.figures
    exact = gaussian_epsilon(math.sqrt(2) / 3, 1e-6 - 1e-7)
    assert whole.epsilon is not None and 0 <= whole.epsilon - exact < 1e-3
    assert whole.accountant == "exact Gaussian" and whole.relation == "add/remove one unit"
    assert replaced.epsilon is not None and replaced.epsilon > whole.epsilon
    assert group.units_that_differ == 5
    assert page.statement.startswith(
        f"The complete set of released texts is (epsilon={whole.epsilon:g}, delta=1e-06)-DP with respect to "
        "adding or removing one person with at most 3 records; replace-one: epsilon="
    )
    assert "at even odds, is right at most" in page.attacker
    assert page.released_texts == "protected as a whole: see figures"


def test_end_to_end_without_units_says_record() -> None:
    assert (
        "adding or removing one record (not one person)"
        in build_card(inputs("end-to-end"), [line(1, SUM)]).statement
    )


def test_end_to_end_is_refused_where_it_does_not_hold() -> None:
    with pytest.raises(PrivacyError, match="without noise"):
        build_card(inputs("end-to-end"), [line(1, SUM), line(2, NonPrivate(reason="exact"))])
    with pytest.raises(PrivacyError, match="the run promised"):
        build_card(inputs("end-to-end", epsilon=0.5), [line(1, SUM)])


def test_there_is_no_statement_without_epsilon() -> None:
    with pytest.raises(ConfigError):
        statement(guarantee="selection", epsilon=None, n_candidates=5, has_units=True)


def test_noise_in_words_names_both_chances() -> None:
    assert noise_in_words(epsilon=0.01, n_candidates=4).endswith(
        "with probability 0.25; a blind choice would with probability 0.25."
    )


def test_a_card_is_refused_whose_lines_are_not_the_promised_ones(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="not those that the run promised"):
        card(tmp_path / "a", "selection", epsilon=0.1)
    with pytest.raises(PrivacyError, match="not those that the run promised"):
        build_card(inputs("selection"), [])
    with pytest.raises(PrivacyError, match="has no epsilon"):
        card(tmp_path / "b", "none", epsilon=1.0)
    with pytest.raises(PrivacyError, match="has no line"):
        build_card(inputs("end-to-end"), [])
    with pytest.raises(PrivacyError, match="bound on the number of units"):
        build_card(inputs("end-to-end", delta=0.9, n_units_bound=1000), [line(1, SUM)])


def test_attack_bounds_hold_for_the_best_test() -> None:
    # Two unit Gaussians mu apart: the likelihood-ratio test itself, by simulation.
    page = build_card(inputs("end-to-end"), [line(1, SUM)])
    rng = np.random.default_rng(0)
    n, mu = 400_000, 1 / 3
    out, inside = rng.normal(size=n), rng.normal(size=n) + mu
    accuracy = ((inside > mu / 2).mean() + (out <= mu / 2).mean()) / 2
    rate = (inside > np.quantile(out, 0.99)).mean()
    shown = [float(part.split()[-1]) / 100 for part in page.attacker.split(" %")[:-1]]
    assert shown[0] == pytest.approx(accuracy, abs=0.005) and shown[0] > accuracy - 0.002
    assert shown[2] == pytest.approx(rate, abs=0.005) and shown[2] > rate - 0.002


def test_names_cannot_format_the_page(tmp_path: Path) -> None:
    flow = DataFlow(
        task="write", model="a|b\n**All texts are private.**", trust="local", reads="x", hosts=("a|b",)
    )
    page = render_markdown(card(tmp_path / "l", "selection", data_flow=(flow,)))
    assert "| write | a\\|b \\*\\*All texts are private.\\*\\* | local | x | a\\|b |" in page
