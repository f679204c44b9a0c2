"""What the findings amount to, in words that cannot mislead. No verdict is "safe"."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rpsg.audit.estimators import holm
from rpsg.audit.finding import Finding

LEAK: Literal["leak found"] = "leak found"
NONE_FOUND: Literal["no leak found by these attacks at this power"] = (
    "no leak found by these attacks at this power"
)
TOO_FEW: Literal["inconclusive: too few records"] = "inconclusive: too few records"
Word = Literal["leak found", "no leak found by these attacks at this power", "inconclusive: too few records"]
ALPHA = 0.01
# With 100 on each side a 95 % interval of an AUC of 0.5 is 0.42 to 0.58.
MIN_UNITS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The audit's conclusion.

    Attributes:
        word: one of three; see `rpsg.audit.verdict`.
        reasons: what it rests on, a sentence each.
        p_smallest: the smallest Holm-adjusted p-value of the deciding findings; None without any.
    """

    word: Word
    reasons: tuple[str, ...]
    p_smallest: float | None


def judge(
    findings: Sequence[Finding], *, n_members: int, n_nonmembers: int, blind: Sequence[str] = ()
) -> Verdict:
    """Weighs the findings.

    A leak is found where one is a leak by itself, or where a deciding p-value is below 0.01 after Holm's
    adjustment. Otherwise, with fewer than 100 units on either side, or where attacks are blind, nothing can
    be said.

    Args:
        findings: of all attacks.
        n_members: member units.
        n_nonmembers: non-member units.
        blind: what keeps attacks from seeing a leak, a sentence each.
    """
    deciding = [item for item in findings if item.decides and item.p_value is not None]
    adjusted = holm([item.p_value for item in deciding if item.p_value is not None])
    reasons = [
        f"{item.family}, {item.attack}: a leak by itself ({item.detail})" for item in findings if item.is_leak
    ]
    reasons += [
        f"{item.family}, {item.attack}: p = {p:.4g} after Holm's adjustment over {len(deciding)} tests"
        for item, p in zip(deciding, adjusted, strict=True)
        if p < ALPHA
    ]
    smallest = min(adjusted, default=None)
    if reasons:
        return Verdict(word=LEAK, reasons=tuple(reasons), p_smallest=smallest)
    if min(n_members, n_nonmembers) < MIN_UNITS:
        reason = f"{n_members} members and {n_nonmembers} non-members; {MIN_UNITS} of each are the least"
        return Verdict(word=TOO_FEW, reasons=(reason,), p_smallest=smallest)
    if blind:
        return Verdict(word=TOO_FEW, reasons=tuple(blind), p_smallest=smallest)
    reason = (
        f"{len(deciding)} tests, {n_members} members and {n_nonmembers} non-members; other attacks may "
        "succeed where these failed"
    )
    return Verdict(word=NONE_FOUND, reasons=(reason,), p_smallest=smallest)
