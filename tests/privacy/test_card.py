import json
from pathlib import Path

import numpy as np
import pytest

from rpsg.errors import ConfigError
from rpsg.privacy.card import DataFlow, build_card, noise_in_words, render_markdown, statement
from rpsg.privacy.ledger import Ledger
from rpsg.privacy.mechanisms import GaussianVotes, NoisyMax, NonPrivate, NonPrivateTexts, Votes
from rpsg.privacy.noise import FixedNoise
from rpsg.types import Guarantee, PrivateVariant

FLOWS = [DataFlow(task="summarise", model="m", trust="local", reads="private texts")]


def card(path: Path, guarantee: Guarantee, *, fixed: bool = False) -> dict[str, object]:
    epsilon = 4.0 if guarantee == "selection" else None
    with Ledger.open(path, noise=FixedNoise(1) if fixed else None) as ledger:
        if epsilon:
            ledger.release("choice", NoisyMax(epsilon=epsilon, n_candidates=5), {"r": [0.1, 0.2]})
            votes = Votes(units=np.zeros(1, np.int64), items=np.zeros(1, np.int64), weights=np.ones(1))
            ledger.release("vote", GaussianVotes(noise_multiplier=1.194, n_items=1), votes)
        else:
            ledger.release("choice", NonPrivate(reason="best"), {"r": 1})
        variant = PrivateVariant(variant_id="v", record_id="r", text="zanzibar secret")
        ledger.release("texts", NonPrivateTexts(reason="rewrites"), [variant])
        return build_card(
            guarantee=guarantee,
            epsilon=epsilon,
            delta=1e-6,
            n_candidates=5,
            has_units=False,
            lines=ledger.lines(),
            flows=FLOWS,
            run_id="00ff",
        )


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
def test_the_card_never_claims_more_than_holds(tmp_path: Path, guarantee: Guarantee) -> None:
    page = card(tmp_path / "l", guarantee)
    for text in (json.dumps(page), render_markdown(page)):
        lowered = text.lower()
        assert "(epsilon, delta)-dp" not in lowered and "(ε, δ)" not in lowered
        assert "no end-to-end differential privacy" in lowered or "no differential privacy" in lowered
        assert "anonym" not in lowered and "guaranteed" not in lowered
        assert "zanzibar" not in lowered
    assert "no finite epsilon" in str(page["released_texts"])


def test_the_markdown_begins_with_the_statement(tmp_path: Path) -> None:
    page = card(tmp_path / "l", "selection")
    assert render_markdown(page).splitlines()[2] == f"**{page['statement']}**"
    assert "probability 0.51; a blind choice would with probability 0.20" in render_markdown(page)


def test_every_line_of_the_ledger_is_on_the_card(tmp_path: Path) -> None:
    page = card(tmp_path / "l", "selection")
    releases = page["releases"]
    assert isinstance(releases, list)
    assert [line["mechanism"] for line in releases] == ["NoisyMax", "GaussianVotes", "NonPrivateTexts"]
    assert "epsilon 3.999 at delta 1e-06 if the items voted on did not depend" in releases[1]["cost"][0]
    assert releases[2]["cost"] == ["no noise: epsilon infinite"]


def test_fixed_noise_shows_as_not_private(tmp_path: Path) -> None:
    page = card(tmp_path / "l", "selection", fixed=True)
    assert page["secure_noise"] is False
    assert str(page["statement"]).startswith("Not private")


def test_there_is_no_statement_without_epsilon() -> None:
    with pytest.raises(ConfigError):
        statement(guarantee="selection", epsilon=None, n_candidates=5, has_units=True)


def test_noise_in_words_names_both_chances() -> None:
    assert noise_in_words(epsilon=0.01, n_candidates=4).endswith(
        "with probability 0.25; a blind choice would with probability 0.25."
    )
