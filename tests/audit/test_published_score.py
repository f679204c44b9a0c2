from collections.abc import Mapping

import numpy as np
import pytest

from rpsg.audit.finding import Finding, Game
from rpsg.audit.masked_model import MaskedModel
from rpsg.audit.published import published
from rpsg.errors import DataError
from rpsg.llm.surrogate import SurrogateSettings

SMALL = SurrogateSettings(vocabulary=500, width=32, layers=1, window=48, tokens=60_000, learning_rate=5e-3)


@pytest.fixture(scope="module")
def findings(posts: list[str]) -> Mapping[str, Finding]:
    """Of a release that is a copy of the members: membership could not be more visible."""
    members = tuple(posts[:100])
    game = Game(
        members=members, nonmembers=tuple(posts[100:200]), synthetic=members, public=tuple(posts[200:])
    )
    return {finding.statistic: finding for finding in published(game, n_copies=3, settings=SMALL)}


def test_members_are_told_when_the_label_is_membership(findings: Mapping[str, Finding]) -> None:
    assert findings["AUC of members against non-members"].value == 1.0


@pytest.mark.parametrize("name", ["PPL", "REFER", "LIRA"])
@pytest.mark.parametrize("how", ["as in the script", "one loss"])
def test_the_published_score_is_about_the_same_for_members_and_nonmembers(
    findings: Mapping[str, Finding], name: str, how: str
) -> None:
    score = findings[f"published {name} score, {how}: file of members"]
    difference = findings[f"published {name} score, {how}: members' file less non-members'"]
    print(f"{score.statistic} {score.value:.3f}, of non-members {score.control:.3f}")
    assert score.value < 0.6 and abs(difference.value) < 0.15  # type: ignore[operator, arg-type]
    assert difference.low <= 0 <= difference.high  # type: ignore[operator]


def test_nothing_of_it_decides(findings: Mapping[str, Finding]) -> None:
    for finding in findings.values():
        assert finding.family == "description" and finding.p_value is None and not finding.decides
        assert np.isfinite(finding.value)  # type: ignore[arg-type]


def test_the_masked_model_learns_and_perturbs_a_part(posts: list[str]) -> None:
    model = MaskedModel.train(posts[:60], posts[60:80], seed=0, settings=SMALL)
    # It is told the token it must predict; shifted by one place, it is not.
    assert model.loss_seeing(posts[:20]).mean() < model.loss_shifted(posts[:20]).mean()
    short = [" ".join(text.split()[:20]) for text in posts[:20]]
    copies = model.perturb(short, np.random.default_rng(0))
    changed = [
        np.mean([a != b for a, b in zip(one.split(), other.split(), strict=False)])
        for one, other in zip(short, copies, strict=True)
    ]
    assert len(copies) == 20 and 0.05 < np.mean(changed) < 0.95


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(DataError, match="20 members"):
        published(Game(members=("a",), nonmembers=("b",), synthetic=("c",)))
