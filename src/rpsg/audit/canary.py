"""Canaries: records made up for an audit, each put into the data or left out by a blinded coin.

A coin is thrown for every canary on its own, with secure randomness, after its text is finished. So whether
a canary is in says nothing of its length, label or wording, and what the release shows of the coins bounds
the epsilon of adding or removing one unit (`rpsg.audit.lower_bounds`). The coins stand in the secrets file
alone: never in the data, the mark, a message or a run folder.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pydantic import TypeAdapter, ValidationError

from rpsg.errors import ConfigError, DataError
from rpsg.types import Labels

Kind = Literal["suffix", "sampled", "fact", "tail"]
Method = Literal["instruction", "near_duplicate", "injection"]
ScoreName = Literal[
    "nearest", "rare_words", "longest_run", "bigram_ratio", "fact_exact", "fact_fuzzy",
    "lm_refer", "lm_rmia", "lm_min_k",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
REPETITIONS = (1, 4, 16)
# Beyond it the data are no longer what the clean product will be made from.
MAX_SHARE = 0.1
MIN_CANARIES = 20
# Which score guesses is decided before anything is released. Wording survives no rewriting, so canaries with
# rare words are looked for by these, and those in ordinary words by the likelihood of their word pairs.
PRIMARY: Mapping[Kind, ScoreName] = {
    "suffix": "rare_words",
    "sampled": "bigram_ratio",
    "fact": "fact_fuzzy",
    "tail": "rare_words",
}
# Those that every kind has, without a language model.
_FOR_ALL = ("nearest", "rare_words", "longest_run", "bigram_ratio")
# Shares of the canaries that are guessed, highest scores first. With all of them, those in the lower of two
# clusters of scores are guessed "out"; few guesses suit a release that leaks few canaries and hides others.
GUESS_SHARES = (1.0, 0.25, 0.05)
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A rare tuple: who knows place and number can look for the value.

    Attributes:
        place: a made-up town.
        number: of people or days.
        value: the hidden attribute, a made-up drug; equally likely each of `choices`.
        choices: what it could have been; no two canaries share one.
    """

    place: str
    number: int
    value: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Canary:
    """One canary and the result of its coin.

    Attributes:
        canary_id: random.
        kind: how it was made.
        text: the text.
        labels: those of a record drawn at random.
        n_rep: how many records repeat it: a group of so many records, or one unit's records where the data
            name units.
        is_in: the coin.
        unit_id: whom the data say it belongs to; "" without a unit column.
        fact: of a fact canary.
    """

    canary_id: str
    kind: Kind
    text: str
    labels: Labels
    n_rep: int
    is_in: bool
    unit_id: str = ""
    fact: Fact | None = None

    def __repr__(self) -> str:
        return f"Canary(<{self.kind}, {self.n_rep} records>)"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Poison:
    """A crafted record, in the data whatever the coins say.

    Attributes:
        canary_id: the target.
        method: how it tries to pull the target out.
        text: the text.
        unit_id: whom the data say it belongs to; "" without a unit column.
    """

    canary_id: str
    method: Method
    text: str
    unit_id: str = ""

    def __repr__(self) -> str:
        return f"Poison(<{self.method}>)"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Secrets:
    """All canaries, and what was decided before anything was released.

    Attributes:
        canaries: in and out.
        has_units: whether repetitions of a canary belong to one unit.
        primary: the score that guesses, by kind.
        guess_shares: shares of canaries guessed; each of them is tested at its part of the error.
        poisons: records that aim at some of the canaries.
    """

    canaries: tuple[Canary, ...]
    has_units: bool
    primary: Mapping[Kind, ScoreName] = field(default_factory=lambda: dict(PRIMARY))
    guess_shares: tuple[float, ...] = GUESS_SHARES
    poisons: tuple[Poison, ...] = ()

    def __repr__(self) -> str:
        return f"Secrets(<{len(self.canaries)} canaries>)"

    def of_kind(self, kind: Kind) -> tuple[Canary, ...]:
        """Returns the canaries of one kind."""
        return tuple(item for item in self.canaries if item.kind == kind)

    def groups(self) -> Mapping[int, tuple[Canary, ...]]:
        """Returns canaries by how many units a coin moves: one bound of epsilon each."""
        if self.has_units:
            return {1: self.canaries}
        sizes = sorted({item.n_rep for item in self.canaries})
        return {size: tuple(item for item in self.canaries if item.n_rep == size) for size in sizes}


def to_json(secrets: Secrets) -> str:
    """Returns the secrets file's content."""
    return json.dumps({"version": _VERSION, **asdict(secrets)}, indent=1, ensure_ascii=False) + "\n"


def read_secrets(path: Path) -> Secrets:
    """Reads a secrets file.

    Raises:
        DataError: it is missing or none; the message quotes nothing of it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and values.pop("version", None) == _VERSION:
            found = TypeAdapter(Secrets).validate_json(json.dumps(values))
            if _can_be_scored(found):
                return found
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name the file of --secrets") from None
    except (ValidationError, ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{path} is no secrets file of this version; name what rpsg canary plant wrote")


def _can_be_scored(secrets: Secrets) -> bool:
    """Tells whether a file that reads as secrets is one that `rpsg canary plant` can have written."""
    kinds = {item.kind for item in secrets.canaries}
    return (
        bool(kinds)
        and all(secrets.primary.get(kind) in {PRIMARY[kind], *_FOR_ALL} for kind in kinds)
        and bool(secrets.guess_shares)
        and all(0 < share <= 1 for share in secrets.guess_shares)
    )


def check_plan(n_canaries: int, repetitions: Sequence[int], n_records: int, n_poisons: int = 0) -> None:
    """Refuses too few canaries to prove anything, and so many that they would shape the release.

    The share is what it would be if every coin fell on "in", so that the refusal says nothing of the coins.

    Raises:
        ConfigError: with the numbers that would do.
    """
    if n_canaries < MIN_CANARIES:
        raise ConfigError(
            f"{n_canaries} canaries prove nothing; plant at least {MIN_CANARIES}: 100 for a smoke test, 500 "
            "or more to certify an epsilon near 4"
        )
    wrong = [size for size in repetitions if size not in REPETITIONS]
    if wrong or not repetitions:
        raise ConfigError(
            f"a canary stands in {', '.join(map(str, REPETITIONS))} records (given: "
            f"{', '.join(map(str, wrong)) or 'nothing'})"
        )
    most = n_poisons + sum(repetitions[i % len(repetitions)] for i in range(n_canaries))
    # The small terms keep whole numbers whole.
    room = math.floor(n_records * MAX_SHARE / (1 - MAX_SHARE) + 1e-9)
    if most > room:
        needed = math.ceil(most * (1 - MAX_SHARE) / MAX_SHARE - 1e-9)
        what = "canaries and poisons" if n_poisons else "canaries"
        raise ConfigError(
            f"{n_canaries + n_poisons} {what} in up to {most} records could be more than {MAX_SHARE:.0%} of "
            f"the data; these {n_records} records hold up to {room}: plant fewer, repeat them less, or bring "
            f"{needed} records"
        )
