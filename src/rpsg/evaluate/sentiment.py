"""Does a synthetic text have the sentiment of its seed?"""

from collections.abc import Sequence

import numpy as np

from rpsg.errors import ConfigError, PrivateDataError
from rpsg.evaluate.resampling import share_interval
from rpsg.scores import Score
from rpsg.types import SentimentModel

NAME = "sentiment_agreement"


def sentiment_agreement(
    seeds: Sequence[str],
    synthetic: Sequence[str],
    *,
    judge: SentimentModel,
    selected_by: str | None,
    rng: np.random.Generator,
) -> Score:
    """Share of synthetic texts that a classifier gives the same label as their seed.

    The baseline pairs every text with another seed. There is no holdout value: the reference is 1, a text
    agreeing with itself.

    Args:
        seeds: private texts, row i the seed of row i of `synthetic`; two or more.
        synthetic: the texts.
        judge: a local classifier.
        selected_by: name of the classifier that helped to choose the texts, if any.
        rng: draws the bootstrap (over pairs) and the shuffled pairs.

    Raises:
        ConfigError: the judge is the classifier that chose: it would praise its own choice.
        PrivateDataError: the judge is remote.
    """
    if judge.name == selected_by:
        raise ConfigError(
            f"{judge.name!r} chose these texts and cannot judge them; name another sentiment classifier"
        )
    if judge.trust != "local":
        raise PrivateDataError(f"{judge.name!r} is a remote model and may not read private seeds")
    ours = np.array([found.label for found in judge.classify(synthetic)])
    theirs = np.array([found.label for found in judge.classify(seeds)])
    agree = ours == theirs
    n = len(agree)
    shuffled = [float((ours == np.roll(theirs, int(rng.integers(1, n)))).mean()) for _ in range(100)]
    low, high = share_interval(float(agree.mean()), n)
    return Score(
        name=NAME,
        value=float(agree.mean()),
        low=low,
        high=high,
        n=n,
        reference=1.0,
        baseline=float(np.mean(shuffled)),
        better="higher",
    )
