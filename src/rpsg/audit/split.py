"""Random parts of one source: who is a member is decided by a secret coin, not by how the data arrived."""

import hashlib
import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from rpsg.audit.finding import Game
from rpsg.errors import DataError
from rpsg.text import words_alone
from rpsg.types import PrivateCorpus, PrivateRecord


def pool_corpora(corpora: Sequence[PrivateCorpus]) -> PrivateCorpus:
    """Puts data sets together; texts that occur more than once, word for word, are kept once.

    Without a unit column, ids may repeat between files: each record becomes its own unit under a new id.

    Raises:
        DataError: nothing is left.
    """
    first = corpora[0]
    seen: set[str] = set()
    records: list[PrivateRecord] = []
    for position, corpus in enumerate(corpora):
        for record in corpus.records:
            key = words_alone(record.text)
            if key in seen:
                continue
            seen.add(key)
            record_id = f"{position}:{record.record_id}"
            unit = record.unit_id if corpus.has_units else record_id
            records.append(replace(record, record_id=record_id, unit_id=unit))
    if not records:
        raise DataError("the files hold no text")
    return replace(first, records=tuple(records))


def split_by_coin(corpus: PrivateCorpus, *, key: bytes | None = None) -> tuple[PrivateCorpus, PrivateCorpus]:
    """Assigns half of the units to each side.

    Within each combination of labels (of a unit's first record) units are ordered by a keyed hash, and every
    other one is a member, so the sides have the same labels to within one unit each. Sizes are fixed: a bound
    on epsilon from such a split is one of replacing a unit, not of adding or removing one.

    Args:
        corpus: the data.
        key: of the hash; None draws a fresh secret, so that nobody can have known the sides before.

    Returns:
        Members and non-members, each in input order.
    """
    secret = key or secrets.token_bytes(32)
    strata: dict[tuple[tuple[str, str], ...], set[str]] = defaultdict(set)
    known: set[str] = set()
    for record in corpus.records:
        if record.unit_id not in known:
            known.add(record.unit_id)
            strata[tuple(sorted(record.labels.items()))].add(record.unit_id)
    members: set[str] = set()
    # Strata of odd size take turns in who gets the unit too many.
    offset = 0
    for labels in sorted(strata):
        ordered = sorted(strata[labels], key=lambda unit: _hash(unit, secret))
        members.update(ordered[offset::2])
        offset = (offset + len(ordered)) % 2
    return (
        replace(corpus, records=tuple(r for r in corpus.records if r.unit_id in members)),
        replace(corpus, records=tuple(r for r in corpus.records if r.unit_id not in members)),
    )


def _hash(unit: str, key: bytes) -> bytes:
    return hashlib.blake2b(unit.encode(), key=key).digest()


def without_repeats(corpus: PrivateCorpus) -> tuple[PrivateCorpus, int]:
    """Keeps each text once, word for word; returns how many records were left out.

    A text that two units have is nobody's own, so that a copy of it would not be seen.
    """
    kept = {words_alone(record.text): record for record in reversed(corpus.records)}
    first = {record.record_id for record in kept.values()}
    records = tuple(record for record in corpus.records if record.record_id in first)
    return replace(corpus, records=records), len(corpus) - len(records)


def without_shared(
    members: PrivateCorpus, nonmembers: PrivateCorpus
) -> tuple[PrivateCorpus, PrivateCorpus, int]:
    """Leaves out units with a text that the other side has, word for word; returns how many those were."""
    texts = [{words_alone(record.text) for record in side.records} for side in (members, nonmembers)]
    shared = texts[0] & texts[1]
    sides, n_left_out = [], 0
    for side in (members, nonmembers):
        units = {record.unit_id for record in side.records if words_alone(record.text) in shared}
        n_left_out += len(units)
        kept = tuple(record for record in side.records if record.unit_id not in units)
        sides.append(replace(side, records=kept))
    return sides[0], sides[1], n_left_out


def game_of(
    members: PrivateCorpus,
    nonmembers: PrivateCorpus,
    synthetic: Sequence[str],
    *,
    public: Sequence[str] = (),
    seed: int = 0,
) -> Game:
    """Returns the game of two data sets and a release."""
    return Game(
        members=tuple(record.text for record in members.records),
        nonmembers=tuple(record.text for record in nonmembers.records),
        member_units=_units(members, "m"),
        nonmember_units=_units(nonmembers, "n"),
        member_labels=tuple(repr(sorted(record.labels.items())) for record in members.records),
        synthetic=tuple(synthetic),
        public=tuple(public),
        seed=seed,
    )


def _units(corpus: PrivateCorpus, side: str) -> tuple[str, ...]:
    # Row numbers of two files say nothing of who is the same person; named units do.
    prefix = "" if corpus.has_units else f"{side}:"
    return tuple(prefix + record.unit_id for record in corpus.records)
