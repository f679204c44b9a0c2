"""The outcome of an audit, and the file it is written to."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path

from rpsg.audit.control import Control
from rpsg.audit.finding import Finding
from rpsg.audit.verdict import LEAK, Verdict
from rpsg.rundir import write_json

FORMAT = 1
FILE = "audit.json"
# An earlier audit of the same texts that found a leak.
EARLIER = "audit-leak.json"
_READING = (
    "Each attack sees the released text only and guesses which private records it was made from. value has a "
    "95 % interval (low, high); control is the same figure where nothing can have leaked. p_value is of the "
    "hypothesis that nothing leaked; only findings that decide take part in the verdict. A failed attack is "
    "no proof: another may succeed. The figures were computed from private data without noise: keep this "
    "file as private as they are."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        verdict: the conclusion.
        control: what a classifier without the release reached.
        findings: of every attack.
        n_members: member units.
        n_nonmembers: non-member units.
        n_synthetic: released texts.
        relation: which neighbouring relation a bound on epsilon from this split is about.
        seconds: group of attacks to time.
        seed: fixes every draw.
        notes: what the reader must know; counts only.
    """

    verdict: Verdict
    control: Control
    findings: tuple[Finding, ...]
    n_members: int
    n_nonmembers: int
    n_synthetic: int
    relation: str
    seconds: dict[str, float]
    seed: int
    notes: tuple[str, ...] = ()
    texts_digest: str = ""

    def document(self) -> dict[str, object]:
        """Returns the content of audit.json."""
        return {
            "format": FORMAT,
            "how_to_read": _READING,
            "verdict": self.verdict.word,
            "reasons": list(self.verdict.reasons),
            "p_smallest_adjusted": self.verdict.p_smallest,
            "control_without_release": asdict(self.control),
            "units": {"members": self.n_members, "nonmembers": self.n_nonmembers},
            "n_synthetic": self.n_synthetic,
            "texts_digest": self.texts_digest,
            "detectable_auc": detectable_auc(self.n_members, self.n_nonmembers),
            "relation": self.relation,
            "seed": self.seed,
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
            "notes": list(self.notes),
            "findings": [asdict(item) for item in self.findings],
        }


def detectable_auc(n_members: int, n_nonmembers: int) -> float:
    """Returns the AUC that one rank test at p < 0.01 finds with probability 0.8 (normal approximation)."""
    deviation = sqrt((n_members + n_nonmembers + 1) / (12 * n_members * n_nonmembers))
    # 2.326 and 0.842 are the normal quantiles of 0.99 and 0.8.
    return min(1.0, 0.5 + (2.326 + 0.842) * deviation)


def write_audit(audit: Audit, folder: Path) -> Audit:
    """Writes audit.json, which only its owner can read; a new folder is closed to others too.

    A leak that an earlier audit of the same texts found there stands, in a file of its own: a weaker attack
    does not undo it.

    Returns:
        The audit, with the verdict that stands.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path, kept = folder / FILE, folder / EARLIER
    # What is kept may be of texts that were released before these.
    if _found_leak(path, audit) and not _found_leak(kept, audit):
        path.replace(kept)
    if audit.verdict.word != LEAK and _found_leak(kept, audit):
        reason = f"an earlier audit of these texts found a leak ({EARLIER}); this one: {audit.verdict.word}"
        audit = replace(
            audit, verdict=replace(audit.verdict, word=LEAK, reasons=(reason, *audit.verdict.reasons))
        )
    write_json(path, audit.document(), private=True)
    return audit


def _found_leak(path: Path, audit: Audit) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    is_same = isinstance(found, Mapping) and found.get("texts_digest") == audit.texts_digest != ""
    return is_same and found.get("verdict") == LEAK
