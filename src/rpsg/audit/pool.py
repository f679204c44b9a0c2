"""Members and non-members mixed: attacks score them without knowing which is which.

Every score depends on the pool and the release, never on membership. So under the null hypothesis that
nothing leaked any assignment of the labels was equally likely, and permuting them gives exact p-values
whatever the attack and however its scores depend on each other.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from rpsg.audit.finding import Game
from rpsg.errors import DataError
from rpsg.rng import Streams
from rpsg.text import words_alone, words_of

BoolArray = npt.NDArray[np.bool_]
FloatVector = npt.NDArray[np.float64]
IntVector = npt.NDArray[np.int64]
MIN_UNITS = 20


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Pool:
    """All private texts of a game in an order that says nothing of membership.

    Attributes:
        texts: members' and non-members' texts, shuffled.
        units: row of the unit that each text belongs to, shape (n_texts,).
        is_member: one value a unit, shape (n_units,). No attack may read it.
        seed: fixes every draw.
    """

    texts: tuple[str, ...]
    units: IntVector
    is_member: BoolArray
    seed: int

    def __repr__(self) -> str:
        return f"Pool(<{len(self.texts)} texts of {self.n_units} units>)"

    @classmethod
    def of(cls, game: Game) -> Self:
        """Mixes a game's texts.

        Raises:
            DataError: a unit or a text is on both sides, a side has fewer than 20 units, or no text holds a
            word.
        """
        sides = (
            _keys(game.members, game.member_units, "m"),
            _keys(game.nonmembers, game.nonmember_units, "n"),
        )
        _check(game, sides)
        names = sorted({*sides[0], *sides[1]})
        streams = Streams(game.seed)
        # Neither the order of texts nor the number of a unit may tell the side.
        rows = streams.get("audit pool").permutation(len(names))
        row_of = dict(zip(names, rows.tolist(), strict=True))
        texts, keys = (*game.members, *game.nonmembers), (*sides[0], *sides[1])
        order = streams.get("audit order").permutation(len(texts))
        is_member = np.zeros(len(names), dtype=bool)
        is_member[[row_of[key] for key in sides[0]]] = True
        return cls(
            texts=tuple(texts[i] for i in order),
            units=np.array([row_of[keys[i]] for i in order]),
            is_member=is_member,
            seed=game.seed,
        )

    @property
    def n_units(self) -> int:
        """Units on both sides."""
        return len(self.is_member)

    @property
    def n_members(self) -> int:
        """Member units."""
        return int(self.is_member.sum())

    @property
    def n_nonmembers(self) -> int:
        """Non-member units."""
        return self.n_units - self.n_members

    def assignments(self, n: int, rng: np.random.Generator) -> BoolArray:
        """Draws assignments of membership that were as likely as the true one, shape (n, n_units).

        Units exchange sides with units of as many texts only: a unit's highest score grows with their number,
        and a split by records, not units, need not treat large units as it treats small ones.
        """
        drawn = np.tile(self.is_member, (n, 1))
        sizes = np.bincount(self.units, minlength=self.n_units)
        for size in np.unique(sizes):
            alike = np.flatnonzero(sizes == size)
            drawn[:, alike] = rng.permuted(drawn[:, alike], axis=1)
        return drawn

    def by_unit(self, scores: FloatVector) -> FloatVector:
        """Returns each unit's highest score, shape (n_units,), from one score a text."""
        highest = np.full(self.n_units, -np.inf)
        np.maximum.at(highest, self.units, scores)
        return highest

    def restrict(self, chosen: BoolArray) -> "Pool":
        """Returns the pool of some units, given as a mask over units."""
        row = np.cumsum(chosen) - 1
        kept = np.flatnonzero(chosen[self.units])
        return Pool(
            texts=tuple(self.texts[i] for i in kept),
            units=row[self.units[kept]],
            is_member=self.is_member[chosen],
            seed=self.seed,
        )

    def halves(self, *name: str | int) -> BoolArray:
        """Returns a random half of the units as a mask over texts; it ignores membership."""
        chosen = np.zeros(self.n_units, dtype=bool)
        order = Streams(self.seed).get("audit half", *name).permutation(self.n_units)
        chosen[order[: self.n_units // 2]] = True
        half: BoolArray = chosen[self.units]
        return half


def _keys(texts: tuple[str, ...], units: tuple[str, ...], side: str) -> list[str]:
    return list(units) if units else [f"{side}{i}" for i in range(len(texts))]


def _check(game: Game, sides: tuple[list[str], list[str]]) -> None:
    for keys, texts, name in zip(
        sides, (game.members, game.nonmembers), ("member", "non-member"), strict=True
    ):
        if len(keys) != len(texts):
            raise DataError(f"{len(texts)} {name} texts and {len(keys)} units: give one unit a text")
        if len(set(keys)) < MIN_UNITS:
            raise DataError(
                f"only {len(set(keys))} {name}s: an audit needs at least {MIN_UNITS} on each side, and some "
                "hundreds to say much"
            )
    if not any(map(words_of, (*game.members, *game.nonmembers))):
        raise DataError("no member or non-member text holds a word; the attacks compare words")
    n_both = len(set(sides[0]) & set(sides[1]))
    if n_both:
        raise DataError(f"{n_both} units are both members and non-members; the two must be disjoint")
    by_words = [set(map(words_alone, texts)) for texts in (game.members, game.nonmembers)]
    n_same = len(by_words[0] & by_words[1])
    if n_same:
        raise DataError(
            f"{n_same} texts are both members and non-members, word for word; remove duplicates before the "
            "data are split"
        )
    if not game.synthetic:
        raise DataError("there is no synthetic text to audit")
    public = set(map(words_alone, game.public))
    released = set(map(words_alone, game.synthetic))
    for own, name in ((by_words[0], "member"), (by_words[1], "non-member"), (released, "synthetic")):
        n_known = len(own & public)
        if n_known > len(own) / 2:
            raise DataError(
                f"{n_known} of {len(own)} {name} texts are among the public texts too, and runs of words "
                "that are public are nobody's own; give public texts that are neither private nor released"
            )
