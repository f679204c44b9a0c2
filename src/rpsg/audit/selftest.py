"""Does the audit find what it should, and nothing else? Releases with known leaks, and one without.

Positive controls copy 2, 5 and 10 % of the members' texts between texts of others. Planted bugs are releases
a broken pipeline would write. The null control is made without the data: nothing may be found in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rpsg.audit.copying import TESTED_RUN
from rpsg.audit.finding import Game
from rpsg.audit.result import Audit
from rpsg.audit.run import AuditSettings, audit
from rpsg.audit.verdict import ALPHA, LEAK, TOO_FEW
from rpsg.errors import DataError
from rpsg.rng import Streams
from rpsg.text import words_of

COPIED = (0.02, 0.05, 0.1)
_MIN_TEXTS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One release with a known truth, and what the audit said.

    Attributes:
        name: what was planted.
        leaks: whether anything was.
        verdict: of the audit.
        p_smallest: its smallest adjusted p-value.
        found_by: attacks that the verdict rests on.
    """

    name: str
    leaks: bool
    verdict: str
    p_smallest: float | None
    found_by: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the audit was right: a leak found, or none found and no p-value below 0.01.

        A leak may be found by itself where no test can be: k copies against none have a p-value of about
        1 / 2^k, and fewer than nine of them are above 0.01 after Holm's adjustment over five tests.
        """
        if self.leaks:
            return self.verdict == LEAK
        return self.verdict != LEAK and self.p_smallest is not None and self.p_smallest >= ALPHA

    @property
    def outcome(self) -> str:
        """In a word or three: an audit that says that it has too few texts to find a leak is not wrong."""
        if self.passed:
            return "right"
        return "too few texts" if self.verdict == TOO_FEW else "WRONG"


def self_test(
    texts: Sequence[str],
    *,
    seed: int = 0,
    settings: AuditSettings | None = None,
    on_progress: Callable[[str], None] = lambda name: None,
) -> tuple[Trial, ...]:
    """Plants leaks of known size and asks the audit for them.

    Args:
        texts: real texts of one source, each of another unit; a third each become members, non-members, and
            what the releases are otherwise made of.
        seed: of the parts and the attacks.
        settings: of the audit.
        on_progress: told the name of each trial before it begins.

    Raises:
        DataError: fewer than 90 different texts.
    """
    distinct = _without_repeats(texts)
    if len(distinct) < _MIN_TEXTS:
        raise DataError(f"the self-test needs at least {_MIN_TEXTS} different texts (given: {len(distinct)})")
    rng = Streams(seed).get("audit self-test")
    order = rng.permutation(len(distinct))
    third = len(distinct) // 3
    parts = [tuple(distinct[i] for i in order[k * third : (k + 1) * third]) for k in range(3)]
    clean = Game(members=parts[0], nonmembers=parts[1], synthetic=parts[2], seed=seed)
    trials = []
    for name, leaks, game in _planted(clean, rng):
        on_progress(name)
        trials.append(_trial(name, leaks, audit(game, settings)))
    return tuple(trials)


def _without_repeats(texts: Sequence[str]) -> list[str]:
    """Returns texts that share no 13 words in a row with an earlier one.

    Two versions of one abstract, one a member and one in the release, are a leak to any audit: that release
    was not made without the member's words.
    """
    seen: set[tuple[str, ...]] = set()
    kept = []
    for text in texts:
        words = words_of(text)
        runs = {tuple(words[i : i + TESTED_RUN]) for i in range(max(1, len(words) - TESTED_RUN + 1))}
        if not runs & seen:
            kept.append(text)
            seen |= runs
    return kept


def _planted(clean: Game, rng: np.random.Generator) -> list[tuple[str, bool, Game]]:
    members, others = clean.members, clean.synthetic
    found = [("made without the data", False, clean)]
    for share in COPIED:
        copied = members[: round(share * len(members))]
        found.append((f"copies {share:.0%} of the members", True, _with(clean, [*others, *copied])))
    halves = [text.split() for text in members[: len(members) // 4]]
    cut = [" ".join(words[len(words) // 4 : 3 * len(words) // 4]) for words in halves]
    found.append(("copies the middle of a quarter of the members", True, _with(clean, [*others, *cut])))
    thinned = [" ".join(word for word in text.split() if rng.random() > 0.15) for text in members]
    found.append(("repeats every member with words left out", True, _with(clean, thinned)))
    return found


def _with(clean: Game, synthetic: Sequence[str]) -> Game:
    return replace(clean, synthetic=tuple(synthetic))


def _trial(name: str, leaks: bool, found: Audit) -> Trial:
    return Trial(
        name=name,
        leaks=leaks,
        verdict=found.verdict.word,
        p_smallest=found.verdict.p_smallest,
        found_by=tuple(reason.split(":")[0] for reason in found.verdict.reasons)
        if found.verdict.word == LEAK
        else (),
    )
