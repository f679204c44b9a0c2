"""The nouns of the audit: who attacks what, and what one attack found."""

from dataclasses import dataclass, field
from typing import Literal

Family = Literal[
    "membership",
    "canary",
    "disclosure",
    "linkage",
    "attribute",
    "pii",
    "extraction",
    "copying",
    "poisoning",
    "aggregation",
    "description",
]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Game:
    """What the attacks are given: the adversary sees `synthetic` and `public`, and guesses who is a member.

    Members and non-members are disjoint random parts of one source, unmodified. Its `repr` shows sizes only.

    Attributes:
        members: private texts that the release was made from.
        nonmembers: texts of the same source that it was not made from.
        synthetic: the released texts, all of them pooled.
        public: texts that the adversary knows and that are no part of the source; may be empty.
        member_units: whom each member text belongs to; empty means every text is its own unit.
        nonmember_units: likewise.
        member_labels: what the release says of each member text beside its own text; empty for nothing.
        seed: fixes every draw of the attacks.
    """

    members: tuple[str, ...]
    nonmembers: tuple[str, ...]
    synthetic: tuple[str, ...]
    public: tuple[str, ...] = ()
    member_units: tuple[str, ...] = field(default=())
    nonmember_units: tuple[str, ...] = field(default=())
    member_labels: tuple[str, ...] = field(default=())
    seed: int = 0

    def __repr__(self) -> str:
        return (
            f"Game(<{len(self.members)} members, {len(self.nonmembers)} non-members, "
            f"{len(self.synthetic)} synthetic texts>)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one attack found. It holds figures and counts, never a text and no record's id.

    Attributes:
        family: the kind of attack.
        attack: its name, lower case with underscores.
        statistic: what `value` is, in words: "AUC", "TPR at 1 % FPR", "share of members disclosed".
        value: the figure; None where it cannot be computed, see `detail`.
        low: lower end of its 95 % interval.
        high: upper end.
        control: the same statistic where nothing can have leaked: the holdout, a guess without the release,
            or chance; `detail` says which.
        p_value: of the null hypothesis that nothing leaked; None where the figure only describes.
        n_members: members (or canaries inserted) that were tested.
        n_nonmembers: non-members (or canaries held back).
        decides: whether `p_value` takes part in the verdict. One attack counts once: of several statistics of
            one attack, only the first decides.
        is_leak: a leak by itself, whatever the statistics say (a long verbatim run of a member's text).
        detail: how it was measured, in a sentence.
    """

    family: Family
    attack: str
    statistic: str
    value: float | None
    low: float | None = None
    high: float | None = None
    control: float | None = None
    p_value: float | None = None
    n_members: int
    n_nonmembers: int
    decides: bool = False
    is_leak: bool = False
    detail: str = ""
